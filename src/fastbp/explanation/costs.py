"""A model at a glance: layers, output shapes, parameters, flops and bytes of one forward pass.

The pass is captured, as `fastbp.compile` captures it, so nothing is computed; flops and bytes are what a plan's lines
say of themselves (csrc/plan/describe.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._core import Capture, Tensor, _captured_costs, as_tensor, no_grad
from .._guards import World
from .._tree import flatten, unflatten
from ..nn import Module
from .text import shape_text, table

OWN = "(code between layers)"


@dataclass(frozen=True)
class SummaryRow:
    """One call of a layer.

    Attributes
    ----------
    name, kind : str
        The path of the module in the model, and its class.
    shapes : list of tuple
        Of its outputs.
    parameters : int
        Its own, those that an earlier row has counted left out.
    flops, bytes : float
        Arithmetic, and bytes read and written, of its forward pass.
    """

    name: str
    kind: str
    shapes: list[tuple[int, ...]]
    parameters: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Summary:
    """What `summary` returns; prints as a table.

    Attributes
    ----------
    rows : list of SummaryRow
        In the order of calls; the last is what the model computes outside of its layers, if anything.
    parameters, trainable : int
        All parameters, and those that require grad.
    parameter_bytes : int
    flops, bytes : float
        Of one forward pass.
    """

    rows: list[SummaryRow]
    parameters: int
    trainable: int
    parameter_bytes: int
    flops: float
    bytes: float

    def __str__(self) -> str:
        cells = [["layer", "kind", "output", "parameters", "flops", "bytes"]]
        for row in self.rows:
            shapes = ", ".join(shape_text(shape) for shape in row.shapes)
            cells.append([row.name, row.kind, shapes, f"{row.parameters:,}", scaled(row.flops), scaled(row.bytes)])
        cells.append(["total", "", "", f"{self.parameters:,}", scaled(self.flops), scaled(self.bytes)])
        lines = table(cells, "")
        rule = "-" * max(map(len, lines))
        frozen = self.parameters - self.trainable
        end = f"parameters take {scaled(self.parameter_bytes)} bytes" + (f"; {frozen:,} are frozen" if frozen else "")
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], end])


def scaled(number: float) -> str:
    """A count in thousands, millions, ... : 38.1 k."""
    for unit in ("", " k", " M", " G", " T"):
        if abs(number) < 1000 or unit == " T":
            return f"{number:.4g}{unit}"
        number /= 1000
    raise AssertionError  # the loop returns


class _Done(Exception):
    """Ends a capture as a failure does, which leaves everything as it was before."""


class _Watcher:
    """Hooks on layers that note what each call adds to a capture."""

    def __init__(self, capture: Capture, model: Module) -> None:
        self.capture = capture
        self.rows: list[SummaryRow] = []
        self.seen: set[int] = set()
        self.begun: list[int] = []
        self.handles = []
        for name, module in model.named_modules():
            if next(module.children(), None) is None:
                self.handles.append(module.register_forward_pre_hook(self._enter))
                self.handles.append(module.register_forward_hook(self._leaver(name)))

    def _enter(self, module: Module, args: tuple[Any, ...]) -> None:
        self.begun.append(len(_captured_costs(self.capture)))

    def _leaver(self, name: str) -> Any:
        def leave(module: Module, args: tuple[Any, ...], output: Any) -> None:
            costs = _captured_costs(self.capture, self.begun.pop())
            leaves: list[Any] = []
            flatten(output, leaves)
            fresh = [p for p in module.parameters() if id(p) not in self.seen]
            self.seen.update(id(p) for p in fresh)
            self.rows.append(
                SummaryRow(
                    name=name or type(module).__name__,
                    kind=type(module).__name__,
                    shapes=[tuple(x.shape) for x in leaves],
                    parameters=sum(p.numel() for p in fresh),
                    flops=sum(flops for flops, _ in costs),
                    bytes=sum(moved for _, moved in costs),
                )
            )

        return leave


def make_summary(model: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Summary:
    """What `fastbp.summary` does."""
    if not isinstance(model, Module):
        raise TypeError(f"summary: model must be a Module, got {type(model).__name__}")
    tensors: list[Any] = []
    structure = flatten((args, kwargs), tensors)
    capture = Capture()
    watcher = _Watcher(capture, model)
    outputs: list[Tensor] = []
    try:
        with capture, World(model, capture), no_grad():
            symbols = [capture.argument(as_tensor(x).detach()) for x in tensors]
            given, named = unflatten(structure, iter(symbols))
            flatten(model(*given, **named), outputs)
            shapes = [tuple(x.shape) for x in outputs]
            costs = _captured_costs(capture)
            raise _Done
    except _Done:
        pass
    finally:
        for handle in watcher.handles:
            handle.remove()
    parameters = list(model.parameters())
    flops, moved = sum(one for one, _ in costs), sum(one for _, one in costs)
    rows = list(watcher.rows)
    own = SummaryRow(
        name=OWN,
        kind=type(model).__name__,
        shapes=shapes,
        parameters=sum(p.numel() for p in parameters if id(p) not in watcher.seen),
        flops=flops - sum(row.flops for row in rows),
        bytes=moved - sum(row.bytes for row in rows),
    )
    if own.flops > 0 or own.bytes > 0 or own.parameters:
        rows.append(own)
    return Summary(
        rows=rows,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
        flops=flops,
        bytes=moved,
    )
