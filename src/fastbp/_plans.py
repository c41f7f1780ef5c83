"""The plans that a compiled function has, by the static part of the arguments that they are for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from ._core import Plan

PLANS_MOST = 16


class Entry:
    """A plan and the arguments that it is for."""

    __slots__ = ("arguments", "key", "plan", "result", "structure")

    def __init__(self, key: Any, structure: Any, arguments: list[Any], plan: Plan, result: Any) -> None:
        self.key = key
        self.structure = structure  # held, so that the ids in the key stay taken
        self.arguments = arguments
        self.plan = plan
        self.result = result


class Entries:
    """At most `PLANS_MOST` entries, the least recently used key first. Threads may call all methods at any time."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Any, list[Entry]] = OrderedDict()
        self._changing = threading.Lock()

    def values(self) -> list[list[Entry]]:
        """The entries of each key, oldest first."""
        with self._changing:
            return [list(entries) for entries in self._by_key.values()]

    def of(self, key: Any) -> list[Entry]:
        """The entries of a key, oldest first."""
        with self._changing:
            return list(self._by_key.get(key, ()))

    def use(self, key: Any) -> None:
        """A key is the most recently used one."""
        with self._changing:
            if key in self._by_key:
                self._by_key.move_to_end(key)

    def add(self, entry: Entry) -> Entry | None:
        """Keep an entry; returns the one that is dropped for it."""
        with self._changing:
            self._by_key.setdefault(entry.key, []).append(entry)
            self._by_key.move_to_end(entry.key)
            if sum(map(len, self._by_key.values())) <= PLANS_MOST:
                return None
            oldest = next(iter(self._by_key.values()))
            dropped = oldest.pop(0)
            if not oldest:
                self._by_key.popitem(last=False)
            return dropped

    def clear(self) -> None:
        """Drop all entries."""
        with self._changing:
            self._by_key.clear()


def difference(old: Entry, new: Entry) -> str:
    """Which argument changes from plan to plan, in words."""
    for number, (a, b) in enumerate(zip(old.arguments, new.arguments, strict=False)):
        for what, x, y in zip(("shape", "strides", "dtype", "requires_grad"), a, b, strict=True):
            if x != y:
                return f"tensor argument {number} changes its {what}, from {x} to {y}"
    if old.key != new.key:
        return "a static argument changes"
    return "modules, optimizers or gradients change between calls"
