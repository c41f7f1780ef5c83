"""Sections: whole training steps, compiled, beside PyTorch and JAX; on one thread and on two.

Each workload is measured in a fresh process, since JAX reads its settings when it loads. On one thread all libraries
share that process and take turns; on two each has a process of its own, for idle pools of threads disturb each other.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

from benchmarks import environment, peak
from benchmarks.compiled_sides import (
    Side,
    compiled_call,
    compiled_epoch,
    jax_sides,
    torch_compiled,
    torch_eager,
)
from benchmarks.results import Check, Context, Row, write_time
from benchmarks.timing import FULL, QUICK, Sample, Timed, interleave
from benchmarks.workloads import (
    DIGITS_NETWORK,
    LARGE_BATCH_RL_NETWORK,
    LARGE_NETWORK,
    MIDDLE_NETWORK,
    RL_NETWORK,
    XOR_NETWORK,
    Network,
)

# Over so few steps only the rounding of float32 and another order of sums part the sides; see eager.LOSS_TOLERANCE.
LOSS_TOLERANCE = 1e-4

EAGER = ("torch loop", "torch foreach", "torch fused")
REMARK = "PyTorch's MKL takes slower paths on AMD processors"

# As `products.IMPOSSIBLE_SHARE`: beyond it the peak was disturbed.
IMPOSSIBLE_SHARE = 1.05

THREAD_TITLES = ("1 thread", "2 threads")

# Fresh processes of each library per workload on two threads, and the seconds each one measures.
THREADED_ROUNDS = 3
THREADED_SECONDS = 1.5


@dataclass(frozen=True)
class Workload:
    """A network with its bars: how many times faster than a peer the compiled step has to be.

    Attributes
    ----------
    network : Network
        What is trained, with Adam.
    loop_steps : int
        Steps inside JAX's loop, and at most in an epoch.
    eager_bar, call_bar, loop_bar : float
        Against PyTorch's best eager step; JAX's jitted call; JAX's loop, met by the epoch.
    gain_bar : float
        Two threads against one.
    peak_bar : float or None
        Share of the arithmetic peak, where products are nearly all of the work.
    torch_compiled : bool
        Whether torch.compile is measured without being asked for; it compiles for some seconds.
    """

    network: Network
    loop_steps: int
    eager_bar: float
    call_bar: float
    loop_bar: float
    gain_bar: float = 0.97  # never slower, but for noise
    peak_bar: float | None = None
    torch_compiled: bool = False


WORKLOADS = {
    "mlp-xor": Workload(XOR_NETWORK, 100, 50, 12, 1.5, torch_compiled=True),
    "mlp-rl-b32": Workload(RL_NETWORK, 100, 20, 6, 2, torch_compiled=True),
    "mlp-rl-b256": Workload(LARGE_BATCH_RL_NETWORK, 100, 8, 2.5, 1.6),
    "mlp-mnist-adam": Workload(DIGITS_NETWORK, 100, 4, 1.4, 1.3),
    "mlp-mid": Workload(MIDDLE_NETWORK, 20, 2.7, 1.2, 1.2, gain_bar=1.7, peak_bar=0.8),
    "mlp-big": Workload(LARGE_NETWORK, 10, 2.2, 1.2, 1.2, gain_bar=1.7, peak_bar=0.8),
}


@dataclass(frozen=True)
class Job:
    """What one process measures.

    Attributes
    ----------
    workload : str
        A name of WORKLOADS.
    subject : str or None
        The module measured, None for a process of peers alone.
    torch, jax : bool
        Whether to measure them.
    torch_compiled : bool
        Whether to measure torch.compile too.
    threads : int
        1: all sides in turn. 2: the subject on one and on two threads, or one peer on two.
    processors : list of int
        Where to run.
    quick : bool
        Whether to take few, short samples.
    """

    workload: str
    subject: str | None
    torch: bool
    jax: bool
    torch_compiled: bool
    threads: int
    processors: list[int]
    quick: bool


# ---- sections ----


def one_thread(context: Context, torch_compile: bool = False) -> Iterator[Row]:
    """Time every workload on one thread, all sides in turn.

    Parameters
    ----------
    context : Context
        What to measure with.
    torch_compile : bool
        Whether to measure torch.compile on every workload, not on the smallest only.
    """
    for name, workload in _chosen(context).items():
        compile_too = torch_compile or (workload.torch_compiled and not context.quick)
        job = Job(
            name,
            context.name,
            torch=context.torch is not None,
            jax=_has_jax(),
            torch_compiled=compile_too and context.torch is not None,
            threads=1,
            processors=context.processors[:1],
            quick=context.quick,
        )
        try:
            yield one_thread_row(context.name, name, workload, _in_process(job))
        except RuntimeError as error:  # the other workloads are still worth their time
            yield Row(name, problem=str(error))


def one_thread_row(subject: str, name: str, workload: Workload, measured: dict[str, Any]) -> Row:
    """Judge what one process measured on one thread."""
    samples = {side: Sample(**values) for side, values in measured["samples"].items()}
    call, epoch = samples[f"{subject} call"].median, samples[f"{subject} epoch"].median
    eager = min((samples[side].median for side in EAGER if side in samples), default=None)
    row = Row(f"{name}: {workload.network.title}", samples=samples, problem=measured["problem"])
    row.figures = {side: write_time(sample.median) for side, sample in samples.items() if side != "float32 peak"}
    row.figures |= {side: f"failed: {reason}" for side, reason in measured["failed"].items()}
    jax_call, jax_loop = (samples[side].median if side in samples else None for side in ("jax call", "jax loop"))
    row.checks = [
        Check("PyTorch eager's speed", eager and eager / call, workload.eager_bar, at_least=True),
        Check("JAX call's speed", jax_call and jax_call / call, workload.call_bar, at_least=True),
        Check("JAX loop's speed, by epoch", jax_loop and jax_loop / epoch, workload.loop_bar, at_least=True),
    ]
    if workload.peak_bar is not None:
        rate = measured["peak"]
        share = rate and workload.network.flops / call / rate
        row.checks.append(Check("of the peak", share, workload.peak_bar, at_least=True, style="percent"))
        if rate:
            row.figures["GFLOP/s"] = f"{workload.network.flops / call / 1e9:.1f}"
            row.figures["peak GFLOP/s"] = f"{rate / 1e9:.1f}"
        if eager is not None:
            row.figures["remark"] = REMARK
        if share is not None and share > IMPOSSIBLE_SHARE:
            row.problem = "faster than the peak: the machine was disturbed"
    return row


def two_threads(context: Context) -> Iterator[Row]:
    """Time every workload on two threads against one, and the peers on two, which are no part of the verdict."""
    if len(context.processors) < 2:
        return
    for name, workload in _chosen(context).items():
        try:
            yield _two_threads_row(context, name, workload)
        except RuntimeError as error:
            yield Row(name, problem=str(error))


def _two_threads_row(context: Context, name: str, workload: Workload) -> Row:
    """Run the libraries in turn, each in a fresh process, round after round; a figure is the median of the rounds."""
    job = Job(name, None, False, False, False, 2, context.processors[:2], context.quick)
    jobs = [replace(job, subject=context.name)]
    if context.torch is not None:
        jobs.append(replace(job, torch=True))
    if _has_jax():
        jobs.append(replace(job, jax=True))
    rounds = [[_in_process(job) for job in jobs] for _ in range(1 if context.quick else THREADED_ROUNDS)]
    row = Row(f"{name}: {workload.network.title}")
    found: dict[str, list[Sample]] = {}
    for measured in (measured for turn in rounds for measured in turn):
        row.problem = row.problem or measured["problem"]
        for side, values in measured["samples"].items():
            found.setdefault(side, []).append(Sample(**values))
    for side, samples in found.items():
        # The round in the middle stands for all: its quartiles belong to its median.
        row.samples[side] = sorted(samples, key=lambda sample: sample.median)[len(samples) // 2]
        row.figures[side] = write_time(row.samples[side].median)
    one, two = (found[f"{context.name} {threads}"] for threads in THREAD_TITLES)
    gain = statistics.median(slow.median / fast.median for slow, fast in zip(one, two, strict=True))
    row.checks = [Check("one thread's speed", gain, workload.gain_bar, at_least=True)]
    return row


def _chosen(context: Context) -> dict[str, Workload]:
    """Return the workloads; the largest is left out of quick runs."""
    return {name: workload for name, workload in WORKLOADS.items() if not (context.quick and name == "mlp-big")}


def _has_jax() -> bool:
    """Whether JAX is installed; it is not imported, for it would start its threads here."""
    return importlib.util.find_spec("jax") is not None


# ---- the measuring process ----


def process_variables(threads: int) -> dict[str, str]:
    """Return the environment of a process in which every library is to use so many threads."""
    variables = os.environ | {name: str(threads) for name in environment.THREAD_VARIABLES} | {"JAX_PLATFORMS": "cpu"}
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return variables


def answer_of(module: str, arguments: list[str], threads: int) -> dict[str, Any]:
    """Run a module of this package in a fresh process and return the JSON object that it prints last.

    Raises
    ------
    RuntimeError
        If the process fails, with the last line of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=environment.ROOT,
        env=process_variables(threads),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _in_process(job: Job) -> dict[str, Any]:
    """Measure in a fresh process and return its answer."""
    return answer_of("benchmarks.compiled", [json.dumps(asdict(job))], job.threads)


def measure(job: Job) -> dict[str, Any]:
    """Build the sides, compare their losses, and time them in turn.

    Returns
    -------
    dict
        "samples": side to the fields of its Sample; "problem": why they are worthless, or None; "failed": side to
        the reason why it is missing; "peak": operations per second of one core, None where it was not measured.
    """
    workload = WORKLOADS[job.workload]
    effort = QUICK if job.quick else replace(FULL, row_seconds=8.0 if job.threads == 1 else THREADED_SECONDS)
    sides: dict[str, Side] = {}
    failed: dict[str, str] = {}
    if job.subject is not None:
        subject = importlib.import_module(job.subject)
        sides |= _subject_sides(subject, workload, job.threads)
    if job.torch:
        importlib.import_module("torch").set_num_threads(job.threads)
        sides |= torch_eager(workload.network)
    if job.torch_compiled:
        try:
            sides["torch compile"] = torch_compiled(workload.network)
        except Exception as error:  # it needs a C++ compiler, and no bar depends on it
            failed["torch compile"] = type(error).__name__
    if job.jax:
        sides |= jax_sides(workload.network, workload.loop_steps)
    timed = {name: side.timed for name, side in sides.items()}
    rate = None
    if workload.peak_bar is not None and job.threads == 1 and (kernel := peak.build()) is not None:
        # Alone first, then in turn with the sides: other work lowers a peak, and a lower one flatters its neighbours.
        flops = kernel.flops["float32"]
        alone = interleave({"peak": kernel.side("float32")}, effort)["peak"]
        samples = interleave(timed | {"float32 peak": kernel.side("float32")}, effort)
        rate = flops / min(alone.median, samples["float32 peak"].median)
    else:
        samples = interleave(timed, effort)
    return {
        "samples": {name: asdict(sample) for name, sample in samples.items()},
        # The number of threads may not change a bit.
        "problem": differing_losses(sides, 0.0 if job.subject is not None and job.threads > 1 else LOSS_TOLERANCE),
        "failed": failed,
        "peak": rate,
    }


def _subject_sides(module: ModuleType, workload: Workload, threads: int) -> dict[str, Side]:
    """Return the subject's sides: call and epoch on one thread, or the call on one thread and on two."""
    module.set_num_threads(1)
    name = module.__name__
    if threads == 1:
        epoch = compiled_epoch(module, workload.network, workload.loop_steps)
        return {f"{name} call": compiled_call(module, workload.network), f"{name} epoch": epoch}
    sides = {}
    for count, title in enumerate(THREAD_TITLES, start=1):
        module.set_num_threads(count)
        side = compiled_call(module, workload.network)
        sides[f"{name} {title}"] = Side(_on_threads(module, count, side.timed), side.losses)
    return sides


def _on_threads(module: ModuleType, count: int, timed: Timed) -> Timed:
    """Return a side that sets the number of threads and wakes them before its time begins."""

    def run(number: int) -> float:
        module.set_num_threads(count)
        timed(1)
        return timed(number)

    return run


def differing_losses(sides: dict[str, Side], tolerance: float = LOSS_TOLERANCE) -> str | None:
    """Return a sentence about the first side whose losses are not those of the first one, None when all agree."""
    reference_name, reference = next(iter(sides.items()))
    for name, side in sides.items():
        for index, loss in side.losses.items():
            # An equality that not-a-number does not pass.
            if not abs(loss - reference.losses[index]) <= tolerance * abs(reference.losses[index]):
                return f"losses differ at step {index}: {name} {loss}, {reference_name} {reference.losses[index]}"
    return None


def main(text: str) -> None:
    """Measure one job, given as JSON, and print the answer as one line of JSON."""
    job = Job(**json.loads(text))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.processors)
    print(json.dumps(measure(job)))


if __name__ == "__main__":
    main(sys.argv[1])
