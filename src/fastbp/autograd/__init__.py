"""fastbp.autograd: derivatives on request, under torch.autograd's names.

import order: function, functional, gradcheck, anomaly_mode; each stands alone on the extension.
"""

from __future__ import annotations

from .._core import (
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
from . import function, functional
from .anomaly_mode import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
from .function import Function
from .gradcheck import GradcheckError, gradcheck, gradgradcheck

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "keep_values",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """PyTorch's old wrapper: tensors are variables now, so this returns `data` itself."""
    return data.requires_grad_() if requires_grad else data
