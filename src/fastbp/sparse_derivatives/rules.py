"""How sets of input elements pass through one op, by the op's class: the row of the table says it, not a list here.

    pointwise        element by element, after broadcasting
    view, linear     the op is asked (`probes`); where it cannot tell, it mixes whatever its axes mix
    bilinear, and    products: an element depends on a row of one matrix and a column of the other, less the
    their sums       zeros of a constant one
    general          mixes along the axes that its attributes name (reductions, softmax, losses by classes)
    anything else    everything depends on everything
    nodiff           nothing

Each may say too much, never too little: what a rule does not know mixes all elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import Tensor, _apply, float64, no_grad, op_table, zeros
from .probes import map_of_linear, places_of_view
from .sets import Array, Sets, choose, map_of, nothing, push, repeat, scipy_sparse, unite, unite_rows

CLASSES: dict[str, str] = {row["name"]: row["class"] for row in op_table()}
VIEWS = {row["name"] for row in op_table() if row["view"]}

Shape = tuple[int, ...]


@dataclass
class Operand:
    """An input of a node: its value (None: overwritten by an in-place op), shape, and sets (None: constant)."""

    value: Tensor | None
    shape: Shape
    sets: Sets | None

    @property
    def numbers(self) -> Tensor:
        """The value, or, where it is gone, zeros: enough for what depends on shapes alone."""
        return zeros(self.shape, dtype=float64) if self.value is None else self.value.detach()


@dataclass
class Step:
    """One recorded op: what it was applied to, and the shape of what came out."""

    op: str
    operands: Sequence[Operand | None]
    attributes: dict[str, Any]
    shape: Shape

    @property
    def size(self) -> int:
        return size_of(self.shape)

    @property
    def dependent(self) -> list[Operand]:
        """The operands that depend on x at all."""
        return [x for x in self.operands if x is not None and x.sets is not None]


def size_of(shape: Shape) -> int:
    """Elements of a tensor of this shape."""
    return int(np.prod(shape, dtype=np.int64))


def shape_of(op: str, operands: Sequence[Operand | None], attributes: dict[str, Any]) -> Shape:
    """Shape of an op's result, by running it: for nodes whose value an in-place op has overwritten."""
    with no_grad():
        return tuple(_apply(op, [None if x is None else x.numbers for x in operands], attributes).shape)


def sets_of(step: Step) -> Sets | None:
    """The sets of a node from those of its operands; None where it depends on nothing."""
    if not step.dependent:
        return None
    kind = CLASSES.get(step.op)
    if kind in ("predicate", "nodiff"):
        return None
    if kind == "pointwise":
        return _elementwise(step)
    if step.op in VIEWS:
        return choose(step.dependent[0].sets, places_of_view(step.op, step.dependent[0].shape, step.attributes))
    if kind == "linear":
        return _linear(step)
    if step.op in PRODUCTS:
        return PRODUCTS[step.op](step)
    return _mixed(step) if kind == "general" else _everything(step)


def _everything(step: Step) -> Sets:
    """Every element of the result depends on all that the operands depend on."""
    return repeat(unite([unite_rows(x.sets) for x in step.dependent]), step.size)


def _elementwise(step: Step) -> Sets:
    return unite([choose(x.sets, _broadcast(x.shape, step.shape)) for x in step.dependent])


def _broadcast(shape: Shape, target: Shape) -> Array:
    """Which element of a tensor each element of the tensor that it is broadcast to comes from."""
    return np.broadcast_to(np.arange(size_of(shape)).reshape(shape), target).ravel()


# ---- linear ops ----------------------------------------------------------------------------------------------------


def _linear(step: Step) -> Sets:
    """By asking the op. Casts, and random masks, whose zeros are no structure, count as copies: both name a dtype."""
    if "dtype" in step.attributes:
        return _elementwise(step) if step.dependent[0].shape == step.shape else _everything(step)
    real = [x for x in step.operands if x is not None and (x.value is None or x.value.is_floating_point())]
    if any(x.value is None and x.sets is None for x in real):
        return _mixed(step)  # perhaps an index, and overwritten
    values = [None if x is None else x.numbers for x in step.operands]
    found = map_of_linear(step.op, values, step.attributes)
    if found is None:
        return _mixed(step)
    (n,) = {x.sets.shape[1] for x in real if x.sets is not None}
    stacked = [nothing(size_of(x.shape), n) if x.sets is None else x.sets for x in real]
    return push(found, stacked[0] if len(stacked) == 1 else scipy_sparse().vstack(stacked, format="csr"))


# ---- ops that mix along axes ---------------------------------------------------------------------------------------


def _mixed(step: Step) -> Sets:
    """Elements along the axes that the attributes name depend on each other, others do not.

    The operands and the result may each have the whole shape, that with the axes reduced (kept as size 1 or not), or
    be single numbers; whatever fits none of these mixes everything.
    """
    whole = max((*(x.shape for x in step.operands if x is not None), step.shape), key=size_of)
    axes = _axes(step, whole)
    if axes is None:
        return _everything(step)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(whole))
    dropped = tuple(size for axis, size in enumerate(whole) if axis not in axes)
    groups = np.broadcast_to(np.arange(size_of(kept)).reshape(kept), whole).ravel()
    collected = map_of(groups, np.arange(len(groups)), (size_of(kept), len(groups)))
    parts = []
    for x in step.dependent:
        if x.shape == whole:
            parts.append(push(collected, x.sets))
        elif x.shape in (kept, dropped):
            parts.append(x.sets)
        elif size_of(x.shape) == 1:
            parts.append(repeat(x.sets, size_of(kept)))
        else:
            return _everything(step)
    mixed = unite(parts)
    if step.shape == whole:
        return choose(mixed, groups)
    return mixed if step.shape in (kept, dropped) else _everything(step)


def _axes(step: Step, whole: Shape) -> tuple[int, ...] | None:
    """Axes that the op mixes, None if it does not say."""
    attributes = step.attributes
    if "dims" in attributes:
        return tuple(attributes["dims"])
    if "reduction" in attributes:  # losses over classes
        return (1 if len(whole) > 1 else 0,)
    if "dim" in attributes:
        return (attributes["dim"] % max(len(whole), 1),)
    return None


# ---- products ------------------------------------------------------------------------------------------------------


@dataclass
class Factor:
    """A matrix, or stack of matrices, of a product: which element of the operand stands where."""

    operand: Operand
    index: Array

    @property
    def constant(self) -> bool:
        return self.operand.sets is None and self.operand.value is not None

    def transposed(self) -> Factor:
        return Factor(self.operand, self.index.swapaxes(-1, -2))

    def structure(self) -> Array:
        """Where a constant factor is not zero."""
        return np.asarray(self.operand.numbers.numpy() != 0).ravel()[self.index]


def _factor(operand: Operand) -> Factor:
    return Factor(operand, np.arange(size_of(operand.shape)).reshape(operand.shape))


def _product(a: Factor, b: Factor) -> list[Sets]:
    """Sets of the elements of a @ b in row-major order, from either side that depends on x."""
    batch = np.broadcast_shapes(a.index.shape[:-2], b.index.shape[:-2])
    a, b = (Factor(x.operand, np.broadcast_to(x.index, batch + x.index.shape[-2:])) for x in (a, b))
    parts = []
    if a.operand.sets is not None:
        parts.append(_left(a, b))
    if b.operand.sets is not None:
        shape = (*batch, b.index.shape[-1], a.index.shape[-2])
        order = np.arange(size_of(shape)).reshape(shape).swapaxes(-1, -2)
        parts.append(choose(_left(b.transposed(), a.transposed()), order))
    return parts


def _left(a: Factor, b: Factor) -> Sets:
    """What (a @ b)[i, j] depends on through row i of a, less where column j of a constant b is zero."""
    *batch, m, k = a.index.shape
    p = b.index.shape[-1]
    count, size = size_of(tuple(batch)), size_of(a.operand.shape)
    index = a.index.reshape(count, m, k)
    if b.constant:
        structure = b.structure().reshape(count, k, p)
        if not structure.all():
            which, inner, column = np.nonzero(structure)
            rows = (which[:, None] * m + np.arange(m)) * p + column[:, None]
            columns = index[which, :, inner]
            return push(map_of(rows.ravel(), columns.ravel(), (count * m * p, size)), a.operand.sets)
    row = np.broadcast_to(np.arange(count * m)[:, None], (count * m, k))
    joined = push(map_of(row.ravel(), index.ravel(), (count * m, size)), a.operand.sets)
    return choose(joined, np.repeat(np.arange(count * m), p))


def _matmul(step: Step) -> Sets:
    x, y = step.operands[:2]
    assert x is not None and y is not None
    a, b = _factor(x), _factor(y)
    if a.index.ndim == 1:
        a.index = a.index[None, :]
    if b.index.ndim == 1:
        b.index = b.index[:, None]
    return unite(_product(a, b))


def _linear_layer(step: Step) -> Sets:
    x, weight, *rest = step.operands
    assert x is not None and weight is not None
    a = _factor(x)
    a.index = a.index.reshape(-1, x.shape[-1])  # all leading axes are rows
    return unite(_product(a, _factor(weight).transposed()) + _added(step, rest))


def _addmm(step: Step) -> Sets:
    x, first, second = step.operands
    assert first is not None and second is not None
    return unite(_product(_factor(first), _factor(second)) + _added(step, [x]))


def _added(step: Step, operands: Sequence[Operand | None]) -> list[Sets]:
    return [choose(x.sets, _broadcast(x.shape, step.shape)) for x in operands if x is not None and x.sets is not None]


PRODUCTS = {"matmul": _matmul, "linear": _linear_layer, "addmm": _addmm}
"""Rows whose products are looked into; a new row of class "bilinear" mixes everything until it is here."""
