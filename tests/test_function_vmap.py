"""autograd.Function inside of vmap, and autograd.grad for a batch of cotangents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

import fastbp
from fastbp import func
from fastbp.autograd import Function, grad, gradcheck

Tensor = fastbp.Tensor


def examples(*shape: int, seed: int = 0) -> Tensor:
    return fastbp.from_numpy(np.random.default_rng(seed).standard_normal(shape))


class Cube(Function):
    """x**3 with a derivative that is twice too large, so that it shows whose rule is at work."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.factor = 2

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return ctx.factor * 3 * x**2 * g

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return ctx.factor * 3 * x**2 * t


class Scaled(Function):
    """(a * x, a) summed over x's last axis, and an integer that is no tensor; by a rule of the user's for batches."""

    calls: ClassVar[list[Any]] = []

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor, power: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(a, x)
        ctx.power = power
        return (a**power * x).sum(-1), a * 2

    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> tuple[Any, ...]:
        a, x = ctx.saved_tensors
        n = ctx.power
        return g * (n * a ** (n - 1) * x).sum(-1) + 2 * h, g.unsqueeze(-1) * a**n * fastbp.ones_like(x), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], a: Tensor, x: Tensor, power: int) -> Any:
        Scaled.calls.append((info.batch_size, info.randomness, in_dims))
        a = a if in_dims[0] is None else a.movedim(in_dims[0], 0).unsqueeze(-1)
        x = x if in_dims[1] is None else x.movedim(in_dims[1], 0)
        doubled = a * 2 if in_dims[0] is None else (a * 2).squeeze(-1)
        return ((a**power * x).sum(-1), doubled), (0, None if in_dims[0] is None else 0)


class Plain(Function):
    """Without anything for vmap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * ctx.saved_tensors[0].cos()


# ---- vmap -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [Cube, Plain])
def test_values(function: Any) -> None:
    x = examples(4, 3)
    expected = np.stack([function.apply(row).numpy() for row in x])
    np.testing.assert_allclose(func.vmap(function.apply)(x).numpy(), expected, rtol=1e-15)
    np.testing.assert_allclose(func.vmap(function.apply, 1, 1)(x).numpy(), expected, rtol=1e-15)


def test_the_derivative_inside_is_the_functions_own() -> None:
    x = examples(4, 3)
    found = func.vmap(func.grad(lambda row: Cube.apply(row).sum()))(x)
    np.testing.assert_allclose(found.numpy(), 6 * x.numpy() ** 2, rtol=1e-15)
    plain = func.vmap(func.grad(lambda row: Plain.apply(row).sum()))(x)
    np.testing.assert_allclose(plain.numpy(), np.cos(x.numpy()), rtol=1e-15)


def test_the_derivative_around_is_the_functions_own() -> None:
    x = examples(4, 3)
    found = func.grad(lambda x: func.vmap(Cube.apply)(x).sum())(x)
    np.testing.assert_allclose(found.numpy(), 6 * x.numpy() ** 2, rtol=1e-15)
    leaf = x.clone().requires_grad_()
    func.vmap(Cube.apply)(leaf).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), 6 * x.numpy() ** 2, rtol=1e-15)


def test_a_shared_argument_sums_its_gradients() -> None:
    x, shared = examples(4, 3), examples(3, seed=1)
    found = func.grad(lambda s: func.vmap(lambda row: (Cube.apply(s) * row).sum())(x).sum())(shared)
    np.testing.assert_allclose(found.numpy(), 6 * shared.numpy() ** 2 * x.numpy().sum(0), rtol=1e-14)


def test_inside_and_around() -> None:
    x = examples(4, 3)
    found = func.grad(lambda x: func.vmap(func.grad(lambda row: Cube.apply(row).sum()))(x).sum())(x)
    np.testing.assert_allclose(found.numpy(), 12 * x.numpy(), rtol=1e-15)  # of 6 x**2, which Cube.backward says in ops


def test_two_vmaps() -> None:
    x = examples(2, 4, 3)
    nested: Callable[[Tensor], Tensor] = func.vmap(func.vmap(Cube.apply))
    np.testing.assert_allclose(nested(x).numpy(), x.numpy() ** 3, rtol=1e-15)
    found = func.grad(lambda x: nested(x).sum())(x)
    np.testing.assert_allclose(found.numpy(), 6 * x.numpy() ** 2, rtol=1e-15)


def test_forward_mode_around() -> None:
    x, t = examples(4, 3), examples(4, 3, seed=1)
    _, found = func.jvp(func.vmap(Cube.apply), (x,), (t,))
    np.testing.assert_allclose(found.numpy(), 6 * x.numpy() ** 2 * t.numpy(), rtol=1e-15)
    inside = func.vmap(lambda x, t: func.jvp(Cube.apply, (x,), (t,))[1])(x, t)
    np.testing.assert_allclose(inside.numpy(), found.numpy(), rtol=1e-15)


def test_a_rule_of_the_users() -> None:
    a, x = examples(4), examples(4, 3, seed=1)
    Scaled.calls.clear()
    over = func.vmap(lambda a, x: Scaled.apply(a, x, 2))
    sums, doubled = over(a, x)
    assert Scaled.calls == [(4, "error", (0, 0, None))]
    np.testing.assert_allclose(sums.numpy(), (a.numpy()[:, None] ** 2 * x.numpy()).sum(1), rtol=1e-14)
    np.testing.assert_allclose(doubled.numpy(), 2 * a.numpy(), rtol=1e-15)
    by_a, by_x = func.grad(lambda a, x: over(a, x)[0].sum(), (0, 1))(a, x)
    np.testing.assert_allclose(by_a.numpy(), (2 * a.numpy()[:, None] * x.numpy()).sum(1), rtol=1e-14)
    np.testing.assert_allclose(by_x.numpy(), np.broadcast_to(a.numpy()[:, None] ** 2, (4, 3)), rtol=1e-14)
    each = func.vmap(func.grad(lambda a, x: Scaled.apply(a, x, 2)[0]))(a, x)
    np.testing.assert_allclose(each.numpy(), by_a.numpy(), rtol=1e-14)
    shared = func.vmap(lambda x: Scaled.apply(a[0], x, 2)[0])(x)
    np.testing.assert_allclose(shared.numpy(), (a.numpy()[0] ** 2 * x.numpy()).sum(1), rtol=1e-14)


def test_compiled() -> None:
    x = examples(4, 3)
    step = fastbp.compile(func.vmap(func.grad(lambda row: Cube.apply(row).sum())))
    for _ in range(2):
        np.testing.assert_allclose(step(x).numpy(), 6 * x.numpy() ** 2, rtol=1e-15)


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_without_a_rule_derivatives_around_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"vmap over Plain.*does not have vmap support"):
        func.grad(lambda x: func.vmap(Plain.apply)(x).sum())(examples(4, 3))


def test_two_rules_are_one_too_many() -> None:
    class Both(Scaled):
        generate_vmap_rule = True

    with pytest.raises(RuntimeError, match="both generate_vmap_rule=True and an overriden vmap"):
        func.vmap(lambda a, x: Both.apply(a, x, 2))(examples(4), examples(4, 3))


def test_a_rule_must_return_dims() -> None:
    class Short(Plain):
        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
            return x.sin()

    with pytest.raises(RuntimeError, match="outputs and their batch dimensions as a pair"):
        func.vmap(Short.apply)(examples(4, 3))

    class Many(Plain):
        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor) -> Any:
            return (x.sin(),), (0, 0)

    with pytest.raises(RuntimeError, match="1 outputs with 2 out_dims"):
        func.vmap(Many.apply)(examples(4, 3))


def test_a_wrong_number_of_gradients_is_told_inside_of_vmap_too() -> None:
    class Wrong(Cube):
        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return g, g

    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        func.vmap(func.grad(lambda row: Wrong.apply(row).sum()))(examples(4, 3))
    with pytest.raises(RuntimeError, match="incorrect number of gradients"):
        func.grad(lambda x: func.vmap(Wrong.apply)(x).sum())(examples(4, 3))


# ---- a batch of cotangents ------------------------------------------------------------------------------------------


def test_is_grads_batched() -> None:
    x = examples(3).requires_grad_()
    w = examples(3, seed=3).requires_grad_()
    y = (x.sin() * x[0]).exp()
    rows = grad(y, x, fastbp.eye(3, dtype=fastbp.float64), is_grads_batched=True, retain_graph=True)[0]
    expected = func.jacrev(lambda x: (x.sin() * x[0]).exp())(x.detach())
    np.testing.assert_allclose(rows.numpy(), expected.numpy(), rtol=1e-14)
    seeds = examples(5, 3, seed=4)
    one, none = grad(y, [x, w], seeds, is_grads_batched=True, retain_graph=True, allow_unused=True)
    assert none is None
    np.testing.assert_allclose(one.numpy(), seeds.numpy() @ rows.numpy(), rtol=1e-13)
    zeros = grad(y, [x, w], seeds, is_grads_batched=True, retain_graph=True, materialize_grads=True)[1]
    assert zeros.shape == (5, 3) and not zeros.any()


def test_is_grads_batched_records() -> None:
    x = examples(3).requires_grad_()
    (rows,) = grad(
        (x**3).sum().reshape(1), x, fastbp.ones(2, 1, dtype=fastbp.float64), is_grads_batched=True, create_graph=True
    )
    (second,) = grad(rows.sum(), x)
    np.testing.assert_allclose(second.numpy(), 2 * 6 * x.detach().numpy(), rtol=1e-14)


def test_is_grads_batched_wants_batches_of_one_size() -> None:
    x = examples(3).requires_grad_()
    y, z = x.sin(), x.cos()
    for seeds in (
        [fastbp.ones(2, 3), fastbp.ones(4, 3)],
        [None, fastbp.ones(2, 3)],
        [fastbp.tensor(1.0), fastbp.ones(2, 3)],
    ):
        with pytest.raises(RuntimeError, match="batch as first dimension"):
            grad([y, z], x, seeds, is_grads_batched=True)


def test_gradcheck_of_batched_gradients() -> None:
    assert gradcheck(lambda x: (x.sin() * x[0]).exp(), examples(3).requires_grad_(), check_batched_grad=True)
