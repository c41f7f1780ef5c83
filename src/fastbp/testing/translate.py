"""What the core records of an op, in the words of ``fastbp.reference``: PyTorch's argument names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._core import op_table
from ..reference import Array, random_words

Attributes = dict[str, Any]
Inputs = Sequence[Array | None]
Translation = Callable[[Attributes, Inputs], Attributes]
Call = tuple[str, tuple[Array | None, ...], Attributes]

ROWS = {row["name"]: row for row in op_table()}


def parameter_names(row: dict[str, Any]) -> list[str]:
    """Names of the keyword parameters of a pointwise row."""
    return [part.split("=")[0].strip() for part in row["signature"].split(",") if part.strip()]


def _reduce(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {"dim": recorded["dims"], "keepdim": recorded["keepdim"]}


def _slice(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {name: recorded[name] for name in ("start", "step", "count", "dropped")}


def _diagonal(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {"offset": recorded["offset"], "dim1": recorded["first"], "dim2": recorded["second"]}


def _embed_diagonal(recorded: Attributes, inputs: Inputs) -> Attributes:
    """The other sizes are the input's, in order; the two recorded ones go to their places."""
    assert inputs[0] is not None
    size = list(inputs[0].shape[:-1])
    for axis, extent in sorted(zip((recorded["first"], recorded["second"]), recorded["sizes"], strict=True)):
        size.insert(axis, extent)
    return {"size": tuple(size), **_diagonal(recorded, inputs)}


def _dim(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {"dim": recorded["dim"]}


def _axes(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {"axes": recorded["axes"]}


def _loss(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {name: recorded[name] for name in ("ignore_index", "label_smoothing", "reduction")}


def _number(recorded: Attributes) -> float:
    """The number that `full` writes: whole ones that a float cannot hold come apart."""
    number, whole = recorded["p"][0], recorded["integer"][0]
    return float(number) if recorded["dtype"].startswith("float") else whole or number


def _range(recorded: Attributes, inputs: Inputs) -> Attributes:
    """Recorded are start, step and count; the end lies half a step behind the last element."""
    start, step = recorded["p" if recorded["dtype"].startswith("float") else "integer"]
    end = start + (recorded["shape"][0] - 0.5) * step
    return {"start": start, "end": end, "step": step, "dtype": recorded["dtype"]}


def _drawn(recorded: Attributes) -> Attributes:
    return {name: recorded[name] for name in ("seed", "offset")}


def _sized(*names: str, whole: bool = False) -> Translation:
    """A source of random numbers with these parameters."""

    def translation(recorded: Attributes, inputs: Inputs) -> Attributes:
        parameters = dict(zip(names, recorded["integer" if whole else "p"], strict=False))
        return {"size": recorded["shape"], "dtype": recorded["dtype"], **parameters, **_drawn(recorded)}

    return translation


def _nothing(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {}


def _values(recorded: Attributes, inputs: Inputs) -> Attributes:
    return {"values": recorded.get("values", False)}


TRANSLATIONS: dict[str, Translation] = {
    "reshape": lambda recorded, inputs: {"shape": recorded["shape"]},
    "permute": lambda recorded, inputs: {"dims": recorded["axes"]},
    "expand": lambda recorded, inputs: {"size": recorded["shape"]},
    "slice": _slice,
    "slice_assign": _slice,
    "embed": lambda recorded, inputs: {"size": recorded["size"], **_slice(recorded, inputs)},
    "diagonal": _diagonal,
    "embed_diagonal": _embed_diagonal,
    "copy": _nothing,
    "cast": lambda recorded, inputs: {"dtype": recorded["dtype"]},
    "cat": _dim,
    "triangle": lambda recorded, inputs: {"diagonal": recorded["dim"], "upper": bool(recorded["flag"])},
    "cumsum": lambda recorded, inputs: {"dim": recorded["dim"], "reverse": bool(recorded["flag"])},
    "var": lambda recorded, inputs: {**_reduce(recorded, inputs), "correction": recorded["p"]},
    "std": lambda recorded, inputs: {**_reduce(recorded, inputs), "correction": recorded["p"]},
    "norm": lambda recorded, inputs: {**_reduce(recorded, inputs), "p": recorded["p"]},
    "take": _axes,
    "put": _axes,
    "put_add": _axes,
    "matmul": _nothing,
    "linear": _nothing,
    "addmm": lambda recorded, inputs: {"beta": recorded["p"][0], "alpha": recorded["p"][1]},
    "inverse": lambda recorded, inputs: {"lenient": recorded.get("lenient", False)},
    "solve_triangular": lambda recorded, inputs: {"upper": recorded["upper"], "unitriangular": recorded["unit"]},
    "qr": lambda recorded, inputs: {"mode": "complete" if recorded["complete"] else "reduced"},
    "pinv": lambda recorded, inputs: {"atol": recorded["atol"], "rtol": recorded["rtol"]},
    **dict.fromkeys(("eigh", "svd"), _values),
    **dict.fromkeys(("solve", "cholesky", "det", "cofactor", "slogdet"), _nothing),
    "cross_entropy": _loss,
    "cross_entropy_grad": _loss,
    "nll_loss": _loss,
    "nll_grad": lambda recorded, inputs: {**_loss(recorded, inputs), "classes": recorded["classes"]},
    "dropout": lambda recorded, inputs: {"p": recorded["p"][0]},
    "positions": lambda recorded, inputs: {"size": recorded["shape"]},
    "argsort": lambda recorded, inputs: {"dim": -1, "descending": bool(recorded["flag"])},
    "topk": lambda recorded, inputs: {"dim": -1, "k": recorded["dim"], "largest": bool(recorded["flag"])},
    "one_hot": lambda recorded, inputs: {"num_classes": recorded["dim"]},
    "full": lambda recorded, inputs: {
        "size": recorded["shape"],
        "fill_value": _number(recorded),
        "dtype": recorded["dtype"],
    },
    "arange": _range,
    "linspace": lambda recorded, inputs: {
        **dict(zip(("start", "end"), recorded["p"], strict=True)),
        "steps": recorded["shape"][0],
        "dtype": recorded["dtype"],
    },
    "eye": lambda recorded, inputs: {**dict(zip("nm", recorded["shape"], strict=True)), "dtype": recorded["dtype"]},
    "uniform": _sized("low", "high"),
    "normal": _sized("mean", "std"),
    "exponential": _sized("lambd"),
    "randint": _sized("low", "high", whole=True),
    "permutation": lambda recorded, inputs: {"n": recorded["shape"][0], **_drawn(recorded)},
    "bernoulli": _sized("p"),
    **dict.fromkeys(("sum", "mean", "prod", "amax", "amin", "prod_grad", "extreme_grad", "logsumexp"), _reduce),
    **dict.fromkeys(("argmax", "argmin", "any", "all"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax", "softmax_grad", "log_softmax_grad"), _dim),
    **dict.fromkeys(("gather", "scatter", "scatter_add", "index_select", "index_add"), _dim),
}
"""For every recorded row that is not elementwise: its attributes in PyTorch's words."""


def dropout_mask(recorded: Attributes, size: int) -> list[bool]:
    """Which elements a recorded dropout keeps: one 32-bit word each, against a bound of 2**32 (1 - p)."""
    words, bound = random_words(recorded["seed"], recorded["offset"]), int((1.0 - recorded["p"][0]) * 2.0**32 + 0.5)
    return [next(words) < bound for _ in range(size)]


def translate(name: str, inputs: Inputs, recorded: Attributes) -> Call:
    """Return the reference's op, inputs and keyword arguments for a recorded node.

    Raises
    ------
    KeyError
        If a row of the op table has no translation.
    """
    row = ROWS[name]
    if row["class"] in ("pointwise", "predicate"):
        names = parameter_names(row)
        return name, tuple(inputs), dict(zip(names, recorded.get("p", ()), strict=False))
    attributes = TRANSLATIONS[name](recorded, inputs)
    if name == "dropout":
        x = inputs[0]
        assert x is not None
        return name, (x, Array(dropout_mask(recorded, x.size), x.shape)), attributes
    return name, tuple(inputs), attributes
