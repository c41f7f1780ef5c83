"""State that compiled functions change or depend on: buffers, flags, random generators, modes, replaced tensors."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import (
    OPTIMIZERS,
    assert_same,
    batches,
    check_twins,
    drawn,
    make_trainer,
    snapshot,
)

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim


def test_buffers_updated_in_place() -> None:
    def make() -> SimpleNamespace:
        model = nn.Module()
        model.weight = nn.Parameter(drawn(5, seed=3))
        model.register_buffer("mean", fastbp.zeros(5))
        model.register_buffer("var", fastbp.ones(5))
        model.register_buffer("seen", fastbp.tensor(0))
        world = SimpleNamespace(model=model)

        def forward(x: fastbp.Tensor) -> fastbp.Tensor:
            if model.training:
                mean, var = x.mean(0), x.var(0)
                model.mean.mul_(0.9).add_(0.1 * mean.detach())
                model.var.mul_(0.9).add_(0.1 * var.detach())
                model.seen.add_(1)
            else:
                mean, var = model.mean, model.var
            return (x - mean) / (var + 1e-5).sqrt() * model.weight

        model.forward = forward

        def step(x: fastbp.Tensor) -> Any:
            y = model(x)
            (y * y * y).sum().backward()
            return y.detach()

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        world.model.train(number % 3 != 2)

    check_twins(make, batches(6, 5, count=7), between)


def test_dropout_and_flags() -> None:
    def make() -> SimpleNamespace:
        model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 2), nn.Dropout(0.2))
        world = SimpleNamespace(model=model, optimizer=optim.SGD(model.parameters(), lr=0.1))

        def step(x: fastbp.Tensor) -> Any:
            world.optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            world.optimizer.step()
            return loss.detach()

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        if number == 2:
            world.model.eval()
        if number == 4:
            world.model[1].train()
        if number == 6:
            world.model.train()

    check_twins(make, batches(6, 5, count=8), between)


def test_plans_for_both_flags_are_kept() -> None:
    model, counted = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), []

    @fastbp.compile
    def step(x: fastbp.Tensor) -> Any:
        counted.append(1)
        return model(x).detach()

    for _ in range(4):
        step(fastbp.ones(2, 3))
        model.eval()
        step(fastbp.ones(2, 3))
        model.train()
    assert len(counted) == 2


def test_plans_of_an_accumulation_cycle_are_kept() -> None:
    model, counted = nn.Linear(3, 3), []

    @fastbp.compile
    def step(x: fastbp.Tensor) -> None:
        counted.append(1)
        model(x).sum().backward()

    for _ in range(4):
        model.zero_grad()
        step(fastbp.ones(2, 3))
        step(fastbp.ones(2, 3))
    assert len(counted) == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_capture_for_a_training_run(name: str) -> None:
    world = make_trainer(OPTIMIZERS[name])()
    counted = []

    def counting(x: fastbp.Tensor) -> Any:
        counted.append(1)
        return world.step(x)

    step = fastbp.compile(counting)
    for k in range(5):
        step(drawn(6, 5, seed=k))
    assert len(counted) == 1


def test_random_operations_and_generators() -> None:
    def make() -> SimpleNamespace:
        one, two = fastbp.Generator().manual_seed(7), fastbp.Generator().manual_seed(7)
        world = SimpleNamespace(one=one, two=two)

        def step(x: fastbp.Tensor) -> Any:
            a = fastbp.rand(3, generator=one)
            b = fastbp.randn(x.shape[0], 2)
            c = fastbp.rand(4, generator=two)
            d = fastbp.bernoulli(fastbp.full((5,), 0.3), generator=one)
            e = fastbp.randint(0, 10, (6,))
            return (
                a,
                b,
                c,
                d,
                e,
                fastbp.rand_like(x),
                F.dropout(x, 0.4),
                fastbp.empty(7).uniform_(-1, 1),
                fastbp.rand(3, generator=two),
            )

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        fastbp.rand(5)
        if number == 2:
            fastbp.manual_seed(11)
            world.two.manual_seed(3)

    check_twins(make, batches(3, 2, count=5), between)


def test_random_numbers_of_a_module_in_backward() -> None:
    def make() -> SimpleNamespace:
        w = drawn(4, 4, seed=5).requires_grad_()
        world = SimpleNamespace(w=w)

        def step(x: fastbp.Tensor) -> None:
            F.dropout(F.dropout(x @ w, 0.5) @ w, 0.3).square().sum().backward()

        world.step = step
        return world

    check_twins(make, batches(3, 4))


def test_no_grad_around_and_within() -> None:
    def make() -> SimpleNamespace:
        w = drawn(4, 4, seed=5).requires_grad_()
        world = SimpleNamespace(w=w, on=fastbp.zeros(1))

        def step(x: fastbp.Tensor) -> Any:
            y = x @ w
            with fastbp.no_grad():
                z = y * w.sum()
            if y.requires_grad:
                (y * z).sum().backward()
            return y.detach(), z

        world.step = step
        return world

    check_twins(make, batches(3, 4))
    world = make()
    step, plain = fastbp.compile(world.step), world.step
    with fastbp.no_grad():
        assert_same(snapshot(step(drawn(3, 4))), snapshot(plain(drawn(3, 4))), "under no_grad")
        assert world.w.grad is None
    step(drawn(3, 4))
    assert world.w.grad is not None
    with fastbp.no_grad():
        found = step(drawn(3, 4))
    assert not found[0].requires_grad


# ------------------------------------------------------------------------------------------- what is replaced or shared


def make_linear() -> SimpleNamespace:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    world = SimpleNamespace(model=model, optimizer=optim.Adam(model[1].parameters(), lr=0.1))

    def step(x: fastbp.Tensor) -> Any:
        world.model.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        world.optimizer.step()
        return loss.detach()

    world.step = step
    return world


def replace_data(world: SimpleNamespace) -> None:
    world.model[0].weight.data = drawn(4, 5, seed=20)


def replace_data_by_a_view(world: SimpleNamespace) -> None:
    """All parameters become pieces of one array, as data-parallel wrappers make them."""
    parameters = list(world.model.parameters())
    flat = fastbp.cat([p.detach().reshape(-1) for p in parameters])
    at = 0
    for p in parameters:
        p.data = flat[at : at + p.numel()].view(p.shape)
        at += p.numel()


def load_model(world: SimpleNamespace) -> None:
    world.model.load_state_dict({name: one * 0.5 for name, one in world.model.state_dict().items()})


def load_optimizer(world: SimpleNamespace) -> None:
    state = world.optimizer.state_dict()
    for one in state["state"].values():
        one["exp_avg"] = one["exp_avg"] * 3
    state["param_groups"][0]["lr"] = 0.5
    world.optimizer.load_state_dict(state)


def clear_state(world: SimpleNamespace) -> None:
    world.optimizer.state.clear()


def set_steps(world: SimpleNamespace) -> None:
    for one in world.optimizer.state.values():
        one["step"] = 7 if isinstance(one["step"], int) else one["step"] * 0 + 7


def replace_state_tensor(world: SimpleNamespace) -> None:
    for one in world.optimizer.state.values():
        one["exp_avg"] = one["exp_avg"] * 0


def add_group(world: SimpleNamespace) -> None:
    world.optimizer.add_param_group({"params": list(world.model[0].parameters()), "lr": 0.3})


def drop_a_parameter(world: SimpleNamespace) -> None:
    world.optimizer.param_groups[0]["params"].pop()


def toggle_requires_grad(world: SimpleNamespace) -> None:
    world.model[0].weight.requires_grad_(False)
    world.model[1].bias.requires_grad_(False)


def rebind_weight(world: SimpleNamespace) -> None:
    world.model[0].weight = nn.Parameter(drawn(4, 5, seed=21))


def replace_layer(world: SimpleNamespace) -> None:
    world.model[0] = nn.Linear(5, 4, bias=False)


def write_in_place(world: SimpleNamespace) -> None:
    with fastbp.no_grad():
        world.model[0].weight.fill_(0.25)


def write_through_numpy(world: SimpleNamespace) -> None:
    world.model[0].weight.detach().numpy()[:] = 0.5


def set_gradients(world: SimpleNamespace) -> None:
    for p in world.model.parameters():
        p.grad = fastbp.ones_like(p)


def hold_gradients(world: SimpleNamespace) -> None:
    """Someone looks at the gradients: what they hold must not change under them."""
    world.held = [p.grad for p in world.model.parameters()]


def convert_to_double(world: SimpleNamespace) -> None:
    world.model.double()
    world.optimizer.state.clear()


def move_options(world: SimpleNamespace) -> None:
    world.optimizer.param_groups[0]["amsgrad"] = True
    world.optimizer.state.clear()


CHANGES: dict[Any, Any] = {
    replace_data: [],
    replace_data_by_a_view: [],
    load_model: [],
    load_optimizer: [],
    clear_state: [],
    set_steps: [],
    replace_state_tensor: [],
    add_group: [],
    drop_a_parameter: [],
    toggle_requires_grad: [],
    rebind_weight: [],
    replace_layer: [],
    write_in_place: [],
    write_through_numpy: [],
    set_gradients: [],
    hold_gradients: [],
    convert_to_double: [],
    move_options: [],
}


@pytest.mark.parametrize("change", [pytest.param(one, marks=m, id=one.__name__) for one, m in CHANGES.items()])
def test_changes_between_calls(change: Any) -> None:
    def between(number: int, world: SimpleNamespace) -> None:
        if number == 2:
            change(world)

    double = change is convert_to_double
    calls = [
        lambda k=k: (drawn(6, 5, seed=k, dtype=np.float64 if double and k >= 2 else np.float32),) for k in range(5)
    ]
    check_twins(make_linear, calls, between)


@pytest.mark.parametrize(
    "change", [one for one in CHANGES if one not in (convert_to_double,)], ids=lambda f: f.__name__
)
def test_changes_before_every_call(change: Any) -> None:
    if change in (drop_a_parameter, add_group):
        pytest.skip("cannot be done twice")

    def between(number: int, world: SimpleNamespace) -> None:
        if number:
            change(world)

    plans_fail = (rebind_weight, replace_layer)
    with pytest.warns(UserWarning, match="eagerly from now on") if change in plans_fail else contextlib.nullcontext():
        check_twins(make_linear, batches(6, 5, count=6), between)


def test_one_of_two_views_of_a_storage_is_replaced() -> None:
    def make() -> SimpleNamespace:
        flat = fastbp.arange(6).float()
        world = SimpleNamespace(a=flat[:3], b=flat[3:])

        def step(x: fastbp.Tensor) -> Any:
            return x * world.a + world.b

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        if number == 1:
            world.b.data = fastbp.full((3,), 9.0)
        if number == 2:
            world.a.data = fastbp.full((3,), 7.0)

    check_twins(make, batches(3), between)


def test_a_tensor_that_is_looked_at_often_is_replaced() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=fastbp.ones(3, 4), others=[fastbp.ones(3) for _ in range(100)])

        def step(x: fastbp.Tensor) -> Any:
            y = x @ world.w.t()
            for one in world.others:
                y = y + one.view(3)
            return y + x @ world.w.t()

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        if number:
            world.w.data = fastbp.full((3, 4), float(number))

    check_twins(make, batches(2, 4), between)


@pytest.mark.parametrize("number", range(6))
def test_memory_that_is_seen_under_several_names(number: int) -> None:
    """Arguments that are one tensor, or overlap, or are the state itself."""

    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=drawn(3000, seed=4), array=np.arange(3000, dtype=np.float32))
        world.shared = fastbp.from_numpy(world.array)
        if number == 1:
            world.w = drawn(2000, seed=4)

        def step(a: fastbp.Tensor, b: fastbp.Tensor) -> Any:
            y = b * 2
            a.mul_(0.5)
            world.w.add_(y)
            world.shared.add_(1)
            return b + a, y, world.shared * 3, a.sum()

        world.step = step
        world.pick = [
            lambda: (lambda x: (x, x))(drawn(3000)),
            lambda: (lambda x: (x[:2000], x[1000:]))(drawn(3000)),
            lambda: (world.w, drawn(3000)),
            lambda: (drawn(3000), world.w),
            lambda: (world.w.view(3000), world.w),
            lambda: (world.shared, fastbp.from_numpy(world.array)),
        ][number]
        return world

    worlds: list[SimpleNamespace] = []

    def remember() -> SimpleNamespace:
        worlds.append(make())
        return worlds[-1]

    check_twins(remember, [lambda: worlds[-1].pick()] * 3)
    disjoint = lambda: (drawn(len(worlds[-1].w)), drawn(len(worlds[-1].w), seed=1))  # noqa: E731
    pick = lambda: worlds[-1].pick()  # noqa: E731
    check_twins(remember, [disjoint, pick, disjoint, pick])


def test_memory_of_two_storages_that_is_written_is_refused() -> None:
    array = np.zeros(4, np.float32)
    a, b = fastbp.from_numpy(array), fastbp.from_numpy(array)

    @fastbp.compile
    def write(x: Any) -> Any:
        a.add_(x)
        return b * 2

    with pytest.raises(RuntimeError, match="same memory"):
        write(fastbp.ones(4))
    assert array.tolist() == [0, 0, 0, 0]
    read = fastbp.compile(lambda x: a + b + x)
    assert read(fastbp.ones(4)).tolist() == [1, 1, 1, 1]


def test_seeding_inside_is_refused() -> None:
    before = fastbp.rand(2).tolist()

    @fastbp.compile
    def step(x: Any) -> Any:
        y = x + fastbp.rand(3)
        fastbp.manual_seed(3)
        return y + fastbp.rand(3)

    fastbp.manual_seed(0)
    with pytest.raises(RuntimeError, match="seed"):
        step(fastbp.ones(3))
    fastbp.manual_seed(0)
    with pytest.raises(RuntimeError, match="seed"):
        step(fastbp.ones(3))
    assert fastbp.rand(2).tolist() == before
    assert fastbp.initial_seed() == 0


@pytest.mark.parametrize(
    "look",
    [lambda g: g, lambda g: g.detach(), lambda g: g[1:], lambda g: g.numpy(), lambda g: g.t()],
    ids=["itself", "detached", "view", "numpy", "turned"],
)
def test_gradients_that_someone_holds_are_not_written_over(look: Any) -> None:
    def make() -> SimpleNamespace:
        p = drawn(3, 3, seed=1).requires_grad_()
        world = SimpleNamespace(p=p, optimizer=optim.SGD([p], lr=0.1), held=[])

        def step(x: Any) -> None:
            world.optimizer.zero_grad()
            (p * x).sum().backward()

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        if number:
            world.held.append(look(world.p.grad))

    check_twins(make, batches(3, 3), between)


def test_what_a_plan_writes_is_noticed_by_eager_graphs() -> None:
    """Versions: backward() through values that a compiled call has changed since is refused, as in eager code."""
    w, buffer = drawn(3, 3, seed=1).requires_grad_(), drawn(3, 3, seed=2)
    optimizer = optim.SGD([w], lr=0.1)

    @fastbp.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    @fastbp.compile
    def write(x: Any) -> None:
        x.mul_(2)

    step(fastbp.ones(3, 3))
    for change in (lambda: step(fastbp.ones(3, 3)), lambda: write(buffer)):
        y = ((w * buffer) @ w).sum()
        change()
        with pytest.raises(RuntimeError, match="inplace operation"):
            y.backward()


def test_modules_called_eagerly_meanwhile() -> None:
    """A module with a compiled method is used as any other."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        @fastbp.compile
        def forward(self, x: fastbp.Tensor) -> fastbp.Tensor:
            return self.layer(x).tanh()

    model = Model()
    twin = nn.Linear(3, 2)
    twin.load_state_dict(model.layer.state_dict())
    for k in range(3):
        x = drawn(4, 3, seed=k)
        model.zero_grad()
        twin.zero_grad()
        y, z = model(x), twin(x).tanh()
        y.square().sum().backward()
        z.square().sum().backward()
        assert_same(snapshot([y, model]), snapshot([z, twin]), f"call {k}")


def test_a_step_that_differentiates_at_a_constant_is_captured_once():
    """The points of func's transforms are no leaves of the step's own backward()."""
    w, x = fastbp.randn(3, requires_grad=True), fastbp.randn(3)

    @fastbp.compile
    def step():
        w.grad = None
        loss = (fastbp.func.jvp(lambda x: fastbp.tanh(w * x), (x,), (fastbp.ones(3),))[1] ** 2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        step()
    assert sum(map(len, step._entries.values())) == 1
