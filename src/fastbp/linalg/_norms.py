"""Norms of vectors and matrices, condition numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .. import _core
from .._core import Tensor, _factorize
from ._checks import check_matrix, check_square, stored
from ._decompositions import svdvals

Order = float | str | None
Dims = int | Sequence[int] | None


def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: _core.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """(sum |x|**ord)**(1/ord) over axes, as of one long vector.

    Parameters
    ----------
    x : Tensor
        float32 or float64.
    ord : float, optional
        inf and -inf are the largest and smallest |x|, 0 counts the elements that are not 0. Default: 2.
    dim : int or sequence of int, optional
        Axes that are reduced. Default: all.
    keepdim : bool, optional
        Keep reduced axes with size 1. Default: False.
    dtype : dtype, optional
        Cast the input to it first.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        For integers, unless `dtype` says otherwise, and for infinite orders of nothing.

    Examples
    --------
    >>> fastbp.linalg.vector_norm(fastbp.tensor([[3.0], [4.0]]))
    tensor(5.)
    """
    if dtype is None and not x.is_floating_point():
        raise RuntimeError(
            f"linalg.vector_norm: Expected a floating point tensor as input. Got {x.dtype.name}, of shape "
            f"{tuple(x.shape)}; give dtype="
        )
    return stored(_core.norm(x, float(ord), dim, keepdim, dtype=dtype), out)


def matrix_norm(
    A: Tensor,
    ord: float | str = "fro",
    dim: tuple[int, int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: _core.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Norms of matrices.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64.
    ord : float or str, optional
        "fro" (default): root of the sum of squares; "nuc": sum of the singular values; 2 and -2: the largest and the
        smallest singular value; 1 and -1: largest and smallest sum of a column's absolute values; inf and -inf: of
        a row's.
    dim : pair of int, optional
        Axes of rows and columns. Default: the last two.
    keepdim : bool, optional
        Keep reduced axes with size 1. Default: False.
    dtype : dtype, optional
        Cast the input to it first.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        For other orders, equal axes, and integers.

    Examples
    --------
    >>> fastbp.linalg.matrix_norm(fastbp.ones(2, 3), ord=1)
    tensor(2.)
    """
    x = A if dtype is None else A.to(dtype)
    check_matrix("linalg.matrix_norm", x)
    if isinstance(dim, int) or len(dim) != 2:
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {dim}")
    rows, columns = (_axis(one, x.ndim) for one in dim)
    if rows == columns:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord == "fro":
        return stored(_core.norm(x, 2.0, (rows, columns), keepdim), out)
    if ord not in ("nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    others = [axis for axis in range(x.ndim) if axis not in (rows, columns)]
    result = _of_last_axes(x.permute(*others, rows, columns), ord)
    if keepdim:
        for axis in sorted((rows, columns)):
            result = result.unsqueeze(axis)
    return stored(result, out)


def _axis(dim: int, ndim: int) -> int:
    if not -ndim <= dim < ndim:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-ndim}, {ndim - 1}], but got {dim})")
    return dim % ndim


def _of_last_axes(x: Tensor, ord: float | str) -> Tensor:
    if ord in (2, -2, "nuc"):
        values = svdvals(x)
        return values.sum(-1) if ord == "nuc" else values.amax(-1) if ord == 2 else values.amin(-1)
    sums = x.abs().sum(-2 if ord in (1, -1) else -1)
    return sums.amax(-1) if float(ord) > 0 else sums.amin(-1)


def norm(
    input: Tensor,
    ord: Order = None,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    out: Tensor | None = None,
    dtype: _core.dtype | None = None,
) -> Tensor:
    """`vector_norm` or `matrix_norm`, by the number of axes in `dim`.

    Parameters
    ----------
    input : Tensor
        float32 or float64.
    ord : float or str, optional
        Default: the 2-norm of all elements in `dim`.
    dim : int or pair of int, optional
        One axis: of vectors; two: of matrices. Default: all of a vector or, with an order, of a matrix.
    keepdim : bool, optional
        Keep reduced axes with size 1. Default: False.
    out : Tensor, optional
        Written with the result.
    dtype : dtype, optional
        Cast the input to it first.

    Raises
    ------
    RuntimeError
        For three axes or more where the order or `dim` asks for vectors or matrices; and as the two functions.

    Examples
    --------
    >>> fastbp.linalg.norm(fastbp.tensor([3.0, 4.0]))
    tensor(5.)
    """
    dims = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if ord is None:
        return vector_norm(input, 2, dims, keepdim, dtype=dtype, out=out)
    if dims is None:
        if input.ndim not in (1, 2):
            raise RuntimeError(
                f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {input.ndim}D."
            )
        dims = tuple(range(input.ndim))
    if len(dims) not in (1, 2):
        raise RuntimeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dims)}")
    if len(dims) == 2:
        return matrix_norm(input, ord, (dims[0], dims[1]), keepdim, dtype=dtype, out=out)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: Order {ord!r} is one of matrices, and dim {list(dims)} names one axis")
    return vector_norm(input, ord, dims, keepdim, dtype=dtype, out=out)


def cond(A: Tensor, p: Order = None, *, out: Tensor | None = None) -> Tensor:
    """Condition numbers of matrices: how much a solution may change with its right side.

    Parameters
    ----------
    A : Tensor
        (..., m, n), float32 or float64; square unless p is None, 2 or -2.
    p : float or str, optional
        Order of the matrix norm, as in `matrix_norm`. None (default) and 2: largest singular value over the smallest;
        -2: the reverse.
    out : Tensor, optional
        Written with the result.

    Returns
    -------
    Tensor
        (...); inf for singular matrices.

    Raises
    ------
    RuntimeError
        When A is not square or not of floats, or for other orders.

    Examples
    --------
    >>> fastbp.linalg.cond(fastbp.tensor([[4.0, 0.0], [0.0, 2.0]]))
    tensor(2.)
    """
    check_matrix("linalg.cond", A)
    if p is None or p in (2, -2):
        values = svdvals(A)
        largest, smallest = values.amax(-1), values.amin(-1)
        return stored(smallest / largest if p == -2 else largest / smallest, out)
    check_square(f"linalg.cond(ord={p})", A)
    inverse = _factorize("inverse", A, lenient=True)
    result = matrix_norm(A, p) * matrix_norm(_core.where(_core.isnan(inverse), math.inf, inverse), p)
    return stored(_core.where(_core.isnan(result), math.inf, result), out)
