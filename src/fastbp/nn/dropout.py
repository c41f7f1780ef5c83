"""Dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import functional as F
from .module import Module

if TYPE_CHECKING:
    from .._core import Tensor


class Dropout(Module):
    """In training, sets each element to zero with probability `p` and multiplies the others by 1/(1-p).

    In evaluation (after `eval()`) it returns its input.

    Parameters
    ----------
    p : float, optional
        Probability of an element's becoming zero. Default: 0.5.
    inplace : bool, optional
        Whether the input's memory takes the result. Default: False.

    Raises
    ------
    ValueError
        When `p` is not between 0 and 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply to `input` of any shape."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"
