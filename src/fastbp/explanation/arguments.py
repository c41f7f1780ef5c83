"""How the arguments of `fastbp.explain` are read, and nodes named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._core import Tensor
from .explained import Explanation, no_collection
from .graph import Graph, record_of

if TYPE_CHECKING:
    from typing import Any

    from ..nn import Module
    from .local import Numbers


def _as_tensor(x: object, what: str) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"explain: {what} must be a Tensor, got {type(x).__name__}")
    return x


def read_names(names: object, model: Module | None) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """(name, tensor) pairs that were given one by one, and those of a model's parameters."""
    from ..nn import Module

    modules = [one for one in (names, model) if one is not None and isinstance(one, Module)]
    if model is not None and not isinstance(model, Module):
        raise TypeError(f"explain: model must be a Module, got {type(model).__name__}")
    of_models: list[tuple[str, Tensor]] = [pair for one in modules for pair in one.named_parameters()]
    if names is None or isinstance(names, Module):
        return [], of_models
    if not isinstance(names, Mapping):
        raise TypeError(f"explain: names must be a dict or a Module, got {type(names).__name__}")
    pairs = []
    for key, value in names.items():
        name, x = (value, key) if isinstance(key, Tensor) else (key, value)
        if not isinstance(name, str) or not name:
            raise TypeError(f"explain: names maps strings to Tensors, or Tensors to strings, got {name!r}")
        pairs.append((name, _as_tensor(x, f"names[{name!r}]")))
    return pairs, of_models


def read_wrt(wrt: object) -> list[tuple[str, Tensor]] | None:
    """(name or "", tensor) pairs; None where all leaves are meant."""
    if wrt is None:
        return None
    if isinstance(wrt, Tensor):
        return [("", wrt)]
    if isinstance(wrt, Mapping):
        pairs = [(str(name), _as_tensor(x, f"wrt[{name!r}]")) for name, x in wrt.items()]
    elif isinstance(wrt, Sequence) and not isinstance(wrt, str):
        pairs = [("", _as_tensor(x, f"wrt[{n}]")) for n, x in enumerate(wrt)]
    else:
        raise TypeError(f"explain: wrt must be a Tensor, or a list or dict of Tensors, got {type(wrt).__name__}")
    if not pairs:
        raise ValueError("explain: wrt is empty; leave it out to explain by all leaves that require grad")
    return pairs


def make_explanation(*given: Any) -> Explanation:
    """What `fastbp.explain` does."""
    with no_collection():
        return _make(*given)


def _make(
    y: object, wrt: object, names: object, max_paths: int, grad_output: object, model: Module | None
) -> Explanation:
    y = _as_tensor(y, "y")
    if isinstance(max_paths, bool) or not isinstance(max_paths, int) or max_paths < 1:
        raise ValueError(f"explain: max_paths must be a positive integer, got {max_paths!r}")
    if not y.requires_grad or y.is_leaf:
        raise RuntimeError(
            f"explain: y, of shape {tuple(y.shape)}, does not require grad and does not have a grad_fn: no graph was "
            "recorded. Make an input with requires_grad=True, outside of no_grad(); a compiled function that runs "
            "backward() itself returns plain values"
        )
    chosen = read_wrt(wrt)
    given, of_models = read_names(names, model)
    asked = [x for _, x in chosen or []] + [x for _, x in given] + [x for _, x in of_models]
    record, root, stand_ins = record_of(y, asked)
    by_id = {id(x): record.find(other) for x, other in zip(asked, stand_ins, strict=True)}
    for n, (name, x) in enumerate(chosen or []):
        if by_id[id(x)] < 0 or not x.requires_grad:
            why = "is not in the graph of y" if x.requires_grad else "does not require grad"
            raise RuntimeError(
                f"explain: wrt[{name or n!r}], of shape {tuple(x.shape)}, {why}; pass a tensor with requires_grad=True "
                "that y was computed from"
            )
    for name, x in given:
        if by_id[id(x)] < 0:
            raise ValueError(f"explain: names: {name!r}, of shape {tuple(x.shape)}, is not in the graph of y")
    if chosen is None:
        ops, _, _, _, required = record.facts()
        places = [i for i, op in enumerate(ops) if op == "leaf" and required[i]]
    else:
        places = list(dict.fromkeys(by_id[id(x)] for _, x in chosen))
    graph = Graph(record, record.find(root), places)
    seed = _read_cotangent(grad_output, graph)
    known = [(name, by_id[id(x)]) for name, x in of_models if by_id[id(x)] >= 0]
    known += [(name, by_id[id(x)]) for name, x in [*given, *(chosen or [])] if name]
    name_nodes(graph, known)
    tensors = {by_id[id(x)]: x for _, x in chosen or []}
    return Explanation(graph, {graph.names[i]: tensors.get(i) for i in places}, max_paths, seed)


def _read_cotangent(given: object, graph: Graph) -> Numbers | None:
    if given is None:
        return None
    shape = graph.shapes[graph.root]
    array = np.asarray(given.detach().numpy() if isinstance(given, Tensor) else given, np.float64)
    if array.shape != tuple(shape):
        raise RuntimeError(f"explain: grad_output has shape {array.shape}, y has shape {tuple(shape)}")
    return array


def name_nodes(graph: Graph, known: list[tuple[str, int]]) -> None:
    """Name every node: as asked, then inputs x1, x2, ..., intermediate results v1, v2, ..., the root y."""
    taken: dict[str, int] = {}
    for name, i in known:
        if taken.setdefault(name, i) != i:
            raise ValueError(f"explain: two tensors are called {name!r}")
        graph.names[i] = name
    if not graph.names[graph.root]:
        graph.names[graph.root] = next(name for name in ("y", "out", "root", "root_") if name not in taken)
        taken[graph.names[graph.root]] = graph.root
    numbers, inputs = {"x": 0, "v": 0, "c": 0}, set(graph.wrt)
    for i, op in enumerate(graph.ops):
        if graph.names[i]:
            continue
        kind = "x" if i in inputs else "v" if graph.on_path[i] and op != "leaf" else "c"
        if kind == "x" and len(graph.wrt) == 1 and "x" not in taken:
            graph.names[i] = "x"
            continue
        while True:
            numbers[kind] += 1
            name = f"{kind}{numbers[kind]}"
            if name not in taken:
                break
        graph.names[i] = name
