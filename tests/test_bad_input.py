"""Input that cannot be computed with: which exception, what its message names, and that nothing was half done."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim

nan = float("nan")


def ones(*shape, dtype=fastbp.float32):
    return fastbp.ones(*shape, dtype=dtype)


def integers(*values):
    return fastbp.tensor(list(values))


# name: (call, exception, piece of the message)
CASES = {
    # shapes
    "broadcast": (
        lambda: ones(2, 3) + ones(4, 3),
        RuntimeError,
        r"add: shapes \(2, 3\) and \(4, 3\) cannot be broadcast",
    ),
    "broadcast_where": (lambda: fastbp.where(ones(2) > 0, ones(3), 0.0), RuntimeError, r"\(2,\)"),
    "matmul": (lambda: ones(2, 3) @ ones(4, 3), RuntimeError, r"matmul: .*\(2, 3\) and \(4, 3\)"),
    "matmul_scalar": (lambda: ones(2, 3) @ ones(), RuntimeError, "matmul: .*at least 1D"),
    "matmul_batches": (lambda: ones(2, 3, 4) @ ones(3, 4, 5), RuntimeError, r"matmul: .*\(2, 3, 4\).*\(3, 4, 5\)"),
    "linear": (lambda: nn.Linear(3, 4)(ones(2, 5)), RuntimeError, r"\(2, 5\)"),
    "view": (lambda: ones(2, 3).view(4), RuntimeError, r"shape \(4,\) is invalid for input of shape \(2, 3\)"),
    "view_of_turned": (lambda: ones(2, 3).t().view(6), RuntimeError, "view"),
    "reshape_guess": (lambda: ones(2, 3).reshape(-1, 4), RuntimeError, "is invalid for input of"),
    "reshape_two_guesses": (lambda: ones(2, 3).reshape(-1, -1), RuntimeError, "only one dimension can be inferred"),
    "reshape_negative": (lambda: ones(2, 3).reshape(-2, 3), RuntimeError, "negative dimension -2"),
    "expand": (lambda: ones(2, 3).expand(2, 4), RuntimeError, r"expand: .*\(2, 3\).*\(2, 4\)"),
    "cat_sizes": (lambda: fastbp.cat([ones(2, 3), ones(2, 2)]), RuntimeError, r"cat: Sizes .*\(2, 3\).*\(2, 2\)"),
    "cat_ndim": (lambda: fastbp.cat([ones(2, 3), ones(2)]), RuntimeError, r"cat: .*\(2, 3\).*\(2,\)"),
    "cat_nothing": (lambda: fastbp.cat([]), (RuntimeError, ValueError), "non-empty list"),
    "stack": (
        lambda: fastbp.stack([ones(2, 3), ones(2, 2)]),
        RuntimeError,
        r"stack expects .*\[2, 3\].*\[2, 2\] at entry 1",
    ),
    "split_sizes": (lambda: ones(3).split([1, 1]), RuntimeError, "split"),
    "chunk": (lambda: ones(3).chunk(0), RuntimeError, "chunk"),
    "narrow": (lambda: ones(3).narrow(0, 2, 2), RuntimeError, r"exceeds dimension size"),
    "maximum": (lambda: fastbp.maximum(ones(2, 3), ones(2, 4)), RuntimeError, r"\(2, 3\) and \(2, 4\)"),
    "assignment": (lambda: ones(2, 3).__setitem__(0, ones(2)), RuntimeError, r"size"),
    # axes
    "sum_axis": (lambda: ones(2, 3).sum(2), IndexError, r"sum: .*expected to be in range of \[-2, 1\], but got 2"),
    "sum_axis_twice": (lambda: ones(2, 3).sum((0, 0)), RuntimeError, "dim 0 appears multiple times"),
    "transpose": (lambda: ones(2, 3).transpose(0, 2), IndexError, "transpose: .*but got 2"),
    "softmax": (lambda: ones(2, 3).softmax(-3), IndexError, "softmax: .*but got -3"),
    "permute_twice": (lambda: ones(2, 3).permute(0, 0), RuntimeError, "permute"),
    "permute_too_few": (lambda: ones(2, 3).permute(0), RuntimeError, "permute: number of dimensions"),
    "squeeze": (lambda: ones(3).squeeze(2), IndexError, "squeeze: .*but got 2"),
    "size": (lambda: ones(3).size(1), IndexError, "but got 1"),
    "scalar_axis": (lambda: ones().sum(1), IndexError, "but got 1"),
    # dtypes
    "matmul_dtypes": (lambda: ones(2, 3) @ ones(3, 3, dtype=fastbp.float64), RuntimeError, "float32 and float64"),
    "matmul_integers": (lambda: ones(2, 3, dtype=fastbp.int64) @ ones(3, 3), RuntimeError, "int64 and float32"),
    "mean_of_integers": (lambda: integers(1, 2).mean(), RuntimeError, "mean: .*int64"),
    "softmax_of_integers": (lambda: integers(1, 2).softmax(0), RuntimeError, "softmax: .*int64"),
    "bits_of_floats": (lambda: ones(2) & ones(2), RuntimeError, "bitwise_and: .*float32"),
    "invert_floats": (lambda: ~ones(2), (RuntimeError, TypeError), "float32"),
    "bool_minus_bool": (lambda: (ones(2) > 0) - (ones(2) > 0), RuntimeError, "sub: not supported for bool"),
    "minus_bool": (lambda: -(ones(2) > 0), RuntimeError, "neg: not supported for bool"),
    "negative_power": (lambda: integers(2) ** -1, RuntimeError, "Integers to negative integer powers"),
    "where_condition": (lambda: fastbp.where(ones(2), 1.0, 2.0), RuntimeError, "expected condition to be a boolean"),
    "cross_entropy_floats": (lambda: F.cross_entropy(ones(2, 3), ones(2)), RuntimeError, "cross_entropy: .*Long"),
    "unknown_dtype": (lambda: fastbp.ones(3, dtype="int8"), TypeError, "'int8' is not a dtype that fastbp has"),
    "device": (lambda: ones(3).to("cuda"), RuntimeError, "'cuda' does not exist"),
    # integer division
    "floor_divide_zero": (lambda: integers(1, 2) // 0, RuntimeError, "ZeroDivisionError"),
    "floor_divide_zeros": (lambda: integers(1, 2) // integers(1, 0), RuntimeError, "ZeroDivisionError"),
    "remainder_zero": (lambda: integers(1, 2) % 0, RuntimeError, "ZeroDivisionError"),
    # indices
    "index": (lambda: ones(2, 3)[2], IndexError, "index 2 is out of bounds for dimension 0 with size 2"),
    "index_below": (lambda: ones(2, 3)[:, -4], IndexError, "index -4 is out of bounds for dimension 1 with size 3"),
    "too_many_indices": (lambda: ones(2, 3)[0, 0, 0], IndexError, "too many indices for tensor of dimension 2"),
    "index_scalar": (lambda: ones()[0], IndexError, "0-dim tensor"),
    "float_index": (lambda: ones(2, 3)[1.5], (IndexError, TypeError), "only integers"),
    "nan_index": (lambda: ones(2, 3)[nan], (IndexError, TypeError), "only integers"),
    "float_tensor_index": (lambda: ones(2, 3)[fastbp.tensor([1.0])], IndexError, "tensors used as indices must be"),
    "nan_tensor_index": (lambda: ones(2, 3)[fastbp.tensor([nan])], IndexError, "tensors used as indices must be"),
    "string_index": (lambda: ones(2)["a"], (IndexError, TypeError), "str"),
    "tensor_index": (lambda: ones(2, 3)[integers(0, 5)], IndexError, "index 5 is out of bounds"),
    "mask_shape": (lambda: ones(2, 3)[fastbp.tensor([True, False, True])], IndexError, r"shape of the mask \[3\]"),
    "negative_step": (lambda: ones(3)[::-1], ValueError, "step must be greater than zero"),
    "index_shapes": (lambda: ones(3, 3)[integers(0, 1), integers(0, 1, 2)], IndexError, "broadcast"),
    "gather": (
        lambda: ones(2, 3).gather(1, fastbp.tensor([[3]])),
        (IndexError, RuntimeError),
        "index 3 is out of bounds",
    ),
    "gather_floats": (lambda: ones(2, 3).gather(1, ones(1, 1)), RuntimeError, r"gather\(\): Expected dtype"),
    "scatter": (
        lambda: ones(2, 3).scatter_(1, fastbp.tensor([[4]]), 1.0),
        (IndexError, RuntimeError),
        "index 4 is out",
    ),
    "index_select": (lambda: ones(2, 3).index_select(0, integers(2)), IndexError, "out of"),
    "topk": (lambda: ones(3).topk(4), RuntimeError, "selected index k out of range"),
    "number_as_index": (lambda: [1, 2][fastbp.tensor(1.0)], TypeError, "only integer tensors of a single element"),
    # classes
    "class": (
        lambda: F.cross_entropy(ones(2, 3), integers(0, 3)),
        IndexError,
        r"Target 3 is out of bounds.*cross_entropy",
    ),
    "negative_class": (lambda: F.cross_entropy(ones(2, 3), integers(-1, 0)), IndexError, "Target -1 is out of bounds"),
    "nll_class": (lambda: F.nll_loss(ones(2, 3), integers(0, 7)), IndexError, r"Target 7 is out of bounds.*nll_loss"),
    "class_count": (lambda: F.cross_entropy(ones(2, 3), integers(0, 1, 2)), ValueError, r"batch_size \(2\) .*\(3\)"),
    # values
    "ragged": (lambda: fastbp.tensor([[1, 2], [3]]), ValueError, r"expected sequence of length 2 at dim 1 \(got 1\)"),
    "ragged_number": (lambda: fastbp.tensor([[1, 2], 3]), TypeError, "not a sequence"),
    "ragged_list": (lambda: fastbp.tensor([1, [2]]), TypeError, "list"),
    "none": (lambda: fastbp.tensor(None), RuntimeError, "Could not infer dtype of NoneType"),
    "nones": (lambda: fastbp.tensor([1, None]), (RuntimeError, TypeError), "NoneType"),
    "string": (lambda: fastbp.tensor("abc"), TypeError, "invalid data type 'str'"),
    "strings": (lambda: fastbp.tensor(["abc"]), ValueError, "too many dimensions 'str'"),
    "dict": (lambda: fastbp.tensor({}), RuntimeError, "Could not infer dtype of dict"),
    "complex": (lambda: fastbp.tensor(1j), TypeError, "complex"),
    "large_integer": (lambda: fastbp.tensor(2**70), (RuntimeError, ValueError), "(?i)overflow"),
    "large_integers": (lambda: fastbp.tensor([1, 2**70]), (RuntimeError, ValueError), "(?i)overflow"),
    "integer_beyond_dtype": (lambda: fastbp.tensor(2**40, dtype=fastbp.int32), RuntimeError, "overflow"),
    "nan_as_integer": (lambda: fastbp.tensor(nan, dtype=fastbp.int64), (RuntimeError, ValueError), "integer|int64"),
    "item": (lambda: ones(2).item(), RuntimeError, "2 elements cannot be converted to Scalar"),
    "truth": (lambda: bool(ones(2)), RuntimeError, "Boolean value of Tensor with more than one value is ambiguous"),
    "truth_of_nothing": (lambda: bool(ones(0)), RuntimeError, "Boolean value of Tensor with no values is ambiguous"),
    "iterate_number": (lambda: list(ones()), TypeError, "iteration over a 0-d tensor"),
    "length_of_number": (lambda: len(ones()), TypeError, r"len\(\) of a 0-d tensor"),
    "max_of_nothing": (lambda: ones(0).max(), RuntimeError, r"max\(\): Expected reduction dim"),
    "max_along_nothing": (lambda: ones(0, 3).max(0), IndexError, "non-zero size"),
    "argmax_of_nothing": (lambda: ones(0).argmax(), IndexError, r"argmax\(\): Expected reduction dim"),
    # sizes
    "negative_size": (lambda: fastbp.zeros(2, -1), RuntimeError, "negative"),
    "overflowing_size": (lambda: fastbp.zeros(2**40, 2**40), RuntimeError, "overflow"),
    "overflowing_bytes": (lambda: fastbp.zeros(2**61, dtype=fastbp.float64), RuntimeError, "overflow"),
    "overflowing_expand": (lambda: ones(1, 1).expand(2**40, 2**40), RuntimeError, "overflow"),
    "overflowing_repeat": (lambda: ones(2).repeat(2**62), RuntimeError, "overflow"),
    "negative_repeat": (lambda: ones(3).repeat(-1), RuntimeError, "negative dimension"),
    "size_of_text": (lambda: fastbp.zeros("a"), TypeError, "str"),
    "size_of_float": (lambda: fastbp.zeros(1.5), TypeError, "float"),
    "too_many_axes": (lambda: fastbp.ones([1] * 17), RuntimeError, "at most 16 dimensions"),
    "one_axis_too_many": (lambda: fastbp.ones([1] * 16).unsqueeze(0), RuntimeError, "at most 16 dimensions"),
    "array_of_many_axes": (lambda: fastbp.tensor(np.ones([1] * 20)), ValueError, "at most 16 dimensions"),
    "list_of_many_axes": (lambda: fastbp.tensor(np.ones([1] * 17).tolist()), ValueError, "at most 16 dimensions"),
    "arange_step": (lambda: fastbp.arange(0, 5, 0), RuntimeError, "step must be nonzero"),
    "arange_direction": (lambda: fastbp.arange(0, 5, -1), RuntimeError, "bound"),
    "linspace_steps": (lambda: fastbp.linspace(0, 1, -1), RuntimeError, "number of steps must be non-negative"),
    # arguments
    "too_many_arguments": (lambda: ones(2).exp(1, 2, 3), TypeError, r"exp\(\)"),
    "no_arguments": (lambda: fastbp.exp(), TypeError, r"exp\(\)"),
    "unknown_keyword": (lambda: fastbp.exp(ones(2), foo=1), TypeError, "foo"),
    "number_for_tensor": (lambda: fastbp.exp(1.0), TypeError, r"exp\(\): argument 'input'.* must be Tensor, not float"),
    "plus_text": (lambda: ones(2) + "a", TypeError, "unsupported operand"),
    "plus_none": (lambda: ones(2) + None, TypeError, "unsupported operand"),
    "times_dict": (lambda: ones(2) * {}, TypeError, "unsupported operand"),
    "clamp_without_bounds": (lambda: ones(2).clamp(), RuntimeError, "clamp: At least one of"),
    # arrays
    "objects": (lambda: fastbp.tensor(np.array([1, None])), TypeError, r"numpy.object_. The only supported types are"),
    "objects_shared": (lambda: fastbp.from_numpy(np.array([1, None])), TypeError, r"numpy.object_"),
    "complex_array": (lambda: fastbp.from_numpy(np.ones(2, "c8")), TypeError, "complex64"),
    "half_array": (lambda: fastbp.from_numpy(np.ones(2, "f2")), TypeError, r"float16.*astype\(numpy.float32\)"),
    "short_array": (lambda: fastbp.tensor(np.ones(2, "u2")), TypeError, r"uint16.*astype\(numpy.int32\)"),
    "texts": (lambda: fastbp.tensor(np.array(["a"])), TypeError, "only supported types are"),
    "swapped_bytes": (lambda: fastbp.from_numpy(np.ones(2, ">f4")), ValueError, "byte order"),
    "swapped_bytes_copied": (lambda: fastbp.tensor(np.ones(2, ">f4")), ValueError, "byte order"),
    "no_array": (lambda: fastbp.from_numpy([1, 2]), TypeError, r"expected np.ndarray \(got list\)"),
    "unaligned": (
        lambda: fastbp.from_numpy(np.frombuffer(bytes(9), dtype=np.uint8)[1:9].view(np.float32)),
        ValueError,
        "aligned",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_error_names_what_is_wrong(name):
    call, error, message = CASES[name]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", CASES)
def test_errors_leave_no_memory_behind(name):
    call, error, _ = CASES[name]

    def fail():
        with contextlib.suppress(error):
            call()

    fail()
    before = fastbp._core.memory_statistics()["live_blocks"]
    for _ in range(5):
        fail()
    assert fastbp._core.memory_statistics()["live_blocks"] == before


# ---- memory that cannot be had ----


@pytest.mark.parametrize("make", [fastbp.zeros, fastbp.empty, fastbp.ones, fastbp.rand], ids=lambda f: f.__name__)
def test_memory_that_cannot_be_had(make):
    with pytest.raises(MemoryError, match=r"cannot allocate [0-9]+ bytes"):
        make(2**50)
    assert (fastbp.ones(3) + 1).tolist() == [2, 2, 2]


def test_result_that_cannot_be_had_changes_nothing():
    x = fastbp.ones(1, requires_grad=True)
    wide = x.expand(2**50)
    before = fastbp._core.memory_statistics()["live_blocks"]
    with pytest.raises(MemoryError):
        wide + 1
    with pytest.raises(MemoryError):
        wide.contiguous()
    assert fastbp._core.memory_statistics()["live_blocks"] == before
    (x * 2).backward()
    assert x.grad.tolist() == [2]


def test_backward_that_runs_out_of_memory():
    """sum()'s cotangent of an expanded tensor is expanded too; its product with another one needs the memory."""
    x = fastbp.ones(1, requires_grad=True)
    with pytest.raises(MemoryError):
        (x.expand(2**50) * 2).sum().backward()
    assert x.grad is None


# ---- unusual layouts that do work ----

LAYOUTS = {
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(24.0).reshape(4, 6)[::2, ::2],
    "negative": np.arange(6.0).reshape(2, 3)[::-1, ::-1],
    "broadcast": np.broadcast_to(np.arange(3.0), (2, 3)),
    "zero_sized": np.ones((0, 3)),
    "zero_inside": np.ones((2, 0, 3)),
    "scalar": np.array(2.5),
    "one": np.ones((1, 1, 1))[::-1],
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("make", [fastbp.tensor, fastbp.as_tensor, fastbp.from_numpy], ids=lambda f: f.__name__)
def test_layouts(name, make):
    array = LAYOUTS[name].copy(order="K") if name == "fortran" else LAYOUTS[name]
    x = make(array)
    assert tuple(x.shape) == array.shape
    assert x.tolist() == array.tolist()
    assert (x * 2 + x).tolist() == (array * 3).tolist()
    assert x.sum().item() == array.sum()
    assert x.reshape(-1).tolist() == array.reshape(-1).tolist()
    assert x.exp().tolist() == pytest.approx(np.exp(array).tolist()) if array.ndim < 2 else True


def test_read_only_arrays_are_not_written():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = fastbp.from_numpy(array)
    for write in (
        lambda: x.add_(1),
        lambda: x.__setitem__(0, 5.0),
        lambda: x[1:].zero_(),
        lambda: x.detach().mul_(2),
        lambda: x.reshape(3, 1).fill_(0),
        lambda: x.uniform_(),
        lambda: x.__setitem__(x > 1, 0.0),
    ):
        with pytest.raises(RuntimeError, match="read-only"):
            write()
    assert array.tolist() == [0, 1, 2]
    assert (x + 1).add_(1).tolist() == [2, 3, 4]
    assert fastbp.tensor(array).add_(1).tolist() == [1, 2, 3]


# ---- nothing is half updated ----


def momentum(params):
    return optim.SGD(params, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("make", [momentum, optim.Adam, optim.AdamW], ids=["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("fault", ["read-only", "integer"])
def test_optimizer_step_is_all_or_nothing(make, fault):
    good = nn.Parameter(fastbp.ones(3))
    memory = np.ones(3, dtype=np.float32)
    bad = nn.Parameter(fastbp.from_numpy(memory))
    optimizer = make([good, bad])
    for p in (good, bad):
        p.grad = fastbp.full((3,), 0.5)
    optimizer.step()
    if fault == "read-only":
        memory = memory.copy()
        memory.flags.writeable = False
        bad.data = fastbp.from_numpy(memory)
    else:
        bad.data = fastbp.ones(3, dtype=fastbp.float64)

    def snapshot():
        state = [
            [v.tolist() if isinstance(v, fastbp.Tensor) else v for v in s.values()] for s in optimizer.state.values()
        ]
        return [good.tolist(), bad.tolist(), good.grad.tolist(), state, good._version]

    before = snapshot()
    with pytest.raises((RuntimeError, TypeError)):
        optimizer.step()
    assert snapshot() == before


@pytest.mark.parametrize("make", [momentum, optim.Adam], ids=["SGD", "Adam"])
def test_gradient_that_is_not_contiguous_is_used_or_refused(make):
    p, q = nn.Parameter(fastbp.ones(2, 3)), nn.Parameter(fastbp.ones(2, 3))
    values = fastbp.arange(6.0).reshape(3, 2).t()
    p.grad, q.grad = values, values.contiguous()
    make([q]).step()
    try:
        make([p]).step()
    except RuntimeError as error:
        assert "the gradient of parameter 0 is not contiguous; use .contiguous()" in str(error)
        assert p.tolist() == fastbp.ones(2, 3).tolist()
    else:
        assert p.tolist() == q.tolist()
    assert p.grad is values


def test_load_state_dict_with_another_shape():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    wrong = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for 0.weight.*\(4, 2\)|0\.weight"):
        model.load_state_dict(wrong)
    after = {k: v.tolist() for k, v in model.state_dict().items()}
    assert [k for k in before if before[k] != after[k]] in ([], ["1.bias"])  # 1.bias fits in both; PyTorch copies it


def test_load_state_dict_with_other_names():
    model = nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match=r"load_state_dict|loading state_dict") as error:
        model.load_state_dict({"other": fastbp.ones(1), "bias": fastbp.ones(3)})
    for piece in ("Linear", "Missing key", '"weight"', "Unexpected key", '"other"'):
        assert piece in str(error.value)


def test_failed_backward_leaves_the_graph_usable():
    x = fastbp.tensor([1.0, 2], requires_grad=True)
    y = x * x
    with pytest.raises(RuntimeError):
        y.backward(fastbp.ones(3))
    with pytest.raises(RuntimeError):
        y.backward()
    y.sum().backward()
    assert x.grad.tolist() == [2, 4]


def test_out_takes_the_result_or_is_refused() -> None:
    x, y = fastbp.tensor([0.5, 1.0]), fastbp.tensor([2.0, 3.0])
    out = fastbp.empty(2)
    assert fastbp.tanh(x, out=out) is out and out.tolist() == fastbp.tanh(x).tolist()
    assert fastbp.mul(x, y, out=x) is x and x.tolist() == [1.0, 3.0]  # elementwise, so an input may be the target
    assert fastbp.exp(fastbp.tensor([0, 1]), out=out).tolist() == fastbp.exp(fastbp.tensor([0.0, 1.0])).tolist()
    with pytest.raises(RuntimeError, match=r"exp: out= has shape \(3,\)"):
        fastbp.exp(x, out=fastbp.empty(3))
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        fastbp.exp(x.requires_grad_(), out=out)
