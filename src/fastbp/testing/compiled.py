"""A compiled function beside the program that was captured of it, replayed in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import Tensor, from_numpy, grad
from .._tree import flatten
from ..compiler import Compiled
from .program import Numbers, Program, Recorder, Replay, Start, real_elements

# A program is a chain of many ops, each with its own rounding: what one may lose, times this.
CHAIN_LOSS = 10.0
# Where that is not enough: the program is replayed so many times with operands moved by a last place at random, and
# results may differ by so many times what that moves them.
SAMPLES, SPREAD = 3, 10.0
# What adding a small change to a number may round, in units of its last place.
ADDITION_ULPS = 4.0

PART_NAMES = {
    **{(op, 0): "parameter" for op in ("sgd", "adam")},
    ("sgd", 1): "momentum_buffer",
    ("adam", 1): "exp_avg",
    ("adam", 2): "exp_avg_sq",
    ("adam", 3): "max_exp_avg_sq",
}


def check_compiled(fn: Callable[..., Any], *args: Any, rtol: float | None = None) -> list[str]:
    """Run a compiled function once, and replay the program that was captured of it in plain Python.

    Compared are the tensors that it returns, the state that it changes (parameters, optimizers' averages, buffers), its
    arguments, and the gradients of leaves. A function that returns tensors that require grad without having called
    ``backward()`` is compared with its derivative, for random cotangents.

    Parameters
    ----------
    fn : callable
        As for ``fastbp.compile``; a compiled one is captured anew. One call of it happens, so that parameters and all
        other state are one step further afterwards. The Python code runs once, or twice where it returns tensors that
        require grad.
    *args
        Its arguments. Keep them small: the reference is thousands of times slower.
    rtol : float, optional
        What one op may lose, relative to the largest element: 1e-5 for float32, 1e-11 for float64 by default. Ten times
        that is allowed at the end of the program, relative to the largest element of a returned tensor or a gradient,
        and to the largest change of what an optimizer writes: a missing step of any size is found. Programs that
        magnify rounding by more are given what they magnify it by: they are replayed with operands that are moved by a
        unit in their last place.

    Returns
    -------
    list of str
        What was replayed, a line each: names of ops, ``"pull tanh"`` for what a cotangent contributes to an op's input,
        ``"write"`` for writing into memory that others see, ``"sgd"`` or ``"adam"`` for an optimizer's step.

    Raises
    ------
    AssertionError
        Naming what differs and the line of the program that computes it: of all that does, the one with the first line.
    KeyError
        If the reference lacks an op.
    NotImplementedError
        If memory is seen as two dtypes; if arguments overlap with each other or with state, and are written; if an
        input that only the reference's rule of a derivative needs is not known.

    Notes
    -----
    Where a program jumps (a comparison of floats that are nearly equal, ``argmax`` of near ties), right results may
    differ by more than is allowed: choose other inputs, or float64.

    Examples
    --------
    >>> w = fastbp.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = fastbp.optim.SGD([w], lr=0.1)
    >>> def step(x):
    ...     optimizer.zero_grad()
    ...     loss = (w * x).exp().sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss.detach()
    >>> fastbp.testing.check_compiled(step, fastbp.tensor([0.5, -1.0]))
    ['mul', 'exp', 'sum', 'full', 'pull exp', 'pull mul', 'copy', 'sgd']
    """
    recorder = Recorder(fn._function if isinstance(fn, Compiled) else fn)
    entry, tensors = recorder._find(args, {})
    program, cotangents = recorder.program, []
    if recorder.roots:
        cotangents = _cotangents(recorder)
        program = recorder.derivative(entry.structure, tensors)
    start = Start(program, [*tensors, *cotangents])
    replay = Replay(program, start).run()
    _refuse_overlaps(replay, tensors)
    found = _run(recorder, args, tensors, cotangents, start)
    comparisons = found.beside(replay)
    if any(one.difference(rtol) is not None for one in comparisons):
        moved = [found.beside(Replay(program, start, np.random.default_rng(k)).run()) for k in range(SAMPLES)]
        for one, *others in zip(comparisons, *moved, strict=True):
            one.spread = max(one.distance(other) for other in others)
    for one in sorted(comparisons, key=lambda one: one.line if one.line >= 0 else len(program.lines)):
        one.check(program, rtol)
    return [{"pull": f"pull {op}", "write": "write"}.get(kind, op) for kind, op, *_ in program.lines]


def _cotangents(recorder: Recorder) -> list[Tensor]:
    """Random ones for the results that require grad."""
    random = np.random.default_rng(0)
    values = [recorder.program.values[recorder.program.results[n]] for n in recorder.roots]
    return [from_numpy(np.asarray(random.standard_normal(shape)).astype(dtype)) for _, _, shape, _, dtype in values]


def _refuse_overlaps(replay: Replay, tensors: Sequence[Tensor]) -> None:
    """A call whose arguments share memory with what is written runs the function itself, not the plan."""
    arrays = [(x.detach().numpy(), value) for x, value in zip(tensors, replay.program.inputs, strict=False)]
    pieces = [(x, replay.writer[replay.program.values[value][0]] >= 0, True) for x, value in arrays]
    for (kind, _, held), line in zip(replay.program.buffers, replay.writer, strict=True):
        if kind == "state" and held is not None:
            pieces.append((held.numpy(), line >= 0, False))
    for number, (x, x_written, x_given) in enumerate(pieces):
        for y, y_written, _ in pieces[:number]:
            if (x_written or y_written) and np.may_share_memory(x, y):
                what = "arguments overlap" if x_given else "an argument overlaps with state"
                raise NotImplementedError(f"check_compiled: {what} in memory that the function writes")


def _run(
    recorder: Recorder, args: Sequence[Any], tensors: list[Tensor], cotangents: list[Tensor], start: Start
) -> _Found:
    """The compiled function, for real, and its derivative where it has one."""
    program = recorder.program
    results: list[Any] = []
    flatten(recorder(*args), results)
    found = _Found(start, program, tensors, results)
    leaves = [leaf for leaf, _ in program.gradients]
    if recorder.roots:
        gradients = grad([results[n] for n in recorder.roots], leaves, cotangents, allow_unused=True)
        for (leaf, value), gradient in zip(program.gradients, gradients, strict=True):
            found.add_gradient(leaf, value, gradient)
    else:
        for leaf, value in program.gradients:
            if leaf.is_leaf:
                found.add_gradient(leaf, value, leaf.grad)
    return found


# ---- comparison ----------------------------------------------------------------------------------------------------


@dataclass
class _Comparison:
    """One array that the plan computed, and what the program says.

    Attributes
    ----------
    line : int
        That wrote it last; -1: none, and it must be as before.
    unit : float
        What one op may lose.
    size, floor : float
        What that is relative to: the largest element (or change), which many ops went into, and a number below which
        rounding is noise.
    added : float
        The largest element that a change was added to.
    spread : float
        By how much results move when the program's operands do.
    """

    what: str
    line: int
    unit: float
    found: Numbers | None
    wanted: Numbers | None
    size: float
    floor: float
    added: float = 0.0
    spread: float = 0.0

    def check(self, program: Program, rtol: float | None) -> None:
        difference = self.difference(rtol)
        if difference is not None:
            made = "which no line writes" if self.line < 0 else program.name(self.line)
            raise AssertionError(f"check_compiled: {self.what} ({made}): {difference}")

    def difference(self, rtol: float | None) -> str | None:
        """What differs, in words."""
        if self.found is None or self.wanted is None:
            same = self.found is None and self.wanted is None
            return None if same else f"{'absent' if self.found is None else 'present'}, unlike in the reference"
        if (self.found.shape, self.found.dtype) != (self.wanted.shape, self.wanted.dtype):
            here, there = (f"{x.dtype} of shape {x.shape}" for x in (self.found, self.wanted))
            return f"{here} where the reference has {there}"
        allowed, wrong = 0.0, self.found != self.wanted
        if self.found.dtype.kind == "f":
            allowed = self._allowed(self.found.dtype, rtol) if self.line >= 0 else 0.0
            with np.errstate(invalid="ignore"):
                wrong = ~np.isclose(self.found, self.wanted, rtol=0.0, atol=allowed, equal_nan=True)
        if not wrong.any():
            return None
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        there = f"{self.found[where]!r} at {where} where the reference has {self.wanted[where]!r}"
        return f"{there}; {allowed:.3g} is allowed"

    def _allowed(self, dtype: Any, rtol: float | None) -> float:
        unit = self.unit if rtol is None else rtol
        rounding = ADDITION_ULPS * float(np.finfo(dtype).eps) * self.added
        return unit * (CHAIN_LOSS * self.size + self.floor) + rounding + SPREAD * self.spread

    def distance(self, other: _Comparison) -> float:
        """From another replay of the same program."""
        if self.wanted is None or other.wanted is None:
            return 0.0
        with np.errstate(invalid="ignore"):
            return _largest(self.wanted.astype(np.float64) - other.wanted)


def _largest(x: Numbers) -> float:
    """The largest magnitude among the finite elements."""
    return float(np.abs(x[np.isfinite(x)].astype(np.float64)).max(initial=0.0))


class _Found:
    """What a real run left behind, to be held to replays."""

    def __init__(self, start: Start, program: Program, tensors: Sequence[Tensor], results: Sequence[Any]) -> None:
        self.results = [x.detach().numpy() if isinstance(x, Tensor) else None for x in results]
        self.arguments = [x.detach().numpy() for x in tensors]
        self.state = [real_elements(program, buffer, dtype) for buffer, dtype in enumerate(start.dtypes)]
        self.gradients: list[tuple[Tensor, int | None, Numbers | None]] = []

    def add_gradient(self, leaf: Tensor, value: int | None, gradient: Tensor | None) -> None:
        """Of a leaf, after the run."""
        self.gradients.append((leaf, value, None if gradient is None else gradient.detach().numpy()))

    def beside(self, replay: Replay) -> list[_Comparison]:
        """Everything that can be compared."""
        return [*self._results(replay), *self._arguments(replay), *self._state(replay), *self._gradients(replay)]

    def _results(self, replay: Replay) -> list[_Comparison]:
        pairs = enumerate(zip(self.results, replay.program.results, strict=True))
        return [_of_value(replay, f"returned tensor {n}", value, x) for n, (x, value) in pairs if x is not None]

    def _arguments(self, replay: Replay) -> list[_Comparison]:
        pairs = enumerate(zip(self.arguments, replay.program.inputs, strict=False))  # cotangents are inputs, too
        return [_of_value(replay, f"tensor argument {n}", value, x) for n, (x, value) in pairs]

    def _state(self, replay: Replay) -> list[_Comparison]:
        """What lives outside: by its change where an optimizer writes it, else by its elements."""
        comparisons = []
        changes: dict[tuple[str, int], float] = {}
        by_role: list[tuple[_Comparison, tuple[str, int]]] = []
        for buffer, (kind, _, _) in enumerate(replay.program.buffers):
            before, now = replay.start.real[buffer], self.state[buffer]
            if kind != "state" or before is None or now is None:
                continue
            role = replay.roles.get(buffer)
            what = f"{'state' if role is None else PART_NAMES[role]} of {now.size} elements"
            one = _of_buffer(replay, what, buffer, now, np.array(replay.cells[buffer], now.dtype))
            comparisons.append(one)
            if role is not None:
                with np.errstate(invalid="ignore"):
                    one.size, one.added = _largest(np.array(replay.cells[buffer]) - before), one.size
                changes[role] = max(changes.get(role, 0.0), one.size)
                by_role.append((one, role))
        for one, role in by_role:
            one.floor = changes[role]
        return comparisons

    def _gradients(self, replay: Replay) -> list[_Comparison]:
        comparisons = []
        for number, (leaf, value, found) in enumerate(self.gradients):
            what = f"gradient of leaf {number}, of shape {tuple(leaf.shape)}"
            if value is None:
                comparisons.append(_Comparison(what, -1, 0.0, found, None, 0.0, 0.0))
                continue
            comparisons.append(_of_value(replay, what, value, found))
        largest = max((one.size for one in comparisons), default=0.0)
        for one in comparisons:
            one.floor = largest
        return comparisons


def _of_value(replay: Replay, what: str, value: int, found: Numbers | None) -> _Comparison:
    return _of_buffer(replay, what, replay.program.values[value][0], found, replay.array(value))


def _of_buffer(replay: Replay, what: str, buffer: int, found: Numbers | None, wanted: Numbers) -> _Comparison:
    """By elements; below 1 what is allowed is absolute."""
    return _Comparison(what, replay.writer[buffer], replay.units[buffer], found, wanted, _largest(wanted), 1.0)
