"""What a linear op does, found out by running it: no second list of what each op moves where.

A linear op is y = L u, with u all its real operands one behind the other. Where every row of L has one entry at most
(gathers, concatenation: each output element comes from one place) the op itself tells L: of u = 1 it makes the entry c,
of u = (1, 2, ..., n) it makes c times the place, and of random u it makes c times what stood there, which is how one
knows that there was no second entry. (Of views that is known beforehand.) Where every column has one entry at most
(sums, adding at an index: each input element goes to one place) the same is true of the transpose, which is the op's
own reverse rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core import Tensor, _apply, enable_grad, from_numpy, grad, no_grad
from .sets import Array, Sets, map_of

# A quotient of float64 numbers that should be a whole number up to some 1e9, and products of two numbers, err by a few
# units of 2**-53 = 1.1e-16; that a sum of several random numbers is another one to this accuracy is a matter of 1e-12.
ROUNDING = 1e-12


def forget() -> None:
    """Let go of what was made for the views of one graph."""
    _numbered.cache_clear()


def places_of_view(op: str, shape: tuple[int, ...], attributes: dict[str, Any]) -> Array:
    """For each element of a view's result the number of the input's element that it is."""
    with no_grad():
        return np.asarray(_apply(op, [_numbered(shape)], attributes).numpy(), np.int64).ravel()


@functools.lru_cache(maxsize=4)
def _numbered(shape: tuple[int, ...]) -> Tensor:
    """0, 1, 2, ...: made once for the many parts that a loop takes of one tensor."""
    return from_numpy(np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape))


def map_of_linear(op: str, operands: Sequence[Tensor | None], attributes: dict[str, Any]) -> Sets | None:
    """Structure of a linear op, or None where neither its rows nor its columns have one entry each.

    Parameters
    ----------
    op : str
        A row of class "linear" of the op table.
    operands : sequence of (Tensor or None)
        Integer ones (indices) are used as they are. Of floating ones only the shapes matter.
    attributes : dict
        As recorded.

    Returns
    -------
    scipy.sparse.csr_array or None
        Boolean; a row for each element of the result, a column for each element of the floating operands, which stand
        one behind the other.
    """
    real = [i for i, x in enumerate(operands) if x is not None and x.is_floating_point()]
    shapes = [tuple(operands[i].shape) for i in real]  # type: ignore[union-attr]
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    n = int(ends[-1])

    def run(u: Array) -> tuple[list[Tensor], Tensor]:
        given = list(operands)
        parts = [
            from_numpy(u[a:b].reshape(shape).copy())
            for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)
        ]
        for i, part in zip(real, parts, strict=True):
            given[i] = part.requires_grad_()
        return parts, _apply(op, given, attributes)

    def forwards(u: Array) -> Array:
        with no_grad():
            return np.asarray(run(u)[1].detach().numpy(), np.float64).ravel()

    places = _places(forwards, n)
    if places is not None:
        rows = np.flatnonzero(places >= 0)
        return map_of(rows, places[rows], (len(places), n))
    with enable_grad():
        inputs, y = run(np.zeros(n))
    m, shape = int(np.prod(y.shape)), tuple(y.shape)

    def backwards(v: Array) -> Array:
        found = grad(y, inputs, from_numpy(v.reshape(shape).copy()), retain_graph=True, materialize_grads=True)
        return np.concatenate([g.numpy().ravel() for g in found])

    places = _places(backwards, m)
    if places is None:
        return None
    columns = np.flatnonzero(places >= 0)
    return map_of(places[columns], columns, (m, n))


def _places(linear: Callable[[Array], Array], n: int) -> Array | None:
    """For each element of L u the one element of u that it is a multiple of, -1 for none; None if there are several."""
    random = np.random.default_rng(0).uniform(1.0, 2.0, n)
    factor, counted, drawn = linear(np.ones(n)), linear(np.arange(1.0, n + 1)), linear(random)
    empty = (factor == 0) & (counted == 0) & (drawn == 0)
    if n == 0 or empty.all():
        return np.full(len(factor), -1) if empty.all() else None
    with np.errstate(all="ignore"):
        number = np.rint(counted / factor)
    place = np.where((number >= 1) & (number <= n), number, 1).astype(np.int64) - 1
    found = np.abs(counted - factor * (place + 1)) <= ROUNDING * np.abs(counted)
    found &= np.abs(drawn - factor * random[place]) <= ROUNDING * np.abs(drawn)
    return np.where(empty, -1, place) if (found | empty).all() else None
