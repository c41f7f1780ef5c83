"""A plan as text: what `print(step.plan)` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from ._core import Plan


def format_plan(plan: Plan) -> str:
    """A plan as text, a line a step."""
    steps = plan.steps
    lines = [f"plan of {len(steps)} steps, {plan.peak_bytes:,} bytes of arena{_recomputed_text(plan, steps)}"]
    rows = [("", "step", "result", "bytes", "flops", "offset")]
    for number, step in enumerate(steps):
        name = step["name"] if len(step["name"]) <= 48 else step["name"][:45] + "..."
        shape = "" if step["shape"] is None else f"{step['dtype']} {step['shape']}"
        offset = "-" if step["offset"] is None else f"{step['offset']:,}"
        rows.append((str(number), name, shape, f"{step['bytes']:,.0f}", f"{step['flops']:,.0f}", offset))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        left = [row[i].ljust(widths[i]) if i in (1, 2) else row[i].rjust(widths[i]) for i in range(6)]
        lines.append("  ".join(left).rstrip())
    return "\n".join(lines)


def _recomputed_text(plan: Plan, steps: list[dict[str, Any]]) -> str:
    """What recomputation does for a plan, for its first line."""
    parts = []
    if plan.peak_bytes_without is not None:
        parts.append(f"{plan.peak_bytes_without:,} without recomputation")
    if plan.saved_bytes_without is not None:
        parts.append(f"{plan.saved_bytes:,} saved, {plan.saved_bytes_without:,} without recomputation")
    again = sum(step["again"] for step in steps)
    if again:
        parts.append(f"{again} steps again")
    return f" ({'; '.join(parts)})" if parts else ""
