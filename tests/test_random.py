"""Random numbers: Philox to the word, the same on every instruction set and thread count, with the right moments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from cases import ISAS, kernels

import fastbp
import fastbp.nn.functional as F
from fastbp import _core
from fastbp.reference import OPS, philox4x32, random_words, uniform_float32, uniform_float64
from fastbp.testing.replay import to_numpy

SEED, OFFSET = 0x0123456789ABCDEF, 2**33 + 5


def draw(name: str, shape: tuple[int, ...], dtype: str = "float32", **attributes: object) -> np.ndarray:
    words = {"seed": SEED, "offset": OFFSET, **attributes, "shape": shape, "dtype": dtype}
    return _core._apply(name, [], words).numpy()


SOURCES: dict[str, Callable[[int], np.ndarray]] = {
    "uniform": lambda n: draw("uniform", (n,), p=(-1.0, 3.0)),
    "uniform64": lambda n: draw("uniform", (n,), "float64", p=(0.0, 1.0)),
    "normal": lambda n: draw("normal", (n,), p=(0.0, 1.0)),
    "normal64": lambda n: draw("normal", (n,), "float64", p=(1.0, 2.0)),
    "exponential": lambda n: draw("exponential", (n,), p=(2.0,)),
    "exponential64": lambda n: draw("exponential", (n,), "float64", p=(1.0,)),
    "randint": lambda n: draw("randint", (n,), "int64", integer=(-3, 1000)),
    "randint of all": lambda n: draw("randint", (n,), "int64", integer=(-(2**63), 2**63 - 1)),
    "bernoulli": lambda n: draw("bernoulli", (n,), "bool", p=(0.3,)),
    "permutation": lambda n: draw("permutation", (n,), "int64"),
}


def test_philox_known_words() -> None:
    """The authors' own vectors (Random123's kat_vectors), and the kernels' uniform numbers made of such words."""
    assert philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert philox4x32((ones,) * 4, (ones,) * 2) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    found = draw("uniform", (4,), p=(0.0, 1.0), seed=0, offset=0)
    assert found.tolist() == [uniform_float32(w) for w in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]


@pytest.mark.parametrize("isa", ISAS)
def test_words_are_philoxs(isa: str) -> None:
    with kernels(isa):
        words = list(itertools.islice(random_words(SEED, OFFSET), 2 * 333))
        assert draw("uniform", (333,), p=(0.0, 1.0)).tolist() == [uniform_float32(w) for w in words[:333]]
        pairs = [uniform_float64(a, b) for a, b in zip(words[::2], words[1::2], strict=True)]
        assert draw("uniform", (333,), "float64", p=(0.0, 1.0)).tolist() == pairs


@pytest.mark.parametrize("name", SOURCES)
def test_every_instruction_set_and_thread_count_draws_the_same(name: str) -> None:
    for n in (1, 5, 67, 30_011):
        with kernels(ISAS[0]), fastbp.threads(1):
            first = SOURCES[name](n).tobytes()
        for isa in ISAS:
            for count in (1, 2, 7) if n > 1000 else (1,):
                with kernels(isa), fastbp.threads(count):
                    assert SOURCES[name](n).tobytes() == first, f"{name}: {n} numbers, {isa}, {count} threads"


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "permutation"])
def test_a_longer_draw_begins_as_a_shorter_one(name: str) -> None:
    longest = SOURCES[name](257)
    for n in range(70):
        assert np.array_equal(SOURCES[name](n), longest[:n])


def test_the_counters_carry() -> None:
    """Blocks go on over the edge of the low word of the counter."""
    edge = 2**32 - 3
    across = draw("uniform", (64,), p=(0.0, 1.0), offset=edge)
    wanted = to_numpy(OPS["uniform"].forward(size=(64,), seed=SEED, offset=edge))
    assert np.array_equal(across, wanted.astype(np.float32))


N = 400_000
# Bounds are 5 standard errors: a right generator fails one such check in some two million.
SIGMAS = 5.0


def assert_mean(values: np.ndarray, mean: float, deviation: float, what: str) -> None:
    error = abs(float(values.mean(dtype=np.float64)) - mean)
    assert error <= SIGMAS * deviation / math.sqrt(values.size), f"{what}: off by {error}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments(dtype: str) -> None:
    uniform = draw("uniform", (N,), dtype, p=(0.0, 1.0)).astype(np.float64)
    assert uniform.min() >= 0.0 and uniform.max() < 1.0
    for power in (1, 2, 3, 4):
        mean, second = 1 / (power + 1), 1 / (2 * power + 1)
        assert_mean(uniform**power, mean, math.sqrt(second - mean * mean), f"uniform**{power}")
    normal = draw("normal", (N,), dtype, p=(0.0, 1.0)).astype(np.float64)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert_mean(normal**power, mean, math.sqrt(variance), f"normal**{power}")
    exponential = draw("exponential", (N,), dtype, p=(2.0,)).astype(np.float64)
    assert exponential.min() >= 0.0 and np.isfinite(exponential).all()
    for power in (1, 2, 3):
        mean = math.factorial(power) / 2.0**power
        second = math.factorial(2 * power) / 4.0**power
        assert_mean(exponential**power, mean, math.sqrt(second - mean * mean), f"exponential**{power}")
    for values in (uniform - 0.5, normal):  # neighbours, and numbers of one block, do not move together
        for lag in (1, 2, 3, 4, 8):
            product = values[lag:] * values[:-lag]
            assert_mean(product, 0.0, float(values.var()), f"lag {lag}")


def test_whole_numbers_are_equally_likely() -> None:
    counts = np.bincount(draw("randint", (N,), "int64", integer=(0, 37)), minlength=37)
    expected = N / 37
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 36 + SIGMAS * math.sqrt(72)
    kept = draw("bernoulli", (N,), "bool", p=(0.3,))
    assert_mean(kept.astype(np.float64), 0.3, math.sqrt(0.21), "bernoulli")
    assert not draw("bernoulli", (1000,), "bool", p=(0.0,)).any()
    assert draw("bernoulli", (1000,), "bool", p=(1.0,)).all()


def test_permutations_are_permutations_and_equally_likely() -> None:
    for n in (0, 1, 2, 100):
        assert sorted(draw("permutation", (n,), "int64").tolist()) == list(range(n))
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(2400):
        order = tuple(draw("permutation", (4,), "int64", seed=seed).tolist())
        seen[order] = seen.get(order, 0) + 1
    chi_squared = sum((count - 100) ** 2 / 100 for count in seen.values())
    assert len(seen) == 24 and chi_squared < 23 + SIGMAS * math.sqrt(46)


def test_dropout_scales_what_it_keeps() -> None:
    x = fastbp.ones(N, dtype=fastbp.float64, requires_grad=True)
    y = F.dropout(x, 0.25)
    assert set(np.unique(y.detach().numpy())) == {0.0, 1.0 / 0.75}
    assert_mean((y.detach().numpy() != 0).astype(np.float64), 0.75, math.sqrt(0.1875), "dropout")
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), y.detach().numpy())


def test_the_seed_says_it_all() -> None:
    def numbers() -> list[bytes]:
        return [
            fastbp.rand(5, 7).numpy().tobytes(),
            fastbp.randn(5, 7, dtype=fastbp.float64).numpy().tobytes(),
            fastbp.randint(0, 9, (11,)).numpy().tobytes(),
            fastbp.randperm(20).numpy().tobytes(),
            fastbp.bernoulli(fastbp.full((50,), 0.5)).numpy().tobytes(),
            F.dropout(fastbp.ones(50)).numpy().tobytes(),
        ]

    fastbp.manual_seed(11)
    first, going_on = numbers(), numbers()
    fastbp.manual_seed(11)
    assert numbers() == first and first != going_on
    state = fastbp.get_rng_state()
    wanted = numbers()
    fastbp.set_rng_state(state)
    assert numbers() == wanted
    fastbp.manual_seed(12)
    assert numbers() != first
