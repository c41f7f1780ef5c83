"""Functions compiled with their derivative, which take part in the eager graph; and epochs in C."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import assert_same, batches, check_twins, drawn, snapshot

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
from fastbp.utils.data import DataLoader, TensorDataset


def make_mixed(build: Any, loss_of: Any = None) -> Any:
    """A training step in eager code around a function that is compiled in one of the two worlds."""

    def make(compiled: bool) -> SimpleNamespace:
        fastbp.manual_seed(3)
        world = SimpleNamespace()
        function = build(world)
        call = fastbp.compile(function) if compiled else function
        world.optimizer = optim.Adam(
            [p for p in vars(world).values() if isinstance(p, nn.Parameter)] or world.model.parameters(), lr=0.05
        )

        def step(*args: Any) -> Any:
            world.optimizer.zero_grad()
            y = call(*args)
            loss = loss_of(y, *args) if loss_of else y.square().mean()
            loss.backward()
            world.optimizer.step()
            return y, loss

        world.step = step
        return world

    return make


def check_mixed(build: Any, calls: Any, loss_of: Any = None, between: Any = None, factor: float = 4) -> None:
    make = make_mixed(build, loss_of)
    found = []
    for compiled in (False, True):
        world = make(compiled)
        fastbp.manual_seed(5)
        seen = []
        for number, arguments in enumerate(calls):
            if between is not None:
                between(number, world)
            given = arguments()
            result = world.step(*given)
            seen.append([snapshot(result), snapshot(given), snapshot(world), snapshot(fastbp.get_rng_state())])
        found.append(seen)
    for number, (a, b) in enumerate(zip(found[1], found[0], strict=True)):
        assert_same(a, b, f"call {number}", factor)


def build_model(world: Any, *layers: Any) -> Any:
    world.model = nn.Sequential(nn.Linear(5, 8), *layers, nn.Linear(8, 3))
    return world.model


def test_a_module() -> None:
    check_mixed(lambda w: build_model(w, nn.Tanh()), batches(6, 5))


def test_a_module_with_dropout_and_flags() -> None:
    def between(number: int, world: Any) -> None:
        world.model.train(number % 3 != 1)

    check_mixed(
        lambda w: build_model(w, nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.3)), batches(6, 5, count=6), between=between
    )


def test_several_shapes_in_turn() -> None:
    calls = [lambda n=n: (drawn(n, 5, seed=n),) for n in (6, 3, 6, 1, 3)]
    check_mixed(lambda w: build_model(w, nn.ReLU()), calls)


def test_modules_return_what_the_module_does() -> None:
    model = nn.Linear(3, 2)
    compiled = fastbp.compile(model)
    assert next(iter(compiled.parameters())) is model.weight
    y = compiled(drawn(4, 3))
    assert y.requires_grad and not y.is_leaf
    y.sum().backward()
    wanted = model.weight.grad.clone()
    model.zero_grad()
    model(drawn(4, 3)).sum().backward()
    assert_same(snapshot(wanted), snapshot(model.weight.grad), "gradient")
    with fastbp.no_grad():
        assert not compiled(drawn(4, 3)).requires_grad
    model.requires_grad_(False)
    assert not compiled(drawn(4, 3)).requires_grad


def build_pieces(world: Any) -> Any:
    world.w = nn.Parameter(drawn(4, 4, seed=1))
    world.v = nn.Parameter(drawn(4, seed=2))
    world.idle = nn.Parameter(drawn(2, seed=2))

    def function(x: Any, scale: float = 1.0) -> Any:
        h = (x @ world.w).tanh() * scale
        return {"a": h + world.v, "b": [h.sum(0), (h.detach() * 2, None)], "c": (h * world.v).t()[1:]}

    return function


@pytest.mark.parametrize("used", ["a", "c", "all"])
def test_several_results_some_of_them_unused(used: str) -> None:
    def loss_of(y: Any, x: Any) -> Any:
        parts = {"a": y["a"].square().sum(), "b": y["b"][0].sin().sum(), "c": (y["c"] * 2).cos().sum()}
        return sum(parts.values()) if used == "all" else parts[used]

    check_mixed(build_pieces, batches(3, 4), loss_of)


def test_parameters_behind_unused_results_have_no_gradients() -> None:
    w, v = drawn(3, seed=1).requires_grad_(), drawn(3, seed=2).requires_grad_()
    a, _ = fastbp.compile(lambda x: (x * w, x * v))(drawn(3))
    a.sum().backward()
    assert w.grad is not None and v.grad is None


def test_arguments_that_require_grad() -> None:
    """Leaves among the arguments, results of eager operations; two compiled functions in a row."""

    def build(world: Any) -> Any:
        world.w = nn.Parameter(drawn(4, 4, seed=1))
        return lambda x, y: (x @ world.w) * y + x.sum()

    def arguments(k: int) -> Any:
        return drawn(3, 4, seed=k).requires_grad_(), drawn(3, 4, seed=k + 50).requires_grad_(k % 2 == 0)

    check_mixed(build, [lambda k=k: arguments(k) for k in range(4)], lambda z, x, y: (z * x).sum() + y.sum())
    w = drawn(4, 4, seed=1)
    first, second = fastbp.compile(lambda x: (x @ w).tanh()), fastbp.compile(lambda x: (x * x).sum(1))
    x, z = drawn(3, 4).requires_grad_(), drawn(3, 4).requires_grad_()
    second(first(x * 2)).sum().backward()
    ((z * 2) @ w).tanh().square().sum().backward()
    assert_same(snapshot(x), snapshot(z), "through two functions", 4)


def test_calls_before_their_backward_passes() -> None:
    """Several calls under way at once: each has its own saved values and random numbers."""
    w = drawn(4, 4, seed=1).requires_grad_()
    function = lambda x: F.dropout((x @ w).tanh(), 0.5) @ w  # noqa: E731
    compiled = fastbp.compile(function)
    gradients = []
    for call in (function, compiled):
        fastbp.manual_seed(1)
        w.grad = None
        kept = [call(drawn(3, 4, seed=k)) for k in range(4)]
        for k in (2, 0, 3, 1):
            (kept[k] * (k + 1)).square().sum().backward()
        total = sum(call(drawn(3, 4, seed=k)).sin().sum() for k in range(3))
        total.backward()
        gradients.append(w.grad.clone())
    assert_same(snapshot(gradients[1]), snapshot(gradients[0]), "gradient", 8)


def test_backward_twice_and_retained_graphs() -> None:
    w = drawn(4, 4, seed=1).requires_grad_()
    compiled = fastbp.compile(lambda x: (x @ w).tanh())
    y = compiled(drawn(3, 4)).sum()
    y.backward(retain_graph=True)
    once = w.grad.clone()
    y.backward()
    assert_same(snapshot(w.grad), snapshot(once * 2), "twice")
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_second_derivatives_through_a_compiled_function() -> None:
    w = drawn(4, 4, seed=1, dtype=np.float64).requires_grad_()
    function = lambda x: ((x @ w).tanh() @ w).sum(1)  # noqa: E731
    found = []
    for call in (function, fastbp.compile(function)):
        x = drawn(3, 4, dtype=np.float64).requires_grad_()
        (g,) = fastbp.autograd.grad(call(x).square().sum(), x, create_graph=True)
        w.grad = None
        g.square().sum().backward()
        found.append(snapshot([x, w, g]))
    assert_same(found[1], found[0], "second derivatives", 100)


def test_a_parameter_that_changed_before_backward_is_an_error() -> None:
    w = drawn(4, 4, seed=1).requires_grad_()
    compiled = fastbp.compile(lambda x: (x @ w).tanh() @ w)
    y = compiled(drawn(3, 4)).sum()
    with fastbp.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_buffers_are_updated_once_a_call() -> None:
    def build(world: Any) -> Any:
        build_model(world)
        world.model.register_buffer("mean", fastbp.zeros(3))

        def function(x: Any) -> Any:
            y = world.model(x)
            world.model.mean.mul_(0.9).add_(y.detach().mean(0) * 0.1)
            return y - world.model.mean

        return function

    check_mixed(build, batches(6, 5))


def test_hooks_of_leaves_run_once() -> None:
    w = drawn(3, seed=1).requires_grad_()
    w.register_hook(lambda g: g * 3)
    compiled = fastbp.compile(lambda x: x * w)
    compiled(fastbp.ones(3)).sum().backward()
    assert w.grad.tolist() == [3, 3, 3]


def test_in_place_on_results_and_views_of_them() -> None:
    w, v = drawn(3, 3, seed=1).requires_grad_(), drawn(3, 3, seed=1).requires_grad_()
    compiled = fastbp.compile(lambda x, w: (x * w, x + w))
    for call, p in ((compiled, w), (lambda x, w: (x * w, x + w), v)):
        a, b = call(drawn(3, 3), p)
        a[0].mul_(2)
        b.add_(a.detach())
        (a.sin() + b.t().cos()).sum().backward()
    assert_same(snapshot(w), snapshot(v), "gradient", 4)


def test_saved_memory_is_given_back() -> None:
    import gc

    model = nn.Sequential(nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 50))
    compiled = fastbp.compile(model)

    def run() -> None:
        model.zero_grad()
        compiled(drawn(20, 50)).square().sum().backward()
        compiled(drawn(20, 50))

    for _ in range(3):
        run()
    gc.collect()
    before = fastbp._core.memory_statistics()
    for _ in range(20):
        run()
    gc.collect()
    after = fastbp._core.memory_statistics()
    assert (after["live_blocks"], after["live_bytes"]) == (before["live_blocks"], before["live_bytes"])


# ------------------------------------------------------------------------------------------- epochs


def make_epoch_world() -> SimpleNamespace:
    fastbp.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
    world = SimpleNamespace(model=model, optimizer=optim.Adam(model.parameters(), lr=0.01), seen=fastbp.zeros(1))

    def step(x: Any, t: Any) -> Any:
        world.optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        world.optimizer.step()
        world.seen.add_(x.sum())
        return {"loss": loss.detach(), "x": x[:, 0] * 1}

    world.step = step
    return world


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 8, 40, 43])
def test_an_epoch_is_a_loop_over_the_loader(rows: int, drop_last: bool, shuffle: bool) -> None:
    found = []
    for compiled in (False, True):
        world = make_epoch_world()
        data = TensorDataset(drawn(rows, 5, seed=8), fastbp.arange(rows) % 3)
        loader = DataLoader(data, batch_size=8, shuffle=shuffle, drop_last=drop_last)
        fastbp.manual_seed(4)
        losses: list[float] = []
        seen: list[float] = []
        step = fastbp.compile(world.step)
        for _ in range(2):
            if compiled:
                result = step.epoch(loader)
                if result is not None:
                    losses += result["loss"].tolist()
                    seen += [v for batch in result["x"] for v in batch.tolist()]
            else:
                for x, t in loader:
                    result = world.step(x, t)
                    losses.append(result["loss"].item())
                    seen += result["x"].tolist()
        found.append([snapshot(world), np.array(losses), np.array(seen), snapshot(fastbp.get_rng_state())])
    assert_same(found[1][0], found[0][0], "world", 10)
    assert np.allclose(found[1][1], found[0][1], rtol=1e-5)
    assert found[1][2].tolist() == found[0][2].tolist()
    assert_same(found[1][3], found[0][3], "generator")


def test_epochs_refuse_what_they_cannot_do() -> None:
    world = make_epoch_world()
    step = fastbp.compile(world.step)
    with pytest.raises(TypeError, match="TensorDataset"):
        step.epoch([(drawn(2, 5), fastbp.tensor([0, 1]))])
    data = TensorDataset(drawn(6, 5), fastbp.arange(6) % 3)
    with pytest.raises(RuntimeError, match="backward"):
        fastbp.compile(lambda x, t: world.model(x)).epoch(DataLoader(data, batch_size=2))
    with pytest.raises(IndexError, match="out of bounds"):
        step.epoch(DataLoader(TensorDataset(drawn(6, 5), fastbp.arange(6)), batch_size=2))
    assert all(np.isfinite(p.detach().numpy()).all() for p in world.model.parameters())
    assert step.epoch(DataLoader(data, batch_size=2))["loss"].shape == (3,)


def test_the_same_check_of_worlds_with_a_step_that_is_compiled_with_its_derivative() -> None:
    """A whole step that holds a compiled module is compiled itself: the inner one is part of it."""

    def make() -> SimpleNamespace:
        fastbp.manual_seed(3)
        model = nn.Linear(4, 2)
        inner = fastbp.compile(model)
        world = SimpleNamespace(model=model, optimizer=optim.SGD(model.parameters(), lr=0.1))

        def step(x: Any) -> Any:
            world.optimizer.zero_grad()
            loss = inner(x).square().sum()
            loss.backward()
            world.optimizer.step()
            return loss.detach()

        world.step = step
        return world

    check_twins(make, batches(3, 4))
