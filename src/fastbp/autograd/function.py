"""autograd.Function: operations whose derivatives users write (torch.autograd.function)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .. import _core
from .._core import FunctionContext, Tensor

__all__ = ["Function", "FunctionCtx", "once_differentiable"]

FunctionCtx = FunctionContext


class Function:
    """Base of operations with derivatives of their own.

    A subclass defines static methods and is called by `apply`:

    - ``forward(ctx, *args)``, or ``forward(*args)`` together with ``setup_context(ctx, inputs, output)``: the value.
      Its operations are not recorded. It returns a tensor or a tuple of tensors; what else is in the tuple is passed
      on.
    - ``backward(ctx, *grad_outputs)`` (or ``vjp``, the same under another name): one gradient an argument of
      `forward`, None where there is none to give. It is run recorded under ``create_graph=True``, so that one that is
      made of differentiable operations can be differentiated again.
    - ``jvp(ctx, *grad_inputs)``: for forward mode, one tangent an output.
    - ``vmap(info, in_dims, *args)``, or ``generate_vmap_rule = True``: for `func.vmap`.

    `ctx` is a `FunctionContext`; see there for what it keeps.

    Raises
    ------
    RuntimeError
        When `backward` returns another number of gradients than `forward` has arguments, or one of a wrong shape; when
        a saved tensor was changed in place; in a second `backward()` without ``retain_graph=True``.
    NotImplementedError
        When a method is wanted that the subclass does not define.

    Examples
    --------
    >>> class Exp(fastbp.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         y = x.exp()
    ...         ctx.save_for_backward(y)
    ...         return y
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (y,) = ctx.saved_tensors
    ...         return g * y
    >>> x = fastbp.tensor(0.0, requires_grad=True)
    >>> Exp.apply(x).backward()
    >>> x.grad
    tensor(1.)
    """

    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self).__name__} should not be instantiated. Methods on autograd functions are all static, so "
            "invoke them on the class itself: use `.apply`"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The value, from a context and the arguments, or the arguments alone where there is a `setup_context`."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save what the derivatives need; `inputs` are the arguments of `forward`, `output` what it returned."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Gradients of the arguments of `forward` from those of its outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """Tangents of the outputs from those of the arguments of `forward`."""
        raise NotImplementedError(
            "You must implement the jvp function for custom autograd.Function to use it with forward mode AD."
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        """The outputs and their batch dimensions, from arguments with the batch dimensions `in_dims`."""
        raise NotImplementedError(
            "To use autograd.Function with vmap, you must either override the vmap static method or set "
            "generate_vmap_rule=True."
        )

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Call it. Keyword arguments, and defaults of `forward`, are put into their positions.

        Returns
        -------
        What `forward` returned, with a history where an argument requires grad and recording is on.
        """
        if kwargs or cls._has_setup():
            args = cls._positional(args, kwargs)
        if _core.vmap_depth():
            from ._batched import apply_batched, highest_level

            if level := highest_level(args):
                return apply_batched(cls, args, level)
        return _core.apply_function(cls, args)

    @classmethod
    def _has_setup(cls) -> bool:
        return cls.setup_context is not Function.setup_context

    @classmethod
    def _positional(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        parameters = inspect.signature(cls.forward)
        first = () if cls._has_setup() else (None,)  # the context
        bound = parameters.bind(*first, *args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise TypeError(
                f"{cls.__name__}.forward: parameters by keyword alone are not supported: {list(bound.kwargs)}"
            )
        return bound.args[len(first) :]

    @classmethod
    def _forward_of(cls, ctx: Any, args: tuple[Any, ...]) -> Any:
        if not cls._has_setup():
            return cls.forward(ctx, *args)
        output = cls.forward(*args)
        cls.setup_context(ctx, args, output)
        return output

    @classmethod
    def _backward_of(cls) -> Callable[..., Any]:
        has_vjp = cls.vjp is not Function.vjp
        if has_vjp and cls.backward is not Function.backward:
            raise RuntimeError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You should only "
                "implement one of them."
            )
        return cls.vjp if has_vjp else cls.backward


class _Refusal(Function):
    """The identity, whose derivative is refused."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.detach() for x in tensors)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for `Function.backward` whose operations cannot be differentiated (NumPy inside, say).

    It runs unrecorded; under ``create_graph=True`` its results raise RuntimeError when they are differentiated.

    Parameters
    ----------
    fn : callable
        A `backward(ctx, *grad_outputs)`, beneath `staticmethod`.
    """

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with _core.no_grad():
            outputs = fn(ctx, *args)
        recorded = _core.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args)
        if not recorded:
            return outputs
        listed = list(outputs) if isinstance(outputs, tuple) else [outputs]
        places = [i for i, y in enumerate(listed) if isinstance(y, Tensor) and y.is_floating_point()]
        refused = _Refusal.apply(*[listed[i].detach().requires_grad_() for i in places]) if places else ()
        for i, y in zip(places, refused, strict=True):
            listed[i] = y
        return tuple(listed) if isinstance(outputs, tuple) else listed[0]

    return wrapper
