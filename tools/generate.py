#!/usr/bin/env python3
"""Turns the rows of csrc/ops/ops.def into Cython: a function, a method and an in-place method a pointwise op.

Run by setup.py before cythonizing.  Writes src/fastbp/core/generated_{ops,functions,tensor}.pxi, and leaves
files untouched when nothing changed, so that nothing is compiled again.  generated_tensor.pxi is core/tensor.pxi with
the files of methods that its class body includes written out, since Cython includes nothing inside a class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "csrc" / "ops" / "ops.def"
OUTPUT = ROOT / "src" / "fastbp" / "core"

# Functions whose PyTorch signature says more than the row: written by hand in src/fastbp/core/arithmetic.pxi.
BY_HAND = {"add", "sub", "div", "pow", "clamp", "round", "gelu", "gelu_tanh", "where"}
BANNER = "# Written by tools/generate.py from csrc/ops/ops.def; change the row, not this file.\n\n"


class Row(NamedTuple):
    """One pointwise or predicate row: class (POINTWISE, PREDICATE), arity, op name, keyword signature, doc line."""

    family: str
    arity: int
    name: str
    signature: str
    doc: str


def split_arguments(text: str) -> list[str]:
    """Split a macro call's arguments at top-level commas, leaving strings and nested calls whole."""
    arguments, depth, start, quoted = [], 0, 0, False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted and character == "(":
            depth += 1
        elif not quoted and character == ")":
            depth -= 1
        elif not quoted and character == "," and depth == 0:
            arguments.append(text[start:at].strip())
            start = at + 1
    return [*arguments, text[start:].strip()]


def read_rows(table: Path = TABLE) -> list[Row]:
    """Every pointwise and predicate row of the op table, in order."""
    text = re.sub(r"/\*.*?\*/|^#.*?$", "", table.read_text(), flags=re.DOTALL | re.MULTILINE)
    rows = []
    for match in re.finditer(r"^(POINTWISE|PREDICATE)(\d)\(", text, flags=re.MULTILINE):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        arguments = split_arguments(text[match.end() : end - 1])
        signature = arguments[2] if match[1] == "POINTWISE" else arguments[1]
        rows.append(Row(match[1], int(match[2]), arguments[0], signature.strip('"'), arguments[-1].strip('"')))
    return rows


def op_names(table: Path = TABLE) -> list[str]:
    """Name of every row of the op table, in order."""
    text = re.sub(r"/\*.*?\*/|^#.*?$", "", table.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^[A-Z]+\d?\((\w+),", text, flags=re.MULTILINE)


def parameters(row: Row) -> tuple[str, str]:
    """Declaration and call text of the row's keyword parameters: ", double beta=1.0" and "beta, threshold"."""
    if not row.signature:
        return "", ""
    pairs = [part.split("=") for part in row.signature.split(", ")]
    declared = "".join(f", double {name}={value}" for name, value in pairs)
    names = [name for name, _ in pairs] + ["0.0"]
    return declared, ", ".join(names[:2])


def function(row: Row) -> str:
    """Text of the module-level function."""
    declared, given = parameters(row)
    first = f'def {row.name}(input{", other" if row.arity == 2 else ""}{declared}, *, out=None):\n    """{row.doc}"""\n'
    operands = "input, other" if row.arity == 2 else "input"
    kind = "binary" if row.arity == 2 else "unary"
    if given:
        return f"{first}    return store({kind}_with(FBP_OP_{row.name}, {operands}, {given}), out)\n"
    return (
        f"{first}    if out is not None:\n        return {kind}_out(FBP_OP_{row.name}, {operands}, out)\n"
        f"    return {kind}(FBP_OP_{row.name}, {operands})\n"
    )


def methods(row: Row) -> str:
    """Text of the Tensor methods: the plain one and, where the type of the result allows, the in-place one."""
    declared, given = parameters(row)
    other, operand = (", other", ", other") if row.arity == 2 else ("", "")
    kind = "binary" if row.arity == 2 else "unary"
    suffix, extra = ("_with", f", {given}") if given else ("", "")
    text = (
        f'def {row.name}(self{other}{declared}):\n    """{row.doc}"""\n'
        f"    return {kind}{suffix}(FBP_OP_{row.name}, self{operand}{extra})\n"
    )
    if row.family == "POINTWISE":
        text += (
            f"def {row.name}_(self{other}{declared}):\n"
            f'    """In-place version of {row.name}()."""\n'
            f"    return {kind}_in_place(FBP_OP_{row.name}, self{operand}{extra or ', 0.0, 0.0'})\n"
        )
    return text


def is_method(row: Row) -> bool:
    """Elementwise losses are functions only, as in PyTorch."""
    return row.name not in BY_HAND and not re.search(r"_error$|entropy", row.name)


def expand(text: str, own: dict[str, str]) -> str:
    """Replace each indented include line by the file's text, indented alike; `own` holds texts that are no files."""

    def body(match: re.Match[str]) -> str:
        included = own[match[2]] if match[2] in own else (OUTPUT / match[2]).read_text()
        return "".join(match[1] + line if line.strip() else line for line in included.splitlines(keepends=True))

    return re.sub(r'^([ ]+)include "(.+)"\n', body, text, flags=re.MULTILINE)


def write(path: Path, text: str) -> None:
    """Write unless it is there already."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def main() -> None:
    """Write the three files."""
    rows = read_rows()
    names = ["leaf", *op_names(), "COUNT"]
    enumeration = 'cdef extern from "ops/op.h" nogil:\n    ctypedef enum fbp_op:\n'
    write(OUTPUT / "generated_ops.pxi", BANNER + enumeration + "".join(f"        FBP_OP_{name}\n" for name in names))
    write(OUTPUT / "generated_functions.pxi", BANNER + "\n\n".join(function(r) for r in rows if r.name not in BY_HAND))
    own = {"generated_methods.pxi": "\n".join(methods(r) for r in rows if is_method(r))}
    write(OUTPUT / "generated_tensor.pxi", BANNER + expand((OUTPUT / "tensor.pxi").read_text(), own))


if __name__ == "__main__":
    main()
