"""Compiled training steps against the same steps run eagerly (twins.py): optimizers, gradients, second derivatives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import (
    OPTIMIZERS,
    batches,
    check_twins,
    drawn,
    make_step,
    make_trainer,
)

import fastbp
from fastbp import nn, optim


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("zero", ["start", "zeros", "end", "never"])
def test_optimizers(name: str, zero: str) -> None:
    check_twins(make_trainer(OPTIMIZERS[name], zero), batches(6, 5))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_in_float64(name: str) -> None:
    check_twins(make_trainer(OPTIMIZERS[name], dtype=fastbp.float64), batches(6, 5, dtype=np.float64))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_world_that_was_trained_eagerly_before(name: str) -> None:
    """Optimizer state from eager steps is taken up, and eager steps go on where compiled ones ended."""

    def between(number: int, world: SimpleNamespace) -> None:
        if number in (0, 2):
            for _ in range(2):
                world.optimizer.zero_grad()
                world.model(drawn(4, 5, seed=9)).square().mean().backward()
                world.optimizer.step()

    check_twins(make_trainer(OPTIMIZERS[name]), batches(6, 5), between)


@pytest.mark.parametrize("name", ["sgd momentum", "adam", "adamw", "two groups"])
def test_options_change_without_a_new_plan(name: str) -> None:
    plans = []

    def between(number: int, world: SimpleNamespace) -> None:
        plans.append(getattr(world.step, "plan", None))
        for group in world.optimizer.param_groups:
            group["lr"] = 0.2 / (number + 1)
            group["weight_decay"] = 0.01 * number
            if "betas" in group:
                group["betas"] = (0.9 - 0.1 * number, 0.99)
                group["eps"] = 1e-4 * (number + 1)

    world = check_twins(make_trainer(OPTIMIZERS[name]), batches(6, 5), between)
    plan = world.step.plan
    world.optimizer.param_groups[0]["lr"] = 1.0
    world.step(drawn(6, 5))
    assert world.step.plan is plan


def test_scheduler_between_calls() -> None:
    make = make_trainer(OPTIMIZERS["sgd momentum"])
    schedulers: dict[int, Any] = {}

    def between(number: int, world: SimpleNamespace) -> None:
        if id(world) not in schedulers:
            schedulers[id(world)] = optim.lr_scheduler.StepLR(world.optimizer, step_size=1, gamma=0.5)
        elif number:
            schedulers[id(world)].step()

    if not hasattr(optim, "lr_scheduler"):
        pytest.skip("no schedulers yet")
    check_twins(make, batches(6, 5), between)


def test_gradients_accumulate_over_calls_with_steps_between() -> None:
    def make() -> SimpleNamespace:
        world = make_trainer(OPTIMIZERS["adam"])()

        def step(x: fastbp.Tensor) -> fastbp.Tensor:
            loss = world.model(x).square().mean() / 2
            loss.backward()
            return loss.detach()

        world.step = step
        return world

    def between(number: int, world: SimpleNamespace) -> None:
        if number and number % 2 == 0:
            world.optimizer.step()
            world.optimizer.zero_grad()

    check_twins(make, batches(6, 5, count=7), between)


def test_a_parameter_used_several_times() -> None:
    check_twins(
        make_step({"w": drawn(5, 5, seed=1)}, lambda x, w: (((x @ w).tanh() @ w).sigmoid() @ w.t()).sum() + w.sum()),
        batches(4, 5),
    )


def test_a_parameter_that_gets_no_gradient() -> None:
    check_twins(
        make_step({"w": drawn(5, 2, seed=1), "idle": drawn(3, seed=2)}, lambda x, w, idle: (x @ w).square().sum()),
        batches(4, 5),
    )


def test_parameters_of_two_dtypes() -> None:
    parameters = {"w": drawn(5, 2, seed=1), "v": drawn(2, seed=2, dtype=np.float64)}
    check_twins(make_step(parameters, lambda x, w, v: ((x @ w).double() * v).square().sum()), batches(4, 5))
    adam = lambda p: optim.Adam(p, lr=0.1)  # noqa: E731
    check_twins(make_step(parameters, lambda x, w, v: ((x @ w).double() * v).square().sum(), adam), batches(4, 5))


def test_second_derivatives_inside() -> None:
    """A gradient penalty: the loss holds a derivative, and backward() differentiates it."""

    def loss_of(x: Any, w: Any, v: Any) -> Any:
        x = x.detach().requires_grad_()
        y = ((x @ w).tanh() @ v).sum()
        (g,) = fastbp.autograd.grad(y, x, create_graph=True)
        return (g.square().sum(1) - 1).square().mean() + y.square()

    check_twins(make_step({"w": drawn(5, 6, seed=1), "v": drawn(6, 1, seed=2)}, loss_of), batches(4, 5), factor=4)


def test_gradient_clipping_inside() -> None:
    if not hasattr(nn, "utils") or not hasattr(nn.utils, "clip_grad_norm_"):
        pytest.skip("no clipping yet")

    def make() -> SimpleNamespace:
        world = make_trainer(OPTIMIZERS["sgd"])()

        def step(x: fastbp.Tensor) -> Any:
            world.optimizer.zero_grad()
            loss = world.model(x).square().sum()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(world.model.parameters(), 0.5)
            world.optimizer.step()
            return loss.detach(), norm

        world.step = step
        return world

    check_twins(make, batches(6, 5))


def test_gradients_changed_by_hand_before_the_step() -> None:
    def make() -> SimpleNamespace:
        world = make_trainer(OPTIMIZERS["adam"])()

        def step(x: fastbp.Tensor) -> Any:
            world.optimizer.zero_grad()
            loss = world.model(x).square().sum()
            loss.backward()
            for p in world.model.parameters():
                p.grad.mul_(0.5)
                p.grad.clamp_(-0.1, 0.1)
            world.model[0].bias.grad = world.model[0].bias.grad + 1
            world.optimizer.step()
            return loss.detach()

        world.step = step
        return world

    check_twins(make, batches(6, 5))


def test_old_gradients_read_before_they_are_replaced() -> None:
    def make() -> SimpleNamespace:
        p = fastbp.ones(3, requires_grad=True)
        p.grad = fastbp.tensor([1.0, 2.0, 3.0])
        world = SimpleNamespace(p=p)

        def step(x: fastbp.Tensor) -> Any:
            old = p.grad.clone()
            norm = p.grad.square().sum()
            p.grad = None
            (p * x).sum().backward()
            return old, norm

        world.step = step
        return world

    check_twins(make, batches(3))


def test_updates_by_hand_under_no_grad() -> None:
    def make() -> SimpleNamespace:
        w = drawn(5, 3, seed=1).requires_grad_()
        average = fastbp.zeros(5, 3)
        world = SimpleNamespace(w=w, average=average)

        def step(x: fastbp.Tensor) -> Any:
            loss = (x @ w).square().mean()
            (g,) = fastbp.autograd.grad(loss, [w])
            with fastbp.no_grad():
                w.sub_(0.1 * g)
                average.mul_(0.9).add_(0.1 * w)
            return loss.detach()

        world.step = step
        return world

    check_twins(make, batches(4, 5))


def test_two_optimizers_and_two_backwards() -> None:
    def make() -> SimpleNamespace:
        a, b = nn.Linear(4, 4), nn.Linear(4, 1)
        world = SimpleNamespace(
            a=a, b=b, first=optim.Adam(a.parameters(), lr=0.1), second=optim.SGD(b.parameters(), lr=0.1, momentum=0.9)
        )

        def step(x: fastbp.Tensor) -> Any:
            world.first.zero_grad()
            loss = b(a(x).tanh()).square().mean()
            loss.backward()
            world.first.step()
            world.second.zero_grad()
            again = b(a(x).tanh().detach()).square().mean()
            again.backward()
            world.second.step()
            return loss.detach(), again.detach()

        world.step = step
        return world

    check_twins(make, batches(6, 4))
