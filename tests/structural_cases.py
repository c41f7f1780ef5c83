"""The cases of rows that are not elementwise, by hand: one list for forward, gradient and thread tests.

Each says how the row is called from Python and, independently, what the reference is called with: an argument that gets
lost or turned round between the two shows as a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from cases import ALL, FLOATS, NUMBERS, Array, Case, Index, Matrix, Real, Truth, moved, row, summed

import fastbp
import fastbp.nn.functional as F
from fastbp import _core
from fastbp.testing.translate import dropout_mask

# Tables: aligned by hand.
# fmt: off

def _shapes() -> Iterator[Case]:
    x = Real((3, 4, 5))
    yield moved("reshape", lambda x: x.reshape(4, -1), x, attributes={"shape": (4, 15)})
    yield moved("reshape", lambda x: x.reshape(()), Real((1, 1)), attributes={"shape": ()})
    yield moved("reshape", lambda x: x.transpose(0, 2).reshape(6, 10), Real((5, 4, 3)), attributes={"shape": (6, 10)},
                inputs=lambda a: [a[0].transpose(2, 1, 0)])
    yield moved("permute", lambda x: x.permute(2, 0, 1), x, attributes={"dims": (2, 0, 1)})
    yield moved("permute", lambda x: x.transpose(-1, 0), x, attributes={"dims": (2, 1, 0)})
    yield moved("expand", lambda x: x.expand(2, -1, 4), Real((3, 1)), attributes={"size": (2, 3, 4)})
    part = {"start": (1, 0, 4), "step": (1, 2, 1), "count": (2, 2, 1), "dropped": (2,)}
    yield moved("slice", lambda x: x[1:, ::2, -1], x, attributes=part)
    yield moved("slice", lambda x: x[:, 3:1], x, attributes={"start": (None, 3), "stop": (None, 1)})
    yield moved("diagonal", lambda x: x.diagonal(), Real((4, 4)))
    yield moved("diagonal", lambda x: fastbp.diagonal(x, 1, 0, 2), x, attributes={"offset": 1, "dim1": 0, "dim2": 2})
    yield moved("diagonal", lambda x: fastbp.diagonal(x, -2, -1, 0), x,
                attributes={"offset": -2, "dim1": -1, "dim2": 0})
    yield moved("embed", row("embed", size=(3, 4, 5), **part), Real((2, 2)), attributes={"size": (3, 4, 5), **part})
    yield moved("slice_assign", row("slice_assign", start=(1, 0), step=(1, 2), count=(2, 3), size=(3, 6)), Real((3, 6)),
                Real((2, 3)), attributes={"start": (1, 0), "step": (1, 2), "count": (2, 3)})
    yield moved("embed_diagonal", lambda x: fastbp.diag_embed(x, 1), Real((2, 3)),
                attributes={"size": (2, 4, 4), "offset": 1, "dim1": 1, "dim2": 2})
    yield moved("embed_diagonal", lambda x: fastbp.diag_embed(x, -1, 0, 2), Real((2, 3)),
                attributes={"size": (4, 2, 4), "offset": -1, "dim1": 0, "dim2": 2})
    yield moved("copy", lambda x: x.clone(), x)
    yield moved("cast", lambda x: x.to(fastbp.float64), x, attributes={"dtype": "float64"}, result="float64",
                dtypes=("float32", "int64", "int32", "uint8", "bool"))
    yield moved("cast", lambda x: x.to(fastbp.float32), x, attributes={"dtype": "float32"}, result="float32",
                dtypes=("float64", "int64", "int32", "uint8", "bool"), smooth=False)  # its derivative is a float32
    for name in ("int64", "int32", "uint8", "bool"):
        yield moved("cast", lambda x, to=name: x.to(getattr(fastbp, to)), Real((3, 4, 5), 0.0, 200.0),
                    attributes={"dtype": name}, result=name, smooth=False,
                    dtypes=tuple(d for d in NUMBERS if d != name))
    for dim in (0, -1):
        yield moved("cat", lambda *parts, dim=dim: fastbp.cat(parts, dim), *[Real((3, 3))] * 3, attributes={"dim": dim})
    yield moved("cat", lambda x, y: fastbp.cat((x, y), 1), Real((2, 0, 3)), Real((2, 4, 3)), attributes={"dim": 1})
    for k in (-1, 0, 2):
        lower, upper = ({"diagonal": k, "upper": side} for side in (False, True))
        yield moved("triangle", lambda x, k=k: fastbp.tril(x, k), Real((2, 3, 4)), attributes=lower)
        yield moved("triangle", lambda x, k=k: fastbp.triu(x, k), Real((4, 3)), attributes=upper)


REDUCED = [
    (None, False, (3, 4, 5)), (0, False, (3, 70)), (1, True, (3, 70)), ((0, 2), False, (3, 4, 5)),
    ((1, -1), True, (3, 4, 5)), (-1, False, ()), (1, False, (2, 1, 3)),
]


def _reductions() -> Iterator[Case]:
    for dim, keepdim, shape in REDUCED:
        words = {"dim": dim, "keepdim": keepdim}

        def reduced(name: str, dim: Any = dim, keepdim: bool = keepdim, **rest: Any) -> Callable[..., Any]:
            return lambda x: getattr(fastbp, name)(x, dim=dim, keepdim=keepdim, **rest)

        yield summed("sum", reduced("sum"), Real(shape), attributes=words)
        yield moved("sum", reduced("sum"), Real(shape), attributes=words, dtypes=("int64", "int32", "uint8", "bool"),
                    result="int64", bound_reason="whole numbers are added exactly", smooth=False)
        yield summed("mean", reduced("mean"), Real(shape), attributes=words)
        yield summed("prod", reduced("prod"), Real(shape, 0.8, 1.25), attributes=words, bound=64.0,
                     reason="each of up to 70 products rounds")
        for name in ("amax", "amin"):
            # Far enough apart that finite differences do not change which is the largest.
            yield moved(name, reduced(name), Real(shape, -20.0, 20.0, distinct=True), attributes=words)
        if math.prod(shape) > 6:
            for name in ("var", "std"):
                # Wide, as the derivatives of std grow where the elements of a fibre are close together.
                yield summed(name, reduced(name, correction=0.5), Real(shape, -20.0, 20.0), bound=64.0,
                             reason="squares of the numbers", attributes={**words, "correction": 0.5})
        for p in (2.0, 1.0, 3.0, 0.5, math.inf, -math.inf, 0.0):
            # |x|**(p-1) is steep near 0 for p < 2, and counting is flat.
            yield summed("norm", reduced("norm", p=p), Real(shape, 1.0, 10.0, distinct=True),
                         attributes={**words, "p": p}, bound=64.0,
                         reason="roots and powers beside the sum; for p = 1/2 the sum's square")
        if dim is not None:
            yield summed("logsumexp", reduced("logsumexp"), Real(shape), attributes=words)
        for name in ("any", "all"):
            yield moved(name, reduced(name), Real(shape), attributes=words, result="bool", smooth=False)
        if not isinstance(dim, tuple):
            for name in ("argmax", "argmin"):
                yield moved(name, reduced(name), Real(shape), attributes=words, result="int64", smooth=False,
                            dtypes=NUMBERS)
    yield moved("prod", lambda x: x.prod(1), Real((3, 4)), dtypes=("int64", "int32"), result="int64",
                attributes={"dim": 1}, smooth=False)


def _along() -> Iterator[Case]:
    for dim, shape in ((0, (4, 70)), (-1, (3, 70)), (1, (2, 5, 3)), (0, ()), (-1, (7, 1))):
        words = {"dim": dim}
        wrapped = dim % max(len(shape), 1)
        x = Real(shape)
        yield summed("cumsum", lambda x, d=dim: fastbp.cumsum(x, d), x, attributes=words, bound=32.0)
        yield summed("cumsum", row("cumsum", dim=wrapped, flag=1), x, attributes={**words, "reverse": True}, bound=32.0)
        yield moved("cumsum", lambda x, d=dim: fastbp.cumsum(x, d), x, attributes=words, result="int64", smooth=False,
                    dtypes=("int64", "int32", "uint8", "bool"))
        yield summed("softmax", lambda x, d=dim: fastbp.softmax(x, d), x, attributes=words)
        yield summed("log_softmax", lambda x, d=dim: fastbp.log_softmax(x, d), x, attributes=words)
        yield summed("softmax_grad", row("softmax_grad", dim=wrapped), x, Real(shape, 0.0, 1.0), attributes=words,
                     bound=64.0)
        yield summed("log_softmax_grad", row("log_softmax_grad", dim=wrapped), x, Real(shape, -2.0, 0.0),
                     attributes=words, bound=64.0)
    for dims, keepdim, small in (((1,), False, (3,)), ((0,), True, (1, 5)), ((0, 1), False, ())):
        words = {"dim": dims, "keepdim": keepdim}
        yield summed("prod_grad", row("prod_grad", dims=dims, keepdim=keepdim), Real(small), Real((3, 5), 0.5, 1.5),
                     attributes=words, bound=64.0, reason="each of up to 15 products rounds")
        yield summed("extreme_grad", row("extreme_grad", dims=dims, keepdim=keepdim), Real(small), Real(small),
                     Real((3, 5)), attributes=words, inputs=_tied(dims, keepdim), smooth=False)


def _tied(dims: tuple[int, ...], keepdim: bool) -> Callable[[list[Array]], list[Any]]:
    """The second operand must be the third's extremum, or nothing would be tied: write it in place."""

    def arrange(arrays: list[Array]) -> list[Any]:
        arrays[2][...] = np.round(arrays[2])
        arrays[1][...] = arrays[2].max(dims, keepdims=keepdim)
        return arrays

    return arrange


def _indexing() -> Iterator[Case]:
    x = Real((4, 6))
    for dim in (0, 1):
        index = Index((3, 5), 4 if dim == 0 else 6)
        unique = Index((3, 5), 4 if dim == 0 else 6, distinct=dim)
        yield moved("gather", lambda x, i, d=dim: x.gather(d, i), x, index, attributes={"dim": dim})
        yield summed("scatter_add", lambda x, i, s, d=dim: x.scatter_add(d, i, s), x, index, Real((3, 6)),
                     attributes={"dim": dim}, dtypes=(*FLOATS, "int64"))
        # Which of several writes to one place wins is not promised, so no index repeats.
        yield moved("scatter", lambda x, i, s, d=dim: x.scatter(d, i, s), x, unique, Real((3, 6)),
                    attributes={"dim": dim})
        lines = Index((5,), 4 if dim == 0 else 6)
        source = Real((5, 6) if dim == 0 else (4, 5))
        yield moved("index_select", lambda x, i, d=dim: x.index_select(d, i), x, lines, attributes={"dim": dim})
        yield summed("index_add", lambda x, i, s, d=dim: x.index_add(d, i, s), x, lines, source,
                     attributes={"dim": dim}, dtypes=(*FLOATS, "int64"))
    yield moved("gather", lambda x, i: x.gather(0, i), Real(()), Index((), 1), attributes={"dim": 0})
    yield moved("take", lambda x, i: x[i], x, Index((2, 3), 4), attributes={"axes": 1})
    yield moved("take", row("take", axes=2, shape=(3, 4, 5)), Real((3, 4, 5)), Index((7,), 12), attributes={"axes": 2})
    yield moved("put", row("put", axes=1, shape=(6, 3)), Real((6, 3)), Index((4,), 6, distinct=0), Real((4, 3)),
                attributes={"axes": 1})
    yield summed("put_add", row("put_add", axes=1, shape=(4, 3)), Real((4, 3)), Index((7,), 4), Real((7, 3)),
                 attributes={"axes": 1}, dtypes=(*FLOATS, "int64"))
    yield moved("positions", row("positions", shape=(4, 6)), Index((3, 2), 4, low=-4), Index((3, 2), 6, low=-6),
                attributes={"size": (4, 6)}, result="int64", smooth=False, dtypes=("float32",))
    yield moved("nonzero", fastbp.nonzero, Truth((4, 5)), result="int64", smooth=False, dtypes=("float32",))
    yield moved("nonzero", fastbp.nonzero, Truth((70,)), result="int64", smooth=False, dtypes=("float32",))
    for shape in ((3, 40), (7,), ()):
        for descending in (False, True):
            yield moved("argsort", lambda x, d=descending: fastbp.argsort(x, -1, d, stable=True), Real(shape),
                        result="int64", smooth=False, attributes={"dim": -1, "descending": descending})
    for largest in (False, True):
        yield moved("topk", lambda x, how=largest: fastbp.topk(x, 5, -1, how).indices, Real((3, 40), distinct=True),
                    result="int64", smooth=False, attributes={"k": 5, "dim": -1, "largest": largest}, inputs=None)
    yield moved("one_hot", lambda i: _core.one_hot(i, 7), Index((3, 4), 7), attributes={"num_classes": 7},
                result="int64", smooth=False, dtypes=("float32",))


PRODUCTS = [((3, 4), (4, 5)), ((17, 33), (33, 19)), ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 3)), ((2, 3, 4), (4, 5)),
            ((2, 1, 3, 4), (3, 4, 2)), ((1, 70), (70, 1)), ((3, 0), (0, 2))]


def _products() -> Iterator[Case]:
    for a, b in PRODUCTS:
        yield summed("matmul", fastbp.matmul, Real(a), Real(b), bound=64.0)
    yield moved("matmul", fastbp.matmul, Real((3, 4)), Real((4, 5)), dtypes=("int64", "int32"), smooth=False)
    for beta, alpha, shape in ((1.0, 1.0, (5,)), (0.5, -2.0, (3, 5)), (0.0, 1.0, (1, 5)), (1.0, 1.0, ())):
        yield summed("addmm", lambda x, a, b, beta=beta, alpha=alpha: fastbp.addmm(x, a, b, beta=beta, alpha=alpha),
                     Real(shape), Real((3, 4)), Real((4, 5)), attributes={"beta": beta, "alpha": alpha}, bound=32.0)
    for shape in ((4,), (3, 4), (2, 3, 4)):
        yield summed("linear", F.linear, Real(shape), Real((5, 4)), Real((5,)), bound=32.0)
        yield summed("linear", F.linear, Real(shape), Real((5, 4)), bound=32.0)


def _factorizations() -> Iterator[Case]:
    linalg = fastbp.linalg

    def factored(op: str, call: Callable[..., Any], *operands: Any, **rest: Any) -> Case:
        # The first operand is a batch: a test repeats its first element along that axis.
        return summed(op, call, *operands, bound=256.0, reason="LAPACK's backward errors, of some units times the 4 "
                      "rows, are enlarged by conditions up to 2.5 and by gaps down to 1/2 between values", **rest)

    square, tall, wide = Matrix((3, 4, 4)), Matrix((3, 4, 3)), Matrix((2, 2, 4))
    symmetric = Matrix((3, 4, 4), symmetric=True)
    yield factored("inverse", linalg.inv, square)
    yield factored("inverse", row("inverse", lenient=1), square, attributes={"lenient": True})
    for right in ((3, 4, 2), (4, 2), (2, 1, 4, 1)):
        yield factored("solve", linalg.solve, square, Real(right))
        yield factored("solve_triangular", lambda a, b: linalg.solve_triangular(a, b, upper=True, unitriangular=True),
                       square, Real(right), attributes={"upper": True, "unitriangular": True})
    for upper in (False, True):
        yield factored("solve_triangular", lambda a, b, upper=upper: linalg.solve_triangular(a, b, upper=upper),
                       Matrix((3, 4, 4), symmetric=True), Real((3, 4, 2)),
                       attributes={"upper": upper, "unitriangular": False})
    yield factored("cholesky", linalg.cholesky, symmetric)
    for shape in (square, tall, wide):
        yield factored("qr", row("qr"), shape, attributes={"mode": "reduced"})
        yield factored("svd", row("svd"), shape, attributes={"values": False})
        yield factored("svd", row("svd", values=1), shape, attributes={"values": True})
        yield factored("pinv", lambda a: _core._factorize("pinv", a, rtol=1e-5), shape, attributes={"rtol": 1e-5})
    yield factored("qr", lambda a: row("qr", complete=1)(a.detach()), tall, attributes={"mode": "complete"},
                   smooth=False)  # the further columns of a tall matrix's Q have no derivative
    yield factored("eigh", row("eigh"), symmetric, attributes={"values": False})
    yield factored("eigh", row("eigh", values=1), symmetric, attributes={"values": True})
    yield factored("det", linalg.det, square)
    yield factored("cofactor", row("cofactor"), square)
    yield factored("slogdet", row("slogdet"), square)


def _losses() -> Iterator[Case]:
    for x, t in (((4, 5), (4,)), ((5,), ()), ((2, 3, 4), (2, 4))):
        classes = x[1] if len(x) > 1 else x[0]
        for reduction in ("mean", "sum", "none"):
            words = {"reduction": reduction}
            smoothed = {**words, "label_smoothing": 0.1, "ignore_index": 1}
            small = t if reduction == "none" else ()
            logits, target, weight = Real(x), Index(t, classes), Real((classes,), 0.5, 1.5, constant=True)
            if len(x) == 1:
                smoothed.pop("ignore_index")  # the only sample ignored would be 0 / 0
            yield summed("cross_entropy", lambda x, y, w=words: F.cross_entropy(x, y, **w), logits, target,
                         attributes=words)
            yield summed("cross_entropy", lambda x, y, w=smoothed: F.cross_entropy(x, y, **w), logits, target,
                         attributes=smoothed)
            yield summed("cross_entropy", lambda x, y, v, w=smoothed: F.cross_entropy(x, y, v, **w), logits, target,
                         weight, attributes=smoothed)
            yield summed("nll_loss", lambda x, y, w=words: F.nll_loss(x, y, **w), logits, target, attributes=words)
            yield summed("nll_loss", lambda x, y, v, w=words: F.nll_loss(x, y, v, **w), logits, target, weight,
                         attributes=words)
            yield summed("nll_grad", row("nll_grad", classes=classes, **words), Real(small), target,
                         attributes={"classes": classes, **words})
            yield summed("nll_grad", row("nll_grad", classes=classes, **smoothed), Real(small), target, weight,
                         attributes={"classes": classes, **smoothed})
            yield summed("cross_entropy_grad", row("cross_entropy_grad", **smoothed), Real(small), logits, target,
                         attributes=smoothed, bound=32.0)


def _sources() -> Iterator[Case]:
    def source(
        name: str, words: dict[str, Any], dtypes: Sequence[str], attributes: dict[str, Any], **rest: Any
    ) -> Iterator[Case]:
        for dtype in dtypes:
            yield Case(name, row(name, dtype=dtype, **words), (), {**attributes, "dtype": dtype}, ("float32",),
                       result=dtype, smooth=False, **rest)

    size = (3, 37)
    draws = {"seed": 2**40 + 7, "offset": 5}
    random = {"shape": size, **draws}
    named = {"size": size, **draws}
    yield from source("full", {"shape": (3, 4), "p": (2.5,)}, FLOATS, {"size": (3, 4), "fill_value": 2.5})
    yield from source("full", {"shape": (70,), "p": (7,), "integer": (7,)}, ALL, {"size": (70,), "fill_value": 7})
    yield from source("arange", {"shape": (70,), "p": (-1.5, 0.25)}, FLOATS, {"start": -1.5, "end": 16.0, "step": 0.25})
    yield from source("arange", {"shape": (70,), "integer": (3, 2)}, ("int64", "int32"),
                      {"start": 3, "end": 143, "step": 2})
    yield from source("linspace", {"shape": (71,), "p": (-1.0, 3.0)}, FLOATS, {"start": -1.0, "end": 3.0, "steps": 71},
                      bound=1.0, bound_reason="a product and a sum round")
    yield from source("linspace", {"shape": (1,), "p": (-1.0, 3.0)}, FLOATS, {"start": -1.0, "end": 3.0, "steps": 1})
    yield from source("eye", {"shape": (5, 7)}, ALL, {"n": 5, "m": 7})
    yield from source("uniform", {**random, "p": (-1.0, 3.0)}, FLOATS, {**named, "low": -1.0, "high": 3.0})
    yield from source("normal", {**random, "p": (1.0, 2.0)}, FLOATS, {**named, "mean": 1.0, "std": 2.0}, bound=16.0,
                      bound_reason="logarithm, root and sine of the kernel's own, of numbers up to 6")
    yield from source("exponential", {**random, "p": (1.5,)}, FLOATS, {**named, "lambd": 1.5}, bound=8.0,
                      bound_reason="the uniform number is rounded to float32 before its logarithm")
    yield from source("randint", {**random, "integer": (-5, 11)}, ("int64", "int32", "float32"),
                      {**named, "low": -5, "high": 11})
    yield Case("permutation", row("permutation", shape=(101,), dtype="int64", **draws), (), {"n": 101, **draws},
               ("float32",), result="int64", smooth=False)
    yield from source("bernoulli", {**random, "p": (0.3,)}, ("bool", "float32", "int64"), {**named, "p": 0.3})
    dropped = {"shape": (), "p": (0.4,), **draws}
    yield summed("dropout", row("dropout", **dropped), Real(size), attributes={"p": 0.4}, bound=1.0,
                 reason="the scale 1 / (1 - p) rounds",
                 inputs=lambda a: [a[0], np.array(dropout_mask(dropped, a[0].size)).reshape(a[0].shape)])


STRUCTURAL: list[Case] = [
    *_shapes(), *_reductions(), *_along(), *_indexing(), *_products(), *_factorizations(), *_losses(), *_sources(),
]
"""Cases of every row that is not elementwise; optimizer updates are tested as optimizers (tests/test_optim.py)."""

# fmt: on

# Rows that are not applied to tensors one by one, and the test file that has their cases instead.
ELSEWHERE = {"sgd": "tests/test_optim.py", "adam": "tests/test_optim.py"}
