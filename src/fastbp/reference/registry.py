"""The registry of the reference: an op is a name, a forward function and a vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .array import Array, as_array


class Op:
    """One operation in plain Python.

    Attributes
    ----------
    name : str
        PyTorch's name of the operation.
    differentiable : bool
        False where no input has a gradient at all (comparisons, argmax, optimizer updates).
    """

    __slots__ = ("_forward", "_vjp", "differentiable", "name")

    def __init__(self, name: str, forward: Callable[..., Any], vjp: Callable[..., Any] | None) -> None:
        self.name = name
        self.differentiable = vjp is not None
        self._forward = forward
        self._vjp = vjp

    def forward(self, *inputs: Any, **attributes: Any) -> Any:
        """Evaluate the operation.

        Parameters
        ----------
        *inputs : Array, nested list, number or None
            The tensor operands; None leaves an optional one out.
        **attributes
            The rest of PyTorch's arguments, by PyTorch's names (``dim``, ``keepdim``, ``reduction`` ...).

        Returns
        -------
        Array or tuple of Array
            A tuple where PyTorch returns several tensors (``split``, ``max`` with a ``dim``, updates).

        Raises
        ------
        ValueError, IndexError, TypeError
            If shapes, indices or arguments do not fit.

        Examples
        --------
        >>> OPS["add"].forward([1.0, 2.0], 3.0).to_nested()
        [4.0, 5.0]
        """
        return self._forward(*(as_array(value) for value in inputs), **attributes)

    def vjp(self, cotangent: Any, *inputs: Any, **attributes: Any) -> tuple[Array | None, ...]:
        """Pull a cotangent of the output back to every input.

        Parameters
        ----------
        cotangent : Array, nested list or number; a tuple of them for several outputs
            The derivative of some scalar by the output, in the output's shape. In a tuple, None is a zero.
        *inputs, **attributes
            As given to :meth:`forward`.

        Returns
        -------
        tuple of (Array or None)
            One entry an input, in the input's shape; None for an input without a gradient (indices, masks, weights
            of losses) and for one that is left out.

        Examples
        --------
        >>> [g.to_nested() for g in OPS["mul"].vjp(1.3, 10.0, 5.0)]
        [6.5, 13.0]
        """
        arrays = [as_array(value) for value in inputs]
        if self._vjp is None:
            return (None,) * len(arrays)
        several = isinstance(cotangent, tuple)
        pulled = tuple(as_array(part) for part in cotangent) if several else as_array(cotangent)
        gradients: tuple[Array | None, ...] = tuple(self._vjp(pulled, *arrays, **attributes))
        return gradients[: len(arrays)]

    def __repr__(self) -> str:
        return f"Op({self.name!r})"


OPS: dict[str, Op] = {}
"""Every operation of the reference by name."""


def define(name: str, forward: Callable[..., Any], vjp: Callable[..., Any] | None = None) -> None:
    """Enter an operation; ``vjp=None`` declares that it has no derivative.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if name in OPS:
        raise ValueError(f"reference: {name!r} is defined twice")
    OPS[name] = Op(name, forward, vjp)


def alias(name: str, existing: str) -> None:
    """Enter a second name of an operation."""
    if name in OPS:
        raise ValueError(f"reference: {name!r} is defined twice")
    OPS[name] = OPS[existing]
