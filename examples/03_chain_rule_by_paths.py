"""The chain rule as a sum over paths: what backpropagation computes, and why it need not list the paths.

Run it with ``python examples/03_chain_rule_by_paths.py``.

Each edge of the graph carries a local derivative. The derivative of one node by another is the sum, over all paths
between them, of the product of the local derivatives along the path. One sets that up by hand here for
y = x exp(x x), in which x has three uses and so three paths to y, and compares with what fastbp finds in the graph.
The second part has a graph with a million million paths, of which a sweep walks 120 edges.
"""

from __future__ import annotations

import math

import fastbp

# node: its edges, each an input and the local derivative by it
Graph = dict[str, list[tuple[str, float]]]


def sum_over_paths(graph: Graph, y: str, x: str, path: str = "", product: float = 1.0) -> float:
    """dy/dx: walk back from y along every path, multiply on the way, add where x is reached."""
    path = f"{y} {path}"
    if y == x:
        print(f"    {' -> '.join(path.split()):<16} product {product:.6f}")
        return product
    return sum(sum_over_paths(graph, source, x, path, product * local) for source, local in graph.get(y, []))


def three_paths() -> None:
    at = 1.0
    u, e = at * at, math.exp(at * at)
    graph: Graph = {
        "u": [("x", at), ("x", at)],  # u = x x: either factor's local derivative is the other one
        "e": [("u", e)],  # e = exp(u)
        "y": [("x", e), ("e", at)],  # y = x e
    }
    print(f"y = x exp(x x) at x = {at:g}: u = {u:g}, y = {at * e:.6f}. Paths from x to y, by hand:")
    by_hand = sum_over_paths(graph, "y", "x")
    print(f"    their sum, dy/dx: {by_hand:.6f}")

    x = fastbp.tensor(at, dtype=fastbp.float64, requires_grad=True)
    y = x * fastbp.exp(x * x)
    paths = fastbp.explain(y, wrt={"x": x}).paths("x")
    products = [path.product for path in paths if isinstance(path.product, float)]
    print("The same from the recorded graph, by fastbp.explain:")
    for path, product in zip(paths, products, strict=True):
        factors = " * ".join(f"{factor:.6f}" for factor in path.factors)
        print(f"    use {path.use} of x: {factors} = {product:.6f}, {path.share:.0%} of the sum")
    (slope,) = fastbp.autograd.grad(y, x)
    print(f"    by one sweep in reverse: {slope.item():.15f}")

    # One rounding a multiplication and an addition: some units in the sixteenth digit.
    assert len(paths) == 3
    assert abs(by_hand - 8.154845485377136) < 1e-14
    assert abs(sum(products) - by_hand) < 1e-14
    assert abs(slope.item() - by_hand) < 1e-14


def too_many_paths() -> None:
    x = fastbp.tensor(0.5, dtype=fastbp.float64, requires_grad=True)
    v = x
    for _ in range(40):
        v = v * fastbp.cos(v)  # each line doubles the paths
    explained = fastbp.explain(v, wrt={"x": x}, max_paths=1)
    paths, edges = explained.path_count("x"), len(explained.edges)
    (by_sweep,) = fastbp.autograd.grad(v, x)

    # The same sum with its common factors taken out: dv/dx grows by one factor a line.
    slope, value = 1.0, 0.5
    for _ in range(40):
        slope *= math.cos(value) - value * math.sin(value)
        value *= math.cos(value)
    print(f"v = v cos(v), 40 times: {paths:,} paths over {edges} edges")
    print(f"    a sweep goes over each edge once: dv/dx = {by_sweep.item():.12f}; by hand {slope:.12f}")
    assert paths == 2**40
    assert edges == 3 * 40
    # 40 factors, each with a rounding error of some 1e-16.
    assert abs(by_sweep.item() / slope - 1) < 1e-13


def main() -> None:
    three_paths()
    too_many_paths()


if __name__ == "__main__":
    main()
