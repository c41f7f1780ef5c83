"""Whole Jacobians and Hessians: all rows, or all columns, in one batched pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _core
from .._tree import unflatten
from ._points import Point, Run, check_argnums, push, sweep
from .derivatives import _like

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._core import Tensor
    from ._points import Argnums

    Function = Callable[..., Any]


def _bases(tensors: Sequence[Tensor], begin: int, end: int) -> list[Tensor]:
    """Rows begin .. end of the identity over all elements of some tensors, each tensor's part in its shape."""
    found = []
    start = 0
    for one in tensors:
        count = one.numel()
        rows = (
            _core.eye(end - begin, count, dtype=one.dtype)
            if begin == start
            else _offset_eye(one, begin - start, end - begin)
        )
        found.append(rows.reshape(end - begin, *one.shape))
        start += count
    return found


def _offset_eye(like: Tensor, offset: int, rows: int) -> Tensor:
    """[i, j] = 1 where j = i + offset."""
    columns = _core.arange(like.numel()).reshape(1, -1)
    return (columns == _core.arange(offset, offset + rows).reshape(-1, 1)).to(like.dtype)


def _chunks(total: int, chunk_size: int | None, name: str) -> list[tuple[int, int]]:
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size <= 0):
        raise ValueError(f"{name}: `chunk_size` should be greater than 0, got {chunk_size!r}")
    size = min(chunk_size or total, total) or 1
    return [(at, min(at + size, total)) for at in range(0, total, size)]


def _batched(
    given: Sequence[Tensor], size: int, do: Callable[[list[Tensor]], Sequence[Tensor | None]]
) -> list[Tensor | None]:
    """`do` with tensors that stand for their batch; its results with the batch as first axis (None stays)."""
    if size == 1:  # as it is
        return [None if one is None else one.unsqueeze(0) for one in do([one.reshape(one.shape[1:]) for one in given])]
    with _core.vmap_level(size, "same") as level:
        results = do([_core.batch(one, level) for one in given])
        found: list[Tensor | None] = []
        for one in results:
            if one is None:
                found.append(None)
                continue
            behind, batched = _core.unbatch(one, level)
            found.append(behind if batched else behind.expand(size, *behind.shape))
    return found


def _in_place_of(run: Run, point: Point, table: list[list[Any]], single: bool) -> Any:
    """table[output][leaf] in the function's structure, each entry in the structure of the arguments."""
    rows = [point.rebuild(row, single) for row in table]
    return unflatten(run.structure, iter(rows))


def jacrev(
    func: Function,
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    sparse: bool = False,
) -> Function:
    """The function that returns a function's Jacobian, by rows: one batched sweep in reverse (torch.func.jacrev).

    The cheaper way where outputs are fewer than inputs.

    Parameters
    ----------
    func : callable
        To tensors in any structure.
    argnums : int or tuple of int, optional
        Arguments to differentiate by. Default: 0.
    has_aux : bool, optional
        `func` returns a pair, of which the second part is handed out as it is. Default: False.
    chunk_size : int, optional
        So many rows at a time, to save memory. Default: all at once.
    sparse : bool, optional
        Find the pattern of the Jacobian from the graph and return a SciPy sparse array of shape (elements of the
        output, elements of the argument), at a pass for each colour of its rows (`fastbp.sparse_derivatives`, which can
        keep the pattern for further points). One tensor in, one out; needs SciPy, ``pip install fastbp[linalg]``.
        Default: False.

    Returns
    -------
    callable
        Of the same arguments. For an output of shape S and an argument of shape T, the Jacobian has shape S + T;
        structures nest, the output's outside. With `has_aux` a pair of it and aux.

    Raises
    ------
    RuntimeError, ValueError
        When called, as `func.vjp`; for a chunk_size below 1.
    ImportError
        For `sparse` without SciPy.

    Examples
    --------
    >>> fastbp.func.jacrev(fastbp.sin)(fastbp.tensor([0., 1.]))
    tensor([[1.0000, 0.0000],
            [0.0000, 0.5403]])
    """
    if sparse:
        return _sparse(func, argnums, "rev", has_aux)

    @_like(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        point = Point(args, check_argnums(argnums, len(args), "jacrev"), "jacrev")
        run = Run(func, point, kwargs, "jacrev", has_aux)
        total = sum(one.numel() for one in run.outputs)
        create = run.is_recorded()
        pieces: list[list[Tensor]] = []
        for begin, end in _chunks(total, chunk_size, "jacrev"):
            bases = _bases(run.outputs, begin, end)
            found = _batched(bases, end - begin, lambda given: sweep(run, run.outputs, point.leaves, given, create))
            pieces.append([one for one in found if one is not None])
        table = []
        start = 0
        for y in run.outputs:
            row = []
            for number, x in enumerate(point.leaves):
                whole = (
                    pieces[0][number]
                    if len(pieces) == 1
                    else _core.cat([piece[number] for piece in pieces])
                    if pieces
                    else None
                )
                part = _core.zeros(0, *x.shape, dtype=x.dtype) if whole is None else whole[start : start + y.numel()]
                row.append(part.reshape(*y.shape, *x.shape))
            table.append(row)
            start += y.numel()
        jacobian = _in_place_of(run, point, table, not isinstance(argnums, tuple))
        return (jacobian, run.aux) if has_aux else jacobian

    return wrapper


def jacfwd(
    func: Function,
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    chunk_size: int | None = None,
    randomness: str = "error",
    sparse: bool = False,
) -> Function:
    """The function that returns a function's Jacobian, by columns: one batched pass forward (torch.func.jacfwd).

    The cheaper way where inputs are fewer than outputs, or as many.

    Parameters
    ----------
    func, argnums, has_aux, chunk_size
        As of `jacrev`; chunks are of columns.
    sparse : bool, optional
        As of `jacrev`, with a pass for each colour of the columns. Default: False.
    randomness : {"error", "same", "different"}, optional
        Accepted for PyTorch's sake: the function runs once, whatever it draws. Default: "error".

    Returns
    -------
    callable
        As of `jacrev`.

    Raises
    ------
    RuntimeError, ValueError
        As `jacrev`.

    Examples
    --------
    >>> fastbp.func.jacfwd(lambda x: x.sum() * x)(fastbp.tensor([1., 2.]))
    tensor([[4., 1.],
            [2., 5.]])
    """
    if sparse:
        return _sparse(func, argnums, "fwd", has_aux)

    @_like(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        point = Point(args, check_argnums(argnums, len(args), "jacfwd"), "jacfwd")
        run = Run(func, point, kwargs, "jacfwd", has_aux, keep=True)
        total = sum(one.numel() for one in point.leaves)
        create = run.is_recorded()
        pieces: list[list[Tensor | None]] = []
        for begin, end in _chunks(total, chunk_size, "jacfwd"):
            bases = _bases(point.leaves, begin, end)
            pieces.append(_batched(bases, end - begin, lambda given: push(run.outputs, point.leaves, given, create)))
        table = []
        for number, y in enumerate(run.outputs):
            columns = [piece[number] for piece in pieces if piece[number] is not None]
            table.append(_columns(y, columns, point.leaves))  # type: ignore[arg-type]
        jacobian = _in_place_of(run, point, table, not isinstance(argnums, tuple))
        return (jacobian, run.aux) if has_aux else jacobian

    return wrapper


def _columns(y: Tensor, pieces: list[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """The Jacobian of y by each leaf, from its tangents for all elements of all leaves as first axis."""
    if not pieces:
        return [_core.zeros(*y.shape, *x.shape, dtype=y.dtype) for x in leaves]
    whole = pieces[0] if len(pieces) == 1 else _core.cat(pieces)
    row = []
    start = 0
    for x in leaves:
        part = whole[start : start + x.numel()].movedim(0, -1)
        row.append(part.reshape(*y.shape, *x.shape))
        start += x.numel()
    return row


def _sparse(func: Function, argnums: Argnums, mode: str, has_aux: bool = False) -> Function:
    """Of a Jacobian by rows ("rev") or columns ("fwd"), or of a Hessian, with a pattern that is found and coloured."""
    if isinstance(argnums, tuple) or has_aux:
        raise RuntimeError("sparse=True: argnums must be one int, and has_aux is not supported; close over the rest")

    @_like(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from ..sparse_derivatives import sparse_hessian, sparse_jacobian

        (at,) = check_argnums(argnums, len(args), "sparse=True")

        def of_one(x: Tensor) -> Any:
            return func(*args[:at], x, *args[at + 1 :], **kwargs)

        return sparse_hessian(of_one, args[at]) if mode == "hessian" else sparse_jacobian(of_one, args[at], mode=mode)

    return wrapper


def hessian(func: Function, argnums: Argnums = 0, *, sparse: bool = False) -> Function:
    """The function that returns a function's Hessian: forward over reverse (torch.func.hessian).

    Parameters
    ----------
    func : callable
    argnums : int or tuple of int, optional
        Default: 0.
    sparse : bool, optional
        As of `jacrev`: a SciPy sparse array, symmetric, of a function of one number; a pass for each colour of a star
        colouring. Default: False.

    Returns
    -------
    callable
        Of the same arguments. For an output of shape S and an argument of shape T the result has shape S + T + T.

    Raises
    ------
    RuntimeError
        As `jacrev`.

    Examples
    --------
    >>> fastbp.func.hessian(lambda x: (x ** 3).sum())(fastbp.tensor([1., 2.]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return _sparse(func, argnums, "hessian") if sparse else jacfwd(jacrev(func, argnums), argnums)
