"""Products of matrices, vectors and tensors that are made of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .. import _core
from .._core import Tensor
from ._checks import check_square, check_tensors, stored


def matrix_power(A: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """The n-th power of square matrices.

    Parameters
    ----------
    A : Tensor
        (..., n, n), float32 or float64.
    n : int
        0 gives identities, a negative number powers of the inverse.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        When A is not square.
    LinAlgError
        For a negative power of a singular matrix.
    TypeError
        When n is not an integer.

    Examples
    --------
    >>> fastbp.linalg.matrix_power(fastbp.tensor([[1.0, 1.0], [0.0, 1.0]]), 5)
    tensor([[1., 5.],
            [0., 1.]])
    """
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"matrix_power(): argument 'n' must be int, not {type(n).__name__}")
    check_square("linalg.matrix_power", A, any_dtype=True)
    if n == 0:
        return stored(_core.eye(A.shape[-1], dtype=A.dtype).expand(A.shape).clone(), out)
    square = _core._factorize("inverse", A) if n < 0 else A
    power = square if n & 1 else None
    for place in range(1, abs(n).bit_length()):
        square = square @ square
        if abs(n) >> place & 1:
            power = square if power is None else power @ square
    assert power is not None  # the highest bit is set
    return stored(power.clone() if n == 1 else power, out)


def _cheapest(sizes: Sequence[int]) -> list[list[int]]:
    """Where to split each product i .. j, by the classical recursion (Cormen et al., matrix chains)."""
    count = len(sizes) - 1
    cost = [[0] * count for _ in range(count)]
    split = [[0] * count for _ in range(count)]
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            tries = [
                (cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)
            ]
            cost[i][j], split[i][j] = min(tries)
    return split


def multi_dot(tensors: Sequence[Tensor], *, out: Tensor | None = None) -> Tensor:
    """Product of two or more matrices, in the order that multiplies least.

    Parameters
    ----------
    tensors : sequence of Tensor
        Matrices; the first and the last may be vectors, which are a row and a column.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        For fewer than two tensors, other numbers of dimensions, and sizes that do not fit.

    Examples
    --------
    >>> a = fastbp.ones(2, 3)
    >>> fastbp.linalg.multi_dot([a, a.T, a]).shape
    fastbp.Size([2, 3])
    """
    given = list(tensors)
    if len(given) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(given)}")
    for number, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise TypeError(f"multi_dot(): expected Tensor as element {number} in argument 0, not {type(x).__name__}")
        ends = number in (0, len(given) - 1)
        if x.ndim != 2 and not (ends and x.ndim == 1):
            raise RuntimeError(
                f"multi_dot(): tensor {number} must be 2D{' or 1D' if ends else ''} but got {x.ndim}D, shape "
                f"{tuple(x.shape)}"
            )
    matrices = list(given)
    if given[0].ndim == 1:
        matrices[0] = given[0].unsqueeze(0)
    if given[-1].ndim == 1:
        matrices[-1] = given[-1].unsqueeze(1)
    for number in range(len(given) - 1):
        if matrices[number].shape[1] != matrices[number + 1].shape[0]:
            raise RuntimeError(
                f"multi_dot(): tensors {number} and {number + 1} with shapes {list(given[number].shape)} and "
                f"{list(given[number + 1].shape)} cannot be multiplied"
            )
    split = _cheapest([x.shape[0] for x in matrices] + [matrices[-1].shape[1]])

    def product(i: int, j: int) -> Tensor:
        return matrices[i] if i == j else product(i, split[i][j]) @ product(split[i][j] + 1, j)

    result = product(0, len(matrices) - 1)
    if given[0].ndim == 1:
        result = result.squeeze(0)
    if given[-1].ndim == 1:
        result = result.squeeze(-1)
    return stored(result, out)


def chain_matmul(*matrices: Tensor, out: Tensor | None = None) -> Tensor:
    """`multi_dot` under PyTorch's older name, with the matrices as arguments; one is returned as a copy."""
    if not matrices:
        raise RuntimeError("chain_matmul(): Expected one or more matrices")
    for number, x in enumerate(matrices):
        if not isinstance(x, Tensor):
            raise TypeError(f"chain_matmul(): expected Tensor as element {number}, but got {type(x).__name__}")
        if x.ndim != 2:
            raise RuntimeError(f"chain_matmul(): Tensor dimension is {x.ndim}, expected 2 instead.")
    return stored(matrices[0].clone(), out) if len(matrices) == 1 else multi_dot(matrices, out=out)


def kron(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Kronecker product: every element of `input` times all of `other`, as blocks.

    Parameters
    ----------
    input, other : Tensor
        Of any numbers of axes; missing leading ones have size 1.
    out : Tensor, optional
        Written with the result.

    Returns
    -------
    Tensor
        Sizes are the products of sizes.

    Examples
    --------
    >>> fastbp.kron(fastbp.eye(2), fastbp.tensor([[1.0, 2.0]]))
    tensor([[1., 2., 0., 0.],
            [0., 0., 1., 2.]])
    """
    check_tensors("kron", input=input, other=other)
    ndim = max(input.ndim, other.ndim)
    left = (1,) * (ndim - input.ndim) + tuple(input.shape)
    right = (1,) * (ndim - other.ndim) + tuple(other.shape)
    blocks = input.reshape([size for one in left for size in (one, 1)])
    inside = other.reshape([size for one in right for size in (1, one)])
    return stored((blocks * inside).reshape([a * b for a, b in zip(left, right, strict=True)]), out)


def cross(input: Tensor, other: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """Vector products in three dimensions.

    Parameters
    ----------
    input, other : Tensor
        With as many axes, broadcast; 3 elements along `dim`.
    dim : int, optional
        Default: the last.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        For other numbers of axes, or of elements along `dim`.

    Examples
    --------
    >>> fastbp.linalg.cross(fastbp.tensor([1.0, 0.0, 0.0]), fastbp.tensor([0.0, 1.0, 0.0]))
    tensor([0., 0., 1.])
    """
    check_tensors("cross", input=input, other=other)
    if input.ndim != other.ndim:
        raise RuntimeError(
            f"linalg.cross: inputs must have the same number of dimensions, got shapes {tuple(input.shape)} and "
            f"{tuple(other.shape)}"
        )
    if input.shape[dim] != 3 or other.shape[dim] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {input.shape[dim]} and {other.shape[dim]}"
        )
    a, b = _core.broadcast_tensors(input, other)
    left, right = _core.roll(a, -1, dim) * _core.roll(b, -2, dim), _core.roll(a, -2, dim) * _core.roll(b, -1, dim)
    return stored(left - right, out)


def cross_older(input: Tensor, other: Tensor, dim: int | None = None, *, out: Tensor | None = None) -> Tensor:
    """`torch.cross`: as `linalg.cross`, but without `dim` along the first axis of 3 elements."""
    check_tensors("cross", input=input, other=other)
    if dim is None:
        sizes = tuple(input.shape)
        if 3 not in sizes:
            raise RuntimeError(f"cross: no dimension of size 3 in input, of shape {sizes}")
        dim = sizes.index(3)
    return cross(input, other, dim=dim, out=out)


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1, out: Tensor | None = None) -> Tensor:
    """Sums of products along an axis of two tensors that broadcast."""
    return stored((x * y).sum(dim), out)


def inner(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Sums of products along the last axes: (..., k) and (***, k) to (..., ***).

    Parameters
    ----------
    input, other : Tensor
        With as many elements along the last axis; a number scales the other.
    out : Tensor, optional
        Written with the result.

    Raises
    ------
    RuntimeError
        When the last axes differ.

    Examples
    --------
    >>> fastbp.inner(fastbp.tensor([1.0, 2.0]), fastbp.tensor([3.0, 4.0]))
    tensor(11.)
    """
    check_tensors("inner", input=input, other=other)
    if input.ndim == 0 or other.ndim == 0:
        return stored(input * other, out)
    if input.shape[-1] != other.shape[-1]:
        raise RuntimeError(
            f"inner() the last dimension must match on both input tensors but got shapes {list(input.shape)} and "
            f"{list(other.shape)}"
        )
    return stored(tensordot(input, other, ([-1], [-1])), out)


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: Tensor | None = None) -> Tensor:
    """Sums of products over several axes: one matrix product.

    Parameters
    ----------
    a, b : Tensor
    dims : int or pair of sequences of int, optional
        How many of a's last and b's first axes, or which of either. Sizes agree, or are 1. Default: 2.
    out : Tensor, optional
        Written with the result.

    Returns
    -------
    Tensor
        a's other axes, then b's.

    Raises
    ------
    RuntimeError
        When sizes differ, the two lists have other lengths, or there are not so many axes.

    Examples
    --------
    >>> fastbp.tensordot(fastbp.ones(2, 3, 4), fastbp.ones(3, 4, 5)).shape
    fastbp.Size([2, 5])
    """
    check_tensors("tensordot", a=a, b=b)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0 or dims > min(a.ndim, b.ndim):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        dims = (list(range(a.ndim - dims, a.ndim)), list(range(dims)))
    first, second = ([one] if isinstance(one, int) else list(one) for one in dims)
    if len(first) != len(second):
        raise RuntimeError(f"both dimension lists should have same length, got {first} and {second}")
    for i, j in zip(first, second, strict=True):
        if a.shape[i] != b.shape[j]:
            if 1 not in (a.shape[i], b.shape[j]):
                raise RuntimeError(
                    f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {i} and second has "
                    f"size {b.shape[j]} in dim {j}"
                )
            a, b = (a.sum(i, True), b) if b.shape[j] == 1 else (a, b.sum(j, True))
    first, second = [i % a.ndim for i in first], [j % b.ndim for j in second]
    rows = [i for i in range(a.ndim) if i not in first]
    columns = [j for j in range(b.ndim) if j not in second]
    inside = math.prod(a.shape[i] for i in first)
    sizes = [a.shape[i] for i in rows] + [b.shape[j] for j in columns]
    left = a.permute(*rows, *first).reshape(math.prod(a.shape[i] for i in rows), inside) if a.ndim else a.reshape(1, 1)
    right = (
        b.permute(*second, *columns).reshape(inside, math.prod(b.shape[j] for j in columns))
        if b.ndim
        else b.reshape(1, 1)
    )
    return stored((left @ right).reshape(sizes), out)
