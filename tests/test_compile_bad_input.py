"""What goes wrong with compiled functions: values asked for, errors, changing shapes, copies, threads, forks."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import threading
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import OPTIMIZERS, assert_same, drawn, make_trainer, snapshot

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim


def line_of(function: Any, text: str) -> int:
    """The number of the line of this file's function that holds `text`."""
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


# ------------------------------------------------------------------------------------------- values that are asked for

ASKING: dict[str, Any] = {
    "item()": lambda x: x.sum().item(),
    "float()": lambda x: float(x.sum()),
    "int()": lambda x: int(x.sum()),
    "bool()": lambda x: 1 if x.sum() > 0 else 2,
    "numpy()": lambda x: x.numpy(),
    "tolist()": lambda x: x.tolist(),
    "asarray": lambda x: np.asarray(x),
    "while": lambda x: next(k for k in range(3) if (x > k).any()),
    "index": lambda x: [1, 2, 3][x.abs().amin().long()],
    "range": lambda x: list(range(x.sum().long())),
    "format": lambda x: f"{x.sum():.3f}",
    "iterate": lambda x: [float(one) for one in x],
    "in": lambda x: 1.0 in x,
    "equal": lambda x: fastbp.equal(x, x + 1),
    "allclose": lambda x: fastbp.allclose(x, x),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "max": lambda x: max(x[0], x[1]),
    "dlpack": lambda x: np.from_dlpack(x),
    "pickle": lambda x: pickle.dumps(x),
    "deepcopy": lambda x: copy.deepcopy(x * 2),
    "data_ptr": lambda x: x.data_ptr(),
    "buffer": lambda x: memoryview(x),
    "set": lambda x: x.__setitem__(x.abs().amin().long(), 1.0),
    "not": lambda x: not x.sum(),
    "assert": lambda x: x.sum().item() == 3,
    "repeat": lambda x: x.repeat_interleave(x.long().abs()),
}


@pytest.mark.parametrize("name", ASKING)
def test_asking_for_a_value_is_an_error_or_is_done_right(name: str) -> None:
    """Whatever cannot be captured says so, and never answers with what was in memory."""
    function = ASKING[name]
    step = fastbp.compile(function)
    for x in (fastbp.tensor([1.0, 2.0, 0.5]), fastbp.tensor([-3.0, 1.0, 1.0])):
        try:
            wanted: Any = function(x.clone())
        except (TypeError, AttributeError, BufferError, NotImplementedError, RuntimeError) as error:
            with pytest.raises((type(error), RuntimeError)):
                step(x)
            continue
        try:
            found = step(x)
        except (RuntimeError, BufferError, TypeError, NotImplementedError) as error:
            assert "compile" in str(error) or "captur" in str(error), error
            assert step.plan is None
            continue
        if name != "data_ptr":
            assert_same(snapshot(found), snapshot(wanted), name)
    assert not fastbp._core.capturing()


def ask_item(x: Any) -> Any:
    loss = (x * x).sum()
    print(loss.item())
    return loss


def ask_branch(x: Any) -> Any:
    loss = (x * x).sum()
    if loss > 0:
        return loss
    return -loss


def ask_float(x: Any) -> Any:
    return float((x * x).sum())


def ask_numpy(x: Any) -> Any:
    y = x + 1
    return y.numpy()


def ask_list(x: Any) -> Any:
    return [
        x.tolist(),
    ]


@pytest.mark.parametrize(
    ("function", "text", "wanted"),
    [
        (ask_item, "print(", "item()"),
        (ask_branch, "if loss > 0", "bool()"),
        (ask_float, "return float", "item()"),
        (ask_numpy, "y.numpy()", "numpy()"),
        (ask_list, "x.tolist()", "tolist()"),
    ],
    ids=lambda one: getattr(one, "__name__", str(one)),
)
def test_the_error_names_the_line(function: Any, text: str, wanted: str) -> None:
    step = fastbp.compile(function)
    for _ in range(2):
        with pytest.raises(RuntimeError) as caught:
            step(fastbp.ones(3))
        message = str(caught.value)
        assert f"{os.path.basename(__file__)}:{line_of(function, text)}" in message
        assert wanted in message and text in message and "fastbp.where" in message
    assert step.plan is None


# ------------------------------------------------------------------------------------------- errors


def make_failing(stage: str) -> SimpleNamespace:
    world = make_trainer(OPTIMIZERS["sgd momentum"])()
    model = world.model
    model.register_buffer("mean", fastbp.zeros(3))
    world.fail = True

    def step(x: Any) -> Any:
        def at(name: str) -> None:
            if world.fail and stage == name:
                raise KeyError(stage)

        at("start")
        y = F.dropout(model(x), 0.5)
        model.mean.mul_(0.5).add_(y.detach().mean(0))
        at("forward")
        world.optimizer.zero_grad()
        at("zeroed")
        loss = y.square().sum()
        loss.backward()
        at("backward")
        model[0].bias.grad = model[0].bias.grad * 2
        with fastbp.no_grad():
            model[0].weight.mul_(0.5)
        world.optimizer.step()
        at("stepped")
        return loss.detach()

    world.step = step
    return world


@pytest.mark.parametrize("stage", ["start", "forward", "zeroed", "backward", "stepped"])
@pytest.mark.parametrize("gradients", [False, True])
def test_an_exception_during_the_capture_leaves_all_as_before(stage: str, gradients: bool) -> None:
    world = make_failing(stage)
    if gradients:
        for p in world.model.parameters():
            p.grad = fastbp.ones_like(p)
    step = fastbp.compile(world.step)
    before, random = snapshot(world), fastbp.get_rng_state().clone()
    held = [p.grad for p in world.model.parameters()]
    for _ in range(2):
        with pytest.raises(KeyError, match=stage):
            step(drawn(4, 5))
        assert step.plan is None and not fastbp._core.capturing()
        assert_same(snapshot(world), before, "after the exception")
        assert fastbp.get_rng_state().tolist() == random.tolist()
        assert all(p.grad is g for p, g in zip(world.model.parameters(), held, strict=True))
    world.fail = False
    twin = make_failing(stage)
    twin.fail = False
    for name, one in world.model.state_dict().items():
        twin.model.state_dict()[name].copy_(one)
    for p, q in zip(world.model.parameters(), twin.model.parameters(), strict=True):
        q.grad = None if p.grad is None else p.grad.clone()
    fastbp.set_rng_state(random)
    wanted = twin.step(drawn(4, 5))
    world.fail = twin.fail
    fastbp.set_rng_state(random)
    assert_same(snapshot([step(drawn(4, 5)), world.model]), snapshot([wanted, twin.model]), "afterwards")


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("gradients", ["none", "some"])
def test_a_wrong_class_leaves_parameters_gradients_and_state(warm: bool, gradients: str) -> None:
    model = nn.Linear(3, 4)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    @fastbp.compile
    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.detach()

    x, right, wrong = drawn(2, 3), fastbp.tensor([0, 1]), fastbp.tensor([0, 9])
    if warm:
        step(x, right)
    for p in model.parameters():
        p.grad = None if gradients == "none" else fastbp.ones_like(p)
    before = snapshot([model.state_dict(), [s["exp_avg"] for s in optimizer.state.values()]])
    for _ in range(2):
        with pytest.raises(IndexError, match=r"9 is out of bounds"):
            step(x, wrong)
        found = snapshot([model.state_dict(), [s["exp_avg"] for s in optimizer.state.values()]])
        if warm:
            assert_same(found, before, "after the error")
        else:
            assert_same(found[0], before[0], "after the error")
        for p in model.parameters():
            assert p.grad is None or np.array_equal(p.grad.numpy(), np.ones(p.shape, np.float32))
    assert np.isfinite(step(x, right).item())
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters())


@pytest.mark.parametrize("index", [3, -4])
def test_wrong_indices_at_a_later_call(index: int) -> None:
    step = fastbp.compile(lambda x, i: (x.index_select(0, i), x[i], x.gather(0, i)))
    x, right = drawn(3), fastbp.tensor([0, 2])
    assert_same(snapshot(step(x, right)), snapshot([x[right]] * 3), "right")
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        step(x, fastbp.tensor([0, index]))
    assert_same(snapshot(step(x, right)), snapshot([x[right]] * 3), "right again")


def test_errors_of_operations_name_them_and_leave_no_plan() -> None:
    step = fastbp.compile(lambda x, y: x @ y)
    with pytest.raises(RuntimeError, match=r"matmul|mat1"):
        step(fastbp.ones(2, 3), fastbp.ones(2, 3))
    assert step.plan is None
    assert step(fastbp.ones(2, 3), fastbp.ones(3, 2)).tolist() == [[3, 3], [3, 3]]
    with pytest.raises(TypeError):
        fastbp.compile(3)  # type: ignore[call-overload]
    with pytest.raises((TypeError, RuntimeError), match="matmul"):
        step(fastbp.ones(2), 3)


def test_read_only_memory_that_the_function_writes() -> None:
    def step(x: Any) -> Any:
        x.add_(1)
        return x.sum()

    array = np.zeros(3, np.float32)
    compiled = fastbp.compile(step)
    assert compiled(array).item() == 3 and array.tolist() == [1, 1, 1]
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="read-only"):
            compiled(array)
    assert array.tolist() == [1, 1, 1]
    assert compiled(np.zeros(3, np.float32)).item() == 3


# ------------------------------------------------------------------------------------------- shapes and plans


def test_changing_shapes_are_bounded_and_warned_of_once() -> None:
    @fastbp.compile
    def step(first: Any, second: Any) -> Any:
        return first.sum() + second.sum()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(1, 60):
            assert step(fastbp.ones(2), fastbp.ones(n)).item() == n + 2
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "argument 1" in message and "shape" in message and "step" in message
    assert caught[0].filename == __file__
    assert sum(map(len, step._entries.values())) <= 16


def test_changing_static_arguments_are_warned_of() -> None:
    step = fastbp.compile(lambda x, k: x * k)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for k in range(40):
            assert step(fastbp.ones(1), k * 0.5).item() == k * 0.5
    assert len(caught) == 1 and "static argument" in str(caught[0].message)


def test_plans_for_several_shapes_are_kept() -> None:
    counted = []

    @fastbp.compile
    def step(x: Any) -> Any:
        counted.append(1)
        return x.sum(0)

    for _ in range(3):
        for shape in ((2, 3), (3, 3), (2, 3, 1), (0, 3)):
            assert step(fastbp.ones(shape)).tolist() == fastbp.ones(shape).sum(0).tolist()
        assert step(fastbp.ones(2, 3, dtype=fastbp.float64)).dtype is fastbp.float64
        assert step(fastbp.ones(3, 2).t()).tolist() == [2, 2, 2]
    assert len(counted) == 6


def test_an_argument_is_freed_or_resized_between_calls() -> None:
    step = fastbp.compile(lambda x: (x * 2).sum())
    x = fastbp.ones(1000)
    assert step(x).item() == 2000
    del x
    gc.collect()
    arrays = [np.full(1000, k, np.float32) for k in range(5)]
    assert [step(a).item() for a in arrays] == [2000.0 * k for k in range(5)]
    a = np.ones(1000, np.float32)
    step(a)
    del arrays
    a.resize(2000, refcheck=False)
    assert step(a).item() == 2000
    x = fastbp.ones(10)
    step(x)
    x.data = fastbp.ones(5)
    assert step(x).item() == 10


# ------------------------------------------------------------------------------------------- nesting, methods, copies


def test_compiled_functions_within_compiled_functions() -> None:
    counted = []

    @fastbp.compile
    def inner(x: Any) -> Any:
        counted.append("inner")
        return x * 2

    @fastbp.compile
    def outer(x: Any) -> Any:
        counted.append("outer")
        return inner(inner(x)) + 1

    for _ in range(3):
        assert outer(fastbp.ones(1)).item() == 5
    assert counted == ["outer", "inner", "inner"]
    assert inner(fastbp.ones(1)).item() == 2
    assert fastbp.compile(outer) is outer

    @fastbp.compile
    def power(x: Any, n: int) -> Any:
        return x * power(x, n - 1) if n else x * 0 + 1

    assert [power(fastbp.tensor(2.0), n).item() for n in (3, 3, 0, 5)] == [8, 8, 1, 32]


class Counter:
    @fastbp.compile
    def step(self, x: Any) -> Any:
        """Doc."""
        return x * self.factor + 1

    def __init__(self, factor: float) -> None:
        self.factor = factor


class Doubled(Counter):
    @fastbp.compile
    def step(self, x: Any) -> Any:
        return super().step(x) * 2


class Slotted:
    __slots__ = ("factor",)

    @fastbp.compile
    def step(self, x: Any) -> Any:
        return x * self.factor


def test_methods_belong_to_their_instances() -> None:
    a, b = Counter(2), Counter(3)
    for _ in range(2):
        assert [a.step(fastbp.ones(1)).item(), b.step(fastbp.ones(1)).item()] == [3, 4]
    assert Counter.step.__doc__ == "Doc." and a.step.__name__ == "step"
    c = copy.copy(a)
    c.factor = 10
    assert [c.step(fastbp.ones(1)).item(), a.step(fastbp.ones(1)).item()] == [11, 3]
    d = Doubled(2)
    assert [d.step(fastbp.ones(1)).item() for _ in range(2)] == [6, 6]
    s = Slotted()
    s.factor = 4
    assert s.step(fastbp.ones(1)).item() == 4


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    @fastbp.compile
    def predict(self, x: Any) -> Any:
        return self.layer(x).detach()


def test_copies_and_pickles_of_modules_with_compiled_methods() -> None:
    model, x = Network(), fastbp.ones(1, 2)
    model.predict(x)
    twin = copy.deepcopy(model)
    with fastbp.no_grad():
        twin.layer.weight.zero_()
        twin.layer.bias.fill_(5.0)
    assert twin.predict(x).tolist() == [[5, 5]]
    assert model.predict(x).tolist() == model.layer(x).tolist() != [[5, 5]]
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(x).tolist() == model.predict(x).tolist()


def test_instances_are_freed() -> None:
    import weakref

    class Own(Counter):
        pass

    one = Own(2)
    one.step(fastbp.ones(3))
    watch = weakref.ref(one)
    del one
    gc.collect()
    assert watch() is None


def test_compiled_functions_are_freed() -> None:
    def run() -> None:
        model = nn.Linear(30, 30)
        optimizer = optim.Adam(model.parameters())

        @fastbp.compile
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        for n in (2, 3, 2):
            step(fastbp.ones(n, 30))
        with pytest.raises(RuntimeError):
            fastbp.compile(lambda x: float(model(x).sum()))(fastbp.ones(2, 30))
        forward = fastbp.compile(model)
        forward(fastbp.ones(2, 30)).sum().backward()

    run()
    gc.collect()
    before = fastbp._core.memory_statistics()
    for _ in range(5):
        run()
    gc.collect()
    after = fastbp._core.memory_statistics()
    assert (after["live_blocks"], after["live_bytes"]) == (before["live_blocks"], before["live_bytes"])


@pytest.mark.parametrize("kinds", [4, 23])
def test_threads_that_call_one_function_with_other_arguments(kinds: int) -> None:
    """Each call runs the plan that was found for it, and has its own structure of results, whatever runs besides."""
    compiled = fastbp.compile(lambda x, n: (*[x * k for k in range(1, n % 4 + 1)], x * n))
    wrong: list[Any] = []

    def job(thread: int) -> None:
        try:
            for call in range(1500):
                n = (call * 7 + thread) % kinds
                results = compiled(fastbp.full((1 + n % 4 * 500,), float(thread)), n)
                if [one[0].item() for one in results] != [thread * k for k in (*range(1, n % 4 + 1), n)]:
                    wrong.append((thread, call))
        except BaseException as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more than 16 plans
            threads = [threading.Thread(target=job, args=(thread,)) for thread in range(4)]
            for one in threads:
                one.start()
            for one in threads:
                one.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong, wrong[:3]
