"""State that compiled functions change or depend on: buffers, flags, random generators, modes, replaced tensors."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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


@pytest.mark.xfail(strict=True, reason="compile-bugs 13: plans are dropped")
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


@pytest.mark.xfail(strict=True, reason="compile-bugs 13: plans are dropped")
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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.xfail(strict=True, reason="compile-bugs 14")] if n == "two groups" else [])
        for n in OPTIMIZERS
    ],
)
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


@pytest.mark.xfail(strict=True, reason="compile-bugs 7, 17: generators of one seed; bernoulli")
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
