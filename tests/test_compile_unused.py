"""Compiled with their derivative: results that the loss does not use, history and modes, what comes between a call and
its backward.

Each case is held to the same function, eager: the same gradients, None where eager code has None.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from twins import assert_same, snapshot

import fastbp
from fastbp import autograd, nn

INFINITE = float("inf")
X, W, V = [0.3, 0.4], [1.0, 2.0], [3.0, INFINITE]


def leaf(values: Any, dtype: Any = None) -> Any:
    return fastbp.tensor(values, dtype=dtype, requires_grad=True)


class Constant(autograd.Function):
    """A rule that does not read its cotangent."""

    @staticmethod
    def forward(ctx: Any, a: Any) -> Any:
        ctx.save_for_backward(a)
        return a * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return ctx.saved_tensors[0]


class Mixed(autograd.Function):
    """Two outputs, whose rule reads both cotangents."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        ctx.save_for_backward(a, b)
        return a * 2 + b, b * 3

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        a, b = ctx.saved_tensors
        return g * b + h, g * a + h * b


class Parted(Mixed):
    """Two outputs, each of which leads to one input; zeros, not None, where the other one is not used."""

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        return g * 2, h * 3


class Asking(autograd.Function):
    """A rule that is told which outputs are used."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        ctx.set_materialize_grads(False)
        return a * 2, b * 3

    @staticmethod
    def backward(ctx: Any, g: Any, h: Any) -> Any:
        return None if g is None else g * 2, None if h is None else h * 3


def hooked(y: Any, hook: Callable[[Any], Any]) -> Any:
    y.register_hook(hook)
    return y


def branches(h: Any, v: Any, w: Any) -> Any:
    """Mixes: slices, joins, a result that is handed on as it is."""
    return h[1:] * v[:1], h[0] * v[1], fastbp.cat([h, v]), h + w


def doubled_mixed(x: Any, w: Any, v: Any) -> Any:
    a, b = Mixed.apply(x * w, v)
    return a * w, b, a.sum()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "product": lambda x, w, v: ((x * w).tanh(), (x * w * v).exp(), (x * w).sum()),
    "slices": lambda x, w, v: branches(x * w, v, w),
    "many": lambda x, w, v: ((x * w).sin(), (x * w).cos(), x * w * v, x * w / v, x * w - w),
    "softmax": lambda x, w, v: (fastbp.softmax(x * w, 0), (x * v).sum(), (x * w).max()),
    "matmul": lambda x, w, v: (x[None] @ w[:, None], fastbp.where(x > 0.35, x * w, v), w.sum() + x.mean()),
    "as they are": lambda x, w, v: (x + w, w * 1, x + v),
    "constant rule": lambda x, w, v: (Constant.apply(x * w), x * w * v),
    "constant rules": lambda x, w, v: (Constant.apply(w), Constant.apply(w) * v, x * 2),
    "mixed rule": lambda x, w, v: Mixed.apply(x * w, v),
    "mixed rule inside": doubled_mixed,
    "parted rule": lambda x, w, v: Parted.apply(x * w, v),
    "asking rule": lambda x, w, v: Asking.apply(x * w, v),
    "hook adds": lambda x, w, v: (x * w, hooked(x * w * v, lambda g: g + 1), w.sin()),
    "hook replaces": lambda x, w, v: (x * w, hooked(w * v, lambda g: fastbp.tensor([1.0, 5.0]))),
    "hook on both": lambda x, w, v: (lambda h: (h * w, h * v, h.sum()))(hooked(x * w, lambda g: g * g)),
}


def gradients_of(call: Callable[..., Any], mask: tuple[int, ...], **options: Any) -> list[Any]:
    given = [leaf(values) for values in (X, W, V)]
    used = [y for y, m in zip(call(*given), mask, strict=True) if m]
    weighted = [(y * float(i + 2)).sum() for i, y in enumerate(used)]
    fastbp.stack(weighted).sum().backward(**options)
    return [None if x.grad is None else x.grad.detach().numpy().copy() for x in given]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_eager_code_whatever_results_are_used(name: str) -> None:
    function = FUNCTIONS[name]
    call = fastbp.compile(function)
    count = len(function(*map(leaf, (X, W, V))))
    masks = [mask for mask in itertools.product((0, 1), repeat=count) if any(mask)]
    for mask in masks + masks[::-1]:
        wanted, found = gradients_of(function, mask), gradients_of(call, mask)
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            assert (a is None) == (b is None), (mask, number)
            if b is not None:
                np.testing.assert_array_equal(a, b, err_msg=f"{mask}, {number}")


def random_function(seed: int) -> Callable[..., Any]:
    """A function of three tensors with two to five results, from a few rows of ops; one leaf has infinities."""
    summed, turned = (lambda a: a.sum(0, keepdim=True) + a), (lambda a: a.t().t())
    unary = (fastbp.sin, fastbp.tanh, fastbp.neg, fastbp.relu, summed, turned)
    binary = (
        lambda a, b: a * b,
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: fastbp.cat([a[1:], b[:1]]),
        lambda a, b: fastbp.where(a > 0, a, b),
        lambda a, b: a.clone().mul_(2).add_(b),
    )

    def function(*given: Any) -> Any:
        pick = random.Random(seed)
        pool = list(given)
        for _ in range(pick.randint(4, 14)):
            a, b = pick.choice(pool), pick.choice(pool)
            pool.append(pick.choice(unary)(a) if pick.random() < 0.4 else pick.choice(binary)(a, b))
        results = [pick.choice(pool[3:]) * pick.choice(given) for _ in range(pick.randint(2, 5))]
        return [y if pick.random() < 0.7 else y.sum() for y in results]

    return function


@pytest.mark.parametrize("start", range(0, 60, 20))
def test_random_functions(start: int) -> None:
    for seed in range(start, start + 20):
        function = random_function(seed)
        call = fastbp.compile(function, memory_budget=0.5 if seed % 3 == 0 else None)
        pick = random.Random(-1 - seed)
        values = [[[pick.uniform(-1, 1) for _ in range(3)] for _ in range(4)] for _ in range(3)]
        values[2][1][1] = INFINITE
        count = len(function(*map(leaf, values)))
        for _ in range(4):
            mask = [pick.random() < 0.5 for _ in range(count)]
            mask[pick.randrange(count)] = True
            seen = []
            for one in (function, call):
                given = [leaf(x, fastbp.float64) for x in values]
                used = [y for y, m in zip(one(*given), mask, strict=True) if m]
                autograd.backward(used, [fastbp.ones_like(y) for y in used])
                seen.append(snapshot(given))
            assert_same(seen[1], seen[0], f"seed {seed}, {mask}")


@pytest.mark.filterwarnings("ignore:compile. a memory budget")
def test_unused_results_of_modules_with_dropout_and_state() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 2), nn.Linear(5, 3)
            self.drop = nn.Dropout(0.5)
            self.register_buffer("calls", fastbp.zeros(1))

        def forward(self, x: Any) -> Any:
            self.calls.add_(1)
            h = self.drop(self.body(x).tanh())
            return self.left(h), self.right(self.drop(h)).exp(), h.mean()

    worlds = []
    for compiled in (False, True):
        fastbp.manual_seed(1)
        net = Net()
        call = fastbp.compile(net) if compiled else net
        seen = []
        for used in (0, 1, 2, (0, 2), 1, 0):
            net.zero_grad()
            y = call(fastbp.randn(6, 4))
            sum(y[i].square().sum() for i in np.atleast_1d(used)).backward()
            seen.append([snapshot(net), snapshot(fastbp.get_rng_state())])
        worlds.append(seen)
    assert_same(worlds[1], worlds[0], "calls", 4)
    assert worlds[1][0][0][0][4][1] is None, "what only the unused result depends on has no gradient"


def test_plans_for_sets_of_used_results_are_few() -> None:
    call = fastbp.compile(lambda x: tuple(x * float(i) for i in range(6)))
    for mask in itertools.product((0, 1), repeat=6):
        x = leaf(X)
        used = [y.sum() for y, m in zip(call(x), mask, strict=True) if m]
        if used:
            fastbp.stack(used).sum().backward()
            assert x.grad.tolist() == [sum(i for i, m in enumerate(mask) if m)] * 2


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_by_another_way_leave_unused_results_out(create_graph: bool) -> None:
    def function(x: Any, w: Any, v: Any) -> Any:
        return (x * w).sin(), (x * v).exp()

    for one in (function, fastbp.compile(function)):
        x, w, v = map(leaf, (X, W, V))
        y, _ = one(x, w, v)
        found = autograd.grad(y.sum(), (x, w, v), allow_unused=True, create_graph=create_graph)
        assert found[2] is None and np.isfinite(found[0].detach().numpy()).all()
        if create_graph:
            (found[0].sum() + found[1].sum()).backward()
            assert v.grad is None and np.isfinite(w.grad.numpy()).all()
        y, _ = one(x, w, v)
        batch = fastbp.eye(2)
        found = autograd.grad(y, (x, w, v), batch, allow_unused=True, is_grads_batched=True)
        assert found[2] is None and np.isfinite(found[0].detach().numpy()).all()


# -------------------------------------------------------------------------------------- what requires grad


def set_within(mode: bool) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        a = x * 2
        fastbp.set_grad_enabled(mode)
        return a, x * 3

    return function


def nested(outer: Any, inner: Any) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        with outer():
            a = x * 2
            with inner():
                b = a * x
            return a, b, a * b

    return function


def nested_view(x: Any) -> Any:
    with fastbp.enable_grad():
        y = x[1:]
        with fastbp.no_grad():
            return y, x[:1]


MODES: dict[str, Callable[[Any], Any]] = {
    "enable_grad": nested(fastbp.enable_grad, fastbp.enable_grad),
    "no_grad": nested(fastbp.no_grad, fastbp.enable_grad),
    "no_grad within": nested(fastbp.enable_grad, fastbp.no_grad),
    "inference_mode": nested(fastbp.inference_mode, fastbp.enable_grad),
    "set_grad_enabled": nested(lambda: fastbp.set_grad_enabled(True), lambda: fastbp.set_grad_enabled(False)),
    "switched on": set_within(True),
    "switched off": set_within(False),
    "a leaf": lambda x: (x.detach().clone().requires_grad_(), x * 2),
    "a view": lambda x: (x[1:], x.detach()),
    "a view within": nested_view,
    "a leaf used": lambda x: (lambda y: (y, y * 2 + x))(x.detach().clone().requires_grad_()),
}


@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("name", MODES)
def test_what_requires_grad_is_what_does_in_eager_code(name: str, outside: bool) -> None:
    function = MODES[name]
    call = fastbp.compile(function)
    seen: list[Any] = []
    if name == "a leaf used":  # its history has no place in a plan
        warnings.filterwarnings("ignore", message="compile: .* runs eagerly from now on: it returns tensors")
    for one in (function, call, call, call):
        x = leaf(X)
        with fastbp.set_grad_enabled(outside):
            results = one(x)
            after = fastbp.is_grad_enabled()
        facts: list[Any] = [[y.requires_grad, y.is_leaf, y.tolist()] for y in results] + [after]
        used = [y.sum() for y in results if y.requires_grad]
        if used:
            fastbp.stack(used).sum().backward()
        seen.append([facts, None if x.grad is None else x.grad.tolist()])
    assert seen[1:] == [seen[0]] * 3


# ----------------------------------------------------------------------------- gradients of results by results


def chained(x: Any, w: Any) -> Any:
    logits = x * w
    return (logits * logits).sum(), logits, logits.detach(), w + 1


def test_a_gradient_from_one_result_to_another_is_refused_and_says_why() -> None:
    call = fastbp.compile(chained)
    x, w = leaf(X), leaf(W)
    loss, logits, _, other = call(x, w)
    for refused in (
        lambda: autograd.grad(loss, logits),
        lambda: autograd.grad(loss + logits.sum(), logits),
        lambda: loss.backward(inputs=[logits]),
        logits.retain_grad,
        lambda: logits.register_hook(print),
    ):
        with pytest.raises(RuntimeError, match=r"results of one call are outputs of one node.*inside of the compiled"):
            refused()
    # what does not go from one to another
    assert autograd.grad((logits * 5).sum(), logits, retain_graph=True)[0].tolist() == [5, 5]
    assert autograd.grad(loss * 3, loss, retain_graph=True)[0].item() == 3
    other.retain_grad()
    loss.register_hook(lambda g: g * 2)
    (loss + other.sum()).backward()
    eager_loss, eager_logits, _, eager_other = chained(x2 := leaf(X), w2 := leaf(W))
    eager_logits.retain_grad()
    (eager_loss * 2 + eager_other.sum()).backward()
    assert x.grad.tolist() == x2.grad.tolist() and w.grad.tolist() == w2.grad.tolist()
    assert other.grad.tolist() == [1, 1]


# --------------------------------------------------------------------- between a call and its backward, and after


def check_story(story: Callable[..., Any], function: Callable[..., Any]) -> None:
    """The same happens, and is seen, around a function and its compiled form, where a second call follows a first."""
    call = fastbp.compile(function)
    wanted = snapshot(story(function))
    assert_same(snapshot(story(call)), wanted, "first")
    assert_same(snapshot(story(call)), wanted, "second")


def two(x: Any, w: Any) -> Any:
    return (x * w).sin(), (x * x * w).cos()


def test_new_elements_between_the_call_and_backward() -> None:
    w = leaf(W)
    function = lambda x: two(x, w)  # noqa: E731
    call = fastbp.compile(function)
    for moved in ("argument", "state"):
        seen = []
        for one in (function, call, call):
            w.data = fastbp.tensor(W)
            w.grad = None
            x = leaf(X)
            y, z = one(x)
            kept_y, _ = one(x)
            (x if moved == "argument" else w).data = fastbp.tensor([10.0, 20.0])
            late = one(x)
            (y.sum() + z.sum()).backward()
            kept_y.sum().backward()
            first = snapshot([x, w])
            late[1].sum().backward()
            seen.append([first, snapshot([x, w])])
        assert_same(seen[1], seen[0], moved)
        assert_same(seen[2], seen[0], moved)


def test_changed_in_place_where_it_is_read_and_where_not() -> None:
    def function(x: Any, w: Any, b: Any) -> Any:
        return x * w + b, x + w

    for one in (function, fastbp.compile(function)):
        for number, used, raises in ((0, 0, True), (1, 0, True), (2, 0, False), (0, 1, False), (1, 1, False)):
            given = [leaf(X), leaf(W), leaf(W)]
            y = one(*given)
            with fastbp.no_grad():
                given[number].add_(1)
            if raises:
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    y[used].sum().backward()
            else:
                y[used].sum().backward()


def test_backward_twice() -> None:
    for one in (two, fastbp.compile(two)):
        y, _ = one(leaf(X), leaf(W))
        y.sum().backward()
        with pytest.raises(RuntimeError, match="second time"):
            y.sum().backward()


def test_again_with_other_results() -> None:
    def story(one: Any) -> Any:
        x, w = leaf(X), leaf(W)
        y, z = one(x, w)
        seen = []
        for part in (y.sum(), z.sum(), y.sum() + z.sum(), z.sum()):
            part.backward(retain_graph=True)
            seen.append(snapshot([x, w]))
        return seen

    check_story(story, two)


def test_hooks_on_results_and_several_uses() -> None:
    def story(one: Any) -> Any:
        x, w = leaf(X), leaf(W)
        y, z = one(x, w)
        seen: list[Any] = []
        y.register_hook(lambda g: seen.append(g.tolist()))
        y.register_hook(lambda g: g * 3)
        z.retain_grad()
        ((y * y).sum() + y.sum() + (y * z).sum()).backward()
        return [seen, z.grad, snapshot([x, w])]

    check_story(story, two)


def test_a_result_that_is_returned_twice_is_one_tensor() -> None:
    def function(x: Any, w: Any) -> Any:
        y = x * w
        return y, [y, w], {"z": y}

    def story(one: Any) -> Any:
        x, w = leaf(X), leaf(W)
        a, (b, same), rest = one(x, w)
        assert a is b and rest["z"] is a and same is w
        a.retain_grad()
        (a * b).sum().backward()
        return [a.grad, snapshot([x, w])]

    check_story(story, function)
    a, (b, _), _ = fastbp.compile(function)(fastbp.ones(2), fastbp.ones(2))
    assert a is b


def test_results_that_are_views_of_each_other() -> None:
    def function(x: Any, w: Any) -> Any:
        y = (x * w).sin()
        return y[None], y[1:], y.t()

    def story(one: Any) -> Any:
        x, w = leaf(X), leaf(W)
        a, b, c = one(x, w)
        (b.sum() * 2 + (a * c).sum()).backward()
        return [a, b, c, snapshot([x, w])]

    check_story(story, function)


def test_only_an_integer_result_is_used() -> None:
    def function(x: Any, w: Any) -> Any:
        y = x * w
        return y, y.argmax(), (y * w).sum()

    def story(one: Any) -> Any:
        x, w = leaf(X), leaf(W)
        _, place, total = one(x, w)
        assert not place.requires_grad
        w[place].backward()
        before = snapshot([x, w])
        total.backward()
        return [before, snapshot([x, w])]

    check_story(story, function)
