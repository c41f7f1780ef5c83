"""Sections: what compiled functions cost beside arithmetic: a call, a capture, a node of a scalar graph, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.compiled import LOSS_TOLERANCE, answer_of
from benchmarks.results import Check, Context, Row, ratio, time_columns, write_time
from benchmarks.scalar_chain import resident_bytes
from benchmarks.timing import Timed, calls, interleave, statement, summarize
from benchmarks.transformer import Transformer, make_transformer
from benchmarks.workloads import (
    LARGE_NETWORK,
    RL_NETWORK,
    import_or_none,
    initial_values,
    make_training,
    scalar_graph,
    scalar_leaves,
)

CALL_BAR_US = 1.0
CAPTURES = 20
SCALAR_NODES = 100_000
QUICK_SCALAR_NODES = 10_000

# Float64, a sum of some ten thousand products: far more than its roundings, far less than a wrong gradient.
SCALAR_TOLERANCE = 1e-9

MEMORY_STEPS = 10
MEMORY_BAR = 0.6

Maker = Callable[[ModuleType], tuple[Callable[[Any, Any], Any], Any, Any]]


# ---- overhead ----


def overhead(context: Context) -> Iterator[Row]:
    """Time a compiled call with next to no work, and the first calls, which capture and plan."""
    yield _call_row(context)

    def small(module: ModuleType) -> tuple[Callable[[Any, Any], Any], Any, Any]:
        training = make_training(module, RL_NETWORK)
        return training.step, training.inputs, training.labels

    yield _capture_row(context, f"capture and planning, mlp-rl: {RL_NETWORK.title}", small, 5.0)
    sizes = Transformer()
    title = f"capture and planning, transformer of {sizes.layers} layers, width {sizes.width}"
    yield _capture_row(context, title, lambda module: make_transformer(module, sizes), 50.0)


def _call_row(context: Context) -> Row:
    """Time x + 1 on one element, compiled and eager."""

    def increment(x: Any) -> Any:
        return x + 1

    subject = context.subject
    compiled, x = subject.compile(increment), subject.tensor([2.0])
    row = Row("call of x + 1, one element")
    if (result := compiled(x).tolist()) != [3.0]:
        row.problem = f"2 + 1 came out as {result}"
    sides: dict[str, Timed] = {
        f"{context.name} compiled": statement("f(x)", f=compiled, x=x),
        f"{context.name} eager": statement("f(x)", f=increment, x=x),
    }
    if context.torch is not None:
        sides["torch eager"] = statement("f(x)", f=increment, x=context.torch.tensor([2.0]))
    row.samples = interleave(sides, context.effort)
    row.figures = time_columns(row.samples)
    value = row.samples[f"{context.name} compiled"].median / 1e-6
    row.checks = [Check("per call", value, CALL_BAR_US, at_least=False, style="us")]
    return row


def _capture_row(context: Context, case: str, make: Maker, bar: float) -> Row:
    """Time the first call of fresh compiled steps; the network is built outside the time."""
    expected = _first_loss(make, context.torch or context.subject)
    taken: dict[str, list[float]] = {"first call": [], "second call": []}
    problem = None
    for turn in range(3 if context.quick else CAPTURES + 1):
        step, x, y = make(context.subject)
        gc.collect()
        start = time.perf_counter()
        compiled = context.subject.compile(step)
        loss = compiled(x, y)
        first = time.perf_counter()
        compiled(x, y)
        second = time.perf_counter()
        if turn > 0:  # the first of all loads what every later one finds loaded
            taken["first call"].append(first - start)
            taken["second call"].append(second - first)
        if not np.isclose(float(loss.item()), expected, rtol=LOSS_TOLERANCE, atol=0):
            problem = f"the first loss is {loss.item()}, not {expected}"
    samples = {name: summarize(values) for name, values in taken.items()}
    check = Check("for the first call", samples["first call"].median / 1e-3, bar, at_least=False, style="ms")
    return Row(case, time_columns(samples), [check], samples, problem)


def _first_loss(make: Maker, module: ModuleType) -> float:
    """Return the loss of the first step, eager."""
    step, x, y = make(module)
    return float(step(x, y).item())


# ---- scalar graph ----


def scalar(context: Context) -> Iterator[Row]:
    """Time a graph of scalars, value and all 16 gradients, replayed, beside a function of CasADi."""
    nodes = QUICK_SCALAR_NODES if context.quick else SCALAR_NODES
    module, values = context.subject, scalar_leaves()

    def value_and_gradient(*leaves: Any) -> tuple[Any, ...]:
        total = scalar_graph(leaves, nodes, module.tanh)
        return (total, *module.autograd.grad(total, leaves))

    leaves = [module.tensor(value, dtype=module.float64, requires_grad=True) for value in values]
    compiled = module.compile(value_and_gradient)
    start = time.perf_counter()
    results = {context.name: np.array([float(out.item()) for out in compiled(*leaves)])}
    built = {context.name: time.perf_counter() - start}
    sides = {context.name: calls(lambda: compiled(*leaves))}
    casadi = import_or_none("casadi")
    if casadi is not None:
        start = time.perf_counter()
        function = _casadi_function(casadi, nodes)
        total, gradient = function(values)
        built["casadi"] = time.perf_counter() - start
        results["casadi"] = np.array([float(total), *np.asarray(gradient).ravel()])
        sides["casadi"] = calls(lambda: function(values))
    samples = interleave(sides, context.effort)
    row = Row(f"{nodes:,} nodes, value and 16 gradients, replayed", samples=samples)
    for name, sample in samples.items():
        row.figures[name] = write_time(sample.median)
        row.figures[f"{name} per node"] = f"{sample.median / nodes / 1e-9:.2f} ns"
    row.figures |= {f"{name} built in": write_time(seconds) for name, seconds in built.items()}
    row.checks = [Check("CasADi's time", ratio(samples, context.name, "casadi"), 1.0, at_least=False)]
    expected = results.get("casadi", central_differences(values, nodes))
    tolerance = SCALAR_TOLERANCE if casadi is not None else 1e-5  # differences are no better
    if not np.allclose(results[context.name], expected, rtol=tolerance, atol=tolerance):
        row.problem = f"value and gradients are {results[context.name]}, not {expected}"
    yield row


def _casadi_function(casadi: ModuleType, nodes: int) -> Any:
    """Return CasADi's function of the 16 leaves, a vector, to value and gradient."""
    vector = casadi.SX.sym("leaves", len(scalar_leaves()))
    total = scalar_graph([vector[index] for index in range(vector.numel())], nodes, casadi.tanh)
    return casadi.Function("f", [vector], [total, casadi.gradient(total, vector)])


def central_differences(values: list[float], nodes: int) -> np.ndarray:
    """Return value and gradient of the graph in plain NumPy, for want of a peer."""
    around = np.tile(np.array(values)[:, None], (1, 1 + 2 * len(values)))
    step = 1e-6
    for index in range(len(values)):
        around[index, 1 + 2 * index] += step
        around[index, 2 + 2 * index] -= step
    results = scalar_graph(list(around), nodes, np.tanh)
    return np.array([results[0], *(results[1::2] - results[2::2]) / (2 * step)])


# ---- memory ----


def memory(context: Context) -> Iterator[Row]:
    """Run some steps of the largest network in fresh processes and compare how far their memory grew.

    No row where the system does not tell the memory of a process.
    """
    if resident_bytes() is None:
        return
    names = [context.name] + (["torch"] if context.torch is not None else [])
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(1 if context.quick else 3):
        for name in names:
            arguments = [name, str(context.processors[0])]
            runs[name].append(answer_of("benchmarks.compiled_costs", arguments, threads=1))
    row = Row(f"mlp-big: {LARGE_NETWORK.title}, {MEMORY_STEPS} steps")
    growth: dict[str, float] = {}
    for name, results in runs.items():
        middle = sorted(results, key=lambda result: result["growth"])[len(results) // 2]
        growth[name] = middle["growth"]
        row.figures[f"{name}, growth"] = f"{middle['growth'] / 1e6:.1f} MB"
        row.figures[f"{name}, whole process"] = f"{middle['process'] / 1e6:.0f} MB"
        if middle["plan"] is not None:
            row.figures["plan.peak_bytes"] = f"{middle['plan'] / 1e6:.1f} MB"
        if not np.isclose(middle["loss"], runs[names[0]][0]["loss"], rtol=1e-2, atol=0):
            # After ten steps of Adam another order of sums shows in the third digit already.
            row.problem = f"losses differ: {name} {middle['loss']}, {names[0]} {runs[names[0]][0]['loss']}"
    share = growth[context.name] / growth["torch"] if "torch" in growth else None
    row.checks = [Check("of PyTorch's growth", share, MEMORY_BAR, at_least=False)]
    yield row


def measure_memory(name: str) -> dict[str, Any]:
    """Train for some steps and return by how many bytes memory grew at its peak, from the imports on.

    The initial values are made before the count begins: they are the benchmark's, not the library's. PyTorch runs its
    fused eager step, a module that can compile its compiled one.
    """
    module = importlib.import_module(name)
    for part in ("nn", "nn.functional", "optim"):
        importlib.import_module(f"{name}.{part}")
    module.set_num_threads(1)
    values = initial_values(LARGE_NETWORK)
    gc.collect()
    whole = _settle_peak()
    before = resident_bytes()
    is_torch = name == "torch"
    training = make_training(module, LARGE_NETWORK, values, **({"fused": True} if is_torch else {}))
    step: Any = training.step if is_torch else module.compile(training.step)
    for _ in range(MEMORY_STEPS):
        loss = step(training.inputs, training.labels)
    peak = _peak_bytes()
    return {
        "growth": peak - (before or 0),
        "process": max(whole, peak),
        "plan": None if is_torch else int(step.plan.peak_bytes),
        "loss": float(loss.item()),
    }


def _settle_peak() -> int:
    """Give freed memory back and let the peak begin anew, where the system can; return the one up to now."""
    peak = _peak_bytes()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    # Where the kernel does not offer this, what the imports held for a moment may count as growth.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def _peak_bytes() -> int:
    """Return the most memory this process has held since its peak last began anew.

    getrusage would not do: its figure starts from the memory of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(sys.argv[2])])
    print(json.dumps(measure_memory(sys.argv[1])))
