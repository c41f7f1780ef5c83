"""Operations along dimensions: sums, extrema, norms, softmax, cumulative sums.

All of them treat the array as a set of fibres (the elements that share the coordinates left over) and say only what
happens to one fibre, a plain list of numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from . import ieee
from .array import Array, fibres, reduced_shape, wrap_dim, wrap_dims
from .registry import define

Dim = int | Sequence[int] | None
Fibre = list[Any]


def reduction(
    name: str, value: Callable[..., Any], slopes: Callable[..., list[float]] | None = None, full_default: bool = True
) -> None:
    """Enter an operation that makes one number of a fibre.

    Parameters
    ----------
    value : callable
        ``value(fibre, **attributes)``, a number.
    slopes : callable, optional
        ``slopes(fibre, cotangent, **attributes)``, the cotangents of the fibre's elements; None: no derivative.
    full_default : bool
        Whether ``dim`` may be left out to reduce all dimensions.
    """

    def forward(x: Array, dim: Dim = None, keepdim: bool = False, **attributes: Any) -> Array:
        if dim is None and not full_default:
            raise TypeError(f"{name}: dim is required")
        dims = wrap_dims(dim, x.ndim)
        values = [value([x.values[p] for p in fibre], **attributes) for fibre in fibres(x.shape, dims)]
        return Array(values, reduced_shape(x.shape, dims, keepdim))

    def vjp(
        cotangent: Array, x: Array, dim: Dim = None, keepdim: bool = False, **attributes: Any
    ) -> tuple[Array | None]:
        assert slopes is not None
        gradient = [0.0] * x.size
        for g, fibre in zip(cotangent.values, fibres(x.shape, wrap_dims(dim, x.ndim)), strict=True):
            local = slopes([x.values[p] for p in fibre], g, **attributes)
            for p, slope in zip(fibre, local, strict=True):
                gradient[p] = slope
        return (Array(gradient, x.shape),)

    define(name, forward, vjp if slopes else None)


def mapping(name: str, value: Callable[..., Fibre], pull: Callable[..., Fibre]) -> None:
    """Enter an operation along one ``dim`` that makes a fibre of a fibre; ``pull(fibre, cotangents)`` is its vjp."""

    def forward(x: Array, dim: int, **attributes: Any) -> Array:
        result = [0.0] * x.size
        for fibre in fibres(x.shape, wrap_dims(wrap_dim(dim, x.ndim), x.ndim)):
            for p, out in zip(fibre, value([x.values[p] for p in fibre], **attributes), strict=True):
                result[p] = out
        return Array(result, x.shape)

    def vjp(cotangent: Array, x: Array, dim: int, **attributes: Any) -> tuple[Array]:
        gradient = [0.0] * x.size
        for fibre in fibres(x.shape, wrap_dims(wrap_dim(dim, x.ndim), x.ndim)):
            pulled = pull([x.values[p] for p in fibre], [cotangent.values[p] for p in fibre], **attributes)
            for p, g in zip(fibre, pulled, strict=True):
                gradient[p] = g
        return (Array(gradient, x.shape),)

    define(name, forward, vjp)


# --- sums and products ----------------------------------------------------------------------------------------------


def mean_of(x: Fibre) -> float:
    """Arithmetic mean; NaN of nothing."""
    return ieee.div(ieee.total(x), len(x))


def _product_slopes(x: Fibre, g: float) -> list[float]:
    """The product of all the others, without dividing by an element that may be 0."""
    before = list(itertools.accumulate(x, lambda a, b: a * b, initial=1.0))
    after = list(itertools.accumulate(reversed(x), lambda a, b: a * b, initial=1.0))[::-1]
    return [g * before[i] * after[i + 1] for i in range(len(x))]


reduction("sum", ieee.total, lambda x, g: [g] * len(x))
reduction("mean", mean_of, lambda x, g: [ieee.div(g, len(x))] * len(x))
reduction("prod", lambda x: math.prod(x) if x else 1.0, _product_slopes)
reduction("all", lambda x: all(bool(value) for value in x))
reduction("any", lambda x: any(bool(value) for value in x))


def _variance(x: Fibre, correction: float = 1) -> float:
    mean = mean_of(x)
    squares = ieee.total([(value - mean) * (value - mean) for value in x])
    return ieee.div(squares, max(0.0, len(x) - correction))


def _variance_slopes(x: Fibre, g: float, correction: float = 1) -> list[float]:
    mean = mean_of(x)
    if len(x) <= correction:  # no degree of freedom is left: PyTorch's answer
        return [g * (math.nan if value == mean else math.inf) for value in x]
    return [2.0 * g * (value - mean) / (len(x) - correction) for value in x]


def _deviation(x: Fibre, correction: float = 1) -> float:
    return ieee.sqrt(_variance(x, correction))


def _deviation_slopes(x: Fibre, g: float, correction: float = 1) -> list[float]:
    deviation = _deviation(x, correction)
    return _variance_slopes(x, 0.0 if deviation == 0 else g / (2.0 * deviation), correction)


reduction("var", _variance, _variance_slopes)
reduction("std", _deviation, _deviation_slopes)

# --- extrema ------------------------------------------------------------------------------------------------------


def best_index(x: Fibre, sign: int) -> int:
    """Index of the first largest (sign 1) or smallest (sign -1) element; of the first NaN if there is one.

    Raises
    ------
    ValueError
        If the fibre is empty.
    """
    if not x:
        raise ValueError("an empty dimension has no extremum")
    best = 0
    for index, value in enumerate(x):
        if ieee.is_nan(value):
            return index
        if sign * value > sign * x[best]:
            best = index
    return best


def _ties_slopes(x: Fibre, g: float, sign: int) -> list[float]:
    """amax, amin: evenly over the elements that equal the extremum. None equals NaN, so then all is NaN."""
    extremum = x[best_index(x, sign)]
    count = sum(value == extremum for value in x)
    return [ieee.div(g if value == extremum else 0.0, count) for value in x]


def _all_ties_slopes(x: Fibre, g: float, sign: int) -> list[float]:
    """max() and min() of the whole array: evenly over the ties, where NaNs count as equal."""
    extremum = x[best_index(x, sign)]
    chosen = [value == extremum or (ieee.is_nan(extremum) and ieee.is_nan(value)) for value in x]
    return [g / sum(chosen) if take else 0.0 for take in chosen]


def _define_extremum(word: str, sign: int) -> None:
    reduction("a" + word, lambda x: x[best_index(x, sign)], lambda x, g: _ties_slopes(x, g, sign))

    def chosen_index(x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
        dims = wrap_dims(dim, x.ndim)
        values = [best_index([x.values[p] for p in fibre], sign) for fibre in fibres(x.shape, dims)]
        return Array(values, reduced_shape(x.shape, dims, keepdim))

    def forward(x: Array, dim: int | None = None, keepdim: bool = False) -> Array | tuple[Array, Array]:
        if dim is None:
            return Array([x.values[best_index(x.values, sign)]], ())
        indices = chosen_index(x, dim, keepdim)
        rows = fibres(x.shape, wrap_dims(dim, x.ndim))
        values = [x.values[fibre[i]] for fibre, i in zip(rows, indices.values, strict=True)]
        return Array(values, indices.shape), indices

    def vjp(cotangent: Any, x: Array, dim: int | None = None, keepdim: bool = False) -> tuple[Array]:
        if dim is None:
            return (Array(_all_ties_slopes(x.values, cotangent.item(), sign), x.shape),)
        pulled = cotangent[0] if isinstance(cotangent, tuple) else cotangent
        gradient = [0.0] * x.size
        if pulled is not None:
            for g, fibre in zip(pulled.values, fibres(x.shape, wrap_dims(dim, x.ndim)), strict=True):
                gradient[fibre[best_index([x.values[p] for p in fibre], sign)]] = g
        return (Array(gradient, x.shape),)

    define(word, forward, vjp)
    define("arg" + word, chosen_index)


_define_extremum("max", 1)
_define_extremum("min", -1)

# --- norms --------------------------------------------------------------------------------------------------------


def _norm(x: Fibre, p: float = 2.0) -> float:
    sizes = [abs(value) for value in x]
    if p == 0:
        return float(sum(size != 0 for size in sizes))
    if math.isinf(p):
        sign = 1 if p > 0 else -1
        return float(sizes[best_index(sizes, sign)]) if sizes else 0.0
    if p == 2 and all(math.isfinite(size) for size in sizes):
        return math.hypot(*sizes)  # scaled inside, so that neither large nor small elements are lost
    return ieee.power(ieee.total([ieee.power(float(size), p) for size in sizes]), 1.0 / p)


def _norm_slopes(x: Fibre, g: float, p: float = 2.0) -> list[float]:
    """d|x|_p / dx = sign(x) (|x| / |x|_p)**(p-1), and 0 where the norm has a corner."""
    norm = _norm(x, p)
    if p == 0:
        return [0.0] * len(x)
    if p == 1:
        return [g * ieee.sign(value) for value in x]
    if math.isinf(p):
        hit = [abs(value) == norm or (ieee.is_nan(norm) and ieee.is_nan(value)) for value in x]
        return [g * ieee.sign(value) / sum(hit) if take else 0.0 for value, take in zip(x, hit, strict=True)]
    if norm == 0:
        return [0.0] * len(x)
    if p == 2:
        return [g * ieee.div(value, norm) for value in x]
    return [
        0.0 if value == 0 else g * math.copysign(ieee.power(ieee.div(abs(value), norm), p - 1), value) for value in x
    ]


reduction("norm", _norm, _norm_slopes)

# --- exponential families -------------------------------------------------------------------------------------------


def log_sum_exp(x: Fibre) -> float:
    """log of the sum of exponentials, about the largest."""
    if not x:
        return -math.inf
    peak = x[best_index(x, 1)]
    if math.isinf(peak):
        return float(peak)
    return float(peak + ieee.log(ieee.total([ieee.exp(value - peak) for value in x])))


def softmax_of(x: Fibre) -> list[float]:
    """exp(x) over its sum."""
    if not x:
        return []
    peak = x[best_index(x, 1)]
    powers = [ieee.exp(value - peak) for value in x]
    sum_of_powers = ieee.total(powers)
    return [ieee.div(power, sum_of_powers) for power in powers]


def log_softmax_of(x: Fibre) -> list[float]:
    """x - log_sum_exp(x), with the peak taken off first so that no digit is lost."""
    if not x:
        return []
    peak = x[best_index(x, 1)]
    log_of_sum = ieee.log(ieee.total([ieee.exp(value - peak) for value in x]))
    return [value - peak - log_of_sum for value in x]


def _softmax_pull(x: Fibre, g: Fibre) -> Fibre:
    share = softmax_of(x)
    weighted = ieee.total([s * gi for s, gi in zip(share, g, strict=True)])
    return [s * (gi - weighted) for s, gi in zip(share, g, strict=True)]


def _log_softmax_pull(x: Fibre, g: Fibre) -> Fibre:
    sum_of_cotangents = ieee.total(g)
    return [gi - s * sum_of_cotangents for s, gi in zip(softmax_of(x), g, strict=True)]


reduction(
    "logsumexp",
    log_sum_exp,
    lambda x, g: [g * ieee.exp(value - log_sum_exp(x)) for value in x],
    full_default=False,
)
mapping("softmax", softmax_of, _softmax_pull)
mapping("log_softmax", log_softmax_of, _log_softmax_pull)

# --- cumulative ---------------------------------------------------------------------------------------------------


def _cumulative_sum(x: Fibre, reverse: bool = False) -> Fibre:
    return _cumulative_sum(x[::-1])[::-1] if reverse else list(itertools.accumulate(x))


def _cumulative_product_pull(x: Fibre, g: Fibre) -> Fibre:
    """Element i is a factor of every product from i on: leave it out of each."""
    result = []
    for i in range(len(x)):
        product, terms = math.prod(x[:i]), []
        for j in range(i, len(x)):
            product *= x[j] if j != i else 1
            terms.append(g[j] * product)
        result.append(float(ieee.total(terms)))
    return result


mapping("cumsum", _cumulative_sum, lambda x, g, reverse=False: _cumulative_sum(g, not reverse))
mapping("cumprod", lambda x: list(itertools.accumulate(x, lambda a, b: a * b)), _cumulative_product_pull)
