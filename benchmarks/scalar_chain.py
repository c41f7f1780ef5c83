"""Section: a graph of a million scalar ops, built and differentiated, each time in a fresh process."""

from __future__ import annotations

import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks import environment
from benchmarks.results import Check, Context, Row
from benchmarks.timing import seconds_of, summarize

ITERATIONS = 500_000  # of two ops each
QUICK_ITERATIONS = 50_000

# Near enough to 1 that neither the values nor the cotangents of half a million steps leave float32's normal range.
FACTOR = 0.999999
ADDEND = 0.001

# 500,000 float32 roundings of a growing sum may all fall on one side: 500,000 * 3e-8 = 1.5%.
GRADIENT_TOLERANCE = 0.02

BUILD_BAR = 300.0
BACKWARD_BAR = 60.0
BYTES_BAR = 200.0


def resident_bytes() -> int | None:
    """Return the memory this process holds now, None where /proc does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def core_counts(module: Any) -> dict[str, int]:
    """Return what the module's own core counts: live bytes and live blocks; empty where it does not count."""
    core = getattr(module, "_core", None)
    statistics_of = getattr(core, "memory_statistics", None)
    return dict(statistics_of()) if statistics_of is not None else {}


def expected_gradients(iterations: int, factor: float) -> tuple[float, float]:
    """Return dy/dx and dy/dc of y <- y * c + x from y = x, in closed form for the rounded factor."""
    terms = iterations + 1
    power = factor**terms
    by_x = (1 - power) / (1 - factor)
    by_c = ADDEND * (1 - power - terms * factor**iterations * (1 - factor)) / (1 - factor) ** 2
    return by_x, by_c


def measure(name: str, iterations: int) -> dict[str, Any]:
    """Build and differentiate the chain once with a module and return seconds, bytes and whether it came out right."""
    module = importlib.import_module(name)
    module.set_num_threads(1)
    x = module.tensor(ADDEND, requires_grad=True)
    c = module.tensor(FACTOR, requires_grad=True)
    (x * c + x).backward()  # first-call costs, outside the time
    x.grad = c.grad = None
    gc.collect()
    y = x

    def build() -> None:
        nonlocal y
        total = x
        for _ in range(iterations):
            total = total * c + x
        y = total

    resident, core = resident_bytes(), core_counts(module)
    built = seconds_of(build)
    resident_after, core_after = resident_bytes(), core_counts(module)
    backward = seconds_of(lambda: y.backward())
    by_x, by_c = expected_gradients(iterations, float(c.item()))
    wrong = max(abs(float(x.grad.item()) / by_x - 1), abs(float(c.grad.item()) / by_c - 1))
    return {
        "build": built,
        "backward": backward,
        "resident": None if resident is None or resident_after is None else resident_after - resident,
        # A core that counts no byte for a million live nodes counts arrays only, and says nothing about them.
        "core": (core_after["slab_bytes"] - core["slab_bytes"] if core else 0) or None,
        "gradient_error": wrong,
    }


def scalar_graph(context: Context) -> Iterator[Row]:
    """Run the chain in fresh processes, subject and PyTorch in turn."""
    iterations = QUICK_ITERATIONS if context.quick else ITERATIONS
    names = [context.name] + (["torch"] if context.torch is not None else [])
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(2 if context.quick else 7):
        for name in names:
            if name == context.name or turn < 3:  # PyTorch takes some ten seconds a run
                runs[name].append(_in_process(name, iterations))
    ops = 2 * iterations
    problem = None
    for name, results in runs.items():
        worst = max(result["gradient_error"] for result in results)
        if not worst < GRADIENT_TOLERANCE:
            problem = f"{name}: gradients are off by {worst:.1%}"
    for key, bar in (("build", BUILD_BAR), ("backward", BACKWARD_BAR)):
        samples = {name: summarize([result[key] / ops for result in results]) for name, results in runs.items()}
        figures = {name: f"{sample.median / 1e-9:,.0f} ns/op" for name, sample in samples.items()}
        check = Check("per op", samples[context.name].median / 1e-9, bar, at_least=False, style="ns")
        yield Row(f"{key}, {ops:,} ops", figures, [check], samples, problem)
    for key, title in (("resident", "memory of the process"), ("core", "memory by the core's own count")):
        figures, value = {}, None
        for name, results in runs.items():
            known = [result[key] / ops for result in results if result[key] is not None]
            if known:
                figures[name] = f"{statistics.median(known):,.0f} bytes/op"
                value = statistics.median(known) if name == context.name else value
        yield Row(f"{title}, {ops:,} ops", figures, [Check("per op", value, BYTES_BAR, at_least=False, style="bytes")])


def _in_process(name: str, iterations: int) -> dict[str, Any]:
    """Run `measure` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scalar_chain", name, str(iterations)]
    done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1:]}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
