"""A benchmark case for every op: derived from the op table for elementwise ops, written here for the others.

A case is a function of `Tools` which returns the call and the tensors it is called with. Cases are written in
PyTorch's API, so that one text serves both sides.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

Made = tuple[Callable[..., Any], list[Any]]
Row = dict[str, Any]

ELEMENTWISE = ("pointwise", "predicate")

# Rows which the host makes up for its own bookkeeping; nothing computes them.
NOT_COMPUTED = ("leaf",)

# Elementwise rows whose public name is another one, as a function over (functional module, operands).
PUBLIC_FORMS: dict[str, Callable[..., Any]] = {
    "log_sigmoid": lambda F, x: F.logsigmoid(x),
    "gelu_tanh": lambda F, x: F.gelu(x, approximate="tanh"),
    "squared_error": lambda F, x, y: F.mse_loss(x, y, reduction="none"),
    "absolute_error": lambda F, x, y: F.l1_loss(x, y, reduction="none"),
    "smooth_absolute_error": lambda F, x, y: F.smooth_l1_loss(x, y, reduction="none"),
    "huber_error": lambda F, x, y: F.huber_loss(x, y, reduction="none"),
    "binary_entropy": lambda F, x, y: F.binary_cross_entropy(x, y, reduction="none"),
    "binary_entropy_with_logits": lambda F, x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
}

# Arguments without which the public function refuses.
REQUIRED_ARGUMENTS: dict[str, dict[str, Any]] = {"clamp": {"min": -1.0, "max": 1.0}}


@dataclass
class Tools:
    """What a case needs to make its operands.

    Attributes
    ----------
    module : module
        `fastbp` or `torch`.
    side : int
        The case works on about side * side elements.
    """

    module: ModuleType
    side: int
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def functional(self) -> ModuleType:
        """The module's nn.functional."""
        return importlib.import_module(self.module.__name__ + ".nn.functional")

    def real(self, *shape: int, low: float = -1.0, high: float = 1.0) -> Any:
        """Return a float32 tensor, of shape (side, side) unless given."""
        values = self.random.uniform(low, high, shape or (self.side, self.side))
        return self.module.from_numpy(np.asarray(values, np.float32))

    def indices(self, *shape: int) -> Any:
        """Return an int64 tensor of positions below `side`."""
        return self.module.from_numpy(self.random.integers(0, self.side, shape))

    def truths(self) -> Any:
        """Return a bool tensor of shape (side, side)."""
        return self.module.from_numpy(self.random.random((self.side, self.side)) < 0.5)


def _assign(x: Any, source: Any) -> Any:
    """Put `source` into every second column of a copy's rows from the second on."""
    result = x.clone()
    result[1:, ::2] = source
    return result


def _definite(tools: Tools) -> Any:
    """Return a symmetric positive definite matrix of shape (side, side)."""
    x = tools.real()
    return (x + x.T) / 2 + tools.side * tools.module.eye(tools.side)


def _optimizer(tools: Tools, name: str, **options: Any) -> Made:
    """Return the step of an optimizer over one parameter."""
    parameter = tools.real().clone().requires_grad_()
    parameter.grad = tools.real()
    optim = importlib.import_module(tools.module.__name__ + ".optim")
    return getattr(optim, name)([parameter], **options).step, []


# The structural rows, by name.
CASES: dict[str, Callable[[Tools], Made]] = {
    # shape
    "reshape": lambda t: (lambda x: x.reshape(-1), [t.real()]),
    "permute": lambda t: (lambda x: x.permute(1, 0), [t.real()]),
    "expand": lambda t: (lambda x: x.expand(t.side, t.side), [t.real(1, t.side)]),
    "slice": lambda t: (lambda x: x[1:, ::2], [t.real()]),
    "diagonal": lambda t: (lambda x: x.diagonal(), [t.real()]),
    "slice_assign": lambda t: (_assign, [t.real(), t.real(t.side - 1, t.side // 2)]),
    "embed_diagonal": lambda t: (lambda x: t.module.diag_embed(x), [t.real(t.side)]),
    "copy": lambda t: (lambda x: x.clone(), [t.real()]),
    "cast": lambda t: (lambda x: x.to(t.module.float64), [t.real()]),
    "cat": lambda t: (lambda x, y: t.module.cat([x, y], 1), [t.real(), t.real()]),
    "triangle": lambda t: (lambda x: t.module.tril(x), [t.real()]),
    "dropout": lambda t: (lambda x: t.functional.dropout(x, 0.5), [t.real()]),
    # reductions, along the last axis but for those that differ by axis
    "sum": lambda t: (lambda x: x.sum(1), [t.real()]),
    "mean": lambda t: (lambda x: x.mean(1), [t.real()]),
    "cumsum": lambda t: (lambda x: x.cumsum(1), [t.real()]),
    "prod": lambda t: (lambda x: x.prod(1), [t.real(low=0.9, high=1.1)]),
    "amax": lambda t: (lambda x: x.amax(1), [t.real()]),
    "amin": lambda t: (lambda x: x.amin(1), [t.real()]),
    "var": lambda t: (lambda x: x.var(1), [t.real()]),
    "std": lambda t: (lambda x: x.std(1), [t.real()]),
    "norm": lambda t: (lambda x: x.norm(2, 1), [t.real()]),
    "logsumexp": lambda t: (lambda x: t.module.logsumexp(x, 1), [t.real()]),
    "softmax": lambda t: (lambda x: t.module.softmax(x, 1), [t.real()]),
    "log_softmax": lambda t: (lambda x: t.module.log_softmax(x, 1), [t.real()]),
    "argmax": lambda t: (lambda x: x.argmax(1), [t.real()]),
    "argmin": lambda t: (lambda x: x.argmin(1), [t.real()]),
    "any": lambda t: (lambda x: x.any(1), [t.truths()]),
    "all": lambda t: (lambda x: x.all(1), [t.truths()]),
    # indexing
    "gather": lambda t: (lambda x, i: x.gather(1, i), [t.real(), t.indices(t.side, t.side)]),
    "scatter_add": lambda t: (
        lambda x, i, y: x.scatter_add(1, i, y),
        [t.real(), t.indices(t.side, t.side), t.real()],
    ),
    "scatter": lambda t: (lambda x, i, y: x.scatter(1, i, y), [t.real(), t.indices(t.side, t.side), t.real()]),
    "index_select": lambda t: (lambda x, i: x.index_select(0, i), [t.real(), t.indices(t.side)]),
    "index_add": lambda t: (lambda x, i, y: x.index_add(0, i, y), [t.real(), t.indices(t.side), t.real()]),
    "take": lambda t: (lambda x, i: x[i], [t.real(), t.indices(t.side)]),
    "put": lambda t: (lambda x, i, y: x.index_put((i,), y), [t.real(), t.indices(t.side), t.real()]),
    "put_add": lambda t: (
        lambda x, i, y: x.index_put((i,), y, accumulate=True),
        [t.real(), t.indices(t.side), t.real()],
    ),
    "positions": lambda t: (lambda x, i, j: x[i, j], [t.real(), t.indices(t.side), t.indices(t.side)]),
    "one_hot": lambda t: (lambda i: t.functional.one_hot(i, t.side), [t.indices(t.side)]),
    "nonzero": lambda t: (lambda x: t.module.nonzero(x), [t.truths()]),
    "argsort": lambda t: (lambda x: t.module.argsort(x, stable=True), [t.real()]),
    "topk": lambda t: (lambda x: x.topk(t.side // 2)[1], [t.real()]),
    # products
    "matmul": lambda t: (t.module.matmul, [t.real(), t.real()]),
    "addmm": lambda t: (t.module.addmm, [t.real(), t.real(), t.real()]),
    "linear": lambda t: (t.functional.linear, [t.real(), t.real(), t.real(t.side)]),
    # factorizations: the singular and indefinite ones are kept away by the diagonal
    "inverse": lambda t: (t.module.linalg.inv, [_definite(t)]),
    "solve": lambda t: (t.module.linalg.solve, [_definite(t), t.real()]),
    "solve_triangular": lambda t: (
        lambda a, b: t.module.linalg.solve_triangular(a, b, upper=False),
        [_definite(t), t.real()],
    ),
    "cholesky": lambda t: (t.module.linalg.cholesky, [_definite(t)]),
    "qr": lambda t: (t.module.linalg.qr, [t.real()]),
    "eigh": lambda t: (t.module.linalg.eigh, [_definite(t)]),
    "svd": lambda t: (lambda x: t.module.linalg.svd(x, full_matrices=False), [t.real()]),
    "pinv": lambda t: (t.module.linalg.pinv, [t.real()]),
    "det": lambda t: (t.module.linalg.det, [t.real()]),
    "slogdet": lambda t: (t.module.linalg.slogdet, [t.real()]),
    # losses over classes
    "cross_entropy": lambda t: (t.functional.cross_entropy, [t.real(), t.indices(t.side)]),
    "nll_loss": lambda t: (t.functional.nll_loss, [t.real(), t.indices(t.side)]),
    # sources
    "full": lambda t: (lambda: t.module.full((t.side, t.side), 1.5), []),
    "arange": lambda t: (lambda: t.module.arange(t.side * t.side), []),
    "linspace": lambda t: (lambda: t.module.linspace(0, 1, t.side * t.side), []),
    "eye": lambda t: (lambda: t.module.eye(t.side), []),
    "uniform": lambda t: (lambda: t.module.rand(t.side, t.side), []),
    "normal": lambda t: (lambda: t.module.randn(t.side, t.side), []),
    "randint": lambda t: (lambda: t.module.randint(0, 100, (t.side, t.side)), []),
    "permutation": lambda t: (lambda: t.module.randperm(t.side * t.side), []),
    "bernoulli": lambda t: (lambda p: t.module.bernoulli(p), [t.real(low=0.0)]),
    "exponential": lambda t: (t.real().exponential_, []),
    # updates
    "sgd": lambda t: _optimizer(t, "SGD", lr=1e-3, momentum=0.9),
    "adam": lambda t: _optimizer(t, "Adam", lr=1e-3),
}

# Rows without a public name that work in the backward pass of another row: its case, differentiated, is theirs.
BACKWARD_OF = {
    "cofactor": "det",
    "embed": "slice",
    "prod_grad": "prod",
    "extreme_grad": "amax",
    "softmax_grad": "softmax",
    "log_softmax_grad": "log_softmax",
    "nll_grad": "nll_loss",
    "cross_entropy_grad": "cross_entropy",
}


def public_function(module: ModuleType, name: str) -> Callable[..., Any] | None:
    """Return the function users call for an elementwise row, None where the module has none."""
    functional = importlib.import_module(module.__name__ + ".nn.functional")
    if name in PUBLIC_FORMS:
        form = PUBLIC_FORMS[name]
        return lambda *operands: form(functional, *operands)
    found = getattr(module, name, None) or getattr(functional, name, None)
    if found is None:
        return None
    arguments = REQUIRED_ARGUMENTS.get(name)
    return (lambda *operands: found(*operands, **arguments)) if arguments else found


def make_elementwise(tools: Tools, row: Row) -> Made | None:
    """Return the call and operands of an elementwise row, drawn from its own domain."""
    function = public_function(tools.module, row["name"])
    if function is None:
        return None
    low, high = row["domain"] if row.get("domain") else (-1.0, 1.0)
    if low == high:
        low, high = -1.0, 1.0
    count = row["arity"]
    if row.get("kind") == "I":
        return function, [tools.indices(tools.side, tools.side) for _ in range(count)]
    operands = [tools.real(low=low, high=high) for _ in range(count)]
    if row["name"] == "where":
        operands[0] = tools.truths()
    return function, operands


def make(tools: Tools, row: Row) -> Made | None:
    """Return the case of a row, None where this module has no such function."""
    if row["class"] in ELEMENTWISE:
        return make_elementwise(tools, row)
    name: str = row["name"]
    return CASES[BACKWARD_OF.get(name, name)](tools)


def complaints(module: ModuleType, table: list[Row]) -> list[str]:
    """Return one sentence per op without a case and per case without an op; empty when table and cases agree."""
    found = []
    names = {row["name"] for row in table}
    for row in table:
        if row["class"] in NOT_COMPUTED:
            continue
        if row["class"] in ELEMENTWISE:
            if public_function(module, row["name"]) is None:
                found.append(f"{row['name']}: no public function; name its form in PUBLIC_FORMS")
        elif row["name"] not in CASES and row["name"] not in BACKWARD_OF:
            found.append(f"{row['name']}: no benchmark case; write one in CASES")
    known = {*CASES, *BACKWARD_OF, *PUBLIC_FORMS, *REQUIRED_ARGUMENTS}
    return found + [f"{name}: a benchmark case without an op" for name in sorted(known - names)]
