"""A function recorded once, to be pushed forward or pulled back many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core import (
    Tensor,
    batch,
    enable_grad,
    forward_gradient,
    from_numpy,
    grad,
    keep_values,
    no_grad,
    unbatch,
    vmap_level,
)
from .sets import Array

Function = Callable[..., Any]


@dataclass
class Recording:
    """What a function computed: its input, a leaf, and its result, whose graph holds all values.

    Attributes
    ----------
    x : Tensor
    y : Tensor or None
        None where the result is not a function of x as far as the graph knows; its derivative is zero.
    shape : tuple of int
        Of the result.
    """

    x: Tensor
    y: Tensor | None
    shape: tuple[int, ...]


def as_leaf(x: Any, who: str) -> Tensor:
    """A copy of a floating tensor or array that requires a gradient."""
    if isinstance(x, np.ndarray):
        x = from_numpy(np.array(x))  # a copy: read-only arrays cannot be shared
    if not isinstance(x, Tensor):
        raise TypeError(f"{who}: x must be a Tensor or a NumPy array, got {type(x).__name__}")
    if not x.is_floating_point():
        raise RuntimeError(f"{who}: x must be of a floating point dtype, got {x.dtype}; convert it with x.double()")
    return x.detach().clone().requires_grad_()


def record(f: Function, x: Tensor, args: tuple[Any, ...], who: str) -> Recording:
    """Call f(x, *args), keeping every value."""
    with enable_grad(), keep_values():
        y = f(x, *args)
    if not isinstance(y, Tensor):
        raise TypeError(f"{who}: f must return one Tensor, got {type(y).__name__}; join several with fastbp.cat")
    known = y.requires_grad and y.is_floating_point()
    return Recording(x, y if known else None, tuple(y.shape))


def record_gradient(f: Function, x: Tensor, args: tuple[Any, ...], who: str) -> Recording:
    """The gradient of a scalar function, recorded: its Jacobian is the Hessian."""
    value = record(f, x, args, who)
    if int(np.prod(value.shape)) != 1:
        raise RuntimeError(f"{who}: f must return a scalar, got shape {value.shape}; sum it, or take a Jacobian")
    shape = tuple(x.shape)
    if value.y is None:
        return Recording(x, None, shape)
    with enable_grad(), keep_values():
        (g,) = grad(value.y, x, create_graph=True, allow_unused=True)
    return Recording(x, g if g is not None and g.requires_grad else None, shape)


def push_forward(recording: Recording, directions: Array) -> Array:
    """Products of the Jacobian with directions, all in one batched pass.

    Parameters
    ----------
    recording : Recording
    directions : array, (k, elements of x)

    Returns
    -------
    array, (k, elements of y)
        Of the result's dtype.
    """
    x, y = recording.x, recording.y
    assert y is not None

    def push(tangents: Tensor) -> Tensor | None:
        return forward_gradient([y], [x], [tangents], create_graph=False)[0]

    return _batched(push, _like(x, directions), y)


def pull_back(recording: Recording, cotangents: Array) -> Array:
    """Products of the transposed Jacobian with cotangents, (k, elements of y) to (k, elements of x), in one sweep."""
    x, y = recording.x, recording.y
    assert y is not None

    def pull(given: Tensor) -> Tensor | None:
        return grad(y, x, given, retain_graph=True, allow_unused=True)[0]

    return _batched(pull, _like(y, cotangents), x)


def _batched(sweep: Callable[[Tensor], Tensor | None], given: Tensor, like: Tensor) -> Array:
    """A sweep for all of `given` along the first axis at once; what it gives for each is like a tensor, flattened."""
    size = len(given)
    products = np.zeros((size, int(np.prod(like.shape))), like.dtype.name)
    with no_grad(), vmap_level(size, "same") as level:
        found = sweep(batch(given, level))
        if found is not None:
            behind, batched = unbatch(found, level)
            products[:] = behind.detach().numpy().reshape(size if batched else 1, products.shape[1])
    return products


def _like(x: Tensor, numbers: Array) -> Tensor:
    """Numbers as tensors of x's shape and dtype along a first axis."""
    return from_numpy(np.array(numbers, dtype=x.dtype.name).reshape(len(numbers), *x.shape))
