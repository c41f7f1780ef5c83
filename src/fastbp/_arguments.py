"""Arguments of a compiled function: what is static about them, as a key, and the tensors among them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from . import _core
from ._core import RunEagerly, Tensor
from ._tree import LEAF, is_container, is_number, parts

if TYPE_CHECKING:
    from typing import Any


def key_of(structure: Any) -> Any:
    """The structure as something that hashes: equal for equal static arguments, by identity for what does not."""
    kind = type(structure)
    if structure is LEAF:
        return LEAF
    if kind is list or isinstance(structure, tuple):
        return (kind, *map(key_of, structure))
    if isinstance(structure, float):
        return (kind, float.hex(structure))  # 0.0 and -0.0 differ, NaN is NaN
    if isinstance(structure, complex):
        return (kind, key_of((structure.real, structure.imag)))
    if is_number(structure):
        return (kind, repr(structure))
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


class Containers:
    """Lists and dicts among the arguments that a function is called with, to see what it does to them.

    Parameters
    ----------
    arguments : list, tuple or dict
        Looked through as `flatten` does; the lists and dicts are held, and compared with what is in them now.
    """

    def __init__(self, arguments: Any) -> None:
        self._arguments = arguments
        self._found: list[tuple[Any, list[Any]]] = []
        self._note(arguments)

    def _note(self, value: Any) -> None:
        if not is_container(value):
            return
        if isinstance(value, list | dict):
            self._found.append((value, _contents(value)))
        for one in parts(value):
            self._note(one)

    def changed(self) -> bool:
        """Whether one of them has other entries."""
        for container, before in self._found:
            now = _contents(container)
            if len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True)):
                return True
        return False

    def check(self) -> None:
        """Raise RunEagerly where one has: a plan would not do it again."""
        if self.changed():
            raise RunEagerly("it changes a list or a dict among its arguments", forever=True)

    def hand_back(self, originals: Any, arrays: dict[int, Any]) -> None:
        """Do to the containers in `originals`, of the same structure, what was done to these.

        Parameters
        ----------
        arrays : dict
            What stands in the originals for a tensor, by its identity.
        """
        if not self.changed():
            return
        copies = Containers(originals)
        same = {id(mine): theirs for (mine, _), (theirs, _) in zip(self._found, copies._found, strict=True)}
        for mine, _ in self._found:
            theirs = same[id(mine)]
            contents = [same.get(id(one), arrays.get(id(one), one)) for one in parts(mine)]
            if isinstance(mine, list):
                theirs[:] = contents
                continue
            keys = list(mine)
            theirs.clear()
            theirs.update(zip(keys, contents, strict=True))


def _contents(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)
