"""Derivatives that are operations of their own, so that they can be differentiated again.

Each takes the cotangent first, as an input like the others: ``softmax_grad(g, y)`` is what ``softmax`` pulls back,
told by its result y.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from . import ieee
from .array import Array, fibres, reduced_shape, wrap_dim, wrap_dims, zeros_like
from .losses import _cross_entropy_vjp, _nll_loss, _nll_loss_vjp, _samples, _spread, _wanted
from .reductions import softmax_of
from .registry import define

Fibre = list[Any]


def _dot(a: Fibre, b: Fibre) -> float:
    return float(ieee.total([x * y for x, y in zip(a, b, strict=True)]))


# --- along one dimension: a fibre of two fibres -----------------------------------------------------------------------


def paired(name: str, value: Callable[..., Fibre], pull: Callable[..., tuple[Fibre, Fibre]]) -> None:
    """Enter an operation of two arrays of one shape along a ``dim``; ``pull(c, g, y)`` gives both cotangents."""

    def forward(g: Array, y: Array, dim: int) -> Array:
        result = zeros_like(y)
        for fibre in fibres(y.shape, wrap_dims(wrap_dim(dim, y.ndim), y.ndim)):
            made = value([g.values[p] for p in fibre], [y.values[p] for p in fibre])
            for p, out in zip(fibre, made, strict=True):
                result.values[p] = out
        return result

    def vjp(cotangent: Array, g: Array, y: Array, dim: int) -> tuple[Array, Array]:
        to_g, to_y = zeros_like(g), zeros_like(y)
        for fibre in fibres(y.shape, wrap_dims(wrap_dim(dim, y.ndim), y.ndim)):
            parts = ([x.values[p] for p in fibre] for x in (cotangent, g, y))
            for p, by_g, by_y in zip(fibre, *pull(*parts), strict=True):
                to_g.values[p], to_y.values[p] = by_g, by_y
        return to_g, to_y

    define(name, forward, vjp)


def _softmax_grad(g: Fibre, y: Fibre) -> Fibre:
    along = _dot(g, y)
    return [yi * (gi - along) for gi, yi in zip(g, y, strict=True)]


def _softmax_grad_pull(c: Fibre, g: Fibre, y: Fibre) -> tuple[Fibre, Fibre]:
    """f_i = y_i (g_i - s) with s = g . y, so df_i/dy_j = [i = j] (g_i - s) - y_i g_j."""
    along, mixed = _dot(g, y), _dot(c, y)
    by_y = [ci * (gi - along) - gi * mixed for ci, gi in zip(c, g, strict=True)]
    return _softmax_grad(c, y), by_y


def _log_softmax_grad(g: Fibre, y: Fibre) -> Fibre:
    total = ieee.total(g)
    return [gi - ieee.exp(yi) * total for gi, yi in zip(g, y, strict=True)]


def _log_softmax_grad_pull(c: Fibre, g: Fibre, y: Fibre) -> tuple[Fibre, Fibre]:
    """f_i = g_i - exp(y_i) (sum of g)."""
    shares, total = [ieee.exp(yi) for yi in y], ieee.total(g)
    mixed = _dot(c, shares)
    return [ci - mixed for ci in c], [-ci * share * total for ci, share in zip(c, shares, strict=True)]


paired("softmax_grad", _softmax_grad, _softmax_grad_pull)
paired("log_softmax_grad", _log_softmax_grad, _log_softmax_grad_pull)

# --- reductions -------------------------------------------------------------------------------------------------------


def _without(x: Sequence[float], *left_out: int) -> float:
    """Product of all elements but those."""
    return math.prod(value for i, value in enumerate(x) if i not in left_out)


def _groups(g: Array, x: Array, dim: Any, keepdim: bool, name: str) -> list[list[int]]:
    dims = wrap_dims(dim, x.ndim)
    if g.shape != reduced_shape(x.shape, dims, keepdim):
        raise ValueError(f"{name}: a cotangent of shape {g.shape} for an input of shape {x.shape}")
    return fibres(x.shape, dims)


def _prod_grad(g: Array, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    result = zeros_like(x)
    for gi, fibre in zip(g.values, _groups(g, x, dim, keepdim, "prod_grad"), strict=True):
        values = [x.values[p] for p in fibre]
        for i, p in enumerate(fibre):
            result.values[p] = gi * _without(values, i)
    return result


def _prod_grad_vjp(cotangent: Array, g: Array, x: Array, dim: Any = None, keepdim: bool = False) -> tuple[Array, Array]:
    to_g, to_x = zeros_like(g), zeros_like(x)
    for k, fibre in enumerate(_groups(g, x, dim, keepdim, "prod_grad")):
        values, c = [x.values[p] for p in fibre], [cotangent.values[p] for p in fibre]
        to_g.values[k] = _dot(c, [_without(values, i) for i in range(len(values))])
        for j, p in enumerate(fibre):
            others = [ci * _without(values, i, j) for i, ci in enumerate(c) if i != j]
            to_x.values[p] = g.values[k] * ieee.total(others)
    return to_g, to_x


def _shares(y: float, values: Fibre) -> Fibre:
    """1 / (number of ties) at each tie, 0 elsewhere; nothing equals NaN, and 0 / 0 is NaN everywhere."""
    count = sum(value == y for value in values)
    return [ieee.div(1.0 if value == y else 0.0, count) for value in values]


def _extreme_grad(g: Array, y: Array, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
    result = zeros_like(x)
    for k, fibre in enumerate(_groups(g, x, dim, keepdim, "extreme_grad")):
        for p, share in zip(fibre, _shares(y.values[k], [x.values[p] for p in fibre]), strict=True):
            result.values[p] = g.values[k] * share
    return result


def _extreme_grad_vjp(
    cotangent: Array, g: Array, y: Array, x: Array, dim: Any = None, keepdim: bool = False
) -> tuple[Array | None, ...]:
    to_g = zeros_like(g)
    for k, fibre in enumerate(_groups(g, x, dim, keepdim, "extreme_grad")):
        shares = _shares(y.values[k], [x.values[p] for p in fibre])
        to_g.values[k] = _dot([cotangent.values[p] for p in fibre], shares)
    return to_g, zeros_like(y), zeros_like(x)  # which elements are the extreme ones does not change


define("prod_grad", _prod_grad, _prod_grad_vjp)
define("extreme_grad", _extreme_grad, _extreme_grad_vjp)

# --- losses over classes ----------------------------------------------------------------------------------------------


def _nll_grad(
    cotangent: Array, target: Array, weight: Array | None = None, *, classes: int, **attributes: Any
) -> Array:
    """The transpose of nll_loss, which is linear: what it is pulled at does not matter."""
    shape = (*target.shape[:1], classes, *target.shape[1:]) if target.ndim else (classes,)
    nothing = Array([0.0] * math.prod(shape), shape)
    return _nll_loss_vjp(cotangent, nothing, target, weight, **attributes)[0] or nothing


def _nll_grad_vjp(
    c: Array, cotangent: Array, target: Array, weight: Array | None = None, *, classes: int, **attributes: Any
) -> tuple[Array | None, ...]:
    return _nll_loss(c, target, weight, **attributes), None, None


define("nll_grad", _nll_grad, _nll_grad_vjp)


def _cross_entropy_grad(cotangent: Array, x: Array, target: Array, **attributes: Any) -> Array:
    return _cross_entropy_vjp(cotangent, x, target, **attributes)[0] or zeros_like(x)


def _cross_entropy_grad_vjp(
    c: Array,
    cotangent: Array,
    x: Array,
    target: Array,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array | None, ...]:
    """f = g (Q p - q) with p = softmax(x): by g along c it is c . (Q p - q), by x it is g Q (diag(p) - p p') c."""
    rows, shape = _samples(x)
    wanted, count = _wanted(x, target, None, ignore_index, label_smoothing, by_probability=False)
    spread = _spread(cotangent, shape, reduction, count)
    unit = _spread(Array([1.0] * cotangent.size, cotangent.shape), shape, reduction, count)
    by_sample, to_x = [], zeros_like(x)
    for g, scale, q, row in zip(spread.values, unit.values, wanted, rows, strict=True):
        share, moved, mass = softmax_of([x.values[p] for p in row]), [c.values[p] for p in row], ieee.total(q)
        mean = _dot(share, moved)
        by_sample.append(scale * (mass * mean - _dot(q, moved)))
        for p, s, m in zip(row, share, moved, strict=True):
            to_x.values[p] = g * mass * s * (m - mean)
    to_g = by_sample if reduction == "none" else [ieee.total(by_sample)]
    return Array(to_g, cotangent.shape), to_x, None


define("cross_entropy_grad", _cross_entropy_grad, _cross_entropy_grad_vjp)
