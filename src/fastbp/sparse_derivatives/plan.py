"""A sparse derivative at many points: one pass a colour, and each number to its place in a SciPy CSR array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .colouring import colour_columns, colour_symmetric
from .recording import Function, Recording, as_leaf, pull_back, push_forward, record, record_gradient
from .sets import Array, Sets, scipy_sparse

Mode = Literal["fwd", "rev"]

BLOCK = 64
"""Directions that go through the graph in one batched sweep."""

BLOCK_ELEMENTS = 2**15
"""Fewer of them where one has many elements: a node's tangents for a whole block are to stay in the cache."""

# How far the check's two products may be apart, relative to the terms that are added up: rounding of some thousand ops.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}


@dataclass(frozen=True)
class SparseInfo:
    """What a sparse derivative cost.

    Attributes
    ----------
    mode : str
        "fwd" or "rev"; of a Hessian "fwd", over the recorded gradient.
    passes : int
        Products with the Jacobian: the number of colours. Many go through the graph in one batched sweep.
    nonzeros : int
        Entries of the pattern.
    shape : tuple of int
    """

    mode: str
    passes: int
    nonzeros: int
    shape: tuple[int, int]


class SparseDerivative:
    """The Jacobian or Hessian of one function at any point: its pattern and colouring, found once.

    Made by `sparse_jacobian_plan` and `sparse_hessian_plan`; call it with a point.

    Attributes
    ----------
    pattern : scipy.sparse.csr_array of bool
        Where the derivative may be other than zero.
    mode : str
        "fwd" (a pass gives products J v) or "rev" (products v J).
    colours : array of int64
        The pass that serves each column ("fwd") or row ("rev"); -1 where there is nothing to find.
    passes : int
        How many there are.
    info : SparseInfo

    Examples
    --------
    >>> from fastbp.sparse_derivatives import sparse_jacobian_plan
    >>> plan = sparse_jacobian_plan(lambda x: x[1:] * x[:-1], fastbp.ones(4))
    >>> plan.passes
    2
    >>> plan(fastbp.arange(4.0)).toarray()
    array([[1., 0., 0., 0.],
           [0., 2., 1., 0.],
           [0., 0., 3., 2.]], dtype=float32)
    """

    def __init__(self, f: Function, recording: Recording, pattern: Sets, mode: Mode | None, hessian: bool) -> None:
        self._f = f
        self._who = "sparse_hessian" if hessian else "sparse_jacobian"
        self._hessian = hessian
        self._x_shape, self._dtype = tuple(recording.x.shape), recording.x.dtype
        self._y_shape = recording.shape
        self.pattern = pattern
        self.mode, self.colours = ("fwd", colour_symmetric(pattern)) if hessian else _choose(pattern, mode)
        self.passes = int(self.colours.max(initial=-1)) + 1
        self._places = _places_symmetric(pattern, self.colours) if hessian else self._places_direct()

    @property
    def info(self) -> SparseInfo:
        """What a call costs."""
        return SparseInfo(self.mode, self.passes, self.pattern.nnz, self.pattern.shape)

    def __repr__(self) -> str:
        kind = "Hessian" if self._hessian else "Jacobian"
        m, n = self.pattern.shape
        cost = f"{self.pattern.nnz} entries, {self.passes} passes"
        return f"SparseDerivative({kind} {m} x {n}, {cost}, mode={self.mode!r})"

    def __call__(self, x: Any, *args: Any, check: bool = False) -> Any:
        """The derivative at a point.

        Parameters
        ----------
        x : Tensor or array
            Of the shape and dtype that the plan was made for.
        *args
            Handed to the function as they are.
        check : bool, optional
            Compare one product with a random direction with that of a pass of its own. Default: False.

        Returns
        -------
        scipy.sparse.csr_array
            Of the pattern; places that happen to be zero here are stored all the same.

        Raises
        ------
        RuntimeError
            With `check`, if the pattern does not hold here: the function went another way than when the plan was made.
        ValueError
            If x or f(x) has another shape or dtype than when the plan was made.
        """
        leaf = as_leaf(x, self._who)
        if tuple(leaf.shape) != self._x_shape or leaf.dtype != self._dtype:
            raise ValueError(
                f"{self._who}: the plan is for x of shape {self._x_shape}, {self._dtype}, "
                f"got {tuple(leaf.shape)}, {leaf.dtype}; make another plan"
            )
        return self._evaluate((record_gradient if self._hessian else record)(self._f, leaf, args, self._who), check)

    def _evaluate(self, recording: Recording, check: bool = False) -> Any:
        if recording.shape != self._y_shape:
            raise ValueError(
                f"{self._who}: f(x) has shape {recording.shape}, and had {self._y_shape} when the plan was made; "
                "make another plan"
            )
        dtype = (recording.x if recording.y is None else recording.y).dtype.name
        data = np.zeros(self.pattern.nnz, dtype)
        if recording.y is not None:
            data = self._compressed(recording).ravel()[self._places]
        parts = (data, self.pattern.indices.copy(), self.pattern.indptr.copy())
        found = scipy_sparse().csr_array(parts, shape=self.pattern.shape)
        if check:
            self._check(recording, found)
        return found

    def _compressed(self, recording: Recording) -> Array:
        """A product for each colour: (passes, rows) forwards, (passes, columns) in reverse."""
        assert recording.y is not None
        sweep, read, given = (push_forward, 0, recording.x) if self.mode == "fwd" else (pull_back, 1, recording.y)
        products = np.zeros((self.passes, self.pattern.shape[read]), recording.y.dtype.name)
        block = max(1, min(BLOCK, BLOCK_ELEMENTS // max(*self.pattern.shape, 1)))
        for first in range(0, self.passes, block):
            colours = np.arange(first, min(first + block, self.passes))
            seeds = (self.colours == colours[:, None]).astype(given.dtype.name)
            products[colours] = sweep(recording, seeds)
        return products

    def _places_direct(self) -> Array:
        """Where each entry of the pattern stands in the raveled products: alone in its row (column) of that colour."""
        rows, columns = _entries(self.pattern)
        if self.mode == "fwd":
            return np.asarray(self.colours[columns] * self.pattern.shape[0] + rows)
        return np.asarray(self.colours[rows] * self.pattern.shape[1] + columns)

    def _check(self, recording: Recording, found: Any) -> None:
        """One random direction: the entries' sum along it must be what one pass says."""
        random = np.random.default_rng(0)
        v = random.uniform(0.5, 1.5, found.shape[1]).astype(found.dtype)
        wanted = np.zeros(found.shape[0], found.dtype)
        if recording.y is not None:
            wanted = push_forward(recording, v[None, :])[0]
        size = abs(found) @ np.abs(v) + np.abs(wanted)
        got = found @ v
        close = np.abs(got - wanted) <= TOLERANCES[found.dtype.name] * size
        wrong = ~(close | (~np.isfinite(got) & ~np.isfinite(wanted)))
        if wrong.any():
            raise RuntimeError(
                f"{self._who}: the pattern found when the plan was made does not hold here: row "
                f"{int(np.flatnonzero(wrong)[0])} ({int(wrong.sum())} of {len(wrong)}) depends on more; f branches on "
                "values or indexes by them, or the pattern given is too small. Make a new plan at this point"
            )


def _entries(pattern: Sets) -> tuple[Array, Array]:
    rows = np.repeat(np.arange(pattern.shape[0], dtype=np.int64), np.diff(pattern.indptr))
    return rows, pattern.indices.astype(np.int64)


def _choose(pattern: Sets, mode: Mode | None) -> tuple[Mode, Array]:
    """The mode asked for, or that of fewer passes; forwards if there are as many, as its pass is the cheaper one."""
    if mode != "rev":
        columns = colour_columns(pattern)
        longest = max(np.bincount(pattern.indices).tolist(), default=0)  # a column whose rows would all differ
        if mode == "fwd" or max(columns.tolist(), default=-1) + 1 <= longest:
            return "fwd", columns
    rows = colour_columns(scipy_sparse().csr_array(pattern.T))
    if mode == "rev" or rows.max(initial=-1) < columns.max(initial=-1):
        return "rev", rows
    return "fwd", columns


def _places_symmetric(pattern: Sets, colours: Array) -> Array:
    """As `_places_direct`: entry (v, w) in row v of w's colour where it is alone there, else in row w of v's colour."""
    rows, columns = _entries(pattern)
    count = pattern.shape[0]
    place = colours[columns] * count + rows
    _, which, often = np.unique(place, return_inverse=True, return_counts=True)
    return np.asarray(np.where(often[which] == 1, place, colours[rows] * count + columns))
