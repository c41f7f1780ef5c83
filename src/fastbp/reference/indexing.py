"""Operations that pick elements by arrays of indices, and those that put them there.

Each is told by positions again: which element of the array an index names. Reading by positions and adding into
positions are each other's transposes, and that is the whole of their derivatives.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from .array import (
    Array,
    Shape,
    accumulate,
    broadcast_shapes,
    broadcast_to,
    coordinates,
    fibres,
    position,
    sum_to_shape,
    wrap_dim,
    wrap_dims,
    zeros_like,
)
from .registry import define

Placement = tuple[Shape, list[int]]
"""The shape of what is read or written, and the position in the array of each of its elements."""


def _read(x: Array, placement: Placement) -> Array:
    shape, positions = placement
    return Array([x.values[p] for p in positions], shape)


def _in_range(index: Any, size: int, name: str) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"{name}: an index must be a whole number, not {index!r}")
    if not 0 <= index < size:
        raise IndexError(f"{name}: index {index} is out of range for a dimension of size {size}")
    return index


# --- NumPy's indexing by arrays -------------------------------------------------------------------------------------


def _expand_masks(x: Array, indices: Sequence[Array | None]) -> list[Array | None]:
    """Replace each boolean mask of k dimensions by the k index arrays of its true elements; fill up with None."""
    expanded: list[Array | None] = []
    for index in indices:
        if index is None or not index.is_bool:
            expanded.append(index)
            continue
        covered = x.shape[len(expanded) : len(expanded) + index.ndim]
        if covered != index.shape:
            raise IndexError(f"index: a mask of shape {index.shape} does not fit the dimensions {covered}")
        hits = [co for co, hit in zip(coordinates(index.shape), index.values, strict=True) if hit]
        expanded += [Array([hit[axis] for hit in hits], (len(hits),)) for axis in range(index.ndim)]
    if len(expanded) > x.ndim:
        raise IndexError(f"index: {len(expanded)} indices for {x.ndim} dimensions")
    return expanded + [None] * (x.ndim - len(expanded))


def _index_placement(x: Array, indices: Sequence[Array | None]) -> Placement:
    """NumPy's rule: the index arrays broadcast together, and their common shape takes the place of the dimensions
    they index if those are neighbours, or else comes first."""
    by_dim = _expand_masks(x, indices)
    indexed = [axis for axis, index in enumerate(by_dim) if index is not None]
    arrays = [index for index in by_dim if index is not None]
    common = broadcast_shapes(*(index.shape for index in arrays))
    columns = [broadcast_to(index, common).values for index in arrays]
    for axis, column in zip(indexed, columns, strict=True):
        for index in column:
            _in_range(index if index >= 0 else index + x.shape[axis], x.shape[axis], "index")
    neighbours = bool(indexed) and indexed == list(range(indexed[0], indexed[0] + len(indexed)))
    lead = indexed[0] if neighbours else 0
    kept = [axis for axis in range(x.ndim) if axis not in indexed]
    before, after = kept[:lead], kept[lead:]
    shape = (*(x.shape[axis] for axis in before), *common, *(x.shape[axis] for axis in after))
    positions = []
    for coordinate in coordinates(shape):
        middle = position(coordinate[lead : lead + len(common)], common)
        outer = coordinate[:lead] + coordinate[lead + len(common) :]
        place = dict(zip(kept, outer, strict=True))
        place.update({axis: column[middle] % x.shape[axis] for axis, column in zip(indexed, columns, strict=True)})
        positions.append(position([place[axis] for axis in range(x.ndim)], x.shape))
    return shape, positions


def _index(x: Array, *indices: Array | None) -> Array:
    return _read(x, _index_placement(x, indices))


def _index_vjp(cotangent: Array, x: Array, *indices: Array | None) -> tuple[Array | None, ...]:
    _, positions = _index_placement(x, indices)
    return accumulate(cotangent.values, positions, x.shape), *(None for _ in indices)


def _index_put(x: Array, values: Array, *indices: Array | None, accumulate: bool = False) -> Array:
    shape, positions = _index_placement(x, indices)
    result = list(x.values)
    for p, value in zip(positions, broadcast_to(values, shape).values, strict=True):
        result[p] = result[p] + value if accumulate else value
    return Array(result, x.shape)


def _index_put_vjp(
    cotangent: Array, x: Array, values: Array, *indices: Array | None, accumulate: bool = False
) -> tuple[Array | None, ...]:
    placement = _index_placement(x, indices)
    kept = cotangent if accumulate else _blanked(cotangent, placement[1])
    return kept, sum_to_shape(_read(cotangent, placement), values.shape), *(None for _ in indices)


def _blanked(x: Array, positions: Sequence[int]) -> Array:
    """``x`` with zeros at the positions: what is overwritten has no influence."""
    written = set(positions)
    return Array([0.0 if p in written else value for p, value in enumerate(x.values)], x.shape)


define("index", _index, _index_vjp)
define("index_put", _index_put, _index_put_vjp)

# --- along one dimension --------------------------------------------------------------------------------------------


def _gather_placement(shape: Shape, index: Array, dim: int, name: str) -> Placement:
    """Element [i, j, k] of the index names [i, index[i, j, k], k] for dim = 1."""
    axis = wrap_dim(dim, len(shape))
    # A number is treated as a list of one, as PyTorch does.
    full, frame = (shape or (1,)), (index.shape or (1,))
    if len(full) != len(frame) or any(n > m for d, (n, m) in enumerate(zip(frame, full, strict=True)) if d != axis):
        raise ValueError(f"{name}: an index of shape {index.shape} does not fit into {shape} along dimension {dim}")
    positions = []
    for coordinate, value in zip(coordinates(frame), index.values, strict=True):
        place = list(coordinate)
        place[axis] = _in_range(value, full[axis], name)
        positions.append(position(place, full))
    return index.shape, positions


def _gather(x: Array, index: Array, dim: int) -> Array:
    return _read(x, _gather_placement(x.shape, index, dim, "gather"))


def _gather_vjp(cotangent: Array, x: Array, index: Array, dim: int) -> tuple[Array | None, ...]:
    _, positions = _gather_placement(x.shape, index, dim, "gather")
    return accumulate(cotangent.values, positions, x.shape), None


def _source_values(index: Array, src: Array | None, value: float | None) -> list[Any]:
    """What scatter writes: the part of ``src`` that the index covers, or one number everywhere."""
    if src is None:
        if value is None:
            raise TypeError("scatter: either src or value is required")
        return [value] * index.size
    return [src.values[p] for p in _leading_positions(src, index)]


def _leading_positions(src: Array, index: Array) -> list[int]:
    if src.ndim != index.ndim or any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
        raise ValueError(f"scatter: src of shape {src.shape} does not cover the index of shape {index.shape}")
    return [position(coordinate, src.shape) for coordinate in coordinates(index.shape)]


def _scatter(x: Array, index: Array, src: Array | None = None, *, dim: int, value: float | None = None) -> Array:
    _, positions = _gather_placement(x.shape, index, dim, "scatter")
    result = list(x.values)
    for p, new in zip(positions, _source_values(index, src, value), strict=True):
        result[p] = new
    return Array(result, x.shape)


def _scatter_vjp(
    cotangent: Array, x: Array, index: Array, src: Array | None = None, *, dim: int, value: float | None = None
) -> tuple[Array | None, ...]:
    placement = _gather_placement(x.shape, index, dim, "scatter")
    return _blanked(cotangent, placement[1]), None, _source_gradient(cotangent, index, src, placement)


def _source_gradient(cotangent: Array, index: Array, src: Array | None, placement: Placement) -> Array | None:
    if src is None:
        return None
    return accumulate(_read(cotangent, placement).values, _leading_positions(src, index), src.shape)


def _scatter_add(x: Array, index: Array, src: Array, dim: int) -> Array:
    _, positions = _gather_placement(x.shape, index, dim, "scatter_add")
    result = list(x.values)
    for p, new in zip(positions, _source_values(index, src, None), strict=True):
        result[p] += new
    return Array(result, x.shape)


def _scatter_add_vjp(cotangent: Array, x: Array, index: Array, src: Array, dim: int) -> tuple[Array | None, ...]:
    placement = _gather_placement(x.shape, index, dim, "scatter_add")
    return cotangent, None, _source_gradient(cotangent, index, src, placement)


define("gather", _gather, _gather_vjp)
define("scatter", _scatter, _scatter_vjp)
define("scatter_add", _scatter_add, _scatter_add_vjp)


def _line_placement(shape: Shape, index: Array, dim: int, name: str) -> Placement:
    """The lines (rows for dim = 0) that a list of indices names, in its order."""
    axis = wrap_dim(dim, len(shape))
    if index.ndim > 1:
        raise ValueError(f"{name}: the index must be a list, not of shape {index.shape}")
    full = shape or (1,)
    lines = [_in_range(value, full[axis], name) for value in index.values]
    ranges: list[Sequence[int]] = [lines if d == axis else range(n) for d, n in enumerate(full)]
    picked = tuple(len(r) for r in ranges) if shape else ()
    return picked, [position(co, full) for co in itertools.product(*ranges)]


def _index_select(x: Array, index: Array, dim: int) -> Array:
    return _read(x, _line_placement(x.shape, index, dim, "index_select"))


def _index_select_vjp(cotangent: Array, x: Array, index: Array, dim: int) -> tuple[Array | None, ...]:
    _, positions = _line_placement(x.shape, index, dim, "index_select")
    return accumulate(cotangent.values, positions, x.shape), None


def _index_add(x: Array, index: Array, source: Array, dim: int, alpha: float = 1) -> Array:
    shape, positions = _line_placement(x.shape, index, dim, "index_add")
    if source.shape != shape:
        raise ValueError(f"index_add: a source of shape {source.shape} where {shape} is needed")
    result = list(x.values)
    for p, new in zip(positions, source.values, strict=True):
        result[p] += alpha * new
    return Array(result, x.shape)


def _index_add_vjp(
    cotangent: Array, x: Array, index: Array, source: Array, dim: int, alpha: float = 1
) -> tuple[Array | None, ...]:
    picked = _read(cotangent, _line_placement(x.shape, index, dim, "index_add"))
    return cotangent, None, Array([alpha * g for g in picked.values], picked.shape)


define("index_select", _index_select, _index_select_vjp)
define("index_add", _index_add, _index_add_vjp)

# --- tables ---------------------------------------------------------------------------------------------------------


def _embedding_placement(weight: Array, index: Array) -> Placement:
    rows, width = weight.shape
    starts = [_in_range(value, rows, "embedding") * width for value in index.values]
    return (*index.shape, width), [start + column for start in starts for column in range(width)]


def _embedding(weight: Array, index: Array, padding_idx: int | None = None) -> Array:
    return _read(weight, _embedding_placement(weight, index))


def _embedding_vjp(
    cotangent: Array, weight: Array, index: Array, padding_idx: int | None = None
) -> tuple[Array | None, ...]:
    """The padding row is read like any other, and never learns."""
    _, positions = _embedding_placement(weight, index)
    gradient = accumulate(cotangent.values, positions, weight.shape)
    if padding_idx is not None:
        start = padding_idx % weight.shape[0] * weight.shape[1]
        gradient.values[start : start + weight.shape[1]] = [0.0] * weight.shape[1]
    return gradient, None


def _one_hot(index: Array, num_classes: int = -1) -> Array:
    classes = max(index.values) + 1 if num_classes == -1 else num_classes
    hits = [_in_range(value, classes, "one_hot") for value in index.values]
    return Array([int(column == hit) for hit in hits for column in range(classes)], (*index.shape, classes))


define("embedding", _embedding, _embedding_vjp)
define("one_hot", _one_hot)

# --- rows of the leading dimensions -----------------------------------------------------------------------------------


def _row_placement(shape: Shape, index: Array, axes: int, name: str) -> Placement:
    """The first ``axes`` dimensions taken as one, of which the index names rows; negative ones count from the end."""
    rows, row = math.prod(shape[:axes]), shape[axes:]
    width = math.prod(row)
    starts = [_in_range(i + rows if i < 0 else i, rows, name) * width for i in index.values]
    return (*index.shape, *row), [start + column for start in starts for column in range(width)]


def _take(x: Array, index: Array, axes: int = 1) -> Array:
    return _read(x, _row_placement(x.shape, index, axes, "take"))


def _take_vjp(cotangent: Array, x: Array, index: Array, axes: int = 1) -> tuple[Array | None, ...]:
    _, positions = _row_placement(x.shape, index, axes, "take")
    return accumulate(cotangent.values, positions, x.shape), None


def _put(x: Array, index: Array, src: Array, axes: int = 1) -> Array:
    shape, positions = _row_placement(x.shape, index, axes, "put")
    result = list(x.values)
    for p, new in zip(positions, broadcast_to(src, shape).values, strict=True):
        result[p] = new
    return Array(result, x.shape)


def _put_vjp(cotangent: Array, x: Array, index: Array, src: Array, axes: int = 1) -> tuple[Array | None, ...]:
    placement = _row_placement(x.shape, index, axes, "put")
    return _blanked(cotangent, placement[1]), None, sum_to_shape(_read(cotangent, placement), src.shape)


def _put_add(x: Array, index: Array, src: Array, axes: int = 1) -> Array:
    shape, positions = _row_placement(x.shape, index, axes, "put_add")
    result = list(x.values)
    for p, new in zip(positions, broadcast_to(src, shape).values, strict=True):
        result[p] += new
    return Array(result, x.shape)


def _put_add_vjp(cotangent: Array, x: Array, index: Array, src: Array, axes: int = 1) -> tuple[Array | None, ...]:
    placement = _row_placement(x.shape, index, axes, "put_add")
    return cotangent, None, sum_to_shape(_read(cotangent, placement), src.shape)


def _positions(*indices: Array, size: Sequence[int]) -> Array:
    """Row-major positions in ``size``'s leading dimensions, as many as there are indices, which broadcast together."""
    common = broadcast_shapes(*(index.shape for index in indices))
    columns = [broadcast_to(index, common).values for index in indices]
    lead = tuple(size[: len(indices)])
    places = [
        [_in_range(i + n if i < 0 else i, n, "positions") for i, n in zip(row, lead, strict=True)]
        for row in zip(*columns, strict=True)
    ]
    return Array([position(place, lead) for place in places], common)


define("positions", _positions)
define("take", _take, _take_vjp)
define("put", _put, _put_vjp)
define("put_add", _put_add, _put_add_vjp)

# --- order and search -----------------------------------------------------------------------------------------------


def _nonzero(x: Array) -> Array:
    hits = [co for co, value in zip(coordinates(x.shape), x.values, strict=True) if value]
    return Array([c for hit in hits for c in hit], (len(hits), x.ndim))


def _ordered(values: Sequence[Any], descending: bool) -> list[int]:
    """Indices in rising (or falling) order of the values; equals keep their order, NaN is the largest."""
    flip = -1 if descending else 1

    def key(index: int) -> tuple[int, Any]:
        value = values[index]
        return (flip, 0) if value != value else (0, flip * value)

    return sorted(range(len(values)), key=key)


def _argsort(x: Array, dim: int = -1, descending: bool = False) -> Array:
    result = [0] * x.size
    for fibre in fibres(x.shape, wrap_dims(wrap_dim(dim, x.ndim), x.ndim)):
        for p, index in zip(fibre, _ordered([x.values[q] for q in fibre], descending), strict=True):
            result[p] = index
    return Array(result, x.shape)


def _sort(x: Array, dim: int = -1, descending: bool = False) -> tuple[Array, Array]:
    indices = _argsort(x, dim, descending)
    return (_gather(x, indices, dim) if x.ndim else x), indices


def _topk(x: Array, k: int, dim: int = -1, largest: bool = True) -> tuple[Array, Array]:
    axis = wrap_dim(dim, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"topk: k = {k} of {x.shape[axis]} elements")
    kept = {p for fibre in fibres(x.shape, [axis]) for p in fibre[:k]}
    order = _argsort(x, dim, largest)
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    indices = Array([index for p, index in enumerate(order.values) if p in kept], shape)
    return _gather(x, indices, dim), indices


def _chosen_vjp(choose: Any) -> Any:
    """sort and topk pick elements by the indices that they return."""

    def vjp(cotangent: Any, x: Array, *arguments: Any, **attributes: Any) -> tuple[Array | None, ...]:
        values, indices = choose(x, *arguments, **attributes)
        pulled = cotangent[0] if isinstance(cotangent, tuple) else cotangent
        return _gather_vjp(zeros_like(values) if pulled is None else pulled, x, indices, attributes.get("dim", -1))[:1]

    return vjp


define("nonzero", _nonzero)
define("argsort", _argsort)
define("sort", _sort, _chosen_vjp(_sort))
define("topk", _topk, _chosen_vjp(_topk))
