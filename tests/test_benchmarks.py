"""The benchmarks measure what they say: their workloads, their checks and their verdicts."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import fastbp

ROOT = Path(__file__).resolve().parent.parent

# The losses before the first two updates, as PyTorch 2.13 computes them from the workloads' specification.
FIRST_LOSSES = {
    "mlp-xor": (1.396063, 1.383945),
    "mlp-rl-b32": (1.368313, 1.346324),
    "mlp-rl-b256": (1.404921, 1.394782),
    "mlp-mnist-adam": (2.343249, 2.016736),
    "mlp-mid": (2.315702, 2.192938),
    "mlp-big": (2.302760, 2.190833),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The modules of the benchmarks by their short names."""
    if not (ROOT / "benchmarks" / "compiled.py").is_file():
        pytest.skip("not in a checkout: benchmarks are not installed")
    sys.path.insert(0, str(ROOT))
    names = ("compiled", "compiled_costs", "compiled_sides", "timing", "transformer", "workloads", "__main__")
    modules: dict[str, ModuleType] = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    yield SimpleNamespace(main=modules.pop("__main__"), **modules)
    sys.path.remove(str(ROOT))


def test_the_sections_of_compiled_steps_are_listed(bench: SimpleNamespace) -> None:
    sections = ("compiled", "compiled-threads", "compiled-overhead", "compiled-scalar", "compiled-memory")
    assert set(sections) <= set(bench.main.all_sections())


# ---- workloads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIRST_LOSSES)
def test_a_workload_starts_as_specified(bench: SimpleNamespace, name: str) -> None:
    training = bench.workloads.make_training(fastbp, bench.compiled.WORKLOADS[name].network)
    losses = [training.step(training.inputs, training.labels).item() for _ in range(2)]
    np.testing.assert_allclose(losses, FIRST_LOSSES[name], rtol=1e-6)


def test_the_flops_of_a_step_leave_out_the_gradient_by_the_batch(bench: SimpleNamespace) -> None:
    network = bench.workloads.Network((2, 3, 5), 7, "ReLU")
    assert network.flops == 2 * 7 * (2 * (2 * 3) + 3 * (3 * 5))


def test_the_scalar_graph_has_the_gradient_of_its_differences(bench: SimpleNamespace) -> None:
    values = bench.workloads.scalar_leaves()
    leaves = [fastbp.tensor(value, dtype=fastbp.float64, requires_grad=True) for value in values]
    total = bench.workloads.scalar_graph(leaves, 500, fastbp.tanh)
    found = [total.item(), *(grad.item() for grad in fastbp.autograd.grad(total, leaves))]
    # Central differences with a step of 1e-6 are good to some 1e-10 of the value.
    np.testing.assert_allclose(found, bench.compiled_costs.central_differences(values, 500), rtol=1e-7, atol=1e-8)


def test_the_transformer_learns_its_batch(bench: SimpleNamespace) -> None:
    step, tokens, targets = bench.transformer.make_transformer(fastbp, bench.transformer.Transformer())
    losses = [step(tokens, targets).item() for _ in range(5)]
    assert losses[0] == pytest.approx(math.log(65), rel=0.05)  # near enough to uniform at first
    assert losses == sorted(losses, reverse=True)


# ---- sides and verdicts --------------------------------------------------------------------------------------------


def test_a_side_with_another_loss_is_named(bench: SimpleNamespace) -> None:
    def side(*losses: float) -> object:
        return bench.compiled_sides.Side(lambda number: 0.0, dict(enumerate(losses)))

    differing = bench.compiled.differing_losses
    assert differing({"ours": side(2.0, 1.0), "theirs": side(2.0, 1.00005)}) is None
    assert "theirs" in differing({"ours": side(2.0, 1.0), "theirs": side(2.0, 1.0002)})
    assert "theirs" in differing({"ours": side(2.0, 1.0), "theirs": side(2.0, math.nan)})
    assert "ours" in differing({"ours": side(math.nan)})
    assert "2 threads" in differing({"1 thread": side(1.0), "2 threads": side(1.0 + 1e-7)}, tolerance=0.0)


def test_blocks_of_steps_are_timed_by_the_step(bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def block() -> None:
        nonlocal now
        now += 30.0

    monkeypatch.setattr(bench.compiled_sides, "time", SimpleNamespace(perf_counter=lambda: now))
    timed = bench.compiled_sides.in_blocks(block, steps=10)
    assert timed(1) == pytest.approx(3.0)
    assert timed(44) == pytest.approx(44 * 3.0)
    assert now == (1 + 4) * 30.0


def test_an_epoch_fits_its_bytes(bench: SimpleNamespace) -> None:
    steps = {
        name: bench.compiled_sides.epoch_steps(workload.network, workload.loop_steps)
        for name, workload in bench.compiled.WORKLOADS.items()
    }
    assert steps["mlp-xor"] == 100
    assert 10 <= steps["mlp-mnist-adam"] <= bench.compiled_sides.EPOCH_BYTES / (64 * 784 * 4)
    assert min(steps.values()) >= bench.compiled_sides.CHECKED_STEPS


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # mlp-mid asks for 2.7x the best eager step, 1.2x JAX's call, 1.2x its loop by epoch, and 80% of the peak.
        ({}, [True, True, True, True]),
        ({"torch fused": 2.6e-3}, [False, True, True, True]),
        ({"jax call": 1.1e-3}, [True, False, True, True]),
        ({"fastbp epoch": 2.6e-3}, [True, True, False, True]),
        ({"fastbp call": 1.1e-3}, [True, True, True, False]),
    ],
)
def test_each_bar_is_judged_by_its_own_sides(
    bench: SimpleNamespace, seconds: dict[str, float], expected: list[bool]
) -> None:
    workload = bench.compiled.WORKLOADS["mlp-mid"]
    taken = {"fastbp call": 1e-3, "fastbp epoch": 1e-3, "torch loop": 9e-3, "torch foreach": 9e-3, "torch fused": 4e-3}
    taken |= {"jax call": 2e-3, "jax loop": 3e-3} | seconds
    samples = {name: asdict(bench.timing.summarize([value])) for name, value in taken.items()}
    peak = workload.network.flops / 1e-3 / 0.85
    measured = {"samples": samples, "problem": None, "failed": {}, "peak": peak}
    row = bench.compiled.one_thread_row("fastbp", "mlp-mid", workload, measured)
    assert [check.passed for check in row.checks] == expected
    assert row.passed is all(expected)


def test_a_step_above_the_peak_is_a_fault(bench: SimpleNamespace) -> None:
    workload = bench.compiled.WORKLOADS["mlp-mid"]
    samples = {name: asdict(bench.timing.summarize([1e-3])) for name in ("fastbp call", "fastbp epoch")}
    measured = {"samples": samples, "problem": None, "failed": {}, "peak": workload.network.flops / 1e-3 / 1.1}
    row = bench.compiled.one_thread_row("fastbp", "mlp-mid", workload, measured)
    assert row.passed is False
    assert [check.passed for check in row.checks[:3]] == [None, None, None]
