"""autograd.Function: the contract of its methods and its context, in both modes, eager and compiled; bad input."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import Tensor, autograd
from fastbp._core import forward_gradient, keep_values
from fastbp.autograd import Function
from fastbp.autograd.function import once_differentiable


def leaf(*values: float) -> Tensor:
    return fastbp.tensor(list(values), dtype=fastbp.float64, requires_grad=True)


class Exp(Function):
    """One output, which is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return g * y

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return t * y


class Mixed(Function):
    """Several outputs, of which some have no derivative; saves inputs and outputs; takes a number."""

    @staticmethod
    def forward(x: Tensor, power: int, z: Tensor) -> Any:
        return x**power, (x * z).sum(), 7, x > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.power, z = inputs
        ctx.save_for_backward(x, z, output[0])
        ctx.save_for_forward(x, z, output[0])

    @staticmethod
    def backward(ctx: Any, ga: Tensor, gb: Tensor, *rest: Any) -> Any:
        x, z, a = ctx.saved_tensors
        return ga * ctx.power * a / x + gb * z, None, gb * x

    @staticmethod
    def jvp(ctx: Any, tx: Tensor, power: None, tz: Tensor) -> Any:
        x, z, a = ctx.saved_tensors
        return tx * ctx.power * a / x, (tx * z + x * tz).sum(), None, None


def mixed(x: Tensor, z: Tensor) -> Tensor:
    a, b, _, _ = Mixed.apply(x, 3, z)
    return a * b


def mixed_by_ops(x: Tensor, z: Tensor) -> Tensor:
    return x**3 * (x * z).sum()


X, Z = (0.3, 0.7), (2.0, -3.0)


# ---- values and gradients ----


@pytest.mark.parametrize(
    ("function", "points"),
    [(Exp.apply, (X,)), (mixed, (X, Z)), (lambda x: Exp.apply(Exp.apply(x) * x), (X,))],
    ids=["one output", "several outputs", "nested"],
)
def test_derivatives_in_both_modes_to_second_order(function: Any, points: Any) -> None:
    inputs = [fastbp.tensor(list(p), dtype=fastbp.float64) for p in points]
    fastbp.testing.check_grads(function, *inputs, order=2)


def test_outputs_keep_their_kinds_and_share_a_function() -> None:
    a, b, number, mask = Mixed.apply(leaf(*X), 3, leaf(*Z))
    assert number == 7 and mask.dtype == fastbp.bool and not mask.requires_grad and mask.grad_fn is None
    assert a.grad_fn == b.grad_fn and a.grad_fn.name() == "MixedBackward"
    assert [f.name() for f, _ in a.grad_fn.next_functions] == ["AccumulateGrad"] * 2
    assert [n for _, n in (a + b).grad_fn.next_functions] == [0, 1]


@pytest.mark.parametrize("used", [(True, False), (False, True), (True, True)])
def test_outputs_that_are_not_used_have_zero_gradients(used: tuple[bool, bool]) -> None:
    x, z = leaf(*X), leaf(*Z)
    outputs = Mixed.apply(x, 3, z)[:2]
    by_ops = (x**3, (x * z).sum())
    chosen = [sum(y.sum() for y, u in zip(ys, used, strict=True) if u) for ys in (outputs, by_ops)]
    found, expected = (autograd.grad(y, (x, z), materialize_grads=True) for y in chosen)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f.numpy(), e.numpy(), rtol=1e-14)  # a few roundings apart


@pytest.mark.parametrize("materialize", [True, False])
def test_missing_gradients_are_zeros_or_none(materialize: bool) -> None:
    seen: list[Any] = []

    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            ctx.set_materialize_grads(materialize)
            return x * 2, x.to(fastbp.float32)

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            seen.extend(g)
            return g[0] * 2

        @staticmethod
        def jvp(ctx: Any, t: Any) -> Any:
            return t * 2, None

    x = leaf(1, 2)
    Two.apply(x)[0].sum().backward()
    assert x.grad.tolist() == [2, 2] and seen[0].tolist() == [1, 1]
    if materialize:
        assert seen[1].tolist() == [0, 0] and seen[1].dtype == fastbp.float32
    else:
        assert seen[1] is None


def test_the_same_graph_can_be_walked_again_with_retain_graph_only() -> None:
    for call in (lambda x: Exp.apply(x).sum(), lambda x: Mixed.apply(x, 3, x)[1]):
        x = leaf(*X)
        y = call(x)
        first = autograd.grad(y, x, retain_graph=True)[0]
        assert autograd.grad(y, x)[0].tolist() == first.tolist()
        with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
            autograd.grad(y, x)


def test_a_gradient_that_was_broadcast_is_summed_and_cast() -> None:
    class Wide(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return fastbp.ones(4, 2, dtype=fastbp.float32)

    x = leaf(1, 2)
    Wide.apply(x).sum().backward()
    assert x.grad.tolist() == [4, 4] and x.grad.dtype == fastbp.float64


def test_needs_input_grad_and_attributes() -> None:
    class Scale(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, k: float, z: Tensor) -> Tensor:
            ctx.k = k
            assert ctx.needs_input_grad == (True, False, False)
            return x * k + z

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            assert ctx.needs_input_grad == (True, False, False)
            return g * ctx.k, None, None

    x = leaf(1)
    Scale.apply(x, 5.0, leaf(1).detach()).backward()
    assert x.grad.tolist() == [5]


def test_keyword_arguments_and_defaults_take_their_positions() -> None:
    class Power(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, power: int = 2) -> Tensor:
            ctx.save_for_backward(x)
            ctx.power = power
            return x**power

        @staticmethod
        def backward(ctx: Any, g: Tensor, *rest: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * ctx.power * x ** (ctx.power - 1), None

    x = leaf(2)
    Power.apply(x, power=3).backward()
    assert x.grad.tolist() == [12]


def test_vjp_is_backward() -> None:
    class Twice(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def vjp(ctx: Any, g: Tensor) -> Tensor:
            return g * 2

    x = leaf(1)
    Twice.apply(x).backward()
    assert x.grad.tolist() == [2]

    class Both(Twice):
        backward = Twice.vjp

    with pytest.raises(RuntimeError, match="Implementing both 'backward' and 'vjp'"):
        Both.apply(x).backward()


def test_without_recording_nothing_is_recorded() -> None:
    x = leaf(*X)
    with fastbp.no_grad():
        assert not Exp.apply(x).requires_grad
    assert not Exp.apply(x.detach()).requires_grad


def test_forward_is_not_recorded_and_gradients_flow_to_all_uses() -> None:
    x = leaf(*X)
    y = Exp.apply(x * 2)
    (g,) = autograd.grad((y + x).sum(), x)
    np.testing.assert_allclose(g.numpy(), 2 * np.exp(2 * np.array(X)) + 1, rtol=1e-15)


def test_hooks_and_retained_gradients_of_outputs() -> None:
    x, z = leaf(*X), leaf(*Z)
    a, b = Mixed.apply(x, 1, z)[:2]
    b.retain_grad()
    a.register_hook(lambda g: g * 10)
    (a.sum() + 3 * b).backward()
    assert b.grad.item() == 3
    np.testing.assert_allclose(x.grad.numpy(), 10 + 3 * np.array(Z), rtol=1e-15)


def test_gradients_of_outputs_themselves() -> None:
    x = leaf(*X)
    a, b = Mixed.apply(x, 2, x)[:2]
    ga, gb = autograd.grad((a * b).sum(), (a, b))
    assert ga.tolist() == [b.item()] * 2 and gb.item() == a.sum().item()


# ---- what is shared, changed in place, kept ----


def test_an_input_returned_as_it_is_becomes_another_tensor() -> None:
    class Reverse(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return -g

    x = leaf(1, 2)
    y = Reverse.apply(x)
    assert y is not x and x.grad_fn is None and y.data_ptr() == x.data_ptr()
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        y.mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [-1, -1]


class Double(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.mul_(2)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 2


def test_an_input_changed_in_place_takes_the_history() -> None:
    x = leaf(1, 2)
    y = x * 1
    assert Double.apply(y) is y and y.grad_fn.name() == "DoubleBackward"
    (g,) = autograd.grad((y * y).sum(), x)
    assert g.tolist() == [8, 16]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        Double.apply(x)


def test_a_view_changed_in_place_gives_its_base_the_history() -> None:
    x = leaf(1, 2, 3)
    y = x * 1
    Double.apply(y[:2])
    (g,) = autograd.grad((y * y).sum(), x)
    assert y.tolist() == [2, 4, 3] and g.tolist() == [8, 16, 6]


def test_a_dirty_input_that_is_saved_is_the_output() -> None:
    class ExpInPlace(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            x.exp_()
            ctx.save_for_backward(x)
            return x

        backward = Exp.backward

    fastbp.testing.check_grads(
        lambda x: ExpInPlace.apply(x * 1), fastbp.tensor(list(X), dtype=fastbp.float64), modes=("rev",)
    )


@pytest.mark.parametrize("which", ["input", "output", "one of several outputs"])
def test_a_saved_tensor_that_was_changed_is_noticed(which: str) -> None:
    x = leaf(*X)
    h = x * 1
    if which == "input":
        y = Mixed.apply(h, 3, x)[0]
        h.mul_(2)
    elif which == "output":
        y = Exp.apply(h)
        with fastbp.no_grad():
            y.mul_(2)
    else:
        y = Mixed.apply(h, 3, x)[0]
        with fastbp.no_grad():
            y.mul_(2)
    message = r"modified by an inplace operation: float64 \(2,\), saved by \w+.*version 1; expected version 0"
    with pytest.raises(RuntimeError, match=message):
        y.sum().backward()


@pytest.mark.parametrize("call", [Exp.apply, lambda x: Mixed.apply(x, 3, x)[0]], ids=["one", "several"])
def test_saved_outputs_make_no_cycle(call: Any) -> None:
    x = leaf(*X)
    y = call(x)
    gone = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert gone() is None
    finally:
        gc.enable()


def test_saved_values_are_freed_by_backward() -> None:
    kept: list[Any] = []

    class Keeps(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            ctx.save_for_backward(fastbp.ones(1000), x)
            kept.append(ctx)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            return a * 2 + b * 3

    x = leaf(1)
    a, b = Keeps.apply(x)
    assert len(kept[0].saved_tensors) == 2
    before = fastbp._core.memory_statistics()["live_bytes"]
    a.sum().backward()
    assert before - fastbp._core.memory_statistics()["live_bytes"] > 3000, "b still holds what was saved"
    with pytest.raises(RuntimeError, match="second time"):
        kept[0].saved_tensors  # noqa: B018
    with pytest.raises(RuntimeError, match="second time"):
        b.sum().backward()


def pushed(x: Tensor, z: Tensor) -> None:
    with keep_values():
        outputs = Mixed.apply(x, 3, z)[:1]
    forward_gradient(outputs, [x, z], [fastbp.ones_like(x), fastbp.ones_like(z)])


def failed(x: Tensor, z: Tensor) -> None:
    def backward(ctx: Any, a: Tensor, b: Tensor) -> Any:
        raise KeyError("planted")

    a, b = function_with(forward=lambda ctx, x: (x * 1, x * 2), backward=backward).apply(x)
    with pytest.raises(KeyError):
        (a + b).sum().backward()


COMPILED = fastbp.compile(lambda x, z: (x.sin() * z, (x * z).sum()))
ENDINGS: dict[str, Any] = {
    "backward": lambda x, z: mixed(x, z).sum().backward(),
    "graph of the sweep": lambda x, z: autograd.grad(mixed(x, z).sum(), (x, z), create_graph=True),
    "no sweep": mixed,
    "forward mode": pushed,
    "failure": failed,
    "compiled": lambda x, z: sum(COMPILED(x, z)).sum().backward(),  # type: ignore[arg-type]
    "graph of a compiled sweep": lambda x, z: autograd.grad(sum(COMPILED(x, z)).sum(), (x, z), create_graph=True),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_nothing_is_left_behind(how: str) -> None:
    def blocks_after(calls: int) -> int:
        for _ in range(calls):
            ENDINGS[how](leaf(*X), leaf(*Z))
        gc.collect()
        return fastbp._core.memory_statistics()["live_blocks"]

    before = blocks_after(3)
    assert blocks_after(20) - before < 20  # less than a block a call


def test_marked_outputs_have_no_derivative() -> None:
    class Parts(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            a, b = x * 2, x * 3
            ctx.mark_non_differentiable(b)
            return a, b

        @staticmethod
        def backward(ctx: Any, ga: Tensor, gb: Tensor) -> Tensor:
            assert gb.tolist() == [0, 0]
            return ga * 2

    x = leaf(1, 2)
    a, b = Parts.apply(x)
    assert a.requires_grad and not b.requires_grad
    (a * b).sum().backward()
    assert x.grad.tolist() == [6, 12]


def test_two_outputs_that_are_one_tensor() -> None:
    class Same(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Any:
            y = x * 2
            return y, y

        @staticmethod
        def backward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            return 2 * a + 20 * b

    x = leaf(1)
    a, b = Same.apply(x)
    (a + b).backward()
    assert x.grad.tolist() == [22]


# ---- higher derivatives ----


def test_once_differentiable_refuses_the_second_derivative_only() -> None:
    class Cube(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return fastbp.from_numpy(3 * x.detach().numpy() ** 2) * g

    x = leaf(2)
    (g,) = autograd.grad(Cube.apply(x), x)
    assert g.tolist() == [12] and not g.requires_grad
    w = leaf(1)
    (g,) = autograd.grad(Cube.apply(x) * w, x, create_graph=True)
    assert g.tolist() == [12]
    with pytest.raises(RuntimeError, match="trying to differentiate twice a function that was marked"):
        g.backward()


# ---- compiled ----


def test_inside_compiled_functions() -> None:
    points = [fastbp.tensor(list(p), dtype=fastbp.float64) for p in (X, Z)]
    fastbp.testing.check_grads(fastbp.compile(mixed), *points, order=2)

    @fastbp.compile
    def sweep(x: Tensor, z: Tensor) -> Any:
        return autograd.grad(mixed(x, z).sum(), (x, z))

    x, z = leaf(*X), leaf(*Z)
    for found, expected in zip(sweep(x, z), autograd.grad(mixed_by_ops(x, z).sum(), (x, z)), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), expected.numpy(), rtol=1e-14)


def test_compiled_functions_with_several_results_of_several_dtypes() -> None:
    call = fastbp.compile(lambda x, z: (x.sin(), (x * z).sum(), z.to(fastbp.float32) * 2))
    x, z = leaf(*X), leaf(*Z)
    for used in (0, 1, 2):
        eager = (x.sin(), (x * z).sum(), z.to(fastbp.float32) * 2)[used]
        found = autograd.grad(call(x, z)[used].sum(), (x, z), allow_unused=True)
        expected = autograd.grad(eager.sum(), (x, z), allow_unused=True)
        for f, e in zip(found, expected, strict=True):
            assert f is e is None or f.tolist() == e.tolist()


def test_a_compiled_function_of_dependent_arguments_is_differentiated_by_each_alone() -> None:
    call = fastbp.compile(lambda h, w: (h * h * w).sum())
    w = leaf(*X)
    (found,) = autograd.grad(call(w * 2, w), w, create_graph=True)
    np.testing.assert_allclose(found.detach().numpy(), 12 * np.array(X) ** 2, rtol=1e-14)  # of 4 w**3


# ---- passes inside of passes ----


def test_a_pass_inside_of_a_hook_leaves_the_marks_of_the_outer_one() -> None:
    x = leaf(2)
    h = x * 3
    y = h * h
    z = x * x
    other = z * h.detach()

    def hook(g: Tensor) -> None:
        assert autograd.grad(other, x, retain_graph=True)[0].tolist() == [24]
        assert autograd.grad(y, x, retain_graph=True)[0].tolist() == [36]

    y2 = y * z
    y2.register_hook(hook)
    (g,) = autograd.grad(y2, x, retain_graph=True)
    assert g.tolist() == [9 * 4 * 8]


def test_a_requested_input_keeps_what_it_saved() -> None:
    x = leaf(2)
    h = x * x
    assert autograd.grad(h * h, h)[0].tolist() == [8]
    assert autograd.grad(h, x)[0].tolist() == [4]


# ---- bad input ----


class Returns(Function):
    """backward returns what it is told."""

    answer: Any = None

    @staticmethod
    def forward(ctx: Any, x: Tensor, k: float) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return Returns.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda: fastbp.ones(3), r"function ReturnsBackward returned an incorrect number .* \(expected 2, got 1\)"),
        (lambda: (fastbp.ones(3),) * 3, r"incorrect number of gradients \(expected 2, got 3\)"),
        (lambda: [fastbp.ones(3), None], r"incorrect number of gradients \(expected 2, got 1\)"),
        (
            lambda: (fastbp.ones(2), None),
            r"Function ReturnsBackward returned an invalid gradient at index 0 - got \[2\] but expected .* \[3\]",
        ),
        (lambda: (fastbp.ones(()), None), r"invalid gradient at index 0 - got \[\]"),
        (lambda: (fastbp.ones(3), fastbp.ones(3)), "returned a gradient different than None at position 2"),
        (lambda: (3.0, None), r"expected Variable or None \(got float\)"),
    ],
)
def test_wrong_gradients_are_refused(answer: Any, message: str) -> None:
    Returns.answer = answer()
    with pytest.raises(RuntimeError, match=message):
        Returns.apply(leaf(1, 2, 3), 5.0).sum().backward()


def test_more_gradients_are_fine_where_they_are_none() -> None:
    Returns.answer = (fastbp.ones(3), None, None, None)
    x = leaf(1, 2, 3)
    Returns.apply(x, 5.0).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def function_with(**methods: Any) -> Any:
    base: dict[str, Any] = {"forward": lambda ctx, x: x * 2, "backward": lambda ctx, g: g * 2}
    return type("Planted", (Function,), {name: staticmethod(f) for name, f in (base | methods).items()})


@pytest.mark.parametrize(
    ("forward", "error", "message"),
    [
        (lambda ctx, x: 5.0, TypeError, r"Planted.forward: expected Tensor or tuple of Tensor \(got float\)"),
        (lambda ctx, x: [x * 2], TypeError, r"\(got list\)"),
        (lambda ctx, x: (), TypeError, "empty tuple"),
        (lambda ctx, x: ctx.save_for_backward(3), TypeError, "can only save variables, but argument 0 is of type int"),
        (lambda ctx, x: ctx.mark_dirty("x"), TypeError, "can only mark variables, but argument 0 is of type str"),
        (lambda ctx, x: (ctx.mark_dirty(x), x * 2)[1], RuntimeError, "Some elements marked as dirty"),
    ],
)
def test_wrong_forwards_are_refused(forward: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        function_with(forward=forward).apply(leaf(1))


def test_methods_that_are_missing() -> None:
    class Bare(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

    x = leaf(1)
    with pytest.raises(NotImplementedError, match="either the backward or vjp method"):
        Bare.apply(x).backward()
    with keep_values():
        y = Bare.apply(x)
    with pytest.raises(NotImplementedError, match="You must implement the jvp function"):
        forward_gradient([y], [x], [fastbp.ones(1, dtype=fastbp.float64)])
    with pytest.raises(RuntimeError, match="should not be instantiated"):
        Bare()
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        Mixed.apply()


@pytest.mark.parametrize(
    ("jvp", "error", "message"),
    [
        (lambda ctx, t: (t, t), RuntimeError, r"incorrect number of tangents \(expected 1, got 2\)"),
        (lambda ctx, t: fastbp.ones(2), RuntimeError, r"invalid tangent at index 0 - got \[2\] but expected .* \[1\]"),
        (lambda ctx, t: 1.0, TypeError, r"expected Tensor or None \(got float\)"),
    ],
)
def test_wrong_tangents_are_refused(jvp: Any, error: type[Exception], message: str) -> None:
    x = leaf(1)
    with keep_values():
        y = function_with(jvp=jvp).apply(x)
    with pytest.raises(error, match=message):
        forward_gradient([y], [x], [fastbp.ones(1, dtype=fastbp.float64)])


def test_a_failing_backward_leaves_no_scratch_behind() -> None:
    fails = [True]

    def backward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        if fails[0]:
            raise KeyError("planted")
        return a + b

    x = leaf(1)
    a, b = function_with(forward=lambda ctx, x: (x * 1, x * 1), backward=backward).apply(x)
    with pytest.raises(KeyError, match="planted"):
        (a + 2 * b).sum().backward(retain_graph=True)
    fails[0] = False
    (a + 2 * b).sum().backward()
    assert x.grad.tolist() == [3], "cotangents of the failed pass were counted"


class _SineByItsGradient(autograd.Function):
    """Forward mode by a reverse sweep over the very tensor that the tangent belongs to."""

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, t):
        (x,) = ctx.saved_tensors
        with fastbp.enable_grad():
            (slope,) = autograd.grad(x.sin().sum(), x)
        return t * slope


def test_a_sweep_within_jvp_leaves_the_tangents_alone():
    x, t = fastbp.tensor([2.0], dtype=fastbp.float64), fastbp.tensor([3.0], dtype=fastbp.float64)
    y, tangent = fastbp.func.jvp(lambda x: _SineByItsGradient.apply(x) * x, (x,), (t,))
    assert y.item() == pytest.approx(2 * math.sin(2), rel=1e-14)  # two roundings
    assert tangent.item() == pytest.approx(3 * (math.sin(2) + 2 * math.cos(2)), rel=1e-13)  # a handful of roundings
