"""Groups of columns that one pass can serve together, found greedily in time linear in the entries.

`colour_columns`: no two columns of a colour have a row in common (Curtis, Powell & Reid 1974; as a colouring of the
column intersection graph, Coleman & More 1983). That graph is never built: each row keeps the set of its colours as
the bits of an integer, so a full row costs no more than its length.

`colour_symmetric`: a star colouring of the graph whose edges are the off-diagonal entries (Coleman & More 1984;
Gebremedhin, Manne & Pothen 2005): neighbours differ, and no path of four vertices has two colours only.
Then each entry stands alone in one of the two products that could hold it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .sets import Array, Sets

Greedy = Callable[[Iterable[int]], list[int]]

MOST_EDGES = 2**20
"""Up to here orders beyond the first are tried: they take some tenths of a second."""


def colour_columns(pattern: Sets) -> Array:
    """Colours of columns such that those of one colour have no row in common.

    Parameters
    ----------
    pattern : scipy.sparse.csr_array
        Only where entries are matters.

    Returns
    -------
    array of int64, one a column
        From 0, each in use. Columns without entries have -1: no pass is spent on them.
    """
    lengths = np.diff(pattern.indptr)
    least = int(lengths.max(initial=0))
    columns = pattern.tocsc()
    used = np.diff(columns.indptr) > 0
    if least == used.sum():  # a full row: all columns differ
        return np.where(used, np.cumsum(used) - 1, -1)
    indptr, rows = columns.indptr.tolist(), columns.indices.tolist()
    count = pattern.shape[0]

    def greedy(order: Iterable[int]) -> list[int]:
        taken = [0] * count  # of each row: bit c is set if a column of colour c has an entry in it
        colours = [-1] * (len(indptr) - 1)
        for column in order:
            touched = rows[indptr[column] : indptr[column + 1]]
            forbidden = 0
            for row in touched:
                forbidden |= taken[row]
            free = ~forbidden & (forbidden + 1)  # the lowest bit that is not set
            colours[column] = free.bit_length() - 1
            for row in touched:
                taken[row] |= free
        return colours

    def intersections() -> Any:
        return (columns.astype(np.int32).T @ columns.astype(np.int32)).tocsr()

    # The degree in the intersection graph, where neighbours over several rows count as often.
    degree = columns.astype(np.int64).T @ np.maximum(lengths - 1, 0)
    return _fewest(greedy, np.flatnonzero(used), np.asarray(degree), least, intersections)


def colour_symmetric(pattern: Sets) -> Array:
    """Colours of variables such that a symmetric matrix is read off directly: a star colouring.

    Parameters
    ----------
    pattern : scipy.sparse.csr_array
        Symmetric. Only where entries are matters.

    Returns
    -------
    array of int64, one a variable
        As `colour_columns`.
    """
    used = np.diff(pattern.indptr) > 0
    neighbours = _neighbours(pattern)
    count = len(neighbours)

    def greedy(order: Iterable[int]) -> list[int]:
        colours = [-1] * count
        near = [0] * count  # colours of a vertex's neighbours, as bits
        hubs = [0] * count  # colours of those neighbours that have another neighbour of the vertex's colour
        spokes: list[dict[int, int]] = [{} for _ in range(count)]  # colour -> the one neighbour of it, -1: several
        for v in order:
            # A two-coloured path of four that v would close begins at v (hubs), or has v within (near).
            forbidden = near[v]
            for w in neighbours[v]:
                forbidden |= hubs[w]
            if -1 in spokes[v].values():
                several = {c for c, w in spokes[v].items() if w < 0}
                for w in neighbours[v]:
                    if colours[w] in several:
                        forbidden |= near[w]
            bit = ~forbidden & (forbidden + 1)
            colour = colours[v] = bit.bit_length() - 1
            for w in neighbours[v]:
                near[w] |= bit
                first = spokes[w].setdefault(colour, v)
                if first == v:
                    continue
                spokes[w][colour] = -1
                if colours[w] >= 0:  # w is the hub of a star whose spokes have this colour
                    hubs[v] |= 1 << colours[w]
                    if first >= 0:
                        hubs[first] |= 1 << colours[w]
            if -1 in spokes[v].values():  # v is one, now that it has a colour itself
                several = {c for c, w in spokes[v].items() if w < 0}
                for w in neighbours[v]:
                    if colours[w] in several:
                        hubs[w] |= bit
        return colours

    degree = np.array([len(w) for w in neighbours], np.int64)
    stars = all(degree[v] < 2 or all(degree[w] < 2 for w in neighbours[v]) for v in range(count))
    least = 1 + bool(degree.any()) if stars else 3
    return _fewest(greedy, np.flatnonzero(used), degree, least, lambda: pattern)


def _neighbours(pattern: Sets) -> list[list[int]]:
    """Of each vertex of a symmetric pattern, itself left out."""
    entries = pattern.tocoo()
    off = entries.row != entries.col
    ends = np.cumsum(np.bincount(entries.row[off], minlength=pattern.shape[0])).tolist()
    columns = entries.col[off].tolist()
    return [columns[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def _fewest(greedy: Greedy, used: Array, degree: Array, least: int, graph: Callable[[], Any]) -> Array:
    """The best of three orders, tried while an eighth may be gained: as they come (bands want it), largest degree
    first (Welsh & Powell 1967), and by incidence, which takes the longest."""

    def by_degree() -> list[int]:
        return list(used[np.argsort(-degree[used], kind="stable")].tolist())

    best = np.array(greedy(used.tolist()), np.int64)
    for order in (by_degree, lambda: _by_incidence(graph(), used.tolist())):
        if max(best.tolist(), default=-1) + 1 <= least + least // 8 or degree.sum() > MOST_EDGES:
            break
        best = min(best, np.array(greedy(order()), np.int64), key=lambda colours: max(colours.tolist()))
    return best


def _by_incidence(graph: Any, used: list[int]) -> list[int]:
    """Next is always a vertex with most neighbours before it (Coleman & More 1983)."""
    indptr, indices, degrees = graph.indptr.tolist(), graph.indices.tolist(), np.diff(graph.indptr).tolist()
    before = [0] * len(degrees)
    waiting = [(0, -degrees[v], v) for v in used]
    heapq.heapify(waiting)
    order: list[int] = []
    placed = bytearray(len(degrees))
    while waiting:
        count, _, v = heapq.heappop(waiting)
        if placed[v] or -count != before[v]:
            continue  # a newer entry has been taken, or is to come
        placed[v] = 1
        order.append(v)
        for w in indices[indptr[v] : indptr[v + 1]]:
            if not placed[w]:
                before[w] += 1
                heapq.heappush(waiting, (-before[w], -degrees[w], w))
    return order
