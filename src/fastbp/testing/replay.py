"""A function's recorded graph, replayed in plain Python and differentiated there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import Tensor, _recorded_graph, from_numpy, get_rng_state, grad, keep_values, set_rng_state
from ..reference import OPS, Array, gradient
from .translate import Call, translate

# Relative to the largest element of a result: what float32 and float64 may lose in one op of some hundred terms.
TOLERANCES = {"float32": 1e-5, "float64": 1e-11}
GRADIENT_LOSS = 100.0  # a gradient is a chain of many ops, each with its own rounding


def to_reference(x: Tensor | np.ndarray[Any, Any]) -> Array:
    """Return a tensor's or array's elements as the reference's array."""
    array = x.detach().numpy() if isinstance(x, Tensor) else x
    return Array(array.ravel().tolist(), array.shape)


def to_numpy(x: Array, dtype: Any = np.float64) -> np.ndarray[Any, Any]:
    """Return the reference's array as NumPy's."""
    return np.array(x.values, dtype).reshape(x.shape)


@dataclass
class Node:
    """One node of a recorded graph: how the reference would say it, and what each side computed."""

    op: str
    inputs: tuple[int | None, ...]
    attributes: dict[str, Any]
    value: np.ndarray[Any, Any] | None
    replayed: Array


def check(
    fn: Callable[..., Any], *args: Any, rtol: float | None = None, gradients: bool = True, seed: int = 0
) -> list[str]:
    """Run a function, and run what it recorded once more in plain Python: values op by op, gradients as a whole.

    Parameters
    ----------
    fn : callable
        Of the arguments, to a tensor or a sequence of tensors. It is called twice, with the same random numbers: once
        to be replayed, with every value kept, and once as usual, for the gradients.
    *args
        Copies are handed on. Floating tensors are differentiated. Keep them small: the reference is thousands of times
        slower.
    rtol : float, optional
        Relative to the largest element of each result. Default: 1e-5 for float32, 1e-11 for float64.
    gradients : bool, optional
        Also compare the gradients of all floating arguments, for random cotangents. Default: True.
    seed : int, optional
        Of the random cotangents. Default: 0.

    Returns
    -------
    list of str
        Names of the ops that were compared, in their order.

    Raises
    ------
    AssertionError
        Naming the first op whose value differs, or the argument whose gradient does.
    KeyError
        If the reference lacks an op.

    Examples
    --------
    >>> x = fastbp.tensor([[1.0, 2.0]])
    >>> fastbp.testing.check(lambda x: (x.exp() * 2).sum(), x)
    ['exp', 'mul', 'sum']
    """
    state = get_rng_state()
    inputs, outputs = _run(fn, args, keep=True)
    recorded, positions = _recorded_graph(outputs)
    nodes: list[Node] = []
    for number, (op, edges, attributes, value) in enumerate(recorded):
        nodes.append(_replayed(nodes, number, op, edges, attributes, value))
        _compare_values(nodes[-1], number, rtol)
    if gradients:
        leaf_of = {n: at for n, x in enumerate(inputs) for at, node in enumerate(recorded) if node[3] is x}
        set_rng_state(state)  # the same dropout once more
        inputs, outputs = _run(fn, args, keep=False)
        _compare_gradients(nodes, outputs, positions, inputs, leaf_of, rtol, np.random.default_rng(seed))
    return [node.op for node in nodes if node.op != "leaf"]


def _run(fn: Callable[..., Any], args: Sequence[Any], keep: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Call `fn` with copies of the arguments; returns those that are differentiated, and the tensors that come out."""
    given = [from_numpy(x) if isinstance(x, np.ndarray) else x for x in args]
    copies = [x.detach().clone() if isinstance(x, Tensor) else x for x in given]
    inputs = [x.requires_grad_() for x in copies if isinstance(x, Tensor) and x.is_floating_point()]
    with keep_values() if keep else contextlib.nullcontext():
        result = fn(*copies)
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return inputs, [y for y in outputs if isinstance(y, Tensor)]


def _replayed(
    nodes: Sequence[Node], number: int, op: str, inputs: tuple[int | None, ...], attributes: Any, value: Tensor | None
) -> Node:
    """Evaluate a node from the inputs that the core itself used, so that errors of earlier ops do not count here."""
    array = None if value is None else value.detach().numpy()
    if op == "leaf":
        if array is None:
            raise RuntimeError(f"check: the value of leaf {number} is gone")
        return Node(op, (), {}, array, to_reference(array))
    if op == "custom":
        raise NotImplementedError("check: an op with rules of its own in Python cannot be replayed")
    used = [None if i is None else _input_of(nodes[i]) for i in inputs]
    name, operands, keywords = _call(op, used, attributes)
    return Node(op, inputs, attributes, array, OPS[name].forward(*operands, **keywords))


def _call(op: str, used: Sequence[Array | None], attributes: dict[str, Any]) -> Call:
    name, operands, keywords = translate(op, used, attributes)
    if name not in OPS:
        raise KeyError(f"fastbp.reference has no op {name!r}")
    return name, operands, keywords


def _input_of(node: Node) -> Array:
    return node.replayed if node.value is None else to_reference(node.value)


def _tolerance(dtype: np.dtype[Any], rtol: float | None) -> float:
    return TOLERANCES.get(dtype.name, 0.0) if rtol is None else rtol


def _differs(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any], rtol: float) -> str | None:
    """What differs by more than `rtol` of the largest finite element, in words."""
    if found.shape != wanted.shape:
        return f"shape {found.shape} where the reference has {wanted.shape}"
    finite = np.abs(wanted[np.isfinite(wanted)])
    allowed = rtol * max(1.0, float(finite.max(initial=0.0)))
    close = np.isclose(found.astype(np.float64), wanted, rtol=rtol, atol=allowed, equal_nan=True)
    if close.all():
        return None
    where = tuple(int(i) for i in np.argwhere(~close)[0])
    return f"{found[where]!r} at {where} where the reference has {wanted[where]!r}; {allowed:.3g} is allowed"


def _compare_values(node: Node, number: int, rtol: float | None) -> None:
    if node.op == "leaf" or node.value is None:
        return
    found = _differs(node.value, to_numpy(node.replayed), _tolerance(node.value.dtype, rtol))
    if found is not None:
        raise AssertionError(f"check: op {number}, {node.op} {node.attributes or ''}: {found}")


def _program(nodes: Sequence[Node]) -> tuple[list[Any], list[int]]:
    """The nodes behind the leaves as records for `fastbp.reference`, and the place of every node in its numbering.

    Inputs that an op has only there (the mask of a dropout) are constants before it.
    """
    leaves = sum(node.op == "leaf" for node in nodes)
    program: list[Any] = []
    place = list(range(leaves))
    for node in nodes[leaves:]:
        used = [None if i is None else _input_of(nodes[i]) for i in node.inputs]
        name, operands, keywords = _call(node.op, used, node.attributes)
        references = [None if i is None else place[i] for i in node.inputs]
        for extra in operands[len(references) :]:
            program.append(extra)
            references.append(leaves + len(program) - 1)
        program.append((name, tuple(references), keywords))
        place.append(leaves + len(program) - 1)
    return program, place


def _compare_gradients(
    nodes: Sequence[Node],
    outputs: Sequence[Tensor],
    positions: Sequence[int],
    inputs: Sequence[Tensor],
    leaf_of: dict[int, int],
    rtol: float | None,
    random: np.random.Generator,
) -> None:
    """Gradients of `inputs`, of which number n is node leaf_of[n], by both sides; absent ones have no influence."""
    roots = [(y, at) for y, at in zip(outputs, positions, strict=True) if y.requires_grad]
    if not roots or not inputs:
        return
    cotangents = [np.asarray(random.standard_normal(y.shape)).astype(y.dtype.name) for y, _ in roots]
    leaves = [node.replayed for node in nodes if node.op == "leaf"]
    program, place = _program(nodes)
    wanted = [np.zeros(leaf.shape) for leaf in leaves]
    for (_, at), cotangent in zip(roots, cotangents, strict=True):
        pulled = gradient(program, leaves, place[at], to_reference(cotangent))
        wanted = [total + to_numpy(g) for total, g in zip(wanted, pulled, strict=True)]
    found = grad([y for y, _ in roots], list(inputs), [from_numpy(c) for c in cotangents], allow_unused=True)
    for number, (x, g) in enumerate(zip(inputs, found, strict=True)):
        nothing = np.zeros(tuple(x.shape))
        actual = nothing if g is None else g.numpy()
        expected = wanted[leaf_of[number]] if number in leaf_of else nothing
        difference = _differs(actual, expected, GRADIENT_LOSS * _tolerance(np.dtype(x.dtype.name), rtol))
        if difference is not None:
            raise AssertionError(f"check: the gradient of differentiable argument {number}: {difference}")
