"""Factorizations of matrices by their textbook algorithms, on lists of rows.

Elimination with pivoting for systems and determinants, Householder's reflections for QR, Jacobi's rotations for
eigenvalues (cyclic) and singular values (one-sided, Hestenes 1958). Derivatives are written as sums over vectors, from
perturbation theory, or as the algorithm run backwards: other texts than the core's matrix formulas.

Results of several parts are packed along the rows as the core packs them: values over vectors, Q over the transpose
of R. Of several right answers the same one is meant: the first component of a vector within a tenth of its largest is
positive, eigenvalues rise, singular values fall, and R is what LAPACK's reflections give.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import ieee
from .array import Array, broadcast_positions, broadcast_shapes, sum_to_shape
from .registry import define

Vector = list[float]
Matrix = list[Vector]

EPSILON = 2.0**-52
SWEEPS = 60  # Jacobi's rotations converge quadratically; ten sweeps are many
SIGN_SHARE = 0.9


# ---- rows and columns ----------------------------------------------------------------------------------------------


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


def _same(rows: int, columns: int, **_: Any) -> tuple[int, int]:
    return rows, columns


each("inverse", _same, _inverse, _inverse_pull)


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


each("cofactor", _same, cofactors, _cofactor_pull)


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


each("cholesky", _same, _cholesky, _cholesky_pull)


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


# ---- eigenvalues ---------------------------------------------------------------------------------------------------


def _signed(vector: Vector) -> float:
    """The sign of the first component within a tenth of the largest."""
    largest = max((abs(x) for x in vector), default=0.0)
    return -1.0 if next((x for x in vector if abs(x) >= SIGN_SHARE * largest), 1.0) < 0 else 1.0


def _rotation(apart: float, across: float) -> tuple[float, float]:
    """Cosine and sine of Jacobi's rotation for tan(2 angle) = 2 across / apart."""
    theta = apart / (2 * across)
    tangent = math.copysign(1.0, theta) / (abs(theta) + math.hypot(theta, 1.0))
    cosine = 1 / math.hypot(tangent, 1.0)
    return cosine, tangent * cosine


def spectrum(a: Matrix) -> tuple[Vector, Matrix]:
    """Eigenvalues, rising, and eigenvectors, as rows, of the symmetric matrix that a's lower triangle says."""
    n = len(a)
    s = [[a[max(i, j)][min(i, j)] for j in range(n)] for i in range(n)]
    vectors = identity(n)
    for _ in range(SWEEPS):
        size = max((abs(x) for row in s for x in row), default=0.0)
        if all(abs(s[i][j]) <= 1e-3 * EPSILON * size for i in range(n) for j in range(i)):
            break
        for p in range(n):
            for q in range(p + 1, n):
                if s[p][q] == 0:
                    continue
                c, t = _rotation(s[q][q] - s[p][p], s[p][q])
                for _side in range(2):  # rotate rows; turned, columns
                    s[p], s[q] = _rotated(s[p], s[q], c, t)
                    s = turned(s)
                s[p][q] = s[q][p] = 0.0  # but for rounding
                vectors[p], vectors[q] = _rotated(vectors[p], vectors[q], c, t)
    order = sorted(range(n), key=lambda i: s[i][i])
    found = [[_signed(vectors[i]) * x for x in vectors[i]] for i in order]
    return [s[i][i] for i in order], found


def _rotated(u: Vector, v: Vector, c: float, s: float) -> tuple[Vector, Vector]:
    pairs = list(zip(u, v, strict=True))
    return [c * x - s * y for x, y in pairs], [s * x + c * y for x, y in pairs]


def _eigh(a: Matrix, values: bool = False) -> Matrix:
    found, vectors = spectrum(a)
    return [found] if values else [found, *turned(vectors, len(a))]


def _eigh_pull(g: Matrix, a: Matrix, values: bool = False) -> Matrix:
    """dw_i = v_i . dA v_i and dv_i = sum over j != i of v_j (v_j . dA v_i) / (w_i - w_j), for symmetric dA."""
    n = len(a)
    w, v = spectrum(a)
    result = zeros(n, n)
    by_vectors = [] if values else turned(g[1:], n)
    for i in range(n):
        result = combined(result, outer(v[i], v[i], g[0][i]))
        for j in range(n):
            along = dot(by_vectors[i], v[j]) if by_vectors and i != j else 0.0
            if along:
                share = 0.5 * ieee.div(along, w[i] - w[j])
                result = combined(combined(result, outer(v[j], v[i]), share), outer(v[i], v[j]), share)
    return result


def _eigh_size(rows: int, columns: int, values: bool = False) -> tuple[int, int]:
    return (1 if values else rows + 1), columns


each("eigh", _eigh_size, _eigh, _eigh_pull)


# ---- singular values -----------------------------------------------------------------------------------------------


def singular(a: Matrix, columns: int) -> tuple[Vector, Matrix, Matrix]:
    """S, falling, and the columns of U and V as rows: a's columns are rotated until they are orthogonal."""
    if len(a) < columns:
        s, v, u = _hestenes(a, len(a))
    else:
        s, u, v = _hestenes(turned(a, columns), columns)
    signs = [_signed(vector) for vector in u]
    return (
        s,
        [[sign * x for x in vector] for sign, vector in zip(signs, u, strict=True)],
        [[sign * x for x in vector] for sign, vector in zip(signs, v, strict=True)],
    )


def _hestenes(lines: Matrix, count: int) -> tuple[Vector, Matrix, Matrix]:
    """Lengths, directions and coefficients of orthogonal combinations of `lines`."""
    lines, turns = [list(line) for line in lines], identity(count)
    for _ in range(SWEEPS):
        moved = False
        for p in range(count):
            for q in range(p + 1, count):
                across = dot(lines[p], lines[q])
                first, second = dot(lines[p], lines[p]), dot(lines[q], lines[q])
                if abs(across) <= EPSILON * math.sqrt(first * second) or across == 0:
                    continue
                moved = True
                c, s = _rotation(second - first, across)
                lines[p], lines[q] = _rotated(lines[p], lines[q], c, s)
                turns[p], turns[q] = _rotated(turns[p], turns[q], c, s)
        if not moved:
            break
    lengths = [math.sqrt(dot(line, line)) for line in lines]
    order = sorted(range(count), key=lambda i: -lengths[i])
    directions = [[ieee.div(x, lengths[i]) for x in lines[i]] for i in order]
    return [lengths[i] for i in order], directions, [turns[i] for i in order]


def _svd(a: Matrix, values: bool = False) -> Matrix:
    s, u, v = singular(a, width(a))
    return [s] if values else [s, *turned(u, len(a)), *turned(v, width(a))]


def _svd_size(rows: int, columns: int, values: bool = False) -> tuple[int, int]:
    return (1 if values else 1 + rows + columns), min(rows, columns)


def _svd_pull(g: Matrix, a: Matrix, values: bool = False) -> Matrix:
    """First-order perturbation theory: with p_ij = u_i . dA v_j,

    ds_j = p_jj,
    u_i . du_j = (s_j p_ij + s_i p_ji) / (s_j^2 - s_i^2),
    v_i . dv_j = (s_i p_ij + s_j p_ji) / (s_j^2 - s_i^2),
    and outside of the spaces of U and V, du_j is dA v_j / s_j and dv_j is dA^T u_j / s_j.
    """
    m, n = len(a), width(a)
    s, u, v = singular(a, n)
    k = len(s)
    to_u, to_v = (zeros(k, m), zeros(k, n)) if values else (turned(g[1 : 1 + m], k), turned(g[1 + m :], k))
    result = zeros(m, n)
    for j in range(k):
        result = combined(result, outer(u[j], v[j], g[0][j]))
        if values:
            continue
        for i in range(k):
            if i == j:
                continue
            by_u, by_v = dot(to_u[j], u[i]), dot(to_v[j], v[i])
            gap = s[j] * s[j] - s[i] * s[i]
            result = combined(result, outer(u[i], v[j]), ieee.div(s[j] * by_u + s[i] * by_v, gap))
            result = combined(result, outer(u[j], v[i]), ieee.div(s[i] * by_u + s[j] * by_v, gap))
        for target, basis, is_left in ((to_u[j], u, True), (to_v[j], v, False)):
            if len(target) == k:
                continue  # there is nothing outside
            outside = list(target)
            for vector in basis:
                along = dot(target, vector)
                outside = [x - along * y for x, y in zip(outside, vector, strict=True)]
            part = outer(outside, v[j]) if is_left else outer(u[j], outside)
            result = combined(result, part, ieee.div(1.0, s[j]))
    return result


each("svd", _svd_size, _svd, _svd_pull)


# ---- pseudoinverses ------------------------------------------------------------------------------------------------


def _pinv(a: Matrix, atol: float = 0.0, rtol: float = 0.0) -> Matrix:
    m, n = len(a), width(a)
    s, u, v = singular(a, n)
    limit = max(atol, rtol * max(s, default=0.0))
    result = zeros(n, m)
    for value, left, right in zip(s, u, v, strict=True):
        if value > limit:
            result = combined(result, outer(right, left, 1 / value))
    return result


def _pinv_pull(g: Matrix, a: Matrix, atol: float = 0.0, rtol: float = 0.0) -> Matrix:
    """dP = -P dA P + (P P^T) dA^T (I - A P) + (I - P A) dA^T (P^T P), transposed term by term."""
    p = _pinv(a, atol, rtol)
    pt, gt = turned(p), turned(g)
    outside_left = combined(identity(len(a)), product(a, p), -1.0)
    outside_right = combined(identity(width(a)), product(p, a), -1.0)
    first = product(product(pt, g), pt)
    second = product(product(outside_left, gt), product(p, pt))
    third = product(product(pt, p), product(gt, outside_right))
    return combined(combined(second, third), first, -1.0)


def _pinv_size(rows: int, columns: int, **_: Any) -> tuple[int, int]:
    return columns, rows


each("pinv", _pinv_size, _pinv, _pinv_pull)
