"""Tensors inside of lists, tuples, dicts and named tuples: taken out as a list, and put back."""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

from ._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def is_array(value: Any) -> bool:
    """NumPy's arrays, and others that offer their memory as they do; NumPy's numbers are numbers."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return isinstance(value, numpy.ndarray)
    return hasattr(value, "__array_interface__")


def is_number(value: Any) -> bool:
    """NumPy's numbers."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic)


class Leaf:
    """The place of a tensor in a structure of arguments or results."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "*"


LEAF = Leaf()


def rebuild(structure: Any, each: Callable[[Any], Any]) -> Any:
    """A container of the same kind with `each` applied to its parts; what is no container, as it is."""
    kind = type(structure)
    if kind is list:
        return [each(one) for one in structure]
    if kind is dict or kind is OrderedDict:
        return kind((key, each(one)) for key, one in structure.items())
    if kind is tuple:
        return tuple([each(one) for one in structure])
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return kind(*[each(one) for one in structure])
    return structure


def is_container(value: Any) -> bool:
    """Whether `flatten` looks into it."""
    return type(value) in (list, dict, OrderedDict, tuple) or (isinstance(value, tuple) and hasattr(value, "_fields"))


def flatten(value: Any, leaves: list[Any]) -> Any:
    """Append tensors and arrays inside lists, tuples and dicts to `leaves`; returns the structure with LEAF instead."""
    if isinstance(value, Tensor) or is_array(value):
        leaves.append(value)
        return LEAF
    return rebuild(value, lambda one: flatten(one, leaves))


def unflatten(structure: Any, leaves: Iterator[Any]) -> Any:
    """The structure with the next of `leaves` in each place."""
    if structure is LEAF:
        return next(leaves)
    return rebuild(structure, lambda one: unflatten(one, leaves))


def ordered_as(value: Any, structure: Any) -> Any:
    """`value` with the keys of its dicts in the order of `structure`'s, wherever the two have the same keys.

    Dicts are equal in any order, and `flatten` goes by the order that it finds: what is paired with another's leaves
    one by one goes through here first.
    """
    if not is_container(value) or not is_container(structure) or len(parts(value)) != len(parts(structure)):
        return value
    if isinstance(value, dict) and isinstance(structure, dict):
        if value.keys() != structure.keys():
            return value
        return type(value)((key, ordered_as(value[key], under)) for key, under in structure.items())
    if isinstance(value, dict) or isinstance(structure, dict):
        return value
    under = iter(parts(structure))
    return rebuild(value, lambda one: ordered_as(one, next(under)))


def parts(container: Any) -> list[Any]:
    """What a container holds, in order."""
    return list(container.values()) if isinstance(container, dict) else list(container)


def broadcast(prefix: Any, structure: Any, what: str) -> list[Any]:
    """One entry of `prefix` for each LEAF of `structure`: containers must agree as far as the prefix goes.

    Raises
    ------
    ValueError
        Where they do not, naming `what`.
    """
    if structure is LEAF:
        if is_container(prefix):
            raise ValueError(f"{what}: {prefix!r} is given for what is one tensor")
        return [prefix]
    if not is_container(structure):
        return []
    if not is_container(prefix):
        return [prefix for _ in range(count(structure))]
    alike = isinstance(prefix, dict) == isinstance(structure, dict) and len(prefix) == len(structure)
    if not alike or (isinstance(prefix, dict) and prefix.keys() != structure.keys()):
        raise ValueError(f"{what}: {prefix!r} does not have the structure of {structure!r}")
    pairs = (
        [(prefix[key], structure[key]) for key in structure]
        if isinstance(prefix, dict)
        else list(zip(prefix, structure, strict=True))
    )
    return [entry for one, under in pairs for entry in broadcast(one, under, what)]


def count(structure: Any) -> int:
    """How many tensors a structure has room for."""
    if structure is LEAF:
        return 1
    return sum(count(one) for one in parts(structure)) if is_container(structure) else 0
