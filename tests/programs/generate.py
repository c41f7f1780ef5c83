"""From a seed, the text of a training program."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from programs import special
from programs.events import draw_event, drifting_event
from programs.steps import function_body, make_arguments, plain_body, start_of_body, train_body
from programs.worlds import World, make_call_arguments, make_model, make_optimizers, make_parameters
from programs.writing import Name, Writer, indented

HEADER = """\
from copy import deepcopy

import numpy as np

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
from fastbp.utils.data import DataLoader, TensorDataset
from programs.parts import *
"""


ATTEMPTS = 500
STRIDE = 1_000_003  # between the seeds of attempts


@dataclass(frozen=True)
class Program:
    """The text of `program(wrap, see)`, and the names of what it is made of."""

    seed: int
    source: str
    used: frozenset[str]

    def function(self) -> Callable[..., None]:
        return load(self.source)


def load(source: str) -> Callable[..., None]:
    """The function that a program's text defines."""
    namespace: dict[str, Any] = {}
    exec(compile(HEADER + source, "<program>", "exec"), namespace)
    function: Callable[..., None] = namespace["program"]
    return function


def generate(seed: int, without: Collection[str] = ()) -> Program:
    """The program of a seed; `without` names features that it must not have."""
    for attempt in range(ATTEMPTS):
        # Some features follow from others (a shape that came out with an axis of size 1): such a program is dropped.
        w = draw(seed + attempt * STRIDE, without)
        if w.used.isdisjoint(without):
            source = "def program(wrap, see):\n" + "\n".join(indented([*w.setup, *w.script])) + "\n"
            return Program(seed, source, frozenset(w.used))
    raise ValueError(f"seed {seed}: no program without {', '.join(sorted(without))} in {ATTEMPTS} attempts")


def draw(seed: int, without: Collection[str]) -> Writer:
    w, world = Writer(seed, without), World()
    families = {"train": 33, "model": 22, "function": 20, "model function": 7, "plain": 16, "special": 8}
    family = w.rng.choices(list(families), list(families.values()))[0]
    if family == "special":
        special.write(w)
    else:
        write(w, world, family)
    return w


def start(w: Writer) -> None:
    wide = w.chance("float64", 0.4)
    w.setup.append(f"D = begin(fastbp.{'float64' if wide else 'float32'})")


def write(w: Writer, world: World, family: str) -> None:
    start(w)
    if "model" in family:
        make_model(w, world)
    elif family != "plain" or w.maybe(0.5):
        make_parameters(w, world)
    world.trains = family in ("train", "model")
    names = make_arguments(w, world, world.trains)
    if world.trains:
        make_optimizers(w, world)
    start_of_body(w, world, names)
    made: list[str] = []
    if world.trains:
        train_body(w, world, names)
    elif family == "plain":
        w.use("plain function")
        plain_body(w, world, names)
    else:
        w.use("function with derivative")
        made = function_body(w, world, names)
    declare(w, world)
    before_calls(w, world)
    calls(w, world, names, made)


def declare(w: Writer, world: World) -> None:
    """Numbers that the function reads, and the function."""
    for kind, line in (("number", "factor = 2.0"), ("flag", "flag = True"), ("text", "text = 'first'")):
        if kind in world.closure:
            w.setup.append(line)
    if "global" in world.closure:
        w.setup[:0] = ["global FACTOR", "FACTOR = 2.0"]
    parameters = ", ".join(one.name for one in world.arguments)
    if w.chance("container argument", 0.08):
        world.container = w.pick(["[]", "{}", "()"])
        how = "batch.values()" if world.container == "{}" else "batch"
        w.body[:0] = [f"{parameters}, = {how}"]
        parameters = "batch"
    if world.model and not world.trains and w.chance("module compiled itself", 0.25):
        # The function around it stays eager.
        call = next(line for line in w.body if line.startswith("y = model("))
        w.body[w.body.index(call)] = call.replace("model(", "fast(")
        w.script += ["fast = wrap(model)", f"def step({parameters}):", *indented(w.body)]
        return
    w.script += [f"def step({parameters}):", *indented(w.body)]
    options = ""
    if w.chance("memory budget", 0.02):
        options = ", memory_budget=1 << 20"
    w.script.append(f"step = wrap(step{options})")


def before_calls(w: Writer, world: World) -> None:
    """Hooks that are there from the start."""
    if world.params and w.chance("hook on parameter", 0.1):
        w.setup.append(f"handle = {w.pick(world.params)}.register_hook(lambda g: g * 0.5)")
        world.hooks.append("handle")
    if world.model and w.chance("hook on module", 0.1):
        w.setup.append("module_handle = model.register_forward_hook(lambda m, a, r: r * 0.5)")
        world.hooks.append("module_handle")


def calls(w: Writer, world: World, names: list[Name], made: list[str]) -> None:
    """Some calls, what happens between them, and what is looked at after each."""
    sizes = [3, w.pick([1, 2, 5])] if w.chance("batch sizes", 0.35) else [3]
    by_name = not world.container and w.chance("argument by name", 0.08)
    later: list[list[str]] = []
    count = w.pick([2, 3, 3, 4, 5])
    drifting = ""
    if w.chance("changes at each call", 0.08):
        count, drifting = 6, drifting_event(w, world)
    raising = w.pick(range(count)) if world.closure & {"failing", "switch"} else -1
    for number in range(count):
        if number:
            if drifting:
                w.script.append(drifting)
            for lines in later:
                w.script += lines
            later = []
            for _ in range(w.pick([0, 1, 1, 2, 3])):
                event = draw_event(w, world)
                if event and "AGAIN" in event:
                    place = event.index("AGAIN")
                    w.script += event[:place]
                    later.append(event[place + 1 :])
                elif event:
                    w.script += event
        if number == raising:
            w.script += raising_call(w, world, number, sizes[0])
        lines, given = make_call_arguments(w, world, number, sizes[number % len(sizes)] if number else sizes[0])
        w.script += lines
        if by_name:
            given[-1] = f"{world.arguments[-1].name}={given[-1]}"
        call = f"r{number} = see.call({', '.join(['step', *given])})"
        if w.chance("no_grad outside", 0.05 if not world.trains else 0.0):
            w.script += ["with fastbp.no_grad():", f"    {call}"]
        else:
            w.script.append(call)
        w.script.append("see(locals(), history=False)" if world.trains else "see(locals())")
        if made:
            w.script += backward(w, world, number, made)


def raising_call(w: Writer, world: World, number: int, size: int) -> list[str]:
    """A call that raises; in the middle of things only with a shape that is new, so that it is captured."""
    if "failing" in world.closure:
        lines, given = make_call_arguments(w, world, 90 + number, size)
        call = f"e{number} = see.call({', '.join(['step', *given])})"
        return [*lines, "failing = True", call, "failing = False", "see(locals(), history=False)"]
    if not world.trains or not w.allowed("raises at capture"):
        return []
    w.use("raises at capture")
    lines, given = make_call_arguments(w, world, 90 + number, 7)
    lasting = all(one.lasting or one.text for one in world.arguments)
    if lasting:
        return []
    call = f"see.refused({', '.join(['step', *given])})"
    return [*lines, "Switch.raising = True", call, "Switch.raising = False", "see(locals(), history=False)"]


def backward(w: Writer, world: World, number: int, made: list[str]) -> list[str]:
    """The outside's loss of some of the results, and its backward()."""
    results = [f"r{number}[{n}]" for n in range(len(made))]
    used = [f"{one}.sum()" for name, one in zip(made, results, strict=True) if name != "z" or w.maybe(0.1)]
    used = w.some(used) if used else [f"{results[0]}.sum()"]
    if len(used) < len(results):
        w.use("unused result")
    lines = []
    if len(results) > 1 and w.chance("gradient between results", 0.1):
        a, b = results[-1], results[0]
        lines += [
            f"if {a}.requires_grad and {b}.requires_grad:",
            f"    d{number} = see.call(fastbp.autograd.grad, {a}.sum(), {b}, retain_graph=True, allow_unused=True)",
        ]
    lines.append(f"t{number} = {w.pick(['', '0.5 * '])}({' + '.join(used)})")
    if world.params and w.chance("backward by outer code", 0.2):
        lines.append(f"t{number} = t{number} + {w.pick(world.params)}.square().sum()")
    inner = []
    if world.params and w.chance("parameter .data between forward and backward", 0.04):
        p = w.pick(world.params)
        inner.append(f"{p}.data = {p}.data * 0.5")
    again = w.chance("backward twice", 0.06)
    inner.append(f"see.call(t{number}.backward{', retain_graph=True' if again else ''})")
    if again:
        inner.append(f"see.call(t{number}.backward)")
    lines += [f"if t{number}.requires_grad:", *indented(inner), "see(locals())"]
    if w.maybe(0.2) and world.params:
        lines.append(f"{w.pick(world.params)}.grad = None")
    return lines
