"""Memory budgets and regions of recomputation in compiled steps: less memory, the same bits."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, nn, optim

LAYERS, WIDTH, BATCH, STEPS = 24, 64, 256, 3


def trained(budget: Any = None, region: int = 0, dropout: float = 0.0) -> tuple[Any, list[Any]]:
    """A deep net after some Adam steps: its compiled step, and losses and parameters as lists."""
    fastbp.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Dropout(dropout)) for _ in range(LAYERS)]
    head = nn.Linear(WIDTH, 10)
    parameters = [p for one in [*blocks, head] for p in one.parameters()]
    optimizer = optim.Adam(parameters, lr=1e-3)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        for start in range(0, LAYERS, region or LAYERS):
            if region:
                with _core.recomputed_region():
                    for block in blocks[start : start + region]:
                        x = block(x)
            else:
                for block in blocks:
                    x = block(x)
        loss = F.cross_entropy(head(x), y)
        loss.backward()
        optimizer.step()
        return loss

    compiled = fastbp.compile(step, memory_budget=budget)
    x, y = fastbp.randn(BATCH, WIDTH), fastbp.randint(0, 10, (BATCH,))
    losses = [compiled(x, y).item() for _ in range(STEPS)]
    return compiled, [losses, *(p.tolist() for p in parameters)]


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_half_the_memory_and_the_same_bits(dropout: float) -> None:
    free, wanted = trained(dropout=dropout)
    step, found = trained(0.5, dropout=dropout)
    assert found == wanted
    assert step.plan.budget_met
    assert step.plan.peak_bytes <= 0.5 * free.plan.peak_bytes
    assert step.plan.peak_bytes_without == free.plan.peak_bytes
    assert free.plan.peak_bytes_without is None
    assert any(one["again"] for one in step.plan.steps)
    assert not any(one["again"] for one in free.plan.steps)
    assert "again linear" in str(step.plan)
    assert f"{free.plan.peak_bytes:,} without recomputation" in str(step.plan)


def test_bytes_are_a_budget_too_and_one_that_is_met_changes_nothing() -> None:
    free, wanted = trained()
    step, found = trained(free.plan.peak_bytes)
    assert found == wanted
    assert [one["name"] for one in step.plan.steps] == [one["name"] for one in free.plan.steps]
    step, found = trained(free.plan.peak_bytes - 1)
    assert found == wanted
    assert step.plan.peak_bytes < free.plan.peak_bytes


def test_a_budget_that_cannot_be_met_warns_and_runs() -> None:
    free, wanted = trained()
    with pytest.warns(UserWarning, match=r"memory budget of 1,000 bytes is not met.*float32 \(256, 64\)"):
        step, found = trained(1000)
    assert found == wanted
    assert not step.plan.budget_met
    assert step.plan.peak_bytes < free.plan.peak_bytes / 2


def test_elementwise_lines_come_before_products() -> None:
    plans, found = [], []
    for budget in (None, 0.75):
        fastbp.manual_seed(0)
        w = fastbp.randn(WIDTH, WIDTH).mul(0.1).requires_grad_()

        @fastbp.compile(memory_budget=budget)
        def step(x: Any, w: Any = w) -> None:
            w.grad = None
            for _ in range(3):
                x = x @ w
                x = x.sin() * x.cos()
            x.square().sum().backward()

        step(fastbp.ones(BATCH, WIDTH))
        plans.append(step.plan)
        found.append(w.grad.tolist())
    assert found[0] == found[1]
    assert plans[1].budget_met
    again = [one["name"] for one in plans[1].steps if one["again"]]
    assert again
    assert not any("again matmul" in name for name in again)


@pytest.mark.parametrize("region", [4, 6])
def test_regions(region: int) -> None:
    """Only what goes in and comes out of a region is kept; nothing here is regrouped, so that bits are the same."""
    free, wanted = trained(dropout=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step, found = trained(region=region, dropout=0.25)
    assert found == wanted
    assert step.plan.peak_bytes < 0.6 * free.plan.peak_bytes


def test_nested_regions() -> None:
    def gradients(inner: int, outer: int) -> tuple[int, Any]:
        fastbp.manual_seed(0)
        weights = [fastbp.randn(WIDTH, WIDTH).mul(0.1).requires_grad_() for _ in range(16)]

        def block(x: Any, part: list[Any], sizes: list[int]) -> Any:
            if not sizes:
                for w in part:
                    x = (x @ w).tanh()
                return x
            for start in range(0, len(part), sizes[0]):
                with _core.recomputed_region():
                    x = block(x, part[start : start + sizes[0]], sizes[1:])
            return x

        @fastbp.compile
        def step(x: Any) -> None:
            for w in weights:
                w.grad = None
            block(x, weights, [n for n in (outer, inner) if n]).square().sum().backward()

        step(fastbp.ones(BATCH, WIDTH))
        return step.plan.peak_bytes, [w.grad.tolist() for w in weights]

    free, wanted = gradients(0, 0)
    single, found = gradients(0, 16)
    assert found == wanted
    nested, found = gradients(4, 16)
    assert found == wanted
    assert nested < single  # the inner ones are given up again within the outer one
    assert nested < 0.7 * free


def test_what_a_region_writes_is_written_once() -> None:
    total = fastbp.zeros(3)

    @fastbp.compile
    def step(x: Any) -> None:
        with _core.recomputed_region():
            y = x.tanh()
            total.add_(y.detach())
            z = (y * total).sin()
        z.sum().backward()

    x = fastbp.ones(3, requires_grad=True)
    step(x)
    assert total.tolist() == fastbp.ones(3).tanh().tolist()


def test_saved_values_of_a_function_with_its_derivative() -> None:
    fastbp.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(8) for layer in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])
    x = fastbp.randn(BATCH, WIDTH)
    found = []
    for budget in (None, 0.5):
        compiled = fastbp.compile(model, memory_budget=budget)
        model.zero_grad()
        compiled(x).square().sum().backward()
        found.append(([p.grad.tolist() for p in model.parameters()], compiled.plan))
    assert found[0][0] == found[1][0]
    assert found[1][1].saved_bytes <= 0.5 * found[0][1].saved_bytes
    assert found[1][1].saved_bytes_without == found[0][1].saved_bytes
    assert any(one["again"] for one in found[1][1].derivative.steps)


@pytest.mark.parametrize("budget", [0, -5, 0.0, -0.5, 1.5, float("nan"), 2**63])
def test_budgets_that_are_none(budget: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {budget}")):
        fastbp.compile(lambda x: x, memory_budget=budget)


@pytest.mark.parametrize("budget", [True, "1e6", [1], 1j])
def test_budgets_of_other_types(budget: Any) -> None:
    with pytest.raises(TypeError, match=f"memory_budget.*{type(budget).__name__}"):
        fastbp.compile(lambda x: x, memory_budget=budget)
