"""fastbp.func: transforms of transforms, and either way round with fastbp.compile.

Expected values are closed forms, loops over examples or plain autograd; a compiled function is held to the same
function in eager code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import _tree, func, nn, optim

# Some ten roundings, in another order of operations.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-13}

X, Y = np.array([0.3, -0.7, 1.1]), np.array([2.0, 0.5, -1.0])
XS = np.stack([X, Y, X - Y, X * Y])
M = np.arange(9.0).reshape(3, 3) / 5 - 0.7


def t(values: Any) -> fastbp.Tensor:
    return fastbp.tensor(np.asarray(values, dtype=np.float64).copy())


def same(found: Any, wanted: Any) -> None:
    assert isinstance(found, fastbp.Tensor)
    got, want = found.detach().numpy(), np.asarray(wanted)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, **TOLERANCE)


def cubes(a: fastbp.Tensor) -> fastbp.Tensor:
    """Gradient 3a^2, Hessian diag(6a), third derivative 6 on the diagonal."""
    return (a**3).sum()


def wave(a: fastbp.Tensor) -> fastbp.Tensor:
    """sin(M a): Jacobian diag(cos(M a)) M."""
    return (t(M) @ a).sin()


def wave_jacobian(a: Any) -> Any:
    return np.cos(M @ a)[:, None] * M


def wave_second(a: Any) -> Any:
    return np.einsum("i,ij,ik->ijk", -np.sin(M @ a), M, M)


# ---- order ---------------------------------------------------------------------------------------------------------


def test_four_gradients() -> None:
    function: Any = lambda a: a**5  # noqa: E731
    for wanted in (5 * 1.5**4, 20 * 1.5**3, 60 * 1.5**2, 120 * 1.5):
        function = func.grad(function)
        same(function(t(1.5)), wanted)
    forward: Any = lambda a: a**5  # noqa: E731
    for wanted in (5 * 1.5**4, 20 * 1.5**3, 60 * 1.5**2, 120 * 1.5):
        forward = func.jacfwd(forward)
        same(forward(t(1.5)), wanted)


@pytest.mark.parametrize("outer", [func.jacrev, func.jacfwd])
@pytest.mark.parametrize("inner", [func.jacrev, func.jacfwd])
def test_jacobians_of_jacobians(outer: Any, inner: Any) -> None:
    same(outer(inner(cubes))(t(X)), np.diag(6 * X))
    same(outer(inner(wave))(t(X)), wave_second(X))
    third = np.zeros((3, 3, 3))
    third[range(3), range(3), range(3)] = 6
    for top in (func.jacrev, func.jacfwd):
        same(top(outer(inner(cubes)))(t(X)), third)


def test_products_of_products() -> None:
    def push(a: Any, v: Any) -> Any:
        return func.jvp(lambda b: b**3, (a,), (v,))[1]

    same(func.vjp(lambda a: push(a, t(Y)), t(X))[1](t(np.ones(3)))[0], 6 * X * Y)
    same(func.jvp(lambda a: push(a, t(Y)), (t(X),), (t(Y),))[1], 6 * X * Y * Y)
    same(func.jvp(lambda a: func.vjp(lambda b: b**3, a)[1](t(Y))[0], (t(X),), (t(X),))[1], 6 * X * Y * X)
    same(func.vjp(lambda a: func.vjp(lambda b: b**3, a)[1](t(Y))[0], t(X))[1](t(X))[0], 6 * X * Y * X)
    same(func.grad(lambda a: func.linearize(lambda b: b**3, a)[1](t(Y)).sum())(t(X)), 6 * X * Y)
    same(func.jvp(lambda a: func.hvp(cubes, (a,), (t(Y),)), (t(X),), (t(X),))[1], 6 * X * Y)
    same(func.grad(lambda a: func.hvp(cubes, (a,), (t(Y),)).sum())(t(X)), 6 * Y)


def test_perturbation_confusion() -> None:
    """Siskind and Pearlmutter (2005): d/dx (x d/dy (x + y)) is 1, not 2."""

    def d_rev(f: Callable[[Any], Any], at: Any) -> Any:
        return func.grad(f)(at)

    def d_fwd(f: Callable[[Any], Any], at: Any) -> Any:
        return func.jvp(f, (at,), (t(1.0),))[1]

    for outer in (d_rev, d_fwd):
        for inner in (d_rev, d_fwd):
            same(outer(lambda a, d=inner: a * d(lambda b: a + b, t(1.0)), t(1.0)), 1.0)
            same(outer(lambda a, d=inner: a * d(lambda b: a * b, t(1.0)), t(3.0)), 6.0)
            same(outer(lambda a, d=inner: d(lambda b: a * b * b, a), t(3.0)), 12.0)  # by a and by the point
            same(outer(lambda a, d=inner: d(lambda b: b * b * b, a * a), t(3.0)), 12 * 27.0)
            same(outer(lambda a, d=inner: d(lambda b: a * a, t(1.0)) + a, t(3.0)), 1.0)


# ---- with vmap -----------------------------------------------------------------------------------------------------


def test_gradients_and_batches() -> None:
    same(func.vmap(func.grad(cubes))(t(XS)), 3 * XS**2)
    same(func.grad(lambda a: func.vmap(cubes)(a).sum())(t(XS)), 3 * XS**2)
    same(func.vmap(func.grad(func.grad(lambda a: a**4)))(t(X)), 12 * X**2)
    same(func.vmap(func.vmap(lambda a: a * a))(t(XS)), XS**2)
    same(func.vmap(func.vmap(func.grad(lambda a: a**3)))(t(XS)), 3 * XS**2)
    same(func.vmap(func.vmap(lambda a, b: a * b, (0, None)), (None, 0))(t(X), t(Y)), np.outer(Y, X))
    gradient, value = func.vmap(func.grad_and_value(cubes))(t(XS))
    same(gradient, 3 * XS**2)
    same(value, (XS**3).sum(1))


def test_jacobians_and_batches() -> None:
    jacobians = np.stack([wave_jacobian(row) for row in XS])
    for transform in (func.jacrev, func.jacfwd):
        same(func.vmap(transform(wave))(t(XS)), jacobians)
        same(func.vmap(transform(wave, chunk_size=2))(t(XS)), jacobians)
        whole = transform(func.vmap(wave))(t(XS))
        wanted = np.zeros((4, 3, 4, 3))
        wanted[range(4), :, range(4), :] = jacobians
        same(whole, wanted)
        same(transform(func.vmap(func.grad(cubes)))(t(XS))[1, :, 1], np.diag(6 * XS[1]))
    same(func.vmap(func.hessian(cubes))(t(XS)), np.stack([np.diag(6 * row) for row in XS]))
    same(func.vmap(func.hessian(wave))(t(XS)), np.stack([wave_second(row) for row in XS]))


def test_a_gradient_of_a_batch_of_gradients() -> None:
    w = t(Y)
    found = func.grad(lambda v: func.vmap(func.grad(lambda a: (a**3 * v).sum()))(t(XS)).sum())(w)
    same(found, (3 * XS**2).sum(0))
    again = func.grad(lambda v: func.vmap(func.grad(lambda a: cubes(a * v)))(t(XS)).sum())(w)
    same(again, (9 * XS**2 * Y**2).sum(0))
    per = func.vmap(lambda s: func.grad(lambda v: func.vmap(func.grad(lambda a: cubes(a * v)))(t(XS)).sum())(s))(
        t(np.stack([X, Y]))
    )
    same(per, 9 * (XS**2).sum(0) * np.stack([X, Y]) ** 2)


def test_closures_that_require_grad_outside() -> None:
    w = t(Y).requires_grad_()
    found = func.vmap(func.grad(lambda a: (a**2 * w**2).sum()))(t(XS))
    same(found, 2 * XS * Y**2)
    assert found.requires_grad
    found.sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), (4 * XS * Y).sum(0), **TOLERANCE)
    xs = t(XS).requires_grad_()
    second = func.vmap(func.grad(lambda a: func.grad(cubes)(a).sum()))(xs)
    same(second, 6 * XS)
    (third,) = fastbp.autograd.grad(second.sum(), xs)
    same(third, np.full_like(XS, 6))
    with fastbp.no_grad():
        assert not func.vmap(func.grad(lambda a: (a * w).sum()))(xs).requires_grad
    assert not func.vmap(func.grad(lambda a: (a**2 * w.detach()).sum()))(t(XS)).requires_grad


def test_results_inside_a_batch_keep_no_record() -> None:
    """Nor do they outside: the sweep is recorded on no level where nobody asked."""
    inside: list[bool] = []

    def function(a: Any) -> Any:
        results = [func.grad(cubes)(a), func.jvp(cubes, (a,), (a,))[1], func.jacrev(wave)(a), func.jacfwd(wave)(a)]
        results += [func.hvp(cubes, (a,), (a,)), func.hessian(cubes)(a), func.vjp(wave, a)[1](a)[0]]
        inside.extend(one.requires_grad for one in results)
        return results

    assert not any(one.requires_grad for one in func.vmap(function)(t(XS)))
    assert inside == [False] * 7
    assert not any(one.requires_grad for one in func.vmap(func.vmap(function))(t(np.stack([XS, XS]))))
    assert inside == [False] * 14
    # What is outside is differentiated behind the batch, not by the examples' own nodes.
    w = t(Y).requires_grad_()
    assert func.vmap(lambda a: (inside.append((a * w).requires_grad), a * w)[1])(t(XS)).requires_grad
    assert inside[-1] is False


def test_perturbation_confusion_in_batches() -> None:
    found = func.vmap(func.grad(lambda a: a * func.grad(lambda b: a + b)(t(1.0))))(t(X))
    same(found, np.ones(3))
    found = func.vmap(lambda a: func.jvp(lambda c: c * func.grad(lambda b: c * b)(a), (a,), (t(1.0),))[1])(t(X))
    same(found, 2 * X)
    found = func.grad(lambda a: (a * func.vmap(func.grad(lambda b: a[0] * b))(t(X))).sum())(t(Y))
    same(found, [Y.sum() + Y[0], Y[0], Y[0]])


def test_products_in_batches() -> None:
    same(func.vmap(lambda a, v: func.jvp(cubes, (a,), (v,))[1])(t(XS), t(XS)), (3 * XS**3).sum(1))
    same(func.vmap(lambda v: func.jvp(wave, (t(X),), (v,))[1])(t(XS)), XS @ wave_jacobian(X).T)
    same(func.vmap(lambda a, v: func.hvp(cubes, (a,), (v,)))(t(XS), t(XS)), 6 * XS**2)
    _, pull = func.vjp(wave, t(X))
    same(func.vmap(pull)(t(np.eye(3)))[0], wave_jacobian(X))
    same(func.vmap(lambda a: func.vjp(wave, a)[1](t(Y))[0])(t(XS)), np.stack([Y @ wave_jacobian(row) for row in XS]))


# ---- with fastbp.compile -------------------------------------------------------------------------------------------

NESTS: dict[str, Any] = {
    "grad": lambda f, g: func.grad(f),
    "grad tuple": lambda f, g: func.grad(lambda a, b: f(a * b), (0, 1)),
    "grad_and_value": lambda f, g: func.grad_and_value(f),
    "vjp": lambda f, g: lambda a, v: func.vjp(g, a)[1](v),
    "jvp": lambda f, g: lambda a, v: func.jvp(g, (a,), (v,)),
    "linearize": lambda f, g: lambda a, v: func.linearize(g, a)[1](v),
    "jacrev": lambda f, g: func.jacrev(g),
    "jacfwd": lambda f, g: func.jacfwd(g),
    "hessian": lambda f, g: func.hessian(f),
    "hvp": lambda f, g: lambda a, v: func.hvp(f, (a,), (v,)),
    "vmap": lambda f, g: func.vmap(f),
    "grad of grad": lambda f, g: func.grad(lambda a: func.grad(f)(a).square().sum()),
    "jacrev of jacfwd": lambda f, g: func.jacrev(func.jacfwd(g)),
    "jacfwd of jacfwd": lambda f, g: func.jacfwd(func.jacfwd(g)),
    "jacrev of jacrev": lambda f, g: func.jacrev(func.jacrev(g)),
    "vmap of grad": lambda f, g: func.vmap(func.grad(f)),
    "vmap of jacfwd": lambda f, g: func.vmap(func.jacfwd(g)),
    "vmap of hessian": lambda f, g: func.vmap(func.hessian(f)),
    "vmap of vmap": lambda f, g: func.vmap(func.vmap(lambda a: a.sin() * a)),
    "jacrev of vmap": lambda f, g: func.jacrev(func.vmap(f)),
    "grad of vmap": lambda f, g: func.grad(lambda a: func.vmap(f)(a).sum()),
    "grad of vmap of grad": lambda f, g: func.grad(lambda a: func.vmap(func.grad(f))(a).square().sum()),
    "vjp of jvp": lambda f, g: lambda a, v: func.vjp(lambda b: func.jvp(g, (b,), (v,))[1], a)[1](v),
    "jvp of jvp": lambda f, g: lambda a, v: func.jvp(lambda b: func.jvp(g, (b,), (v,))[1], (a,), (v,)),
    "grad of linearize": lambda f, g: func.grad(lambda a: func.linearize(g, a)[1](a).sum()),
    "chunks": lambda f, g: func.vmap(func.jacrev(g, chunk_size=2), chunk_size=3),
}
BATCHED = {name for name in NESTS if "vmap" in name or name == "chunks"}
TWO = {"grad tuple", "vjp", "jvp", "linearize", "hvp", "vjp of jvp", "jvp of jvp"}


def bowl(a: fastbp.Tensor) -> fastbp.Tensor:
    return (wave(a) * a.exp()).sum() + cubes(a)


def arguments(name: str) -> list[list[fastbp.Tensor]]:
    first = XS if name in BATCHED else X
    return [[t(first * k), *([t(Y / k)] if name in TWO else [])] for k in (1.0, -0.5, 1.5)]


def leaves_of(value: Any) -> list[Any]:
    leaves: list[Any] = []
    _tree.flatten(value, leaves)
    return leaves


def alike(found: Any, wanted: Any) -> None:
    found, wanted = leaves_of(found), leaves_of(wanted)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        same(one, other.detach().numpy())
        assert one.requires_grad == other.requires_grad


@pytest.mark.parametrize("name", NESTS)
def test_compiled_transforms(name: str) -> None:
    transformed = NESTS[name](bowl, wave)
    compiled = fastbp.compile(NESTS[name](bowl, wave))
    for given in arguments(name):
        alike(compiled(*given), transformed(*given))


@pytest.mark.parametrize("name", NESTS)
def test_transforms_of_compiled_functions(name: str) -> None:
    transformed = NESTS[name](bowl, wave)
    around = NESTS[name](fastbp.compile(bowl), fastbp.compile(wave))
    for given in arguments(name):
        alike(around(*given), transformed(*given))


def test_a_compiled_function_goes_on_to_what_is_outside() -> None:
    w = t(Y).requires_grad_()
    compiled = fastbp.compile(func.grad(lambda a: (a * w).sum().sin()))
    eager = func.grad(lambda a: (a * w).sum().sin())
    for k in (1.0, 2.0):
        results = []
        for call in (compiled, eager):
            w.grad = None
            found = call(t(X * k))
            assert found.requires_grad
            found.sum().backward()
            results.append((found.detach().numpy().copy(), w.grad.numpy().copy()))
        np.testing.assert_allclose(results[0][0], results[1][0], **TOLERANCE)
        np.testing.assert_allclose(results[0][1], results[1][1], **TOLERANCE)


# ---- training steps ------------------------------------------------------------------------------------------------


def by_grad(net: Any, points: Any) -> Any:
    """u'' + u at each point."""

    def u(p: Any) -> Any:
        return net(p.reshape(1)).reshape(())

    return func.vmap(lambda p: func.grad(func.grad(u))(p) + u(p))(points)


def by_jvp(net: Any, points: Any) -> Any:
    ones = fastbp.ones_like(points)
    first = lambda p: func.jvp(lambda q: net(q.reshape(-1, 1)).reshape(-1), (p,), (ones,))  # noqa: E731
    value = net(points.reshape(-1, 1)).reshape(-1)
    return func.jvp(lambda p: first(p)[1], (points,), (ones,))[1] + value


def by_jacobian(net: Any, points: Any) -> Any:
    return func.vmap(lambda p: func.hessian(lambda q: net(q))(p).reshape(()) + net(p).reshape(()))(
        points.reshape(-1, 1)
    )


def by_functional_call(net: Any, points: Any) -> Any:
    state = dict(net.named_parameters())
    inner = func.grad(lambda s: func.functional_call(net, s, points.reshape(-1, 1)).square().mean())(state)
    return sum((one * one).sum() for one in inner.values()) + net(points.reshape(-1, 1)).mean()


@pytest.mark.parametrize("residual", [by_grad, by_jvp, by_jacobian, by_functional_call])
def test_a_compiled_training_step_with_derivatives_inside(residual: Any) -> None:
    worlds = []
    for compiled in (False, True):
        fastbp.manual_seed(1)
        net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
        optimizer = optim.Adam(net.parameters(), lr=0.05)

        def step(points: Any, net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = residual(net, points).square().mean() + (net(fastbp.zeros(1, 1).double()) - 1).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        call = fastbp.compile(step) if compiled else step
        losses = [float(call(t(np.linspace(0, 1 + k / 5, 7)))) for k in range(5)]
        worlds.append((losses, [p.detach().numpy().copy() for p in net.parameters()]))
    assert len(set(worlds[0][0])) == 5
    # Adam divides by the root of a mean square: a rounding of a small gradient grows in the first steps.
    np.testing.assert_allclose(worlds[1][0], worlds[0][0], rtol=1e-10)
    for found, wanted in zip(worlds[1][1], worlds[0][1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11)


def test_the_three_ways_to_a_second_derivative_agree() -> None:
    net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    points = t(np.linspace(0, 1, 7))
    hidden, outer = net[0], net[2]
    w, b, v, c = (p.detach().numpy() for p in (hidden.weight, hidden.bias, outer.weight, outer.bias))
    h = np.tanh(np.linspace(0, 1, 7)[:, None] * w[:, 0] + b)
    wanted = (-2 * h * (1 - h * h) * w[:, 0] ** 2 + h) @ v[0] + c
    for residual in (by_grad, by_jvp, by_jacobian):
        same(residual(net, points), wanted)


def test_push_inside_of_a_hook_of_a_sweep_over_the_same_graph() -> None:
    a = fastbp.tensor([0.5, -1.0, 2.0], dtype=fastbp.float64)
    seen: list[fastbp.Tensor] = []

    def product(t: fastbp.Tensor) -> fastbp.Tensor:
        sine, square = t.sin(), t * t
        # The cotangent of `sine` waits meanwhile.
        square.register_hook(lambda g: seen.append(push(fastbp.ones_like(a))))
        return sine * square

    a.requires_grad_()
    output, push = func.linearize(product, a)
    (gradient,) = fastbp.autograd.grad(output.sum(), [a])
    exact = a.cos() * a * a + 2 * a * a.sin()
    assert len(seen) == 1
    np.testing.assert_allclose(seen[0].detach().numpy(), exact.detach().numpy(), rtol=1e-12)  # a few roundings
    np.testing.assert_allclose(gradient.numpy(), exact.detach().numpy(), rtol=1e-12)
