"""autograd.Function inside of `func.vmap`: by a rule of the user's, or by the function's own methods over the batch."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .function import Function


class VmapInfo(NamedTuple):
    """What `Function.vmap` is told of the batch: its size, and vmap's `randomness`."""

    batch_size: int
    randomness: str


def highest_level(args: Sequence[Any]) -> int:
    """The innermost vmap that an argument belongs to, 0 for none."""
    return max((_core.level_of(x) for x in args if isinstance(x, Tensor)), default=0)


def apply_batched(function: type[Function], args: tuple[Any, ...], level: int) -> Any:
    """Call a Function whose arguments are batched on this level.

    Its forward() may always see examples. Where something is differentiated behind them, outside of this vmap, that
    needs a rule for the whole batch.
    """
    size, randomness = _core.vmap_information(level)
    pairs = [_core.unbatch(x, level) if isinstance(x, Tensor) else (x, False) for x in args]
    from .function import Function as Base

    own_rule = function.vmap is not Base.vmap
    if own_rule and function.generate_vmap_rule:
        raise RuntimeError(
            f"You tried to vmap over {function.__name__}, but it has both generate_vmap_rule=True and an overriden "
            "vmap staticmethod. Please set generate_vmap_rule=False or delete the overriden vmap staticmethod to avoid "
            "ambiguity"
        )
    if not own_rule and not function.generate_vmap_rule:
        if _core.is_grad_enabled() and any(isinstance(x, Tensor) and _core.is_recorded(x) for x, _ in pairs):
            raise RuntimeError(
                f"You tried to vmap over {function.__name__}, whose arguments are differentiated outside of the "
                "vmap, but it does not have vmap support. Please override and implement the vmap staticmethod or set "
                "generate_vmap_rule=True"
            )
        return _core.apply_function(function, args)
    if own_rule:
        dims = tuple(0 if batched else None for _, batched in pairs)
        values = _batch_outputs(function.vmap(VmapInfo(size, randomness), dims, *[x for x, _ in pairs]), level)
    else:
        values = _generated(function, args, pairs, level, size, randomness)
    if _core.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in args):
        return _core.apply_function(function, args, values)  # its forward() runs for what it saves
    return values


def _batch_outputs(returned: Any, level: int) -> Any:
    """What a vmap staticmethod returned, as the examples see it."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise RuntimeError(
            "Function.vmap: expected the outputs and their batch dimensions as a pair (output, out_dims)"
        )
    outputs, dims = returned
    if not isinstance(outputs, tuple):
        return _batch_output(outputs, dims, level)
    if not isinstance(dims, tuple):
        dims = (dims,) * len(outputs)
    if len(dims) != len(outputs):
        raise RuntimeError(f"Function.vmap: {len(outputs)} outputs with {len(dims)} out_dims; they must agree")
    return tuple(_batch_output(one, dim, level) for one, dim in zip(outputs, dims, strict=True))


def _batch_output(value: Any, dim: int | None, level: int) -> Any:
    if not isinstance(value, Tensor) or dim is None:
        return value
    return _core.batch(value if dim == 0 else value.movedim(dim, 0), level)


# ---------------------------------------------------------------------------------------------- generated rules


class _Context:
    """The `ctx` of the methods that run on examples; what they save goes out of the vmap and in again."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()
        self._forward: tuple[Any, ...] | None = None
        self._not_differentiable: tuple[Tensor, ...] = ()  # outputs, of use until the run's end
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        self._forward = tensors

    def mark_non_differentiable(self, *args: Tensor) -> None:
        self._not_differentiable = args

    def mark_dirty(self, *args: Tensor) -> None:
        raise RuntimeError("vmap: in-place operations on batched tensors are not supported (Function.mark_dirty)")

    def set_materialize_grads(self, value: bool) -> None:
        self._materialize = value

    def mapped(self, each: Callable[[Any], Any]) -> _Context:
        """The same with `each` in place of every tensor that it holds."""
        other = _Context(self.needs_input_grad)
        for name, value in self.__dict__.items():
            if name == "_not_differentiable":
                continue
            if isinstance(value, tuple) and name in ("saved_tensors", "_forward"):
                other.__dict__[name] = tuple(None if one is None else each(one) for one in value)
            else:
                other.__dict__[name] = each(value) if isinstance(value, (Tensor, _Slot)) else value
        return other


class _Slot(NamedTuple):
    """The place of a tensor among those that the whole batch's context has saved."""

    number: int
    batched: bool | None  # None: a tensor that is of no vmap


class _State(NamedTuple):
    """What one call of a Function over a batch is about."""

    function: type[Function]
    batched: tuple[bool, ...]
    size: int
    randomness: str
    needs_input_grad: tuple[bool, ...]


def _stored(context: _Context, level: int, saved: list[Tensor]) -> _Context:
    """The context with slots for its tensors, which go to `saved` as they are outside of the vmap."""

    def store(x: Tensor) -> _Slot:
        behind, batched = _core.unbatch(x, level)
        saved.append(behind)
        return _Slot(len(saved) - 1, batched if _core.level_of(x) == level else None)

    return context.mapped(store)


def _restored(context: _Context, level: int, saved: Sequence[Tensor]) -> _Context:
    """The opposite of `_stored`, for another run on this level."""

    def restore(slot: _Slot) -> Tensor:
        x = saved[slot.number]
        return x if slot.batched is None else _core.batch(x, level, slot.batched)

    return context.mapped(restore)


@functools.cache
def _over_batch() -> type[Function]:
    from .function import Function as Base

    class OverBatch(Base):
        """A Function whose arguments have the batch as first axis, by the methods of one for examples."""

        generate_vmap_rule = True

        @staticmethod
        def forward(ctx: Any, state: _State, *given: Any) -> Any:
            ctx.state = state
            context = _Context(state.needs_input_grad)
            saved: list[Tensor] = []
            with _core.vmap_level(state.size, state.randomness) as level:
                inside = [
                    _core.batch(x, level, batched) if isinstance(x, Tensor) else x
                    for x, batched in zip(given, state.batched, strict=True)
                ]
                returned = state.function._forward_of(context, tuple(inside))
                listed = list(returned) if isinstance(returned, tuple) else [returned]
                fixed = [any(y is one for one in context._not_differentiable) for y in listed]
                outputs = [_full(y, level, state.size) if isinstance(y, Tensor) else y for y in listed]
                ctx.context = _stored(context, level, saved)
            ctx.save_for_backward(*saved)
            ctx.set_materialize_grads(context._materialize)
            ctx.mark_non_differentiable(*[y for y, no in zip(outputs, fixed, strict=True) if no])
            return tuple(outputs) if isinstance(returned, tuple) else outputs[0]

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> Any:
            state = ctx.state
            with _core.vmap_level(state.size, state.randomness) as level:
                context = _restored(ctx.context, level, ctx.saved_tensors)
                inside = [g if g is None else _core.batch(g, level) for g in grad_outputs]
                found = state.function._backward_of()(context, *inside)
                listed = list(found) if isinstance(found, tuple) else [found]
                if len(listed) == len(state.batched):
                    listed = [
                        _of_input(g, level, state.size, batched)
                        for g, batched in zip(listed, state.batched, strict=True)
                    ]
            return (None, *listed)

        @staticmethod
        def jvp(ctx: Any, _: Any, *grad_inputs: Any) -> Any:
            state = ctx.state
            with _core.vmap_level(state.size, state.randomness) as level:
                context = _restored(ctx.context, level, ctx.saved_tensors)
                if context._forward is not None:
                    context.saved_tensors = context._forward
                inside = [
                    t if t is None else _core.batch(t, level, batched)
                    for t, batched in zip(grad_inputs, state.batched, strict=True)
                ]
                found = state.function.jvp(context, *inside)
                outputs = [
                    None if t is None else _full(t, level, state.size)
                    for t in (found if isinstance(found, tuple) else (found,))
                ]
            return tuple(outputs) if isinstance(found, tuple) else outputs[0]

    return OverBatch


def _full(y: Tensor, level: int, size: int) -> Tensor:
    """A result with the batch as first axis."""
    behind, batched = _core.unbatch(y, level)
    return behind if batched else behind.expand(size, *behind.shape)


def _of_input(g: Any, level: int, size: int, batched: bool) -> Any:
    """The gradient of an argument: of all examples, or their sum where they share it."""
    if not isinstance(g, Tensor):
        return g
    whole = _full(g, level, size)
    return whole if batched else whole.sum(0)


def _generated(
    function: type[Function], args: Sequence[Any], pairs: Sequence[Any], level: int, size: int, randomness: str
) -> Any:
    needs = tuple(isinstance(x, Tensor) and _core.is_recorded(x) for x in args)
    state = _State(function, tuple(batched for _, batched in pairs), size, randomness, needs)
    returned = _over_batch().apply(state, *[x for x, _ in pairs])
    if isinstance(returned, tuple):
        return tuple(_core.batch(y, level) if isinstance(y, Tensor) else y for y in returned)
    return _core.batch(returned, level)
