"""Two worlds from one seed, one run eagerly and one compiled, for the tests of fastbp.compile.

All that can be seen after each call is compared: results, arguments, parameters, gradients, optimizer state, buffers,
generators. Compiled and eager may differ by what reassociation does to a sum: 1e-5 of the largest element in float32,
1e-12 in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim

BOUND = {"float32": 1e-5, "float64": 1e-12}


def snapshot(value: Any) -> Any:
    """All that can be seen of an object, as nested lists of NumPy arrays and plain values."""
    if isinstance(value, fastbp.Tensor):
        gradient = value.grad if value.is_leaf else None
        return [value.detach().numpy().copy(), None if gradient is None else gradient.detach().numpy().copy()]
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, nn.Module):
        return [snapshot(list(value.parameters())), snapshot(list(value.buffers()))]
    if isinstance(value, optim.Optimizer):
        return snapshot(value.state_dict())
    if isinstance(value, fastbp.Generator):
        return snapshot(value.get_state())
    if isinstance(value, SimpleNamespace):
        return {
            name: snapshot(one) for name, one in vars(value).items() if not callable(one) or isinstance(one, nn.Module)
        }
    if isinstance(value, dict):
        return {key: snapshot(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(one) for one in value]
    return value


def assert_same(found: Any, wanted: Any, where: str, factor: float = 1.0) -> None:
    """Two snapshots agree: floats within the bound, all else exactly."""
    if isinstance(wanted, np.ndarray):
        assert isinstance(found, np.ndarray), f"{where}: {found!r} in place of an array"
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), where
        if wanted.dtype.kind != "f":
            assert np.array_equal(found, wanted), f"{where}: {found} != {wanted}"
            return
        finite = np.isfinite(wanted)
        assert np.array_equal(np.isnan(found), np.isnan(wanted)), f"{where}: NaNs differ: {found} != {wanted}"
        assert np.array_equal(found[~finite & ~np.isnan(wanted)], wanted[~finite & ~np.isnan(wanted)]), (
            f"{where}: infinities differ"
        )
        scale = max(1.0, float(np.abs(wanted[finite]).max(initial=0)))
        worst = float(np.abs(found[finite] - wanted[finite]).max(initial=0))
        assert worst <= factor * BOUND[wanted.dtype.name] * scale, (
            f"{where}: differs by {worst} of {scale}\n{found}\n{wanted}"
        )
    elif isinstance(wanted, dict):
        assert isinstance(found, dict) and list(found) == list(wanted), f"{where}: {found!r} != {wanted!r}"
        for key in wanted:
            assert_same(found[key], wanted[key], f"{where}.{key}", factor)
    elif isinstance(wanted, list):
        assert isinstance(found, list) and len(found) == len(wanted), f"{where}: {found!r} != {wanted!r}"
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            assert_same(a, b, f"{where}[{number}]", factor)
    else:
        assert found == wanted, f"{where}: {found!r} != {wanted!r}"


def history(
    make: Callable[[], SimpleNamespace], calls: Sequence[Callable[[], Any]], between: Any, compiled: bool
) -> tuple[list[Any], Any]:
    """What is seen after each call, from the same seed; and the world."""
    fastbp.manual_seed(1)
    world = make()
    eager, step = world.step, fastbp.compile(world.step) if compiled else world.step
    counted = [0]
    found = []
    for number, arguments in enumerate(calls):
        if between is not None:
            between(number, world)
        given = arguments()
        args, kwargs = (
            given if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict) else (given, {})
        )
        result = step(*args, **kwargs)
        found.append(
            {
                "result": snapshot(result),
                "arguments": snapshot([args, kwargs]),
                "world": snapshot(world),
                "generator": snapshot(fastbp.get_rng_state()),
            }
        )
    world.step, world.eager, world.counted = step, eager, counted
    return found, world


def check_twins(
    make: Callable[[], SimpleNamespace],
    calls: Sequence[Callable[[], Any]] | Callable[[], Any],
    between: Callable[[int, SimpleNamespace], None] | None = None,
    factor: float = 1.0,
) -> SimpleNamespace:
    """Run a world's `step` eagerly and compiled, on fresh arguments for each call; returns the compiled world."""
    calls = [calls] * 3 if callable(calls) else calls
    wanted, _ = history(make, calls, between, compiled=False)
    found, world = history(make, calls, between, compiled=True)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert_same(a, b, f"call {number}", factor)
    return world


def check_function(function: Callable[..., Any], *arguments: Any, calls: int = 2) -> None:
    """A function without state of its own, on copies of its arguments."""
    copies = lambda: tuple(copied(one) for one in arguments)  # noqa: E731
    check_twins(lambda: SimpleNamespace(step=function), [copies] * calls)


def copied(value: Any) -> Any:
    if isinstance(value, fastbp.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list):
        return [copied(one) for one in value]
    if isinstance(value, dict):
        return {key: copied(one) for key, one in value.items()}
    return tuple(copied(one) for one in value) if type(value) is tuple else value


def drawn(*shape: int, seed: int = 0, dtype: Any = np.float32) -> fastbp.Tensor:
    """Normal numbers that do not touch the generators under test."""
    return fastbp.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def batches(*shape: int, dtype: Any = np.float32, count: int = 4) -> list[Callable[[], Any]]:
    return [lambda k=k: (drawn(*shape, seed=k, dtype=dtype),) for k in range(count)]


def make_trainer(
    optimizer: Callable[[Any], Any], zero: str = "start", dtype: Any = None
) -> Callable[[], SimpleNamespace]:
    """A step of a small network; `zero` says where and how gradients are cleared."""

    def make() -> SimpleNamespace:
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        if dtype is not None:
            model = model.to(dtype)
        world = SimpleNamespace(model=model, optimizer=optimizer(model))

        def step(x: fastbp.Tensor) -> fastbp.Tensor:
            if zero in ("start", "zeros"):
                world.optimizer.zero_grad(set_to_none=zero == "start")
            loss = model(x).square().mean()
            loss.backward()
            world.optimizer.step()
            if zero == "end":
                world.optimizer.zero_grad()
            return loss.detach()

        world.step = step
        return world

    return make


def make_step(
    parameters: dict[str, fastbp.Tensor], loss_of: Callable[..., Any], optimizer: Any = None
) -> Callable[[], SimpleNamespace]:
    """A step of `loss_of(x, **parameters)` with SGD, from copies of the parameters."""

    def make() -> SimpleNamespace:
        own = {name: one.detach().clone().requires_grad_(one.is_floating_point()) for name, one in parameters.items()}
        free = [one for one in own.values() if one.requires_grad]
        world = SimpleNamespace(**own, optimizer=(optimizer or (lambda p: optim.SGD(p, lr=0.05)))(free))

        def step(*args: Any) -> Any:
            world.optimizer.zero_grad()
            loss = loss_of(*args, **own)
            loss.backward()
            world.optimizer.step()
            return loss.detach()

        world.step = step
        return world

    return make


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda m: optim.SGD(m.parameters(), lr=0.1),
    "sgd momentum": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "sgd dampening": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.3),
    "sgd nesterov decay": lambda m: optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd maximize": lambda m: optim.SGD(m.parameters(), lr=0.1, maximize=True),
    "adam": lambda m: optim.Adam(m.parameters(), lr=0.05),
    "adam decay": lambda m: optim.Adam(m.parameters(), lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1),
    "adam maximize": lambda m: optim.Adam(m.parameters(), lr=0.05, maximize=True),
    "adamw": lambda m: optim.AdamW(m.parameters(), lr=0.05, weight_decay=0.1),
    "amsgrad": lambda m: optim.Adam(m.parameters(), lr=0.05, amsgrad=True),
    "adamw amsgrad": lambda m: optim.AdamW(m.parameters(), lr=0.05, amsgrad=True),
    "two groups": lambda m: optim.Adam(
        [{"params": m[0].parameters()}, {"params": m[2].parameters(), "lr": 0.3}], lr=0.01
    ),
    "sgd two groups": lambda m: optim.SGD(
        [{"params": m[0].parameters(), "momentum": 0.5}, {"params": [m[2].bias, m[2].weight], "weight_decay": 0.2}],
        lr=0.1,
    ),
}


# ---- changes between calls -------------------------------------------------------------------------------------------

Case = tuple[Callable[..., Any], list[Callable[[], object]]]


def numbers(result: Any) -> Any:
    """The bits of a result."""
    return [numbers(one) for one in result] if isinstance(result, list | tuple) else result.detach().numpy().tobytes()


def check_changes(make: Callable[[], Case]) -> Any:
    """A function gives the same bits compiled and eager, before and after each change; returns the compiled one."""
    function, changes = make()
    compiled, x = fastbp.compile(function), fastbp.tensor([-1.0, 0.5, 2.0])
    for number, change in enumerate([lambda: None, *changes]):
        change()
        for again in range(2):
            fastbp.manual_seed(0)
            wanted = numbers(function(x))
            fastbp.manual_seed(0)
            assert numbers(compiled(x)) == wanted, f"after change {number}, call {again}"
    return compiled


def setting(target: Any, name: str, *values: Any) -> list[Callable[[], object]]:
    """The changes that give an attribute one value after the other."""
    return [functools.partial(setattr, target, name, value) for value in values]


class Scaled(nn.Module):
    """An activation, a number and a child, all of which may be changed."""

    factor = 2.0

    def __init__(self, scale: Any = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.activation = F.relu

    def forward(self, x: Any) -> Any:
        y = self.activation(x) * self.scale * self.factor
        return y + 1 if hasattr(self, "shifted") else y
