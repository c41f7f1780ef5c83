"""Times of the steps of a plan, beside what the machine could do: what `step.profile(...)` returns.

A step needs at least ``max(flops / peak, bytes / bandwidth)`` seconds. Peak and bandwidths are not looked up but
measured, with this library's own kernels, for the instruction set and the number of threads in force; each once per
process, and only when a step asks for it.
"""

from __future__ import annotations

import functools
import operator
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastbp

from . import _core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._core import Plan, Tensor

__all__ = ["Profile", "ProfileRow", "profile_plan", "roofline_share"]

# Runs before the timed ones: they bring code and data into the caches. Few, as each of them has the function's effects.
WARM_UPS = 3

# No step takes less than the clock's unit; also what remains of a step that is as short as the reading of the clock.
LEAST_SECONDS = 1e-9

# Bytes, source and target together, of the copies that bandwidths are taken from: for data in the first, the second
# and the last cache, and in none.
COPY_SIZES = (32 << 10, 512 << 10, 4 << 20, 64 << 20)
COPY_SECONDS = 0.015  # spent on each

# Sizes of square products that the peak is taken from: small ones for slow kernels, which can be run more often, and
# larger ones for several threads, which need something to share out.
PRODUCT_SIZES = (128, 256, 384)
PRODUCT_SECONDS = 0.015

CLOCK_STEPS = 64  # of the plan that is run with and without clock
CLOCK_SECONDS = 0.01

NAME_WIDTH = 48
HEADINGS = ("", "step", "result", "calls", "us", "time", "flops", "bytes", "GFLOP/s", "GB/s", "roofline")
LEFT_COLUMNS = (1, 2)

# ------------------------------------------------------------------------------------------- what the machine can do


def best_seconds(call: Callable[[], Any], budget: float) -> float:
    """The least time of one call, of as many as fit into `budget` seconds; at least two."""
    best = float("inf")
    end = time.perf_counter() + budget
    calls = 0
    while True:
        before = time.perf_counter()
        call()
        after = time.perf_counter()
        best = min(best, after - before)
        calls += 1
        if after > end and calls > 1:
            return best


class Machine:
    """What this machine reaches with one instruction set and one number of threads; measured when first asked for.

    Parameters
    ----------
    isa : str
        Instruction set of the kernels in force, for the printed profile.
    threads : int
        Threads in force, for the printed profile.
    """

    def __init__(self, isa: str, threads: int) -> None:
        self.isa = isa
        self.threads = threads
        self._peaks: dict[str, float] = {}
        self._bandwidths: dict[int, float] = {}

    def peak(self, dtype: str) -> float:
        """Floating-point operations per second of the best matrix product of a dtype, "float32" or "float64"."""
        if dtype not in self._peaks:
            self._peaks[dtype] = max(self._product_rate(dtype, size) for size in PRODUCT_SIZES)
        return self._peaks[dtype]

    def bandwidth(self, size: int) -> float:
        """Bytes read and written per second by a copy that touches `size` bytes, one of COPY_SIZES."""
        if size not in self._bandwidths:
            self._bandwidths[size] = self._copy_rate(size)
        return self._bandwidths[size]

    @staticmethod
    def _product_rate(dtype: str, size: int) -> float:
        a, b = (fastbp.ones(size, size, dtype=getattr(fastbp, dtype)) for _ in range(2))
        return 2.0 * size**3 / best_seconds(lambda: fastbp.matmul(a, b), PRODUCT_SECONDS)

    @staticmethod
    def _copy_rate(size: int) -> float:
        def copies(numel: int) -> Callable[[], None]:
            # Not zeros: untouched pages of zeros may all be the same page.
            source, target = (fastbp.ones(numel, dtype=fastbp.float32) for _ in range(2))

            def run() -> None:
                for _ in range(repeats):
                    target.copy_(source)

            return run

        # The call of a small copy takes as long as the copy, so that of a copy of nothing is taken off.
        repeats = 10 if size <= COPY_SIZES[1] else 1
        nothing = best_seconds(copies(0), COPY_SECONDS / 5)
        whole = best_seconds(copies(size // 8), COPY_SECONDS)
        return repeats * size / max(whole - nothing, repeats * LEAST_SECONDS)


# One measurement at a time: two at once would each find half a machine.
_measuring = threading.Lock()
_machines: dict[tuple[str, int], Machine] = {}


def machine_in_force() -> Machine:
    """The machine with the present instruction set and number of threads."""
    key = (_core.get_isa(), fastbp.get_num_threads())
    return _machines.setdefault(key, Machine(*key))


@functools.cache
def clock_seconds() -> float:
    """Seconds of a step's time that are the reading of the clock: two readings a step, and about half of each inside.

    It is the difference between runs of one plan of many small steps with clock and without.
    """

    def chain(x: Tensor, w: Tensor) -> Tensor:
        for _ in range(CLOCK_STEPS):
            x = fastbp.matmul(x, w)
        return x

    x, w = (fastbp.zeros(2, 2, dtype=fastbp.float32) for _ in range(2))
    step = fastbp.compile(chain)
    step(x, w)
    plan = step.plan
    assert plan is not None
    seconds = array("d", bytes(8 * len(plan)))
    timed = best_seconds(lambda: plan.profile_run([x, w], seconds), CLOCK_SECONDS)
    plain = best_seconds(lambda: step(x, w), CLOCK_SECONDS)
    return max(timed - plain, 0.0) / (2 * len(plan))


def copy_size_for(size: float) -> int:
    """The one of COPY_SIZES that is next above a step's bytes, the largest for all beyond it."""
    return next((one for one in COPY_SIZES if one >= size), COPY_SIZES[-1])


def roofline_share(flops: float, size: float, seconds: float, peak: float, bandwidth: float) -> float:
    """The least time that the machine needs, as a part of the time that was taken.

    The machine computes and moves data at the same time, so the longer of the two counts.

    Parameters
    ----------
    flops, size : float
        Floating-point operations, and bytes read and written.
    seconds : float
        Time taken, more than 0.
    peak, bandwidth : float
        Operations and bytes per second that the machine reaches.

    Returns
    -------
    float
        1 where nothing is left to gain.

    Examples
    --------
    >>> roofline_share(flops=4e9, size=1e9, seconds=0.08, peak=1e11, bandwidth=1e11)
    0.5
    """
    return max(flops / peak, size / bandwidth) / seconds


# ------------------------------------------------------------------------------------------- the profile


@dataclass(frozen=True)
class ProfileRow:
    """One step of a plan, or all of them.

    Attributes
    ----------
    name : str
        The step's operations, as in the printed plan; "total" for all.
    dtype : str or None
        Of the result; None for the total and for steps without a result.
    shape : tuple of int or None
        Of the result; None likewise.
    calls : int
        Timed runs.
    seconds : float
        Time of one run, the mean; without the reading of the clock, and at least 1 ns.
    share : float
        Part of the plan's time, 0 to 1.
    flops : float
        Floating-point operations of one run. Of elementwise steps each operation counts 1 an element, also exp, tanh,
        a quotient or a root, which take several; so their `gflops_per_second` are low beside a product's.
    bytes : float
        Bytes of all operands and results, each once.
    gflops_per_second, gbytes_per_second : float
        The two above, per second of the step's time, in units of 10**9.
    roofline_share : float
        Least time that the machine needs for `flops` and `bytes`, as a part of `seconds`: see `Profile`.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...] | None
    calls: int
    seconds: float
    share: float
    flops: float
    bytes: float
    gflops_per_second: float
    gbytes_per_second: float
    roofline_share: float


@dataclass(frozen=True, repr=False)
class Profile:
    """Times of the steps of a plan; `print()` shows a table with a line a step, in the order in which they run.

    The share of the roofline is the least time of a step, ``max(flops / peak, bytes / bandwidth)``, over its measured
    time. Peak is the rate of the best matrix product in the step's dtype (float32 for steps that result in integers or
    booleans). Bandwidth is that of the best copy which touches 32 KiB, 512 KiB, 4 MiB or 64 MiB, whichever is next
    above the step's bytes: data of that size lie in that cache. Both are measured with this library's kernels, the
    instruction set and the number of threads in force, when a profile first needs them.

    A share above 1 is no mistake in itself: a step may find its data in a nearer cache than the copy did, or the
    machine was busy when it was measured. Steps of less than some 100 ns are ruled by the cost of calling a kernel.

    Attributes
    ----------
    rows : list of ProfileRow
        One a step, as `plan.steps`.
    total : ProfileRow
        Sums of the rows; its share of the roofline is the sum of the least times over the sum of the times.
    peaks : dict of str to float
        Operations per second, by dtype, of those dtypes that rows refer to.
    bandwidths : dict of int to float
        Bytes per second, by size of copy, of those sizes that rows refer to.
    isa, threads : str, int
        Instruction set and number of threads of all these figures.
    clock : float
        Seconds of reading the clock, which were taken off each step's time.
    """

    rows: list[ProfileRow]
    total: ProfileRow
    peaks: dict[str, float]
    bandwidths: dict[int, float]
    isa: str
    threads: int
    clock: float

    def __str__(self) -> str:
        table = [HEADINGS, *(_cells(str(number), row) for number, row in enumerate(self.rows)), _cells("", self.total)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"profile of {len(self.rows)} steps, {self.total.calls} calls"]
        for cells in table:
            padded = [
                cell.ljust(width) if column in LEFT_COLUMNS else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append("  ".join(padded).rstrip())
        return "\n".join([*lines, *self._notes()])

    __repr__ = __str__

    def _notes(self) -> list[str]:
        """What the shares refer to."""
        peaks = [f"{rate / 1e9:,.1f} GFLOP/s ({dtype})" for dtype, rate in self.peaks.items()]
        bandwidths = [f"{rate / 1e9:,.1f} GB/s ({_size_text(size)})" for size, rate in self.bandwidths.items()]
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        rates = f"peak {', '.join(peaks) or '-'}; bandwidth {', '.join(bandwidths) or '-'}"
        return [
            f"roofline, measured: {rates}; {self.isa}, {threads}",
            f"each step's time is without {self.clock * 1e9:.0f} ns for reading the clock",
        ]


def _size_text(size: int) -> str:
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def _cells(number: str, row: ProfileRow) -> tuple[str, ...]:
    """A row's texts, one for each of HEADINGS."""
    name = row.name if len(row.name) <= NAME_WIDTH else row.name[: NAME_WIDTH - 3] + "..."
    return (
        number,
        name,
        "" if row.shape is None else f"{row.dtype} {row.shape}",
        f"{row.calls:,}",
        f"{row.seconds * 1e6:,.3f}",
        f"{row.share:.1%}",
        f"{row.flops:,.0f}",
        f"{row.bytes:,.0f}",
        f"{row.gflops_per_second:,.2f}",
        f"{row.gbytes_per_second:,.2f}",
        f"{row.roofline_share:.1%}",
    )


def _run(plan: Plan, tensors: list[Tensor], calls: int) -> array[float]:
    """Each step's seconds, summed over `calls` runs."""
    seconds = array("d", bytes(8 * len(plan)))
    for _ in range(calls):
        if not plan.fits(tensors):
            raise RuntimeError(
                "profile: the plan does not fit any more: a run of it, or another thread, has changed something that "
                "it was made for (for instance gradients, which are None before a first call and added to in the "
                "next). Call the function once, then profile it"
            )
        plan.profile_run(tensors, seconds)
    return seconds


def profile_plan(plan: Plan, tensors: Sequence[Tensor], repeat: int = 100) -> Profile:
    """Time each step of a plan.

    Every run has the effects of a call, and 3 untimed runs come before the `repeat` timed ones: parameters are updated,
    random numbers drawn and step counts raised `repeat` + 3 times.

    Parameters
    ----------
    plan : Plan
        The plan, which must fit `tensors` before every run.
    tensors : sequence of Tensor
        The call's arguments.
    repeat : int, optional
        Timed runs, at least 1. Default: 100.

    Returns
    -------
    Profile
        Prints as a table.

    Raises
    ------
    TypeError
        If `repeat` is no integer.
    ValueError
        If `repeat` is less than 1. Nothing was run.
    RuntimeError
        If the plan does not fit (any more); the runs before had their effects.

    Notes
    -----
    The first profile in a process also measures the machine and the clock, for some 0.1 to 0.3 s; these measurements
    leave the random state and the caller's tensors alone. The steps' sum is less than the time of a call, which also
    binds its arguments and makes its results. Of a function that is compiled with its derivative these are the forward
    steps.

    Examples
    --------
    >>> import fastbp
    >>> step = fastbp.compile(lambda x: (x @ x).tanh())
    >>> profile = step.profile(fastbp.ones(4, 4), repeat=10)
    >>> len(profile.rows) == len(step.plan)
    True
    """
    repeat = operator.index(repeat)
    if repeat < 1:
        raise ValueError(f"profile: repeat must be at least 1, got {repeat}")
    arguments = list(tensors)
    _run(plan, arguments, WARM_UPS)
    sums = _run(plan, arguments, repeat)
    with _measuring:
        return summarize(plan.steps, sums, repeat, machine_in_force(), clock_seconds())


def summarize(
    steps: Sequence[dict[str, Any]], sums: Sequence[float], calls: int, machine: Machine, clock: float
) -> Profile:
    """The profile of steps that took `sums` seconds in `calls` runs, the clock's reading included."""
    times = [max(one / calls - clock, LEAST_SECONDS) for one in sums]
    whole, least_sum = sum(times), 0.0
    peaks: dict[str, float] = {}
    bandwidths: dict[int, float] = {}
    rows = []
    for step, seconds in zip(steps, times, strict=True):
        flops, size = step["flops"], step["bytes"]
        dtype, copy_size = "float64" if step["dtype"] == "float64" else "float32", copy_size_for(size)
        peak = peaks[dtype] = machine.peak(dtype)
        bandwidth = bandwidths[copy_size] = machine.bandwidth(copy_size)
        share = roofline_share(flops, size, seconds, peak, bandwidth)
        rows.append(_row(step, calls, seconds, seconds / whole, flops, size, share))
        least_sum += share * seconds
    total = _row(
        {"name": "total", "dtype": None, "shape": None},
        calls,
        whole,
        1.0 if rows else 0.0,
        sum(row.flops for row in rows),
        sum(row.bytes for row in rows),
        least_sum / whole if rows else 0.0,
    )
    return Profile(rows, total, peaks, dict(sorted(bandwidths.items())), machine.isa, machine.threads, clock)


def _row(
    step: dict[str, Any], calls: int, seconds: float, share: float, flops: float, size: float, roofline: float
) -> ProfileRow:
    """The row of a step, or of all as one; its rates are 0 where there are none."""
    per_second = 1e-9 / seconds if seconds else 0.0
    return ProfileRow(
        name=step["name"],
        dtype=step["dtype"],
        shape=step["shape"],
        calls=calls,
        seconds=seconds,
        share=share,
        flops=flops,
        bytes=size,
        gflops_per_second=flops * per_second,
        gbytes_per_second=size * per_second,
        roofline_share=roofline,
    )
