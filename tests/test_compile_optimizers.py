"""Optimizers in compiled steps, beside the same steps run eagerly: bit for bit."""

from __future__ import annotations

import copy
import pickle
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
            world.a, world.b, world.c, *world.optimizers = copy.deepcopy(
                (world.a, world.b, world.c, *world.optimizers)
            )
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


@kinds
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
