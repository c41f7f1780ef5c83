"""Factorizations and determinants: the rows' packed results, taken apart."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _core
from .._core import Tensor, _factorize
from ._checks import check_matrix, check_square, check_triangle, rank_limits, stored


class QRResult(NamedTuple):
    """What `qr` returns."""

    Q: Tensor
    R: Tensor


class EighResult(NamedTuple):
    """What `eigh` returns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class SVDResult(NamedTuple):
    """What `svd` returns."""

    U: Tensor
    S: Tensor
    Vh: Tensor


class OlderSVDResult(NamedTuple):
    """What `torch.svd` returns: V, not its transpose."""

    U: Tensor
    S: Tensor
    V: Tensor


class SlogdetResult(NamedTuple):
    """What `slogdet` returns."""

    sign: Tensor
    logabsdet: Tensor


def qr(A: Tensor, mode: str = "reduced", *, out: Any = None) -> QRResult:
    """QR decomposition: A = Q R, with orthonormal columns of Q and upper triangular R.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64.
    mode : str, optional
        "reduced" (default): Q (..., m, k) and R (..., k, n), k = min(m, n). "complete": Q (..., m, m) and
        R (..., m, n). "r": R as reduced, and a Q of no elements.
    out : pair of Tensor, optional
        Written with the result.

    Returns
    -------
    QRResult
        Q and R. The signs of R's diagonal are those of Householder's reflections, as in LAPACK.

    Raises
    ------
    RuntimeError
        For other modes; when A is not a batch of matrices of floats; in backward for "complete" and m > n.

    Examples
    --------
    >>> fastbp.linalg.qr(fastbp.tensor([[3.0], [4.0]])).R
    tensor([[-5.]])

    Notes
    -----
    The derivative exists where the first k columns are independent (Walter and Lehmann 2012).
    """
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode {mode!r} but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    check_matrix("linalg.qr", A)
    rows, columns = A.shape[-2:]
    packed = _factorize("qr", A, complete=mode == "complete" and rows > columns)
    Q, R = packed[..., :rows, :], packed[..., rows:, :].mT
    if mode == "r":
        Q = _core.empty(0, dtype=A.dtype)
    return QRResult(*_written((Q, R), out))


def _written(parts: tuple[Tensor, ...], out: Any) -> tuple[Tensor, ...]:
    return parts if out is None else tuple(stored(x, to) for x, to in zip(parts, out, strict=True))


def eigh(A: Tensor, UPLO: str = "L", *, out: Any = None) -> EighResult:
    """Eigenvalues and eigenvectors of symmetric matrices: A = V diag(w) V^T.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64. One triangle is read.
    UPLO : str, optional
        "L" (default) or "U": which.
    out : pair of Tensor, optional
        Written with the result.

    Returns
    -------
    EighResult
        eigenvalues (..., n), rising; eigenvectors (..., n, n), in columns, each with its largest component positive.

    Raises
    ------
    RuntimeError
        When A is not square or not of floats, or UPLO is another letter.
    LinAlgError
        When the iteration does not converge.

    Examples
    --------
    >>> fastbp.linalg.eigh(fastbp.tensor([[2.0, 1.0], [1.0, 2.0]])).eigenvalues
    tensor([1., 3.])

    Notes
    -----
    The derivative of the vectors exists for distinct eigenvalues only: it divides by their distances, and is not finite
    where two are equal. That of the values is always finite. The gradient is the symmetric one. Source: Giles 2008.
    """
    check_square("linalg.eigh", A)
    packed = _factorize("eigh", A.mT if check_triangle(UPLO) else A)
    return EighResult(*_written((packed[..., 0, :], packed[..., 1:, :]), out))


def eigvalsh(A: Tensor, UPLO: str = "L", *, out: Tensor | None = None) -> Tensor:
    """Eigenvalues of symmetric matrices, rising: parameters, errors and source as `eigh`; (..., n).

    Examples
    --------
    >>> fastbp.linalg.eigvalsh(fastbp.tensor([[2.0, 1.0], [1.0, 2.0]]))
    tensor([1., 3.])
    """
    check_square("linalg.eigvalsh", A)
    return stored(_factorize("eigh", A.mT if check_triangle(UPLO) else A, values=True).squeeze(-2), out)


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None, out: Any = None) -> SVDResult:
    """Singular value decomposition: A = U diag(S) Vh.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64.
    full_matrices : bool, optional
        U (..., m, m) and Vh (..., n, n) (default), else (..., m, k) and (..., k, n), k = min(m, n).
    driver : str, optional
        Of GPUs; without effect.
    out : triple of Tensor, optional
        Written with the result.

    Returns
    -------
    SVDResult
        U, S (..., k), falling, and Vh. Each column of U has its largest component positive.

    Raises
    ------
    RuntimeError
        When A is not a batch of matrices of floats.
    LinAlgError
        When the iteration does not converge, as for NaN.

    Examples
    --------
    >>> fastbp.linalg.svd(fastbp.tensor([[0.0, 2.0], [1.0, 0.0]])).S
    tensor([2., 1.])

    Notes
    -----
    The derivative of U and Vh exists for distinct singular values (and those not 0, where m != n), and is not finite
    where two are equal. The further vectors of full matrices have none: any orthonormal ones would do. Source: Townsend
    2016, "Differentiating the singular value decomposition".
    """
    check_matrix("linalg.svd", A)
    rows = A.shape[-2]
    packed = _factorize("svd", A)
    U, S, V = packed[..., 1 : 1 + rows, :], packed[..., 0, :], packed[..., 1 + rows :, :]
    if full_matrices:
        U, V = _completed(U), _completed(V)
    return SVDResult(*_written((U, S, V.mT), out))


def _completed(U: Tensor) -> Tensor:
    """Orthonormal columns with as many others that a basis comes out."""
    rows, columns = U.shape[-2:]
    if rows == columns:
        return U
    others = _factorize("qr", U.detach(), complete=True)[..., :rows, columns:]
    return _core.cat([U, others], -1)


def svd_older(input: Tensor, some: bool = True, compute_uv: bool = True, *, out: Any = None) -> OlderSVDResult:
    """`torch.svd`: `linalg.svd` that returns V; without `compute_uv`, zeros for U and V.

    Parameters
    ----------
    input : Tensor
        (..., m, n), float32 or float64.
    some : bool, optional
        Reduced matrices. Default: True.
    compute_uv : bool, optional
        Default: True.
    out : triple of Tensor, optional
        Written with the result.
    """
    check_matrix("svd", input)
    if compute_uv:
        U, S, Vh = svd(input, not some)
        return OlderSVDResult(*_written((U, S, Vh.mT), out))
    rows, columns = input.shape[-2:]
    zeros = [_core.zeros((*input.shape[:-2], n, n), dtype=input.dtype) for n in (rows, columns)]
    return OlderSVDResult(*_written((zeros[0], svdvals(input), zeros[1]), out))


def qr_older(input: Tensor, some: bool = True, *, out: Any = None) -> QRResult:
    """`torch.qr`: `linalg.qr`, reduced or (some=False) complete."""
    return qr(input, "reduced" if some else "complete", out=out)


def svdvals(A: Tensor, *, driver: str | None = None, out: Tensor | None = None) -> Tensor:
    """Singular values of matrices, falling: parameters and errors as `svd`; (..., min(m, n)).

    Examples
    --------
    >>> fastbp.linalg.svdvals(fastbp.tensor([[0.0, 2.0], [1.0, 0.0]]))
    tensor([2., 1.])
    """
    check_matrix("linalg.svdvals", A)
    return stored(_factorize("svd", A, values=True).squeeze(-2), out)


def matrix_rank(
    A: Tensor,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    hermitian: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """How many singular values exceed max(atol, rtol * the largest); int64, without a derivative.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64.
    atol, rtol : float, optional
        Defaults: 0, and max(m, n) times the type's epsilon, or 0 where `atol` is given.
    hermitian : bool, optional
        A is symmetric, and only its lower triangle is read. Default: False.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        When A is not a batch of matrices of floats.

    Examples
    --------
    >>> fastbp.linalg.matrix_rank(fastbp.ones(3, 3))
    tensor(1)
    """
    check_matrix("linalg.matrix_rank", A)
    absolute, relative = rank_limits(A, atol, rtol)
    values = eigvalsh(A.detach()).abs() if hermitian else svdvals(A.detach())
    if not values.shape[-1]:
        return stored(_core.zeros(A.shape[:-2], dtype=_core.int64), out)
    limit = _core.clamp(values.amax(-1, True) * relative, min=absolute)
    return stored((values > limit).sum(-1), out)


def det(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Determinants of square matrices.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64.
    out : Tensor, optional
        Written with the result.

    Returns
    -------
    Tensor
        (...).

    Raises
    ------
    RuntimeError
        When A is not square or not of floats.

    Examples
    --------
    >>> fastbp.linalg.det(fastbp.tensor([[2.0, 0.0], [1.0, 3.0]]))
    tensor(6.)

    Notes
    -----
    The derivative is the matrix of cofactors, right for singular matrices too, and so is the second one.
    """
    return stored(_factorize("det", A), out)


def slogdet(A: Tensor, *, out: Any = None) -> SlogdetResult:
    """Signs and logarithms of the absolute values of determinants, which themselves may overflow.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64.
    out : pair of Tensor, optional
        Written with the result.

    Returns
    -------
    SlogdetResult
        sign (...), -1, 0 or 1, and logabsdet (...), -inf for singular matrices (with NaN for a derivative).

    Raises
    ------
    RuntimeError
        When A is not square or not of floats.

    Examples
    --------
    >>> fastbp.linalg.slogdet(-fastbp.eye(3)).sign
    tensor(-1.)
    """
    packed = _factorize("slogdet", A)
    return SlogdetResult(*_written((packed[..., 0], packed[..., 1]), out))


def logdet(input: Tensor) -> Tensor:
    """Logarithms of determinants: NaN where one is negative, -inf where it is 0; parameters as `slogdet`.

    Examples
    --------
    >>> fastbp.logdet(fastbp.eye(3))
    tensor(0.)
    """
    sign, logarithm = slogdet(input)
    return _core.where(sign < 0, float("nan"), logarithm)
