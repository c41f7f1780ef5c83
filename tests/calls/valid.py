"""Calls that succeed: found by trying arguments that may be right, target by target.

What was found is kept in a file, as it takes half a minute: it is found anew when the extension or these modules are
others.
"""

from __future__ import annotations

import ast
import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from calls.arguments import ANYTHING, MAKERS, Context
from calls.seeds import SEEDS
from calls.targets import Target

TRIES = 40
WANTED = 4


@dataclass
class Call:
    """A call as text: `receiver` is empty for functions; arguments by position, then by name.

    A receiver that has not the method (`wrong_self`) is handed to the one of the class.
    """

    receiver: str
    args: list[str]
    kwargs: dict[str, str]
    wrong_self: bool = False


def receivers(target: Target, made: dict[str, list[str]]) -> list[str]:
    """Expressions of instances of the class of a method or attribute."""
    name = target.owner.rsplit(".", 1)[-1]
    return MAKERS.get(name) or made.get(target.owner) or [f"{target.owner}.__new__({target.owner})"]


def attempt(target: Target, random: Random, made: dict[str, list[str]]) -> Call:
    """A call that may be right."""
    context = Context.make(random)
    receiver = ""
    if target.kind in ("method", "get", "set", "delete"):
        receiver = context.filled(random.choice(receivers(target, made)))
    if target.kind == "set":
        return Call(receiver, [context.filled(random.choice(ANYTHING))], {})
    args: list[str] = []
    kwargs: dict[str, str] = {}
    parameters = target.parameters
    if parameters is None:
        args = [context.filled(random.choice(ANYTHING)) for _ in range(random.randrange(3))]
        return Call(receiver, args, kwargs)
    by_name = False
    for one in parameters:
        if one.kind == "VAR_POSITIONAL":
            args += [context.argument(one) for _ in range(random.choice([1, 1, 2, 3]))]
            by_name = True
        elif one.kind == "VAR_KEYWORD":
            continue
        elif one.optional and random.random() < 0.7:
            by_name = True
        elif one.kind == "KEYWORD_ONLY" or (by_name and one.kind != "POSITIONAL_ONLY"):
            kwargs[one.name] = context.argument(one)
        elif not by_name:
            args.append(context.argument(one))
    return Call(receiver, args, kwargs)


def inner(call: Call) -> str:
    """What stands between the parentheses."""
    return ", ".join([*call.args, *(f"{name}={value}" for name, value in call.kwargs.items())])


def expression(target: Target, call: Call) -> str:
    """The call as one line."""
    given = inner(call)
    name = target.path.rsplit(".", 1)[-1]
    if target.kind in ("function", "class", "static"):
        return f"{target.path}({given})"
    if target.kind == "new":
        return f"{target.path}.__new__({', '.join([target.path, *call.args])})"
    if target.kind == "method":
        return f"({call.receiver}).{name}({given})"
    if target.kind == "get":
        return f"({call.receiver}).{name}"
    if target.kind == "set":
        return f"setattr({call.receiver}, {name!r}, {given})"
    return f"delattr({call.receiver}, {name!r})"


def parsed(target: Target, text: str) -> Call:
    """A call from its text."""
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call)
    receiver = ""
    if target.kind == "method":
        assert isinstance(node.func, ast.Attribute)
        receiver = ast.unparse(node.func.value)
    kwargs = {str(one.arg): ast.unparse(one.value) for one in node.keywords}
    return Call(receiver, [ast.unparse(one) for one in node.args], kwargs)


def seeds_of(target: Target) -> list[Call]:
    """What is written down for a target."""
    return [parsed(target, text) for text in SEEDS.get(target.name, [])]


def try_target(target: Target, space: dict[str, Any], made: dict[str, list[str]]) -> list[Call]:
    """Some calls of one target that succeed."""
    random = Random(target.name)
    good: list[Call] = []
    written = seeds_of(target)
    for place in range(TRIES):
        call = written[place] if place < len(written) else attempt(target, random, made)
        with contextlib.suppress(BaseException), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            eval(expression(target, call), space)
            if call not in good:
                good.append(call)
        if len(good) == WANTED + len(written):
            break
    return good


def order_of(every: list[Target]) -> list[int]:
    """Classes first: their instances are what methods are called on."""
    return sorted(range(len(every)), key=lambda number: every[number].kind != "class")


class Known:
    """The calls of each target that succeed, and with them instances of the classes."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.calls: dict[str, list[Call]] = {}
        self.made: dict[str, list[str]] = {}
        for one in lines:
            self.add(one["target"], [Call(*call) for call in one["calls"]], one["class"])

    def add(self, name: str, calls: list[Call], is_class: bool) -> None:
        self.calls[name] = calls
        if is_class and calls:
            self.made[name] = [f"{name}({inner(one)})" for one in calls]


def search(every: list[Target], known: Known, space: dict[str, Any], skip: set[str]) -> Iterator[dict[str, Any]]:
    """What is found for each target that is not known yet: before it is tried its name, then the calls."""
    for number in order_of(every):
        target = every[number]
        if target.name in known.calls:
            continue
        yield {"begin": target.name}
        good = [] if target.name in skip else try_target(target, space, known.made)
        known.add(target.name, good, target.kind == "class")
        calls = [[one.receiver, one.args, one.kwargs] for one in good]
        yield {"target": target.name, "class": target.kind == "class", "calls": calls}
