"""Systems of equations, determinants, Cholesky and QR factors by their textbook algorithms.

Elimination with pivoting and Householder's reflections. Derivatives are written as determinants of minors, or as the
algorithm run backwards: other texts than the core's matrix formulas. QR is packed along the rows as the core packs it,
Q over the transpose of R, and R's signs are those that LAPACK's reflections give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import ieee
from .array import Array, broadcast_positions, broadcast_shapes, sum_to_shape
from .matrices import Matrix, combined, dot, each, identity, matrices, packed, product, same_size, turned, width, zeros
from .registry import define

# ---- elimination ---------------------------------------------------------------------------------------------------


def eliminate(a: Matrix, b: Matrix) -> tuple[float, Matrix]:
    """The determinant of a, and x of a x = b (of NaN where a is singular): Gauss and Jordan with partial pivoting."""
    n = len(a)
    left, right, determinant = [list(row) for row in a], [list(row) for row in b], 1.0
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(left[i][k]))
        if left[pivot][k] == 0:
            return 0.0, [[math.nan] * len(row) for row in b]
        if pivot != k:
            left[k], left[pivot], right[k], right[pivot] = left[pivot], left[k], right[pivot], right[k]
            determinant = -determinant
        determinant *= left[k][k]
        for i in range(n):
            if i != k and left[i][k] != 0:
                factor = left[i][k] / left[k][k]
                left[i] = [x - factor * y for x, y in zip(left[i], left[k], strict=True)]
                right[i] = [x - factor * y for x, y in zip(right[i], right[k], strict=True)]
    return determinant, [[x / left[k][k] for x in right[k]] for k in range(n)]


def solved(a: Matrix, b: Matrix) -> Matrix:
    """x of a x = b; ValueError where a is singular."""
    _, x = eliminate(a, b)
    if any(ieee.is_nan(value) for row in x for value in row) and not any(ieee.is_nan(v) for row in a for v in row):
        raise ValueError("solve: the matrix is singular")
    return x


def _inverse(a: Matrix, lenient: bool = False) -> Matrix:
    return eliminate(a, identity(len(a)))[1] if lenient else solved(a, identity(len(a)))


def _inverse_pull(g: Matrix, a: Matrix, lenient: bool = False) -> Matrix:
    """From A X = I: A dX = -dA X, so that <G, dX> = -<A^-T G, dA X>."""
    x = _inverse(a, lenient)
    return product([[-value for value in row] for row in solved(turned(a), g)], turned(x))


each("inverse", same_size, _inverse, _inverse_pull)


def _system(name: str, reading: Callable[..., Matrix]) -> None:
    """Enter A X = B with what `reading` takes of A; batches broadcast."""

    def pairs(a: Array, b: Array, *others: Array) -> tuple[tuple[int, ...], Any]:
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return batch, zip(
            *(
                [matrices(x)[p] for p in broadcast_positions(x.shape[:-2], batch)] for x in (a, b, *others)
            ),
            strict=True,
        )

    def forward(a: Array, b: Array, **attributes: Any) -> Array:
        batch, both = pairs(a, b)
        return packed([solved(reading(p, **attributes), q) for p, q in both], batch, *b.shape[-2:])

    def vjp(cotangent: Array, a: Array, b: Array, **attributes: Any) -> tuple[Array, Array]:
        batch, all_three = pairs(a, b, cotangent)
        to_a, to_b = [], []
        for p, q, g in all_three:
            used = reading(p, **attributes)
            pulled, x = solved(turned(used), g), solved(used, q)
            n, columns = len(p), range(b.shape[-1])
            to_b.append(pulled)
            # A's entry counts where changing it changes what is read of it.
            mask = combined(reading([[1.0] * n for _ in p], **attributes), reading(zeros(n, n), **attributes), -1.0)
            moved = [[-ieee.total([pulled[i][c] * x[j][c] for c in columns]) for j in range(n)] for i in range(n)]
            to_a.append([[m * v for m, v in zip(*rows, strict=True)] for rows in zip(mask, moved, strict=True)])
        return (
            sum_to_shape(packed(to_a, batch, *a.shape[-2:]), a.shape),
            sum_to_shape(packed(to_b, batch, *b.shape[-2:]), b.shape),
        )

    define(name, forward, vjp)


def _triangle(a: Matrix, upper: bool, unitriangular: bool) -> Matrix:
    return [
        [
            1.0 if i == j and unitriangular else value if i == j or (j > i) == upper else 0.0
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(a)
    ]


_system("solve", lambda a: a)
_system("solve_triangular", _triangle)


# ---- determinants --------------------------------------------------------------------------------------------------


def without(a: Matrix, rows: set[int], columns: set[int]) -> Matrix:
    """a with rows and columns struck out."""
    return [[v for j, v in enumerate(row) if j not in columns] for i, row in enumerate(a) if i not in rows]


def determinant(a: Matrix) -> float:
    """By elimination."""
    return eliminate(a, [[] for _ in a])[0]


def cofactors(a: Matrix) -> Matrix:
    """Signed determinants of what is left without a row and a column."""
    n = len(a)
    return [[(-1.0) ** (i + j) * determinant(without(a, {i}, {j})) for j in range(n)] for i in range(n)]


def _cofactor_pull(g: Matrix, a: Matrix) -> Matrix:
    """d cofactor[i][j] / d a[k][l] is the signed minor without rows i, k and columns j, l."""
    n = len(a)
    result = zeros(n, n)
    for i in range(n):
        for j in range(n):
            for k in range(n):
                for m in range(n):
                    if i != k and j != m:
                        sign = (-1.0) ** (i + j + k + m) * (-1.0 if (k > i) != (m > j) else 1.0)
                        result[k][m] += g[i][j] * sign * determinant(without(a, {i, k}, {j, m}))
    return result


each("cofactor", same_size, cofactors, _cofactor_pull)


def _det(a: Array) -> Array:
    return Array([determinant(matrix) for matrix in matrices(a)], a.shape[:-2])


def _det_vjp(cotangent: Array, a: Array) -> tuple[Array]:
    pulled = [
        [[g * value for value in row] for row in cofactors(matrix)]
        for g, matrix in zip(cotangent.values, matrices(a), strict=True)
    ]
    return (packed(pulled, a.shape[:-2], *a.shape[-2:]),)


define("det", _det, _det_vjp)


def _slogdet(a: Array) -> Array:
    values: list[float] = []
    for matrix in matrices(a):
        value = determinant(matrix)
        values += [float((value > 0) - (value < 0)), ieee.log(abs(value))]
    return Array(values, (*a.shape[:-2], 2))


def _slogdet_vjp(cotangent: Array, a: Array) -> tuple[Array]:
    pulled = []
    for number, matrix in enumerate(matrices(a)):
        g, value = cotangent.values[2 * number + 1], determinant(matrix)
        pulled.append([[ieee.div(g * c, value) for c in row] for row in cofactors(matrix)])
    return (packed(pulled, a.shape[:-2], *a.shape[-2:]),)


define("slogdet", _slogdet, _slogdet_vjp)


# ---- Cholesky ------------------------------------------------------------------------------------------------------


def _cholesky(a: Matrix) -> Matrix:
    n = len(a)
    lower = zeros(n, n)
    for j in range(n):
        square = a[j][j] - dot(lower[j][:j], lower[j][:j])
        if not square > 0:
            raise ValueError(f"cholesky: the leading minor of order {j + 1} is not positive definite")
        lower[j][j] = math.sqrt(square)
        for i in range(j + 1, n):
            lower[i][j] = (a[i][j] - dot(lower[i][:j], lower[j][:j])) / lower[j][j]
    return lower


def _cholesky_pull(g: Matrix, a: Matrix) -> Matrix:
    """The algorithm backwards (Smith 1995), then shared by the two triangles, of which one was read."""
    n, lower, rest, found = len(a), _cholesky(a), [list(row) for row in g], zeros(len(a), len(a))
    for j in reversed(range(n)):
        for i in reversed(range(j + 1, n)):
            found[i][j] = rest[i][j] / lower[j][j]
            rest[j][j] -= lower[i][j] * found[i][j]
            for k in range(j):
                rest[i][k] -= found[i][j] * lower[j][k]
                rest[j][k] -= found[i][j] * lower[i][k]
        found[j][j] = 0.5 * rest[j][j] / lower[j][j]
        for k in range(j):
            rest[j][k] -= 2 * found[j][j] * lower[j][k]
    return [[0.5 * (x + y) for x, y in zip(p, q, strict=True)] for p, q in zip(found, turned(found), strict=True)]


each("cholesky", same_size, _cholesky, _cholesky_pull)


# ---- QR ------------------------------------------------------------------------------------------------------------


def _reflections(a: Matrix, complete: bool) -> tuple[Matrix, Matrix]:
    """Q and R, each reflection sending a column to the side away from its first element (LAPACK's dlarfg)."""
    m, n = len(a), width(a)
    r, q = [list(row) for row in a], identity(m)
    for k in range(min(m, n)):
        column = [r[i][k] for i in range(k, m)]
        if not any(column[1:]):
            continue  # nothing to send to zero: the sign stays
        length = -math.copysign(math.sqrt(dot(column, column)), column[0])
        column[0] -= length
        square = dot(column, column)
        for target, by_rows in ((r, True), (q, False)):
            lines = turned(target) if by_rows else target
            for line in lines:
                factor = 2.0 * dot(column, line[k:]) / square
                line[k:] = [x - factor * c for x, c in zip(line[k:], column, strict=True)]
            if by_rows:
                r = turned(lines)
    r = [[value if j >= i else 0.0 for j, value in enumerate(row)] for i, row in enumerate(r)]
    kept = m if complete else min(m, n)
    return [row[:kept] for row in q], r[:kept]


def _qr(a: Matrix, mode: str = "reduced") -> Matrix:
    q, r = _reflections(a, mode == "complete")
    return q + turned(r, width(a))


def _qr_size(rows: int, columns: int, mode: str = "reduced") -> tuple[int, int]:
    return rows + columns, rows if mode == "complete" else min(rows, columns)


def _qr_pull(g: Matrix, a: Matrix, mode: str = "reduced") -> Matrix:
    """Gram's and Schmidt's orthogonalisation backwards: the columns of Q from last to first.

    q_j = t_j / r_jj with t_j = a_j - sum over i < j of r_ij q_i, r_ij = q_i . a_j and r_jj = s_j |t_j|, s_j the sign
    that the reflections gave. Columns behind the last q have an r alone.
    """
    m, n = len(a), width(a)
    q, r = _reflections(a, False)
    k = len(r)
    q_columns, a_columns = turned(q), turned(a)
    to_q = turned(g[:m], k)
    to_r = turned(g[m:], k)
    found: Matrix = [[0.0] * m for _ in range(n)]
    for j in reversed(range(n)):
        pulled = [0.0] * m  # by t_j
        if j < k:
            to_length = to_r[j][j] - dot(to_q[j], q_columns[j]) / r[j][j]
            pulled = [(x + to_length * r[j][j] * y) / r[j][j] for x, y in zip(to_q[j], q_columns[j], strict=True)]
        column = list(pulled)
        for i in range(min(j, k)):
            along = to_r[i][j] - dot(pulled, q_columns[i])
            column = [x + along * y for x, y in zip(column, q_columns[i], strict=True)]
            to_q[i] = [x + along * y - r[i][j] * z for x, y, z in zip(to_q[i], a_columns[j], pulled, strict=True)]
        found[j] = column
    return turned(found, m)


each("qr", _qr_size, _qr, _qr_pull)
