"""Rows, bars and verdicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

from benchmarks.peak import Peak
from benchmarks.timing import Effort, Sample


@dataclass(frozen=True)
class Check:
    """One measured quantity against its bar.

    Attributes
    ----------
    quantity : str
        What is compared, such as "x NumPy's time".
    value : float or None
        Measured; None where the peer is missing, and then there is no verdict.
    bar : float
        The promise.
    at_least : bool
        Whether the value must reach the bar (True) or not exceed it (False).
    style : str
        How value and bar are written: "ratio", "percent", "ns", "ms", "bytes" or "MB".
    """

    quantity: str
    value: float | None
    bar: float
    at_least: bool
    style: str = "ratio"

    @property
    def passed(self) -> bool | None:
        """Whether the promise holds; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar


@dataclass
class Row:
    """One line of a table.

    Attributes
    ----------
    case : str
        What was measured.
    figures : dict
        Column to text, in the order of the table.
    checks : list of Check
        The bars; empty for a row that informs only.
    samples : dict
        Side to timing sample, for the JSON file.
    problem : str or None
        Why this row is worthless (a wrong result, a failed call); such a row counts as missed.
    """

    case: str
    figures: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)
    problem: str | None = None

    @property
    def passed(self) -> bool | None:
        """Whether all bars hold; None where none could be judged."""
        if self.problem is not None:
            return False
        verdicts = [check.passed for check in self.checks if check.passed is not None]
        return all(verdicts) if verdicts else None

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        return {
            "case": self.case,
            "figures": self.figures,
            "checks": [asdict(check) | {"passed": check.passed} for check in self.checks],
            "seconds": {name: asdict(sample) for name, sample in self.samples.items()},
            "problem": self.problem,
            "passed": self.passed,
        }


@dataclass
class Context:
    """What the sections work with.

    Attributes
    ----------
    subject : module
        fastbp, or the module measured in its place.
    torch : module or None
        PyTorch, if installed.
    effort : Effort
        How long to measure.
    peak : Peak or None
        The kernel that measures the processor's arithmetic peak; None without a C compiler.
    processors : list of int
        The processors available before this process was pinned.
    quick : bool
        Whether to shrink work that is fixed in size (the scalar chain, the largest products).
    """

    subject: ModuleType
    torch: ModuleType | None
    effort: Effort
    peak: Peak | None
    processors: list[int]
    quick: bool

    @property
    def name(self) -> str:
        """The subject's name."""
        return self.subject.__name__


def write_value(value: float, style: str) -> str:
    """Write a quantity with its unit."""
    if style == "percent":
        return f"{100 * value:.0f}%"
    if style == "ratio":
        return f"{value:.2f}x"
    return f"{value:,.1f} {style}"


def write_time(seconds: float) -> str:
    """Write a duration with three significant digits and a fitting unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}" if seconds < 1000 * scale else f"{seconds / scale:.0f} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def time_columns(samples: dict[str, Sample]) -> dict[str, str]:
    """Return one column per side with its median."""
    return {name: write_time(sample.median) for name, sample in samples.items()}


def ratio(samples: dict[str, Sample], above: str, below: str) -> float | None:
    """Return the quotient of two medians, None where a side is missing."""
    if above not in samples or below not in samples:
        return None
    return samples[above].median / samples[below].median
