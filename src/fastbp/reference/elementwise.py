"""The machinery of element-by-element operations: broadcasting, the chain rule, summing back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .array import Array, accumulate, broadcast_positions, broadcast_shapes
from .registry import define

Value = Callable[..., Any]
Partial = Callable[..., float | None]
"""A partial derivative at one element. None says that the output does not depend on the input there, so that even an
infinite cotangent is not passed on; None in place of the whole function says that it never does."""


def evaluate(value: Value, inputs: Sequence[Array | None], attributes: dict[str, Any]) -> Array:
    """Apply ``value`` to the broadcast inputs, element by element; an input of None is passed as None."""
    shape = broadcast_shapes(*(x.shape for x in inputs if x is not None))
    columns = [_column(x, shape) for x in inputs]
    return Array([value(*row, **attributes) for row in zip(*columns, strict=True)], shape)


def pull_back(
    partials: Sequence[Partial | None],
    cotangent: Array,
    inputs: Sequence[Array | None],
    attributes: dict[str, Any],
) -> tuple[Array | None, ...]:
    """Multiply the cotangent by each partial, and sum over the dimensions that were stretched."""
    shape = broadcast_shapes(*(x.shape for x in inputs if x is not None))
    if cotangent.shape != shape:
        raise ValueError(f"cotangent of shape {cotangent.shape} for an output of shape {shape}")
    rows = list(zip(*(_column(x, shape) for x in inputs), strict=True))
    gradients: list[Array | None] = []
    for x, partial in zip(inputs, partials, strict=False):
        if x is None or partial is None:
            gradients.append(None)
            continue
        local = [partial(*row, **attributes) for row in rows]
        products = [None if d is None else g * d for g, d in zip(cotangent.values, local, strict=True)]
        gradients.append(accumulate(products, broadcast_positions(x.shape, shape), x.shape))
    return tuple(gradients)


def _column(x: Array | None, shape: tuple[int, ...]) -> list[Any]:
    if x is None:
        size = 1
        for extent in shape:
            size *= extent
        return [None] * size
    return [x.values[p] for p in broadcast_positions(x.shape, shape)]


def pointwise(name: str, value: Value, *partials: Partial | None) -> None:
    """Enter an element-by-element operation: its value and one partial derivative an input.

    Both are called with one number an input (and the attributes by keyword). No partial at all declares an
    operation without a derivative.
    """

    def forward(*inputs: Array | None, **attributes: Any) -> Array:
        return evaluate(value, inputs, attributes)

    def vjp(cotangent: Array, *inputs: Array | None, **attributes: Any) -> tuple[Array | None, ...]:
        return pull_back(partials, cotangent, inputs, attributes)

    define(name, forward, vjp if partials else None)
