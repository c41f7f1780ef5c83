"""Makes a failing program short, and prints it as a script.

Statements are dropped, blocks opened, expressions replaced by their parts and numbers by smaller ones, as long as the
same kind of failure remains. Each attempt runs in a process of its own, which may crash. What an attempt leaves is
shorter than before, so that this ends; the order of attempts is fixed, so that it ends with the same program.
"""

from __future__ import annotations

import ast
import copy
import faulthandler
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from programs.compare import Failure
from programs.generate import HEADER, load
from programs.observe import check

PATIENCE = 20.0  # seconds that one attempt may take
CRASH = ("crash", "the process died")


Kind = tuple[str, str] | None  # what failed, and how; None where nothing did


def kind_here(source: str, wrap: Callable[..., Any] | None = None, ignored: Collection[str] = ()) -> Kind:
    """The failure of a program, which may take this process with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            function = load(source)
        check(function, wrap, ignored)
    except Failure as failure:
        return failure.kind, str(failure)
    except Exception:
        return None
    return None


def in_child(work: Callable[[Callable[[Any], None]], None]) -> Iterator[Any]:
    """What `work` sends from a process of its own; the last is "end", but where that process died or hung."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        faulthandler.disable()
        stream = os.fdopen(writing, "w")

        def send(message: Any) -> None:
            stream.write(json.dumps(message) + "\n")
            stream.flush()

        work(send)
        send("end")
        os._exit(0)
    os.close(writing)
    rest = b""
    try:
        while select.select([reading], [], [], PATIENCE)[0] and (part := os.read(reading, 1 << 16)):
            *lines, rest = (rest + part).split(b"\n")
            yield from (json.loads(line) for line in lines)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def kind_of_failure(source: str, wrap: Callable[..., Any] | None = None, ignored: Collection[str] = ()) -> Kind:
    """The failure of a program; a crash is one. Runs in a child."""
    found = next(in_child(lambda send: send(kind_here(source, wrap, ignored))), "died")
    if found == "died":
        return CRASH
    return None if found is None else (found[0], found[1])


def bodies(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
                yield body


Edit = Callable[[], ast.Module]


def without_statements(tree: ast.Module) -> Iterator[Edit]:
    """The tree without some consecutive statements of one body, many first; a block opened."""

    def edit(number: int, first: int, size: int, opened: bool = False) -> ast.Module:
        made = copy.deepcopy(tree)
        part = list(bodies(made))[number]
        part[first : first + size] = part[first].body if opened else []  # type: ignore[attr-defined]
        if not part:
            part.append(ast.Pass())
        return made

    found = list(bodies(tree))
    for number, body in enumerate(found):
        size = len(body)
        while size:
            for first in range(len(body) - size, -1, -size):
                yield partial(edit, number, first, size)
            size //= 2
    for number, body in enumerate(found):
        for at, statement in enumerate(body):
            if isinstance(statement, ast.With | ast.If | ast.For):
                yield partial(edit, number, at, 1, True)


def parts_of(node: ast.expr) -> list[ast.expr]:
    """Simpler expressions that may stand in the place of one."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp):
        return [node.operand]
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.Subscript):
        return [node.value]
    if isinstance(node, ast.Call):
        inner = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        return [*inner, *(one for one in node.args if not isinstance(one, ast.Starred))]
    if isinstance(node, ast.Tuple | ast.List):
        return list(node.elts)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value not in (0, 1):
        return [ast.Constant(1), ast.Constant(2)] if type(node.value) is int else [ast.Constant(1.0)]
    return []


def fewer_elements(node: ast.expr) -> list[ast.expr]:
    """A call or a display with one argument or element less."""
    made = []
    for name in ("elts", "args", "keywords"):
        listed = getattr(node, name, None)
        for at in range(len(listed) if isinstance(listed, list) else 0):
            one = copy.deepcopy(node)
            del getattr(one, name)[at]
            made.append(one)
    return made


class Replace(ast.NodeTransformer):
    """Puts another expression in the place of the n-th."""

    def __init__(self, number: int, new: ast.expr) -> None:
        self.number, self.new = number, new

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr):
            self.number -= 1
            if self.number == -1:
                return self.new
        return super().generic_visit(node)


class Collect(ast.NodeVisitor):
    """All expressions, in the order in which `Replace` counts them."""

    def __init__(self) -> None:
        self.found: list[ast.expr] = []

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.found.append(node)
        super().generic_visit(node)


def with_simpler_expressions(tree: ast.Module) -> Iterator[Edit]:
    def edit(number: int, new: ast.expr) -> ast.Module:
        made: ast.Module = Replace(number, copy.deepcopy(new)).visit(copy.deepcopy(tree))
        return made

    collect = Collect()
    collect.visit(tree)
    for number, node in enumerate(collect.found):
        for new in (*parts_of(node), *fewer_elements(node)):
            yield partial(edit, number, new)


def without_parameters(tree: ast.Module) -> Iterator[Edit]:
    """The function without one of its parameters, and its calls without the argument."""

    def edit(name: str, at: int) -> ast.Module:
        made = copy.deepcopy(tree)
        for node in ast.walk(made):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                del node.args.args[at]
            if isinstance(node, ast.Call) and len(node.args) > at + 1:
                first = node.args[0]
                if isinstance(first, ast.Name) and first.id == name:
                    del node.args[at + 1]
        return made

    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name != "program":
            for at in range(len(function.args.args)):
                yield partial(edit, function.name, at)


class Inline(ast.NodeTransformer):
    """Puts a value wherever a name is read."""

    def __init__(self, name: str, value: ast.expr) -> None:
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        read = node.id == self.name and isinstance(node.ctx, ast.Load)
        return copy.deepcopy(self.value) if read else node


def read_inside(body: list[ast.stmt], name: str) -> bool:
    """Whether a function in the body reads a name: what is made outside of it must not be made by its calls."""
    functions = [one for one in body if isinstance(one, ast.FunctionDef)]
    inner = (node for one in functions for node in ast.walk(one))
    return any(isinstance(node, ast.Name) and node.id == name for node in inner)


def without_names(tree: ast.Module) -> Iterator[Edit]:
    """The tree without an assignment to a name, whose value stands where the name was read."""

    def edit(number: int, at: int) -> ast.Module:
        made = copy.deepcopy(tree)
        body = list(bodies(made))[number]
        assignment = body.pop(at)
        assert isinstance(assignment, ast.Assign) and isinstance(assignment.targets[0], ast.Name)
        inlined: ast.Module = Inline(assignment.targets[0].id, assignment.value).visit(made)
        return inlined

    for number, body in enumerate(bodies(tree)):
        for at, one in enumerate(body):
            if not (isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name)) or len(body) == 1:
                continue
            if isinstance(one.value, ast.Name | ast.Constant) or not read_inside(body, one.targets[0].id):
                yield partial(edit, number, at)


def text_of(edit: Edit) -> str | None:
    """The text after an edit; None where the edit makes no program."""
    try:
        text = ast.unparse(ast.fix_missing_locations(edit()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            compile(text, "<program>", "exec")
    except (SyntaxError, ValueError, TypeError, AttributeError, IndexError):
        return None
    return text


def shorten(
    source: str, kind: str, failing: Callable[[str], Kind], tried: set[str], end: float, send: Callable[[Any], None]
) -> None:
    """Send what is tried and what is found, until nothing shorter fails in the same way."""
    shorter = True
    while shorter:
        shorter = False
        for way in (without_statements, without_parameters, without_names, with_simpler_expressions):
            at = 0
            while (edit := next(islice(way(ast.parse(source)), at, None), None)) is not None:
                if time.monotonic() > end:
                    return
                candidate = text_of(edit)
                if candidate is None or len(candidate) >= len(source) or candidate in tried:
                    at += 1
                    continue
                tried.add(candidate)
                send({"tries": candidate})
                again = failing(candidate)
                if again is not None and again[0] == kind:
                    source, shorter = candidate, True
                    send({"finds": candidate})
                else:
                    at += 1


def minimise(source: str, failing: Callable[[str], Kind] = kind_here, seconds: float = 30.0) -> str:
    """The shortest program found, within some seconds, that fails in the same way; `failing` runs in children."""
    found = next(in_child(lambda send: send(failing(source))), "died")
    if found is None:
        return source
    kind, end = CRASH[0] if found == "died" else found[0], time.monotonic() + seconds
    source, tried = ast.unparse(ast.parse(source)), {source}
    while True:
        last: Any = None
        for last in in_child(lambda send: shorten(source, kind, failing, tried, end, send)):  # noqa: B023
            if "tries" in last:
                tried.add(last["tries"])
            if "finds" in last:
                source = last["finds"]
        if last == "end" or not isinstance(last, dict):
            return source
        if kind == CRASH[0] and "tries" in last:
            source = last["tries"]


def script(source: str, message: str, ignored: Collection[str] = ()) -> str:
    """A program as a script that fails by itself."""
    told = "\n".join(f"# {line[:500]}" for line in message.splitlines())
    tests = Path(__file__).resolve().parents[1]
    more = f", ignored={sorted(ignored)!r}" if ignored else ""
    return (
        f"{told}\nimport sys\n\nsys.path.insert(0, {str(tests)!r})\n\n{HEADER}from programs.observe import check\n\n\n"
        f"{source.strip()}\n\n\ncheck(program{more})  # eagerly and compiled; raises where they differ\n"
    )
