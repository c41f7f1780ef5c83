"""Inverses, systems of equations, least squares."""

from __future__ import annotations

from typing import NamedTuple

from .. import _core
from .._core import Tensor, _factorize
from ._checks import check_matrix, check_square, rank_limits, stored


def inv(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Inverses of square matrices.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    LinAlgError
        When a matrix is singular.
    RuntimeError
        When A is not square or not of floats.

    Examples
    --------
    >>> fastbp.linalg.inv(fastbp.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])

    Notes
    -----
    To multiply by an inverse, `solve` takes less time and loses fewer digits. Derivatives: Giles 2008.
    """
    return stored(_factorize("inverse", A), out)


def inverse(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`linalg.inv` under PyTorch's older name."""
    return inv(input, out=out)


def _is_vectors(A: Tensor, B: Tensor) -> bool:
    """PyTorch's rule: B is a vector, or a batch of them of exactly A's batch."""
    return B.ndim == 1 or (B.ndim == A.ndim - 1 and tuple(B.shape) == tuple(A.shape[:-1]))


def solve(A: Tensor, B: Tensor, *, left: bool = True, out: Tensor | None = None) -> Tensor:
    """Solution X of A X = B, for square A.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64.
    B : Tensor
        (..., n, k), of the same type; or vectors, (n,) or of exactly the shape (..., n) that A has without its last
        axis. Batches broadcast.
    left : bool, optional
        False for X A = B, with B (..., k, n). Default: True.
    out : Tensor, optional
        Written with the result.

    Returns
    -------
    Tensor
        In B's shape, with the batch of both.

    Raises
    ------
    LinAlgError
        When a matrix is singular.
    RuntimeError
        When shapes or types do not fit.

    Examples
    --------
    >>> fastbp.linalg.solve(fastbp.tensor([[3.0, 1.0], [1.0, 2.0]]), fastbp.tensor([9.0, 8.0]))
    tensor([2., 3.])

    Notes
    -----
    LU with partial pivoting. Derivatives: Giles 2008.
    """
    check_square("linalg.solve", A)
    if not isinstance(B, Tensor):
        raise TypeError(f"linalg.solve(): argument 'B' must be Tensor, not {type(B).__name__}")
    if _is_vectors(A, B):
        return stored(_factorize("solve", A if left else A.mT, B.unsqueeze(-1)).squeeze(-1), out)
    return stored(_factorize("solve", A, B) if left else _factorize("solve", A.mT, B.mT).mT, out)


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False, out: Tensor | None = None
) -> Tensor:
    """Solution X of A X = B, for triangular A.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64; the other triangle is not read, and gets no gradient.
    B : Tensor
        (..., n, k), of the same type. Batches broadcast.
    upper : bool
        Which triangle A has.
    left : bool, optional
        False for X A = B, with B (..., k, n). Default: True.
    unitriangular : bool, optional
        Take the diagonal for ones. Default: False.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        When shapes or types do not fit. A zero on the diagonal is no error: it gives infinities and NaN.

    Examples
    --------
    >>> fastbp.linalg.solve_triangular(fastbp.tensor([[2.0, 0.0], [1.0, 1.0]]), fastbp.ones(2, 1), upper=False)
    tensor([[0.5000],
            [0.5000]])
    """
    if left:
        return stored(_factorize("solve_triangular", A, B, upper=upper, unit=unitriangular), out)
    check_square("linalg.solve_triangular", A)
    check_matrix("linalg.solve_triangular", B)
    return stored(_factorize("solve_triangular", A.mT, B.mT, upper=not upper, unit=unitriangular).mT, out)


def cholesky(A: Tensor, *, upper: bool = False, out: Tensor | None = None) -> Tensor:
    """Lower triangular L with A = L L^T, for symmetric positive definite A.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64. One triangle is read, the lower one unless `upper`.
    upper : bool, optional
        Return the upper triangular L^T instead. Default: False.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    LinAlgError
        When a matrix is not positive definite; the message has the order of the first leading minor that is not.
    RuntimeError
        When A is not square or not of floats.

    Examples
    --------
    >>> fastbp.linalg.cholesky(fastbp.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])

    Notes
    -----
    The gradient is the symmetric one, as in PyTorch: right for every A that was made symmetric. Derivatives: Murray
    2016, "Differentiation of the Cholesky decomposition".
    """
    check_square("linalg.cholesky", A)
    return stored(_factorize("cholesky", A.mT).mT if upper else _factorize("cholesky", A), out)


def cholesky_older(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """`torch.cholesky`: `linalg.cholesky` with `upper` in second place."""
    return cholesky(input, upper=upper, out=out)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """Solution X of A X = B from the Cholesky factor of A.

    Parameters
    ----------
    B : Tensor
        (..., n, k).
    L : Tensor
        (..., n, n): lower triangular, or upper triangular where `upper`.
    upper : bool, optional
        Default: False.
    out : Tensor, optional
        Written with the result.
    """
    check_square("cholesky_solve", L)
    lower = L.mT if upper else L
    half = _factorize("solve_triangular", lower, B)
    return stored(_factorize("solve_triangular", lower.mT, half, upper=True), out)


def cholesky_inverse(L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """The inverse of A from its Cholesky factor, (..., n, n)."""
    check_square("cholesky_inverse", L)
    return cholesky_solve(_core.eye(L.shape[-1], dtype=L.dtype), L, upper, out=out)


def pinv(
    A: Tensor,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    hermitian: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Pseudoinverses (Moore and Penrose) of matrices.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64.
    atol, rtol : float, optional
        Singular values up to max(atol, rtol * the largest) count as 0. Defaults: 0, and max(m, n) times the type's
        epsilon, or 0 where `atol` is given.
    hermitian : bool, optional
        A is symmetric, and only its lower triangle is read. Default: False.
    out : Tensor, optional
        Written with the result.

    Returns
    -------
    Tensor
        (..., n, m).

    Raises
    ------
    RuntimeError
        When A is not a batch of matrices of floats.

    Examples
    --------
    >>> fastbp.linalg.pinv(fastbp.tensor([[2.0, 0.0], [0.0, 0.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])

    Notes
    -----
    The derivative holds where the rank does not change (Golub and Pereyra 1973).
    """
    check_matrix("linalg.pinv", A)
    if hermitian:
        check_square("linalg.pinv", A)
        A = mirrored(A)
    absolute, relative = rank_limits(A, atol, rtol)
    return stored(_factorize("pinv", A, atol=absolute, rtol=relative), out)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`linalg.pinv` under PyTorch's older name; `rcond` is its rtol."""
    return pinv(input, rtol=rcond)


def mirrored(A: Tensor) -> Tensor:
    """The symmetric matrix that A's lower triangle says, with the symmetric gradient that `eigh` has too."""
    mean, read = (A + A.mT) / 2, A.detach()
    return mean + (_core.tril(read) + _core.tril(read, -1).mT - mean.detach())


class LstsqResult(NamedTuple):
    """What `lstsq` returns."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


DRIVERS = (None, "gels", "gelsy", "gelsd", "gelss")


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> LstsqResult:
    """Solutions of least squares: the X of least norm among those that minimise the norm of A X - B.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64.
    B : Tensor
        (..., m, k), or vectors as in `solve`: (m,), or A's shape without its last axis.
    rcond : float, optional
        Singular values up to rcond times the largest count as 0. Default: max(m, n) times the type's epsilon.
    driver : str, optional
        One of PyTorch's: "gels", "gelsy", "gelsd", "gelss". One way of computing serves all; with the last two the
        singular values are returned.

    Returns
    -------
    LstsqResult
        solution (..., n, k); residuals (..., k), the squared norms of the columns of A X - B where m > n and all
        matrices have full rank, else of no elements; rank (...), int64; singular_values (..., min(m, n)) or of no
        elements.

    Raises
    ------
    RuntimeError
        When shapes or types do not fit, or the driver has another name.

    Examples
    --------
    >>> A = fastbp.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> fastbp.linalg.lstsq(A, fastbp.tensor([1.0, 3.0, 5.0])).solution
    tensor([1.0000, 2.0000])

    Notes
    -----
    X = pinv(A) B, which gives the derivative too. Inside a function that is compiled, full rank is taken for granted.
    """
    check_matrix("linalg.lstsq", A)
    if driver not in DRIVERS:
        raise RuntimeError(
            f"linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), got {driver!r}"
        )
    if not isinstance(B, Tensor):
        raise TypeError(f"linalg.lstsq(): argument 'B' must be Tensor, not {type(B).__name__}")
    if B.dtype != A.dtype:
        raise RuntimeError(f"linalg.lstsq: Expected A and B to have the same dtype, but found {A.dtype} and {B.dtype}")
    vectors = _is_vectors(A, B)
    right = B.unsqueeze(-1) if vectors else B
    rows, columns = A.shape[-2:]
    if right.ndim < 2 or right.shape[-2] != rows:
        raise RuntimeError(
            f"linalg.lstsq: input.size(-2) should match other.size(-{1 if vectors else 2}), got A of shape "
            f"{tuple(A.shape)} and B of shape {tuple(B.shape)}"
        )
    absolute, relative = rank_limits(A, None, rcond)
    values = _factorize("svd", A.detach(), values=True).squeeze(-2)
    rank = (values > values.amax(-1, True) * relative).sum(-1) if values.shape[-1] else _core.zeros(
        A.shape[:-2], dtype=_core.int64
    )
    X = _factorize("pinv", A, atol=absolute, rtol=relative) @ right
    empty = _core.empty(0, dtype=A.dtype)
    is_full = rows > columns and (_core.current_capture() is not None or bool((rank == columns).all()))
    residuals = ((A @ X - right) ** 2).sum(-2) if is_full else empty
    return LstsqResult(
        X.squeeze(-1) if vectors else X, residuals, rank, values if driver in ("gelsd", "gelss") else empty
    )
