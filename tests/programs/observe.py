"""Runs a program eagerly and compiled, and compares all that can be seen.

What is seen of a world at a place of the program: values, shapes and dtypes of all tensors and arrays that its local
names lead to, which of them are None, which share memory and which are one object, `requires_grad` and `is_leaf`, plain
values (step counts, options, training flags), the random generator; and what calls raise.

Values are equal to the bit. Only where a plan has one of the classes of steps for which docs/compile.md states that
sums are taken in another order may they differ, by the bounds of `twins`; which programs had such a step is counted.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

import fastbp
from fastbp import nn, optim
from programs.compare import BOUND, RESULT, Failure, Outcome, compare
from programs.parts import begin

NOT_SEEN = ("wrap", "see", "fast")  # a compiled module is seen as the module
PLAIN = (bool, int, float, str, type(None))
# Refusals that docs/compile.md states ("What a function may not do"): the program ends there and is counted.
REFUSALS = (
    "the value of a tensor is asked for",
    "writes into a tensor whose memory is read-only",
    "writes into an argument whose memory is read-only",
    "depend on a leaf which it made itself",
    "several dtypes",
    "that draws random numbers or writes in place is not",
)


class SkippedError(Exception):
    """Eager code itself refuses the program."""


def walk(value: Any, path: str, found: dict[str, Any], seen: set[int]) -> None:
    """All tensors, arrays and plain values that a value leads to, by the path that leads there."""
    if isinstance(value, fastbp.Tensor):
        found[path] = value
        if value.is_leaf and value.grad is not None:
            found[path + ".grad"] = value.grad
    elif isinstance(value, (*PLAIN, np.ndarray, np.generic)):
        found[path] = value
    elif isinstance(value, list | tuple):
        found[path] = f"{type(value).__name__} of {len(value)}"
        for number, one in enumerate(value):
            walk(one, f"{path}[{number}]", found, seen)
    elif isinstance(value, dict):
        for key, one in value.items():
            walk(one, f"{path}[{key!r}]", found, seen)
    elif isinstance(value, BaseException):
        found[path] = type(value).__name__
    elif id(value) in seen:
        return
    elif isinstance(value, nn.Module):
        seen.add(id(value))
        for name, one in (*value.named_parameters(), *value.named_buffers()):
            walk(one, f"{path}.{name}", found, seen)
        for name, module in value.named_modules():
            found[f"{path}.{name}.training"] = module.training
    elif isinstance(value, optim.Optimizer):
        seen.add(id(value))
        for i, group in enumerate(value.param_groups):
            options = {key: one for key, one in group.items() if key != "params"}
            walk(options, f"{path}.groups[{i}]", found, seen)
            for j, p in enumerate(group["params"]):
                if p in value.state:
                    walk(dict(value.state[p]), f"{path}.state[{i}][{j}]", found, seen)


def extent(value: Any) -> tuple[int, int] | None:
    """First and last byte of a tensor's or array's elements."""
    if isinstance(value, fastbp.Tensor):
        shape, size = value.shape, value.element_size()
        first, strides = value.data_ptr(), [n * size for n in value.stride()]
    elif isinstance(value, np.ndarray):
        shape, size, first, strides = value.shape, value.itemsize, value.ctypes.data, list(value.strides)
    else:
        return None
    if 0 in shape:
        return None
    spans = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    return first + sum(min(one, 0) for one in spans), first + sum(max(one, 0) for one in spans) + size - 1


def shared(found: dict[str, Any]) -> dict[tuple[str, str], str]:
    """Which pairs of paths lead to one object, or into the same memory."""
    spans = sorted((*span, path) for path, one in found.items() if (span := extent(one)))
    pairs = {}
    for n, (_, last, path) in enumerate(spans):
        for first, _, other in spans[n + 1 :]:
            if first > last:
                break
            a, b = sorted((path, other))
            pairs[a, b] = "one object" if found[a] is found[b] else "shared memory"
    return pairs


def looked_at(value: Any, history: bool) -> Any:
    """A copy of what can be seen of one leaf of the walk."""
    if isinstance(value, fastbp.Tensor):
        values = value.detach().numpy().copy()
        return (values, value.requires_grad, value.is_leaf) if history else (values, None, None)
    return (value.copy(), None, None) if isinstance(value, np.ndarray) else value


class Observer:
    """`see` of a program: keeps what was seen of its world at each place, and calls functions that may raise."""

    def __init__(self, wrap: Callable[..., Any] | None) -> None:
        self.compiled = wrap is not None
        self.places: list[dict[str, Any]] = []
        self.calls = 0
        self._wrap = wrap
        self._functions: list[Any] = []
        self.declared: set[str] = set()

    def wrap(self, function: Any, **options: Any) -> Any:
        if self._wrap is None:
            return function
        self._functions.append(self._wrap(function, **options))
        return self._functions[-1]

    def __call__(self, names: dict[str, Any], history: bool = True) -> None:
        """Look at a world. `history=False`: functions that call backward() return results without one."""
        found: dict[str, Any] = {}
        seen: set[int] = set()
        for name, value in names.items():
            if name not in NOT_SEEN:
                walk(value, name, found, seen)
        place: dict[str, Any] = {}
        for path, value in found.items():
            place[path] = looked_at(value, history or not RESULT.match(path))
        place["generator"] = looked_at(fastbp.get_rng_state(), False)
        self.places.append({"values": place, "shared": shared(found)})
        self._look_at_plans()

    def _look_at_plans(self) -> None:
        for function in self._functions:
            plan = getattr(function, "plan", None)
            derivative = getattr(plan, "derivative", None)
            if derivative is not None:
                # What the function contributes to a gradient is one sum; the outside's contributions join it after.
                self.declared.add("derivative of a function")
            for one in (plan, derivative):
                if one is not None:
                    self.declared.update(declared_classes(one.steps))

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """What the function returns; or what it raised, which both sides must."""
        self.calls += 1
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if self.compiled and isinstance(error, RuntimeError) and any(one in str(error) for one in REFUSALS):
                raise
            self.places.append({"values": {"raised": type(error).__name__, "planned": is_planned(error)}, "shared": {}})
            if not is_planned(error):
                # What stands after an error that was not planned is not promised: the program ends.
                self.places[-1]["text"] = "".join(traceback.format_exception_only(error)).strip()
                raise EndError from error
            return error
        finally:
            self._look_at_plans()

    def refused(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """A call that raises at capture and leaves no trace: eager code, which would leave one, does not run."""
        if not self.compiled:
            return
        try:
            function(*args, **kwargs)
        except Exception as error:
            if is_planned(error):
                return
            raise UnfitError(f"a call that was to raise raised something else: {error}") from error
        raise Failure("exception", "refused call", "a call that raises at capture did not raise")

    def withdrawn(self, kept: Any, function: Any, *args: Any) -> None:
        """A use of a tensor that was put aside at capture, and has no values: RuntimeError, compiled."""
        if not self.compiled:
            return
        try:
            kept.numpy()
            return  # the function ran eagerly, and the tensor is one
        except RuntimeError:
            pass
        try:
            function(*args)
        except RuntimeError:
            return
        raise Failure("exception", "kept tensor", "a tensor kept from a capture was used and did not raise")

    def epoch(self, step: Any, loader: Any) -> Any:
        """A pass: each batch's results, stacked."""
        self.calls += 1
        if self.compiled:
            return step.epoch(loader)
        found = []
        for batch in loader:  # each result as it is after its call
            result = step(*batch)
            found.append([one.detach().clone() for one in (result if isinstance(result, tuple) else (result,))])
        columns = [list(one) for one in zip(*found, strict=True)]
        parts = [fastbp.stack(one) if len({part.shape for part in one}) == 1 else one for one in columns]
        return tuple(parts) if isinstance(result, tuple) else parts[0]


class UnfitError(Exception):
    """A call that only the compiled side makes does not fit the world: what follows is not compared."""


class EndError(Exception):
    """The program ends early, on both sides."""


def is_planned(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__name__ == "PlannedError":
            return True
        error = error.__cause__ or error.__context__
    return False


def declared_classes(steps: list[dict[str, Any]]) -> Iterator[str]:
    """The classes of steps of a plan whose bits may be others than eager ones (docs/compile.md, "Same bits, ...")."""
    for step in steps:
        name, product = step["name"], "matmul" in step["name"] or "linear" in step["name"]
        # Sums of up to a block of 4 KiB have the bits of eager code.
        if ("+sum" in name or "+mean" in name) and step["bytes"] > 4096:
            yield "+sum, +mean"
        # With one block of the inner dimension, which has 2 KiB, only products of one column differ.
        column = len(step["shape"]) < 2 or 1 in step["shape"][-2:]
        if "+accumulate" in name and (column or step["bytes"] > 2048):
            yield "+accumulate"
        elif product and column:
            yield "one column"


def run_one(program: Callable[..., None], wrap: Callable[..., Any] | None) -> tuple[Observer, list[str], str]:
    """Run one side: what it saw, its warnings, and the refusal that ended it."""
    dtype, threads, see = fastbp.get_default_dtype(), fastbp.get_num_threads(), Observer(wrap)
    refusal = ""
    begin(fastbp.float32)
    fastbp.manual_seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            program(see.wrap, see)
        except EndError:
            pass
        except UnfitError as error:
            refusal = str(error)
        except RuntimeError as error:
            if wrap is None or not any(one in str(error) for one in REFUSALS):
                raise
            refusal = str(error)
        finally:
            fastbp.set_default_dtype(dtype)
            fastbp.set_num_threads(threads)
    return see, [str(one.message) for one in caught], refusal


def check(
    program: Callable[..., None], wrap: Callable[..., Any] | None = None, ignored: Collection[str] = ()
) -> Outcome:
    """Run a program eagerly and compiled (`wrap`: by fastbp.compile) and raise the first `Failure` that is not ignored.

    `ignored` names kinds of failures, or beginnings of their names; those in TOLERATED are counted only.
    """
    try:
        wanted, eager_warnings, _ = run_one(program, None)
    except Exception as error:
        raise SkippedError(f"{type(error).__name__}: {error}") from error
    if wanted.calls == 0 or (len(wanted.places) <= 1 and "text" in wanted.places[-1]):
        raise SkippedError(str(wanted.places))
    try:
        found, warned, refusal = run_one(program, wrap or fastbp.compile)
    except Failure:
        raise
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        raise Failure(f"exception: {type(error).__name__} outside of calls", "compiled run", text) from error
    outcome = Outcome(calls=wanted.calls, declared=dict.fromkeys(found.declared, False), refused=refusal)
    if "double" in program.__code__.co_names:
        outcome.least_bound = BOUND["float32"]
    if refusal:
        del wanted.places[len(found.places) :]
    for failure in compare(found.places, wanted.places, outcome, found.declared):
        if not failure.kind.startswith(tuple(ignored)):
            raise failure
    outcome.warned = [one for one in warned if one.startswith("compile:")]
    for text in warned:
        if not text.startswith("compile:") and text not in eager_warnings:
            raise Failure("warning", "compiled run", text)
    return outcome
