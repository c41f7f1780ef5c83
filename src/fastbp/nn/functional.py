"""nn.functional: layers and losses as functions, with PyTorch's names and argument order.

Each one forwards to the core function of the same name. ``inplace=True`` changes and returns the input, as in
PyTorch; it saves no memory, since the derivative needs the old values. ``size_average`` and ``reduce`` are PyTorch's
deprecated spelling of ``reduction``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from .. import _core

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Tensor

linear = _core.linear
sigmoid = _core.sigmoid
tanh = _core.tanh
gelu = _core.gelu


# ----------------------------------------------------------------------------------------------- activations


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0), elementwise."""
    return _in_place(_core.relu, input) if inplace else _core.relu(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x for x > 0, else ``negative_slope * x``."""
    return _in_place(_core.leaky_relu, input, negative_slope) if inplace else _core.leaky_relu(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for x > 0, else ``alpha * (exp(x) - 1)``."""
    return _in_place(_core.elu, input, alpha) if inplace else _core.elu(input, alpha)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``, elementwise (also called swish)."""
    return _in_place(_core.silu, input) if inplace else _core.silu(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))``, elementwise."""
    return _in_place(_core.mish, input) if inplace else _core.mish(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val]."""
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return _in_place(_core.hardtanh, input, min_val, max_val) if inplace else _core.hardtanh(input, min_val, max_val)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6]."""
    return hardtanh(input, 0.0, 6.0, inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``; x itself where ``beta * x > threshold``."""
    return _core.softplus(input, beta, threshold)


def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(x))``, elementwise, without overflow: -softplus(-x)."""
    return -_core.softplus(-input)


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """``exp(x) / sum(exp(x))`` along `dim`; `dtype`, where given, is that of the result."""
    return _core.softmax(_converted(input, dtype), _softmax_dim("softmax", input, dim, _stacklevel))


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """The logarithm of `softmax`, computed without overflow."""
    return _core.log_softmax(_converted(input, dtype), _softmax_dim("log_softmax", input, dim, _stacklevel))


def _converted(input: Tensor, dtype: Any) -> Tensor:
    return input if dtype is None else input.to(dtype)


def _softmax_dim(name: str, input: Tensor, dim: int | None, stacklevel: int) -> int:
    """`dim`, or PyTorch's old choice where it was left out."""
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if input.ndim in (0, 1, 3) else 1


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """In training, zero each element with probability `p` and multiply the others by 1/(1-p); else the input.

    Raises
    ------
    ValueError
        When `p` is not between 0 and 1.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0:
        return input
    return _in_place(_core.dropout, input, p, True) if inplace else _core.dropout(input, p, True)


def _in_place(function: Callable[..., Tensor], input: Tensor, *arguments: Any) -> Tensor:
    """Have `input` take the result; the graph keeps a copy of the old values, which a derivative may need."""
    return input.copy_(function(input.clone(), *arguments))


# ----------------------------------------------------------------------------------------------- losses


def mse_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """``(input - target)**2``: its mean, its sum, or with ``reduction="none"`` each element.

    Warns when the shapes differ, since broadcasting is then seldom what was meant.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    _warn_of_broadcasting(input, target)
    return _core.mse_loss(input, target, reduction=reduction)


def l1_loss(
    input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean"
) -> Tensor:
    """``|input - target|``, reduced as `mse_loss`."""
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    _warn_of_broadcasting(input, target)
    return _core.l1_loss(input, target, reduction=reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """With d = input - target: ``d**2 / (2 beta)`` where |d| < beta, else ``|d| - beta/2``; reduced as `mse_loss`."""
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    _warn_of_broadcasting(input, target)
    return _core.smooth_l1_loss(input, target, reduction=reduction, beta=beta)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """`smooth_l1_loss` times delta: ``d**2 / 2`` where |d| <= delta, else ``delta (|d| - delta/2)``."""
    _warn_of_broadcasting(input, target)
    return _core.huber_loss(input, target, reduction=reduction, delta=delta)


def _warn_of_broadcasting(input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        warnings.warn(
            f"Using a target size ({tuple(target.shape)}) that is different to the input size ({tuple(input.shape)}). "
            "This will likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-(y log p + (1 - y) log(1 - p))`` for probabilities `input`; the logarithms are limited to >= -100.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    if input.shape != target.shape:
        raise ValueError(
            f"Using a target size ({tuple(target.shape)}) that is different to the input size ({tuple(input.shape)}) "
            "is deprecated. Please ensure they have the same size."
        )
    return _core.binary_cross_entropy(input, target, weight=weight, reduction=reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of ``sigmoid(input)``, computed without overflow; `pos_weight` multiplies the y term.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    if input.shape != target.shape:
        raise ValueError(f"Target size ({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)})")
    return _core.binary_cross_entropy_with_logits(
        input, target, weight=weight, reduction=reduction, pos_weight=pos_weight
    )


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``-weight[y] * input[n, y]`` for log-probabilities `input` (N, C) and classes `target` (N,).

    Targets equal to `ignore_index` count nothing; the mean is divided by the sum of the weights that counted.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _core.nll_loss(input, target, weight=weight, ignore_index=ignore_index, reduction=reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`nll_loss` of ``log_softmax(input)``.

    Parameters
    ----------
    input : Tensor
        Logits, (N, C) or (C,).
    target : Tensor
        Classes, int64 (N,) or (); or class probabilities, with the shape of `input`.
    weight : Tensor, optional
        One factor per class, (C,).
    ignore_index : int, optional
        Targets equal to it count nothing. Default: -100.
    reduction : {"mean", "sum", "none"}, optional
        Default: "mean".
    label_smoothing : float, optional
        Share of the target's probability that is spread evenly over all classes. Default: 0.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce)
    return _core.cross_entropy(
        input, target, weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
    )


def legacy_reduction(size_average: bool | None, reduce: bool | None) -> str:
    """The `reduction` that PyTorch's deprecated pair of flags stands for; None counts as True."""
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"
