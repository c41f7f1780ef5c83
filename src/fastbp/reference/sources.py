"""Operations without inputs: constants, ranges and random numbers by counter.

Element i of a random call is a function of (seed, stream, offset + i // per_block) alone. The uniform, whole and
two-valued numbers agree with the kernels bit for bit; normal ones to the rounding of logarithm and sine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .array import Array, Scalar
from .pointwise import cast_value
from .random import WORD, philox4x32, uniform_float32, uniform_float64
from .registry import define

QUARTER_TURN = 0.5 * math.pi


def _full(size: Sequence[int], fill_value: float, dtype: str | None = None) -> Array:
    return Array([fill_value if dtype is None else cast_value(fill_value, dtype)] * math.prod(size), size)


def _arange(start: float, end: float, step: float = 1, dtype: str | None = None) -> Array:
    count = max(0, math.ceil((end - start) / step))
    values: list[Scalar] = [start + i * step for i in range(count)]
    return Array(values if dtype is None else [cast_value(value, dtype) for value in values], (count,))


def _linspace(start: float, end: float, steps: int, dtype: str = "float32") -> Array:
    """The second half is counted back from the end, so that the end is met exactly."""
    gap = (end - start) / (steps - 1) if steps > 1 else 0.0
    values = [start + i * gap if 2 * i < steps else end - (steps - 1 - i) * gap for i in range(steps)]
    if steps == 1:
        values = [start]
    return Array([cast_value(value, dtype) for value in values], (steps,))


def _eye(n: int, m: int | None = None, dtype: str = "float32") -> Array:
    columns = n if m is None else m
    return Array([cast_value(int(i == j), dtype) for i in range(n) for j in range(columns)], (n, columns))


define("full", _full)
define("arange", _arange)
define("linspace", _linspace)
define("eye", _eye)

# --- words --------------------------------------------------------------------------------------------------------


def random_words(seed: int, offset: int = 0, stream: int = 0) -> Iterator[int]:
    """The 32-bit words of a key and a stream, from block ``offset`` on, four a block, without end.

    Parameters
    ----------
    seed, offset, stream : int
        64-bit numbers: the key, and the low and the high half of the counter.

    Examples
    --------
    >>> hex(next(random_words(seed=0)))
    '0x6627e8d5'
    """
    key = (seed & WORD, seed >> 32 & WORD)
    while True:
        yield from philox4x32((offset & WORD, offset >> 32 & WORD, stream & WORD, stream >> 32 & WORD), key)
        offset += 1


def _pairs(words: Iterator[int]) -> Iterator[int]:
    """Two words as one number of 64 bits, the first on top."""
    while True:
        yield next(words) << 32 | next(words)


def _is_single(dtype: str) -> bool:
    if dtype not in ("float32", "float64"):
        raise ValueError(f"random numbers are float32 or float64, not {dtype!r}")
    return dtype == "float32"


def _uniform(
    size: Sequence[int],
    low: float = 0.0,
    high: float = 1.0,
    *,
    seed: int,
    offset: int = 0,
    stream: int = 0,
    dtype: str = "float32",
) -> Array:
    words, count = random_words(seed, offset, stream), math.prod(size)
    if _is_single(dtype):
        units = [uniform_float32(next(words)) for _ in range(count)]
    else:
        units = [uniform_float64(next(words), next(words)) for _ in range(count)]
    bottom = cast_value(low, dtype)
    width = cast_value(cast_value(high, dtype) - bottom, dtype)
    return Array([cast_value(bottom + cast_value(u * width, dtype), dtype) for u in units], size)


def _box_muller(bits: Iterator[int], size: int) -> Iterator[float]:
    """Two normal numbers of two numbers of ``size`` bits: the radius of one, the angle of the other.

    The radius is sqrt(-2 log u) with u in (0, 1]. Of the angle, the two highest bits choose the quarter turn, the
    others the place within it, from -1/2 to 1/2 about its middle direction.
    """
    fine = size - 1 if size == 32 else 53
    while True:
        radius = math.sqrt(-2.0 * math.log(((next(bits) >> (size - fine)) + 1) * 2.0**-fine))
        angle = next(bits)
        place = angle & ((1 << (size - 2)) - 1)
        if size == 32:  # the kernel reads these bits as a number with a sign, and those of float64 as one without
            centred = (place - (1 << 30) if place >= 1 << 29 else place) * 2.0**-30
        else:
            centred = (place >> 9) * 2.0**-53 - 0.5
        turn = QUARTER_TURN * ((angle >> (size - 2)) + centred)
        yield radius * math.cos(turn)
        yield radius * math.sin(turn)


def _normal(
    size: Sequence[int],
    mean: float = 0.0,
    std: float = 1.0,
    *,
    seed: int,
    offset: int = 0,
    stream: int = 0,
    dtype: str = "float32",
) -> Array:
    words = random_words(seed, offset, stream)
    numbers = _box_muller(words, 32) if _is_single(dtype) else _box_muller(_pairs(words), 64)
    return Array([cast_value(mean + std * next(numbers), dtype) for _ in range(math.prod(size))], size)


def _exponential(
    size: Sequence[int], lambd: float = 1.0, *, seed: int, offset: int = 0, stream: int = 0, dtype: str = "float32"
) -> Array:
    """-log(u) / lambd with u in (0, 1], of 31 bits of a word for float32 and 53 of two for float64."""
    words = random_words(seed, offset, stream)
    bits, drop, fine = (words, 1, 31) if _is_single(dtype) else (_pairs(words), 11, 53)
    units = [((next(bits) >> drop) + 1) * 2.0**-fine for _ in range(math.prod(size))]
    return Array([cast_value((0.0 - math.log(u)) / lambd, dtype) for u in units], size)


def _randint(
    size: Sequence[int], low: int, high: int, *, seed: int, offset: int = 0, stream: int = 0, dtype: str = "int64"
) -> Array:
    if low >= high:
        raise ValueError(f"randint: no number from {low} to below {high}")
    numbers = _pairs(random_words(seed, offset, stream))
    return Array([cast_value(low + (next(numbers) * (high - low) >> 64), dtype) for _ in range(math.prod(size))], size)


def _permutation(n: int, *, seed: int, offset: int = 0, stream: int = 0) -> Array:
    """Fisher and Yates: from the last place on, each is swapped with one not behind it."""
    numbers, order = _pairs(random_words(seed, offset, stream)), list(range(n))
    for place in range(n - 1, 0, -1):
        other = next(numbers) * (place + 1) >> 64
        order[place], order[other] = order[other], order[place]
    return Array(order, (n,))


def _bernoulli(
    size: Sequence[int], p: float = 0.5, *, seed: int, offset: int = 0, stream: int = 0, dtype: str = "bool"
) -> Array:
    words, bound = random_words(seed, offset, stream), int(p * 2.0**32 + 0.5)
    return Array([cast_value(next(words) < bound, dtype) for _ in range(math.prod(size))], size)


define("uniform", _uniform)
define("normal", _normal)
define("exponential", _exponential)
define("randint", _randint)
define("permutation", _permutation)
define("bernoulli", _bernoulli)
