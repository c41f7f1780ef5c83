"""The values of the reference: a flat list with a shape, and the arithmetic of shapes.

Nothing here is fast and nothing is clever: an element is found by its row-major position, a view is a copy, and
every rule that C kernels obey with strides is spelled out with lists. Elements are Python floats (that is, float64),
ints or bools; there is no dtype beside the elements' own type.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import ieee

Scalar = float | int | bool
Shape = tuple[int, ...]


class Array:
    """An n-dimensional array: a flat row-major list of Python scalars and a shape.

    Parameters
    ----------
    values : iterable of float, int or bool
        The elements in row-major order.
    shape : sequence of int
        Sizes by dimension; ``()`` for a single number.

    Raises
    ------
    ValueError
        If the number of values is not the product of the shape.

    Examples
    --------
    >>> Array([1.0, 2.0, 3.0, 4.0], (2, 2)).to_nested()
    [[1.0, 2.0], [3.0, 4.0]]
    """

    __slots__ = ("shape", "values")

    def __init__(self, values: Iterable[Scalar], shape: Sequence[int]) -> None:
        self.values: list[Any] = list(values)
        self.shape: Shape = tuple(shape)
        if len(self.values) != math.prod(self.shape):
            raise ValueError(f"Array: {len(self.values)} values do not fill the shape {self.shape}")

    @classmethod
    def from_nested(cls, nested: Any) -> Array:
        """Build an array from nested lists or tuples of numbers, or from one number.

        Raises
        ------
        ValueError
            If the nesting is ragged.

        Examples
        --------
        >>> Array.from_nested([[1, 2, 3]]).shape
        (1, 3)
        """
        if not isinstance(nested, list | tuple):
            return cls([nested], ())
        children = [cls.from_nested(child) for child in nested]
        if not children:
            return cls([], (0,))
        if any(child.shape != children[0].shape for child in children):
            raise ValueError(f"Array: ragged nesting, shapes {[child.shape for child in children]}")
        return cls(itertools.chain.from_iterable(c.values for c in children), (len(children), *children[0].shape))

    def to_nested(self) -> Any:
        """Return nested lists of the elements; a plain number for a zero-dimensional array."""
        level: list[Any] = self.values
        for size in reversed(self.shape[1:]):
            if size == 0:
                return _empty_nested(self.shape)
            level = [level[start : start + size] for start in range(0, len(level), size)]
        return list(level) if self.shape else level[0]

    def item(self) -> Any:
        """Return the only element.

        Raises
        ------
        ValueError
            If the array has not exactly one element.
        """
        if len(self.values) != 1:
            raise ValueError(f"Array: item() of an array of shape {self.shape}")
        return self.values[0]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return len(self.values)

    @property
    def is_bool(self) -> bool:
        """True if the elements are bools (and there is at least one)."""
        return bool(self.values) and all(isinstance(value, bool) for value in self.values)

    @property
    def is_float(self) -> bool:
        """True if any element is a float, or there is no element to tell."""
        return not self.values or any(isinstance(value, float) for value in self.values)

    def __repr__(self) -> str:
        return f"Array({self.to_nested()!r}, shape={self.shape})"


def _empty_nested(shape: Shape) -> list[Any]:
    return [_empty_nested(shape[1:]) for _ in range(shape[0])] if len(shape) > 1 else []


def as_array(value: Any) -> Array | None:
    """Return ``value`` as an Array; nested lists and numbers are converted, Arrays and None pass."""
    return value if value is None or isinstance(value, Array) else Array.from_nested(value)


def zeros_like(x: Array) -> Array:
    """Return zeros of the shape of ``x``."""
    return Array([0.0] * x.size, x.shape)


def ones_like(x: Array) -> Array:
    """Return ones of the shape of ``x``."""
    return Array([1.0] * x.size, x.shape)


def strides_of(shape: Shape) -> Shape:
    """Row-major strides in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def coordinates(shape: Shape) -> Iterator[tuple[int, ...]]:
    """All coordinates of a shape in row-major order."""
    return itertools.product(*(range(size) for size in shape))


def position(coordinate: Sequence[int], shape: Shape) -> int:
    """Row-major position of a coordinate."""
    flat = 0
    for index, size in zip(coordinate, shape, strict=True):
        flat = flat * size + index
    return flat


def wrap_dim(dim: int, ndim: int) -> int:
    """Return ``dim`` counted from the front; a zero-dimensional array has the dimensions 0 and -1.

    Raises
    ------
    IndexError
        If there is no such dimension.
    """
    limit = max(ndim, 1)
    if not -limit <= dim < limit:
        raise IndexError(f"dim {dim} is out of range for {ndim} dimensions")
    return dim % limit


def wrap_dims(dim: int | Sequence[int] | None, ndim: int) -> list[int]:
    """Return the sorted dimensions that ``dim`` names: one, several, or (None or empty) all."""
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return list(range(ndim))
    wrapped = sorted(wrap_dim(d, ndim) for d in ([dim] if isinstance(dim, int) else dim))
    if len(set(wrapped)) != len(wrapped):
        raise ValueError(f"dim {dim} names a dimension twice")
    return [d for d in wrapped if d < ndim]


def broadcast_shapes(*shapes: Shape) -> Shape:
    """Return the common shape under NumPy's rule: right-aligned, a size of 1 stretches.

    Raises
    ------
    ValueError
        If two sizes differ and neither is 1.
    """
    result: list[int] = []
    for sizes in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        stretched = {size for size in sizes if size != 1}
        if len(stretched) > 1:
            raise ValueError(f"shapes {shapes} do not broadcast")
        result.append(stretched.pop() if stretched else 1)
    return tuple(reversed(result))


def broadcast_positions(shape: Shape, target: Shape) -> list[int]:
    """For each element of ``target``, the position of the element of ``shape`` that broadcasting puts there."""
    if shape == target:
        return list(range(math.prod(shape)))
    if broadcast_shapes(shape, target) != target:
        raise ValueError(f"shape {shape} does not broadcast to {target}")
    lead = len(target) - len(shape)
    steps = [0 if size == 1 else step for size, step in zip(shape, strides_of(shape), strict=True)]
    return [sum(c * step for c, step in zip(co[lead:], steps, strict=True)) for co in coordinates(target)]


def broadcast_to(x: Array, target: Shape) -> Array:
    """Return ``x`` stretched to ``target``."""
    return Array([x.values[p] for p in broadcast_positions(x.shape, target)], target)


def accumulate(contributions: Iterable[Scalar | None], positions: Iterable[int | None], shape: Shape) -> Array:
    """Sum each contribution into the element its position names: the transpose of gathering by position.

    A contribution or position of None adds nothing.
    """
    bins: list[list[Scalar]] = [[] for _ in range(math.prod(shape))]
    for contribution, target in zip(contributions, positions, strict=True):
        if contribution is not None and target is not None:
            bins[target].append(contribution)
    return Array([float(ieee.total(terms)) for terms in bins], shape)


def sum_to_shape(x: Array, shape: Shape) -> Array:
    """Sum ``x`` over the dimensions that broadcasting from ``shape`` stretched."""
    return accumulate(x.values, broadcast_positions(shape, x.shape), shape)


def fibres(shape: Shape, dims: Sequence[int]) -> list[list[int]]:
    """For each element left when ``dims`` are reduced (row-major), the positions of the elements it covers.

    Examples
    --------
    >>> fibres((2, 3), [1])
    [[0, 1, 2], [3, 4, 5]]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    kept = [axis for axis in range(len(shape)) if axis not in dims]
    for key in coordinates(tuple(shape[axis] for axis in kept)):
        groups[key] = []
    for flat, coordinate in enumerate(coordinates(shape)):
        groups[tuple(coordinate[axis] for axis in kept)].append(flat)
    return list(groups.values())


def reduced_shape(shape: Shape, dims: Sequence[int], keepdim: bool) -> Shape:
    """Shape after reducing ``dims``: with ones in their place, or without them."""
    if keepdim:
        return tuple(1 if axis in dims else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in dims)
