"""vmap: a function of one example, run once for a whole batch."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor
from .._tree import LEAF, broadcast, flatten, is_container, ordered_as, parts, unflatten
from ._points import as_tensor
from .derivatives import _like

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Function = Callable[..., Any]


def vmap(
    func: Function,
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Function:
    """The function over a batch: `func` is for one example and runs once, each op over all of them (torch.func.vmap).

    Inside, tensors have the shape of one example. There is no loop in Python: ops are batched by the class of their row
    in the op table. The few that cannot be for some inputs run once an example, and say so in a warning, once.

    Parameters
    ----------
    func : callable
        To tensors in any structure; what it returns besides tensors is handed out as it is when None.
    in_dims : int, None, or structure of such, optional
        Which dimension of each argument is the batch; None: the same value for all, tensor or not. A prefix of the
        arguments' structure will do. Keyword arguments are not batched. Default: 0.
    out_dims : int, None, or structure of such, optional
        Where the batch goes in each result; None: a result that is the same for all, without it. Default: 0.
    randomness : {"error", "same", "different"}, optional
        What random operations inside do: raise, draw once for all examples, or anew for each. Default: "error".
    chunk_size : int, optional
        Run over so many examples at a time, to save memory. Default: all at once.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        When called: for in_dims or out_dims that do not fit or are out of range, batches of different sizes, nothing
        batched.
    RuntimeError
        When called: for a value that is asked for inside, an in-place operation on a batched tensor, a random operation
        with "error".

    Examples
    --------
    >>> x = fastbp.tensor([[1., 2.], [3., 4.]])
    >>> fastbp.func.vmap(lambda row: row @ row)(x)
    tensor([ 5., 25.])
    >>> fastbp.func.vmap(fastbp.func.grad(lambda row: row @ row))(x)
    tensor([[2., 4.],
            [6., 8.]])
    """
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size <= 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size!r})")

    @_like(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves: list[Any] = []
        structure = flatten(args, leaves)
        tensors = [as_tensor(one, "vmap: arguments", ValueError) for one in leaves]
        dims = _in_dims(in_dims, structure, tensors)
        size = _batch_size(tensors, dims)
        function = functools.partial(func, **kwargs) if kwargs else func
        if chunk_size is None or size <= chunk_size:
            return _run(function, structure, tensors, dims, size, out_dims, randomness)
        results = []
        for start in range(0, size, chunk_size):
            length = min(chunk_size, size - start)
            chunk = [x if d is None else x.narrow(d, start, length) for x, d in zip(tensors, dims, strict=True)]
            results.append(_run(function, structure, chunk, dims, length, out_dims, randomness))
        return _joined(results, out_dims)

    return wrapper


def _in_dims(in_dims: Any, structure: Any, tensors: Sequence[Tensor]) -> list[int | None]:
    """The batch's dimension in each tensor, counted from the front; None: not batched."""
    single = isinstance(in_dims, int) and not isinstance(in_dims, bool)
    whole = in_dims if single else _as_tuple(in_dims, len(structure))
    _refuse_others(whole)
    flat = broadcast(whole, structure, "vmap: in_dims")
    _refuse_numbers(whole, structure)
    dims: list[int | None] = []
    for dim, x in zip(flat, tensors, strict=True):
        if dim is None:
            dims.append(None)
            continue
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(
                f"vmap: got in_dim={dim} for an input of dimensionality {x.ndim} (shape {tuple(x.shape)}), so "
                "expected in_dim to "
                f"satisfy -{x.ndim} <= in_dim < {x.ndim}"
            )
        dims.append(dim + x.ndim if dim < 0 else dim)
    return dims


def _as_tuple(in_dims: Any, count: int) -> Any:
    if isinstance(in_dims, list):
        in_dims = tuple(in_dims)
    if not isinstance(in_dims, tuple):
        raise ValueError(
            "vmap: expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, "
            "got: "
            f"{type(in_dims).__name__}"
        )
    if len(in_dims) != count:
        raise ValueError(f"vmap: in_dims has {len(in_dims)} entries for {count} positional arguments; they must agree")
    return in_dims


def _refuse_numbers(dims: Any, structure: Any) -> None:
    """Only tensors have a dimension: ValueError for one that is given for other things."""
    if structure is LEAF:
        return
    if not is_container(structure):
        if dims is not None:
            raise ValueError(
                f"vmap: got in_dim={dims!r} for an input of type {type(structure).__name__}, which is no Tensor; use "
                "None as its in_dim"
            )
        return
    keys = structure if isinstance(structure, dict) else range(len(structure))
    for key in keys:
        _refuse_numbers(dims[key] if is_container(dims) else dims, structure[key])


def _refuse_others(dims: Any) -> None:
    if is_container(dims):
        for one in parts(dims):
            _refuse_others(one)
    elif dims is not None and (isinstance(dims, bool) or not isinstance(dims, int)):
        raise ValueError(f"vmap: a dimension must be an int or None, got {dims!r}")


def _batch_size(tensors: Sequence[Tensor], dims: Sequence[int | None]) -> int:
    sizes = [x.shape[d] for x, d in zip(tensors, dims, strict=True) if d is not None]
    if not sizes:
        raise ValueError("vmap: at least one input must be a Tensor with a batch dimension (all of in_dims are None)")
    if len(set(sizes)) > 1:
        raise ValueError(
            f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sizes} for the "
            "mapped dimension"
        )
    return int(sizes[0])


def _run(
    func: Function,
    structure: Any,
    tensors: Sequence[Tensor],
    dims: Sequence[int | None],
    size: int,
    out_dims: Any,
    randomness: str,
) -> Any:
    with _core.vmap_level(size, randomness) as level:
        inside = [
            x if d is None else _core.batch(x if d == 0 else x.movedim(d, 0), level)
            for x, d in zip(tensors, dims, strict=True)
        ]
        value = func(*unflatten(structure, iter(inside)))
        results: list[Any] = []
        outer = flatten(value, results)
        _refuse_values(outer)
        _refuse_others(out_dims)
        places = broadcast(out_dims, outer, "vmap: out_dims")
        found = [
            _unbatched(as_tensor(one, "vmap: results", ValueError), place, level, size)
            for one, place in zip(results, places, strict=True)
        ]
    return unflatten(outer, iter(found))


def _refuse_values(structure: Any) -> None:
    """A function over a batch returns tensors, which have one value an example."""
    if structure is LEAF or structure is None:
        return
    if not is_container(structure):
        raise ValueError(
            f"vmap: the function must only return Tensors, got type {type(structure).__name__}; did you mean to "
            "return a tensor, "
            "or a value of the batch from outside?"
        )
    for one in parts(structure):
        _refuse_values(one)


def _unbatched(x: Tensor, place: int | None, level: int, size: int) -> Tensor:
    """A result as seen from outside, the batch at dimension `place`."""
    behind, batched = _core.unbatch(x, level)
    if place is None:
        if batched:
            raise ValueError("vmap: a result is different for each example and cannot be returned with out_dim None")
        return behind
    full = behind if batched else behind.expand(size, *behind.shape)
    if not -full.ndim <= place < full.ndim:
        raise ValueError(
            f"vmap: got out_dim={place} for a result of dimensionality {full.ndim - 1} for one example, so expected "
            "out_dim to "
            f"satisfy -{full.ndim} <= out_dim < {full.ndim}"
        )
    return full if place == 0 else full.movedim(0, place)


def _joined(results: Sequence[Any], out_dims: Any) -> Any:
    """The results of chunks, one behind the other."""
    columns: list[list[Any]] = []
    structure = None
    for one in results:
        leaves: list[Any] = []
        structure = flatten(ordered_as(one, results[0]), leaves)
        columns.append(leaves)
    places = broadcast(out_dims, structure, "vmap: out_dims")
    whole = [
        one[0] if place is None else _core.cat(list(one), dim=place)
        for one, place in zip(zip(*columns, strict=True), places, strict=True)
    ]
    return unflatten(structure, iter(whole))
