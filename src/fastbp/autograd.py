"""fastbp.autograd: derivatives on request, under torch.autograd's names."""

from __future__ import annotations

from ._core import (
    Tensor,
    backward,
    enable_grad,
    grad,
    inference_mode,
    is_grad_enabled,
    keep_values,
    no_grad,
    set_grad_enabled,
)

__all__ = [
    "Variable",
    "backward",
    "enable_grad",
    "grad",
    "inference_mode",
    "is_grad_enabled",
    "keep_values",
    "no_grad",
    "set_grad_enabled",
]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """PyTorch's old wrapper: tensors are variables now, so this returns `data` itself."""
    return data.requires_grad_() if requires_grad else data
