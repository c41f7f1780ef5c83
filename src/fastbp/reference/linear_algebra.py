"""Matrix products, written as the sums they are."""

from __future__ import annotations

from typing import Any

from . import ieee
from .array import (
    Array,
    accumulate,
    broadcast_positions,
    broadcast_shapes,
    broadcast_to,
    sum_to_shape,
)
from .registry import define

Matrix = list[list[Any]]


def _matrices(x: Array) -> list[Matrix]:
    """The matrices in the last two dimensions, one after the other."""
    rows, columns = x.shape[-2:]
    lines = [x.values[r * columns : (r + 1) * columns] for r in range(x.size // columns)] if columns else []
    count = 1
    for size in x.shape[:-2]:
        count *= size
    return [lines[b * rows : (b + 1) * rows] if columns else [[] for _ in range(rows)] for b in range(count)]


def _multiply(a: Matrix, b: Matrix, columns: int) -> list[Any]:
    """c[i, j] = sum over k of a[i, k] b[k, j], row by row."""
    lines = [[row[j] for row in b] for j in range(columns)]
    return [ieee.total([x * y for x, y in zip(row, line, strict=True)]) for row in a for line in lines]


def _transposed(x: Array) -> Array:
    rows, columns = x.shape[-2:]
    size = rows * columns
    values = [
        x.values[start + i * columns + j]
        for start in (range(0, x.size, size) if size else [])
        for j in range(columns)
        for i in range(rows)
    ]
    return Array(values, (*x.shape[:-2], columns, rows))


def _product(a: Array, b: Array) -> Array:
    """Product of the matrices in the last two dimensions; the dimensions before broadcast."""
    (rows, inner), (inner_too, columns) = a.shape[-2:], b.shape[-2:]
    if inner != inner_too:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    left, right = _matrices(a), _matrices(b)
    left_of, right_of = broadcast_positions(a.shape[:-2], batch), broadcast_positions(b.shape[:-2], batch)
    values: list[Any] = []
    for i, j in zip(left_of, right_of, strict=True):
        values += _multiply(left[i], right[j], columns)
    return Array(values, (*batch, rows, columns))


def _as_matrices(a: Array, b: Array) -> tuple[Array, Array]:
    """A vector on the left is a row, a vector on the right a column."""
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError("matmul: a number has no rows or columns")
    left = Array(a.values, (1, *a.shape)) if a.ndim == 1 else a
    right = Array(b.values, (*b.shape, 1)) if b.ndim == 1 else b
    return left, right


def matmul(a: Array, b: Array) -> Array:
    """``a @ b`` with NumPy's rules for vectors and batches."""
    product = _product(*_as_matrices(a, b))
    shape = list(product.shape)
    if b.ndim == 1:
        del shape[-1]
    if a.ndim == 1:
        del shape[-1 if b.ndim == 1 else -2]
    return Array(product.values, shape)


def matmul_vjp(cotangent: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """C = A B: dA = dC B^T and dB = A^T dC, summed over the batches that were stretched."""
    left, right = _as_matrices(a, b)
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2])
    pulled = Array(cotangent.values, (*batch, left.shape[-2], right.shape[-1]))
    to_left = sum_to_shape(_product(pulled, _transposed(right)), left.shape)
    to_right = sum_to_shape(_product(_transposed(left), pulled), right.shape)
    return Array(to_left.values, a.shape), Array(to_right.values, b.shape)


def _with_dimensions(name: str, left: int, right: int) -> None:
    def check(a: Array, b: Array) -> None:
        if (a.ndim, b.ndim) != (left, right):
            raise ValueError(f"{name}: {left} and {right} dimensions are needed, not shapes {a.shape} and {b.shape}")

    def forward(a: Array, b: Array) -> Array:
        check(a, b)
        return matmul(a, b)

    define(name, forward, matmul_vjp)


define("matmul", matmul, matmul_vjp)
_with_dimensions("mm", 2, 2)
_with_dimensions("bmm", 3, 3)
_with_dimensions("mv", 2, 1)
_with_dimensions("dot", 1, 1)


def _scaled(x: Array, factor: float) -> Array:
    return Array([factor * value for value in x.values], x.shape)


def _sum(a: Array, b: Array) -> Array:
    return Array([x + y for x, y in zip(a.values, b.values, strict=True)], a.shape)


def _addmm(x: Array, mat1: Array, mat2: Array, beta: float = 1, alpha: float = 1) -> Array:
    product = _scaled(matmul(mat1, mat2), alpha)
    # A beta of 0 leaves x out altogether: not even its NaNs get through.
    return product if beta == 0 else _sum(product, _scaled(broadcast_to(x, product.shape), beta))


def _addmm_vjp(
    cotangent: Array, x: Array, mat1: Array, mat2: Array, beta: float = 1, alpha: float = 1
) -> tuple[Array, ...]:
    pulled = matmul_vjp(_scaled(cotangent, alpha), mat1, mat2)
    return _scaled(sum_to_shape(cotangent, x.shape), beta), *pulled


define("addmm", _addmm, _addmm_vjp)
define("baddbmm", _addmm, _addmm_vjp)


def _outer(a: Array, b: Array) -> Array:
    if (a.ndim, b.ndim) != (1, 1):
        raise ValueError(f"outer: two vectors are needed, not shapes {a.shape} and {b.shape}")
    return Array([x * y for x in a.values for y in b.values], (a.size, b.size))


def _outer_vjp(cotangent: Array, a: Array, b: Array) -> tuple[Array, Array]:
    width = b.size
    to_left = [g * b.values[p % width] for p, g in enumerate(cotangent.values)]
    to_right = [g * a.values[p // width] for p, g in enumerate(cotangent.values)]
    rows = [p // width for p in range(cotangent.size)]
    columns = [p % width for p in range(cotangent.size)]
    return accumulate(to_left, rows, a.shape), accumulate(to_right, columns, b.shape)


define("outer", _outer, _outer_vjp)


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x W^T + b; the weight has one row an output."""
    product = matmul(x, _transposed(weight) if weight.ndim > 1 else weight)
    return product if bias is None else _sum(product, broadcast_to(bias, product.shape))


def _linear_vjp(cotangent: Array, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array | None, ...]:
    if weight.ndim == 1:
        to_x, to_weight = matmul_vjp(cotangent, x, weight)
    else:
        to_x, to_transposed = matmul_vjp(cotangent, x, _transposed(weight))
        to_weight = _transposed(to_transposed)
    return to_x, to_weight, None if bias is None else sum_to_shape(cotangent, bias.shape)


define("linear", _linear, _linear_vjp)
