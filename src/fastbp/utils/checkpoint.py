"""Trading time for memory: intermediate values are computed again in backward (torch.utils.checkpoint)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from .. import _core
from .._core import SavedTensor, Tensor
from .._tree import flatten, unflatten

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential", "noop_context_fn"]

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


class CheckpointError(RuntimeError):
    """The function computed something else in backward than it did in forward."""


def noop_context_fn() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """The default of `checkpoint`'s `context_fn`: contexts that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Contexts = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """Call a function, keeping its arguments and results alone; backward() runs it again for what lies between.

    The function is differentiated by its tensor arguments, also inside of lists, tuples and dicts, and by what else it
    uses, such as parameters of modules. Checkpoints may be nested, and higher derivatives work. While a function is
    compiled, the plan decides what to keep, and this is a plain call.

    Parameters
    ----------
    function : callable
        Must do the same when it is called again.
    *args, **kwargs
        Its arguments.
    use_reentrant, debug, early_stop
        Accepted for PyTorch's sake: this is its ``use_reentrant=False`` in any case.
    context_fn : callable, optional
        Returns two context managers, for the call and for the call in backward.
    determinism_check : {"default", "none"}, optional
        Whether the shapes and dtypes of the results are compared. Default: "default".
    preserve_rng_state : bool, optional
        Put the default generator back for the call in backward, so that dropout draws the same numbers. Default: True.

    Returns
    -------
    What the function returns.

    Raises
    ------
    CheckpointError
        In backward, when the second call returned other shapes or dtypes.
    RuntimeError
        In backward, when a tensor among the arguments was changed in place.
    ValueError
        For another `determinism_check`.

    Examples
    --------
    >>> x = fastbp.tensor(2.0, requires_grad=True)
    >>> y = fastbp.utils.checkpoint.checkpoint(lambda x: x * x * x, x)
    >>> y.backward()
    >>> x.grad
    tensor(12.)
    """
    if determinism_check not in ("default", "none"):
        raise ValueError(f'checkpoint: determinism_check must be "default" or "none", got {determinism_check!r}')
    if _core.capturing():  # the planner computes the region again where the backward reads it
        with _core.recomputed_region():
            return function(*args, **kwargs)
    forward_context, backward_context = context_fn()
    if not _core.is_grad_enabled():
        with forward_context:
            return function(*args, **kwargs)
    given: list[Any] = []
    structure = flatten((args, kwargs), given)
    saved = [SavedTensor(x, "checkpoint") if isinstance(x, Tensor) else x for x in given]
    state = _core.get_rng_state() if preserve_rng_state else None
    since = _core.sequence_now()
    made: list[Any] = []
    with forward_context:
        result = flatten(function(*args, **kwargs), made)
    tensors = [y for y in made if isinstance(y, Tensor)]
    likes = [(tuple(y.shape), y.dtype) for y in tensors]
    del args, kwargs, given

    def again() -> list[Tensor]:
        chosen = [x.unpack() if isinstance(x, SavedTensor) else x for x in saved]
        positional, named = unflatten(structure, iter(chosen))
        remade: list[Any] = []
        with _random_state(state), backward_context:
            flatten(function(*positional, **named), remade)
        fresh = [y for y in remade if isinstance(y, Tensor)]
        if determinism_check == "default" or len(fresh) != len(likes):
            _compare([(tuple(y.shape), y.dtype) for y in fresh], likes)
        return fresh

    kept = iter(_core.forget_graph(tensors, since, again))
    return unflatten(result, iter([next(kept) if isinstance(y, Tensor) else y for y in made]))


@contextlib.contextmanager
def _random_state(state: Tensor | None) -> Any:
    """The default generator as it was, for a while."""
    if state is None:
        yield
        return
    now = _core.get_rng_state()
    _core.set_rng_state(state)
    try:
        yield
    finally:
        _core.set_rng_state(now)


def _compare(found: list[Any], expected: list[Any]) -> None:
    if found != expected:
        raise CheckpointError(
            "checkpoint: recomputed values have different metadata than during the forward pass: "
            f"{len(expected)} results {expected} then, {len(found)} results {found} now; the function must do the same "
            "when it is called again"
        )


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Call functions one after another, in segments that are checkpointed, all but the last.

    Parameters
    ----------
    functions : nn.Sequential or sequence of callable
        Each takes the result of the one before.
    segments : int
        How many, from 1 to the number of functions.
    input : Tensor
        Of the first function.
    use_reentrant, **kwargs
        Of `checkpoint`; `preserve_rng_state` alone among the latter.

    Returns
    -------
    What the last function returns.

    Raises
    ------
    ValueError
        For a number of segments out of range.
    TypeError
        For other keyword arguments.

    Examples
    --------
    >>> layers = fastbp.nn.Sequential(*[fastbp.nn.Linear(3, 3) for _ in range(4)])
    >>> fastbp.utils.checkpoint.checkpoint_sequential(layers, 2, fastbp.ones(1, 3)).shape
    fastbp.Size([1, 3])
    """
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise TypeError(f"checkpoint_sequential: Unexpected keyword arguments: {', '.join(kwargs)}")
    listed = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if isinstance(segments, bool) or not isinstance(segments, int) or not 1 <= segments <= max(len(listed), 1):
        raise ValueError(
            f"checkpoint_sequential: segments must be from 1 to the {len(listed)} functions, got {segments!r}"
        )
    size = len(listed) // segments
    for number in range(segments - 1):
        part = _in_turn(listed[number * size : (number + 1) * size])
        input = checkpoint(part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
    return _in_turn(listed[(segments - 1) * size :])(input)


def _in_turn(functions: Sequence[Callable[..., Any]]) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        for function in functions:
            value = function(value)
        return value

    return run
