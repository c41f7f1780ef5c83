"""Matrices as lists of rows, and functions of one matrix as operations on batches of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import ieee
from .array import Array
from .registry import define

Vector = list[float]
Matrix = list[Vector]


def dot(a: Vector, b: Vector) -> float:
    """Inner product, rounded once."""
    return float(ieee.total([x * y for x, y in zip(a, b, strict=True)]))


def turned(a: Matrix, columns: int = 0) -> Matrix:
    """The transpose; `columns` says how many rows it has where `a` has none."""
    return [list(column) for column in zip(*a, strict=True)] if a else [[] for _ in range(columns)]


def product(a: Matrix, b: Matrix) -> Matrix:
    """a b."""
    lines = turned(b)
    return [[dot(row, line) for line in lines] for row in a]


def width(a: Matrix) -> int:
    """How many columns a has; 0 where it has no rows."""
    return len(a[0]) if a else 0


def combined(a: Matrix, b: Matrix, factor: float = 1.0) -> Matrix:
    """a + factor b."""
    return [[x + factor * y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]


def outer(u: Vector, v: Vector, factor: float = 1.0) -> Matrix:
    """factor u v^T."""
    return [[factor * x * y for y in v] for x in u]


def identity(n: int) -> Matrix:
    """Ones on the diagonal."""
    return [[float(i == j) for j in range(n)] for i in range(n)]


def zeros(rows: int, columns: int) -> Matrix:
    """Zeros."""
    return [[0.0] * columns for _ in range(rows)]


def matrices(x: Array) -> list[Matrix]:
    """The matrices of a batch."""
    rows, columns = x.shape[-2:]
    lines = [x.values[at : at + columns] for at in range(0, x.size, columns)] if columns else []
    count = math.prod(x.shape[:-2])
    return [lines[b * rows : (b + 1) * rows] if columns else [[] for _ in range(rows)] for b in range(count)]


def packed(found: list[Matrix], batch: tuple[int, ...], rows: int, columns: int) -> Array:
    """A batch of matrices as one array."""
    return Array([value for matrix in found for row in matrix for value in row], (*batch, rows, columns))


def each(
    name: str,
    size: Callable[..., tuple[int, int]],
    value: Callable[..., Matrix],
    pull: Callable[..., Matrix],
) -> None:
    """Enter a function of one matrix, of `size(rows, columns)`; ``pull(cotangent, a)``: the derivative's transpose."""

    def forward(a: Array, **attributes: Any) -> Array:
        found = [value(matrix, **attributes) for matrix in matrices(a)]
        return packed(found, a.shape[:-2], *size(*a.shape[-2:], **attributes))

    def vjp(cotangent: Array, a: Array, **attributes: Any) -> tuple[Array]:
        pairs = zip(matrices(cotangent), matrices(a), strict=True)
        return (packed([pull(g, matrix, **attributes) for g, matrix in pairs], a.shape[:-2], *a.shape[-2:]),)

    define(name, forward, vjp)


def same_size(rows: int, columns: int, **_: Any) -> tuple[int, int]:
    """The size of a function that keeps it."""
    return rows, columns
