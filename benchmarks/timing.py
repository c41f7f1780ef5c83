"""Interleaved timing: one sample of each side per round, so that drift of the machine meets every side alike."""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Runs its work `number` times and returns the seconds it took.
Timed = Callable[[int], float]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    sample_seconds : float
        Each sample repeats the work until it takes about this long.
    row_seconds : float
        Aim for all samples of one row.
    least_rounds, most_rounds : int
        Bounds of the number of rounds, whatever the aim says.
    processes : int
        Fresh processes per side, where a row needs them.
    """

    sample_seconds: float
    row_seconds: float
    least_rounds: int
    most_rounds: int
    processes: int


FULL = Effort(sample_seconds=0.01, row_seconds=3.0, least_rounds=9, most_rounds=61, processes=31)
QUICK = Effort(sample_seconds=0.001, row_seconds=0.1, least_rounds=3, most_rounds=7, processes=3)


@dataclass(frozen=True)
class Sample:
    """What was measured on one side: seconds per repetition."""

    median: float
    least: float
    lower_quartile: float
    upper_quartile: float
    rounds: int


def summarize(values: list[float]) -> Sample:
    """Return the sample's statistics; one value alone is its own quartile."""
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return Sample(statistics.median(values), min(values), quartiles[0], quartiles[2], len(values))


def statement(text: str, **names: Any) -> Timed:
    """Return a side that executes one Python statement, with no function call around it."""
    return timeit.Timer(text, globals=names).timeit


def calls(function: Callable[[], object]) -> Timed:
    """Return a side that calls a function without arguments."""
    return timeit.Timer("function()", globals={"function": function}).timeit


def _repetitions(side: Timed, sample_seconds: float) -> tuple[int, float]:
    """Return how many repetitions fill a sample and how long that sample takes; warms the side up as it tries."""
    side(1)
    number = 1
    while True:
        seconds = side(number)
        if seconds >= sample_seconds / 2:
            break
        number = max(2 * number, min(20 * number, int(number * sample_seconds / max(seconds, 1e-9))))
    number = max(1, round(number * sample_seconds / seconds))
    return number, max(sample_seconds, seconds if number == 1 else 0.0)


def interleave(sides: dict[str, Timed], effort: Effort) -> dict[str, Sample]:
    """Measure sides in turn, A B C B C A C A B ..., and return the sample of each.

    Parameters
    ----------
    sides : dict
        Name to work.
    effort : Effort
        How long to measure.

    Returns
    -------
    dict
        Name to sample, in the order of `sides`.
    """
    plans = {name: _repetitions(side, effort.sample_seconds) for name, side in sides.items()}
    round_seconds = sum(seconds for _, seconds in plans.values())
    rounds = min(effort.most_rounds, max(effort.least_rounds, int(effort.row_seconds / round_seconds)))
    taken: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for _ in range(rounds):
        for name in names:
            number = plans[name][0]
            taken[name].append(sides[name](number) / number)
        # No side is always the one that follows a certain other.
        names.append(names.pop(0))
    return {name: summarize(values) for name, values in taken.items()}


def seconds_of(work: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
