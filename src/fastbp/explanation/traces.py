"""Forward mode and reverse mode, step by step, with what they cost.

The tables are those of Baydin, Pearlmutter, Radul & Siskind (2018), tables 2 and 3: beside the values, forward mode
computes the derivative of every node by one input; reverse mode, last node first, that of the root by every node.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .graph import Graph
    from .local import Numbers

INPUTS_MOST = 64  # inputs whose forward sweeps are priced


@dataclass(frozen=True)
class TraceRow:
    """One step of a trace.

    Attributes
    ----------
    name : str
        Of the node.
    derivative : str
        What is computed: "dv1/dx" or "dy/dv1".
    terms : list of (float or str, float or str)
        The sum's products: local derivative, and derivative of the neighbour; numbers, or, for tensors, their names.
    value : float or numpy.ndarray
    """

    name: str
    derivative: str
    terms: list[tuple[object, object]]
    value: float | Numbers


@dataclass(frozen=True)
class Trace:
    """A sweep in order.

    Attributes
    ----------
    mode : str
        "forward" or "reverse".
    by : str
        Name of the input, or of the root.
    rows : list of TraceRow
    steps : int
        Of the whole sweep, of which `rows` may be the beginning.
    multiplications : int
        What the sweep costs beside the values; sums of local derivatives 1 and -1 cost none.
    """

    mode: str
    by: str
    rows: list[TraceRow]
    steps: int
    multiplications: int

    def __str__(self) -> str:
        from .text import trace_text

        return "\n".join(trace_text(self))


def tangents(graph: Graph, x: int) -> dict[int, float]:
    """Derivatives of the nodes by node x, in a graph of numbers."""
    among = graph.reached_from([x])
    found = {x: 1.0}
    for i in range(x + 1, len(graph)):
        if among[i]:
            found[i] = 0.0
            for which, k in graph.edges_into(i, among):
                found[i] += (graph.slope(i, which) or 0.0) * found[k]
    return found


def number_adjoints(graph: Graph, seed: float) -> dict[int, float]:
    """Derivatives of the root by the nodes, in a graph of numbers: contributions add up last consumer first."""
    found = {graph.root: seed}
    for i in range(graph.root, -1, -1):
        if i not in found or graph.ops[i] == "leaf":
            continue
        own = found[i]
        for which, k in graph.edges_into(i):
            part = own * (graph.slope(i, which) or 0.0)
            found[k] = found[k] + part if k in found else part
    return found


def forward_trace(graph: Graph, x: int, most: int | None = None) -> Trace:
    """The forward-mode trace of a graph of numbers, by node x; its first rows where `most` are asked for."""
    found, among, by = tangents(graph, x), graph.reached_from([x]), graph.names[x]
    rows = []
    for i in itertools.islice(found, most):
        edges = graph.edges_into(i, among) if i != x else []
        terms: list[tuple[object, object]] = [(graph.slope(i, which), found[k]) for which, k in edges]
        rows.append(TraceRow(graph.names[i], f"d{graph.names[i]}/d{by}", terms, found[i]))
    costs = graph.edge_costs()
    total = sum(costs[i][n] for i in found if i != x for n, edge in enumerate(graph.edges_into(i)) if among[edge[1]])
    return Trace("forward", by, rows, len(found), total)


def reverse_trace(graph: Graph, found: dict[int, float] | dict[int, Numbers], most: int | None = None) -> Trace:
    """The reverse-mode trace, or its first rows; `found` are the adjoints."""
    root, rows = graph.names[graph.root], []
    order = sorted(found, reverse=True)
    for i in order[:most]:
        terms: list[tuple[object, object]] = []
        for at in sorted(set(graph.consumers(i)), reverse=True) if i != graph.root else ():
            for which, k in graph.edges_into(at):
                if k == i:
                    slope = graph.slope(at, which)
                    number = slope is not None and np.ndim(found[at]) == 0
                    own = found[at] if number else f"d{root}/d{graph.names[at]}"
                    terms.append((own, slope if slope is not None else graph.local(at, which).short))
        rows.append(TraceRow(graph.names[i], f"d{root}/d{graph.names[i]}", terms, found[i]))
    return Trace("reverse", root, rows, len(order), sum(map(sum, graph.edge_costs())))


@dataclass(frozen=True)
class Costs:
    """What derivatives of the root cost, in multiplications beside the values.

    Attributes
    ----------
    forward : dict of str to int
        Forward sweeps, by input (the first 64): one for each of its elements.
    reverse : int
        Reverse sweeps for all inputs at once: one for each element of the root.
    sweeps : (int, int)
        Number of forward sweeps for all inputs, and of reverse sweeps.
    """

    forward: dict[str, int]
    reverse: int
    sweeps: tuple[int, int]


def count_costs(graph: Graph, seeds: int) -> Costs:
    """Costs of both modes; every node passes on a set of the inputs that reach it, as bits."""
    place = {x: n for n, x in enumerate(graph.wrt[:INPUTS_MOST])}
    waiting = [0] * len(graph)
    for i, on in enumerate(graph.on_path):
        if on:
            for _, k in graph.edges_into(i):
                waiting[k] += 1
    reaching: dict[int, int] = {}
    reverse, prices = 0, graph.edge_costs()
    forward = [0] * len(place)
    groups: dict[int, int] = {}  # set of inputs -> multiplications done for all of them
    for i, on in enumerate(graph.on_path):
        if not on:
            continue
        mask = 1 << place[i] if i in place else 0
        for (_, k), cost in zip(graph.edges_into(i), prices[i], strict=True):
            reverse += cost
            groups[reaching[k]] = groups.get(reaching[k], 0) + cost
            mask |= reaching[k]
            waiting[k] -= 1
            if not waiting[k]:
                del reaching[k]
        reaching[i] = mask
    for mask, cost in groups.items():
        while mask:
            low = mask & -mask
            forward[low.bit_length() - 1] += cost
            mask ^= low
    sizes = [graph.size(x) for x in graph.wrt]
    each = {graph.names[x]: forward[n] * sizes[n] for x, n in place.items()}
    return Costs(each, reverse * seeds, (sum(sizes), seeds))
