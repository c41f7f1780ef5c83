#!/usr/bin/env python3
"""Writes docs/ops.md, the list of all ops, from the op table of the built module.

    python tools/document_ops.py            # write the file
    python tools/document_ops.py --check    # exit 1 where the file is not what would be written

Every fact is looked up: names, doc lines, parameters, domains and rules in the table; "reference" in
fastbp.reference; dtypes in the cases of the tests, so that a type is listed only where a test tries it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastbp import _core
from fastbp.reference import OPS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "ops.md"

HEADER = """\
# Ops

<!-- Written by tools/document_ops.py; change csrc/ops/ops.def, not this page. -->

The {count} rows of the op table, [`csrc/ops/ops.def`](../csrc/ops/ops.def). A public function is one row or several:
`F.mse_loss` is `squared_error` and `mean`. Rows without a public function of their own are what derivative rules and
indexing are made of. [adding-an-op.md](adding-an-op.md) shows how a row comes to be.

- **inputs**: tensors that the row takes (`*`: any number), and the parameters of elementwise rows with their defaults.
- **types**: those that the tests try: `f32`, `f64`, `i64`, `i32`, `u8`, `bool`; those in parentheses are converted to
  the default floating type first.
- **vjp**, **jvp**, **2nd**: reverse mode, forward mode, and second derivatives (any order, since rules record ops);
  `0` is a declared zero. [`tests/test_ops_gradient.py`](../tests/test_ops_gradient.py) holds each to finite
  differences.
- **vmap**: `class`: batched by the row's class and the axes that its attribute names; `rule`: by a rule of its own;
  `source`: no inputs, so the same for all examples, or drawn as `randomness` says; `refused`: the shape of the result
  depends on values. [`tests/test_vmap_ops.py`](../tests/test_vmap_ops.py) tries all.
- **compiled**: whether plans of `fastbp.compile` have it ([tests](../tests/test_compile_ops.py)).
- **keeps**: what the reverse rule reads, and the graph therefore keeps: the inputs `a`, `b`, `c`, the output `y`.
- **domain**: where the tests draw inputs from, because the row is smooth there.
- **reference**: whether `fastbp.reference` has it too, as an independent text in plain Python.
"""

COLUMNS = (
    *("op", "inputs", "what it computes", "types", "vjp", "jvp", "2nd", "vmap", "compiled"),
    *("keeps", "domain", "reference"),
)
CLASSES = {
    "pointwise": "Elementwise. Inputs broadcast; written as text that is read as kernels and as derivative rules.",
    "predicate": "Elementwise, with a bool result and no derivative.",
    "linear": "Linear in the differentiable inputs: forward mode is the op itself, reverse mode its transpose.",
    "bilinear": "Linear in each of two inputs: two transposes give both modes.",
    "general": "Both rules are written by hand, in `csrc/diff/`.",
    "nodiff": "Results that do not depend smoothly on the inputs, and sources of numbers.",
    "update": "Change parameters in place, outside differentiation.",
}
SHORT = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "uint8": "u8", "bool": "bool"}


def tested_types() -> dict[str, set[str]]:
    """Dtypes that the tests try with each row."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from cases import POINTWISE, PREDICATES, elementwise_dtypes
        from structural_cases import STRUCTURAL
    finally:
        sys.path.remove(str(ROOT / "tests"))
    types = {name: set(elementwise_dtypes(name)) for name in (*POINTWISE, *PREDICATES)}
    for case in STRUCTURAL:
        types.setdefault(case.op, set()).update(case.dtypes)
    return types


def inputs_text(row: dict[str, Any]) -> str:
    """Operands and parameters, as "2; beta=1.0"."""
    count = "*" if row["arity"] < 0 else str(row["arity"])
    return f"{count}; {row['signature']}" if row["signature"] else count


def rule_text(row: dict[str, Any], mode: str) -> str:
    """Whether a row has the rule of a mode, or a declared zero."""
    if row["class"] == "update":
        return ""
    return "0" if not row["vjp"] or row["kind"] == "I" else "yes" if row[mode] else "no"


def second_text(row: dict[str, Any]) -> str:
    """Second derivatives: rules build recorded ops, so a rule has a derivative in turn."""
    return rule_text(row, "vjp")


def batching_text(row: dict[str, Any]) -> str:
    """How a row runs over a batch."""
    if row["class"] == "update":
        return ""
    if row["value_shaped"]:
        return "refused"
    return "source" if row["arity"] == 0 else "rule" if row["batch_rule"] else "class"


def keeps_text(row: dict[str, Any]) -> str:
    """Values that a reverse rule reads, by the bits of the table's `needs`."""
    bits = 0
    for needs in row["needs"]:
        bits |= needs
    return " ".join(letter for at, letter in enumerate("abcy") if bits >> at & 1)


def types_text(row: dict[str, Any], types: set[str]) -> str:
    """Short names of the dtypes, in parentheses where the row computes in a floating type instead."""
    names = [(name, short) for name, short in SHORT.items() if name in types]
    if row["kind"] != "F":
        return " ".join(short for _, short in names)
    floating = [short for name, short in names if name.startswith("float")]
    return f"{' '.join(floating)} ({' '.join(short for _, short in names if short not in floating)})"


def line(row: dict[str, Any], types: set[str]) -> str:
    """One row of the page's tables."""
    low, high = row["domain"]
    cells = (
        f"`{row['name']}`",
        inputs_text(row),
        row["doc"].replace("|", "\\|"),
        types_text(row, types),
        rule_text(row, "vjp"),
        rule_text(row, "jvp"),
        second_text(row),
        batching_text(row),
        "no" if row["value_shaped"] else "yes",
        keeps_text(row),
        f"[{low:g}, {high:g}]" if row["class"] == "pointwise" else "",
        "yes" if row["name"] in OPS else "no",
    )
    return "| " + " | ".join(cells) + " |\n"


def generate() -> str:
    """The whole page's text."""
    rows, types = _core.op_table(), tested_types()
    text = HEADER.format(count=len(rows))
    for name, explanation in CLASSES.items():
        text += f"\n## {name.capitalize()}\n\n{explanation}\n\n"
        text += f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
        text += "".join(line(row, types.get(row["name"], set())) for row in rows if row["class"] == name)
    unknown = {row["class"] for row in rows} - set(CLASSES)
    if unknown:
        raise SystemExit(f"tools/document_ops.py: no heading for class {', '.join(sorted(unknown))}; add it to CLASSES")
    return text


def main() -> int:
    """Write the page, or compare it; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page would change")
    check = parser.parse_args().check
    text = generate()
    fresh = PAGE.exists() and PAGE.read_text() == text
    if not check and not fresh:
        PAGE.write_text(text)
    return 1 if check and not fresh else 0


if __name__ == "__main__":
    sys.exit(main())
