"""`step.epoch(loader)` is what calling the function itself with each batch is: results, gradients, state, errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import assert_same, drawn, snapshot

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
from fastbp.utils.data import DataLoader, Subset, TensorDataset


def stacked(results: list[Any]) -> Any:
    """The results of calls, each a copy, in the structure of one: as `epoch` returns them."""
    first = results[0]
    if isinstance(first, tuple):
        return tuple(stacked(list(parts)) for parts in zip(*results, strict=True))
    return fastbp.stack(results) if len({one.shape for one in results}) == 1 else list(results)


def copied(result: Any) -> Any:
    return tuple(map(copied, result)) if isinstance(result, tuple) else result.detach().clone()


def check_passes(make: Callable[[], SimpleNamespace], passes: int = 2, **options: Any) -> Any:
    """Passes over `world.data` beside calls of the function itself: what is returned, and what is there after each."""
    found: list[list[Any]] = []
    for compiled in (False, True):
        fastbp.manual_seed(1)
        world = make()
        step = fastbp.compile(world.step)
        loader = DataLoader(TensorDataset(*world.data), **options)
        seen = []
        for _ in range(passes):
            results = step.epoch(loader) if compiled else stacked([copied(world.step(*batch)) for batch in loader])
            seen.append(snapshot([results, world]))
        found.append(seen)
    assert_same(found[1], found[0], "passes")
    return step


# ---- gradients that come and go from call to call --------------------------------------------------------------------


def linear(**more: Any) -> SimpleNamespace:
    model = nn.Linear(5, 3)
    classes = fastbp.from_numpy(np.arange(32) % 3)
    return SimpleNamespace(
        model=model, optimizer=optim.SGD(model.parameters(), lr=0.1), data=[drawn(32, 5), classes], **more
    )


def a_step_every_second_call() -> SimpleNamespace:
    world = linear()

    def step(x: Any, y: Any) -> Any:
        complete = world.model.weight.grad is not None
        loss = F.cross_entropy(world.model(x), y)
        loss.backward()
        if complete:
            world.optimizer.step()
            world.optimizer.zero_grad()
        return loss.detach()

    world.step = step
    return world


def two_models_in_turn() -> SimpleNamespace:
    world = linear(other=nn.Linear(5, 3))

    def step(x: Any, y: Any) -> Any:
        model, rest = (world.model, world.other) if world.model.weight.grad is None else (world.other, world.model)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        rest.zero_grad()
        return loss.detach()

    world.step = step
    return world


def a_gradient_that_decays() -> SimpleNamespace:
    world = linear()

    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(world.model(x), y)
        loss.backward()
        world.model.weight.grad = world.model.weight.grad * 0.5
        return loss.detach()

    world.step = step
    return world


@pytest.mark.parametrize("make", [a_step_every_second_call, two_models_in_turn, a_gradient_that_decays])
def test_what_a_batch_leaves_in_gradients_decides_on_the_next(make: Callable[[], SimpleNamespace]) -> None:
    step = check_passes(make, batch_size=2)
    assert step.plan is not None


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_step_that_writes_into_the_data_set(packed: bool, shuffle: bool) -> None:
    """A batch is a copy of its rows as they are when it is drawn."""

    def make() -> SimpleNamespace:
        world = SimpleNamespace(data=[drawn(12, 3) if packed else drawn(3, 12).T])

        def step(x: Any) -> Any:
            world.data[0].mul_(0.5)
            return x * 1

        world.step = step
        return world

    check_passes(make, batch_size=4, shuffle=shuffle)


def test_a_parameter_that_is_a_row_of_the_data_set() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(data=[drawn(12, 3)], p=nn.Parameter(fastbp.zeros(3)))
        world.p.data = world.data[0][5]

        def step(x: Any) -> Any:
            world.p.grad = None
            (x * world.p).sum().backward()
            with fastbp.no_grad():
                world.p.sub_(world.p.grad)
            return x * 1

        world.step = step
        return world

    check_passes(make, batch_size=4)


def test_a_data_set_that_collects_gradients() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(data=[drawn(12, 3).requires_grad_()])

        def step(x: Any) -> Any:
            loss = x.square().sum()
            loss.backward()
            return loss.detach()

        world.step = step
        return world

    check_passes(make, batch_size=4)


@pytest.mark.parametrize("number", [-1, 12, 10**8])
def test_sample_numbers_out_of_bounds(number: int) -> None:
    rows, step = Subset(TensorDataset(drawn(12, 3)), [0, 1, number, 2]), fastbp.compile(lambda x: x * 1)
    with pytest.raises(IndexError, match=rf"epoch: sample number {number} is out of bounds for a data set of 12"):
        step.epoch(DataLoader(rows, batch_size=2))


# ---- results ---------------------------------------------------------------------------------------------------------


def test_results_that_are_tensors_from_outside_are_stacked() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(data=[drawn(12, 3)], mean=fastbp.zeros(3))

        def step(x: Any) -> Any:
            world.mean.mul_(0.5).add_(x.mean(0))
            return world.mean, world.mean[1:], x.sum()

        world.step = step
        return world

    check_passes(make, batch_size=5)


def test_a_recording_mode_that_the_function_leaves_behind() -> None:
    def step(p: Any, x: Any) -> Any:
        y = x * p
        fastbp.set_grad_enabled(False)
        return y.detach() if y.requires_grad else y + 1

    modes = []
    for compiled in (False, True):
        p = drawn(3).requires_grad_()
        run = functools.partial(step, p)
        loader = DataLoader(TensorDataset(drawn(8, 3)), batch_size=2)
        try:
            results = fastbp.compile(run).epoch(loader) if compiled else stacked([run(*batch) for batch in loader])
            modes.append([snapshot(results), fastbp.is_grad_enabled()])
        finally:
            fastbp.set_grad_enabled(True)
    assert_same(modes[1], modes[0], "modes")
