"""What a case is, and the cases of elementwise rows.

Elementwise rows need no hand: their cases follow from the table's own columns (arity, parameters, kind, domain). The
other rows have theirs written out in `structural_cases.py`: how to call the row from Python, what the reference is to
be called with, and on what. `test_completeness.py` fails with the name of a row that has none.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastbp.nn.functional as F
from fastbp import _core
from fastbp.testing.translate import parameter_names

Array = np.ndarray[Any, Any]

ISAS: list[str] = _core.available_isas()
ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in _core.op_table()}
ELEMENTWISE = ("pointwise", "predicate")

FLOATS = ("float32", "float64")
NUMBERS = (*FLOATS, "int64", "int32", "uint8")
ALL = (*NUMBERS, "bool")

# Distances are counted in units of the last place: of each result, or (structural rows) of the largest number about.
EPSILON = {"float32": 2.0**-23, "float64": 2.0**-52}


@contextlib.contextmanager
def kernels(isa: str) -> Iterator[None]:
    """Use an instruction set's kernels within."""
    before = _core.get_isa()
    _core.set_isa(isa)
    try:
        yield
    finally:
        _core.set_isa(before)


# ---- operands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Real:
    """Numbers of the dtype under test, drawn from [low, high]; `distinct` ones are evenly spaced and shuffled, and
    `constant` ones have no derivative."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    distinct: bool = False
    constant: bool = False

    def make(self, random: np.random.Generator, dtype: str) -> Array:
        if dtype == "bool":
            return np.asarray(random.random(self.shape) < 0.5)
        if dtype not in FLOATS:
            return np.asarray(random.integers(0 if dtype == "uint8" else -9, 10, self.shape)).astype(dtype)
        if not self.distinct:
            return np.asarray(random.uniform(self.low, self.high, self.shape)).astype(dtype)
        count = math.prod(self.shape)
        spaced = self.low + (np.arange(count) + 0.5) * ((self.high - self.low) / max(count, 1))
        return random.permutation(spaced).reshape(self.shape).astype(dtype)


@dataclass(frozen=True)
class Index:
    """Whole numbers from `low` to below `below`, int64; where an axis is `distinct`, they do not repeat along it."""

    shape: tuple[int, ...]
    below: int
    distinct: int | None = None
    low: int = 0
    constant: bool = True

    def make(self, random: np.random.Generator, dtype: str) -> Array:
        if self.distinct is not None:
            places = np.broadcast_to(
                np.arange(self.below), (*self.shape[: self.distinct], *self.shape[self.distinct + 1 :], self.below)
            )
            chosen = random.permuted(places, axis=-1)[..., : self.shape[self.distinct]]
            return np.ascontiguousarray(np.moveaxis(chosen, -1, self.distinct)).astype(np.int64)
        return np.asarray(random.integers(self.low, self.below, self.shape), np.int64)


@dataclass(frozen=True)
class Truth:
    """Random bools."""

    shape: tuple[int, ...]
    constant: bool = True

    def make(self, random: np.random.Generator, dtype: str) -> Array:
        return np.asarray(random.random(self.shape) < 0.5)


@dataclass(frozen=True)
class Matrix:
    """Matrices with singular values evenly spaced from 1 to 2.5, so that all are far from singular and none from each
    other; `symmetric` ones have them for eigenvalues, and derivatives along symmetric matrices alone."""

    shape: tuple[int, ...]
    symmetric: bool = False
    constant: bool = False

    def make(self, random: np.random.Generator, dtype: str) -> Array:
        *batch, rows, columns = self.shape
        count = min(rows, columns)
        left, right = (np.linalg.qr(random.standard_normal((*batch, n, count)))[0] for n in (rows, columns))
        right = left if self.symmetric else right
        made = (left * np.linspace(1.0, 2.5, count)) @ np.swapaxes(right, -1, -2)
        if self.symmetric:
            made = (made + np.swapaxes(made, -1, -2)) / 2
        return np.asarray(made).astype(dtype)


Operand = Real | Index | Truth | Matrix


def draw(operands: Sequence[Operand], dtype: str, seed: int = 0) -> list[Array]:
    """The arrays of a case: the same for the same seed."""
    random = np.random.default_rng(seed)
    return [operand.make(random, dtype) for operand in operands]


# ---- cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One way to call one row.

    Attributes
    ----------
    op : str
        The row that the call must end in.
    call : callable
        Of tensors, one an operand.
    operands : tuple of Operand
    attributes : dict
        Keyword arguments of the reference, in PyTorch's words and written by hand.
    dtypes : tuple of str
        Dtypes for the `Real` operands.
    bound : float
        Greatest error in float32 and float64, in units of the last place of the largest number about: inputs, results
        or 1.
    bound_reason : str
        Why so much.
    result : str or None
        Dtype of the result, where it is not that of the operands.
    inputs : callable, optional
        The reference's inputs from the operands' arrays, where they are not the same.
    smooth : bool
        Whether gradients are checked.
    name : str
        Of the reference's op, where it has another.
    """

    op: str
    call: Callable[..., Any]
    operands: tuple[Operand, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = FLOATS
    bound: float = 0.0
    bound_reason: str = "elements are only moved"
    result: str | None = None
    inputs: Callable[[list[Array]], list[Any]] | None = None
    smooth: bool = True
    name: str | None = None

    def __str__(self) -> str:
        shapes = "_".join("x".join(map(str, operand.shape)) or "0d" for operand in self.operands)
        words = "_".join(f"{key}={value}" for key, value in self.attributes.items())
        return "-".join(part for part in (self.op, shapes, words.replace(" ", "")) if part)

    @property
    def reference(self) -> str:
        return self.name or self.op


def row(name: str, **attributes: Any) -> Callable[..., Any]:
    """A call of a row that has no public function, by the fields of its attributes."""
    return lambda *inputs: _core._apply(name, inputs, attributes)


def moved(op: str, call: Callable[..., Any], *operands: Operand, dtypes: tuple[str, ...] = ALL, **rest: Any) -> Case:
    """A case that moves elements: exact, in every dtype."""
    attributes = rest.pop("attributes", {})
    return Case(op, call, operands, attributes, dtypes, **rest)


def summed(op: str, call: Callable[..., Any], *operands: Operand, bound: float = 8.0, **rest: Any) -> Case:
    """A case that adds up some terms: rounding grows with their number, at worst by one unit each."""
    attributes = rest.pop("attributes", {})
    reason = rest.pop(
        "reason", "a sum of n terms errs by at most n units of the sum of magnitudes; n is some tens here"
    )
    return Case(op, call, operands, attributes, bound=bound, bound_reason=reason, **rest)


# ---- elementwise rows: derived -------------------------------------------------------------------------------------

POINTWISE = [name for name, row in ROWS.items() if row["class"] == "pointwise"]
PREDICATES = [name for name, row in ROWS.items() if row["class"] == "predicate"]

# Values for parameters whose defaults switch the row off, and for the second look at those with defaults.
PARAMETERS: dict[str, list[tuple[float, ...]]] = {
    "clamp": [(-0.7, 0.9)],
    "leaky_relu": [(0.01,), (0.3,)],
    "elu": [(1.0,), (1.7,)],
    "softplus": [(1.0, 20.0), (2.0, 1.0)],
    "hardtanh": [(-1.0, 1.0), (-0.5, 1.5)],
    "smooth_absolute_error": [(1.0,), (0.25,)],
    "huber_error": [(1.0,), (0.25,)],
}


# Instead of those, where their corner lies within the domain: derivatives are checked on either side of it.
SMOOTH_PARAMETERS: dict[str, list[tuple[float, ...]]] = {
    "smooth_absolute_error": [(1.0,), (0.01,)],
    "huber_error": [(1.0,), (0.01,)],
    "clamp": [(-3.0, 3.0)],
    "softplus": [(1.0, 20.0), (2.0, 20.0)],
    "hardtanh": [(-1.0, 1.0)],
}

# Rows that are smooth unless their operands are equal (or their quotient is a whole number).
APART = (
    "minimum",
    "maximum",
    "floor_divide",
    "fmod",
    "remainder",
    "absolute_error",
    "smooth_absolute_error",
    "huber_error",
)


def parameters(name: str, smooth: bool = False) -> list[dict[str, float]]:
    """Keyword arguments to try of an elementwise row."""
    names = parameter_names(ROWS[name])
    if not names:
        return [{}]
    chosen = SMOOTH_PARAMETERS.get(name, PARAMETERS[name]) if smooth else PARAMETERS[name]
    return [dict(zip(names, values, strict=True)) for values in chosen]


# A row's domain is where it is smooth.  Its values are right beyond corners and steps too: there forward tests look.
BEYOND = dict.fromkeys(
    (
        "abs",
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
        "floor_divide",
        "fmod",
        "remainder",
        "relu",
        "leaky_relu",
        "elu",
        "hardtanh",
        "smooth_absolute_error",
        "huber_error",
    ),
    (-4.0, 4.0),
)


# Rows whose public function is another one's form.
PUBLIC: dict[str, Callable[..., Any]] = {"gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


def function(name: str) -> Callable[..., Any]:
    """The Python function of an elementwise row."""
    return PUBLIC[name] if name in PUBLIC else getattr(_core, name)


def elementwise_operands(
    name: str, dtype: str, shape: tuple[int, ...], seed: int = 0, smooth: bool = False
) -> list[Array]:
    """Arrays for an elementwise row, from where it is smooth or from wherever it is defined.

    Smooth operands that must keep apart come from the two halves of the domain: the first from the upper one if the
    seed is even, from the lower one if it is odd.
    """
    row = ROWS[name]
    low, high = row["domain"] if row["class"] == "pointwise" else (-1.0, 1.0)
    if not smooth:
        low, high = BEYOND.get(name, (low, high))
    random = np.random.default_rng(seed)
    ranges = [(low, high)] * row["arity"]
    if smooth and name in APART:
        ranges = [(0.55 * high + 0.45 * low, high), (low, 0.45 * high + 0.55 * low)][:: -1 if seed % 2 else 1]
    arrays = [Real(shape, *between).make(random, dtype) for between in ranges]
    if name == "where":
        arrays[0] = np.asarray(random.random(shape) < 0.5)
    if dtype not in FLOATS and name in ("div", "floor_divide", "fmod", "remainder"):
        arrays[1][arrays[1] == 0] = 1
    if dtype not in FLOATS and name == "pow":
        arrays[1] = np.abs(arrays[1]) % 4  # whole numbers have no negative powers
    if row["class"] == "predicate":
        arrays[0].ravel()[::3] = arrays[-1].ravel()[::3]  # some equal ones
        if dtype not in FLOATS or name.startswith("logical"):
            arrays[0].ravel()[1::4] = 0
    return arrays


def elementwise_dtypes(name: str) -> tuple[str, ...]:
    """Dtypes that an elementwise row accepts."""
    row = ROWS[name]
    if row["class"] == "predicate":
        return ALL
    if row["kind"] == "I":
        return ("int64", "int32", "uint8", "bool")
    return NUMBERS
