"""nn.utils: gradient clipping, and parameters as one vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ... import _core
from ..._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "vector_to_parameters"]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    every = [parameters] if isinstance(parameters, Tensor) else parameters
    return [gradient for parameter in every if (gradient := parameter.grad) is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients, in place, so that the norm of all their elements together is at most `max_norm`.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are passed over.
    max_norm : float
        The greatest norm allowed.
    norm_type : float, optional
        The p of the p-norm; ``float("inf")`` for the greatest magnitude. Default: 2.
    error_if_nonfinite : bool, optional
        Whether a norm that is infinite or not a number raises. Default: False.
    foreach : bool, optional
        Accepted for PyTorch's sake; no effect.

    Returns
    -------
    Tensor
        The norm before scaling, a scalar.

    Raises
    ------
    RuntimeError
        With `error_if_nonfinite`; the gradients are as before.
    """
    gradients = _gradients(parameters)
    if not gradients:
        return _core.tensor(0.0)
    with _core.no_grad():
        norms = _core.stack([_core.norm(gradient, norm_type) for gradient in gradients])
        total = _core.norm(norms, norm_type)
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise RuntimeError(
                f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
                "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
                "`error_if_nonfinite=False`"
            )
        # Multiplying by 1 where nothing is to be clipped keeps this a graph without a branch.
        factor = _core.clamp(max_norm / (total + 1e-6), max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Limit each element of the gradients, in place, to [-clip_value, clip_value]."""
    bound = float(clip_value)
    with _core.no_grad():
        for gradient in _gradients(parameters):
            gradient.copy_(_core.clamp(gradient, -bound, bound))


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters' elements in one vector, in order; differentiable by the parameters."""
    return _core.cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy consecutive elements of a vector into the parameters, the inverse of `parameters_to_vector`.

    Raises
    ------
    TypeError
        When `vec` is not a tensor.
    ValueError
        When it has fewer elements than the parameters together; they are as before.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected a Tensor, but got {type(vec).__name__}")
    parameters = list(parameters)
    needed = sum(parameter.numel() for parameter in parameters)
    if vec.numel() < needed:
        raise ValueError(f"the vector has {vec.numel()} elements, but the parameters need {needed}")
    start = 0
    with _core.no_grad():
        for parameter in parameters:
            count = parameter.numel()
            parameter.copy_(vec[start : start + count].reshape(parameter.shape))
            start += count
