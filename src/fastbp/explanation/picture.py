"""Explanations as pictures: Graphviz's language, and SVG through Graphviz.

Values flow down the page. A node shows its name and formula, its value in black, and below it, in the colour of the
reverse sweep, the derivative of the root by it; edges carry their local derivatives.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .paths import list_uses
from .text import formula, shape_text

if TYPE_CHECKING:
    from .explained import Explanation
    from .graph import Graph

INPUT, STEP, ROOT, CONSTANT = "#e3f1e3", "#ffffff", "#fdf1d8", "#f4f4f4"
BORDER, INPUT_BORDER, ROOT_BORDER = "#7a7a7a", "#3f8f4f", "#c98a1b"
LOCAL, REVERSE, FAINT = "#1f5fa8", "#b3261e", "#767676"
FONT = "Helvetica,Arial,sans-serif"
TEXT_MOST = 34  # signs of a formula or a local derivative
VALUES_MOST = 3  # elements of a tensor that are shown; of larger ones, the shape


def short(text: str) -> str:
    """Text of at most 34 signs."""
    return text if len(text) <= TEXT_MOST else text[: TEXT_MOST - 3] + "..."


def _shown(x: object, shape: tuple[int, ...]) -> str:
    """A number, or up to three of them; else the shape."""
    array = np.asarray(x)
    if x is None or array.size > VALUES_MOST:
        return "not kept" if x is None and not shape else shape_text(shape)
    numbers = ", ".join(f"{one:.5g}" for one in array.ravel().tolist())
    return numbers if array.ndim == 0 else f"[{numbers}]"


def _value(graph: Graph, i: int) -> str:
    if graph.size(i) == 1:
        return _shown(graph.number(i), ())
    value = graph.value(i) if graph.size(i) <= VALUES_MOST else None
    return _shown(None if value is None else value.numpy(), graph.shapes[i])


def _label(e: Explanation, i: int, adjoint: object) -> str:
    """A node's label: HTML as Graphviz reads it."""
    graph = e.graph
    name, value = escape(graph.names[i]), escape(_value(graph, i))
    equals = "=&#160;" if graph.size(i) <= VALUES_MOST else ""
    if graph.ops[i] == "leaf":
        lines = [f"<b>{name}&#160;</b>{equals}{value}"]
    else:
        lines = [f"<b>{name}&#160;</b>=&#160;{escape(short(formula(graph, i)))}", f"{equals}{value}"]
    if adjoint is not None and i != graph.root:
        shown = escape(_shown(adjoint, graph.shapes[i]))
        lines.append(f'<font color="{REVERSE}">d{escape(e.y.name)}/d{name}&#160;{equals}{shown}</font>')
    return "<" + "<br/>".join(lines) + ">"


def _local(graph: Graph, i: int, which: int) -> str:
    """What stands at an edge."""
    slope = graph.slope(i, which)
    if slope is not None:
        return f"{slope:.5g}"
    local = graph.local(i, which)
    return f"{short(local.short)}\\n{local.rows} x {local.columns}"


def dot_text(e: Explanation, max_nodes: int) -> str:
    """The graph in the DOT language."""
    graph = e.graph
    on = [i for i, one in enumerate(graph.on_path) if one]
    drawn = set(on[-max(1, max_nodes) :])
    adjoints: dict[int, object] = dict(e.adjoints()) if e.cotangent is not None else {}
    lines = [
        f'digraph "{_quoted(e.y.name)}" {{',
        f'  graph [rankdir=TB, nodesep=0.3, ranksep=0.45, bgcolor="white", fontname="{FONT}", fontsize=10];',
        f'  node [shape=box, style="rounded,filled", fontname="{FONT}", fontsize=11, margin="0.12,0.06", '
        f'color="{BORDER}", fillcolor="{STEP}"];',
        f'  edge [fontname="{FONT}", fontsize=10, color="{BORDER}", fontcolor="{LOCAL}", arrowsize=0.7];',
    ]
    inputs = set(graph.wrt)
    for i in sorted(drawn):
        fill, border = (ROOT, ROOT_BORDER) if i == graph.root else (INPUT, INPUT_BORDER) if i in inputs else ("", "")
        colours = f', fillcolor="{fill}", color="{border}"' if fill else ""
        lines.append(f"  n{i} [label={_label(e, i, adjoints.get(i))}{colours}];")
    constants: list[str] = []
    uses = _uses(graph)
    for i in sorted(drawn):
        for which, k in enumerate(graph.inputs[i]):
            if k is None:
                continue
            if k in drawn and graph.required[k]:
                text = _quoted(_local(graph, i, which))
                use = f"{_quoted(graph.names[k])}({uses[i, which]}): " if (i, which) in uses else ""
                lines.append(f'  n{k} -> n{i} [label=" {use}{text} "];')
            elif graph.on_path[k]:
                lines.append(f'  gap{i}_{which} [label="...", shape=plaintext, style="", fontcolor="{FAINT}"];')
                lines.append(f"  gap{i}_{which} -> n{i} [style=dashed];")
            else:
                constants.append(f"  c{i}_{which} [label={_constant(e, k, i)}, {_faint()}];")
                constants.append(f'  c{i}_{which} -> n{i} [color="#b5b5b5"];')
    lines += constants
    lines.append(f"  label={_legend(e, len(on) - len(drawn), len(on), bool(adjoints))}; labelloc=b;")
    return "\n".join([*lines, "}"]) + "\n"


def _legend(e: Explanation, missing: int, total: int, swept: bool) -> str:
    """What the colours say, and what is not drawn."""
    y = escape(e.y.name)
    parts = ["values", f'<font color="{LOCAL}">local derivatives</font>']
    if swept:
        parts.append(f'<font color="{REVERSE}">reverse sweep: derivatives of {y}</font>')
    note = f"<br/><b>{missing} of {total} nodes are not drawn: those farthest from {y}</b>" if missing else ""
    return f"<<br/>{' &#160;&#160; '.join(parts)}{note}>"


def _uses(graph: Graph) -> dict[tuple[int, int], int]:
    """The number of each use of an input that is used several times, by its edge."""
    found = {}
    for x in graph.wrt:
        edges = list_uses(graph, x)
        found.update({edge: n for n, edge in enumerate(edges, 1) if len(edges) > 1})
    return found


def _constant(e: Explanation, k: int, reader: int) -> str:
    """The label of what is not differentiated by: its value where it is one number, else name and shape."""
    graph = e.graph
    if graph.size(k) == 1 and (value := graph.constant(k, reader)) is not None and graph.names[k][:1] == "c":
        return f'"{value:.5g}"'
    text = graph.names[k] if graph.size(k) == 1 else f"{graph.names[k]} {shape_text(graph.shapes[k])}"
    return f'"{_quoted(text)}"'


def _faint() -> str:
    small = 'fontsize=10, height=0.25, width=0.3, margin="0.08,0.03"'
    return f'fillcolor="{CONSTANT}", color="#d8d8d8", fontcolor="{FAINT}", {small}'


def _quoted(text: str) -> str:
    return text.replace('"', '\\"')


def svg_text(dot: str, path: str | None) -> str:
    """Lay out with Graphviz; returns the SVG, and writes it to `path` too where that is given."""
    try:
        import graphviz  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError(
            "explain: pictures need the Python package graphviz: `pip install fastbp[viz]`; to_dot() gives the graph "
            "as text without it"
        ) from error
    try:
        svg: str = graphviz.Source(dot).pipe(format="svg", encoding="utf-8")
    except graphviz.ExecutableNotFound as error:
        raise RuntimeError(
            "explain: pictures are laid out by Graphviz's program `dot`, which is not on the PATH: `apt install "
            "graphviz` on Debian and Ubuntu, `brew install graphviz` on macOS"
        ) from error
    if path is not None:
        Path(path).write_text(svg, encoding="utf-8")
    return svg
