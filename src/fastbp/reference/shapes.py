"""Operations that only move elements: views, joins, splits, triangles.

A mover is told by its sources: for each output element, the position of the input element it shows (None: a zero).
The derivative then needs no rule of its own: each cotangent goes back to where its element came from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from .array import (
    Array,
    Shape,
    accumulate,
    broadcast_positions,
    coordinates,
    position,
    strides_of,
    wrap_dim,
    wrap_dims,
    zeros_like,
)
from .registry import alias, define

Sources = tuple[Shape, list[int | None]]


def mover(name: str, sources: Callable[..., Sources]) -> None:
    """Enter an operation that moves elements; ``sources(shape, **attributes)`` gives the new shape and the sources."""

    def forward(x: Array, **attributes: Any) -> Array:
        shape, positions = sources(x.shape, **attributes)
        return Array([0.0 if p is None else x.values[p] for p in positions], shape)

    def vjp(cotangent: Array, x: Array, **attributes: Any) -> tuple[Array]:
        _, positions = sources(x.shape, **attributes)
        return (accumulate(cotangent.values, positions, x.shape),)

    define(name, forward, vjp)


def _strided(shape: Shape, strides: Sequence[int], offset: int = 0) -> Sources:
    """Sources of a strided view."""
    return shape, [offset + sum(c * s for c, s in zip(co, strides, strict=True)) for co in coordinates(shape)]


def _same_order(old: Shape, new: Shape) -> Sources:
    if math.prod(old) != math.prod(new):
        raise ValueError(f"shape {old} cannot become {new}: the numbers of elements differ")
    return new, list(range(math.prod(new)))


# --- views --------------------------------------------------------------------------------------------------------


def _reshape(old: Shape, shape: Sequence[int]) -> Sources:
    new = list(shape)
    if -1 in new:
        known = math.prod(size for size in new if size != -1)
        if known == 0 or new.count(-1) > 1:
            raise ValueError(f"reshape: the -1 in {tuple(shape)} is ambiguous")
        new[new.index(-1)] = math.prod(old) // known
    return _same_order(old, tuple(new))


def _permute(shape: Shape, dims: Sequence[int]) -> Sources:
    order = [wrap_dim(d, len(shape)) for d in dims]
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"permute: {tuple(dims)} is not a permutation of {len(shape)} dimensions")
    strides = strides_of(shape)
    return _strided(tuple(shape[d] for d in order), [strides[d] for d in order])


def _transpose(shape: Shape, dim0: int, dim1: int) -> Sources:
    order = list(range(len(shape)))
    if order:
        first, second = wrap_dim(dim0, len(shape)), wrap_dim(dim1, len(shape))
        order[first], order[second] = order[second], order[first]
    return _permute(shape, order)


def _expand(shape: Shape, size: Sequence[int]) -> Sources:
    lead = len(size) - len(shape)
    target = tuple(shape[axis - lead] if extent == -1 else extent for axis, extent in enumerate(size))
    return target, list(broadcast_positions(shape, target))


def _squeeze(shape: Shape, dim: int | Sequence[int] | None = None) -> Sources:
    dropped = wrap_dims(dim, len(shape))
    return _same_order(shape, tuple(n for axis, n in enumerate(shape) if n != 1 or axis not in dropped))


def _unsqueeze(shape: Shape, dim: int) -> Sources:
    axis = wrap_dim(dim, len(shape) + 1)
    return _same_order(shape, (*shape[:axis], 1, *shape[axis:]))


def _flatten(shape: Shape, start_dim: int = 0, end_dim: int = -1) -> Sources:
    if not shape:
        return (1,), [0]
    first, last = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if first > last:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return _same_order(shape, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


def _spread(value: Any, count: int) -> list[Any]:
    """One entry a dimension: a tuple covers the leading ones, a single number or None the first."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    if len(given) > count:
        raise IndexError(f"slice: {len(given)} entries for {count} dimensions")
    return given + [None] * (count - len(given))


def _slice(
    shape: Shape,
    start: Any = None,
    stop: Any = None,
    step: Any = None,
    count: Any = None,
    dropped: Sequence[int] = (),
) -> Sources:
    """Python's slices, one a dimension. A ``count`` in place of the stop takes that many from a start within the
    dimension; ``dropped`` names dimensions of one element that are left out of the shape (indexed by one number)."""
    rank = len(shape)
    entries = zip(*(_spread(value, rank) for value in (start, stop, step, count)), shape, strict=True)
    ranges = [
        range(*slice(first, last, stride).indices(n))
        if number is None
        else range(first or 0, (first or 0) + number * (stride or 1), stride or 1)
        for first, last, stride, number, n in entries
    ]
    if any(r and not (0 <= r[0] < n and 0 <= r[-1] < n) for r, n in zip(ranges, shape, strict=True)):
        raise IndexError(f"slice: a count of {count} from {start} leaves the shape {shape}")
    if any(len(ranges[axis]) != 1 for axis in dropped):
        raise ValueError(f"slice: a dropped dimension of {tuple(dropped)} has not one element")
    kept = tuple(len(r) for axis, r in enumerate(ranges) if axis not in dropped)
    return kept, [position(co, shape) for co in itertools.product(*ranges)]


def _select(shape: Shape, dim: int, index: int) -> Sources:
    axis = wrap_dim(dim, len(shape))
    if not shape or not -shape[axis] <= index < shape[axis]:
        raise IndexError(f"select: index {index} is out of range in dimension {dim} of {shape}")
    strides = strides_of(shape)
    rest = [d for d in range(len(shape)) if d != axis]
    return _strided(tuple(shape[d] for d in rest), [strides[d] for d in rest], index % shape[axis] * strides[axis])


def _diagonal(shape: Shape, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Sources:
    row, column = wrap_dim(dim1, len(shape)), wrap_dim(dim2, len(shape))
    strides = strides_of(shape)
    length = max(0, min(shape[row] + min(offset, 0), shape[column] - max(offset, 0)))
    rest = [d for d in range(len(shape)) if d not in (row, column)]
    start = max(-offset, 0) * strides[row] + max(offset, 0) * strides[column]
    steps = [*(strides[d] for d in rest), strides[row] + strides[column]]
    return _strided((*(shape[d] for d in rest), length), steps, start)


mover("reshape", _reshape)
mover("permute", _permute)
mover("transpose", _transpose)
mover("expand", _expand)
mover("squeeze", _squeeze)
mover("unsqueeze", _unsqueeze)
mover("flatten", _flatten)
mover("slice", _slice)
mover("select", _select)
mover("diagonal", _diagonal)
mover("clone", lambda shape: _same_order(shape, shape))
alias("view", "reshape")
alias("copy", "clone")


def placer(name: str, sources: Callable[..., Sources]) -> None:
    """Enter the transpose of a mover: zeros of shape ``size`` with the input where the mover would read it."""

    def forward(x: Array, size: Sequence[int], **attributes: Any) -> Array:
        shape, positions = sources(tuple(size), **attributes)
        if shape != x.shape:
            raise ValueError(f"{name}: an input of shape {x.shape} where {shape} is needed")
        return accumulate(x.values, positions, tuple(size))

    def vjp(cotangent: Array, x: Array, size: Sequence[int], **attributes: Any) -> tuple[Array]:
        _, positions = sources(tuple(size), **attributes)
        return (Array([0.0 if p is None else cotangent.values[p] for p in positions], x.shape),)

    define(name, forward, vjp)


placer("embed", _slice)
placer("embed_diagonal", _diagonal)


def _slice_assign(x: Array, src: Array, **attributes: Any) -> Array:
    shape, positions = _slice(x.shape, **attributes)
    result = list(x.values)
    for p, source in zip(positions, broadcast_positions(src.shape, shape), strict=True):
        assert p is not None
        result[p] = src.values[source]
    return Array(result, x.shape)


def _slice_assign_vjp(cotangent: Array, x: Array, src: Array, **attributes: Any) -> tuple[Array, Array]:
    shape, positions = _slice(x.shape, **attributes)
    written = set(positions)
    kept = [0.0 if p in written else g for p, g in enumerate(cotangent.values)]
    moved = [cotangent.values[p] for p in positions if p is not None]
    return Array(kept, x.shape), accumulate(moved, broadcast_positions(src.shape, shape), src.shape)


define("slice_assign", _slice_assign, _slice_assign_vjp)

# --- copies that repeat, turn or blank elements -----------------------------------------------------------------------


def _flip(shape: Shape, dims: Sequence[int]) -> Sources:
    turned = wrap_dims(dims, len(shape)) if dims else []
    places = [
        tuple(n - 1 - c if axis in turned else c for axis, (c, n) in enumerate(zip(co, shape, strict=True)))
        for co in coordinates(shape)
    ]
    return shape, [position(place, shape) for place in places]


def _roll(shape: Shape, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Sources:
    count = math.prod(shape)
    if dims is None:
        assert isinstance(shifts, int)
        return shape, [(p - shifts) % count for p in range(count)]
    steps = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    moved = [0] * len(shape)
    for step, axis in zip(steps, axes, strict=True):
        moved[wrap_dim(axis, len(shape))] += step
    places = [tuple((c - m) % n for c, m, n in zip(co, moved, shape, strict=True)) for co in coordinates(shape)]
    return shape, [position(place, shape) for place in places]


def _repeat(shape: Shape, repeats: Sequence[int]) -> Sources:
    padded = (1,) * (len(repeats) - len(shape)) + shape
    tiled = tuple(n * r for n, r in zip(padded, repeats, strict=True))
    places = [tuple(c % n for c, n in zip(co, padded, strict=True)) for co in coordinates(tiled)]
    return tiled, [position(place, padded) for place in places]


def _triangle(lower: bool) -> Callable[..., Sources]:
    def sources(shape: Shape, diagonal: int = 0) -> Sources:
        if len(shape) < 2:
            raise ValueError("tril, triu: at least two dimensions are needed")
        kept = [c[-1] - c[-2] <= diagonal if lower else c[-1] - c[-2] >= diagonal for c in coordinates(shape)]
        return shape, [p if keep else None for p, keep in enumerate(kept)]

    return sources


mover("flip", _flip)
mover("roll", _roll)
mover("repeat", _repeat)
mover("tril", _triangle(lower=True))
mover("triu", _triangle(lower=False))
mover("triangle", lambda shape, diagonal=0, upper=False: _triangle(lower=not upper)(shape, diagonal))

# --- joins and splits ---------------------------------------------------------------------------------------------


def _cat(*tensors: Array, dim: int = 0) -> Array:
    # PyTorch lets an empty one-dimensional tensor be joined to anything.
    parts = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    if not parts:
        raise ValueError("cat: nothing to join")
    axis = wrap_dim(dim, parts[0].ndim)
    if any(x.ndim == 0 for x in parts):
        raise ValueError("cat: zero-dimensional tensors cannot be joined")
    frames = {x.shape[:axis] + x.shape[axis + 1 :] for x in parts}
    if len(frames) > 1:
        raise ValueError(f"cat: shapes {[x.shape for x in parts]} differ outside dimension {dim}")
    first = parts[0].shape
    rows = [x.shape[axis] * math.prod(first[axis + 1 :]) for x in parts]
    values: list[Any] = []
    for block in range(math.prod(first[:axis])):
        for x, row in zip(parts, rows, strict=True):
            values += x.values[block * row : (block + 1) * row]
    return Array(values, (*first[:axis], sum(x.shape[axis] for x in parts), *first[axis + 1 :]))


def _cat_vjp(cotangent: Array, *tensors: Array, dim: int = 0) -> tuple[Array, ...]:
    axis = wrap_dim(dim, cotangent.ndim)
    lengths = [0 if x.shape == (0,) else x.shape[axis] for x in tensors]
    pieces = _pieces(cotangent, lengths, axis)
    return tuple(zeros_like(x) if x.shape == (0,) else p for x, p in zip(tensors, pieces, strict=True))


def _stack(*tensors: Array, dim: int = 0) -> Array:
    if not tensors or any(x.shape != tensors[0].shape for x in tensors):
        raise ValueError(f"stack: shapes {[x.shape for x in tensors]} are not equal")
    axis = wrap_dim(dim, tensors[0].ndim + 1)
    return _cat(*(Array(x.values, (*x.shape[:axis], 1, *x.shape[axis:])) for x in tensors), dim=axis)


def _stack_vjp(cotangent: Array, *tensors: Array, dim: int = 0) -> tuple[Array, ...]:
    pieces = _pieces(cotangent, [1] * len(tensors), wrap_dim(dim, cotangent.ndim))
    return tuple(Array(p.values, x.shape) for x, p in zip(tensors, pieces, strict=True))


def _pieces(x: Array, lengths: Sequence[int], axis: int) -> tuple[Array, ...]:
    """Cut ``x`` along ``axis`` into pieces of the given lengths."""
    bounds = list(itertools.accumulate(lengths, initial=0))
    if bounds[-1] != x.shape[axis]:
        raise ValueError(f"split: lengths {list(lengths)} do not add up to {x.shape[axis]}")
    result = []
    for start, stop in itertools.pairwise(bounds):
        shape, positions = _slice(x.shape, [None] * axis + [start], [None] * axis + [stop])
        result.append(Array([x.values[p] for p in positions if p is not None], shape))
    return tuple(result)


def _split_lengths(size: int, split_size_or_sections: int | Sequence[int]) -> list[int]:
    if not isinstance(split_size_or_sections, int):
        return list(split_size_or_sections)
    if split_size_or_sections <= 0:
        raise ValueError("split: the size of a piece must be positive")
    step = split_size_or_sections
    return [min(step, size - start) for start in range(0, size, step)] or [0]


def _split(x: Array, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Array, ...]:
    axis = wrap_dim(dim, x.ndim)
    return _pieces(x, _split_lengths(x.shape[axis], split_size_or_sections), axis)


def _chunk(x: Array, chunks: int, dim: int = 0) -> tuple[Array, ...]:
    size = x.shape[wrap_dim(dim, x.ndim)]
    if size == 0:
        return _split(x, [0] * chunks, dim)
    return _split(x, -(-size // chunks), dim)  # pieces of equal size, rounded up; there may be fewer than asked for


def _unbind(x: Array, dim: int = 0) -> tuple[Array, ...]:
    axis = wrap_dim(dim, x.ndim)
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    return tuple(Array(piece.values, rest) for piece in _pieces(x, [1] * x.shape[axis], axis))


def _split_vjp(split: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array]]:
    def vjp(cotangent: tuple[Array | None, ...], x: Array, *arguments: Any, **attributes: Any) -> tuple[Array]:
        pieces = split(x, *arguments, **attributes)
        whole = [zeros_like(p) if g is None else g for g, p in zip(cotangent, pieces, strict=True)]
        dim = attributes.get("dim", 0)
        if split is _unbind:
            return (_stack(*whole, dim=dim),)
        return (_cat(*whole, dim=dim) if len(whole) > 1 else whole[0],)

    return vjp


define("cat", _cat, _cat_vjp)
define("stack", _stack, _stack_vjp)
define("split", _split, _split_vjp(_split))
define("chunk", _chunk, _split_vjp(_chunk))
define("unbind", _unbind, _split_vjp(_unbind))
