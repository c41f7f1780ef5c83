"""A fully connected net layer by layer: the classical recursion of errors, beside what the graph's sweep gives.

    delta_L = dC/dz_L                               at the last layer, from the loss
    delta_l = (delta_(l+1) W_(l+1)) * f'(z_l)       the step back through W, then the activation
    dC/dW_l = delta_l^T a_(l-1)                     an outer product, summed over the batch
    dC/db_l = sum of delta_l over the batch

z = a W^T + b is a layer's sum, a = f(z) its activation (Rumelhart, Hinton & Williams 1986).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .graph import Graph
    from .local import Numbers


@dataclass(frozen=True)
class Layer:
    """One layer's part of the recursion; arrays are float64.

    Attributes
    ----------
    name, weight, bias : str
        Bias is "" where there is none.
    inputs, outputs : int
        Sizes.
    activation : tuple of str
        Ops between the layer's sum z and the next layer, or the root.
    delta : numpy.ndarray
        dC/dz, (batch, outputs).
    input : numpy.ndarray
        The activations that came in, (batch, inputs).
    back : numpy.ndarray
        The step back, delta times W: dC by the activations that came in.
    weight_gradient, bias_gradient : numpy.ndarray
        The outer product, in the weight's shape, and the sum of delta over the batch.
    difference : float
        Largest difference between these three, computed by the recursion's formulas, and the graph's own sweep,
        relative to the largest number of each.
    """

    name: str
    weight: str
    bias: str
    inputs: int
    outputs: int
    activation: tuple[str, ...]
    delta: Numbers
    input: Numbers
    back: Numbers
    weight_gradient: Numbers
    bias_gradient: Numbers | None
    difference: float


@dataclass(frozen=True)
class _Place:
    """Where a layer is in the graph: node numbers."""

    product: int
    total: int  # the sum z: the product, or the addition of a bias to it
    weight: int
    input: int
    bias: int | None
    transposed: bool  # W is (outputs, inputs)
    first: bool  # W stands to the left of its input


def find_layers(graph: Graph, found: dict[int, Numbers]) -> list[Layer]:
    """The layers behind the root, first to last; `found` are the adjoints of all nodes on paths."""
    places = [place for i in sorted(found) if (place := _place_of(graph, i, found)) is not None]
    layers: list[Layer] = []
    sums: dict[int, Numbers] = {}
    for place in places:
        value, weight = graph.value(place.input), graph.value(place.weight)
        if value is None or weight is None:
            continue
        a, W = value.numpy().astype(np.float64), weight.numpy().astype(np.float64)
        delta = np.asarray(found[place.total], np.float64)
        flat_a, flat = (a.T, delta.T) if place.first and a.ndim == 2 else (a, delta)
        flat_a, flat = np.atleast_2d(flat_a), np.atleast_2d(flat)
        flat_a, flat = flat_a.reshape(-1, flat_a.shape[-1]), flat.reshape(-1, flat.shape[-1])
        outward = W if place.transposed or place.first else W.T  # (outputs, inputs)
        back, outer = flat @ outward, flat.T @ flat_a
        outer = outer if place.transposed or place.first else outer.T
        sums[place.weight] = sums.get(place.weight, 0) + outer
        bias = None if place.bias is None else flat.sum(axis=0)
        given = found.get(place.input)
        back = back.T.reshape(a.shape) if place.first else back.reshape(a.shape)
        pairs = [(back, given if _used_once(graph, place.input) else None), (sums[place.weight], found[place.weight])]
        if bias is not None and place.bias is not None and _used_once(graph, place.bias):
            pairs.append((bias, found.get(place.bias)))
        if not _used_once(graph, place.weight):
            pairs.pop(1)
        name = graph.names[place.weight]
        layers.append(
            Layer(
                name=name.removesuffix(".weight"),
                weight=name,
                bias="" if place.bias is None else graph.names[place.bias],
                inputs=outward.shape[1],
                outputs=outward.shape[0],
                activation=_activation(graph, place.total, {p.product for p in places}),
                delta=delta,
                input=a,
                back=back,
                weight_gradient=outer,
                bias_gradient=bias,
                difference=max((_distance(one, other) for one, other in pairs if other is not None), default=0.0),
            )
        )
    return layers


def _distance(one: Numbers, other: Numbers) -> float:
    scale = max(float(np.abs(other).max(initial=0.0)), 1e-300)
    return float(np.abs(one.reshape(-1) - np.asarray(other, np.float64).reshape(-1)).max(initial=0.0)) / scale


def _used_once(graph: Graph, i: int) -> bool:
    return len(graph.consumers(i)) == 1


def _is_weight(graph: Graph, i: int | None, found: dict[int, Numbers]) -> bool:
    return i is not None and i in found and graph.ops[i] == "leaf" and len(graph.shapes[i]) == 2


def _is_bias(graph: Graph, i: int, product: int, found: dict[int, Numbers]) -> bool:
    return i in found and graph.ops[i] == "leaf" and graph.shapes[i] == graph.shapes[product][-1:]


def _place_of(graph: Graph, i: int, found: dict[int, Numbers]) -> _Place | None:
    """The layer whose product is node i, if it is one."""
    op, inputs = graph.ops[i], graph.inputs[i]
    if op == "linear" and _is_weight(graph, inputs[1], found):
        a, weight, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
        assert a is not None and weight is not None
        return _Place(i, i, weight, a, bias if bias in found else None, True, False)
    if op != "matmul":
        return None
    left, right = inputs
    assert left is not None and right is not None
    second, first = _is_weight(graph, right, found), _is_weight(graph, left, found)
    if not (first or second) or (first and not second and len(graph.shapes[right]) > 2):
        return None
    weight, a = (right, left) if second else (left, right)
    total, bias = i, None
    after = graph.consumers(i)
    if len(after) == 1 and graph.ops[after[0]] == "add":
        others = [k for k in graph.inputs[after[0]] if k is not None and k != i]
        if second and len(others) == 1 and _is_bias(graph, others[0], i, found):
            total, bias = after[0], others[0]
    return _Place(i, total, weight, a, bias, False, not second)


def _activation(graph: Graph, i: int, products: set[int]) -> tuple[str, ...]:
    """Ops from a layer's sum to the next layer or the root, as long as there is one way."""
    ops = []
    while i != graph.root:
        after = set(graph.consumers(i))
        if len(after) != 1:
            break
        i = after.pop()
        if i in products:
            break
        ops.append(graph.ops[i])
    return tuple(ops)
