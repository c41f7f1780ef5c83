"""Local derivatives of edges: Jacobians, with their structure found and named instead of written out.

Nothing here knows a derivative. A structure is found by pulling cotangents through the one edge, by the op table's own
rule, and, for linear ops, by applying the op itself to numbered elements; a random vector then confirms it. Only
products have their structure told by what they are (a product with W is W on each row), since they are too large to be
probed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import tensor
from .graph import ROWS

if TYPE_CHECKING:
    from .._core import Tensor
    from .graph import Graph

Numbers = np.ndarray[Any, Any]

DENSE_MOST = 1 << 24  # elements of a Jacobian that is written out on request
SEARCHED_MOST = 1 << 14  # elements of one that is written out to look for its structure
PULLS_MOST = 256  # rows, each of which costs a pull, that are taken for that
PROBED_MOST = 1 << 22  # elements that a linear op is probed with
SHOWN_MOST = 6  # numbers in a description

PRODUCTS = ("matmul", "linear", "addmm")


@dataclass(frozen=True)
class Jacobian:
    """A local derivative with its structure.

    Attributes
    ----------
    kind : str
        "zero", "identity", "scaled identity", "diagonal", "permutation", "selection", "broadcast", "sum", "kronecker",
        "block diagonal", "row", "column" or "dense".
    rows, columns : int
        Elements of the output, and of the input.
    text : str
        The structure in few words, with its numbers where they are few.
    multiplications : int
        What a product with a vector costs.
    """

    kind: str
    rows: int
    columns: int
    text: str
    multiplications: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.rows, self.columns

    @property
    def short(self) -> str:
        """The structure without numbers and sizes: what stands in a product."""
        return re.sub(r" ?\([^)]*\)", "", self.text)

    def __str__(self) -> str:
        return self.text


def few(numbers: Numbers) -> str:
    """Numbers in parentheses, the first of them where they are many."""
    flat = numbers.ravel()
    shown = ", ".join(f"{x:.4g}" for x in flat[:SHOWN_MOST])
    return f"({shown}{', ...' if flat.size > SHOWN_MOST else ''})"


def pull(graph: Graph, i: int, which: int, cotangent: Numbers, fit: bool = True) -> Numbers:
    """What a cotangent of node i contributes to its input, as an array; zeros where the rule has nothing."""
    graph.make_usable(i)
    given = tensor(np.asarray(cotangent, graph.dtypes[i]).reshape(graph.shapes[i]))
    part = graph.record.pull(i, which, given, fit)
    source = graph.inputs[i][which]
    assert source is not None
    found: Numbers = np.zeros(graph.shapes[source]) if part is None else part.detach().numpy()
    return found


def dense_jacobian(graph: Graph, i: int, which: int) -> Numbers:
    """All rows of an edge's Jacobian, each from one pull."""
    source = graph.inputs[i][which]
    assert source is not None
    rows, columns = graph.size(i), graph.size(source)
    if rows * columns > DENSE_MOST:
        raise ValueError(
            f"jacobian: the edge into {graph.ops[i]} has {rows} x {columns} numbers, more than 2**24; "
            "look at its structure, `edge.local`"
        )
    found = np.empty((rows, columns), graph.dtypes[i])
    unit = np.zeros(rows, graph.dtypes[i])
    for row in range(rows):
        unit[row] = 1
        found[row] = pull(graph, i, which, unit).reshape(-1)
        unit[row] = 0
    return found


def find_structure(graph: Graph, i: int, which: int) -> Jacobian:
    """The structure of the edge into input `which` of node i."""
    source = graph.inputs[i][which]
    assert source is not None
    rows, columns = graph.size(i), graph.size(source)
    if rows == 0 or columns == 0:
        return Jacobian("zero", rows, columns, f"0 ({rows} x {columns})", 0)
    kind = ROWS[graph.ops[i]]["class"] if graph.ops[i] in ROWS else "general"
    found = None
    if kind == "pointwise":
        found = _of_pointwise(graph, i, which, rows, columns)
    elif graph.ops[i] in PRODUCTS:
        found = _of_product(graph, i, which, rows, columns)
    elif kind == "linear":
        found = _of_linear(graph, i, which, source, rows, columns)
    return found or _of_any(graph, i, which, rows, columns)


# ---- matrices with one entry a row, or one a column ------------------------------------------------------------------


def _diagonal(entries: Numbers, free: bool) -> Jacobian:
    """A diagonal matrix, or what it is more simply; `free`: the rule multiplies by nothing."""
    n = entries.size
    first = float(entries[0])
    if not entries.any():
        return Jacobian("zero", n, n, f"0 ({n} x {n})", 0)
    if (entries == first).all():
        if first == 1.0:
            return Jacobian("identity", n, n, f"I{n}", 0 if free else n)
        text = f"-I{n}" if first == -1.0 else f"{first:.4g} I{n}"
        return Jacobian("scaled identity", n, n, text, 0 if free and first == -1.0 else n)
    return Jacobian("diagonal", n, n, f"diag{few(entries)}", n)


def _of_pointwise(graph: Graph, i: int, which: int, rows: int, columns: int) -> Jacobian:
    raw = pull(graph, i, which, np.ones(rows), fit=False)
    entries = np.broadcast_to(raw, graph.shapes[i]).reshape(-1)
    free = which < 3 and ROWS[graph.ops[i]]["needs"][which] == 0
    square = _diagonal(entries, free)
    if rows == columns or square.kind == "zero":
        zero = Jacobian("zero", rows, columns, f"0 ({rows} x {columns})", 0)
        return zero if square.kind == "zero" else square
    if columns == 1:
        text = f"column of {rows} ones" if square.kind == "identity" else f"column {few(entries)}"
        return Jacobian("broadcast" if square.kind == "identity" else "column", rows, 1, text, square.multiplications)
    spread = f"broadcast ({rows} x {columns})"
    text = spread if square.kind == "identity" else f"{square.text} * {spread}"
    return Jacobian("broadcast", rows, columns, text, square.multiplications)


def _from_rows(index: Numbers, weights: Numbers, columns: int) -> Jacobian:
    """A matrix whose row r has its one entry, weights[r], in column index[r], or none where that is -1."""
    rows = index.size
    used = index[index >= 0]
    if used.size == 0:
        return Jacobian("zero", rows, columns, f"0 ({rows} x {columns})", 0)
    if rows == columns and used.size == rows and (index == np.arange(rows)).all():
        return _diagonal(weights, True)
    if rows == columns and (used == np.flatnonzero(index >= 0)).all():
        return _diagonal(np.where(index >= 0, weights, 0.0), True)
    plain = bool((weights[index >= 0] == 1.0).all())
    cost = 0 if plain else used.size
    scale = "" if plain else f"diag{few(weights)} * "
    if columns == 1 and used.size == rows:
        return Jacobian("broadcast", rows, 1, f"{scale}column of {rows} ones", cost)
    different = np.unique(used).size
    if different < used.size and different == columns:
        return Jacobian("broadcast", rows, columns, f"{scale}broadcast ({rows} x {columns})", cost)
    if different < used.size:
        text = f"selection of {rows} of {columns}, some repeated"
        return Jacobian("selection", rows, columns, f"{scale}{text}", cost)
    if used.size == rows == columns:
        return Jacobian("permutation", rows, columns, f"{scale}permutation of {rows}", cost)
    text = f"selection of {rows} of {columns}" if used.size == rows else f"{columns} placed among {rows}"
    if used.size < min(rows, columns):
        text = f"selection ({rows} x {columns}, {used.size} ones)"
    return Jacobian("selection", rows, columns, f"{scale}{text}", cost)


def _from_columns(index: Numbers, weights: Numbers, rows: int) -> Jacobian:
    """A matrix whose column c has its one entry, weights[c], in row index[c]."""
    columns = index.size
    first = float(weights[0])
    even = bool((weights == first).all())
    if rows == 1:
        text = f"row of {columns} ones" if even and first == 1.0 else f"row of {columns} x {first:.4g}"
        if not even:
            return Jacobian("row", 1, columns, f"row {few(weights)}", columns)
        return Jacobian("sum", 1, columns, text, 0 if first == 1.0 else 1)
    scale = "" if even and first == 1.0 else f"{first:.4g} * " if even else f"diag{few(weights)} * "
    cost = 0 if not scale else rows if even else columns
    return Jacobian("sum", rows, columns, f"{scale}sum ({rows} x {columns})", cost)


def _single(numbered: Numbers, ones: Numbers, size: int) -> tuple[Numbers, Numbers] | None:
    """Places and weights, from what a map makes of 1, 2, 3, ... and of ones; None when they are not whole numbers."""
    numbered, ones = numbered.reshape(-1).astype(np.float64), ones.reshape(-1).astype(np.float64)
    with np.errstate(all="ignore"):
        places = np.where(ones != 0, numbered / ones, 0.0)
    index = np.rint(places)
    if not (np.abs(places - index) < 0.25).all() or (index < 0).any() or (index > size).any():
        return None
    return index.astype(np.int64) - 1, ones


def _of_linear(graph: Graph, i: int, which: int, source: int, rows: int, columns: int) -> Jacobian | None:
    if max(rows, columns) > PROBED_MOST:
        return Jacobian("dense", rows, columns, f"{graph.ops[i]} ({rows} x {columns}, not written out)", columns)
    check = np.random.default_rng(0)
    pushed = _push(graph, i, which, source)
    if pushed is not None:
        numbered, ones = pushed(np.arange(1.0, columns + 1)), pushed(np.ones(columns))
        found = _single(numbered, ones, columns)
        vector = check.standard_normal(columns)
        if found is not None:
            index, weights = found
            expected = np.where(index >= 0, vector[index] * weights, 0.0)
            if np.allclose(pushed(vector).reshape(-1), expected, rtol=1e-5, atol=1e-6):
                return _from_rows(index, weights, columns)
    numbered, ones = pull(graph, i, which, np.arange(1.0, rows + 1)), pull(graph, i, which, np.ones(rows))
    found = _single(numbered, ones, rows)
    vector = check.standard_normal(rows)
    if found is not None and (found[0] >= 0).all():
        index, weights = found
        if np.allclose(pull(graph, i, which, vector).reshape(-1), vector[index] * weights, rtol=1e-5, atol=1e-6):
            return _from_columns(index, weights, rows)
    return None


def _push(graph: Graph, i: int, which: int, source: int) -> Any:
    """The linear op itself, with the other floating inputs zero; None where it needs a value that was not kept."""
    others: list[Tensor | None] = []
    for k in graph.inputs[i]:
        if k is None:
            others.append(None)
        elif graph.dtypes[k].startswith("float"):
            others.append(tensor(np.zeros(graph.shapes[k])))
        else:
            value = graph.value(k)
            if value is None:
                return None
            others.append(value)

    def push(elements: Numbers) -> Numbers:
        others[which] = tensor(elements.reshape(graph.shapes[source]))
        result: Numbers = graph.record.apply(i, others).numpy()
        return result

    return push


# ---- products --------------------------------------------------------------------------------------------------------


def _of_product(graph: Graph, i: int, which: int, rows: int, columns: int) -> Jacobian | None:
    """A product with a matrix: the same matrix for every row, or column, of the other operand."""
    op, shapes = graph.ops[i], [() if k is None else graph.shapes[k] for k in graph.inputs[i]]
    names = ["" if k is None else graph.names[k] or graph.ops[k] for k in graph.inputs[i]]
    first = 1 if op == "addmm" else 0  # addmm(input, a, b), linear(a, weight, bias), matmul(a, b)
    if which not in (first, first + 1):
        return _of_summand(graph, i, which, rows, columns)
    left, right = shapes[first], shapes[first + 1]
    other = names[first + 1 if which == first else first]
    cost = rows * left[-1]
    scale = ""
    if op == "addmm" and (alpha := graph.record.attributes(i)["p"][1]) != 1.0:
        scale = f"{alpha:.4g} * "
    if len(left) > 2 or len(right) > 2:
        blocks = math.prod(graph.shapes[i][:-2])
        if op == "matmul":
            return Jacobian("block diagonal", rows, columns, f"{blocks} blocks of products with {other}", cost)
    if which == first:
        times = rows // (right[0] if op == "linear" else right[1] if len(right) > 1 else 1)
        matrix = other if op == "linear" or len(right) == 1 else f"{other}ᵀ"
        if len(left) == 1 or times == 1:
            return Jacobian("dense", rows, columns, f"{scale}{matrix} ({rows} x {columns})", cost)
        return Jacobian("kronecker", rows, columns, f"{scale}I{times} ⊗ {matrix} ({rows} x {columns})", cost)
    times = right[0] if op == "linear" else right[1] if len(right) > 1 else 1
    if times == 1 and len(right) == 1:
        return Jacobian("dense", rows, columns, f"{scale}{other} ({rows} x {columns})", cost)
    text = f"I{times} ⊗ {other}" if op == "linear" else f"{other} ⊗ I{times}"
    return Jacobian("kronecker", rows, columns, f"{scale}{text} ({rows} x {columns})", cost)


def _of_summand(graph: Graph, i: int, which: int, rows: int, columns: int) -> Jacobian:
    """The bias of a product: repeated along the batch."""
    beta = graph.record.attributes(i)["p"][0] if graph.ops[i] == "addmm" else 1.0
    if beta == 0.0:
        return Jacobian("zero", rows, columns, f"0 ({rows} x {columns})", 0)
    scale = "" if beta == 1.0 else f"{beta:.4g} * "
    cost = rows if scale else 0
    if rows == columns:
        return Jacobian("scaled identity" if scale else "identity", rows, columns, f"{scale}I{rows}", cost)
    return Jacobian("broadcast", rows, columns, f"{scale}broadcast ({rows} x {columns})", cost)


# ---- any op ----------------------------------------------------------------------------------------------------------


def _of_any(graph: Graph, i: int, which: int, rows: int, columns: int) -> Jacobian:
    """From the Jacobian written out, where that is small; a single row always is."""
    if rows > 1 and (rows * columns > SEARCHED_MOST or rows > PULLS_MOST):
        return Jacobian("dense", rows, columns, f"dense ({rows} x {columns}, not written out)", rows * columns)
    matrix = dense_jacobian(graph, i, which)
    if not matrix.any():
        return Jacobian("zero", rows, columns, f"0 ({rows} x {columns})", 0)
    if rows == 1:
        return Jacobian("row", 1, columns, f"row {few(matrix)}", columns)
    if columns == 1:
        return Jacobian("column", rows, 1, f"column {few(matrix)}", rows)
    if rows == columns and np.count_nonzero(matrix - np.diag(np.diag(matrix))) == 0:
        return _diagonal(np.diag(matrix), False)
    blocks = _blocks(matrix)
    if blocks > 1:
        height, width = rows // blocks, columns // blocks
        text = f"{blocks} diagonal blocks of {height} x {width}"
        return Jacobian("block diagonal", rows, columns, text, height * width * blocks)
    text = f"dense {rows} x {columns}"
    if matrix.size <= SHOWN_MOST:
        text = "[" + "; ".join(", ".join(f"{x:.4g}" for x in row) for row in matrix) + "]"
    return Jacobian("dense", rows, columns, text, rows * columns)


def _blocks(matrix: Numbers) -> int:
    """The largest number of equal blocks on the diagonal outside of which all is zero."""
    rows, columns = matrix.shape
    for blocks in range(math.gcd(rows, columns), 1, -1):
        if rows % blocks or columns % blocks:
            continue
        cells = np.abs(matrix).reshape(blocks, rows // blocks, blocks, columns // blocks).sum(axis=(1, 3))
        if np.count_nonzero(cells - np.diag(np.diag(cells))) == 0:
            return blocks
    return 1
