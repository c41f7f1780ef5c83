"""Tables for the terminal and for docs/benchmarks.md, and the JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results import Row, write_value

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"

VERDICTS = {True: "pass", False: "MISS", None: "-"}


def table(rows: list[Row]) -> list[list[str]]:
    """Return the cells of a section's table, the heading first."""
    columns = list(dict.fromkeys(name for row in rows for name in row.figures))
    cells = [["case", *columns, "measured", "bar", "verdict"]]
    for row in rows:
        measured = ", ".join(
            "not measured" if check.value is None else f"{write_value(check.value, check.style)} {check.quantity}"
            for check in row.checks
        )
        bars = ", ".join(
            f"{'>=' if check.at_least else '<='} {write_value(check.bar, check.style)}" for check in row.checks
        )
        verdict = VERDICTS[row.passed] + (f" ({row.problem})" if row.problem else "")
        cells.append([row.case, *(row.figures.get(name, "") for name in columns), measured, bars, verdict])
    return cells


def aligned(cells: list[list[str]]) -> str:
    """Return a table for the terminal: text to the left, figures to the right."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = []
    for line in cells:
        parts = [
            text.ljust(width) if column == 0 or column >= len(line) - 3 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def markdown(cells: list[list[str]]) -> str:
    """Return a table in Markdown."""
    rule = [":--" if column == 0 or column >= len(cells[0]) - 3 else "--:" for column in range(len(cells[0]))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [cells[0], rule, *cells[1:]])


def machine_lines(facts: dict[str, Any]) -> list[str]:
    """Return the lines that say where and with what the figures were measured."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    lines = [
        f"Command: {facts['command']}",
        f"Machine: {facts['processor']} ({facts['vector']}), {facts['processors']} processors, {facts['system']}",
        f"Threads: {facts['threads']}",
        f"Versions: Python {facts['python']}, {versions}",
        f"Commit: {facts['commit']}, {facts['date']}",
    ]
    if "peak" in facts:
        rates = ", ".join(f"{rate:.0f} GFLOP/s {dtype}" for dtype, rate in facts["peak"].items())
        lines.append(f"Peak of one core, measured in this run: {rates}")
    if "others_share" in facts:
        lines.append(
            f"Other processes used {facts['others_share']:.1%} of one processor meanwhile, "
            f"the hypervisor took {facts['stolen_share']:.1%}"
        )
    return lines


def summary(sections: dict[str, list[Row]]) -> str:
    """Return one line that counts the verdicts."""
    verdicts = [row.passed for rows in sections.values() for row in rows]
    return (
        f"{verdicts.count(True)} rows pass, {verdicts.count(False)} miss their bar, "
        f"{verdicts.count(None)} without a verdict"
    )


def write_json(path: Path, facts: dict[str, Any], sections: dict[str, list[Row]]) -> None:
    """Write everything that was measured."""
    content = {"facts": facts, "sections": {title: [row.as_json() for row in rows] for title, rows in sections.items()}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_markdown(path: Path, facts: dict[str, Any], sections: dict[str, list[Row]]) -> None:
    """Replace what stands between the two marks of a document.

    Raises
    ------
    ValueError
        If the document lacks the marks; it is left as it was.
    """
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no section between {BEGIN} and {END}")
    parts = ["\n".join(f"- {line}" for line in machine_lines(facts)), summary(sections) + "."]
    for title, rows in sections.items():
        parts += [f"### {title}", markdown(table(rows))]
    path.write_text(head + BEGIN + "\n\n" + "\n\n".join(parts) + "\n\n" + END + tail, encoding="utf-8")
