"""Hooks: functions that run before or after a module's forward, or when its gradients arrive.

A module without hooks pays one attribute look-up; all else happens in `call_with_hooks`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .module import Module


class RemovableHandle:
    """What a ``register_*_hook`` method returns; takes the hook out again.

    Usable as a context manager, which removes the hook on leaving.

    Attributes
    ----------
    id : int
        The hook's number, unique in the process.
    """

    _next_id = 0

    def __init__(self, registry: dict[int, Any]) -> None:
        self.id = RemovableHandle._next_id
        RemovableHandle._next_id += 1
        self._registry = registry

    def remove(self) -> None:
        """Take the hook out; a second call does nothing."""
        if self._registry.pop(self.id, None) is not None:
            _core.world_moved()

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class ModuleHooks:
    """The hooks of one module, each kind a dictionary from a handle's number to the hook, in running order."""

    __slots__ = ("forward", "forward_pre", "full_backward")

    def __init__(self) -> None:
        self.forward_pre: dict[int, tuple[Callable[..., Any], bool]] = {}  # (hook, with_kwargs)
        self.forward: dict[int, tuple[Callable[..., Any], bool, bool]] = {}  # (hook, with_kwargs, always_call)
        self.full_backward: dict[int, Callable[..., Any]] = {}

    @staticmethod
    def add(registry: dict[int, Any], entry: Any, prepend: bool) -> RemovableHandle:
        """Put `entry` last in `registry`, or first with `prepend`, and return its handle."""
        handle = RemovableHandle(registry)
        later = dict(registry) if prepend else {}
        if prepend:
            registry.clear()
        registry[handle.id] = entry
        registry.update(later)
        _core.world_moved()
        return handle


def call_with_hooks(module: Module, hooks: ModuleHooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the pre-hooks, the forward and the forward hooks of `module`, watching gradients if a hook asks for them."""
    for hook, with_kwargs in list(hooks.forward_pre.values()):
        if with_kwargs:
            changed = hook(module, args, kwargs)
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                    )
                args, kwargs = changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)

    watch = _GradientWatch(module, hooks.full_backward) if hooks.full_backward else None
    if watch is not None:
        args = watch.watch_inputs(args)
    try:
        result = module.forward(*args, **kwargs)
    except Exception:
        for hook, with_kwargs, always_call in list(hooks.forward.values()):
            if always_call:
                hook(module, args, kwargs, None) if with_kwargs else hook(module, args, None)
        raise
    for hook, with_kwargs, _ in list(hooks.forward.values()):
        changed = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
        if changed is not None:
            result = changed
    return result if watch is None else watch.watch_outputs(result)


class _GradientWatch:
    """Collects the gradients of one call's outputs and inputs and runs the full backward hooks on them.

    Inputs and outputs pass through a view of themselves, so that the gradient seen is this call's share and not the
    sum over every use of the tensor. The hooks run when the last watched input's gradient arrives; by then every
    output's gradient is known, since the inputs' depend on them. Without inputs that require a gradient they
    run when the last output's gradient arrives.
    """

    def __init__(self, module: Module, registry: dict[int, Callable[..., Any]]) -> None:
        self.module = module
        self.registry = registry
        self.grad_inputs: list[Tensor | None] = []
        self.grad_outputs: list[Tensor | None] = []
        self.inputs_awaited = 0
        self.outputs_awaited = 0
        self.has_watched_input = False

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        watched = []
        for position, arg in enumerate(args):
            self.grad_inputs.append(None)
            if isinstance(arg, Tensor) and arg.requires_grad:
                arg = arg.view_as(arg)
                arg.register_hook(partial(self._input_arrived, position))
                self.inputs_awaited += 1
            watched.append(arg)
        self.has_watched_input = self.inputs_awaited > 0
        return tuple(watched)

    def watch_outputs(self, result: Any) -> Any:
        outputs = result if isinstance(result, tuple) else (result,)
        watched = []
        for position, output in enumerate(outputs):
            self.grad_outputs.append(None)
            if isinstance(output, Tensor) and output.requires_grad:
                output = output.view_as(output)
                output.register_hook(partial(self._output_arrived, position))
                self.outputs_awaited += 1
            watched.append(output)
        return tuple(watched) if isinstance(result, tuple) else watched[0]

    def _output_arrived(self, position: int, grad: Tensor) -> None:
        self.grad_outputs[position] = grad
        self.outputs_awaited -= 1
        if self.outputs_awaited == 0 and not self.has_watched_input:
            self._run()

    def _input_arrived(self, position: int, grad: Tensor) -> Tensor | None:
        self.grad_inputs[position] = grad
        self.inputs_awaited -= 1
        if self.inputs_awaited > 0:
            return None
        before = tuple(self.grad_inputs)
        after = self._run()
        if any(new is not old for index, (new, old) in enumerate(zip(after, before, strict=True)) if index != position):
            # Those gradients have already been passed on.
            raise RuntimeError(
                "a full backward hook can change grad_input only of a module with one differentiable input"
            )
        changed: Tensor | None = after[position]
        return changed

    def _run(self) -> tuple[Any, ...]:
        grad_inputs, grad_outputs = tuple(self.grad_inputs), tuple(self.grad_outputs)
        for hook in list(self.registry.values()):
            changed = hook(self.module, grad_inputs, grad_outputs)
            if changed is not None:
                grad_inputs = changed if isinstance(changed, tuple) else (changed,)
        return grad_inputs
