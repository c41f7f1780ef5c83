"""Optimizers in compiled steps, beside the same steps run eagerly: bit for bit."""

from __future__ import annotations

import copy
import pickle
import threading
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import batches, drawn, history

import fastbp
from fastbp import optim
from fastbp.utils.data import DataLoader, TensorDataset

KINDS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "adam": lambda p: optim.Adam(p, lr=0.05),
    "amsgrad": lambda p: optim.Adam(p, lr=0.05, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.1),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))

# Where each call finds another state, or makes some, the third one running has no plan any more.
may_run_eagerly = pytest.mark.filterwarnings("ignore:compile. .* runs eagerly from now on:UserWarning")


def assert_equal(found: Any, wanted: Any, where: str) -> None:
    """Two snapshots are equal, bit for bit."""
    if isinstance(wanted, np.ndarray):
        assert isinstance(found, np.ndarray) and found.dtype == wanted.dtype, where
        assert np.array_equal(found, wanted, equal_nan=True), f"{where}: {found} != {wanted}"
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted), f"{where}: {found!r} != {wanted!r}"
        for key in wanted:
            assert_equal(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            assert_equal(a, b, f"{where}[{number}]")
    else:
        assert type(found) is type(wanted) and found == wanted, f"{where}: {found!r} != {wanted!r}"


def check_same(make: Callable[[], SimpleNamespace], calls: Any, between: Any = None) -> SimpleNamespace:
    """Run a world's step eagerly and compiled; returns the compiled world."""
    wanted, _ = history(make, calls, between, compiled=False)
    found, world = history(make, calls, between, compiled=True)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert_equal(a, b, f"call {number}")
    return world


def captures(world: SimpleNamespace) -> int:
    return sum(len(entries) for entries in world.step._entries.values())


def make_world(
    step_of: Callable[[SimpleNamespace], Callable[..., Any]], optimizers: Callable[[Any, Any, Any], list[Any]]
) -> Callable[[], SimpleNamespace]:
    """Three parameters, of two dtypes, and optimizers over them."""

    def make() -> SimpleNamespace:
        world = SimpleNamespace(
            a=drawn(3, seed=40).requires_grad_(),
            b=drawn(3, seed=41).requires_grad_(),
            c=drawn(3, seed=42, dtype=np.float64).requires_grad_(),
        )
        world.optimizers = optimizers(world.a, world.b, world.c)
        world.step = step_of(world)
        return world

    return make


def descend(world: SimpleNamespace, x: fastbp.Tensor, *names: str) -> None:
    """Gradients for these parameters and None for others."""
    for one in (world.a, world.b, world.c):
        one.grad = None
    total = sum(((x * getattr(world, name)).square().sum() for name in names), fastbp.zeros(()))
    total.backward()


def one_step(world: SimpleNamespace) -> Callable[..., Any]:
    def step(x: fastbp.Tensor) -> None:
        descend(world, x, "a", "b", "c")
        for optimizer in world.optimizers:
            optimizer.step()

    return step


# ------------------------------------------------------------------------------------------- several steps in a call


def subsets(world: SimpleNamespace) -> Callable[..., Any]:
    def step(x: fastbp.Tensor) -> None:
        for names in (("a", "b", "c"), ("b",), ("c", "b")):
            descend(world, x, *names)
            world.optimizers[0].step()

    return step


def taking_turns(world: SimpleNamespace) -> Callable[..., Any]:
    """Two optimizers over one parameter, each with steps of its own."""

    def step(x: fastbp.Tensor) -> None:
        descend(world, x, "a", "b", "c")
        for number in (0, 1, 0):
            world.optimizers[number].step()

    return step


def with_closures(world: SimpleNamespace) -> Callable[..., Any]:
    def step(x: fastbp.Tensor) -> Any:
        def closure() -> Any:
            descend(world, x, "a", "c")
            return (x * world.a).sum().detach()

        first = world.optimizers[0].step(closure)
        world.optimizers[0].step()
        return first, world.optimizers[0].step(closure)

    return step


@kinds
@pytest.mark.parametrize("body", [one_step, subsets, with_closures])
def test_steps_with_different_sets_of_gradients(kind: str, body: Any) -> None:
    world = check_same(make_world(body, lambda a, b, c: [KINDS[kind]([a, b, c])]), batches(3, count=5))
    assert captures(world) <= 2


@kinds
def test_two_optimizers_over_one_parameter(kind: str) -> None:
    def optimizers(a: Any, b: Any, c: Any) -> list[Any]:
        return [KINDS[kind]([a, b]), optim.Adam([{"params": [b], "lr": 0.2}, {"params": [c]}], lr=0.01)]

    check_same(make_world(taking_turns, optimizers), batches(3, count=4))


@kinds
def test_a_parameter_that_began_later_keeps_its_own_count(kind: str) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor, names: tuple[str, ...]) -> None:
            descend(world, x, *names)
            world.optimizers[0].step()

        return step

    sets = [("a",), ("a", "b"), ("b", "c"), ("a", "b", "c"), ("a",), ("a", "b", "c")]
    calls = [lambda k=k: (drawn(3, seed=k), sets[k]) for k in range(len(sets))]
    check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b, c])]), calls)


@pytest.mark.parametrize("body", [subsets, one_step])
@kinds
def test_epoch_counts_the_steps_of_each_parameter(kind: str, body: Any) -> None:
    make = make_world(body, lambda a, b, c: [KINDS[kind]([a, b, c])])
    rows = drawn(10, 1, 3, seed=3)
    eager, world = make(), make()
    for k in range(10):
        eager.step(rows[k])
    fastbp.compile(world.step).epoch(DataLoader(TensorDataset(rows), batch_size=1))
    for name in "abc":
        assert np.array_equal(getattr(world, name).detach().numpy(), getattr(eager, name).detach().numpy()), name
        mine, theirs = world.optimizers[0].state[getattr(world, name)], eager.optimizers[0].state[getattr(eager, name)]
        assert mine.get("step") == theirs.get("step")


# ------------------------------------------------------------------------------------------- state between calls


def clear(optimizer: Any, world: SimpleNamespace) -> None:
    optimizer.state.clear()


def clear_an_entry(optimizer: Any, world: SimpleNamespace) -> None:
    optimizer.state[world.b].clear()


def delete_an_entry(optimizer: Any, world: SimpleNamespace) -> None:
    optimizer.state.pop(world.a, None)


def replace_tensors(optimizer: Any, world: SimpleNamespace) -> None:
    for entry in optimizer.state.values():
        for name in [name for name in entry if name != "step"]:
            entry[name] = entry[name] * 0.5


def delete_a_tensor(optimizer: Any, world: SimpleNamespace) -> None:
    for name in [name for name in optimizer.state[world.b] if name != "step"][:1]:
        del optimizer.state[world.b][name]


def bring_none(optimizer: Any, world: SimpleNamespace) -> None:
    if "momentum_buffer" in optimizer.state[world.a]:
        optimizer.state[world.a]["momentum_buffer"] = None


def set_a_count(optimizer: Any, world: SimpleNamespace) -> None:
    if "step" in optimizer.state[world.b]:
        optimizer.state[world.b]["step"] = 5


def count_in_tensors(optimizer: Any, world: SimpleNamespace) -> None:
    """As PyTorch keeps it."""
    for entry in optimizer.state.values():
        if "step" in entry:
            entry["step"] = fastbp.tensor(float(entry["step"]))


def bring_another_dict(optimizer: Any, world: SimpleNamespace) -> None:
    optimizer.state = defaultdict(dict, {world.c: optimizer.state[world.c]})


def load(optimizer: Any, world: SimpleNamespace) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def load_what_was(optimizer: Any, world: SimpleNamespace) -> None:
    if not hasattr(world, "saved"):
        world.saved = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(world.saved)


def swap_tensors(optimizer: Any, world: SimpleNamespace) -> None:
    one, other = optimizer.state[world.a], optimizer.state[world.b]
    for name in [name for name in one if name != "step" and name in other]:
        one[name], other[name] = other[name], one[name]


def note_more(optimizer: Any, world: SimpleNamespace) -> None:
    optimizer.state[world.a]["note"] = optimizer.state[world.a].get("note", 0) + 1


EDITS = [
    clear,
    clear_an_entry,
    delete_an_entry,
    replace_tensors,
    delete_a_tensor,
    bring_none,
    set_a_count,
    count_in_tensors,
    bring_another_dict,
    load,
    load_what_was,
    swap_tensors,
    note_more,
]
edits = pytest.mark.parametrize("edit", EDITS, ids=lambda f: f.__name__)


@kinds
@edits
def test_state_edited_between_calls_of_several_plans(kind: str, edit: Any) -> None:
    def between(number: int, world: SimpleNamespace) -> None:
        if number in (2, 3, 6):
            edit(world.optimizers[0], world)

    calls = [lambda k=k: (drawn(1 + k % 2, 3, seed=k),) for k in range(8)]
    world = check_same(make_world(one_step, lambda a, b, c: [KINDS[kind]([a, b, c])]), calls, between)
    if edit is not swap_tensors:
        assert captures(world) <= 4, "replaced state must be bound, not captured anew"


@kinds
@edits
def test_state_edited_between_eager_steps(kind: str, edit: Any) -> None:
    """The lists that an eager step keeps are beside the point: a new optimizer with that state does the same."""
    make = make_world(one_step, lambda a, b, c: [KINDS[kind]([a, b, c])])
    kept, fresh = make(), make()
    for k in range(6):
        x = drawn(2, 3, seed=k)
        if k in (2, 3, 5):
            edit(kept.optimizers[0], kept)
            edit(fresh.optimizers[0], fresh)
        kept.step(x)
        old = fresh.optimizers[0]
        fresh.optimizers[0] = KINDS[kind]([fresh.a, fresh.b, fresh.c])
        fresh.optimizers[0].state, fresh.optimizers[0].param_groups = old.state, old.param_groups
        fresh.step(x)
        for name in "abc":
            assert np.array_equal(getattr(kept, name).detach().numpy(), getattr(fresh, name).detach().numpy()), name


@kinds
def test_copies_of_an_optimizer_go_their_own_way(kind: str) -> None:
    def between(number: int, world: SimpleNamespace) -> None:
        if number == 2:
            world.a, world.b, world.c, *world.optimizers = copy.deepcopy((world.a, world.b, world.c, *world.optimizers))
        if number == 4:
            world.a, world.b, world.c, *world.optimizers = pickle.loads(
                pickle.dumps((world.a, world.b, world.c, *world.optimizers))
            )

    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor, number: int) -> None:  # a static argument: captured anew with what there is
            one_step(world)(x)

        return step

    calls = [lambda k=k: (drawn(2, 3, seed=k), k // 2) for k in range(6)]
    check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b, c])]), calls, between)


@may_run_eagerly
@pytest.mark.parametrize("kind", ["momentum", "adam", "amsgrad"])
def test_a_state_tensor_that_the_function_also_reads_is_captured_anew(kind: str) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor) -> Any:
            one_step(world)(x)
            tensors = [one for one in world.optimizers[0].state[world.a].values() if isinstance(one, fastbp.Tensor)]
            return [one * 2 for one in tensors]

        return step

    def between(number: int, world: SimpleNamespace) -> None:
        if number in (2, 3):
            replace_tensors(world.optimizers[0], world)
        if number == 4:
            clear(world.optimizers[0], world)

    check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b, c])]), batches(3, count=6), between)


@pytest.mark.parametrize("kind", ["momentum", "adam", "amsgrad"])
def test_a_state_tensor_of_another_shape_is_refused_as_by_the_eager_step(kind: str) -> None:
    make = make_world(one_step, lambda a, b, c: [KINDS[kind]([a, b, c])])
    world = make()
    step = fastbp.compile(world.step)
    step(drawn(3))
    entry = world.optimizers[0].state[world.a]
    name = next(name for name in entry if name != "step")
    right = entry[name]
    entry[name] = fastbp.zeros(4)
    before = world.a.detach().clone()
    with pytest.raises(RuntimeError):
        step(drawn(3))
    assert fastbp.equal(world.a, before)
    entry[name] = right
    step(drawn(3))


@kinds
def test_a_run_that_fails_leaves_state_and_counts_as_they_were(kind: str) -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=drawn(3, 4, seed=1).requires_grad_())
        world.optimizer = KINDS[kind]([world.w])

        def step(x: fastbp.Tensor, y: fastbp.Tensor) -> None:
            world.optimizer.zero_grad()
            fastbp.nn.functional.cross_entropy(x @ world.w, y).backward()
            world.optimizer.step()

        world.step = step
        return world

    good, bad = fastbp.tensor([1, 2]), fastbp.tensor([1, 9])
    world, eager = make(), make()
    step = fastbp.compile(world.step)
    x = drawn(2, 3)
    for cleared in (False, False, True):
        if cleared:
            world.optimizer.state.clear()
            eager.optimizer.state.clear()
        before = {key: dict(entry) for key, entry in world.optimizer.state.items()}
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            step(x, bad)
        assert {key: dict(entry) for key, entry in world.optimizer.state.items()} == before
        step(x, good)
        eager.step(x, good)
        assert np.allclose(world.w.detach().numpy(), eager.w.detach().numpy(), rtol=1e-6, atol=1e-6)
        for name, value in eager.optimizer.state[eager.w].items():
            if name == "step":
                assert world.optimizer.state[world.w]["step"] == value


# ------------------------------------------------------------------------------------------- steps of one's own


class Own(optim.Optimizer):
    """A `step()` in Python, with the options that the functions below read."""

    def __init__(self, params: Any, update: Callable[..., None], **options: Any) -> None:
        defaults = {
            "lr": 0.1,
            "momentum": 0.9,
            "betas": (0.9, 0.99),
            "eps": 1e-3,
            "weight_decay": 0.0,
            "nesterov": False,
        }
        super().__init__(params, {**defaults, **options})
        self.update, self.scale, self.mode = update, 0.5, "plain"

    @fastbp.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(self, group, p, p.grad)


def by_add(own: Own, group: Any, p: Any, g: Any) -> None:
    p.add_(g, alpha=-group["lr"])


def by_operators(own: Own, group: Any, p: Any, g: Any) -> None:
    p -= group["lr"] * (g + group["weight_decay"] * p) / (1 - group["eps"])


def by_data(own: Own, group: Any, p: Any, g: Any) -> None:
    p.copy_(p.data - group["lr"] * g)


def by_momentum(own: Own, group: Any, p: Any, g: Any) -> None:
    state = own.state[p]
    if "buffer" not in state:
        state["buffer"] = fastbp.zeros_like(p)
    state["buffer"].mul_(group["momentum"]).add_(g)
    d = g.add(state["buffer"], alpha=group["momentum"]) if group["nesterov"] else state["buffer"]
    p.sub_(d, alpha=group["lr"])


def by_moments(own: Own, group: Any, p: Any, g: Any) -> None:
    state = own.state[p]
    if len(state) == 0:
        state["step"] = 0
        state["m"], state["v"] = fastbp.zeros_like(p), fastbp.zeros_like(p)
    state["step"] += 1
    beta1, beta2 = group["betas"]
    if group["weight_decay"] != 0:
        g = g.add(p, alpha=group["weight_decay"])
    state["m"].mul_(beta1).add_(g, alpha=1 - beta1)
    state["v"].mul_(beta2).addcmul_(g, g, value=1 - beta2)
    correction1, correction2 = 1 - beta1 ** state["step"], 1 - beta2 ** state["step"]
    p.addcdiv_(state["m"], (state["v"].sqrt() / correction2**0.5).add_(group["eps"]), value=-group["lr"] / correction1)


def by_cases(own: Own, group: Any, p: Any, g: Any) -> None:
    if group["lr"] > 0.07:
        p.sub_(g.sign() * group["lr"])
    else:
        p.sub_(g * group["lr"] * int(10 * group["momentum"]))


def by_bounds(own: Own, group: Any, p: Any, g: Any) -> None:
    p.sub_(g.clamp(-group["lr"], group["lr"]).lerp(g, group["eps"]) + g.abs() ** group["lr"] * float(group["eps"]))


def with_decay(own: Own, group: Any, p: Any, g: Any) -> None:
    p.sub_(g, alpha=group["lr"])
    group["lr"] *= 0.9
    group["eps"] = 0.5


def functional(own: Own, group: Any, p: Any, g: Any) -> None:
    """New tensors at each step: no plan writes into Python's dicts."""
    state = own.state[p]
    state["m"] = group["momentum"] * state["m"] + g if "m" in state else g.clone()
    p.sub_(group["lr"] * state["m"])


def by_attributes(own: Own, group: Any, p: Any, g: Any) -> None:
    own.count = getattr(own, "count", 0) + 1  # type: ignore[attr-defined]
    p.sub_(g * (own.scale / own.count))  # type: ignore[attr-defined]


UPDATES = [
    by_add,
    by_operators,
    by_data,
    by_momentum,
    by_moments,
    by_cases,
    by_bounds,
    by_attributes,
    with_decay,
    functional,
]
updates = pytest.mark.parametrize("update", UPDATES, ids=lambda f: f.__name__)


def own(update: Any) -> Callable[[], SimpleNamespace]:
    def optimizers(a: Any, b: Any, c: Any) -> list[Any]:
        return [Own([{"params": [a, b]}, {"params": [c], "lr": 0.02, "weight_decay": 0.5}], update)]

    return make_world(one_step, optimizers)


def set_options(**options: Any) -> Callable[[int, SimpleNamespace], None]:
    """Before call k, the k-th of each option's values, in the first group."""

    def between(number: int, world: SimpleNamespace) -> None:
        for name, values in options.items():
            world.optimizers[0].param_groups[0][name] = values[number]

    return between


@may_run_eagerly
@updates
def test_an_own_step(update: Any) -> None:
    check_same(own(update), batches(3, count=6))


@may_run_eagerly
@updates
def test_options_that_change_from_outside(update: Any) -> None:
    between = set_options(
        lr=[0.1, 0.08, 0.06, 0.03, 0.08, 1, 0.0],
        betas=[(0.9, 0.99), (0.9, 0.99), (0.8, 0.9), (0.8, 0.9), (0.0, 0.5), (0.5, 0.0), (0.9, 0.99)],
        weight_decay=[0, 0.0, 0.1, 0.1, 0.0, 0.2, 0.0],
        nesterov=[False, False, True, True, False, False, True],
        momentum=[0.9, 0.8, 0.8, 0.5, 0.0, 0.1, 0.9],
    )
    check_same(own(update), batches(3, count=7), between)


@pytest.mark.parametrize("update", [by_add, by_operators, by_data, by_moments], ids=lambda f: f.__name__)
def test_a_schedule_needs_one_plan(update: Any) -> None:
    between = set_options(lr=[0.1 / (k + 1) for k in range(20)], eps=[0.01 / (k + 1) for k in range(20)])
    world = check_same(own(update), batches(3, count=20), between)
    assert captures(world) == 1


def test_attributes_of_an_optimizer_that_change_from_outside() -> None:
    def update(own: Own, group: Any, p: Any, g: Any) -> None:
        own.calls = getattr(own, "calls", 0) + 1  # type: ignore[attr-defined]
        p.sub_(g.sign() if own.mode == "sign" else g, alpha=own.scale / own.calls)  # type: ignore[attr-defined]

    def between(number: int, world: SimpleNamespace) -> None:
        world.optimizers[0].scale = 0.1 * number
        world.optimizers[0].mode = "sign" if number in (3, 4) else "plain"
        if number == 5:
            world.optimizers[0].calls = 0
        if number == 6:
            world.optimizers[0].note = "new"

    world = check_same(own(update), batches(3, count=8), between)
    assert world.optimizers[0].calls == 3 * 3


def test_a_step_that_counts_before_it_looks_at_the_groups() -> None:
    class Counting(optim.Adam):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.1)
            self.count = 0

        def step(self, closure: Any = None) -> Any:
            self.count += 1
            result = super().step(closure)
            for group in self.param_groups:
                group["lr"] = 0.1 / (1 + self.count)
            return result

    world = check_same(make_world(one_step, lambda a, b, c: [Counting([a, b, c])]), batches(3, count=6))
    assert world.optimizers[0].count == 6 and captures(world) <= 2


def test_numbers_of_numpy_are_numbers() -> None:
    between = set_options(lr=[np.float64(0.1) / (k + 1) for k in range(6)], eps=[0.25] * 6)
    world = check_same(own(by_operators), batches(3, count=6), between)
    assert captures(world) == 1


def test_only_decisions_are_captured_anew() -> None:
    between = set_options(lr=[0.1, 0.09, 0.08, 0.05, 0.04, 0.1, 0.05])
    world = check_same(own(by_cases), batches(3, count=7), between)
    assert captures(world) == 2


@updates
def test_an_epoch_of_an_own_step(update: Any) -> None:
    make = own(update)
    rows = drawn(12, 1, 3, seed=3)
    eager, world = make(), make()
    for k in range(12):
        eager.step(rows[k])
    step = fastbp.compile(world.step)
    for k in range(2):  # which may make state
        step(rows[k])
    if update is not functional:
        step.epoch(DataLoader(TensorDataset(rows[2:]), batch_size=1))
        for name in "abc":
            assert np.array_equal(getattr(world, name).detach().numpy(), getattr(eager, name).detach().numpy()), name
        assert [g["lr"] for g in world.optimizers[0].param_groups] == [
            g["lr"] for g in eager.optimizers[0].param_groups
        ]


@may_run_eagerly
@updates
def test_state_of_an_own_step_edited(update: Any) -> None:
    def between(number: int, world: SimpleNamespace) -> None:
        optimizer = world.optimizers[0]
        if number == 3:
            optimizer.state.clear()
        if number == 4:
            replace_tensors(optimizer, world)
        if number == 5 and optimizer.state[world.a].get("step"):
            optimizer.state[world.a]["step"] = 9
        if number == 6:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    check_same(own(update), batches(3, count=8), between)


@kinds
def test_options_that_the_function_sets_around_the_step(kind: str) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor) -> Any:
            group = world.optimizers[0].param_groups[0]
            descend(world, x, "a", "b")
            group["lr"] *= 0.5
            world.optimizers[0].step()
            group["lr"] = group["lr"] * 2 - 1e-3
            group["weight_decay"] = 0.25
            world.optimizers[0].step()
            return x * group["lr"]

        return step

    world = check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b, c])]), batches(3, count=5))
    assert captures(world) <= 2


@pytest.mark.parametrize("kind", ["momentum", "adam", "amsgrad"])
def test_the_function_reads_counts_of_a_step(kind: str) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor, first: bool) -> Any:
            entry = world.optimizers[0].state[world.a] if first else {}
            before = entry.get("step", 0)
            one_step(world)(x)
            between = entry.get("step", 0)
            world.optimizers[0].step()
            return x * before, x * between, x * world.optimizers[0].state[world.a].get("step", 0)

        return step

    calls = [lambda k=k: (drawn(3, seed=k), k % 2 == 0) for k in range(8)]

    check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b])]), calls)


def test_a_layout_that_the_function_chooses() -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor) -> None:
            group = world.optimizers[0].param_groups[0]
            descend(world, x, "a", "b")
            group["momentum"] = group["dampening"] * 2
            world.optimizers[0].step()

        return step

    between = set_options(dampening=[0.0, 0.25, 0.3, 0.0, 0.0, 0.4])
    world = check_same(make_world(step_of, lambda a, b, c: [KINDS["sgd"]([a, b, c])]), batches(3, count=6), between)
    assert captures(world) == 2


@kinds
@pytest.mark.parametrize("written", [False, True])
@may_run_eagerly
def test_an_option_that_is_a_tensor(kind: str, written: bool) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        world.optimizers[0].param_groups[0]["lr"] = world.lr = fastbp.tensor(0.25)

        def step(x: fastbp.Tensor) -> None:
            descend(world, x, "a", "b")
            world.optimizers[0].step()
            if written:
                world.lr.mul_(0.5)
                world.optimizers[0].step()

        return step

    def between(number: int, world: SimpleNamespace) -> None:
        if number == 2:
            world.lr.fill_(0.5)
        if number == 3:
            world.optimizers[0].param_groups[0]["lr"] = 0.125

    check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b, c])]), batches(3, count=5), between)


@may_run_eagerly
@pytest.mark.parametrize("kind", ["adam", "amsgrad"])
def test_counts_and_state_that_the_function_sets(kind: str) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor, what: str) -> None:
            optimizer = world.optimizers[0]
            if what == "count":
                optimizer.state[world.a]["step"] = 3
            elif what == "clear":
                optimizer.state.clear()
            elif what == "tensor":
                optimizer.state[world.b]["exp_avg"] = fastbp.ones(3)
            elif what == "group":
                optimizer.param_groups[0] = dict(optimizer.param_groups[0], lr=0.3)
            elif what == "load":
                optimizer.load_state_dict(optimizer.state_dict())
            one_step(world)(x)
            if what == "count after":
                optimizer.state[world.a]["step"] = 3
            elif what == "clear after":
                optimizer.state.clear()
            elif what == "tensor after":
                optimizer.state[world.b]["exp_avg"] = fastbp.ones(3)
            elif what == "note after":
                optimizer.state[world.b]["note"] = 3

        return step

    words = ["clear after", "", "", "count", "count", "clear", "clear", "tensor", "group", "group", "load", ""]
    words += [
        "count after",
        "count after",
        "clear after",
        "",
        "tensor after",
        "tensor after",
        "note after",
        "note after",
        "",
    ]
    calls = [lambda k=k: (drawn(3, seed=k), words[k]) for k in range(len(words))]
    check_same(make_world(step_of, lambda a, b, c: [KINDS[kind]([a, b, c])]), calls)


@may_run_eagerly
def test_numbers_of_an_optimizer_in_a_function_with_a_derivative() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=drawn(3, seed=1).requires_grad_())
        world.optimizers = [optim.SGD([world.w], lr=0.1)]
        world.step = lambda x: (x * world.w).square().sum() * world.optimizers[0].param_groups[0]["lr"]
        return world

    eager, world = make(), make()
    step = fastbp.compile(world.step)
    for k in range(4):
        for one, function in ((eager, eager.step), (world, step)):
            one.optimizers[0].zero_grad()
            one.optimizers[0].param_groups[0]["lr"] = 0.1 * (k + 1)
            function(drawn(3, seed=k)).backward()
        assert np.array_equal(world.w.grad.numpy(), eager.w.grad.numpy())
    assert captures(SimpleNamespace(step=step)) == 1
    late = step(drawn(3))
    world.optimizers[0].param_groups[0]["lr"] = 7.0
    step(drawn(3))
    with pytest.raises(RuntimeError, match=r"in.place|modified"):  # the plan has one place for the number
        late.backward()


def test_a_number_that_is_kept_is_a_number() -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        world.kept = []

        def step(x: fastbp.Tensor) -> None:
            one_step(world)(x)
            world.kept.append(world.optimizers[0].param_groups[0]["lr"])

        return step

    world = make_world(step_of, lambda a, b, c: [KINDS["sgd"]([a, b, c])])()
    fastbp.compile(world.step)(drawn(3))
    lr = world.kept[0]
    assert isinstance(lr, float) and lr == 0.1 and lr * 2 == 0.2 and f"{lr:.2f}" == "0.10" and hash(lr) == hash(0.1)
    assert type(lr + 0) is float and type(pickle.loads(pickle.dumps(lr))) is float
    assert fastbp.equal(fastbp.ones(2) * lr, fastbp.full((2,), 0.1))
    assert type(world.optimizers[0].param_groups[0]["lr"]) is float


@pytest.mark.parametrize("update", [by_moments, with_decay, by_momentum], ids=lambda f: f.__name__)
def test_a_capture_that_fails_leaves_groups_and_state(update: Any) -> None:
    def step_of(world: SimpleNamespace) -> Callable[..., Any]:
        def step(x: fastbp.Tensor, fail: bool) -> None:
            one_step(world)(x)
            if fail:
                raise KeyError("in the middle")

        return step

    def optimizers(a: Any, b: Any, c: Any) -> list[Any]:
        return [Own([a, b, c], update)]

    world = make_world(step_of, optimizers)()
    step = fastbp.compile(world.step)
    for k in range(3):
        optimizer = world.optimizers[0]
        entries = {key: dict(entry) for key, entry in optimizer.state.items() if entry}
        groups = [dict(group) for group in optimizer.param_groups]
        if k:
            with pytest.raises(KeyError):
                step(drawn(2, 3, seed=9), True)
            assert {key: dict(entry) for key, entry in optimizer.state.items() if entry} == entries
            assert [dict(group) for group in optimizer.param_groups] == groups
        step(drawn(3, seed=k), False)


USES: dict[str, Callable[[Any, Any], Any]] = {
    "set elements": lambda x, n: x.clone().index_fill_(0, fastbp.tensor([0]), 0.5).mul_(n),
    "set an item": lambda x, n: _with_item(x, 0, n),
    "set where": lambda x, n: _with_item(x, x > 0, n),
    "where": lambda x, n: fastbp.where(x > 0, n, x),
    "compare": lambda x, n: (x > n, n < x, x == n, n >= x),
    "fill": lambda x, n: x.clone().fill_(n),
    "full": lambda x, n: fastbp.full((2,), n) + fastbp.full_like(x, n)[:1],
    "tensor": lambda x, n: (fastbp.tensor(n), fastbp.tensor([n, 1.0]), fastbp.as_tensor(n)),
    "arange": lambda x, n: (fastbp.arange(0, 1, n), fastbp.linspace(0, n, 3)),
    "clamp": lambda x, n: (x.clamp(-n, n), x.clamp(min=n), x.long().clamp(max=n), fastbp.clip(x, n)),
    "power": lambda x, n: (x**2**n, n**x, x.abs().pow(n), fastbp.pow(n, x)),
    "divide": lambda x, n: (x / n, n / x, x // n, x % n, fastbp.div(x, n, rounding_mode="trunc")),
    "whole": lambda x, n: (x.long() * n, x.long() + n, x.long() // n, n - x.long()),
    "lerp": lambda x, n: x.lerp(x * 2, n).addcmul(x, x, value=n).addcdiv(x, x.exp(), value=-n),
    "addmm": lambda x, n: fastbp.addmm(fastbp.ones(1, 1), x.view(1, 3), x.view(3, 1), beta=n, alpha=n),
    "leaky": lambda x, n: (fastbp.nn.functional.leaky_relu(x, n), fastbp.nn.functional.elu(x, n)),
    "double": lambda x, n: x.double() * n + n,
    "add": lambda x, n: (x.add(x, alpha=n), x.sub(n), x.add(n), fastbp.add(x, n, alpha=2), fastbp.sub(x, x, alpha=n)),
    "numbers": lambda x, n: x * (abs(-n) + n % 0.03 + n // 0.03 + 2**n - (+n) / 3 + divmod(n, 0.03)[1] + round(n, 2)),
    "decide": lambda x, n: x * (int(n * 20) + (n and 3) + max(n, 0.06) + min(1, n) + sorted([n, 0.04])[0]),
    "words": lambda x, n: x * len(f"{n:.3f}") + float(str(n)) + n.is_integer() + hash(n) % 7 + {0.1: 2}.get(n, 5),
    "numpy": lambda x, n: x * (np.float64(2) * n - np.float64(1)) + np.array([n, 1.0]).sum() + float(np.sqrt(n)),
    "whole numbers": lambda x, n: x[: int(n * 20)].sum() + sum(range(int(n * 30))),
    "cat": lambda x, n: fastbp.cat([x, x * n]).sum() * n,
}


def _with_item(x: Any, index: Any, value: Any) -> Any:
    y = x.clone()
    y[index] = value
    return y


@pytest.mark.parametrize("name", list(USES))
def test_uses_of_a_number(name: str) -> None:
    """All that can be done with a number follows it, or is captured anew when it changes."""

    def make() -> SimpleNamespace:
        world = SimpleNamespace(optimizer=optim.SGD([fastbp.zeros(1, requires_grad=True)], lr=0.1, momentum=3))

        def step(x: fastbp.Tensor) -> Any:
            group = world.optimizer.param_groups[0]
            return USES[name](x, group["lr"]), x * group["momentum"] // group["momentum"]

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        world.optimizer.param_groups[0]["lr"] = (0.1, 0.1, 0.05, 0.05, 0.2)[number]

    check_same(make, [lambda k=k: (drawn(3, seed=k),) for k in range(5)], between)


@pytest.mark.parametrize("update", [by_moments, by_attributes, None], ids=str)
def test_threads_that_share_a_step(update: Any) -> None:
    """No step is lost, whichever thread takes it."""

    def optimizers(a: Any, b: Any, c: Any) -> list[Any]:
        return [Own([a, b, c], update) if update else KINDS["adam"]([a, b, c])]

    world = make_world(one_step, optimizers)()
    world.optimizers[0].count = 0
    step = fastbp.compile(world.step)
    for _ in range(2):
        step(drawn(3))
    threads = [threading.Thread(target=lambda: [step(drawn(3)) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if update is by_attributes:
        assert world.optimizers[0].count == 3 * 202
    else:
        assert {entry["step"] for entry in world.optimizers[0].state.values()} == {202}
