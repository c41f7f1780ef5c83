"""Layers that bring groups of elements to mean 0 and deviation 1, and dropout by a given mask.

All of them do one thing to different groups: y = (x - mean) / sqrt(var + eps), then a scale and a shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import ieee
from .array import Array, accumulate, fibres, strides_of, zeros_like
from .elementwise import pointwise
from .reductions import mean_of
from .registry import define

FLOAT64_EPSILON = 2.0**-52


def _standardize(x: Sequence[float], eps: float) -> tuple[list[float], float]:
    """The group's elements at mean 0 and deviation 1, and the factor that brought them there."""
    mean = mean_of(list(x))
    factor = 1.0 / ieee.sqrt(mean_of([(value - mean) ** 2 for value in x]) + eps)
    return [(value - mean) * factor for value in x], factor


def _standardize_pull(x: Sequence[float], g: Sequence[float], eps: float) -> list[float]:
    """Mean and deviation move with each element: what the cotangent has of a constant and of y itself drops out."""
    y, factor = _standardize(x, eps)
    level = mean_of(list(g))
    along = mean_of([a * b for a, b in zip(g, y, strict=True)])
    return [factor * (gi - level - yi * along) for gi, yi in zip(g, y, strict=True)]


def _rescale(x: Sequence[float], eps: float) -> tuple[list[float], float]:
    """As :func:`_standardize`, but about 0: the root of the mean square becomes 1."""
    factor = 1.0 / ieee.sqrt(mean_of([value * value for value in x]) + eps)
    return [value * factor for value in x], factor


def _rescale_pull(x: Sequence[float], g: Sequence[float], eps: float) -> list[float]:
    y, factor = _rescale(x, eps)
    along = mean_of([a * b for a, b in zip(g, y, strict=True)])
    return [factor * (gi - yi * along) for gi, yi in zip(g, y, strict=True)]


class _Layout:
    """Which elements make a group, and which scale and shift each element gets."""

    def __init__(self, groups: list[list[int]], parameter_of: list[int]) -> None:
        self.groups = groups
        self.parameter_of = parameter_of

    def normalized(self, x: Array, normalize: Any, eps: float) -> Array:
        result = zeros_like(x)
        for group in self.groups:
            for p, value in zip(group, normalize([x.values[q] for q in group], eps)[0], strict=True):
                result.values[p] = value
        return result

    def affine(self, y: Array, weight: Array | None, bias: Array | None) -> Array:
        values = []
        for value, k in zip(y.values, self.parameter_of, strict=True):
            scaled = value if weight is None else value * weight.values[k]
            values.append(scaled if bias is None else scaled + bias.values[k])
        return Array(values, y.shape)

    def affine_vjp(
        self, g: Array, y: Array, weight: Array | None, bias: Array | None
    ) -> tuple[Array, Array | None, Array | None]:
        """Cotangents of the normalized elements, of the scale and of the shift."""
        to_weight = to_bias = None
        if weight is not None:
            products = [a * b for a, b in zip(g.values, y.values, strict=True)]
            to_weight = accumulate(products, self.parameter_of, weight.shape)
        if bias is not None:
            to_bias = accumulate(g.values, self.parameter_of, bias.shape)
        return self.affine(g, weight, None), to_weight, to_bias

    def pulled(self, g: Array, x: Array, pull: Any, eps: float) -> Array:
        result = zeros_like(x)
        for group in self.groups:
            local = pull([x.values[p] for p in group], [g.values[p] for p in group], eps)
            for p, value in zip(group, local, strict=True):
                result.values[p] = value
        return result


def _by_last_dims(x: Array, normalized_shape: Sequence[int]) -> _Layout:
    if x.shape[x.ndim - len(normalized_shape) :] != tuple(normalized_shape):
        raise ValueError(f"the shape {x.shape} does not end in {tuple(normalized_shape)}")
    width = math.prod(normalized_shape)
    return _Layout(
        [list(range(start, start + width)) for start in range(0, x.size, width)], [p % width for p in range(x.size)]
    )


def _channel_of(x: Array) -> list[int]:
    step = strides_of(x.shape)[1]
    return [p // step % x.shape[1] for p in range(x.size)]


def _by_channel_groups(x: Array, num_groups: int) -> _Layout:
    if x.shape[1] % num_groups:
        raise ValueError(f"group_norm: {x.shape[1]} channels do not make {num_groups} groups")
    width = x.size // max(1, x.shape[0] * num_groups)
    return _Layout([list(range(start, start + width)) for start in range(0, x.size, width)], _channel_of(x))


def _layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    normalized_shape: Sequence[int],
    eps: float = 1e-5,
) -> Array:
    layout = _by_last_dims(x, normalized_shape)
    return layout.affine(layout.normalized(x, _standardize, eps), weight, bias)


def _layer_norm_vjp(
    cotangent: Array,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    normalized_shape: Sequence[int],
    eps: float = 1e-5,
) -> tuple[Array | None, ...]:
    layout = _by_last_dims(x, normalized_shape)
    g, to_weight, to_bias = layout.affine_vjp(cotangent, layout.normalized(x, _standardize, eps), weight, bias)
    return layout.pulled(g, x, _standardize_pull, eps), to_weight, to_bias


def _group_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, num_groups: int, eps: float = 1e-5
) -> Array:
    layout = _by_channel_groups(x, num_groups)
    return layout.affine(layout.normalized(x, _standardize, eps), weight, bias)


def _group_norm_vjp(
    cotangent: Array,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> tuple[Array | None, ...]:
    layout = _by_channel_groups(x, num_groups)
    g, to_weight, to_bias = layout.affine_vjp(cotangent, layout.normalized(x, _standardize, eps), weight, bias)
    return layout.pulled(g, x, _standardize_pull, eps), to_weight, to_bias


def _rms_norm(
    x: Array, weight: Array | None = None, *, normalized_shape: Sequence[int], eps: float = FLOAT64_EPSILON
) -> Array:
    layout = _by_last_dims(x, normalized_shape)
    return layout.affine(layout.normalized(x, _rescale, eps), weight, None)


def _rms_norm_vjp(
    cotangent: Array,
    x: Array,
    weight: Array | None = None,
    *,
    normalized_shape: Sequence[int],
    eps: float = FLOAT64_EPSILON,
) -> tuple[Array | None, ...]:
    layout = _by_last_dims(x, normalized_shape)
    g, to_weight, _ = layout.affine_vjp(cotangent, layout.normalized(x, _rescale, eps), weight, None)
    return layout.pulled(g, x, _rescale_pull, eps), to_weight


define("layer_norm", _layer_norm, _layer_norm_vjp)
define("group_norm", _group_norm, _group_norm_vjp)
define("rms_norm", _rms_norm, _rms_norm_vjp)

# --- batch norm -----------------------------------------------------------------------------------------------------


def _by_channels(x: Array) -> _Layout:
    return _Layout(fibres(x.shape, [axis for axis in range(x.ndim) if axis != 1]), _channel_of(x))


def _with_given_statistics(x: Array, layout: _Layout, mean: Array, var: Array, eps: float) -> tuple[Array, list[float]]:
    factors = [1.0 / ieee.sqrt(v + eps) for v in var.values]
    pairs = zip(x.values, layout.parameter_of, strict=True)
    return Array([(value - mean.values[c]) * factors[c] for value, c in pairs], x.shape), factors


def _moved(old: Array | None, new: list[float], momentum: float) -> Array | None:
    if old is None:
        return None
    return Array([(1.0 - momentum) * a + momentum * b for a, b in zip(old.values, new, strict=True)], old.shape)


def _batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Array | None, Array | None]:
    """Returns the normalized input and the running statistics, moved towards the batch's if training.

    The running variance takes the batch's with the correction 1, the normalization the one without.
    """
    layout = _by_channels(x)
    if not training and running_mean is not None and running_var is not None:
        y, _ = _with_given_statistics(x, layout, running_mean, running_var, eps)
        return layout.affine(y, weight, bias), running_mean, running_var
    means, variances = [], []
    for group in layout.groups:
        values = [x.values[p] for p in group]
        means.append(mean_of(values))
        squares = ieee.total([(value - means[-1]) ** 2 for value in values])
        variances.append(ieee.div(squares, len(values) - 1))
    y = layout.affine(layout.normalized(x, _standardize, eps), weight, bias)
    return y, _moved(running_mean, means, momentum), _moved(running_var, variances, momentum)


def _batch_norm_vjp(
    cotangent: Any,
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array | None, ...]:
    pulled = cotangent[0] if isinstance(cotangent, tuple) else cotangent
    layout = _by_channels(x)
    if not training and running_mean is not None and running_var is not None:
        y, factors = _with_given_statistics(x, layout, running_mean, running_var, eps)
        g, to_weight, to_bias = layout.affine_vjp(pulled, y, weight, bias)
        scaled = [a * factors[c] for a, c in zip(g.values, layout.parameter_of, strict=True)]
        return Array(scaled, x.shape), None, None, to_weight, to_bias
    g, to_weight, to_bias = layout.affine_vjp(pulled, layout.normalized(x, _standardize, eps), weight, bias)
    return layout.pulled(g, x, _standardize_pull, eps), None, None, to_weight, to_bias


define("batch_norm", _batch_norm, _batch_norm_vjp)

# --- dropout --------------------------------------------------------------------------------------------------------

pointwise(
    "dropout",
    lambda x, kept, p=0.5: x * (ieee.div(1.0, 1.0 - p) if kept else 0.0),
    lambda x, kept, p=0.5: ieee.div(1.0, 1.0 - p) if kept else 0.0,
    None,
)
