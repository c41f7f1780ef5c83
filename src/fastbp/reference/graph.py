"""Replaying a captured graph, forward and backward, one plain record at a time.

A program is a list of records over a list of leaves. Positions count the leaves first, then the records: with three
leaves, the first record makes the value at position 3. A record is one of

- ``(op, inputs, attributes)``: the op's name, the positions of its inputs and a dict. An input is a position, a pair
  ``(position, k)`` for the k-th output of an op, or None for an optional input that is left out;
- any other value (an Array, nested lists, a number): a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .array import Array, as_array, ones_like, zeros_like
from .registry import OPS

Value = Any
"""An Array, or a tuple of Arrays for an op with several outputs."""

Reference = int | tuple[int, int] | None
Record = Any


def _is_call(record: Record) -> bool:
    return isinstance(record, tuple) and len(record) == 3 and isinstance(record[0], str)


def _fetch(values: Sequence[Value], reference: Reference) -> Value:
    if reference is None:
        return None
    at, number = reference if isinstance(reference, tuple) else (reference, None)
    value = values[at]
    if isinstance(value, tuple):
        return value if number is None else value[number]
    if number:
        raise IndexError(f"position {at} has one output, not number {number}")
    return value


def replay(program: Sequence[Record], leaves: Sequence[Any]) -> list[Value]:
    """Evaluate a captured graph in plain Python.

    Parameters
    ----------
    program : sequence of records
        As described at the head of this module; every input comes before the record that uses it.
    leaves : sequence of Array, nested list or number
        The values of the first positions.

    Returns
    -------
    list of (Array or tuple of Array)
        The value at every position, leaves included; a tuple for an op with several outputs.

    Raises
    ------
    KeyError
        If the reference has no op of a record's name.
    IndexError
        If a record refers to a position that is not yet computed.

    Examples
    --------
    >>> program = [("add", (0, 1), {}), ("add", (1, 2), {}), ("mul", (3, 4), {})]
    >>> replay(program, [3.0, 2.0, 1.0])[-1].item()  # (a + b) (b + 1)
    15.0
    """
    values: list[Value] = [as_array(leaf) for leaf in leaves]
    for record in program:
        if _is_call(record):
            name, inputs, attributes = record
            values.append(OPS[name].forward(*(_fetch(values, i) for i in inputs), **attributes))
        else:
            values.append(as_array(record))
    return values


class _Sweep:
    """Cotangents by position, a list of one an output where an op has several."""

    def __init__(self, values: Sequence[Value]) -> None:
        self.values = values
        self.cotangents: list[Any] = [[None] * len(v) if isinstance(v, tuple) else None for v in values]

    def add(self, reference: Reference, cotangent: Array | None) -> None:
        if reference is None or cotangent is None:
            return
        at, number = reference if isinstance(reference, tuple) else (reference, 0)
        slots, key = (self.cotangents[at], number) if isinstance(self.values[at], tuple) else (self.cotangents, at)
        before = slots[key]
        if before is not None:
            pairs = zip(before.values, cotangent.values, strict=True)
            cotangent = Array([a + b for a, b in pairs], cotangent.shape)
        slots[key] = cotangent

    def arriving(self, at: int) -> Any:
        """What has been added up for a position; None if nothing has."""
        pulled = self.cotangents[at]
        if not isinstance(pulled, list):
            return pulled
        return tuple(pulled) if any(part is not None for part in pulled) else None


def gradient(
    program: Sequence[Record], leaves: Sequence[Any], output: int | tuple[int, int] = -1, cotangent: Any = None
) -> list[Array]:
    """Differentiate one value of a captured graph by its leaves, in one reverse sweep.

    Parameters
    ----------
    program, leaves
        As for :func:`replay`.
    output : int or pair of int
        Position of the value to differentiate (negative: from the end), or position and number of the output.
    cotangent : Array, nested list or number, optional
        What to start with, in the output's shape; ones by default.

    Returns
    -------
    list of Array
        The gradient of each leaf, in its shape; zeros where no path leads to it.

    Examples
    --------
    >>> program = [("add", (0, 1), {}), ("add", (1, 2), {}), ("mul", (3, 4), {})]
    >>> [g.item() for g in gradient(program, [3.0, 2.0, 1.0])]
    [3.0, 8.0, 5.0]
    """
    values = replay(program, leaves)
    start = (output[0] % len(values), output[1]) if isinstance(output, tuple) else output % len(values)
    target = _fetch(values, start)
    if isinstance(target, tuple):
        raise ValueError("gradient: the op has several outputs; name one as (position, number)")
    seed = ones_like(target) if cotangent is None else as_array(cotangent)
    if seed is None or seed.shape != target.shape:
        raise ValueError(f"gradient: cotangent {seed} for an output of shape {target.shape}")
    sweep = _Sweep(values)
    sweep.add(start, seed)
    for at in reversed(range(len(leaves), len(values))):
        record, arriving = program[at - len(leaves)], sweep.arriving(at)
        if arriving is None or not _is_call(record):
            continue
        name, inputs, attributes = record
        pulled = OPS[name].vjp(arriving, *(_fetch(values, i) for i in inputs), **attributes)
        for reference, part in zip(inputs, pulled, strict=True):
            sweep.add(reference, part)
    return [sweep.cotangents[k] or zeros_like(values[k]) for k in range(len(leaves))]
