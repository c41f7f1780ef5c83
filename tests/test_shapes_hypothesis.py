"""Random shapes against NumPy: broadcasting, chains of views, reductions, batched products, concatenation and indexing.

What NumPy and PyTorch agree on needs no third opinion, and NumPy is quick enough for many shapes. Sizes are small and
include 0 and 1, where shape rules go wrong. Values are whole numbers in float64, so that sums are exact in any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp

Array = np.ndarray[Any, Any]

settings.register_profile("fastbp", deadline=None, max_examples=120, derandomize=True, database=None)
settings.load_profile("fastbp")

SIZE = st.sampled_from([0, 1, 1, 2, 3, 5])


def numbered(shape: tuple[int, ...]) -> Array:
    """Whole numbers without repetition, some negative."""
    count = math.prod(shape)
    return ((np.arange(count, dtype=np.float64) * 7) % max(count, 1) - count // 2).reshape(shape)


def assert_equal(found: fastbp.Tensor, wanted: Any) -> None:
    array = found.detach().numpy()
    assert array.shape == np.shape(wanted)
    assert np.array_equal(array, wanted, equal_nan=array.dtype.kind == "f")


@st.composite
def shapes(draw: st.DrawFn, least: int = 0, most: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(SIZE, min_size=least, max_size=most)))


@st.composite
def broadcastable(draw: st.DrawFn, count: int) -> list[tuple[int, ...]]:
    """Shapes that fit each other: parts of one shape, from its right, with ones here and there."""
    whole = draw(shapes())
    found = []
    for _ in range(count):
        part = whole[draw(st.integers(0, len(whole))) :]
        found.append(tuple(1 if draw(st.booleans()) else size for size in part))
    return found


# ---- broadcasting --------------------------------------------------------------------------------------------------


@given(broadcastable(3))
def test_broadcasting(used: list[tuple[int, ...]]) -> None:
    a, b, c = (numbered(shape) for shape in used)
    x, y, z = (fastbp.from_numpy(v) for v in (a, b, c))
    assert_equal(x + y, a + b)
    assert_equal(x * y - z, a * b - c)
    assert_equal(fastbp.where(x > y, y, z), np.where(a > b, b, c))
    assert tuple(fastbp.broadcast_shapes(*used)) == np.broadcast_shapes(*used)


@given(broadcastable(2))
def test_gradients_return_to_broadcast_shapes(used: list[tuple[int, ...]]) -> None:
    a, b = (numbered(shape) for shape in used)
    x, y = (fastbp.from_numpy(v).requires_grad_() for v in (a, b))
    (x * y).sum().backward()
    ones = np.ones(np.broadcast_shapes(*used))
    for leaf, other in ((x, b), (y, a)):
        pulled = ones * other
        lead = pulled.ndim - leaf.ndim
        axes = (*range(lead), *(lead + i for i, n in enumerate(leaf.shape) if n == 1))
        assert_equal(leaf.grad, pulled.sum(axes, keepdims=True).reshape(tuple(leaf.shape)))


@given(shapes(), shapes())
def test_shapes_that_do_not_fit_are_refused(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    x, y = fastbp.from_numpy(numbered(one)), fastbp.from_numpy(numbered(other))
    try:
        wanted = np.broadcast_shapes(one, other)
    except ValueError:
        with pytest.raises(RuntimeError, match="add"):
            x + y
    else:
        assert tuple((x + y).shape) == wanted


# ---- chains of views -----------------------------------------------------------------------------------------------


def _permute(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    order = data.draw(st.permutations(range(a.ndim)))
    return x.permute(*order) if order else x, a.transpose(order)


def _reshape(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    """Factors of the number of elements in any order, ones between them."""
    left, sizes = a.size, []
    while left > 1 and len(sizes) < 3:
        divisor = data.draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        sizes.append(divisor)
        left //= divisor
    sizes.append(left)
    sizes = data.draw(st.permutations(sizes))
    return x.reshape(*sizes), a.reshape(sizes)


def _expand(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    lead = data.draw(st.lists(st.sampled_from([1, 2]), max_size=1))
    sizes = [*lead, *(data.draw(st.sampled_from([1, 2, 3])) if n == 1 else n for n in a.shape)]
    return x.expand(*sizes) if sizes else x, np.broadcast_to(a, sizes)


def _slice(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    key: list[Any] = []
    for size in a.shape:
        if size and data.draw(st.integers(0, 3)) == 0:
            key.append(data.draw(st.integers(-size, size - 1)))
        else:
            bounds = st.one_of(st.none(), st.integers(-size - 1, size + 1))
            key.append(slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, 3]))))
    return x[tuple(key)], a[tuple(key)]


def _unsqueeze(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    at = data.draw(st.integers(-a.ndim - 1, a.ndim))
    return x.unsqueeze(at), np.expand_dims(a, at)


def _squeeze(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    return x.squeeze(), a.squeeze()


def _diagonal(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    if a.ndim < 2:
        return x, a
    offset = data.draw(st.integers(-2, 2))
    if not -a.shape[0] <= offset <= a.shape[1]:
        return x, a
    return x.diagonal(offset, 0, 1), a.diagonal(offset, 0, 1)


def _flatten(data: st.DataObject, x: fastbp.Tensor, a: Array) -> tuple[fastbp.Tensor, Array]:
    return x.flatten(), a.reshape(-1)


STEPS = [_permute, _reshape, _expand, _slice, _unsqueeze, _squeeze, _diagonal, _flatten]


@settings(max_examples=300)
@given(shapes(), st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.data())
def test_chains_of_views(shape: tuple[int, ...], steps: list[Any], data: st.DataObject) -> None:
    """Values, and the gradient: every element of the leaf gets the weights of the places that it is seen in."""
    a = numbered(shape)
    leaf = fastbp.from_numpy(a).requires_grad_()
    places = np.arange(a.size).reshape(shape)
    x = leaf
    for step in steps:
        before = x
        x, places = step(data, x, places)
        if places.ndim > 8 or places.size > 5000:
            x = before
            return
    assert_equal(x, a.ravel()[places] if a.size else np.zeros(places.shape))
    assert_equal(x.contiguous(), a.ravel()[places] if a.size else np.zeros(places.shape))
    if not x.requires_grad:
        assert x is leaf
    weights = numbered(places.shape)
    x.backward(fastbp.from_numpy(weights.copy()))
    assert_equal(leaf.grad, np.bincount(places.ravel(), weights.ravel(), a.size).reshape(shape))


# ---- reductions ----------------------------------------------------------------------------------------------------


@st.composite
def reductions(draw: st.DrawFn) -> tuple[tuple[int, ...], Any, bool]:
    shape = draw(shapes())
    axes = draw(st.lists(st.integers(0, max(len(shape) - 1, 0)), unique=True, max_size=len(shape)))
    signed = tuple(axis - len(shape) if draw(st.booleans()) else axis for axis in axes)
    return shape, signed or None, draw(st.booleans())


@given(reductions())
def test_reductions(how: tuple[tuple[int, ...], Any, bool]) -> None:
    shape, dim, keepdim = how
    a = numbered(shape)
    x = fastbp.from_numpy(a)
    words = {"axis": dim, "keepdims": keepdim}
    assert_equal(fastbp.sum(x, dim, keepdim), a.sum(**words))
    assert_equal(fastbp.any(x > 0, dim, keepdim), (a > 0).any(**words))
    assert_equal(fastbp.all(x > 0, dim, keepdim), (a > 0).all(**words))
    reduced = math.prod(shape[axis] for axis in (range(len(shape)) if dim is None else dim))
    if reduced:
        assert_equal(fastbp.amax(x, () if dim is None else dim, keepdim), a.max(**words))
        assert_equal(fastbp.amin(x, () if dim is None else dim, keepdim), a.min(**words))
        found = fastbp.mean(x, dim, keepdim).numpy()
        assert np.allclose(found, a.mean(**words), rtol=1e-14, atol=1e-14)
    elif a.sum(**words).size:
        with pytest.raises((IndexError, RuntimeError)):
            fastbp.amax(x, () if dim is None else dim, keepdim)
    if dim is not None and len(dim) == 1 and reduced:
        assert_equal(fastbp.argmax(x, dim[0], keepdim), a.argmax(dim[0], keepdims=keepdim))
        assert_equal(fastbp.cumsum(x, dim[0]), a.cumsum(dim[0]))


# ---- products, joins, indices --------------------------------------------------------------------------------------


@st.composite
def factors(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rows, inner, columns = (draw(SIZE) for _ in range(3))
    left, right = draw(broadcastable(2))
    a = (inner,) if draw(st.integers(0, 4)) == 0 else (*left[-2:], rows, inner)
    b = (inner,) if draw(st.integers(0, 4)) == 0 else (*right[-2:], inner, columns)
    return a, b


@given(factors())
def test_matmul(used: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (numbered(shape) for shape in used)
    x, y = (fastbp.from_numpy(v).requires_grad_() for v in (a, b))
    product = x @ y
    assert_equal(product, a @ b)
    cotangent = numbered(tuple(product.shape))
    product.backward(fastbp.from_numpy(cotangent.copy()))
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    pulled = cotangent.reshape(*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    for leaf, gradient in ((x, pulled @ right.swapaxes(-1, -2)), (y, left.swapaxes(-1, -2) @ pulled)):
        shape = left.shape if leaf is x else right.shape
        lead = gradient.ndim - len(shape)
        axes = (*range(lead), *(lead + i for i, n in enumerate(shape[:-2]) if n == 1))
        assert_equal(leaf.grad, gradient.sum(axes, keepdims=True).reshape(tuple(leaf.shape)))


@given(shapes(1, 3), st.lists(SIZE, min_size=1, max_size=4), st.data())
def test_cat_and_split(shape: tuple[int, ...], sizes: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = [
        numbered((*shape[: axis % len(shape)], n, *shape[axis % len(shape) + 1 :])) + k for k, n in enumerate(sizes)
    ]
    joined = fastbp.cat([fastbp.from_numpy(part) for part in parts], axis)
    assert_equal(joined, np.concatenate(parts, axis))
    for piece, part in zip(fastbp.split(joined, sizes, axis), parts, strict=True):
        assert_equal(piece, part)


@given(shapes(1, 4), st.data())
def test_advanced_indexing(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Index arrays, masks, slices and new axes, mixed as NumPy mixes them."""
    a = numbered(shape)
    common = data.draw(shapes(0, 2))
    key: list[Any] = []
    for size in shape:
        kind = data.draw(st.sampled_from(["slice", "array", "slice", "array", "number", "mask", "new"]))
        if kind == "new":
            key.append(None)
            kind = "slice"
        if kind == "array" and size:
            flat = data.draw(
                st.lists(st.integers(-size, size - 1), min_size=math.prod(common), max_size=math.prod(common))
            )
            key.append(np.array(flat, np.int64).reshape(common))
        elif kind == "number" and size:
            key.append(data.draw(st.integers(-size, size - 1)))
        elif kind == "mask" and not any(isinstance(k, np.ndarray) for k in key):
            key.append(np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool))
            common = (int(key[-1].sum()),)
        else:
            key.append(slice(data.draw(st.sampled_from([None, 0, 1])), None, data.draw(st.sampled_from([None, 2]))))
    if any(isinstance(k, int) for k in key) and any(isinstance(k, np.ndarray) for k in key):
        # NumPy takes numbers beside arrays for arrays of their own, which moves axes; PyTorch takes them out first.
        key = [np.int64(k) * np.ones(common, np.int64) if isinstance(k, int) else k for k in key]
    wanted = a[tuple(key)]
    turned = tuple(fastbp.from_numpy(k) if isinstance(k, np.ndarray) else k for k in key)
    leaf = fastbp.from_numpy(a).requires_grad_()
    found = leaf[turned]
    assert_equal(found, wanted)
    weights = numbered(wanted.shape)
    found.backward(fastbp.from_numpy(weights.copy()))
    gradient = np.zeros(shape)
    np.add.at(gradient, tuple(key), weights)
    assert_equal(leaf.grad, gradient)
    target = fastbp.from_numpy(a.copy())
    target[turned] = 99.0
    b = a.copy()
    b[tuple(key)] = 99.0
    assert_equal(target, b)
