"""Profiles of compiled steps: what a table of times must hold whatever the times are. No test judges a time."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, _profile, nn

DTYPES = ("float32", "float64")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure the machine anew and coarsely: what a figure is does not matter here."""
    for name in ("COPY_SECONDS", "PRODUCT_SECONDS", "CLOCK_SECONDS"):
        monkeypatch.setattr(_profile, name, 0.0)
    monkeypatch.setattr(_profile, "_machines", {})
    _profile.clock_seconds.cache_clear()
    yield
    _profile.clock_seconds.cache_clear()


class FakeMachine(_profile.Machine):
    """100 GFLOP/s in float32, half of it in float64; 400, 300, 200, 100 GB/s from the smallest copy to the largest."""

    def __init__(self) -> None:
        super().__init__("scalar", 1)
        self._peaks = {"float32": 100e9, "float64": 50e9}
        self._bandwidths = dict(zip(_profile.COPY_SIZES, (400e9, 300e9, 200e9, 100e9), strict=True))


def a_step(name: str, flops: float, size: float, dtype: str | None = "float32") -> dict[str, Any]:
    return {"name": name, "shape": None if dtype is None else (3, 4), "dtype": dtype, "flops": flops, "bytes": size}


def training_step(dtype: str = "float32", rate: float = 0.01) -> tuple[Any, Any, list[fastbp.Tensor], Any]:
    """A compiled step of a small network with Adam: (step, model, arguments, optimizer)."""
    kind = getattr(fastbp, dtype)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)).to(kind)
    optimizer = fastbp.optim.Adam(model.parameters(), lr=rate)

    @fastbp.compile
    def step(x: fastbp.Tensor, y: fastbp.Tensor) -> fastbp.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x = fastbp.randn(8, 6, dtype=kind)
    y = fastbp.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    step(x, y)
    return step, model, [x, y], optimizer


def check_rows(profile: _profile.Profile, steps: list[dict[str, Any]], calls: int) -> None:
    """All that the rows and the total must fulfil."""
    assert len(profile.rows) == len(steps)
    for row, step in zip(profile.rows, steps, strict=True):
        assert {key: getattr(row, key) for key in ("name", "shape", "dtype", "flops", "bytes")} == {
            key: step[key] for key in ("name", "shape", "dtype", "flops", "bytes")
        }
        assert row.calls == calls
        assert row.seconds >= _profile.LEAST_SECONDS
        assert row.gflops_per_second == pytest.approx(step["flops"] / row.seconds / 1e9, rel=1e-12)
        assert row.gbytes_per_second == pytest.approx(step["bytes"] / row.seconds / 1e9, rel=1e-12)
        peak = profile.peaks["float64" if step["dtype"] == "float64" else "float32"]
        bandwidth = profile.bandwidths[_profile.copy_size_for(step["bytes"])]
        least = max(step["flops"] / peak, step["bytes"] / bandwidth)
        assert row.roofline_share == pytest.approx(least / row.seconds, rel=1e-12)
    total = profile.total
    assert (total.name, total.calls, total.shape) == ("total", calls, None)
    for name in ("seconds", "flops", "bytes"):
        assert getattr(total, name) == pytest.approx(sum(getattr(row, name) for row in profile.rows), rel=1e-12)
    assert sum(row.share for row in profile.rows) == pytest.approx(1.0, rel=1e-12)
    least_sum = sum(row.roofline_share * row.seconds for row in profile.rows)
    assert total.roofline_share == pytest.approx(least_sum / total.seconds, rel=1e-12)


# ------------------------------------------------------------------------------------------- the formula


# flops, bytes, seconds, peak, bandwidth, share: bound by its operations, by its bytes, by both, by nothing.
SHARES = [
    (8e9, 1e9, 0.1, 100e9, 50e9, 0.8),
    (1e9, 4e9, 0.1, 100e9, 50e9, 0.8),
    (5e9, 2.5e9, 0.2, 100e9, 50e9, 0.25),
    (0.0, 0.0, 0.1, 100e9, 50e9, 0.0),
]


def check_shares(share: Callable[..., float]) -> None:
    for *arguments, expected in SHARES:
        assert share(*arguments) == pytest.approx(expected, rel=1e-12)


def test_share_of_the_roofline() -> None:
    check_shares(_profile.roofline_share)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda f, b, s, p, w: min(f / p, b / w) / s, id="lesser of the two"),
        pytest.param(lambda f, b, s, p, w: (f / p + b / w) / s, id="one after the other"),
        pytest.param(lambda f, b, s, p, w: f / p / s, id="operations alone"),
        pytest.param(lambda f, b, s, p, w: b / w / s, id="bytes alone"),
        pytest.param(lambda f, b, s, p, w: max(f / w, b / p) / s, id="rates swapped"),
        pytest.param(lambda f, b, s, p, w: max(f / p, b / w), id="not a share"),
        pytest.param(lambda f, b, s, p, w: 8 * max(f / p, b / w) / s, id="bits for bytes"),
        pytest.param(lambda f, b, s, p, w: min(max(f / p, b / w) / s, 0.5), id="cut off"),
    ],
)
def test_planted_wrong_shares_are_caught(wrong: Callable[..., float]) -> None:
    with pytest.raises(AssertionError):
        check_shares(wrong)


def test_planted_wrong_share_in_a_profile_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [a_step("matmul", 2e5, 3e4), a_step("sum", 10.0, 1e5)]
    check_rows(_profile.summarize(steps, [1e-3, 2e-3], 10, FakeMachine(), 0.0), steps, 10)
    monkeypatch.setattr(_profile, "roofline_share", lambda f, b, s, p, w: min(f / p, b / w) / s)
    with pytest.raises(AssertionError):
        check_rows(_profile.summarize(steps, [1e-3, 2e-3], 10, FakeMachine(), 0.0), steps, 10)


@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        (0, 0),
        (32 << 10, 0),
        ((32 << 10) + 1, 1),
        (512 << 10, 1),
        (1 << 20, 2),
        (5 << 20, 3),
        (64 << 20, 3),
        (1 << 40, 3),
    ],
)
def test_bandwidth_is_that_of_the_copy_next_above(size: int, chosen: int) -> None:
    assert _profile.copy_size_for(size) == _profile.COPY_SIZES[chosen]


# ------------------------------------------------------------------------------------------- from sums to rows


def test_figures_of_known_times() -> None:
    """By hand: 10 calls, 20 ns of clock a step, 100 (50) GFLOP/s, 400 GB/s to 32 KiB and 100 GB/s beyond 4 MiB."""
    steps = [a_step("matmul", 1e6, 4000.0), a_step("add", 1e6, 8e6, "float64"), a_step("less", 10.0, 40.0, "bool")]
    profile = _profile.summarize(steps, [10 * 20.02e-6, 10 * 160.02e-6, 10 * 5e-9], 10, FakeMachine(), 20e-9)
    product, addition, shorter = profile.rows
    assert product.seconds == pytest.approx(20e-6)
    assert product.gflops_per_second == pytest.approx(50.0)
    assert product.roofline_share == pytest.approx(0.5)
    assert addition.gbytes_per_second == pytest.approx(50.0)
    assert addition.roofline_share == pytest.approx(0.5)  # 80 us for its bytes, 20 us for its operations
    assert shorter.seconds == _profile.LEAST_SECONDS  # shorter than the clock's reading
    assert profile.total.roofline_share == pytest.approx(90e-6 / 180e-6, rel=1e-4)
    assert (profile.peaks, list(profile.bandwidths)) == (
        {"float32": 100e9, "float64": 50e9},
        [_profile.COPY_SIZES[0], _profile.COPY_SIZES[3]],
    )
    check_rows(profile, steps, 10)


def test_plan_without_steps() -> None:
    profile = _profile.summarize([], [], 5, FakeMachine(), 0.0)
    assert profile.rows == []
    assert (profile.total.seconds, profile.total.share, profile.total.roofline_share) == (0, 0.0, 0.0)
    assert str(profile).startswith("profile of 0 steps, 5 calls\n")


def test_printed_table() -> None:
    steps = [a_step("matmul", 1e6, 4000.0), a_step("x" * 60, 10.0, 8e6, None)]
    profile = _profile.summarize(steps, [1e-4, 3e-4], 10, FakeMachine(), 2e-8)
    name = "x" * 45 + "..."
    assert (
        str(profile).splitlines()
        == f"""\
profile of 2 steps, 10 calls
   step{" " * 46}result          calls      us    time      flops      bytes  GFLOP/s    GB/s  roofline
0  matmul{" " * 44}float32 (3, 4)     10   9.980   25.0%  1,000,000      4,000   100.20    0.40    100.2%
1  {name}                     10  29.980   75.0%         10  8,000,000     0.00  266.84    266.8%
   total{" " * 45}                   10  39.960  100.0%  1,000,010  8,004,000    25.03  200.30    225.2%
roofline, measured: peak 100.0 GFLOP/s (float32); bandwidth 400.0 GB/s (32 KiB), 100.0 GB/s (64 MiB); scalar, 1 thread
each step's time is without 20 ns for reading the clock""".splitlines()
    )
    assert repr(profile) == str(profile)


# ------------------------------------------------------------------------------------------- whole profiles


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dtype", DTYPES)
def test_training_step(dtype: str) -> None:
    step, _, arguments, _ = training_step(dtype)
    profile = step.profile(*arguments, repeat=7)
    check_rows(profile, step.plan.steps, 7)
    assert dtype in profile.peaks
    assert (profile.isa, profile.threads) == (_core.get_isa(), fastbp.get_num_threads())
    assert all(rate > 0 for rate in (*profile.peaks.values(), *profile.bandwidths.values()))
    assert profile.clock >= 0


@pytest.mark.usefixtures("quick")
def test_effects_happen_once_a_run() -> None:
    step, model, arguments, optimizer = training_step()
    before = [x.detach().numpy().copy() for x in model.parameters()]
    step.profile(*arguments, repeat=5)
    runs = 1 + 5 + _profile.WARM_UPS
    assert {int(state["step"]) for state in optimizer.state.values()} == {runs}
    assert all((x.detach().numpy() != old).any() for x, old in zip(model.parameters(), before, strict=True))

    # The same steps by calls lead to the same parameters: neither times nor measurements get in between.
    fastbp.manual_seed(0)
    again, twin, same, _ = training_step()
    for _ in range(runs - 1):
        again(*same)
    for x, y in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(x.detach().numpy(), y.detach().numpy())


@pytest.mark.usefixtures("quick")
def test_random_state_moves_by_the_runs_alone() -> None:
    step = fastbp.compile(lambda x: F.dropout(x, 0.5, training=True))
    x = fastbp.ones(100)
    step(x)
    step.profile(x, repeat=4)
    after = step(x).numpy()
    fastbp.manual_seed(0)
    for _ in range(1 + 4 + _profile.WARM_UPS):
        step(x)
    np.testing.assert_array_equal(after, step(x).numpy())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_and_an_update(dtype: str) -> None:
    """Newton's way to the square root of 2, in one-element tensors, and a count of the calls."""
    kind = getattr(fastbp, dtype)
    root, count = fastbp.tensor(1.0, dtype=kind), fastbp.zeros(1, dtype=kind)

    @fastbp.compile
    def step(a: fastbp.Tensor) -> fastbp.Tensor:
        root.copy_(0.5 * (root + a / root))
        count.add_(1)
        return root * root - a

    a = fastbp.tensor(2.0, dtype=kind)
    step(a)
    profile = step.profile(a, repeat=6)
    check_rows(profile, step.plan.steps, 6)
    assert count.item() == 1 + 6 + _profile.WARM_UPS
    assert root.item() == pytest.approx(2.0**0.5, rel=1e-6)


@pytest.mark.usefixtures("quick")
def test_figures_are_of_the_threads_in_force() -> None:
    step = fastbp.compile(lambda x: x @ x)
    x = fastbp.ones(8, 8)
    for count in (1, 2):
        with fastbp.threads(count):
            profile = step.profile(x, repeat=2)
        assert profile.threads == count
        assert f"{count} thread{'s' * (count > 1)}" in str(profile)
    assert {threads for _, threads in _profile._machines} == {1, 2}


@pytest.mark.usefixtures("quick")
def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step = fastbp.compile(lambda x: x @ x)
    x = fastbp.ones(8, 8)
    first = step.profile(x, repeat=2)

    def fail(*_: Any) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(_profile, "best_seconds", fail)
    second = step.profile(x, repeat=2)
    assert (first.peaks, first.bandwidths, first.clock) == (second.peaks, second.bandwidths, second.clock)


@pytest.mark.parametrize("size", _profile.COPY_SIZES)
@pytest.mark.usefixtures("quick")
def test_each_copy_can_be_measured(size: int) -> None:
    assert 0 < _profile.Machine("any", 1).bandwidth(size) < float("inf")


@pytest.mark.usefixtures("quick")
def test_columns_are_aligned() -> None:
    """Every figure ends in the column where its heading ends."""
    step, _, arguments, _ = training_step()
    first, headings, *lines = str(step.profile(*arguments, repeat=3)).splitlines()
    assert first == f"profile of {len(step.plan)} steps, 3 calls"
    assert len(lines) == len(step.plan) + 3  # the total, and two lines of notes
    ends = [match.end() for match in re.finditer(r"\S+", headings)][2:]  # of figures: beyond step and result
    assert len(ends) == len(_profile.HEADINGS) - 3
    for number, line in enumerate(lines[: len(step.plan) + 1]):
        assert line.split()[0] == (str(number) if number < len(step.plan) else "total")
        assert len(line) == len(headings)
        for end in ends:
            assert line[end - 1] != " ", line
            assert line[end : end + 2].strip() == "", line
    assert lines[-2].startswith("roofline, measured: peak ")
    assert "GFLOP/s (float32)" in lines[-2]
    assert "GB/s (32 KiB)" in lines[-2]


@pytest.mark.parametrize("kind", [_profile.ProfileRow, _profile.Profile])
def test_fields_are_documented(kind: type) -> None:
    documented = re.findall(r"^(\w+(?:, \w+)*) : ", inspect.getdoc(kind) or "", re.MULTILINE)
    assert sorted(", ".join(documented).split(", ")) == sorted(field.name for field in fields(kind))


# Results large enough to get pages of their own, and intermediate results that a later sweep would read: written
# without memory behind them, or after it was given back, they end the process.
FUNCTIONS = {"results": "lambda x: (x + 1) * 2", "saved for a sweep": "lambda x: ((x * w).tanh() * w).exp()"}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_all_has_memory_while_it_is_timed(function: str) -> None:
    script = f"""
import fastbp
w = fastbp.ones(1, requires_grad=True)
step = fastbp.compile({function})
print(len(step.profile(fastbp.ones(8 << 20), repeat=1).rows) == len(step.plan))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("repeat", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("7", TypeError)])
def test_bad_repeat_runs_nothing(repeat: Any, error: type[Exception]) -> None:
    step, _, arguments, optimizer = training_step()
    with pytest.raises(error):
        step.profile(*arguments, repeat=repeat)
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}


def test_plan_that_does_not_fit() -> None:
    step = fastbp.compile(lambda x: x * 2)
    step(fastbp.ones(3))
    with pytest.raises(RuntimeError, match=r"does not fit any more.*Call the function once"):
        _profile.profile_plan(step.plan, [fastbp.ones(4)], 1)


@pytest.mark.usefixtures("quick")
def test_gradients_that_were_none() -> None:
    """Without zero_grad the first call makes gradients and later ones add to them: by another plan."""
    w = fastbp.ones(3, requires_grad=True)
    step = fastbp.compile(lambda x: (w * x).sum().backward())
    x = fastbp.ones(3)
    with pytest.raises(RuntimeError, match="gradients, which are None before a first call"):
        step.profile(x, repeat=2)
    check_rows(step.profile(x, repeat=2), step.plan.steps, 2)
    assert w.grad is not None
    assert w.grad.tolist() == [1.0 + _profile.WARM_UPS + 2] * 3
