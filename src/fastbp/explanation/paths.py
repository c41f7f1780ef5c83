"""Paths from an input to the root: their number, the largest of them, and what each contributes.

All paths are counted, by adding Python's integers once over the graph. Listed are the largest: for a graph of numbers
by keeping, for every node, the best few ways to reach it from the input, which is exact and linear in the graph; for
tensors by pulling the cotangent along every path, as long as there are not too many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .graph import Edge
from .local import pull

if TYPE_CHECKING:
    from .graph import Graph
    from .local import Jacobian, Numbers

WALKED_MOST = 512  # paths of tensors that are all walked, to find the largest
KEPT_MOST = 2_000_000  # best ways kept over all nodes of a graph of numbers
JACOBIAN_MOST = 1 << 14  # elements of a path's product that is shown as a matrix
JACOBIAN_ROWS = 64  # its rows, each a sweep of its own


@dataclass(frozen=True)
class Path:
    """One path from an input to the root.

    Attributes
    ----------
    edges : list of Edge
        From the input to the root.
    factors : list of float or Jacobian
        Their local derivatives, in that order.
    product : float or numpy.ndarray or None
        Product of the factors, and of the cotangent of the root where one was given: a number; for tensors an array of
        the input's shape, or, for a root of many elements without cotangent, (elements of the root, elements of the
        input); None where that is too large.
    share : float or None
        Of the derivative, which is the sum over all paths; None where that is zero or the product is not known. For
        arrays <product, derivative> / <derivative, derivative>.
    use : int
        Which use of the input the path begins with, from 1.
    """

    graph: Graph = field(repr=False)
    steps: list[tuple[int, int]] = field(repr=False)  # (node, position) of each edge, from the root
    product: float | Numbers | None
    share: float | None
    use: int

    @property
    def edges(self) -> list[Edge]:
        return [Edge(self.graph, i, which) for i, which in reversed(self.steps)]

    @property
    def factors(self) -> list[float | Jacobian]:
        return [edge.local for edge in self.edges]

    @property
    def nodes(self) -> list[str]:
        """Names from the input to the root."""
        return [edge.source.name for edge in self.edges] + [self.graph.names[self.graph.root]]


def list_uses(graph: Graph, x: int) -> list[tuple[int, int]]:
    """(node, position) of the edges out of node x that lead to the root, in the order of recording."""
    return [(i, which) for i in dict.fromkeys(graph.consumers(x)) for which, k in graph.edges_into(i) if k == x]


def count_paths(graph: Graph, x: int) -> int:
    """The number of paths from node x to the root, exactly."""
    among = graph.reached_from([x])
    waiting = [0] * len(graph)  # edges that will still read a count
    for i in range(x + 1, len(graph)):
        if among[i]:
            for _, k in graph.edges_into(i, among):
                waiting[k] += 1
    counts: dict[int, int] = {x: 1}
    for i in range(x + 1, len(graph)):
        if not among[i]:
            continue
        total = 0
        for _, k in graph.edges_into(i, among):
            total += counts[k]
            waiting[k] -= 1
            if not waiting[k]:  # such numbers can be long: none is kept for nothing
                del counts[k]
        counts[i] = total
    return counts[graph.root]


# ---- graphs of numbers -----------------------------------------------------------------------------------------------


def largest_paths(graph: Graph, x: int, most: int) -> list[list[tuple[int, int]]]:
    """The paths from x to the root with the largest absolute products, as (node, position) from the root.

    For every node its `most` best ways from x are kept, as the logarithm of the product and where it came from.
    """
    most = max(1, min(most, KEPT_MOST // len(graph)))
    among = graph.reached_from([x])
    # Minus the logarithm of the product, position of the last edge, rank among the ways of that edge's source.
    ways: dict[int, list[tuple[float, int, int]]] = {x: [(0.0, -1, 0)]}
    for i in range(x + 1, len(graph)):
        if not among[i]:
            continue
        edges = graph.edges_into(i, among)
        own: list[tuple[float, int, int]] = []
        for which, k in edges:
            step = _cost(graph.slope(i, which) or 0.0)
            if step == 0.0:
                own += [(way[0], which, rank) for rank, way in enumerate(ways[k])]
            else:
                own += [(_sum(way[0], step), which, rank) for rank, way in enumerate(ways[k])]
        if len(edges) > 1:
            own.sort()
            del own[most:]
        ways[i] = own
    found = []
    for rank in range(len(ways[graph.root])):
        at, path = graph.root, []
        while at != x:
            _, which, rank = ways[at][rank]
            path.append((at, which))
            source = graph.inputs[at][which]
            assert source is not None
            at = source
        found.append(path)
    return found


def _cost(slope: float) -> float:
    """Minus the logarithm of a factor's size, so that small sums are large products; NaN counts as the largest."""
    size = abs(slope)
    return -math.log(size) if size > 0 else -math.inf if math.isnan(size) else math.inf


def _sum(a: float, b: float) -> float:
    """Sum of two costs, where zero times anything is zero."""
    return math.inf if math.inf in (a, b) else a + b


def product_of(graph: Graph, path: list[tuple[int, int]], seed: float) -> float:
    """The product along a path, from the root on, as a reverse sweep multiplies."""
    product = seed
    for i, which in path:
        product *= graph.slope(i, which) or 0.0
    return product


# ---- graphs of tensors -----------------------------------------------------------------------------------------------


def walk_paths(graph: Graph, x: int, most: int) -> list[list[tuple[int, int]]]:
    """The first paths from the root down to x, in the order of the ops' inputs."""
    among = graph.reached_from([x])
    found: list[list[tuple[int, int]]] = []
    path: list[tuple[int, int]] = []
    pending = [iter(graph.edges_into(graph.root, among))] if graph.root != x else []
    if not pending:
        return [[]]
    at = [graph.root]
    while pending and len(found) < most:
        step = next(pending[-1], None)
        if step is None:
            pending.pop()
            at.pop()
            if path:
                path.pop()
            continue
        which, k = step
        path.append((at[-1], which))
        if k == x:
            found.append(list(path))
            path.pop()
            continue
        at.append(k)
        pending.append(iter(graph.edges_into(k, among)))
    return found


def contribution(graph: Graph, path: list[tuple[int, int]], x: int, seeds: list[Numbers]) -> Numbers:
    """What a path contributes for each cotangent of the root, one below the other."""
    parts = []
    for seed in seeds:
        for i, which in path:
            seed = pull(graph, i, which, seed)
        parts.append(np.asarray(seed, np.float64).reshape(-1))
    return np.stack(parts)


def sum_paths(graph: Graph, x: int, seeds: list[Numbers]) -> Numbers:
    """The sum over all paths, for each cotangent: a reverse sweep."""
    found = [adjoints(graph, [x], seed).get(x) for seed in seeds]
    size = graph.size(x)
    return np.stack([np.zeros(size) if one is None else np.asarray(one, np.float64).reshape(-1) for one in found])


def adjoints(graph: Graph, starts: list[int], seed: Numbers) -> dict[int, Numbers]:
    """The cotangents of all nodes on paths from `starts` to the root."""
    among = graph.reached_from(starts)
    found: dict[int, Numbers] = {graph.root: np.asarray(seed)}
    for i in range(graph.root, -1, -1):
        if i not in found or graph.ops[i] == "leaf":
            continue
        for which, k in graph.edges_into(i, among):
            part = pull(graph, i, which, found[i])
            found[k] = found[k] + part if k in found else part
    return found
