"""NumPy and the buffer protocol: memory shared both ways, copied where asked, alive as long as anyone looks at it."""

from __future__ import annotations

import array as arrays
import gc
import weakref

import numpy as np
import pytest

import fastbp

DTYPES = [fastbp.bool, fastbp.uint8, fastbp.int32, fastbp.int64, fastbp.float32, fastbp.float64]


def live():
    gc.collect()
    return fastbp._core.memory_statistics()["live_blocks"]


# ---- tensor to array ----


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_shares_memory_both_ways(dtype):
    x = fastbp.zeros(2, 3, dtype=dtype)
    a = x.numpy()
    assert a.dtype.name == str(dtype).rpartition(".")[2]
    assert a.shape == (2, 3)
    x[0, 1] = 1
    assert a[0, 1] == 1
    a[1, 2] = 1
    assert x[1, 2].item() == 1


def test_numpy_keeps_layouts():
    x = fastbp.arange(24).reshape(2, 3, 4)
    for view in (x.transpose(0, 2), x[:, 1:], x[..., ::2], x[1, 2], x[0, 0, 0], x.expand(2, 2, 3, 4)):
        a = view.numpy()
        assert a.tolist() == view.tolist()
        assert a.strides == tuple(8 * s for s in view.stride())
        assert np.shares_memory(a, x.numpy())


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_nothing(shape):
    a = fastbp.zeros(shape).numpy()
    assert (a.shape, a.dtype) == (shape, np.float32)
    assert tuple(fastbp.from_numpy(a).shape) == shape


def test_array_outlives_the_tensor():
    x = fastbp.arange(1000.0)
    a = x[10:].numpy()
    del x
    junk = [fastbp.full((1000,), -1.0) for _ in range(20)]
    assert a.tolist() == list(range(10, 1000))
    del junk


def test_memory_returns_once_the_array_is_gone():
    before = live()
    a = fastbp.arange(1000.0).numpy()
    assert live() > before
    del a
    assert live() == before


def test_requires_grad():
    x = fastbp.ones(2, requires_grad=True)
    with pytest.raises(
        RuntimeError, match=r"Can't call numpy\(\) on Tensor that requires grad. Use tensor.detach\(\).numpy\(\)"
    ):
        x.numpy()
    assert x.numpy(force=True).tolist() == [1, 1]
    assert x.detach().numpy().tolist() == [1, 1]


def test_asarray():
    x = fastbp.arange(3.0)
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert np.asarray(x, dtype="f8").dtype == np.float64
    assert not np.shares_memory(np.array(x), x.numpy())
    assert x.__array__(np.dtype("i4")).tolist() == [0, 1, 2]
    assert not np.shares_memory(x.__array__(copy=True), x.numpy())
    with pytest.raises(ValueError, match="copy"):
        x.__array__(np.dtype("f8"), copy=False)


def test_functions_of_numpy():
    x = fastbp.tensor([[1.0, 4], [9, 16]])
    assert np.sqrt(x).tolist() == [[1, 2], [3, 4]]
    assert np.concatenate([x, x]).shape == (4, 2)
    assert np.allclose(x, x.numpy())
    np.testing.assert_array_equal(x, [[1, 4], [9, 16]])
    assert np.stack([fastbp.ones(2), fastbp.zeros(2)]).tolist() == [[1, 1], [0, 0]]


def test_scalars_of_numpy():
    x = fastbp.ones(2)
    for product in (x * np.float64(2), np.float64(2) * x, x * np.float32(2), x * np.int64(2)):
        assert isinstance(product, fastbp.Tensor)
        assert product.dtype == fastbp.float32
        assert product.tolist() == [2, 2]
    assert fastbp.arange(5)[np.int64(2)].item() == 2
    assert fastbp.arange(5)[np.array([0, 3])].tolist() == [0, 3]
    assert fastbp.zeros(np.int64(3)).shape == (3,)
    assert fastbp.tensor(np.float32(1.5)).dtype == fastbp.float32


def test_arrays_as_operands():
    x = fastbp.ones(2)
    assert isinstance(x + np.ones(2, np.float32), fastbp.Tensor)
    assert (x + np.array([1, 2], np.float32)).tolist() == [2, 3]


# ---- array to tensor ----


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64", "float32", "float64"])
def test_from_numpy_shares_memory(dtype):
    a = np.zeros((2, 3), dtype)
    x = fastbp.from_numpy(a)
    assert str(x.dtype).endswith(dtype)
    a[0, 1] = 1
    assert x[0, 1].item() == 1
    x[1, 2] = 1
    assert a[1, 2] == 1
    assert np.shares_memory(x.numpy(), a)
    assert x.data_ptr() == a.ctypes.data


def test_tensor_copies():
    a = np.zeros(3)
    x = fastbp.tensor(a)
    a[0] = 1
    assert x.tolist() == [0, 0, 0]


def test_as_tensor_copies_only_where_needed():
    a = np.zeros(3)
    assert np.shares_memory(fastbp.as_tensor(a).numpy(), a)
    assert not np.shares_memory(fastbp.as_tensor(a, dtype=fastbp.float32).numpy(), a)
    x = fastbp.ones(2)
    assert fastbp.as_tensor(x) is x
    assert fastbp.asarray(x, copy=True).data_ptr() != x.data_ptr()
    with pytest.raises(ValueError, match="alias"):
        fastbp.asarray([1, 2], copy=False)


def test_tensor_outlives_the_array():
    a = np.arange(1000.0)
    x = fastbp.from_numpy(a)[10:]
    del a
    junk = [np.full(1000, -1.0) for _ in range(20)]
    assert x.tolist() == list(range(10, 1000))
    del junk


def test_array_is_let_go_of_with_the_last_view():
    class Watched(np.ndarray):
        pass

    gone = []
    a = np.arange(10.0).view(Watched)
    weakref.finalize(a, gone.append, True)
    x = fastbp.from_numpy(a)
    v = x[2:]
    del a, x
    gc.collect()
    assert not gone
    del v
    gc.collect()
    assert gone


def test_shared_memory_in_the_graph():
    """An array that a graph reads stays alive, and gradients of borrowed leaves are memory of their own."""
    a = np.array([1.0, 2])
    x = fastbp.from_numpy(a).requires_grad_()
    y = (x * x).sum()
    del a
    y.backward()
    assert x.grad.tolist() == [2, 4]
    x.grad.zero_()
    assert x.tolist() == [1, 2]


# ---- the buffer protocol ----


def test_memoryview():
    x = fastbp.arange(6.0).reshape(2, 3)
    m = memoryview(x)
    assert (m.format, m.shape, m.strides, m.readonly, m.nbytes) == ("f", (2, 3), (12, 4), False, 24)
    m[1, 2] = 7
    assert x[1, 2].item() == 7
    del x
    assert m.tolist() == [[0, 1, 2], [3, 4, 7]]


def test_flat_buffers_need_contiguous_elements():
    x = fastbp.arange(6.0).reshape(2, 3)
    assert bytes(x) == x.numpy().tobytes()
    with pytest.raises((BufferError, ValueError)):
        np.frombuffer(x.t(), np.float32)


def test_frombuffer():
    held = arrays.array("d", [1, 2, 3])
    x = fastbp.frombuffer(held, dtype=fastbp.float64)
    x[0] = 9
    assert held[0] == 9
    tail = fastbp.frombuffer(held, dtype=fastbp.float64, offset=8, count=1)
    assert tail.tolist() == [2]


def test_frombuffer_of_bytes_is_read_only():
    x = fastbp.frombuffer(b"\x01\x00\x00\x00", dtype=fastbp.int32)
    assert x.tolist() == [1]
    with pytest.raises(RuntimeError, match="read-only"):
        x.add_(1)
    assert not x.numpy().flags.writeable


def test_exporting_array_cannot_be_resized_under_a_tensor():
    held = bytearray(8)
    x = fastbp.frombuffer(held, dtype=fastbp.uint8)
    with pytest.raises(BufferError):
        held.extend(b"x")
    del x
    gc.collect()
    held.extend(b"x")


def test_conversions_leave_no_memory_behind():
    before = live()
    for _ in range(100):
        x = fastbp.from_numpy(np.arange(10.0))
        y = fastbp.tensor(x.numpy()[::-1]).t()
        memoryview(y).release()
        del x, y
    assert live() == before


def test_dtypes_name_numpys_scalar_types() -> None:
    """SciPy makes numbers of what functions return by `result.dtype.type(...)`."""
    for name in ("float32", "float64", "int64", "int32", "uint8", "bool"):
        assert fastbp.zeros(1, dtype=getattr(fastbp, name)).dtype.type is np.dtype(name).type
