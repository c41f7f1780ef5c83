"""Linear, Identity and Flatten."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .. import _core
from . import init
from .module import Module
from .parameter import Parameter

if TYPE_CHECKING:
    from typing import Any

    from .._core import Tensor

_linear = _core.linear


class Linear(Module):
    """The affine map ``y = x W^T + b``.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last dimension of the input and of the output.
    bias : bool, optional
        Whether b is added. Default: True.
    device : optional
        Accepted for PyTorch's sake; only the CPU exists.
    dtype : dtype, optional
        Of the parameters. Default: the default dtype.

    Attributes
    ----------
    weight : Parameter
        W, shape (out_features, in_features), at first uniform in +-1/sqrt(in_features).
    bias : Parameter or None
        b, shape (out_features,), at first uniform in the same interval.

    Notes
    -----
    Input (..., in_features), output (..., out_features).

    Examples
    --------
    >>> nn.Linear(20, 30)(fastbp.zeros(128, 20)).shape
    fastbp.Size([128, 30])
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(_core.empty((out_features, in_features), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(_core.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        # With a = sqrt(5) the bound sqrt(6 / ((1 + a^2) fan_in)) is 1/sqrt(fan_in), the bias's bound too.
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the map to `input` (..., in_features)."""
        return _linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Returns its input; takes and ignores any arguments to the constructor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` itself."""
        return input


class Flatten(Module):
    """Joins the dimensions from `start_dim` to `end_dim` into one.

    Parameters
    ----------
    start_dim, end_dim : int, optional
        First and last dimension joined. Default: 1 and -1, all but the batch.

    Examples
    --------
    >>> nn.Flatten()(fastbp.zeros(32, 1, 5, 5)).shape
    fastbp.Size([32, 25])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Flatten `input`; a view where its layout allows."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
