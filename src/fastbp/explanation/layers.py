"""A fully connected net layer by layer: the classical recursion of errors, beside what the graph's sweep gives.

    delta_L = dC/dz_L                               at the last layer, from the loss
    delta_l = (delta_(l+1) W_(l+1)) * f'(z_l)       the step back through W, then the activation
    dC/dW_l = delta_l^T a_(l-1)                     an outer product, summed over the batch
    dC/db_l = sum of delta_l over the batch

z = a W^T + b is a layer's sum, a = f(z) its activation (Rumelhart, Hinton & Williams 1986).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        Ops between the layer's sum z and the next layer, or the root; up to where several ways lead on.
    after : str
        That layer, or the root; "" where several ways lead on.
    delta : numpy.ndarray
        dC/dz, (batch, outputs).
    input : numpy.ndarray
        The activations that came in, (batch, inputs).
    back : numpy.ndarray
        The step back, delta times W: dC by the activations that came in.
    is_first : bool
        Whether it is of no use, since what came in is not differentiated by.
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
    after: str
    delta: Numbers
    input: Numbers
    back: Numbers
    is_first: bool
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
    names = {place.product: graph.names[place.weight].removesuffix(".weight") for place in places}
    layers = [_layer_of(graph, place, found, names) for place in places]
    known = [(place, layer) for place, layer in zip(places, layers, strict=True) if layer is not None]
    return [replace(layer, difference=_difference(graph, place, known, found)) for place, layer in known]


def _layer_of(graph: Graph, place: _Place, found: dict[int, Numbers], names: dict[int, str]) -> Layer | None:
    """One layer by the formulas of the recursion; None where the values that they read were not kept."""
    value, weight = graph.value(place.input), graph.value(place.weight)
    if value is None or weight is None:
        return None
    a, W = value.numpy().astype(np.float64), weight.numpy().astype(np.float64)
    delta = np.asarray(found[place.total], np.float64)
    flat_a, flat = (a.T, delta.T) if place.first and a.ndim == 2 else (a, delta)
    flat_a, flat = np.atleast_2d(flat_a), np.atleast_2d(flat)
    flat_a, flat = flat_a.reshape(-1, flat_a.shape[-1]), flat.reshape(-1, flat.shape[-1])
    outward = W if place.transposed or place.first else W.T  # (outputs, inputs)
    back, outer = flat @ outward, flat.T @ flat_a
    activation, after = _way_on(graph, place.total, names)
    return Layer(
        name=names[place.product],
        weight=graph.names[place.weight],
        bias="" if place.bias is None else graph.names[place.bias],
        inputs=outward.shape[1],
        outputs=outward.shape[0],
        activation=activation,
        after=after,
        delta=delta,
        input=a,
        back=back.T.reshape(a.shape) if place.first else back.reshape(a.shape),
        is_first=place.input not in found,
        weight_gradient=outer if place.transposed or place.first else outer.T,
        bias_gradient=None if place.bias is None else flat.sum(axis=0),
        difference=0.0,
    )


def _difference(
    graph: Graph, place: _Place, known: list[tuple[_Place, Layer]], found: dict[int, Numbers]
) -> float:
    """How far the formulas are from the graph's sweep; shared weights and biases are summed over all of their layers.

    What is read elsewhere too has a derivative that the layers do not make up alone: it is left out.
    """
    pairs: list[tuple[Numbers, Numbers]] = []
    own = next(layer for other, layer in known if other is place)
    if place.input in found and len(graph.consumers(place.input)) == 1:
        pairs.append((own.back, found[place.input]))
    shared = [layer for other, layer in known if other.weight == place.weight]
    if len(graph.consumers(place.weight)) == len(shared):
        pairs.append((np.sum([layer.weight_gradient for layer in shared], axis=0), found[place.weight]))
    biased = [layer.bias_gradient for other, layer in known if other.bias == place.bias]
    if place.bias is not None and len(graph.consumers(place.bias)) == len(biased):
        pairs.append((np.sum([one for one in biased if one is not None], axis=0), found[place.bias]))
    return max((_distance(one, other) for one, other in pairs), default=0.0)


def _distance(one: Numbers, other: Numbers) -> float:
    scale = max(float(np.abs(other).max(initial=0.0)), 1e-300)
    return float(np.abs(one.reshape(-1) - np.asarray(other, np.float64).reshape(-1)).max(initial=0.0)) / scale


def _is_weight(graph: Graph, i: int | None, found: dict[int, Numbers]) -> bool:
    return i is not None and i in found and graph.ops[i] == "leaf" and len(graph.shapes[i]) == 2


def _untransposed(graph: Graph, i: int) -> int | None:
    """The matrix of which node i is the transpose, if it is one."""
    if graph.ops[i] != "permute" or list(graph.record.attributes(i)["axes"]) != [1, 0]:
        return None
    return graph.inputs[i][0]


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
    behind = _untransposed(graph, right)
    turned = _is_weight(graph, behind, found)
    if turned and behind is not None:  # x @ W.T
        right = behind
    second, first = turned or _is_weight(graph, right, found), _is_weight(graph, left, found)
    if not (first or second) or (first and not second and len(graph.shapes[right]) > 2):
        return None
    weight, a = (right, left) if second else (left, right)
    total, bias = i, None
    after = graph.consumers(i)
    if len(after) == 1 and graph.ops[after[0]] == "add":
        others = [k for k in graph.inputs[after[0]] if k is not None and k != i]
        if second and len(others) == 1 and _is_bias(graph, others[0], i, found):
            total, bias = after[0], others[0]
    return _Place(i, total, weight, a, bias, turned, not second)


def _way_on(graph: Graph, i: int, names: dict[int, str]) -> tuple[tuple[str, ...], str]:
    """Ops from a layer's sum on while there is one way, and where it ends: the name of a layer or the root, or ""."""
    ops: list[str] = []
    while i != graph.root:
        after = set(graph.consumers(i))
        if len(after) != 1:
            return tuple(ops), ""
        i = after.pop()
        if i in names:
            return tuple(ops), names[i]
        ops.append(graph.ops[i])
    return tuple(ops), graph.names[graph.root]
