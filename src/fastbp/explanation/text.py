"""Explanations as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .graph import Edge
from .local import Jacobian

if TYPE_CHECKING:
    from .explained import Explanation
    from .graph import Graph
    from .local import Numbers
    from .paths import Path
    from .traces import Trace

NODES_MOST = 40  # nodes that are listed, and rows of traces
STEPS_MOST = 12  # factors of a path
LAYERS_MOST = 12  # layers of a net
INPUTS_MOST = 12  # inputs whose paths are listed
EXACT_DIGITS = 30  # longer counts are rounded

SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@"}


def number_text(x: object) -> str:
    """A number, or a tensor's numbers where they are few, in six digits."""
    if x is None:
        return "not kept"
    array = np.asarray(x)
    if array.ndim == 0:
        return f"{array.item():.6g}"
    if array.size <= 6:
        return "[" + ", ".join(f"{one:.4g}" for one in array.ravel().tolist()) + "]"
    return f"shape {shape_text(array.shape)}"


def shape_text(shape: Any) -> str:
    """(2, 3)."""
    return str(tuple(shape))


def count_text(count: int) -> str:
    """A whole number, in full up to 30 digits."""
    if count < 10**EXACT_DIGITS:
        return str(count)
    shift = max(0, count.bit_length() - 64)
    logarithm = math.log10(count >> shift) + shift * math.log10(2.0)
    return f"about {10 ** (logarithm % 1):.3f}e+{int(logarithm)}"


def name_of(graph: Graph, i: int, reader: int) -> str:
    """A node's name; of a constant of one element, its value."""
    if graph.ops[i] == "leaf" and not graph.on_path[i] and graph.size(i) == 1 and graph.names[i][:1] == "c":
        value = graph.constant(i, reader)
        if value is not None:
            return f"{value:.6g}"
    return graph.names[i]


def formula(graph: Graph, i: int) -> str:
    """What a node is: "a + b", "sin(x)", or "input"."""
    op = graph.ops[i]
    if op == "leaf":
        return "input" if graph.on_path[i] else "constant"
    operands = [name_of(graph, k, i) for k in graph.inputs[i] if k is not None]
    if op in SIGNS and len(operands) == 2:
        return f"{operands[0]} {SIGNS[op]} {operands[1]}"
    return f"{op}({', '.join(operands)})"


def value_text(graph: Graph, i: int) -> str:
    """A node's value, or its shape where it has many elements."""
    if graph.size(i) == 1:
        return number_text(graph.number(i))
    if graph.size(i) > 6:
        return f"shape {shape_text(graph.shapes[i])}"
    value = graph.value(i)
    return f"shape {shape_text(graph.shapes[i])}" if value is None else number_text(value.numpy())


def table(rows: list[list[str]], indent: str = "  ") -> list[str]:
    """Columns side by side, the first row underlined by nothing, all left-aligned."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    return [indent + line for line in lines]


def left_out(count: int, what: str) -> list[str]:
    """A line that says what is not shown."""
    return [f"  ... {count} more {what}"] if count > 0 else []


# ---- parts -----------------------------------------------------------------------------------------------------------


def nodes_text(e: Explanation) -> list[str]:
    """A line a node: formula, value, local derivatives."""
    graph = e.graph
    on = [i for i, one in enumerate(graph.on_path) if one]
    shown = on if len(on) <= NODES_MOST else on[: NODES_MOST // 2] + on[-NODES_MOST // 2 :]
    rows = [["node", "is", "value", "local derivatives"]]
    for i in shown:
        slopes = [
            f"d{graph.names[i]}/d{graph.names[k]} = {number_text(graph.slope(i, which))}"
            if graph.slope(i, which) is not None
            else f"d{graph.names[i]}/d{graph.names[k]} = {graph.local(i, which)}"
            for which, k in graph.edges_into(i)
        ]
        rows.append([graph.names[i], formula(graph, i), value_text(graph, i), ", ".join(slopes)])
    lines = table(rows)
    if len(shown) < len(on):
        lines.insert(1 + NODES_MOST // 2, f"  ... {len(on) - len(shown)} nodes between")
    lost = [graph.names[i] for i in shown if graph.size(i) == 1 and graph.number(i) is None]
    if lost:
        lines.append("  (not kept: record under `with fastbp.autograd.keep_values():` to see these values)")
    return lines


def path_text(path: Path, seed: Numbers | None, number: str) -> list[str]:
    """Nodes, factors, product and share of a path; factors that are matrices stand as in a product, root first."""
    steps, graph = path.steps[::-1], path.graph
    missing, half = len(steps) + 1 > STEPS_MOST, STEPS_MOST // 2
    shown = [*steps[: half - 1], *steps[len(steps) - half + 1 :]] if missing else steps
    edges = [Edge(graph, i, which) for i, which in shown]
    names = [*(edge.source.name for edge in edges), graph.names[graph.root]]
    factors = [_factor(edge.local) for edge in edges]
    if missing:
        names.insert(half - 1, f"... {len(steps) + 2 - STEPS_MOST} nodes ...")
        factors.insert(half - 1, "...")
    names[0] += number
    plain = all(not isinstance(edge.local, Jacobian) for edge in edges)
    if seed is not None:
        factors.append(f"{number_text(seed)} from above" if np.ndim(seed) == 0 else "grad_output")
    if not plain:
        factors.reverse()
    product = "" if path.product is None else f"= {number_text(path.product)}"
    share = "" if path.share is None else f"{100 * path.share:.4g}%"
    return [" -> ".join(names), (" * " if plain else " · ").join(factors), product, share]


def _factor(local: float | Jacobian) -> str:
    return local.short if isinstance(local, Jacobian) else number_text(local)


def paths_text(e: Explanation, name: str) -> list[str]:
    """All about one input: its derivative, uses and paths."""
    graph, i = e.graph, e.wrt[name].index
    count, listed = e.path_count(name), e.paths(name)
    uses = len(graph.consumers(i))
    head = f"d{e.y.name}/d{name}"
    if e.cotangent is not None or graph.size(graph.root) * graph.size(i) <= 36:
        head += f" = {number_text(_plain(e.derivative(name)))}"
    else:
        head += f": Jacobian, {graph.size(graph.root)} x {graph.size(i)}"
    lines = [f"{head}, the sum over {count_text(count)} path{'s' if count != 1 else ''}"]
    if uses > 1:
        lines[0] += f"; {name} is used {uses} times"
    if count > len(listed):
        largest = "largest" if e.lists_largest(name) else "first, not the largest"
        lines[0] += f"; the {len(listed)} {largest}:"
    seed = None if e._seed is None else e._seed.reshape(()) if graph.size(graph.root) == 1 else e._seed
    rows = [path_text(path, seed, f"({path.use})" if uses > 1 else "") for path in listed]
    lines += table(rows) if rows else []
    if uses > 1 and e.cotangent is not None and uses <= NODES_MOST:
        parts = [f"{name}({n}): {number_text(_plain(own))}" for n, (_, own) in enumerate(e.uses(name), 1)]
        lines.append(f"  by use, then added: {', '.join(parts)}")
    return lines


def _plain(x: Any) -> Any:
    return x if isinstance(x, float) else x.detach().numpy()


def trace_text(trace: Trace) -> list[str]:
    """A sweep as a table."""
    rows = []
    for row in trace.rows:
        terms = [f"{_term(a)} * {_term(b)}" for a, b in row.terms]
        rows.append([row.derivative, "= " + " + ".join(terms) if terms else "", f"= {number_text(row.value)}"])
    return table(rows) + left_out(trace.steps - len(trace.rows), "steps")


def _term(x: object) -> str:
    text = x if isinstance(x, str) else number_text(x)
    return f"({text})" if text.startswith("-") else text


def costs_text(e: Explanation) -> list[str]:
    """What both modes cost, and why one wins."""
    costs = e.costs()
    total, (forward, reverse) = sum(costs.forward.values()), costs.sweeps
    each = ", ".join(f"{cost} for {name}" for name, cost in list(costs.forward.items())[:INPUTS_MOST])
    whole = "" if len(costs.forward) < len(e.graph.wrt) else f", {total} in all"
    lines = [
        "cost in multiplications beside the values",
        f"  forward mode: {forward} sweep{'s' if forward != 1 else ''}, one for each number that goes in: "
        f"{each}{whole}",
        f"  reverse mode: {reverse} sweep{'s' if reverse != 1 else ''}, one for each number that comes out: "
        f"{costs.reverse} for all inputs at once",
    ]
    return lines


def layers_text(e: Explanation) -> list[str]:
    """The recursion, last layer first, as it runs."""
    layers = e.layers()
    if not layers:
        return []
    lines = ["layer by layer, from the last to the first (a: what came in, z: the sum, delta: the derivative by z)"]
    for layer in layers[: -LAYERS_MOST - 1 : -1]:
        source = f"{layer.after}'s step back" if layer.after != e.y.name else layer.after
        source = source if layer.after else "the sum of several ways"
        if layer.activation:
            source += f", through {', '.join(layer.activation)}"
        rows = [
            ["delta", f"from {source}", shape_text(layer.delta.shape)],
            ["weight", "outer product deltaᵀ a, summed over the batch", shape_text(layer.weight_gradient.shape)],
        ]
        if layer.bias_gradient is not None:
            rows.append(["bias", "delta summed over the batch", shape_text(layer.bias_gradient.shape)])
        if not layer.is_first:
            rows.append(["step back", "delta W, the derivative by a", shape_text(layer.back.shape)])
        lines.append(f"  {layer.name}: {layer.inputs} -> {layer.outputs}")
        lines += table(rows, "    ")
    lines += left_out(len(layers) - LAYERS_MOST, "layers")
    largest = max(layer.difference for layer in layers)
    lines.append(f"  largest difference from the graph's own sweep: {largest:.1e} of the largest number")
    return lines


def explanation_text(e: Explanation) -> str:
    """All parts, one below the other."""
    graph = e.graph
    inputs = list(e.wrt)
    shown = ", ".join(inputs[:INPUTS_MOST]) + (", ..." if len(inputs) > INPUTS_MOST else "")
    on = sum(graph.on_path)
    value = value_text(graph, graph.root)
    lines = [f"{e.y.name} = {value} by {shown}: {on} nodes on paths of {len(graph)} in the graph", "", *nodes_text(e)]
    for name in inputs[:INPUTS_MOST]:
        lines += ["", *paths_text(e, name)]
    if len(inputs) > INPUTS_MOST:
        lines += ["", f"... {len(inputs) - INPUTS_MOST} more inputs: `paths(name)` lists theirs"]
    if graph.is_scalar:
        for name in inputs[:2]:
            lines += ["", f"forward mode by {name}", *trace_text(e.forward_trace(name, NODES_MOST))]
        if len(inputs) > 2:
            lines += left_out(len(inputs) - 2, "forward sweeps, one for each other input")
    if e.cotangent is not None:
        lines += ["", "reverse mode", *trace_text(e.reverse_trace(NODES_MOST))]
    lines += ["", *costs_text(e)]
    layers = layers_text(e)
    if layers:
        lines += ["", *layers]
    return "\n".join(lines)
