"""Calls for which no plan can stand: the function itself runs, with the results and effects of eager code."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import numbers

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, nn, optim
from fastbp.utils.data import DataLoader, TensorDataset

calls_of_global = 0


def counting_module() -> tuple[Any, Any]:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.counter = 0

        def forward(self, x: Any) -> Any:
            self.counter += 1
            return x * self.counter

    net = Net()
    return net, lambda: net.counter


def counting_a_variable() -> tuple[Any, Any]:
    counter = 0

    def step(x: Any) -> Any:
        nonlocal counter
        counter += 1
        return x * counter

    return step, lambda: counter


def counting_a_global() -> tuple[Any, Any]:
    global calls_of_global
    calls_of_global = 0

    def step(x: Any) -> Any:
        global calls_of_global
        calls_of_global += 1
        return x * calls_of_global

    return step, lambda: calls_of_global


def counting_in_a_dict() -> tuple[Any, Any]:
    counts: dict[str, int] = {}

    def step(x: Any) -> Any:
        counts["counter"] = counts.get("counter", 0) + 1
        return x * counts["counter"]

    return step, lambda: counts.get("counter", 0)


def counting_in_a_class() -> tuple[Any, Any]:
    class Step:
        counter = 0

        def __call__(self, x: Any) -> Any:
            Step.counter += 1
            return x * Step.counter

    return Step(), lambda: Step.counter


def counting_in_a_hook() -> tuple[Any, Any]:
    counter, model = 0, nn.Sequential(nn.Identity())

    def hook(module: Any, args: Any, result: Any) -> Any:
        nonlocal counter
        counter += 1
        return result * counter

    model[0].register_forward_hook(hook)
    return model, lambda: counter


def counting_in_a_method() -> tuple[Any, Any]:
    class Own:
        def __init__(self) -> None:
            self.counter = 0

        @fastbp.compile
        def run(self, x: Any) -> Any:
            self.counter += 1
            return x * self.counter

    own = Own()
    return own.run, lambda: own.counter


COUNTING = [
    counting_module,
    counting_a_variable,
    counting_a_global,
    counting_in_a_dict,
    counting_in_a_class,
    counting_in_a_hook,
    counting_in_a_method,
]


@pytest.mark.parametrize("make", COUNTING, ids=lambda make: make.__name__)
def test_what_counts_its_calls_runs_eagerly(make: Callable[[], tuple[Any, Any]]) -> None:
    function, count = make()
    compiled = fastbp.compile(function)
    with pytest.warns(UserWarning, match="from now on: it changes .*(counter|calls_of_global)") as caught:
        for number in range(1, 6):
            assert compiled(fastbp.ones(1)).item() == number
            assert count() == number and compiled.plan is None
            assert len(caught) == (number >= 3)
    assert caught[0].filename == __file__


def test_what_is_set_up_at_the_first_call_has_a_plan_at_the_second() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape: Any = None

        def forward(self, x: Any) -> Any:
            if not hasattr(self, "layer"):
                self.layer = nn.Linear(3, 1)
                self.register_buffer("seen", fastbp.ones(1))
            self.shape = tuple(x.shape)
            return self.layer(x) + self.seen

    model = Lazy()
    compiled, x = fastbp.compile(model), fastbp.ones(2, 3)
    first = compiled(x)
    assert compiled.plan is None and [name for name, _ in model.named_parameters()] == ["layer.weight", "layer.bias"]
    assert numbers(compiled(x)) == numbers(first) and compiled.plan is not None
    model.shape = None  # set again by the function, which a plan would not do
    assert numbers(compiled(x)) == numbers(first) and model.shape == (2, 3)


def test_a_tensor_that_is_kept_under_a_name_is_one_with_values() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden: Any = None

        def forward(self, x: Any) -> Any:
            self.hidden = x if self.hidden is None else self.hidden * 0.5 + x
            return self.hidden

    found, wanted = Recurrent(), Recurrent()
    compiled = fastbp.compile(found)
    with pytest.warns(UserWarning, match="hidden of Recurrent"):
        for value in (1.0, 2.0, 3.0, 4.0):
            x = fastbp.full((2,), value)
            assert numbers(compiled(x)) == numbers(wanted(x)) == numbers(found.hidden)


def test_a_capture_that_raises_leaves_parameters_and_buffers_alone() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails, self.layer = True, nn.Linear(2, 2)
            self.register_buffer("mean", fastbp.zeros(2))

        def forward(self, x: Any) -> Any:
            if self.fails:
                self.mean, self.layer = x * 2, nn.Linear(2, 1)
                self.register_buffer("other", x * 3)
                del self.layer
                self.fails = False
                raise KeyError("once")
            return self.layer(x) + self.mean

    model = Failing()
    layer, compiled, x = model.layer, fastbp.compile(model), fastbp.ones(2)
    with pytest.raises(KeyError, match="once"):
        compiled(x)
    assert model.layer is layer and list(model.state_dict()) == ["mean", "layer.weight", "layer.bias"]
    assert model.mean.tolist() == [0, 0] and not model.fails
    assert numbers(compiled(x)) == numbers(model(x)) and compiled.plan is not None


def test_modules_made_inside_are_no_state() -> None:
    def function(x: Any) -> Any:
        model = nn.Sequential(nn.Tanh(), nn.ModuleDict({"a": nn.ELU()})["a"])
        model.gain = 3.0
        model[0].register_forward_hook(lambda module, args, y: y * 2)
        return model(x) * model.gain

    compiled, x = fastbp.compile(function), fastbp.randn(3)
    assert numbers(compiled(x)) == numbers(function(x)) == numbers(compiled(x))
    assert compiled.plan is not None


# ---- guards that fail again and again ------------------------------------------------------------------------------


def test_a_guard_that_fails_at_three_calls_running() -> None:
    model = nn.Sequential(nn.LeakyReLU())
    compiled, x = fastbp.compile(model), fastbp.tensor([-1.0, 1.0])
    for number in range(4):
        model[0].negative_slope = float(number)
        if number < 3:
            assert numbers(compiled(x)) == numbers(model(x)) and compiled.plan is not None
    with pytest.warns(UserWarning, match=r"negative_slope of LeakyReLU was \d.0 and is 3.0"):
        assert numbers(compiled(x)) == numbers(model(x))
    for number in (4.0, 4.0, 5.0):
        model[0].negative_slope = number
        assert numbers(compiled(x)) == numbers(model(x)) and compiled.plan is None


def test_what_does_not_count_as_failing() -> None:
    """Switching back and forth, several new states, new shapes, first gradients, calls in between that fit."""
    model, w = nn.Sequential(nn.LeakyReLU(), nn.Dropout(0.0)), fastbp.ones(2, requires_grad=True)

    @fastbp.compile
    def step(x: Any) -> Any:
        loss = (model(x) * w).sum()
        loss.backward()
        return loss.detach()

    for number in range(12):
        model.train(number % 2 == 0)
        model[0].negative_slope = (0.1, 0.2)[number // 2 % 2]
        step(fastbp.ones(2))
        assert step.plan is not None
    for number in range(5):
        step(fastbp.ones(number + 3, 2))
        model[0].negative_slope = 1.0 + number  # another value each time, and used twice
        for _ in range(2):
            step(fastbp.ones(2))
            assert step.plan is not None


def test_an_optimizer_that_is_changed_before_each_call() -> None:
    w = fastbp.ones(2, requires_grad=True)
    optimizer = optim.Adam([w])

    @fastbp.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its new state is bound, one plan serves all calls
        for _ in range(6):
            step()
            optimizer.state.clear()


# ---- RunEagerly ----------------------------------------------------------------------------------------------------


def wishing(where: str, wishes: list[bool]) -> Any:
    """A training step that asks for an eager run as long as there are wishes, in a capture."""
    fastbp.manual_seed(3)
    world = SimpleNamespace(w=fastbp.ones(3, requires_grad=True), buffer=fastbp.zeros(3))
    optimizer = optim.SGD([world.w], lr=0.1, momentum=0.9)

    def wish() -> None:
        if wishes and _core.capturing():
            raise _core.RunEagerly("it was asked for", forever=wishes.pop(0))

    def hook(gradient: Any) -> None:
        if where == "hook":
            wish()

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        world.buffer.add_(x)
        loss = (F.dropout(world.w * x, 0.5)).square().sum()
        loss.register_hook(hook)
        loss.backward()
        optimizer.step()
        try:
            if where != "hook":
                wish()
        except Exception:
            raise AssertionError("an exception like any other") from None
        except BaseException:
            if where != "caught":
                raise
        return loss.detach()

    return world, optimizer, step


@pytest.mark.parametrize("where", ["function", "hook", "caught"])
def test_a_wish_to_run_eagerly(where: str) -> None:
    found, wanted = wishing(where, [False, False]), wishing(where, [])
    compiled = fastbp.compile(found[2])
    for number in range(4):
        x = fastbp.full((3,), 1.0 + number)
        results = []
        for state, step in ((found, compiled), (wanted, wanted[2])):
            fastbp.manual_seed(number)
            results.append(numbers([step(x), state[0].w, state[0].w.grad, state[0].buffer, fastbp.randn(1)]))
        assert results[0] == results[1]
        assert (compiled.plan is None) == (number < 2)
    assert numbers(list(found[1].state[found[0].w].values())) == numbers(list(wanted[1].state[wanted[0].w].values()))


@pytest.mark.parametrize("wishes", [[True], [False] * 3])
def test_a_wish_for_ever(wishes: list[bool]) -> None:
    calls = len(wishes)
    _, _, step = wishing("function", wishes)
    compiled = fastbp.compile(step)
    for _ in range(calls - 1):
        compiled(fastbp.ones(3))
    with pytest.warns(UserWarning, match="runs eagerly from now on: it was asked for$"):
        compiled(fastbp.ones(3))
    compiled(fastbp.ones(3))
    assert compiled.plan is None and not wishes


def test_arrays_are_tensors_in_an_eager_run() -> None:
    @fastbp.compile
    def step(x: Any) -> Any:
        if _core.capturing():
            raise _core.RunEagerly("it was asked for", True)
        assert isinstance(x["a"][0], fastbp.Tensor)
        return x["a"][0].add_(1)

    array = np.zeros(2, dtype=np.float32)
    with pytest.warns(UserWarning, match="asked for"):
        assert step({"a": [array]}).tolist() == [1, 1]
    assert array.tolist() == [1, 1]


def test_profile_and_check_say_why_there_is_no_plan() -> None:
    function, _ = counting_a_variable()
    compiled = fastbp.compile(function)
    for look in (compiled.profile, lambda x: fastbp.testing.check_compiled(function, x)):
        with pytest.raises(RuntimeError, match=r"runs eagerly: it changes state .*counter"):
            look(fastbp.ones(1))


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_runs_eagerly(shuffle: bool) -> None:
    data = TensorDataset(fastbp.arange(22.0).reshape(11, 2), fastbp.arange(11))

    def run(wrap: Any) -> Any:
        fastbp.manual_seed(0)
        w, calls = fastbp.ones(2, requires_grad=True), SimpleNamespace(count=0)

        def step(x: Any, y: Any) -> Any:
            calls.count += 1
            w.grad = None
            loss = (x * w).sum() * calls.count + y.sum()
            loss.backward()
            with fastbp.no_grad():
                w.sub_(w.grad, alpha=0.01)
            return {"loss": loss.detach(), "rows": x + 0, "name": "a"}

        return wrap(step), w, DataLoader(data, batch_size=4, shuffle=shuffle)

    step, w, loader = run(lambda step: step)
    wanted = [step(*batch) for batch in loader]
    compiled, found_w, loader = run(fastbp.compile)
    with pytest.warns(UserWarning, match="eagerly from now on: it changes state"):
        found = compiled.epoch(loader)
    assert found["loss"].tolist() == [one["loss"].item() for one in wanted] and found["name"] == "a"
    assert [one.tolist() for one in found["rows"]] == [one["rows"].tolist() for one in wanted]
    assert numbers(found_w) == numbers(w) and compiled.plan is None


# ---- arguments -----------------------------------------------------------------------------------------------------


def test_a_tensor_kept_from_a_capture_is_no_argument() -> None:
    kept: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastbp.compile(lambda x: kept.append(x * 2))(fastbp.ones(3))
    compiled = fastbp.compile(lambda x, y: x.mul_(2) + y)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"shape \(3,\) was made while another function was compiled"):
            compiled(kept[0], fastbp.ones(3))
        assert compiled(fastbp.ones(3), fastbp.ones(3)).tolist() == [3, 3, 3]
    with pytest.raises(RuntimeError, match="was made while another function was compiled"):
        compiled(fastbp.ones(3), y=kept[0])


def test_an_argument_with_hooks_runs_them() -> None:
    seen: list[Any] = []

    @fastbp.compile
    def step(x: Any) -> None:
        (x * 2).sum().backward()

    for number in range(6):
        x = fastbp.ones(2, requires_grad=True)
        handle = x.register_hook(lambda gradient: seen.append(gradient.tolist()) or gradient * 3)
        if number % 2:
            handle.remove()
        step(x)
        assert x.grad.tolist() == ([2, 2] if number % 2 else [6, 6])
        assert (step.plan is not None) == bool(number % 2)
    assert seen == [[2, 2]] * 3


# ---- what a function does to its arguments, returns, or draws --------------------------------------------------------


def test_lists_and_dicts_among_the_arguments_are_changed() -> None:
    def step(batch: dict[str, Any], seen: list[Any]) -> Any:
        target = batch.pop("target")
        batch["sum"] = batch["x"] + target
        seen.append(batch["sum"] * 2)
        return seen[-1] + target

    compiled, array = fastbp.compile(step), np.ones(2, np.float32)
    with pytest.warns(UserWarning, match="from now on: it changes a list or a dict among its arguments"):
        for x in (fastbp.ones(2), array, fastbp.ones(2), array):
            batch, seen = {"x": x, "target": fastbp.ones(2)}, [x]
            assert compiled(batch, seen).tolist() == [5.0, 5.0]
            assert list(batch) == ["x", "sum"] and batch["x"] is x and batch["sum"].tolist() == [2.0, 2.0]
            assert len(seen) == 2 and seen[0] is x and seen[1].tolist() == [4.0, 4.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda y: SimpleNamespace(value=[y]),
        lambda y: (one for one in [y]),
        lambda y: {"map": map(lambda one: one * 1, [y])},
        lambda y: lambda: y,
        lambda y: frozenset([y]),
    ],
    ids=["object", "generator", "iterator", "function", "set"],
)
def test_objects_that_hold_results_are_made_anew(make: Callable[[Any], Any]) -> None:
    def value(result: Any) -> float:
        result = result["map"] if isinstance(result, dict) else result
        if isinstance(result, SimpleNamespace):
            return result.value[0].item()  # type: ignore[no-any-return]
        return (result() if callable(result) else next(iter(result))).item()  # type: ignore[no-any-return]

    compiled = fastbp.compile(lambda x: make(x * 2))
    with pytest.warns(UserWarning, match="from now on: it returns a"):
        assert [value(compiled(fastbp.tensor(float(k)))) for k in range(3)] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize("draw", [random.random, np.random.rand], ids=["random", "numpy.random"])
def test_numbers_that_python_draws_are_drawn_at_each_call(draw: Callable[[], float]) -> None:
    def numbers_of(step: Any) -> list[float]:
        random.seed(1)
        np.random.seed(1)
        return [step(fastbp.ones((), dtype=fastbp.float64)).item() for _ in range(5)]

    with pytest.warns(UserWarning, match="from now on: it draws from"):
        assert numbers_of(fastbp.compile(lambda x: x * draw())) == numbers_of(lambda x: x * draw())


@pytest.mark.parametrize("place", ["variable", "attribute", "argument", "default"])
def test_iterators_are_read_at_each_call(place: str) -> None:
    rows = iter(fastbp.arange(4.0))
    own, arguments = SimpleNamespace(rows=rows), (rows,) if place == "argument" else ()
    step: Any = {
        "variable": lambda: next(rows) * 2,
        "attribute": lambda: next(own.rows) * 2,
        "argument": lambda rows: next(rows) * 2,
        "default": lambda rows=rows: next(rows) * 2,
    }[place]
    compiled = fastbp.compile(step)
    with pytest.warns(UserWarning, match="from now on: it names a"):
        assert [compiled(*arguments).item() for _ in range(4)] == [0.0, 2.0, 4.0, 6.0]


def test_what_other_threads_draw_is_not_held_against_a_function() -> None:
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            random.random()

    other = threading.Thread(target=draw)
    other.start()
    try:
        for k in range(5):
            compiled = fastbp.compile(lambda x, k=k: x * k)
            compiled(fastbp.ones(1))
            assert compiled.plan is not None
    finally:
        stop.set()
        other.join()


@pytest.mark.parametrize("read", [lambda g: g.initial_seed(), lambda g: int(g.get_state().sum().item())])
def test_the_state_of_a_generator_is_read_at_each_call(read: Callable[[Any], int]) -> None:
    generator = fastbp.Generator().manual_seed(1)
    compiled = fastbp.compile(lambda x: x * read(generator))
    with pytest.warns(UserWarning, match="from now on: it reads the seed or the state of a random generator"):
        for seed in (1, 2):
            generator.manual_seed(seed)
            assert compiled(fastbp.ones(())).item() == read(generator)


def test_modes_that_a_function_leaves_behind_are_set_back_before_it_runs_again() -> None:
    counts = {"calls": 0}

    def step(x: Any) -> Any:
        counts["calls"] += 1
        scale = 1 if fastbp.is_grad_enabled() else 100
        fastbp.set_grad_enabled(False)
        made = fastbp.ones(1)
        fastbp.set_default_dtype(fastbp.float64)
        return x * scale * made

    try:
        result = fastbp.compile(step)(fastbp.ones(1))
        assert (result.item(), result.dtype) == (1.0, fastbp.float32) and counts["calls"] == 1
        assert not fastbp.is_grad_enabled() and fastbp.get_default_dtype() == fastbp.float64
    finally:
        fastbp.set_default_dtype(fastbp.float32)
        fastbp.set_grad_enabled(True)
