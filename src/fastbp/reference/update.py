"""Steps of optimizers: new values of the parameter and of the optimizer's state. Outside of differentiation."""

from __future__ import annotations

import math
from typing import Any

from . import ieee
from .array import Array
from .registry import define


def _plain(value: Any) -> Any:
    """A number, whether it came as a number or as an array of one."""
    return value.item() if isinstance(value, Array) else value


def _effective(param: Array, grad: Array, weight_decay: float, maximize: bool) -> list[float]:
    """The gradient to go down by: turned round to go up, and with the derivative of the weight penalty."""
    turned = [-g for g in grad.values] if maximize else grad.values
    return [g + weight_decay * p for g, p in zip(turned, param.values, strict=True)] if weight_decay else list(turned)


def _sgd(
    param: Array,
    grad: Array,
    momentum_buffer: Array | None = None,
    *,
    lr: Any,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    step: Any = None,
) -> tuple[Array, Array | None]:
    """Returns the parameter and the momentum buffer (as given, where the momentum is 0).

    Without a buffer, or at step 1 (steps are counted from 1), the buffer starts as the gradient, undampened.
    """
    rate, direction = _plain(lr), _effective(param, grad, weight_decay, maximize)
    buffer = momentum_buffer
    if momentum:
        if buffer is None or (step is not None and _plain(step) <= 1):
            buffer = Array(direction, param.shape)
        else:
            pairs = zip(buffer.values, direction, strict=True)
            buffer = Array([momentum * b + (1.0 - dampening) * d for b, d in pairs], param.shape)
        if nesterov:
            direction = [d + momentum * b for d, b in zip(direction, buffer.values, strict=True)]
        else:
            direction = buffer.values
    return Array([p - rate * d for p, d in zip(param.values, direction, strict=True)], param.shape), buffer


def _adam(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    max_exp_avg_sq: Array | None = None,
    *,
    step: Any,
    lr: Any = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    decoupled: bool = False,
) -> tuple[Array, Array, Array, Array | None]:
    """Returns the parameter, both averages and the largest second average (as given, without amsgrad).

    ``step`` is the number of this step, counted from 1. ``decoupled`` shrinks the weights themselves (AdamW) in place
    of adding the penalty's derivative to the gradient.
    """
    rate, count = _plain(lr), _plain(step)
    values = [p * (1.0 - rate * weight_decay) for p in param.values] if decoupled else param.values
    direction = _effective(param, grad, 0.0 if decoupled else weight_decay, maximize)
    first = [beta1 * m + (1.0 - beta1) * d for m, d in zip(exp_avg.values, direction, strict=True)]
    second = [beta2 * v + (1.0 - beta2) * d * d for v, d in zip(exp_avg_sq.values, direction, strict=True)]
    largest = max_exp_avg_sq
    if amsgrad:
        before = max_exp_avg_sq.values if max_exp_avg_sq else [0.0] * len(second)
        largest = Array([ieee.maximum(a, b) for a, b in zip(before, second, strict=True)], param.shape)
    # The averages start at zero; dividing by 1 - beta**step undoes that bias.
    first_share, second_share = 1.0 - beta1**count, 1.0 - beta2**count
    scale = [math.sqrt(v / second_share) + eps for v in (largest.values if amsgrad and largest else second)]
    moved = [p - rate * (m / first_share) / s for p, m, s in zip(values, first, scale, strict=True)]
    shape = param.shape
    return Array(moved, shape), Array(first, shape), Array(second, shape), largest


def _adamw(*inputs: Any, weight_decay: float = 1e-2, **attributes: Any) -> tuple[Array, Array, Array, Array | None]:
    return _adam(*inputs, weight_decay=weight_decay, **{**attributes, "decoupled": True})


define("sgd", _sgd)
define("adam", _adam)
define("adamw", _adamw)
