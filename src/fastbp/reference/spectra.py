"""Eigenvalues, singular values and pseudoinverses, by Jacobi's rotations: cyclic ones, and one-sided (Hestenes 1958).

Derivatives are sums over pairs of vectors, from first-order perturbation theory. Results are packed along the rows as
the core packs them, values over vectors. Of several right answers the same one is meant: the first component of a
vector within a tenth of its largest is positive, eigenvalues rise, singular values fall.
"""

from __future__ import annotations

import math
from typing import Any

from . import ieee
from .matrices import Matrix, Vector, combined, dot, each, identity, outer, product, turned, width, zeros

EPSILON = 2.0**-52
SWEEPS = 60  # Jacobi's rotations converge quadratically; ten sweeps are many
SIGN_SHARE = 0.9

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
