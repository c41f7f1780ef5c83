"""Loss functions with PyTorch's reductions ("none", "mean", "sum")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import ieee
from .array import Array, Shape, fibres, zeros_like
from .elementwise import Partial, Value, evaluate, pointwise, pull_back
from .pointwise import log1p_exp, sigmoid
from .reductions import log_softmax_of, softmax_of
from .registry import alias, define


def _divisor(count: float, reduction: str) -> float:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction {reduction!r} is not 'none', 'mean' or 'sum'")
    return count if reduction == "mean" else 1.0


def _reduce(losses: Array, reduction: str, count: float) -> Array:
    divisor = _divisor(count, reduction)
    return losses if reduction == "none" else Array([ieee.div(ieee.total(losses.values), divisor)], ())


def _spread(cotangent: Array, shape: Shape, reduction: str, count: float) -> Array:
    """The cotangents of the single losses: one for all, or their own under "none"."""
    divisor = _divisor(count, reduction)
    if reduction == "none":
        return cotangent
    return Array([ieee.div(cotangent.item(), divisor)] * math.prod(shape), shape)


# --- losses of one prediction and one target each ---------------------------------------------------------------


def elementwise_loss(name: str, error: str, value: Value, *partials: Partial | None) -> None:
    """Enter a loss that compares element by element and then reduces; ``error`` names it without the reduction."""
    pointwise(error, value, *partials)

    def forward(*inputs: Array | None, reduction: str = "mean", **attributes: Any) -> Array:
        losses = evaluate(value, inputs, attributes)
        return _reduce(losses, reduction, losses.size)

    def vjp(
        cotangent: Array, *inputs: Array | None, reduction: str = "mean", **attributes: Any
    ) -> tuple[Array | None, ...]:
        losses = evaluate(value, inputs, attributes)
        return pull_back(partials, _spread(cotangent, losses.shape, reduction, losses.size), inputs, attributes)

    define(name, forward, vjp)


def _smooth_l1(x: float, t: float, beta: float = 1.0) -> float:
    distance = abs(x - t)
    return 0.5 * distance * distance / beta if distance < beta else distance - 0.5 * beta


def _smooth_l1_slope(x: float, t: float, beta: float = 1.0) -> float:
    if beta == 0:  # then it is l1_loss
        return ieee.sign(x - t)
    return ieee.minimum(ieee.maximum((x - t) / beta, -1.0), 1.0)


def _huber(x: float, t: float, delta: float = 1.0) -> float:
    distance = abs(x - t)
    return 0.5 * distance * distance if distance <= delta else delta * (distance - 0.5 * delta)


def _huber_slope(x: float, t: float, delta: float = 1.0) -> float:
    return ieee.minimum(ieee.maximum(x - t, -delta), delta)


elementwise_loss(
    "mse_loss", "squared_error", lambda x, t: (x - t) * (x - t), lambda x, t: 2.0 * (x - t), lambda x, t: -2.0 * (x - t)
)
elementwise_loss(
    "l1_loss", "absolute_error", lambda x, t: abs(x - t), lambda x, t: ieee.sign(x - t), lambda x, t: -ieee.sign(x - t)
)
elementwise_loss(
    "smooth_l1_loss",
    "smooth_absolute_error",
    _smooth_l1,
    _smooth_l1_slope,
    lambda x, t, beta=1.0: -_smooth_l1_slope(x, t, beta),
)
elementwise_loss("huber_loss", "huber_error", _huber, _huber_slope, lambda x, t, delta=1.0: -_huber_slope(x, t, delta))
alias("huber", "huber_loss")

LOWEST_LOG = -100.0  # PyTorch cuts the logarithms here, so that a certain and wrong prediction costs a finite loss
LEAST_SPREAD = 1e-12  # and x (1 - x) in the derivative here


def _cross_entropy_of_probability(x: float, t: float, weight: float | None = None) -> float:
    yes = ieee.maximum(ieee.log(x), LOWEST_LOG)
    no = ieee.maximum(ieee.log1p(-x), LOWEST_LOG)
    return (1.0 if weight is None else weight) * ((t - 1.0) * no - t * yes)


def _by_probability(x: float, t: float, weight: float | None = None) -> float:
    return (1.0 if weight is None else weight) * (x - t) / ieee.maximum((1.0 - x) * x, LEAST_SPREAD)


def _by_target(x: float, t: float, weight: float | None = None) -> float:
    return (1.0 if weight is None else weight) * (ieee.log1p(-x) - ieee.log(x))


elementwise_loss(
    "binary_cross_entropy", "binary_entropy", _cross_entropy_of_probability, _by_probability, _by_target, None
)
alias("bce", "binary_cross_entropy")


# With p = sigmoid(x): -log p = log(1 + exp(-x)) and -log(1 - p) = x + log(1 + exp(-x)).
def _cross_entropy_of_logit(x: float, t: float, weight: float | None = None, pos_weight: float | None = None) -> float:
    positive = 1.0 if pos_weight is None else pos_weight
    loss = positive * t * log1p_exp(-x) + (1.0 - t) * log1p_exp(x)
    return loss if weight is None else weight * loss


def _by_logit(x: float, t: float, weight: float | None = None, pos_weight: float | None = None) -> float:
    positive = 1.0 if pos_weight is None else pos_weight
    slope = (1.0 - t) * sigmoid(x) - positive * t * sigmoid(-x)
    return slope if weight is None else weight * slope


def _by_logit_target(x: float, t: float, weight: float | None = None, pos_weight: float | None = None) -> float:
    positive = 1.0 if pos_weight is None else pos_weight
    slope = positive * log1p_exp(-x) - log1p_exp(x)
    return slope if weight is None else weight * slope


elementwise_loss(
    "binary_cross_entropy_with_logits",
    "binary_entropy_with_logits",
    _cross_entropy_of_logit,
    _by_logit,
    _by_logit_target,
    None,
    None,
)
alias("bce_with_logits", "binary_cross_entropy_with_logits")

# --- losses over classes ----------------------------------------------------------------------------------------
#
# Every one is loss = -sum over classes c of q[c] * l[c], with l the log-probabilities of one sample and q what the
# target wants of them; so a target is turned into its q, and its share of the mean's divisor, and the rest is common.


def _class_dim(x: Array) -> int:
    if x.ndim == 0:
        raise ValueError("a loss over classes needs at least one dimension")
    return 0 if x.ndim == 1 else 1


def _samples(x: Array) -> tuple[list[list[int]], Shape]:
    """Positions of the classes of each sample, and the shape of the samples."""
    axis = _class_dim(x)
    return fibres(x.shape, [axis]), x.shape[:axis] + x.shape[axis + 1 :]


def _wanted_by_index(
    target: int, classes: int, weight: Sequence[float], ignore_index: int, label_smoothing: float
) -> tuple[list[float], float]:
    """q and the weight of one sample with a class index for its target."""
    if target == ignore_index:
        return [0.0] * classes, 0.0
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < classes:
        raise IndexError(f"target {target!r} is not one of {classes} classes")
    wanted = [label_smoothing / classes * w for w in weight]
    wanted[target] += (1.0 - label_smoothing) * weight[target]
    return wanted, weight[target]


def _wanted(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float, by_probability: bool
) -> tuple[list[list[float]], float]:
    """q of every sample, and what their sum is divided by for the mean."""
    rows, shape = _samples(x)
    classes = x.shape[_class_dim(x)]
    weights = [1.0] * classes if weight is None else weight.values
    if len(weights) != classes:
        raise ValueError(f"{len(weights)} weights for {classes} classes")
    if by_probability:
        soft = [[(1.0 - label_smoothing) * target.values[p] + label_smoothing / classes for p in row] for row in rows]
        return [[w * q for w, q in zip(weights, sample, strict=True)] for sample in soft], len(rows)
    if target.shape != shape:
        raise ValueError(f"targets of shape {target.shape} for an input of shape {x.shape}")
    pairs = [_wanted_by_index(t, classes, weights, ignore_index, label_smoothing) for t in target.values]
    return [q for q, _ in pairs], ieee.total([w for _, w in pairs])


def _weighted(q: Sequence[float], logs: Sequence[float]) -> float:
    # What is not wanted does not count, even where its log-probability is minus infinity.
    return -ieee.total([qc * lc for qc, lc in zip(q, logs, strict=True) if qc != 0]) if any(q) else 0.0


def _nll_loss(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """PyTorch's has no smoothing; with it, and log_softmax(x) for x, this is cross_entropy."""
    rows, shape = _samples(x)
    wanted, count = _wanted(x, target, weight, ignore_index, label_smoothing, by_probability=False)
    losses = [_weighted(q, [x.values[p] for p in row]) for q, row in zip(wanted, rows, strict=True)]
    return _reduce(Array(losses, shape), reduction, count)


def _nll_loss_vjp(
    cotangent: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array | None, ...]:
    rows, shape = _samples(x)
    wanted, count = _wanted(x, target, weight, ignore_index, label_smoothing, by_probability=False)
    gradient = zeros_like(x)
    for g, q, row in zip(_spread(cotangent, shape, reduction, count).values, wanted, rows, strict=True):
        for p, qc in zip(row, q, strict=True):
            if qc != 0:
                gradient.values[p] = -g * qc
    return gradient, None, None


define("nll_loss", _nll_loss, _nll_loss_vjp)


def _cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    rows, shape = _samples(x)
    by_probability = target.shape == x.shape
    wanted, count = _wanted(x, target, weight, ignore_index, label_smoothing, by_probability)
    losses = [_weighted(q, log_softmax_of([x.values[p] for p in row])) for q, row in zip(wanted, rows, strict=True)]
    return _reduce(Array(losses, shape), reduction, count)


def _cross_entropy_vjp(
    cotangent: Array,
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array | None, ...]:
    """By the logits: softmax(x) sum(q) - q. By target probabilities: -(1 - smoothing) w l."""
    rows, shape = _samples(x)
    by_probability = target.shape == x.shape
    wanted, count = _wanted(x, target, weight, ignore_index, label_smoothing, by_probability)
    gradient, to_target = zeros_like(x), zeros_like(x)
    for g, q, row in zip(_spread(cotangent, shape, reduction, count).values, wanted, rows, strict=True):
        logits = [x.values[p] for p in row]
        mass = ieee.total(q)
        for c, (p, share, log) in enumerate(zip(row, softmax_of(logits), log_softmax_of(logits), strict=True)):
            gradient.values[p] = g * (share * mass - q[c])
            to_target.values[p] = -g * (1.0 - label_smoothing) * (1.0 if weight is None else weight.values[c]) * log
    return gradient, to_target if by_probability else None, None


define("cross_entropy", _cross_entropy, _cross_entropy_vjp)


def _kl_terms(x: float, t: float, log_target: bool = False) -> float:
    if log_target:
        return ieee.exp(t) * (t - x)
    return 0.0 if t == 0 else t * (ieee.log(t) - x)


def _kl_by_input(x: float, t: float, log_target: bool = False) -> float:
    return -ieee.exp(t) if log_target else -t


def _kl_by_target(x: float, t: float, log_target: bool = False) -> float:
    if log_target:
        return ieee.exp(t) * (t - x + 1.0)
    return 0.0 if t == 0 else ieee.log(t) + 1.0 - x


elementwise_loss("kl_div", "divergence_error", _kl_terms, _kl_by_input, _kl_by_target)
