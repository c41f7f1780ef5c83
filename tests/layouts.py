"""The same numbers in memory in different ways: what a kernel is not allowed to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastbp

Array = np.ndarray[Any, Any]


def _contiguous(a: Array) -> Array:
    return a.copy()


def _transposed(a: Array) -> Array:
    """Axes in memory the other way round."""
    return np.ascontiguousarray(a.T).T


def _stepped(a: Array) -> Array:
    """Every other element of a larger array, along the last axis; its neighbours hold other numbers."""
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), a.dtype.type(7))
    wide[..., ::2] = a
    return wide[..., ::2]


def _reversed(a: Array) -> Array:
    """Negative strides along every axis."""
    turn = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[turn])[turn]


def _unaligned(a: Array) -> Array:
    """Contiguous, but begun one element behind where vectors begin."""
    store = np.empty(a.size + 1, a.dtype)
    store[1:] = a.ravel()
    return store[1:].reshape(a.shape)


def _padded_rows(a: Array) -> Array:
    """Rows of a wider matrix: contiguous inside, apart from each other."""
    wide = np.full((*a.shape[:-1], a.shape[-1] + 3), a.dtype.type(7))
    wide[..., : a.shape[-1]] = a
    return wide[..., : a.shape[-1]]


def _odd_ones(a: Array) -> Array:
    """Axes of size 1 with strides that no packed array has: no step is ever taken along them."""
    strides = [7 * a.itemsize if size == 1 else stride for size, stride in zip(a.shape, a.strides, strict=True)]
    return np.lib.stride_tricks.as_strided(a.copy(), a.shape, strides)


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": _contiguous,
    "transposed": _transposed,
    "stepped": _stepped,
    "reversed": _reversed,
    "unaligned": _unaligned,
    "padded rows": _padded_rows,
    "odd ones": _odd_ones,
}


def laid_out(a: Array, layout: str) -> fastbp.Tensor:
    """A tensor of these numbers in this layout; numbers (0-d) have but one."""
    return fastbp.from_numpy(LAYOUTS[layout](a) if a.ndim else a.copy())
