"""What was seen of two runs, eager and compiled, held against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from twins import BOUND

Place = dict[str, Any]  # what was seen at a place of a program: values, and who shares memory
RESULT = re.compile(r"[rq]\d+\b")
ARGUMENT = re.compile(r"[xg]\d*\b")
# Reassociated sums go through later steps of an optimizer: some times the bound of one sum.
FACTOR = 4.0
# What docs/compile.md states: results are tensors of their own, also where eager code returns a gradient, and a
# gradient that somebody holds is not written. Eager code may share it, and write it later; compiled code leaves it.
TOLERATED = tuple(
    f"{pair}: {how}"
    for pair in ("gradient and result", "gradient and held", "held and result")
    for how in (
        "apart compiled, one object eager",
        "apart compiled, shared memory eager",
        "one object compiled, shared memory eager",
        "shared memory compiled, one object eager",
    )
)
# Of two results that are views of a value which is not returned, or does not lie packed, each has memory of its own.
TOLERATED += ("result and result: apart compiled, shared memory eager",)
HELD = "a gradient that is held, written by eager code"
# Gradients between results of one call are refused, in these words.
REFUSED = "no gradient goes from one to another"


@dataclass
class Failure(Exception):
    """Eager and compiled differ: of which kind, where, and how."""

    kind: str
    where: str
    text: str
    paths: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} at {self.where}: {self.text}"


@dataclass
class Outcome:
    """What comparing a program found out besides that there is no difference."""

    calls: int = 0
    declared: dict[str, bool] = field(default_factory=dict)  # class of steps: whether bits differed in this program
    warned: list[str] = field(default_factory=list)
    refused: str = ""
    tolerated: set[str] = field(default_factory=set)
    least_bound: float = 0.0  # of what may have been float32 before it was cast


def same_bits(a: Any, b: Any) -> bool:
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    bits = f"u{a.itemsize}"
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return bool(np.all((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))))


def near(a: Any, b: Any, bound: float) -> bool:
    """Within a bound of reassociated sums."""
    if a.dtype.kind != "f":
        return False
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return False
    scale = max(1.0, float(np.abs(b[finite]).max(initial=0)))
    return float(np.abs(a[finite] - b[finite]).max(initial=0)) <= FACTOR * bound * scale


def role(path: str) -> str:
    """What kind of thing stands at a path, for the kind of a failure."""
    if ".grad" in path:
        return "gradient"
    if ".state[" in path or ".groups[" in path:
        return "optimizer state"
    if RESULT.match(path):
        return "result"
    if ARGUMENT.match(path):
        return "argument"
    if path.startswith("held"):
        return "held"
    return "generator" if path == "generator" else "world"


def compare_values(
    found: Any, wanted: Any, path: str, where: str, outcome: Outcome, declared: set[str]
) -> Iterator[Failure]:
    if not (isinstance(wanted, tuple) and isinstance(found, tuple)):
        both_nan = found != found and wanted != wanted
        if isinstance(wanted, tuple) or type(found) is not type(wanted) or not (both_nan or found == wanted):
            yield Failure(f"{role(path)}: value", where, f"{path} is {found!r} compiled, {wanted!r} eager", (path,))
        return
    (a, *history), (b, *eager) = found, wanted
    bound = max(BOUND.get(b.dtype.name, 0.0), outcome.least_bound)
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        yield Failure(f"{role(path)}: shape", where, f"{path} is {a.dtype}{a.shape}, eager {b.dtype}{b.shape}", (path,))
    elif not same_bits(a, b):
        if declared and near(a, b, bound):
            outcome.declared.update(dict.fromkeys(declared, True))
        else:
            yield Failure(
                f"{role(path)}: value", where, f"{path} is {a.tolist()} compiled, {b.tolist()} eager", (path,)
            )
    if history != eager:
        names = "(requires_grad, is_leaf)"
        yield Failure(f"{role(path)}: history", where, f"{path}: {names} {history} compiled, {eager} eager", (path,))


def compare_places(a: Place, b: Place, where: str, outcome: Outcome, declared: set[str]) -> Iterator[Failure]:
    """All differences between what was seen at one place, compiled and eager."""
    raised = [one["values"].get("raised", "nothing") for one in (a, b)]
    if raised != ["nothing", "nothing"]:
        if REFUSED in str(a.get("text", "")):
            outcome.tolerated.add(REFUSED)
        elif raised[0] != raised[1] and "nothing" not in raised:
            outcome.tolerated.add(f"{raised[0]} at capture, {raised[1]} in the eager run")
        elif raised[0] != raised[1]:
            texts = [str(one.get("text", "")) for one in (a, b)]
            text = "raises {} compiled, {} eager: {} {}".format(*raised, *texts)
            yield Failure(f"exception: {raised[0]} for {raised[1]}", where, text)
        return
    found, wanted = a["values"], b["values"]
    for path in (*wanted, *(one for one in found if one not in wanted)):
        if path in found and path in wanted:
            yield from compare_values(found[path], wanted[path], path, where, outcome, declared)
        else:
            side = "eager" if path in wanted else "compiled"
            yield Failure(f"{role(path)}: None or not", where, f"{path} is there {side} only", (path,))
    for one, other in sorted({**a["shared"], **b["shared"]}):
        ways = [side["shared"].get((one, other), "apart") for side in (a, b)]
        if ways[0] != ways[1]:
            kinds = " and ".join(sorted((role(one), role(other))))
            yield Failure(f"{kinds}: {ways[0]} compiled, {ways[1]} eager", where, f"{one} and {other}", (one, other))


def of_gradients(place: Place) -> set[str]:
    """The results and held tensors that share memory with a gradient."""
    pairs = [pair for pair in place["shared"] if {role(path) for path in pair} & {"gradient"}]
    return {path for pair in pairs for path in pair if role(path) in ("result", "held")}


def compare(found: list[Place], wanted: list[Place], outcome: Outcome, declared: set[str]) -> Iterator[Failure]:
    """All differences that are not tolerated, in the order of the program."""
    held: set[str] = set()
    for number, (a, b) in enumerate(zip(found, wanted, strict=False)):
        held |= of_gradients(a) | of_gradients(b)
        before = found[number - 1]["values"] if number else {}
        for one in compare_places(a, b, f"place {number}", outcome, declared):
            if one.kind in TOLERATED:
                outcome.tolerated.add(one.kind)
            elif any(path in held and unchanged(a["values"], before, path) for path in one.paths):
                outcome.tolerated.add(HELD)
            else:
                yield one
        if REFUSED in outcome.tolerated:
            return  # what eager code did there, compiled code has not done
    if len(found) != len(wanted):
        yield Failure("exception: places", "end", f"{len(found)} places compiled, {len(wanted)} eager")


def unchanged(now: dict[str, Any], before: dict[str, Any], path: str) -> bool:
    """Whether a tensor was there at the place before, and is what it was."""
    if path not in now or path not in before:
        return False
    a, b = now[path][0], before[path][0]
    return bool(a.shape == b.shape and a.dtype == b.dtype and same_bits(a, b))
