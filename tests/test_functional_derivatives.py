"""autograd.functional against closed forms and against each other, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import Tensor
from fastbp.autograd.functional import hessian, hvp, jacobian, jvp, vhp, vjp

# Sums of a few products of numbers near 1 in float64.
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
BOTH = pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])


def reals(*values: Any) -> Tensor:
    return fastbp.tensor(list(values), dtype=fastbp.float64)


def several(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return x.outer(y) * x.sum(), (x * x).sum() + y[0] ** 3


X, Y = reals(0.5, -1.5), reals(2.0, 0.25, 1.0)


@BOTH
def test_jacobian_of_several_outputs_by_several_inputs(strategy: str) -> None:
    found = jacobian(several, (X, Y), strategy=strategy)
    x, y = X.numpy(), Y.numpy()
    eye2, eye3 = np.eye(2), np.eye(3)
    expected = (
        (
            np.einsum("ik,j->ijk", eye2, y) * x.sum() + np.einsum("i,j,k->ijk", x, y, np.ones(2)),
            np.einsum("i,jk->ijk", x, eye3) * x.sum(),
        ),
        (2 * x, np.array([3 * y[0] ** 2, 0, 0])),
    )
    for row, expected_row in zip(found, expected, strict=True):
        for block, wanted in zip(row, expected_row, strict=True):
            assert not block.requires_grad
            np.testing.assert_allclose(block.numpy(), wanted, **CLOSE)


@BOTH
def test_jacobian_keeps_the_tuples_that_were_given(strategy: str) -> None:
    def shapes(found: Any) -> Any:
        return tuple(map(shapes, found)) if isinstance(found, tuple) else tuple(found.shape)

    assert shapes(jacobian(lambda x: x * 2, X, strategy=strategy)) == (2, 2)
    assert shapes(jacobian(lambda x: x * 2, (X,), strategy=strategy)) == ((2, 2),)
    assert shapes(jacobian(lambda x: (x * 2,), X, strategy=strategy)) == ((2, 2),)
    assert shapes(jacobian(lambda x: x.sum(), X, strategy=strategy)) == (2,)
    assert shapes(jacobian(lambda x: x[:0], X, strategy=strategy)) == (0, 2)
    assert shapes(jacobian(lambda x: x.sum(), X[:0], strategy=strategy)) == (0,)


@BOTH
def test_jacobian_can_be_differentiated(strategy: str) -> None:
    x = reals(0.5, -1.5).requires_grad_()
    found = jacobian(lambda x: x**3, x, create_graph=True, strategy=strategy)
    found.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * X.numpy(), **CLOSE)
    assert not jacobian(lambda x: x**3, x, strategy=strategy).requires_grad


@BOTH
def test_hessian(strategy: str) -> None:
    found = hessian(lambda x, y: several(x, y)[0].sum() + several(x, y)[1], (X, Y), outer_jacobian_strategy=strategy)
    x, y = X.numpy(), Y.numpy()
    across = 2 * x.sum() * np.ones((2, 3))
    below = np.zeros((3, 3))
    below[0, 0] = 6 * y[0]
    expected = ((2 * y.sum() * np.ones((2, 2)) + 2 * np.eye(2), across), (across.T, below))
    for row, expected_row in zip(found, expected, strict=True):
        for block, wanted in zip(row, expected_row, strict=True):
            np.testing.assert_allclose(block.numpy(), wanted, **CLOSE)
    single = hessian(lambda x: (x**3).sum(), X, outer_jacobian_strategy=strategy)
    np.testing.assert_allclose(single.numpy(), np.diag(6 * x), **CLOSE)


def test_hessian_can_be_differentiated() -> None:
    x = reals(0.5, -1.5).requires_grad_()
    hessian(lambda x: (x**4).sum(), x, create_graph=True).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 24 * X.numpy(), **CLOSE)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4), st.integers(0, 2**31))
def test_products_agree_with_the_matrices(point: list[float], seed: int) -> None:
    x = reals(*point)
    random = np.random.default_rng(seed)
    v = fastbp.from_numpy(random.standard_normal(len(point)))
    u = fastbp.from_numpy(random.standard_normal(len(point)))

    def function(x: Tensor) -> Tensor:
        return x.sin() * x.sum()

    def scalar(x: Tensor) -> Tensor:
        return function(x).exp().sum()

    J = jacobian(function, x).numpy()
    np.testing.assert_allclose(jvp(function, x, v)[1].numpy(), J @ v.numpy(), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(vjp(function, x, u)[1].numpy(), u.numpy() @ J, rtol=1e-10, atol=1e-10)
    # exp of up to 8 amplifies rounding by 3000 and the Hessian has products of two such.
    H = hessian(scalar, x).numpy()
    scale = max(1.0, np.abs(H).max())
    np.testing.assert_allclose(vhp(scalar, x, v)[1].numpy() / scale, v.numpy() @ H / scale, atol=1e-12)
    np.testing.assert_allclose(hvp(scalar, x, v)[1].numpy() / scale, H @ v.numpy() / scale, atol=1e-12)


def test_products_of_tuples_and_defaults() -> None:
    outputs, products = vjp(several, (X, Y), (fastbp.ones(2, 3, dtype=fastbp.float64), reals(2.0)[0]))
    assert isinstance(outputs, tuple) and [tuple(p.shape) for p in products] == [(2,), (3,)]
    outputs, products = jvp(several, (X, Y), (X, Y))
    np.testing.assert_allclose(products[0].numpy(), 3 * outputs[0].numpy(), **CLOSE)  # it is homogeneous of degree 3
    value, slope = vjp(lambda x: x.sum() ** 2, X)
    assert value.item() == 1 and slope.tolist() == [-2, -2]
    assert jvp(lambda x: x * X, reals(2.0))[1].tolist() == X.tolist()


@pytest.mark.parametrize("product", [vjp, jvp, vhp, hvp])
def test_products_can_be_differentiated(product: Any) -> None:
    x, v = reals(0.5, -1.5).requires_grad_(), reals(1.0, 2.0).requires_grad_()
    function = (lambda x: x**4) if product in (vjp, jvp) else (lambda x: (x**4).sum())
    _, found = product(function, x, v, create_graph=True)
    found.sum().backward()
    order = (4, 3, 12, 2) if product in (vjp, jvp) else (12, 2, 24, 1)
    np.testing.assert_allclose(v.grad.numpy(), order[0] * X.numpy() ** order[1], **CLOSE)
    np.testing.assert_allclose(x.grad.numpy(), order[2] * X.numpy() ** order[3] * np.array([1, 2]), **CLOSE)
    assert not product(function, x, v)[1].requires_grad


def test_where_nothing_leads_there_are_zeros() -> None:
    assert jacobian(lambda x, y: x * 2, (X, Y))[1].tolist() == [[0] * 3] * 2
    assert jacobian(lambda x: X * 2, X).tolist() == [[0, 0], [0, 0]]
    assert jvp(lambda x: X * 2, X, X)[1].tolist() == [0, 0]
    assert hessian(lambda x: x.sum(), X).tolist() == [[0, 0], [0, 0]]


def test_inputs_are_left_alone() -> None:
    x = reals(1.0).requires_grad_()
    jacobian(lambda x: x * x, x)
    vjp(lambda x: x * x, x)
    assert x.grad is None
    with fastbp.no_grad():
        assert jacobian(lambda x: x * x, x).item() == 2


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: jacobian(lambda x: 5, X), TypeError, "must be either a Tensor or a tuple of Tensors"),
    (lambda: jacobian(lambda x: x, 3), TypeError, "The inputs given to jacobian must be"),
    (lambda: jacobian(lambda x, y: x, (X, 3)), TypeError, "Value 1 of the inputs"),
    (lambda: jacobian(lambda x: x, X, strategy="sideways"), ValueError, "strategy must be"),
    (lambda: jacobian(abs, X, strict=True, strategy="forward-mode"), NotImplementedError, "not supported together"),
    (lambda: jacobian(lambda x: X * 2, X, strict=True), RuntimeError, "does not require gradients"),
    (lambda: jacobian(lambda x, y: x * 2, (X, Y), strict=True), RuntimeError, "independent of input 1"),
    (lambda: hessian(lambda x: x, X), RuntimeError, "should contain a single element"),
    (lambda: hessian(lambda x: (x.sum(),), X), RuntimeError, "should return a single Tensor"),
    (lambda: hvp(lambda x: x.sum(), X, X, strict=True), RuntimeError, "is independent of input 0"),
    (lambda: vjp(lambda x: x * 2, X), RuntimeError, "the vector v can only be None if the output is"),
    (lambda: jvp(lambda x: x.sum(), X), RuntimeError, "the vector v can only be None if the input is"),
    (lambda: vjp(lambda x: x * 2, X, Y), RuntimeError, r"v has invalid size: should be \(2,\) but got \(3,\)"),
    (lambda: jvp(lambda x: x * 2, X, (X, X)), RuntimeError, "should contain a single Tensor"),
    (lambda: vhp(lambda x, y: x.sum(), (X, Y), X), RuntimeError, "should contain 2 Tensors"),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input(number: int) -> None:
    call, error, message = BAD[number]
    with pytest.raises(error, match=message):
        call()
