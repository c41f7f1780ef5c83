"""Captured programs as plain data, and their replay in plain Python.

A program is what `Capture.records()` shows: lines over values over buffers, before any pass of the planner. Here a
buffer is a flat list of numbers, a value a shape with strides over one, and a line a call of ``fastbp.reference``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import _core
from .._arguments import describe
from .._core import Tensor, is_grad_enabled
from .._guards import World
from .._plans import Entry
from .._tree import flatten, unflatten
from ..compiler import Compiled
from ..reference import OPS, Array, cast_value
from .replay import TOLERANCES, to_reference
from .translate import ROWS, parameter_names, translate

Line = tuple[str, str, int, tuple[int | None, ...], int, dict[str, Any], int]
Value = tuple[int, int, tuple[int, ...], tuple[int, ...], str]
Numbers = np.ndarray[Any, Any]

PARTS = 5  # operands that a line of an optimizer has for each parameter: itself, its gradient, three of state
USED_PARTS = {"sgd": 3, "adam": 5}

# Ops that choose, move or jump, beside predicates and those without derivative: `Replay` never moves their operands.
EXACT = {
    *("neg", "abs", "sign", "relu", "clamp", "hardtanh", "where", "minimum", "maximum", "amax", "amin", "extreme_grad"),
    *("floor", "ceil", "round", "trunc", "floor_divide", "fmod", "remainder", "copy", "cast", "cat", "triangle"),
    *("reshape", "permute", "expand", "slice", "diagonal", "embed", "slice_assign", "embed_diagonal"),
    *("gather", "scatter", "index_select", "take", "put"),
}


class Program:
    """A captured program, with what is known about its values from outside.

    Attributes
    ----------
    buffers, values, lines : list
        As `Capture.records()` returns them.
    updates : list of tuple
        Optimizer, group, bucket and op of each line that is an optimizer's step, by slot.
    inputs, results : list of int
        The value of each argument, and of each tensor that is returned (-1: something else is).
    gradients : list of (Tensor, int or None)
        Leaves, and the values that their gradients are.
    """

    def __init__(self, capture: _core.Capture, inputs: Sequence[Tensor], results: Sequence[Any]) -> None:
        self.inputs = [capture.value_of(x) for x in inputs]
        self.results = [capture.value_of(x) if isinstance(x, Tensor) else -1 for x in results]
        self.gradients: list[tuple[Tensor, int | None]] = capture.gradients()
        self.updates = list(capture.updates)
        self.read(capture)

    def read(self, capture: _core.Capture) -> None:
        """The records as they are now; the values of questions asked meanwhile are among them."""
        buffers, values, lines = capture.records()
        self.buffers: list[tuple[str, int, Tensor | None]] = buffers
        self.values: list[Value] = values
        self.lines: list[Line] = lines

    def name(self, line: int) -> str:
        """A line in words."""
        kind, op, which, _, _, attributes, _ = self.lines[line]
        what = {"pull": f"pull of {op} to input {which}", "write": "write"}.get(kind, op)
        return f"line {line}, {what}{f' {attributes}' if attributes else ''}"


class Recorder(Compiled):
    """A compiled function that keeps the program of its latest capture.

    Attributes
    ----------
    program : Program
        Before it is planned.
    roots : list of int
        Tensors among the results that are to be differentiated from outside.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.program: Program
        self.roots: list[int] = []

    def _trace(
        self, capture: _core.Capture, structure: Any, tensors: list[Tensor]
    ) -> tuple[list[Tensor], list[Any], Any]:
        """Run the function; its symbolic arguments, the tensors that it returns, and the structure they stand in."""
        symbols = [capture.argument(one) for one in tensors]
        args, kwargs = unflatten(structure, iter(symbols))
        results: list[Any] = []
        return symbols, results, flatten(self._function(*args, **kwargs), results)

    def _capture(self, key: Any, structure: Any, tensors: list[Tensor]) -> Entry:
        capture = _core.Capture()
        with capture, World(self._function, capture) as world:
            symbols, results, result = self._trace(capture, structure, tensors)
            self.program = Program(capture, symbols, results)
            self._name_arguments(symbols, tensors)
            self.roots = self._find_roots(capture, symbols, results)
            plan = _core.make_plan(capture, (self._function, structure), results, world.guards())
        return Entry(key, structure, [describe(one) for one in tensors], plan, result)

    def _find_roots(self, capture: _core.Capture, symbols: list[Tensor], results: list[Any]) -> list[int]:
        """What `make_plan` gives a derivative: computed here, requiring grad, not swept by a `backward()` here."""
        if not is_grad_enabled() or capture.backward_ran:
            return []
        buffers, values = self.program.buffers, self.program.values
        roots = []
        for number, (x, value) in enumerate(zip(results, self.program.results, strict=True)):
            if value >= 0 and x.requires_grad and all(x is not one for one in symbols):
                is_real = buffers[values[value][0]][2] is not None
                if not is_real and not capture.is_swept(x):
                    roots.append(number)
        return roots

    def derivative(self, structure: Any, tensors: list[Tensor]) -> Program:
        """Capture once more, with the reverse sweep from `roots`; the last inputs are its cotangents."""
        capture = _core.Capture()
        with capture, World(self._function, capture):
            symbols, results, _ = self._trace(capture, structure, tensors)
            roots = [results[n] for n in self.roots]
            leaves = capture.leaves(roots)
            cotangents, gradients = capture.differentiate(roots, leaves)
            self.program = Program(capture, [*symbols, *cotangents], results)
            values = [None if g is None else capture.value_of(g) for g in gradients]
            self.program.read(capture)
            self.program.gradients = list(zip(leaves, values, strict=True))
        self._name_arguments(symbols, tensors)
        return self.program

    def _name_arguments(self, symbols: list[Tensor], tensors: list[Tensor]) -> None:
        """Among the leaves, arguments in place of the symbols that stood for them."""
        real = {id(symbol): tensor for symbol, tensor in zip(symbols, tensors, strict=True)}
        self.program.gradients = [(real.get(id(leaf), leaf), value) for leaf, value in self.program.gradients]


class Start:
    """All that a program reads of the world, as it is when this is made.

    Attributes
    ----------
    dtypes : list of str
        Of each buffer; "" where no value looks at it.
    real : list of ndarray or None
        Elements of the buffers that exist outside.
    arguments : list of Array
    numbers : list of dict
        The options of each optimizer's step, in the reference's words.

    Raises
    ------
    NotImplementedError
        If memory is seen as two dtypes.
    """

    def __init__(self, program: Program, arguments: Sequence[Tensor]) -> None:
        self.dtypes = [""] * len(program.buffers)
        for buffer, _, _, _, dtype in program.values:
            if self.dtypes[buffer] not in ("", dtype):
                raise NotImplementedError(f"check_compiled: memory is seen as {self.dtypes[buffer]} and as {dtype}")
            self.dtypes[buffer] = dtype
        self.real = [real_elements(program, buffer, dtype) for buffer, dtype in enumerate(self.dtypes)]
        self.arguments = [to_reference(x) for x in arguments]
        self.numbers = _numbers_of_updates(program)


def real_elements(program: Program, buffer: int, dtype: str) -> Numbers | None:
    """A copy of the elements of a buffer that exists outside, as they are now."""
    held = program.buffers[buffer][2]
    if held is None or not dtype:
        return None
    size = np.dtype(dtype).itemsize
    return held.numpy()[: held.numel() // size * size].view(dtype).copy()


def _numbers_of_updates(program: Program) -> list[dict[str, Any]]:
    """The options of each optimizer's step; "steps" are the numbers of the step, by parameter."""
    numbers = []
    for optimizer, number, bucket, op in program.updates:
        group = {**optimizer.param_groups[number], **bucket.options}
        found = {name: group[name] for name in ("lr", "weight_decay", "maximize")}
        if op == "sgd":
            found.update({name: group[name] for name in ("momentum", "dampening", "nesterov")})
        else:
            found.update({name: group[name] for name in ("eps", "amsgrad")})
            found["beta1"], found["beta2"] = group["betas"]
            found["decoupled"] = group["decoupled_weight_decay"]
        found["steps"] = [done + 1 for done in bucket.steps] or [1] * len(bucket.params)
        numbers.append(found)
    return numbers


class Replay:
    """A run of a program: its memory as lists, and its lines as calls of the reference.

    Parameters
    ----------
    program : Program
    start : Start
    random : numpy.random.Generator, optional
        Move the operands of all ops that round, each element by a unit in its last place up or down, or not: what comes
        out then shows how the program magnifies rounding. Default: leave them.

    Attributes
    ----------
    cells : list of list
        The elements of each buffer.
    writer : list of int
        The line that wrote each buffer last, -1.
    units : list of float
        What one op may lose in the least precise type that went into each buffer; 0 for what no line computed.
    roles : dict
        By buffer that an optimizer writes: which optimizer, and which of its results it is.
    """

    def __init__(self, program: Program, start: Start, random: np.random.Generator | None = None) -> None:
        self.program, self.start, self._random = program, start, random
        self.cells: list[list[Any]] = [
            [0] * (bytes_ // np.dtype(dtype or "uint8").itemsize) if real is None else real.tolist()
            for (_, bytes_, _), dtype, real in zip(program.buffers, start.dtypes, start.real, strict=True)
        ]
        self.writer = [-1] * len(program.buffers)
        self.units = [0.0] * len(program.buffers)
        self.roles: dict[int, tuple[str, int]] = {}
        self._operands: dict[int, tuple[str, tuple[Array | None, ...]]] = {}  # by value, what an op made it of
        for value, x in zip(program.inputs, start.arguments, strict=True):
            self._store(value, x)

    def run(self) -> Replay:
        """All lines; returns self.

        Raises
        ------
        AssertionError
            If the reference disagrees about a shape.
        KeyError
            If it lacks an op.
        """
        for number, line in enumerate(self.program.lines):
            read = [self.program.values[value][0] for value in line[3] if value is not None]
            for value, x in self._results(line):
                if x.shape != self.program.values[value][2]:
                    wrong = f"shape {self.program.values[value][2]} where the reference has {x.shape}"
                    raise AssertionError(f"check_compiled: {self.program.name(number)}: {wrong}")
                self._store(value, x)
                buffer = self.program.values[value][0]
                self.writer[buffer] = number
                own = TOLERANCES.get(self.start.dtypes[buffer], 0.0)
                self.units[buffer] = max(own, self.units[buffer], *(self.units[one] for one in read))
        return self

    def array(self, value: int) -> Numbers:
        """A value's elements."""
        return np.array(self._load(value).values, self.program.values[value][4]).reshape(self.program.values[value][2])

    def _places(self, value: int) -> list[int]:
        """Where a value's elements lie in its buffer."""
        buffer, offset, shape, strides, _ = self.program.values[value]
        places = [offset // np.dtype(self.start.dtypes[buffer]).itemsize]
        for size, stride in zip(shape, strides, strict=True):
            places = [place + i * stride for place in places for i in range(size)]
        return places

    def _load(self, value: int) -> Array:
        buffer, _, shape, _, _ = self.program.values[value]
        return Array([self.cells[buffer][place] for place in self._places(value)], shape)

    def _store(self, value: int, x: Array) -> None:
        """Write a value's elements, rounded to its type."""
        buffer, _, _, _, dtype = self.program.values[value]
        for place, element in zip(self._places(value), x.values, strict=True):
            self.cells[buffer][place] = cast_value(element, dtype)

    def _moved(self, x: Array, dtype: str) -> Array:
        """Each element by one place up or down, or not."""
        assert self._random is not None
        steps = (1.0 + np.finfo(dtype).eps * self._random.integers(-1, 2, x.size)).tolist()
        return Array([element * step for element, step in zip(x.values, steps, strict=True)], x.shape)

    def _read(self, op: str, inputs: Sequence[int | None]) -> tuple[Array | None, ...]:
        """The operands of a line."""
        operands: list[Array | None] = []
        rounds = op not in EXACT and ROWS[op]["class"] not in ("predicate", "nodiff")
        for value in inputs:
            x = None if value is None else self._load(value)
            if x is not None and self._random is not None and rounds:
                dtype = self.program.values[value or 0][4]
                x = self._moved(x, dtype) if dtype in TOLERANCES else x
            operands.append(x)
        return tuple(operands)

    def _results(self, line: Line) -> list[tuple[int, Array]]:
        """The values that a line writes, with their new elements."""
        kind, op, which, inputs, output, attributes, slot = line
        operands = self._read(op, inputs)
        if kind == "update":
            return self._updated(op, inputs, operands, slot)
        if kind == "write":
            source = inputs[0]
            if source in self._operands:
                self._operands[output] = self._operands[source]
            return [(output, _known(operands[0]))]
        if kind == "pull":
            return [(output, self._pulled(op, which, inputs, operands, attributes))]
        self._operands[output] = (op, operands)
        name, used, keywords = translate(op, operands, attributes)
        if name not in OPS:
            raise KeyError(f"fastbp.reference has no op {name!r}")
        made = OPS[name].forward(*used, **keywords)
        return [(output, made[1] if isinstance(made, tuple) else made)]  # of topk's pair the indices

    def _pulled(
        self,
        op: str,
        which: int,
        inputs: Sequence[int | None],
        operands: Sequence[Array | None],
        attributes: dict[str, Any],
    ) -> Array:
        """What a cotangent contributes to input `which`, before it is summed to that input's shape.

        Of the op's inputs and its result, the line has those that the core's rule reads, and the reference's rule
        reads inputs alone: where the core goes by the result, the inputs are those that the result was made of, and
        the result's rounding, which they do not tell, is added (1 - y * y for tanh). What neither rule reads is zero.
        """
        cotangent = _known(operands[0])
        used = list(operands[1 : 1 + ROWS[op]["arity"]])
        if inputs[3] is not None:
            maker, made_of = self._operands.get(inputs[3], ("", ()))
            if maker != op:
                raise NotImplementedError(f"check_compiled: the inputs of {op}, whose derivative is told by its result")
            used = [known if given is None else given for given, known in zip(used, made_of, strict=True)]
        blank = Array([0.0] * cotangent.size, cotangent.shape)
        spread = [blank if x is None else OPS["expand"].forward(x, size=cotangent.shape) for x in used]
        keywords = dict(zip(parameter_names(ROWS[op]), attributes.get("p", ()), strict=False))
        pulled = OPS[op].vjp(cotangent, *spread, **keywords)[which] or blank
        if self._random is None or inputs[3] is None or op in EXACT:
            return pulled
        moved = self._moved(cotangent, self.program.values[inputs[3]][4])
        triples = zip(pulled.values, moved.values, cotangent.values, strict=True)
        return Array([p + (m - c) for p, m, c in triples], pulled.shape)

    def _updated(
        self, op: str, inputs: Sequence[int | None], operands: Sequence[Array | None], slot: int
    ) -> list[tuple[int, Array]]:
        """An optimizer's step: new elements of parameters and state."""
        made: list[tuple[int, Array]] = []
        numbers = {name: value for name, value in self.start.numbers[slot].items() if name != "steps"}
        for at, step in zip(range(0, len(inputs), PARTS), self.start.numbers[slot]["steps"], strict=True):
            new = OPS[op].forward(*operands[at : at + USED_PARTS[op]], step=step, **numbers)
            values = (inputs[at], *inputs[at + 2 : at + PARTS])
            for place, (value, x) in enumerate(zip(values, new, strict=False)):
                if value is not None:
                    made.append((value, _known(x)))
                    self.roles[self.program.values[value][0]] = (op, place)
        return made


def _known(x: Array | None) -> Array:
    assert x is not None
    return x
