"""Arguments of a compiled function: what is static about them, as a key, and the tensors among them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from . import _core
from ._core import Tensor
from ._tree import LEAF

if TYPE_CHECKING:
    from typing import Any


def key_of(structure: Any) -> Any:
    """The structure as something that hashes: equal for equal static arguments, by identity for what does not."""
    kind = type(structure)
    if structure is LEAF:
        return LEAF
    if kind is list or isinstance(structure, tuple):
        return (kind, *map(key_of, structure))
    if kind is float:
        return structure.hex()  # 0.0 and -0.0 differ, NaN is NaN
    if kind is dict or kind is OrderedDict:
        return (kind, *((name, key_of(one)) for name, one in structure.items()))
    try:
        hash(structure)
    except TypeError:
        return (kind, id(structure))
    return (kind, structure)


def as_tensors(leaves: list[Any]) -> list[Tensor]:
    """NumPy arrays as tensors over their memory."""
    return [one if isinstance(one, Tensor) else _core.as_tensor(one) for one in leaves]


def describe(leaf: Tensor) -> tuple[Any, ...]:
    """What a plan depends on in an argument."""
    return (tuple(leaf.shape), leaf.stride(), leaf.dtype.name, leaf.requires_grad)
