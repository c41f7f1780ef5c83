"""What the C core's factorizations compute: NumPy's LAPACK on arrays over the core's memory.

`compute` is the callback of csrc/ops/linalg_ops.c, whose head says how results of several parts are packed and which
of several right answers is meant (signs of vectors, order of values). Batches are NumPy's generalised ufuncs; float32
stays float32. SciPy, where it is installed (the extra `linalg`), solves large triangular systems, which NumPy lacks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._checks import LinAlgError

Array = np.ndarray[Any, Any]
Attributes = dict[str, Any]

SIGN_SHARE = 0.9  # of the largest component: two that are equal but for rounding must not leave the sign to chance
SCIPY_FROM = 32  # rows of a triangular system from which a call of SciPy's a matrix costs less than LU of the batch


def compute(name: str, inputs: Sequence[Array], out: Array, attributes: Attributes | None) -> None:
    """Write a row's result into `out`.

    Parameters
    ----------
    name : str
        Of the row of the op table.
    inputs : sequence of ndarray
        float32 or float64, of any strides; read only.
    out : ndarray
        Contiguous, of the same type.
    attributes : dict or None
        Fields of `fbp_matrix_attribute`; None where all are 0.

    Raises
    ------
    LinAlgError
        For singular or not positive definite matrices, and iterations that do not converge (NaN in the input).
    """
    if out.size:
        with np.errstate(all="ignore"):  # infinities and NaN pass without a warning, as in every other op
            if attributes is None:
                ROWS[name](out, *inputs)
            else:
                ROWS[name](out, *inputs, **{key: attributes[key] for key in USED[name] if key in attributes})


def _batches(x: Array) -> Array:
    """The matrices of a batch along one axis."""
    return x.reshape(-1, *x.shape[-2:])


def _fails(function: Callable[[Array], Any], x: Array) -> bool:
    try:
        function(x)
    except np.linalg.LinAlgError:
        return True
    return False


def _culprit(function: Callable[[Array], Any], x: Array) -> str:
    """ "(Batch element 3): " for the first matrix of a batch that fails."""
    if x.ndim == 2:
        return ""
    return next((f"(Batch element {i}): " for i, one in enumerate(_batches(x)) if _fails(function, one)), "")


# ---- systems -------------------------------------------------------------------------------------------------------


def _inverse(out: Array, a: Array, lenient: bool = False) -> None:
    try:
        out[...] = np.linalg.inv(a)
    except np.linalg.LinAlgError:
        if not lenient:
            where = _culprit(np.linalg.inv, a)
            raise LinAlgError(
                f"linalg.inv: {where}The diagonal of the factor U holds a zero, the inversion could not be completed "
                f"because the input matrix is singular; linalg.pinv has an answer for every matrix"
            ) from None
        for one, matrix in zip(_batches(out), _batches(a), strict=True):
            one[...] = np.nan if _fails(np.linalg.inv, matrix) else np.linalg.inv(matrix)


def _solve(out: Array, a: Array, b: Array) -> None:
    try:
        # NumPy 1 takes a stack of vectors where b has one axis less; as matrices of the whole batch it never has.
        out[...] = np.linalg.solve(a, np.broadcast_to(b, out.shape))
    except np.linalg.LinAlgError:
        where = _culprit(np.linalg.inv, a)
        raise LinAlgError(
            f"linalg.solve: {where}The solver failed because the input matrix is singular; linalg.lstsq has an answer "
            f"for every matrix"
        ) from None


def _substitute(out: Array, a: Array, b: Array, upper: bool, unit: bool) -> None:
    """Row by row; a zero on the diagonal gives infinities, as LAPACK's trtrs without its check."""
    n = a.shape[-1]
    out[...] = b
    with np.errstate(divide="ignore", invalid="ignore"):
        for i in reversed(range(n)) if upper else range(n):
            known = slice(i + 1, n) if upper else slice(0, i)
            out[..., i, :] -= (a[..., i : i + 1, known] @ out[..., known, :])[..., 0, :]
            if not unit:
                out[..., i, :] /= a[..., i, i, None]


def _scipy_solver() -> Callable[..., Any] | None:
    try:
        found: Callable[..., Any] = importlib.import_module("scipy.linalg").solve_triangular
    except ImportError:
        return None
    return found


def _solve_triangular(out: Array, a: Array, b: Array, upper: bool = False, unit: bool = False) -> None:
    diagonal = np.diagonal(a, 0, -2, -1)
    if not unit and not diagonal.all():
        return _substitute(out, a, b, upper, unit)
    solver = _scipy_solver() if a.shape[-1] >= SCIPY_FROM else None
    if solver is not None:
        left = np.broadcast_to(a, (*out.shape[:-2], *a.shape[-2:]))
        for at in np.ndindex(out.shape[:-2]):
            right = np.broadcast_to(b, out.shape)[at]
            out[at] = solver(left[at], right, lower=not upper, unit_diagonal=unit, check_finite=False)
        return None
    triangle = np.triu(a, 1 if unit else 0) if upper else np.tril(a, -1 if unit else 0)
    if unit:
        triangle = triangle + np.eye(a.shape[-1], dtype=a.dtype)
    out[...] = np.linalg.solve(triangle, np.broadcast_to(b, out.shape))
    return None


# ---- factorizations ------------------------------------------------------------------------------------------------


def _cholesky(out: Array, a: Array) -> None:
    try:
        out[...] = np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        where = _culprit(np.linalg.cholesky, a)
        bad = next(one for one in _batches(a) if _fails(np.linalg.cholesky, one))
        order = next((k for k in range(1, len(bad)) if _fails(np.linalg.cholesky, bad[:k, :k])), len(bad))
        raise LinAlgError(
            f"linalg.cholesky: {where}The factorization could not be completed because the input is not "
            f"positive-definite (the leading minor of order {order} is not positive-definite)."
        ) from None


def _qr(out: Array, a: Array, complete: bool = False) -> None:
    rows = a.shape[-2]
    q, r = np.linalg.qr(a, "complete" if complete else "reduced")
    out[..., :rows, :] = q
    out[..., rows:, :] = np.swapaxes(r, -1, -2)


def _signs(vectors: Array) -> Array:
    """+-1 for each column: that of its first component within a tenth of the largest."""
    size = np.abs(vectors)
    first = (size >= SIGN_SHARE * size.max(-2, keepdims=True)).argmax(-2)
    chosen = np.take_along_axis(vectors, first[..., None, :], -2)
    return np.where(chosen < 0, -1, 1).astype(vectors.dtype)


def _eigh(out: Array, a: Array, values: bool = False) -> None:
    try:
        if values:
            out[..., 0, :] = np.linalg.eigvalsh(a)
            return
        found, vectors = np.linalg.eigh(a)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "linalg.eigh: The algorithm failed to converge because the input matrix is ill-conditioned or has too "
            "many repeated eigenvalues, or is not finite"
        ) from None
    out[..., 0, :] = found
    out[..., 1:, :] = vectors * _signs(vectors)


def _singular(a: Array, vectors: bool) -> Any:
    try:
        return np.linalg.svd(a, full_matrices=False) if vectors else np.linalg.svd(a, compute_uv=False)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "linalg.svd: The algorithm failed to converge because the input matrix contained non-finite values."
        ) from None


def _svd(out: Array, a: Array, values: bool = False) -> None:
    if values:
        out[..., 0, :] = _singular(a, False)
        return
    u, s, vh = _singular(a, True)
    rows, signs = a.shape[-2], _signs(u)
    out[..., 0, :] = s
    out[..., 1 : 1 + rows, :] = u * signs
    out[..., 1 + rows :, :] = np.swapaxes(vh, -1, -2) * signs


def _pinv(out: Array, a: Array, atol: float = 0.0, rtol: float = 0.0) -> None:
    u, s, vh = _singular(a, True)
    limit = np.maximum(atol, rtol * s.max(-1, initial=0.0, keepdims=True))
    counts = s > limit
    scale = np.where(counts, 1 / np.where(counts, s, 1), 0).astype(a.dtype)
    np.matmul(np.swapaxes(vh, -1, -2) * scale[..., None, :], np.swapaxes(u, -1, -2), out=out)


# ---- determinants --------------------------------------------------------------------------------------------------


def _det(out: Array, a: Array) -> None:
    out[...] = np.linalg.det(a)


def _slogdet(out: Array, a: Array) -> None:
    out[..., 0], out[..., 1] = np.linalg.slogdet(a)


def _cofactor(out: Array, a: Array) -> None:
    """det(A) A^-T = det(U V^T) U cof(S) V^T, where cof(S) is diagonal: products without a quotient, for every A."""
    n, finite = a.shape[-1], np.asarray(np.isfinite(a).all((-2, -1)))
    u, s, vh = _singular(a if finite.all() else np.where(finite[..., None, None], a, 0), True)
    others = np.where(np.eye(n, dtype=bool), 1, s[..., None, :]).prod(-1)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vh))
    np.matmul(u * (others * sign[..., None])[..., None, :].astype(a.dtype), vh, out=out)
    if not finite.all():
        out[~finite] = np.nan


ROWS: dict[str, Callable[..., None]] = {
    "inverse": _inverse,
    "solve": _solve,
    "solve_triangular": _solve_triangular,
    "cholesky": _cholesky,
    "qr": _qr,
    "eigh": _eigh,
    "svd": _svd,
    "pinv": _pinv,
    "det": _det,
    "slogdet": _slogdet,
    "cofactor": _cofactor,
}
# Fields of the attributes that each reads.
USED: dict[str, set[str]] = {
    name: set(function.__code__.co_varnames[: function.__code__.co_argcount]) for name, function in ROWS.items()
}
