"""The memory budget of a compiled function: what may be asked for, and what is said when it is not met."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from typing import Any

    from ._core import Plan


def checked_budget(budget: Any) -> int | float | None:
    """A memory budget as it was given, if it is one."""
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, (int, float)):
        raise TypeError(
            f"compile: memory_budget must be bytes (int) or a share of the peak (float), got {type(budget).__name__}"
        )
    if isinstance(budget, float) and not 0 < budget <= 1:
        raise ValueError(
            f"compile: memory_budget as a float is a share of the peak, in (0, 1], got {budget}; give bytes as an int"
        )
    if not 0 < budget < 2**63:
        raise ValueError(f"compile: memory_budget must be a positive number of bytes, got {budget}")
    return budget


def warn_of_budget(name: str, plan: Plan, budget: int | float | None) -> None:
    """What was reached in place of the budget, and what takes the memory."""
    saved = plan.derivative is not None
    reached, without = (
        (plan.saved_bytes, plan.saved_bytes_without) if saved else (plan.peak_bytes, plan.peak_bytes_without)
    )
    wanted = f"{int(budget * (without or 0)):,}" if isinstance(budget, float) else f"{budget:,}"
    largest = ", ".join(
        f"{dtype} {shape} of {step} ({size:,} bytes)"
        for size, dtype, shape, step in _core.largest_values(plan)
    )
    what = "what a call saves for its backward" if saved else "the arena"
    warnings.warn(
        f"compile: {name}: the memory budget of {wanted} bytes is not met; {what} takes "
        f"{reached:,} bytes ({without:,} without recomputation). The largest values there: {largest}. Make the batch "
        "smaller, or allow more",
        stacklevel=5,
    )
