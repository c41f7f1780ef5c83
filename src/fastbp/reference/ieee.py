"""The real functions with the results IEEE 754 gives, where Python's ``math`` would raise.

``math.log(0.0)`` is an error in Python and minus infinity in every kernel; here it is the latter. Out of a
function's domain the result is NaN, overflow gives an infinity of the right sign, NaN goes in and NaN comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

Real = Callable[[float], float]


def _total_function(function: Real, overflow: Real = lambda x: math.inf) -> Real:
    """Make ``function`` total: NaN outside of its domain, ``overflow(x)`` where the result is too large."""

    def evaluate(x: float) -> float:
        try:
            return function(x)
        except ValueError:
            return math.nan
        except OverflowError:
            return overflow(x)

    return evaluate


def _logarithm(function: Real, pole: float) -> Real:
    inside = _total_function(function)
    return lambda x: -math.inf if x == pole else inside(x)


exp = _total_function(math.exp)
expm1 = _total_function(math.expm1)
sinh = _total_function(math.sinh, overflow=lambda x: math.copysign(math.inf, x))
cosh = _total_function(math.cosh)
sin = _total_function(math.sin)
cos = _total_function(math.cos)
tan = _total_function(math.tan)
asin = _total_function(math.asin)
acos = _total_function(math.acos)
sqrt = _total_function(math.sqrt)
log = _logarithm(math.log, 0.0)
log2 = _logarithm(math.log2, 0.0)
log10 = _logarithm(math.log10, 0.0)
log1p = _logarithm(math.log1p, -1.0)


def is_nan(x: float) -> bool:
    """True for NaN alone."""
    return x != x


def div(a: float, b: float) -> float:
    """Quotient; x/0 is an infinity with the product of the signs, 0/0 NaN."""
    try:
        return a / b
    except ZeroDivisionError:
        if a == 0 or is_nan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)


def power(base: float, exponent: float) -> float:
    """C's pow; exact for two ints with a non-negative exponent."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        return int(base**exponent)
    odd = float(exponent).is_integer() and math.fmod(exponent, 2.0) != 0.0
    try:
        return math.pow(base, exponent)
    except ValueError:  # zero to a negative power, or a negative base to a broken one
        return (math.copysign(math.inf, base) if odd else math.inf) if base == 0 else math.nan
    except OverflowError:
        return math.copysign(math.inf, base) if odd else math.inf


def fmod(a: float, b: float) -> float:
    """Remainder with the sign of ``a``; exact for ints."""
    if isinstance(a, int) and isinstance(b, int):
        return int(math.copysign(1, a)) * (abs(a) % abs(b))
    try:
        return math.fmod(a, b)
    except ValueError:
        return math.nan


def remainder(a: float, b: float) -> float:
    """Remainder with the sign of ``b``; exact for ints."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    try:
        return a % b
    except ZeroDivisionError:
        return math.nan


def to_integer(rounding: Callable[[float], int]) -> Callable[[float], float]:
    """A rounding to whole numbers that stays in floats: keeps the sign of zero, infinities and NaN."""

    def evaluate(x: float) -> float:
        if isinstance(x, int) or not math.isfinite(x):
            return x
        return math.copysign(float(rounding(x)), x)

    return evaluate


floor = to_integer(math.floor)
ceil = to_integer(math.ceil)
trunc = to_integer(math.trunc)
nearest = to_integer(round)  # Python's round, like C's rint, takes halves to the even neighbour


def total(values: Iterable[Any]) -> Any:
    """Sum: exact for ints, correctly rounded for floats, IEEE's answer where infinities or NaN take part.

    The sum of nothing is the float 0.
    """
    terms = list(values)
    if not terms:
        return 0.0
    if not any(isinstance(term, float) for term in terms):
        return sum(terms)
    try:
        return math.fsum(terms)
    except (ValueError, OverflowError):
        return sum(terms)


def maximum(a: float, b: float) -> float:
    """The larger; NaN if either is."""
    if is_nan(a) or is_nan(b):
        return math.nan
    return a if a >= b else b


def minimum(a: float, b: float) -> float:
    """The smaller; NaN if either is."""
    if is_nan(a) or is_nan(b):
        return math.nan
    return a if a <= b else b


def sign(x: float) -> float:
    """-1, 0 or 1 in the type of ``x``; 0 for NaN."""
    return type(x)((x > 0) - (x < 0))
