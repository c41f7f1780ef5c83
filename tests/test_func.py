"""fastbp.func: what each transform takes and gives, and how derivatives inside and outside are told apart.

Expected values are closed forms of the functions below, or the same derivative by plain autograd. Nests and compiled
functions are in test_func_nested.py, modules as functions in test_func_state.py, vmap in test_vmap.py, each op's own
batching in test_vmap_ops.py.
"""

from __future__ import annotations

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import func

Pair = namedtuple("Pair", "first second")

# A derivative is some ten roundings away from its closed form, in another order of operations.
TOLERANCE = {"rtol": 1e-13, "atol": 1e-14}


def real(values: Any) -> fastbp.Tensor:
    return fastbp.tensor(values, dtype=fastbp.float64)


X, Y = np.array([0.3, -0.7, 1.1]), np.array([2.0, 0.5, -1.0])


def x() -> fastbp.Tensor:
    return fastbp.from_numpy(X.copy())


def y() -> fastbp.Tensor:
    return fastbp.from_numpy(Y.copy())


def same(found: Any, wanted: Any, recorded: bool = False) -> None:
    """A tensor of this value and shape; it requires grad only where that is expected."""
    assert isinstance(found, fastbp.Tensor)
    assert found.requires_grad == recorded
    got, want = found.detach().numpy(), np.asarray(wanted)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, **TOLERANCE)


def refuses(kind: type[Exception], words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=re.escape(words)) as caught:
        call()
    assert type(caught.value) is kind


def product(a: fastbp.Tensor, b: fastbp.Tensor) -> fastbp.Tensor:
    """sum a b^2: by a it is b^2, by b 2ab."""
    return (a * b * b).sum()


# ---- grad ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argnums", "wanted"), [(0, Y * Y), (1, 2 * X * Y), (-1, 2 * X * Y), (-2, Y * Y)])
def test_grad_by_one_argument(argnums: int, wanted: Any) -> None:
    same(func.grad(product, argnums)(x(), y()), wanted)


@pytest.mark.parametrize("argnums", [(0,), (0, 1), (1, 0), (-1, 0)])
def test_grad_by_several_arguments(argnums: tuple[int, ...]) -> None:
    found = func.grad(product, argnums)(x(), y())
    assert isinstance(found, tuple)
    assert len(found) == len(argnums)
    for one, place in zip(found, argnums, strict=True):
        same(one, [Y * Y, 2 * X * Y][place])


def test_grad_keeps_the_structure_of_its_argument() -> None:
    def loss(tree: Any) -> fastbp.Tensor:
        return (tree["a"][0] * tree["b"].first).sum() + tree["b"].second["z"].sin().sum() + (tree["c"][0] * 3).sum()

    tree = {"a": [x()], "b": Pair(y(), OrderedDict(z=x())), "c": (y(),)}
    found = func.grad(loss)(tree)
    assert list(found) == ["a", "b", "c"]
    assert type(found["b"]) is Pair
    assert type(found["b"].second) is OrderedDict
    same(found["a"][0], Y)
    same(found["b"].first, X)
    same(found["b"].second["z"], np.cos(X))
    same(found["c"][0], np.full(3, 3.0))
    both, alone = func.grad(lambda t, v: loss(t) + (v * v).sum(), (0, 1))(tree, y())
    same(both["a"][0], Y)
    same(alone, 2 * Y)


def test_one_tensor_twice_in_a_tree_is_two_variables() -> None:
    one = x()
    first, second = func.grad(lambda t: (t[0] * t[1] * t[1]).sum())([one, one])
    same(first, X * X)
    same(second, 2 * X * X)


def test_has_aux_hands_out_anything() -> None:
    gradient, aux = func.grad(lambda a: ((a * a).sum(), {"twice": a * 2, "text": "said", "n": 3}), has_aux=True)(x())
    same(gradient, 2 * X)
    same(aux["twice"], 2 * X)
    assert (aux["text"], aux["n"]) == ("said", 3)


def test_grad_and_value() -> None:
    gradient, value = func.grad_and_value(product)(x(), y())
    same(gradient, Y * Y)
    same(value, (X * Y * Y).sum())
    gradient, (value, aux) = func.grad_and_value(lambda a: ((a * a).sum(), a + 1), has_aux=True)(x())
    same(gradient, 2 * X)
    same(value, (X * X).sum())
    same(aux, X + 1)


def test_keyword_arguments_are_passed_on() -> None:
    same(func.grad(lambda a, *, scale, power=2: (scale * a**power).sum())(x(), scale=y(), power=3), 3 * Y * X**2)
    same(func.jacrev(lambda a, k: a * k)(x(), k=y()), np.diag(Y))
    same(func.jacfwd(lambda a, k: a * k)(x(), k=y()), np.diag(Y))


def test_arrays_are_tensors() -> None:
    same(func.grad(product)(X, y()), Y * Y)
    gradients = func.grad(lambda t: (t["a"] * t["b"]).sum())({"a": X, "b": Y})
    same(gradients["a"], Y)
    same(func.jacrev(lambda a: a * a)(X), np.diag(2 * X))
    same(func.hessian(lambda a: (a**3).sum())(X), np.diag(6 * X))
    same(func.jvp(lambda a: a * a, (X,), (Y,))[1], 2 * X * Y)
    same(func.vjp(lambda a: a * a, X)[1](Y)[0], 2 * X * Y)
    same(func.hvp(lambda a: (a**3).sum(), (X,), (Y,)), 6 * X * Y)
    same(func.vmap(lambda a: a * a)(X), X * X)
    assert np.array_equal(X, [0.3, -0.7, 1.1])  # nobody wrote to what they share


def test_gradients_have_the_type_of_their_arguments() -> None:
    half, whole = func.grad(lambda a, b: (a * b).sum(), (0, 1))(x().float(), y())
    assert half.dtype is fastbp.float32
    assert whole.dtype is fastbp.float64


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_result_of_one_element_will_do(shape: tuple[int, ...]) -> None:
    same(func.grad(lambda a: (a * a).sum().reshape(shape))(x()), 2 * X)


def test_what_an_output_does_not_depend_on_has_zeros() -> None:
    same(func.grad(lambda a, b: (a * a).sum(), 1)(x(), y()), np.zeros(3))
    same(func.grad(lambda a: y().sum())(x()), np.zeros(3))
    same(func.jacrev(lambda a: y())(x()), np.zeros((3, 3)))
    same(func.jacfwd(lambda a: y())(x()), np.zeros((3, 3)))
    same(func.jacfwd(lambda a, b: a * a, 1)(x(), y()), np.zeros((3, 3)))
    same(func.hessian(lambda a: a.sum())(x()), np.zeros((3, 3)))
    same(func.hvp(lambda a: a.sum(), (x(),), (y(),)), np.zeros(3))
    found = func.vjp(lambda a, b: a * 2, x(), y())[1](y())
    same(found[1], np.zeros(3))


# ---- products ------------------------------------------------------------------------------------------------------


def test_vjp_can_be_called_again() -> None:
    runs = []
    output, pull = func.vjp(lambda a, b: (runs.append(1), {"p": a * b, "q": [a.sum()]})[1], x(), y())
    same(output["p"], X * Y)
    for scale in (1.0, 2.0, -3.0):
        by_a, by_b = pull({"p": scale * y(), "q": [real(scale)]})
        same(by_a, scale * (Y * Y + 1))
        same(by_b, scale * X * Y)
    assert runs == [1]


def test_vjp_with_aux() -> None:
    output, pull, aux = func.vjp(lambda a: (a * a, (a * 3, "said")), x(), has_aux=True)
    same(output, X * X)
    same(pull(y())[0], 2 * X * Y)
    same(aux[0], 3 * X)
    assert aux[1] == "said"


def test_jvp() -> None:
    output, tangent = func.jvp(lambda a, b: (a * b, [a.sin()]), (x(), y()), (y(), x()))
    same(output[0], X * Y)
    same(tangent[0], Y * Y + X * X)
    same(tangent[1][0], np.cos(X) * Y)
    output, tangent, aux = func.jvp(lambda a: (a * 2, a * 3), (x(),), (y(),), has_aux=True)
    same(tangent, 2 * Y)
    same(aux, 3 * X)
    tree, push = {"k": [x()]}, {"k": [y()]}
    same(func.jvp(lambda t: t["k"][0] ** 2, (tree,), (push,))[1], 2 * X * Y)


def test_jvp_of_a_constant() -> None:
    output, tangent = func.jvp(lambda a: y() * 2, (x(),), (y(),))
    same(output, 2 * Y)
    same(tangent, np.zeros(3))
    refuses(
        RuntimeError, "does not depend on the primals", lambda: func.jvp(lambda a: y(), (x(),), (y(),), strict=True)
    )
    refuses(RuntimeError, "strict", lambda: func.jvp(lambda a: (a, y()), (x(),), (y(),), strict=True))
    same(func.jvp(lambda a: a * 2, (x(),), (y(),), strict=True)[1], 2 * Y)


def test_linearize_runs_the_function_once() -> None:
    runs = []
    output, push = func.linearize(lambda a, b: (runs.append(1), a * b)[1], x(), y())
    same(output, X * Y)
    for scale in (1.0, -2.0):
        same(push(scale * x(), scale * y()), 2 * scale * X * Y)
    same(push(x(), fastbp.zeros_like(y())), X * Y)
    assert runs == [1]
    same(func.vmap(push)(fastbp.eye(3, dtype=fastbp.float64), fastbp.zeros(3, 3, dtype=fastbp.float64)), np.diag(Y))


def test_messages_name_the_transform_that_was_called() -> None:
    wrong = (fastbp.ones(2),)
    refuses(RuntimeError, "hvp: a tangent of shape (2,)", lambda: func.hvp(lambda a: a.sum(), (x(),), wrong))


def test_hvp() -> None:
    same(func.hvp(lambda a: (a**3).sum(), (x(),), (y(),)), 6 * X * Y)
    by_a, by_b = func.hvp(product, (x(), y()), (y(), x()))  # H = [[0, 2b], [2b, 2a]]
    same(by_a, 2 * Y * X)
    same(by_b, 2 * Y * Y + 2 * X * X)


# ---- Jacobians -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jacobian", [func.jacrev, func.jacfwd])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3, 100])
def test_jacobians_of_trees(jacobian: Any, chunk_size: int | None) -> None:
    def function(a: Any, m: Any) -> Any:
        return {"p": m["w"] @ a, "q": (a.sum(), m["w"].T)}

    w = np.arange(6.0).reshape(2, 3)
    found = jacobian(function, (0, 1), chunk_size=chunk_size)(x(), {"w": fastbp.from_numpy(w)})
    by_a, by_m = found["p"]
    same(by_a, w)
    wanted = np.zeros((2, 2, 3))
    wanted[[0, 1], [0, 1]] = X
    same(by_m["w"], wanted)
    same(found["q"][0][0], np.ones(3))
    same(found["q"][0][1]["w"], np.zeros((2, 3)))
    same(found["q"][1][0], np.zeros((3, 2, 3)))
    same(found["q"][1][1]["w"], np.einsum("ik,jl->ijlk", np.eye(3), np.eye(2)))


@pytest.mark.parametrize("jacobian", [func.jacrev, func.jacfwd])
def test_jacobians_shapes(jacobian: Any) -> None:
    same(jacobian(lambda a: a.sum())(x()), np.ones(3))
    same(jacobian(lambda a: a * y())(real(2.0)), Y)
    same(jacobian(lambda a: a * a)(real(2.0)), 4.0)
    same(jacobian(lambda a: a * 2)(fastbp.zeros(0, dtype=fastbp.float64)), np.zeros((0, 0)))
    same(jacobian(lambda a: a.sum() + y())(fastbp.zeros(0, dtype=fastbp.float64)), np.zeros((3, 0)))
    same(jacobian(lambda a: a[:0])(x()), np.zeros((0, 3)))
    (single,) = jacobian(lambda a: a * a, (0,))(x())
    same(single, np.diag(2 * X))
    matrix, aux = jacobian(lambda a: (a * a, {"k": a * 3}), has_aux=True)(x())
    same(matrix, np.diag(2 * X))
    same(aux["k"], 3 * X)


def test_a_jacobian_runs_the_function_once() -> None:
    for jacobian in (func.jacrev, func.jacfwd):
        runs: list[int] = []
        jacobian(lambda a, runs=runs: (runs.append(1), a * a)[1], chunk_size=1)(x())
        assert runs == [1]


def test_hessian() -> None:
    same(func.hessian(lambda a: (a**3).sum())(x()), np.diag(6 * X))
    (aa, ab), (ba, bb) = func.hessian(product, (0, 1))(x(), y())
    same(aa, np.zeros((3, 3)))
    same(ab, np.diag(2 * Y))
    same(ba, np.diag(2 * Y))
    same(bb, np.diag(2 * X))
    same(func.hessian(lambda a: a * a)(x()), 2 * np.einsum("ij,ik->ijk", np.eye(3), np.eye(3)))
    found = func.hessian(lambda t: (t["a"] * t["b"]).sum())({"a": x(), "b": y()})
    same(found["a"]["b"], np.eye(3))
    same(found["a"]["a"], np.zeros((3, 3)))


# ---- with plain autograd -------------------------------------------------------------------------------------------


def weights() -> fastbp.Tensor:
    return real([1.0, 2.0, 3.0]).requires_grad_()


W = np.array([1.0, 2.0, 3.0])


def test_results_require_grad_where_something_outside_does() -> None:
    w = weights()
    gradient = func.grad(lambda a: (a * w).sum().sin())(x())
    s = (X * W).sum()
    same(gradient, np.cos(s) * W, recorded=True)
    gradient.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), np.cos(s) - np.sin(s) * W.sum() * X, **TOLERANCE)


@pytest.mark.parametrize(
    "derive",
    [
        lambda f, a: func.grad(f)(a),
        lambda f, a: func.grad_and_value(f)(a)[0],
        lambda f, a: func.vjp(f, a)[1](real(1.0))[0],
        lambda f, a: func.jacrev(f)(a),
        lambda f, a: func.jacfwd(f)(a),
        lambda f, a: func.vmap(lambda v: func.jvp(f, (a,), (v,))[1])(fastbp.eye(3, dtype=fastbp.float64)),
        lambda f, a: func.vmap(func.linearize(f, a)[1])(fastbp.eye(3, dtype=fastbp.float64)),
    ],
)
def test_first_derivatives_go_on_to_their_argument(derive: Any) -> None:
    """The derivative of the derivative is 6a on the diagonal, by backward(); and none is kept of plain numbers."""
    a = x().requires_grad_()
    gradient = derive(lambda v: (v**3).sum(), a)
    same(gradient, 3 * X * X, recorded=True)
    gradient.sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), 6 * X, **TOLERANCE)
    same(derive(lambda v: (v**3).sum(), x()), 3 * X * X)
    with fastbp.no_grad():
        same(derive(lambda v: (v**3).sum(), a), 3 * X * X)


def test_values_and_aux_go_on_too() -> None:
    w = weights()
    _, (value, aux) = func.grad_and_value(lambda a: ((a * w).sum(), a * 2 * w), has_aux=True)(x())
    assert value.requires_grad
    assert aux.requires_grad
    (value + aux.sum()).backward()
    np.testing.assert_allclose(w.grad.numpy(), 3 * X, **TOLERANCE)
    output, _ = func.vjp(lambda a: a * w, x())
    assert output.requires_grad
    output, _ = func.vjp(lambda a: a * w.detach(), x())
    assert not output.requires_grad


def test_cotangents_and_tangents_that_require_grad() -> None:
    given = y().requires_grad_()
    for found in (func.vjp(lambda a: a**3, x())[1](given)[0], func.jvp(lambda a: a**3, (x(),), (given,))[1]):
        same(found, 3 * X * X * Y, recorded=True)
        (by_given,) = fastbp.autograd.grad(found.sum(), given)
        np.testing.assert_allclose(by_given.numpy(), 3 * X * X, **TOLERANCE)


def test_batched_cotangents_and_tangents_that_require_grad() -> None:
    given = fastbp.eye(3, dtype=fastbp.float64).requires_grad_()
    _, pull = func.vjp(lambda a: a**3, x())
    _, push = func.linearize(lambda a: a**3, x())
    for found in (func.vmap(pull)(given)[0], func.vmap(push)(given)):
        same(found, np.diag(3 * X * X), recorded=True)
        (by_given,) = fastbp.autograd.grad(found.sum(), given)
        np.testing.assert_allclose(by_given.numpy(), np.tile(3 * X * X, (3, 1)), **TOLERANCE)


def test_points_of_runs_that_are_over_do_not_count() -> None:
    """The tangent inside depends on the inner point; outside that is nothing to differentiate by."""
    same(func.grad(lambda v: func.jvp(lambda b: b**3, (x(),), (v,))[1].sum())(y()), 3 * X * X)
    same(func.grad(lambda v: func.vjp(lambda b: b**3, x())[1](v)[0].sum())(y()), 3 * X * X)
    tangent = func.jvp(lambda v: func.jvp(lambda b: b**3, (x(),), (v,))[1], (y(),), (x(),))[1]
    same(tangent, 3 * X**3)
    same(func.jacrev(lambda v: func.jvp(lambda b: b**3, (x(),), (v,))[1])(y()), np.diag(3 * X * X))


def test_no_grad_outside() -> None:
    w = weights()
    with fastbp.no_grad():
        same(func.grad(lambda a: (a * w).sum().sin())(x()), np.cos((X * W).sum()) * W)
        same(func.jacfwd(lambda a: a * w)(x()), np.diag(W))
        same(func.hessian(lambda a: (a**3 * w).sum())(x()), np.diag(6 * X * W))
        assert not fastbp.is_grad_enabled()


def square_unrecorded(a: fastbp.Tensor) -> fastbp.Tensor:
    with fastbp.no_grad():
        return a * a


def test_no_grad_and_detach_inside() -> None:
    same(func.grad(lambda a: (a * square_unrecorded(a)).sum())(x()), X * X)
    same(func.grad(lambda a: (a * a.detach()).sum())(x()), X)
    same(func.jvp(lambda a: a * a.detach(), (x(),), (y(),))[1], X * Y)
    same(func.jacfwd(lambda a: a * square_unrecorded(a))(x()), np.diag(X * X))  # both modes agree on what is constant

    def outer(a: fastbp.Tensor) -> fastbp.Tensor:
        with fastbp.no_grad():
            slope = func.grad(lambda b: b**3)(a)
        return a * slope

    same(func.grad(outer)(real(2.0)), 12.0)


def test_nothing_outside_is_touched() -> None:
    w, a = weights(), x().requires_grad_()
    version = a._version
    before = (fastbp.is_grad_enabled(), fastbp._core.vmap_depth())
    for transform in (func.grad, func.jacrev, func.jacfwd, func.hessian, func.grad_and_value):
        transform(lambda v: (v**3 * w).sum())(a)
    func.hvp(lambda v: (v**3 * w).sum(), (a,), (y(),))
    assert (w.grad, a.grad, a._version) == (None, None, version)
    assert a.is_leaf
    for transform in (func.grad, func.jacrev, func.jacfwd, func.hessian, func.vmap):
        with pytest.raises(ZeroDivisionError):
            transform(lambda v: 1 // 0)(a)
    assert (fastbp.is_grad_enabled(), fastbp._core.vmap_depth()) == before


def test_hooks_run() -> None:
    seen: list[Any] = []

    def hooked(v: fastbp.Tensor) -> fastbp.Tensor:
        square = v * v
        square.register_hook(lambda g: (seen.append(g.numpy().copy()), g * 2)[1])
        return (square * y()).sum()

    same(func.grad(hooked)(x()), 4 * X * Y)
    np.testing.assert_allclose(seen[0], Y, **TOLERANCE)


def test_autograd_inside() -> None:
    def slope(v: fastbp.Tensor) -> fastbp.Tensor:
        (first,) = fastbp.autograd.grad((v**3).sum(), v, create_graph=True)
        return first.sum()

    same(func.grad(slope)(x()), 6 * X)
    same(func.vmap(func.grad(slope))(fastbp.stack([x(), y()])), 6 * np.stack([X, Y]))


def test_in_place_inside() -> None:
    same(func.grad(lambda a: ((a * 1).mul_(a)).sum())(x()), 2 * X)
    same(func.jvp(lambda a: fastbp.zeros(3, dtype=fastbp.float64).add_(a).mul_(2), (x(),), (y(),))[1], 2 * Y)

    def written(a: fastbp.Tensor) -> fastbp.Tensor:
        b = a * 1
        b[0] = b[1] * 2
        return (b * b).sum()

    same(func.grad(written)(x()), [0, 10 * X[1], 2 * X[2]])
    refuses(RuntimeError, "mul_: a leaf Variable", lambda: func.grad(lambda a: a.mul_(2).sum())(x()))


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_grad_refuses_other_outputs() -> None:
    refuses(
        RuntimeError,
        "grad: expected the function to return one floating point tensor of one element, got (3,)",
        lambda: func.grad(lambda a: a * a)(x()),
    )
    refuses(RuntimeError, "one element, got () fastbp.float64, (3,)", lambda: func.grad(lambda a: (a.sum(), a))(x()))
    refuses(RuntimeError, "one element, got () fastbp.int64", lambda: func.grad(lambda a: a.argmax())(x()))
    for transform in (func.grad, func.jacrev, func.jacfwd):
        refuses(
            RuntimeError,
            "the function's output: expected Tensors in lists, tuples and dicts, got float",
            lambda transform=transform: transform(lambda a: 3.0)(x()),
        )
    refuses(
        RuntimeError,
        "(output, aux) if has_aux is True, got Tensor",
        lambda: func.grad(lambda a: a.sum(), has_aux=True)(x()),
    )
    refuses(RuntimeError, "at least one Tensor", lambda: func.vjp(lambda a: (), x()))


def test_arguments_that_cannot_be_differentiated() -> None:
    whole = fastbp.arange(3)
    for name in ("grad", "grad_and_value", "jacrev", "jacfwd"):
        refuses(
            RuntimeError,
            f"{name}: argument 0: only Tensors of floating point dtype can be differentiated, got fastbp.int64",
            lambda name=name: getattr(func, name)(lambda a: a.sum())(whole),
        )
    refuses(RuntimeError, "floating point", lambda: func.jvp(lambda a: a * 2, (whole,), (whole,)))
    for name in ("grad", "jacrev"):  # the types are PyTorch's
        refuses(
            ValueError,
            f"{name}: argument 0: expected Tensors in lists, tuples and dicts, got float",
            lambda name=name: getattr(func, name)(lambda a: a * a)(3.0),
        )
    refuses(RuntimeError, "got float", lambda: func.jvp(lambda a: a * a, (3.0,), (1.0,)))
    refuses(ValueError, "got str", lambda: func.grad(lambda a: a["k"].sum())({"k": x(), "m": "text"}))


@pytest.mark.parametrize(
    ("argnums", "words"),
    [
        (1, "got argnum=1, but only 1 positional inputs"),
        (-2, "got argnum=-2, but only 1 positional inputs"),
        ((0, 1), "got argnum=1"),
        ("0", "argnums must be an int or a non-empty tuple of ints, got '0'"),
        ((), "non-empty"),
        (True, "got True"),
        ((0, -1), "argnums elements must be unique, got (0, -1)"),
        ([0], "got [0]"),
    ],
)
def test_argnums_that_do_not_fit(argnums: Any, words: str) -> None:
    for transform in (func.grad, func.jacrev, func.jacfwd):
        refuses(RuntimeError, words, lambda transform=transform: transform(lambda a: a.sum(), argnums)(x()))


def test_cotangents_that_do_not_fit() -> None:
    _, pull = func.vjp(lambda a: {"k": a * 2}, x())
    refuses(
        RuntimeError,
        "vjp: a cotangent of shape (2,), fastbp.float64 for an output of shape (3,)",
        lambda: pull({"k": y()[:2]}),
    )
    refuses(RuntimeError, "vjp: a cotangent of shape (3,), fastbp.float32", lambda: pull({"k": y().float()}))
    refuses(RuntimeError, "vjp: cotangents of structure [*] for an output of structure {'k': *}", lambda: pull([y()]))
    refuses(RuntimeError, "the cotangents: expected Tensors", lambda: pull({"k": 1.0}))
    same(pull({"k": y()})[0], 2 * Y)  # and the next call works


def test_tangents_that_do_not_fit() -> None:
    def double(a: Any) -> Any:
        return a * 2

    refuses(
        RuntimeError,
        "jvp: a tangent of shape (2,), fastbp.float64 for a primal of shape (3,)",
        lambda: func.jvp(double, (x(),), (y()[:2],)),
    )
    refuses(
        RuntimeError, "jvp: a tangent of shape (3,), fastbp.float32", lambda: func.jvp(double, (x(),), (y().float(),))
    )
    refuses(
        RuntimeError,
        "jvp: tangent 0 has structure (*,), its primal [*]",
        lambda: func.jvp(lambda a: a[0] * 2, ([x()],), ((y(),),)),
    )
    refuses(
        RuntimeError,
        "jvp: expected a tuple of 1 tangents, one a primal, got 2",
        lambda: func.jvp(double, (x(),), (y(), y())),
    )
    refuses(
        RuntimeError, "jvp: expected primals to be a non-empty tuple, got Tensor", lambda: func.jvp(double, x(), y())
    )  # type: ignore[arg-type]
    refuses(RuntimeError, "linearize: a tangent of shape ()", lambda: func.linearize(double, x())[1](real(1.0)))
    refuses(RuntimeError, "linearize: expected a tuple of 1 tangents", lambda: func.linearize(double, x())[1]())


def test_chunks_that_do_not_fit() -> None:
    for transform in (func.jacrev, func.jacfwd):
        for size in (0, -1, 1.5, True):
            refuses(
                ValueError,
                "`chunk_size` should be greater than 0",
                lambda transform=transform, size=size: transform(lambda a: a, chunk_size=size)(x()),
            )


def test_dicts_are_paired_by_key_whatever_their_order() -> None:
    def product(p: Any) -> fastbp.Tensor:
        return p["a"] * p["b"][0]

    point, ordered, swapped = {"a": x(), "b": (y(),)}, {"a": y(), "b": (x(),)}, {"b": (x(),), "a": y()}
    tangent = Y * Y + X * X
    for direction in (ordered, swapped, OrderedDict(swapped)):
        same(func.jvp(product, (point,), (direction,))[1], tangent)
        same(func.linearize(product, point)[1](direction), tangent)
        same(func.hvp(lambda p: product(p).sum(), (point,), (direction,))["a"], X)
    _, pull = func.vjp(lambda a: [{"one": a * 2, "other": a * 3}], x())
    same(pull([{"other": x(), "one": y()}])[0], 2 * Y + 3 * X)
    runs = iter(range(3))

    def in_changing_order(a: fastbp.Tensor) -> dict[str, fastbp.Tensor]:
        items = [("a", a), ("b", 2 * a)]
        return dict(items if next(runs) % 2 else items[::-1])

    joined = func.vmap(in_changing_order, chunk_size=1)(x())
    same(joined["a"], X)
    same(joined["b"], 2 * X)


def test_numpy_integers_are_directions() -> None:
    """scipy.sparse.linalg.LinearOperator multiplies with a vector of int8 to learn its dtype."""
    for dtype in (np.int8, np.int64, np.bool_):
        ones = np.ones(3, dtype=dtype)
        same(func.jvp(lambda a: a**2, (X,), (ones,))[1], 2 * X)
        same(func.vjp(lambda a: a**2, X)[1](ones)[0], 2 * X)
        same(func.hvp(lambda a: (a**3).sum(), (X,), (ones,)), 6 * X)
    refuses(
        RuntimeError,
        "jvp: a tangent of shape (3,), fastbp.int64",
        lambda: func.jvp(lambda a: a, (X,), (fastbp.ones(3, dtype=fastbp.int64),)),
    )
