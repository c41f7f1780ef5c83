"""The explanation of one result: what `fastbp.explain` returns, and how its arguments are read."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import Tensor, tensor
from . import paths as _paths
from . import traces as _traces
from .graph import Edge, Graph, Node
from .local import DENSE_MOST

if TYPE_CHECKING:
    from .layers import Layer
    from .local import Numbers
    from .paths import Path
    from .traces import Costs, Trace

Which = Tensor | str | None


class Explanation:
    """A derivative taken apart; made by `fastbp.explain`.

    Wherever a method takes `x`, it is one of the inputs that are explained, by name or as the tensor; it may be left
    out where there is one.

    Attributes
    ----------
    graph : Graph
        The graph as lists by node number.
    """

    def __init__(
        self, graph: Graph, tensors: dict[str, Tensor | None], max_paths: int, seed: Numbers | None
    ) -> None:
        self.graph = graph
        self.max_paths = max_paths
        self._tensors = tensors  # the inputs, by name; None where the graph alone knows them
        self._places = dict(zip(tensors, graph.wrt, strict=True))
        self._seed = seed
        self._adjoints: dict[int, float] | dict[int, Numbers] | None = None

    # ---- the graph --------------------------------------------------------------------------------------------------

    @property
    def y(self) -> Node:
        """The node that is explained."""
        return Node(self.graph, self.graph.root)

    @property
    def wrt(self) -> dict[str, Node]:
        """The inputs, by name."""
        return {name: Node(self.graph, i) for name, i in self._places.items()}

    @property
    def nodes(self) -> list[Node]:
        """The nodes on paths from the inputs to `y`, inputs before what is made of them."""
        return [Node(self.graph, i) for i, on in enumerate(self.graph.on_path) if on]

    @property
    def edges(self) -> list[Edge]:
        """The edges between them, each with its local derivative."""
        return [Edge(self.graph, i, k) for i, on in enumerate(self.graph.on_path) if on for k, _ in self._into(i)]

    def _into(self, i: int) -> list[tuple[int, int]]:
        return self.graph.edges_into(i)

    def _find(self, x: Which) -> int:
        """The node of an input."""
        if x is None:
            if len(self._places) != 1:
                raise ValueError(f"explain: say which input: one of {', '.join(self._places)}")
            return next(iter(self._places.values()))
        if isinstance(x, str):
            if x not in self._places:
                raise KeyError(f"explain: no input is called {x!r}; there are {', '.join(self._places)}")
            return self._places[x]
        place = self.graph.record.find(x)
        for name, known in self._tensors.items():
            if known is x or (place >= 0 and self._places[name] == place):
                return self._places[name]
        raise KeyError(f"explain: a tensor of shape {tuple(x.shape)} is not among the inputs that are explained")

    # ---- derivatives and paths ---------------------------------------------------------------------------------------

    @property
    def cotangent(self) -> Numbers | None:
        """What derivatives start from at `y`: None where it has many elements and none was given."""
        if self._seed is None and self.graph.size(self.graph.root) == 1:
            return np.ones(self.graph.shapes[self.graph.root])
        return self._seed

    def _seeds(self) -> list[Numbers]:
        """The cotangents of the sweeps: the one that is set, or each element's own."""
        if self.cotangent is not None:
            return [self.cotangent]
        shape, size = self.graph.shapes[self.graph.root], self.graph.size(self.graph.root)
        return [row.reshape(shape) for row in np.eye(size)]

    def adjoints(self) -> dict[int, float] | dict[int, Numbers]:
        """Derivatives of `y` by all nodes on paths, by node number: numbers where all nodes have one element.

        Raises
        ------
        RuntimeError
            When `y` has many elements and no `grad_output` was given.
        """
        if self._adjoints is None:
            cotangent = self.cotangent
            if cotangent is None:
                raise RuntimeError(
                    f"explain: y has shape {tuple(self.y.shape)}; pass grad_output= to explain() for a reverse sweep"
                )
            if self.graph.is_scalar:
                self._adjoints = _traces.number_adjoints(self.graph, float(cotangent.reshape(-1)[0]))
            else:
                self._adjoints = _paths.adjoints(self.graph, self.graph.wrt, cotangent)
        return self._adjoints

    def derivative(self, x: Which = None) -> float | Tensor:
        """The derivative of `y` by an input: the sum over all paths.

        Returns
        -------
        float or Tensor
            A number in a graph of numbers; else the gradient, in the input's shape, or for a `y` of many elements
            without `grad_output` the Jacobian, (elements of y, elements of x).
        """
        i = self._find(x)
        if self.cotangent is not None:
            found = self.adjoints().get(i, 0.0)
            if self.graph.is_scalar:
                return float(found)
            return tensor(np.asarray(found, self.graph.dtypes[i]).reshape(self.graph.shapes[i]))
        if self.graph.size(self.graph.root) * self.graph.size(i) > DENSE_MOST:
            raise ValueError("explain: the Jacobian has more than 2**24 numbers; pass grad_output= to explain()")
        return tensor(_paths.sum_paths(self.graph, i, self._seeds()).astype(self.graph.dtypes[i]))

    def path_count(self, x: Which = None) -> int:
        """The number of paths from an input to `y`, exactly."""
        return _paths.count_paths(self.graph, self._find(x))

    def paths(self, x: Which = None) -> list[Path]:
        """The paths from an input to `y` with their products, largest first, at most `max_paths`.

        In a graph of numbers these are the largest of all; of tensors too, as long as there are no more than 512
        paths, else the first ones in the order of the ops' inputs.
        """
        i = self._find(x)
        uses = {edge: n for n, edge in enumerate(_paths.list_uses(self.graph, i), 1)}
        if self.graph.is_scalar:
            seed = float(self._seeds()[0].reshape(-1)[0])
            listed = _paths.largest_paths(self.graph, i, self.max_paths)
            total = float(self.adjoints().get(i, 0.0))
            products: list[Any] = [_paths.product_of(self.graph, path, seed) for path in listed]
            shares = [product / total if total else None for product in products]
        else:
            few = _paths.count_paths(self.graph, i) <= _paths.WALKED_MOST
            listed = _paths.walk_paths(self.graph, i, _paths.WALKED_MOST if few else self.max_paths)
            products, shares = self._tensor_products(listed, i)
        order = range(len(listed))
        if not self.graph.is_scalar and products and products[0] is not None:
            order = sorted(order, key=lambda n: -float(np.linalg.norm(products[n])))  # type: ignore[assignment]
        found = []
        for n in list(order)[: self.max_paths]:
            use = uses[listed[n][-1]] if listed[n] else 1
            found.append(_paths.Path(self.graph, listed[n], products[n], shares[n], use))
        return found

    def _tensor_products(self, listed: list[list[tuple[int, int]]], i: int) -> tuple[list[Any], list[Any]]:
        rows, columns = 1 if self.cotangent is not None else self.graph.size(self.graph.root), self.graph.size(i)
        if rows > 1 and (rows > _paths.JACOBIAN_ROWS or rows * columns > _paths.JACOBIAN_MOST):
            return [None] * len(listed), [None] * len(listed)
        seeds = self._seeds()
        products = [_paths.contribution(self.graph, path, i, seeds) for path in listed]
        total = _paths.sum_paths(self.graph, i, seeds)
        square = float((total * total).sum())
        shares = [float((product * total).sum()) / square if square else None for product in products]
        if self.cotangent is not None:
            products = [product.reshape(self.graph.shapes[i]) for product in products]
        return products, shares

    def lists_largest(self, x: Which = None) -> bool:
        """Whether `paths` lists the largest of all paths, and not only the first."""
        return self.graph.is_scalar or self.path_count(x) <= _paths.WALKED_MOST

    def uses(self, x: Which = None) -> list[tuple[Edge, float | Tensor]]:
        """Each use of an input, as if it were a variable of its own: its edge and the derivative by it.

        The derivative by the input is their sum. Needs a cotangent: one element in `y`, or `grad_output`.
        """
        i, found = self._find(x), self.adjoints()
        result: list[tuple[Edge, float | Tensor]] = []
        for at, which in _paths.list_uses(self.graph, i):
            if self.graph.is_scalar:
                own: float | Tensor = float(found[at]) * (self.graph.slope(at, which) or 0.0)
            else:
                part = _paths.contribution(self.graph, [(at, which)], i, [np.asarray(found[at])])
                own = tensor(part.astype(self.graph.dtypes[i]).reshape(self.graph.shapes[i]))
            result.append((Edge(self.graph, at, which), own))
        return result

    # ---- sweeps ------------------------------------------------------------------------------------------------------

    def forward_trace(self, x: Which = None, most: int | None = None) -> Trace:
        """Forward mode by an input, step by step; with `most`, so many of its first steps.

        Raises
        ------
        NotImplementedError
            In a graph of tensors.
        """
        if not self.graph.is_scalar:
            raise NotImplementedError("explain: forward traces are of graphs of numbers; see reverse_trace()")
        return _traces.forward_trace(self.graph, self._find(x), most)

    def reverse_trace(self, most: int | None = None) -> Trace:
        """Reverse mode, step by step: derivatives of `y` by every node, last node first; with `most`, so many."""
        return _traces.reverse_trace(self.graph, self.adjoints(), most)

    def costs(self) -> Costs:
        """What the derivatives cost in multiplications, by forward and by reverse mode."""
        return _traces.count_costs(self.graph, len(self._seeds()))

    def layers(self) -> list[Layer]:
        """A fully connected net layer by layer, first to last; empty where there are no products with weights."""
        from .layers import find_layers

        if self.graph.is_scalar or self.cotangent is None:
            return []
        found = {i: np.asarray(one) for i, one in self.adjoints().items()}
        return find_layers(self.graph, found)

    # ---- shown -------------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """All of it as text: what `print` shows."""
        from .text import explanation_text

        with no_collection():
            return explanation_text(self)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Explanation of {self.y.name} by {', '.join(self._places)}: {sum(self.graph.on_path)} nodes>"

    def to_dot(self, max_nodes: int = 60) -> str:
        """The graph in Graphviz's language: values in nodes, local derivatives at edges, adjoints in another colour.

        Parameters
        ----------
        max_nodes : int, optional
            Of a longer graph, draw the nodes nearest to `y`, and say so. Default: 60.
        """
        from .picture import dot_text

        return dot_text(self, max_nodes)

    def to_svg(self, path: str | None = None, max_nodes: int = 60) -> str:
        """The picture as SVG, laid out by Graphviz; also written to the file `path`.

        Raises
        ------
        ImportError
            Without the Python package graphviz, which `pip install fastbp[viz]` brings.
        RuntimeError
            Without Graphviz's program dot, in Debian's package graphviz.
        """
        from .picture import svg_text

        return svg_text(self.to_dot(max_nodes), path)

    def _repr_svg_(self) -> str | None:
        try:
            return self.to_svg()
        except (ImportError, RuntimeError):
            return None


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python from searching for garbage among the many small objects of a long graph, which hold no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
