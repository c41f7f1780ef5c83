"""The recorded graph as lists by node number, and nodes and edges as views of them.

Node numbers are those of `_core.GraphRecord`: inputs come before what is made of them, so that a loop over numbers is a
topological order, forwards or backwards, and no walk here recurses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import GraphRecord, Sweep, op_table, tensor

if TYPE_CHECKING:
    from .._core import Tensor
    from .local import Jacobian

KEEP = "record under `with fastbp.autograd.keep_values():` to keep every value"
ROWS = {row["name"]: row for row in op_table()}
REMEMBERED_MOST = 64  # inputs for which it is remembered which nodes they reach


class Graph:
    """A recorded graph, and what is to be explained of it.

    Attributes
    ----------
    record : GraphRecord
    ops, inputs, shapes, dtypes, required : list
        By node: see `GraphRecord.facts`.
    root : int
        The node that is explained.
    wrt : list of int
        The nodes to differentiate by.
    names : list of str
        By node.
    on_path : bytearray
        1 for nodes on a path from a node of `wrt` to the root.
    slopes : list
        By node: None, or for each input the local derivative where both ends have one element.
    is_scalar : bool
        Whether all nodes on paths have one element: local derivatives are numbers.
    """

    def __init__(self, record: GraphRecord, root: int, wrt: list[int]) -> None:
        self.record = record
        self.ops, self.inputs, self.shapes, self.dtypes, self.required = record.facts()
        self.root = root
        self.wrt = wrt
        self.names = [""] * len(self.ops)
        self._reached: dict[int, bytearray] = {}
        self.on_path = self.reached_from(wrt)
        self._into: list[list[tuple[int, int]]] = [
            [(n, k) for n, k in enumerate(self.inputs[i]) if k is not None and self.on_path[k] and self.required[k]]
            if on
            else []
            for i, on in enumerate(self.on_path)
        ]
        self._values: dict[int, Tensor | None] = {}
        self._locals: dict[tuple[int, int], Jacobian] = {}
        self._costs: list[list[int]] | None = None
        self._consumers: dict[int, list[int]] | None = None
        self._numbers = record.numbers()
        self.is_scalar = all(math.prod(shape) == 1 for shape, on in zip(self.shapes, self.on_path, strict=True) if on)
        for i, op in enumerate(self.ops):
            if op != "leaf":
                if self.on_path[i]:
                    self.make_usable(i)
            elif self._numbers[i] is not None:  # held, so that a backward() to come cannot take away what is so small
                self.value(i)
        self.slopes: list[tuple[float | None, ...] | None] = record.slopes(self.on_path)

    def __len__(self) -> int:
        return len(self.ops)

    # ---- which nodes and edges ------------------------------------------------------------------------------------

    def reached_from(self, starts: list[int]) -> bytearray:
        """1 for the nodes to which a derivative by one of `starts` flows, those included."""
        if starts == self.wrt and hasattr(self, "on_path"):
            return self.on_path
        if len(starts) == 1 and starts[0] in self._reached:
            return self._reached[starts[0]]
        reached = bytearray(len(self.ops))
        for i in starts:
            reached[i] = 1
        for i, inputs in enumerate(self.inputs):
            if not reached[i]:
                for k in inputs:
                    if k is not None and reached[k] and self.required[k]:
                        reached[i] = 1
                        break
        if len(starts) == 1 and len(self._reached) < REMEMBERED_MOST:
            self._reached[starts[0]] = reached
        return reached

    def edges_into(self, i: int, among: bytearray | None = None) -> list[tuple[int, int]]:
        """(position, input) of the inputs of node i that lie on a path, or on one and among other marked nodes."""
        edges = self._into[i]
        return edges if among is None or among is self.on_path else [edge for edge in edges if among[edge[1]]]

    def consumers(self, i: int) -> list[int]:
        """Nodes on paths that read node i, once for each use."""
        if self._consumers is None:
            self._consumers = {}
            for at, on in enumerate(self.on_path):
                for k in self.inputs[at] if on else ():
                    if k is not None:
                        self._consumers.setdefault(k, []).append(at)
        return self._consumers.get(i, [])

    def size(self, i: int) -> int:
        """Elements of node i."""
        return math.prod(self.shapes[i])

    # ---- values ------------------------------------------------------------------------------------------------------

    def value(self, i: int) -> Tensor | None:
        """The value of node i: kept, or computed again from values that were; None where neither can be."""
        pending = [i]
        while pending:
            at = pending[-1]
            if at in self._values:
                pending.pop()
                continue
            found = self.record.value(at)
            if found is None and self.ops[at] not in ("leaf", "custom"):
                unknown = [k for k in self.inputs[at] if k is not None and k not in self._values]
                if unknown:
                    pending.extend(unknown)
                    continue
                values = [None if k is None else self._values[k] for k in self.inputs[at]]
                if all(k is None or v is not None for k, v in zip(self.inputs[at], values, strict=True)):
                    found = self.record.apply(at, values)
            self._values[at] = found
            pending.pop()
        return self._values[i]

    def number(self, i: int) -> float | None:
        """The value of a node of one element."""
        if self._numbers[i] is None and self.size(i) == 1:
            found = self.value(i)
            self._numbers[i] = None if found is None else found.item()
        return self._numbers[i]

    def constant(self, i: int, of: int) -> float | None:
        """A number that its sum or difference did not keep: what lies between the other operand and the result."""
        if self.number(i) is not None:
            return self.number(i)
        if self.ops[of] not in ("add", "sub") or self.inputs[of].count(i) != 1 or self.size(of) != 1:
            return None
        first = self.inputs[of][0] == i
        other = self.inputs[of][1 if first else 0]
        result, known = self.number(of), None if other is None else self.number(other)
        if result is None or known is None:
            return None
        found = result - known if self.ops[of] == "add" else result + known if first else known - result
        return float(np.dtype(self.dtypes[i]).type(found))

    def make_usable(self, i: int) -> None:
        """See that the rule of node i finds the values that it reads, computed again where they were let go of.

        Raises
        ------
        RuntimeError
            Naming the op whose values are gone, and the mend.
        """
        state = self.record.state(i)
        if state == "intact":
            return
        if state == "symbolic":
            raise RuntimeError(
                "explain: y belongs to a function that is being compiled, where tensors have no values; call the "
                "compiled function and explain its result"
            )
        values = [None if k is None else self.value(k) for k in self.inputs[i]]
        lost = any(k is not None and v is None for k, v in zip(self.inputs[i], values, strict=True))
        if lost or self.ops[i] == "custom":
            why = "a backward() has freed" if state == "released" else "an in-place operation has changed"
            mend = (
                "explain before backward(), or run backward(retain_graph=True)"
                if state == "released"
                else "explain before the change (an optimizer's step is one), or clone() what is changed"
            )
            raise RuntimeError(
                f"explain: {why} values that the derivative of {self.ops[i]} needs, of shape "
                f"{tuple(self.shapes[i])}, {self.dtypes[i]}; {mend}"
            )
        self._values[i] = self.record.revive(i, values)

    # ---- local derivatives -------------------------------------------------------------------------------------------

    def slope(self, i: int, which: int) -> float | None:
        """Local derivative of the edge into input `which` of node i, where both ends have one element."""
        slopes = self.slopes[i]
        return None if slopes is None else slopes[which]

    def local(self, i: int, which: int) -> Jacobian:
        """The Jacobian of that edge, with its structure named."""
        from .local import find_structure

        if (i, which) not in self._locals:
            self._locals[i, which] = find_structure(self, i, which)
        return self._locals[i, which]

    def edge_costs(self) -> list[list[int]]:
        """Multiplications to take a tangent, or a cotangent, across each edge of `edges_into`, by node.

        An edge that multiplies by nothing, since its rule reads no value and the derivative is 1 or -1, costs none.
        """
        if self._costs is None:
            needs = {op: ROWS[op]["needs"] if op in ROWS else (1, 1, 1) for op in set(self.ops)}
            self._costs = []
            for i, edges in enumerate(self._into):
                own, slopes, reads = [], self.slopes[i], needs[self.ops[i]]
                for which, _ in edges:
                    slope = None if slopes is None else slopes[which]
                    if slope is None:
                        own.append(self.local(i, which).multiplications)
                    else:
                        own.append(0 if abs(slope) == 1.0 and which < 3 and not reads[which] else 1)
                self._costs.append(own)
        return self._costs


class Node:
    """One node of an explained graph.

    Attributes
    ----------
    name, op : str
        Op is "leaf" for what was given from outside.
    shape : tuple of int
    dtype : str
    value : Tensor or None
        None where it was not kept: record under ``fastbp.autograd.keep_values()`` to keep every value.
    inputs : list of Edge
        Edges that a derivative takes; inputs that lead to none of `wrt` are left out.
    """

    __slots__ = ("_graph", "index")

    def __init__(self, graph: Graph, index: int) -> None:
        self._graph = graph
        self.index = index

    @property
    def name(self) -> str:
        return self._graph.names[self.index]

    @property
    def op(self) -> str:
        return self._graph.ops[self.index]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._graph.shapes[self.index]

    @property
    def dtype(self) -> str:
        return self._graph.dtypes[self.index]

    @property
    def value(self) -> Tensor | None:
        return self._graph.value(self.index)

    @property
    def inputs(self) -> list[Edge]:
        if self.index in self._graph.wrt and self._graph.ops[self.index] == "leaf":
            return []
        return [Edge(self._graph, self.index, which) for which, _ in self._graph.edges_into(self.index)]

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.op}, shape {tuple(self.shape)})"


class Edge:
    """One edge: the dependence of a node (`target`) on one of its inputs (`source`).

    Attributes
    ----------
    source, target : Node
    which : int
        Position of `source` among the op's inputs.
    local : float or Jacobian
        The local derivative: a number between single elements, else a Jacobian with its structure named.
    """

    __slots__ = ("_graph", "_target", "which")

    def __init__(self, graph: Graph, target: int, which: int) -> None:
        self._graph = graph
        self._target = target
        self.which = which

    @property
    def target(self) -> Node:
        return Node(self._graph, self._target)

    @property
    def source(self) -> Node:
        index = self._graph.inputs[self._target][self.which]
        assert index is not None  # edges are made of inputs that are there
        return Node(self._graph, index)

    @property
    def local(self) -> float | Jacobian:
        slope = self._graph.slope(self._target, self.which)
        return self._graph.local(self._target, self.which) if slope is None else slope

    def jacobian(self) -> Tensor:
        """The local derivative written out: (elements of `target`, elements of `source`), in the target's dtype.

        Raises
        ------
        ValueError
            When it has more than 2**24 elements.
        """
        from .local import dense_jacobian

        return tensor(dense_jacobian(self._graph, self._target, self.which))

    def __repr__(self) -> str:
        return f"Edge({self.source.name} -> {self.target.name}: {self.local})"


# ---- from what the user gives ----------------------------------------------------------------------------------------


def record_of(y: Tensor, others: list[Tensor]) -> tuple[GraphRecord, Tensor, list[Tensor]]:
    """The record behind y, with results of compiled functions replaced by what they are made of.

    Returns
    -------
    record : GraphRecord
    y : Tensor
        What stands for y in it.
    others : list of Tensor
        What stands for `others`.
    """
    record = GraphRecord(y)
    ops, inputs, *_ = record.facts()
    if "custom" not in ops:
        return record, y, others
    moved: dict[int, Tensor] = {}
    replayed: dict[Any, list[Tensor]] = {}
    for i, op in enumerate(ops):
        if op == "custom":
            found = record.rule(i)
            if found is None:
                raise RuntimeError(
                    "explain: a backward() has freed what a compiled function saved; explain before backward(), or run "
                    "backward(retain_graph=True)"
                )
            sweep, which = found
            if isinstance(sweep, Sweep) and which >= 0:
                if sweep not in replayed:
                    replayed[sweep] = sweep.replay()
                moved[i] = replayed[sweep][which]
            elif any(k in moved for k in inputs[i] if k is not None):
                raise RuntimeError(
                    "explain: a custom Function reads the result of a compiled function, and cannot be run again on "
                    "what that is made of; call the function without fastbp.compile for this explanation"
                )
        elif any(k in moved for k in inputs[i] if k is not None):
            operands = [None if k is None else moved[k] if k in moved else record.tensor(k) for k in inputs[i]]
            moved[i] = record.apply(i, operands, True)
    if not moved:
        return record, y, others
    places = [record.find(x) for x in others]
    y = moved[record.find(y)]
    others = [moved.get(place, x) for place, x in zip(places, others, strict=True)]
    return GraphRecord(y), y, others
