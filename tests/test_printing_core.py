"""What repr() says of a tensor's history, type and layout.  tests/test_format.py has the numbers."""

from __future__ import annotations

import pytest

import fastbp


def leaf():
    return fastbp.tensor([1.0, 2.0], requires_grad=True)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: fastbp.tensor([1.0, 2.5]), "tensor([1.0000, 2.5000])"),
        (lambda: fastbp.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: fastbp.tensor(3.0), "tensor(3.)"),
        (lambda: fastbp.tensor(True), "tensor(True)"),
        (lambda: fastbp.tensor([]), "tensor([])"),
        (lambda: fastbp.zeros(2, 0), "tensor([], size=(2, 0))"),
        (lambda: fastbp.zeros(0, dtype=fastbp.int64), "tensor([], dtype=fastbp.int64)"),
        (lambda: fastbp.ones(2, dtype=fastbp.float64), "tensor([1., 1.], dtype=fastbp.float64)"),
        (lambda: fastbp.ones(2, dtype=fastbp.int32), "tensor([1, 1], dtype=fastbp.int32)"),
        (leaf, "tensor([1., 2.], requires_grad=True)"),
        (lambda: leaf() * 2, "tensor([2., 4.], grad_fn=<MulBackward0>)"),
        (lambda: leaf().sum(), "tensor(3., grad_fn=<SumBackward0>)"),
        (lambda: leaf().exp().detach() * 0, "tensor([0., 0.])"),
        (lambda: leaf() > 1, "tensor([False,  True])"),
        (lambda: fastbp.arange(6).reshape(2, 3).t(), "tensor([[0, 3],\n        [1, 4],\n        [2, 5]])"),
        (lambda: fastbp.arange(6)[::2], "tensor([0, 2, 4])"),
        (lambda: fastbp.tensor([1.0]).expand(3), "tensor([1., 1., 1.])"),
    ],
)
def test_repr(make, expected):
    assert repr(make()) == expected
    assert str(make()) == expected


def test_default_dtype_is_left_out():
    fastbp.set_default_dtype(fastbp.float64)
    assert repr(fastbp.ones(1)) == "tensor([1.])"
    assert repr(fastbp.ones(1, dtype=fastbp.float32)) == "tensor([1.], dtype=fastbp.float32)"


def test_printing_changes_nothing():
    x = leaf()
    y = x * x
    version, references = y._version, fastbp._core.memory_statistics()["live_blocks"]
    repr(y), str(x), f"{y}"
    assert y._version == version
    assert fastbp._core.memory_statistics()["live_blocks"] == references
    y.sum().backward()
    assert x.grad.tolist() == [2, 4]


def test_format():
    assert f"{fastbp.tensor(1.23456):.2f}" == "1.23"
    assert f"{fastbp.tensor(7):03d}" == "007"
    assert f"{leaf()}" == repr(leaf())
    with pytest.raises(TypeError, match="unsupported format string"):
        format(leaf(), ".2f")


def test_gradient_and_shape():
    x = leaf()
    (x * 3).sum().backward()
    assert repr(x.grad) == "tensor([3., 3.])"
    assert repr(x.shape) == "fastbp.Size([2])"
    assert repr(x.dtype) == "fastbp.float32"
    assert repr((x * 3).grad_fn).startswith("<MulBackward0")
