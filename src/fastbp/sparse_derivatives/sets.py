"""Sets of input elements, one for each element of a node: rows of a boolean SciPy CSR array.

Row i of such an array holds the elements of x on which element i of the node may depend. What rules need is here:
choosing rows, uniting rows, and the union of all rows. Indices are kept sorted, as sums of arrays want them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Sets = Any
"""A boolean `scipy.sparse.csr_array`; SciPy has no types of its own."""

MOST_ENTRIES = 2**29
"""Five bytes each: a pattern that is larger is that of a dense derivative, which needs no pattern."""


def scipy_sparse() -> Any:
    """Return `scipy.sparse`, which nothing else of fastbp needs.

    Raises
    ------
    ImportError
        Naming the extra that brings it.
    """
    try:
        return importlib.import_module("scipy.sparse")
    except ImportError as error:
        raise ImportError("sparse derivatives need SciPy: pip install 'fastbp[linalg]'") from error


def identity(n: int) -> Sets:
    """Each element depends on itself: what x is to x."""
    return narrow(scipy_sparse().eye_array(n, dtype=bool, format="csr"))


def nothing(m: int, n: int) -> Sets:
    """m empty sets of n elements."""
    return scipy_sparse().csr_array((m, n), dtype=bool)


def map_of(rows: Array, columns: Array, shape: tuple[int, int]) -> Sets:
    """The map with a true entry at each (row, column)."""
    entries = (np.ones(len(rows), bool), (rows, columns))
    return narrow(_sorted(scipy_sparse().csr_array(entries, shape=shape)))


def narrow(sets: Sets) -> Sets:
    """The same with indices of 32 bits if they suffice: half the memory, and what direct solvers take."""
    if sets.indices.dtype != np.int32 and max(sets.nnz, *sets.shape) < 2**31:
        sets.indices, sets.indptr = sets.indices.astype(np.int32), sets.indptr.astype(np.int32)
    return sets


def choose(sets: Sets, index: Array) -> Sets:
    """Rows by number, in this order."""
    index = np.asarray(index).ravel()
    if len(index) == sets.shape[0] and np.array_equal(index, np.arange(len(index))):
        return sets
    lengths = np.diff(sets.indptr)
    _refuse_dense(int(lengths[index].sum(dtype=np.int64)), (len(index), sets.shape[1]))
    return sets[index]


def push(map_: Sets, sets: Sets) -> Sets:
    """Row i becomes the union of the rows that row i of the map names."""
    return _sorted(map_ @ sets)


def unite(parts: Sequence[Sets]) -> Sets:
    """Row by row."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def unite_rows(sets: Sets) -> Sets:
    """The union of all rows, as one row."""
    columns = np.unique(sets.indices)
    return map_of(np.zeros(len(columns), np.int64), columns, (1, sets.shape[1]))


def repeat(row: Sets, m: int) -> Sets:
    """One row, m times."""
    return choose(row, np.zeros(m, np.int64))


def _sorted(sets: Sets) -> Sets:
    sets.sum_duplicates()  # also sorts
    return sets


def _refuse_dense(entries: int, shape: tuple[int, int]) -> None:
    if entries > MOST_ENTRIES:
        raise RuntimeError(
            f"sparse derivative: a part of the pattern, {shape[0]} x {shape[1]}, would have {entries} entries: this "
            "derivative is dense; use func.jacfwd, func.jacrev or func.hessian without sparse=True"
        )
