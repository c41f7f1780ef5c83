"""Parameter: the tensor that a module trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from typing import Any


class Parameter(Tensor):
    """A tensor that becomes a module's parameter when it is assigned to one of the module's attributes.

    Parameters
    ----------
    data : Tensor, optional
        The values; storage is shared, not copied. Default: an empty tensor.
    requires_grad : bool, optional
        Whether `backward()` fills ``grad``. Default: True.

    Examples
    --------
    >>> weight = fastbp.nn.Parameter(fastbp.ones(2))
    >>> weight
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = _core.empty(0)
        return Tensor._make_subclass(cls, data, requires_grad)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        # All is done in __new__; without this, Tensor's own constructor would be run on `data`.
        pass

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copied = memo.get(id(self))
        if copied is None:
            copied = type(self)(self.detach().clone(), self.requires_grad)
            memo[id(self)] = copied
        return copied

    def __copy__(self) -> Parameter:
        copied = type(self)(self.detach(), self.requires_grad)
        for name, value in _core._attributes_of(self).items():
            setattr(copied, name, value)
        return copied

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        made_of = type(self), (self.detach(), self.requires_grad)
        attributes = _core._attributes_of(self)
        return (*made_of, attributes) if attributes else made_of
