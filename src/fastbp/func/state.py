"""Modules as functions of their parameters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from ..nn import Module


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other tensors in place of its parameters and buffers (torch.func.functional_call).

    The module is as before afterwards, also where the call raises.

    Parameters
    ----------
    module : Module
    parameter_and_buffer_dicts : dict of str to Tensor, or sequence of such
        By the names of `named_parameters` and `named_buffers`; what is left out stays the module's own.
    args : any or tuple, optional
        Positional arguments; one that is no tuple is the only one. Default: none.
    kwargs : dict, optional
        Default: none.
    tie_weights : bool, optional
        A tensor given for one of several names of the same parameter stands for all of them. Default: True.
    strict : bool, optional
        Raise for names that are missing or unknown. Default: False.

    Returns
    -------
    What the module returns.

    Raises
    ------
    TypeError
        For values that are no tensors.
    RuntimeError
        For unknown names, and with `strict` for missing ones.
    ValueError
        For a name in two of several dicts, or different tensors for tied names.

    Examples
    --------
    >>> model = fastbp.nn.Linear(2, 1)
    >>> given = {"weight": fastbp.ones(1, 2), "bias": fastbp.zeros(1)}
    >>> fastbp.func.functional_call(model, given, fastbp.tensor([1., 2.]))
    tensor([3.])
    """
    given = _merged(parameter_and_buffer_dicts)
    arguments = () if args is None else args if isinstance(args, tuple) else (args,)
    slots = _slots(module)
    _check_names(slots, given, strict, type(module).__name__)
    if tie_weights:
        given = _tied(slots, given)
    with _replaced(slots, given):
        return module(*arguments, **(kwargs or {}))


def _merged(dicts: Any) -> dict[str, Tensor]:
    whole: dict[str, Tensor] = {}
    for one in [dicts] if hasattr(dicts, "items") else dicts:
        repeated = sorted(whole.keys() & one.keys())
        if repeated:
            raise ValueError(f"functional_call: {repeated[0]!r} appears in more than one dictionary")
        whole.update(one)
    for name, value in whole.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"functional_call: {name!r} must be a Tensor, got {type(value).__name__}")
    return whole


def _slots(module: Module) -> dict[str, tuple[dict[str, Any], str]]:
    """Where each parameter and buffer stands, tied ones under each of their names."""
    found = {}
    for prefix, child in module.named_modules(remove_duplicate=False):
        for name in (*child._parameter_names, *child._buffer_names):
            if child.__dict__.get(name) is not None:
                found[f"{prefix}.{name}" if prefix else name] = (child.__dict__, name)
    return found


def _check_names(slots: Mapping[str, Any], given: Mapping[str, Any], strict: bool, kind: str) -> None:
    unknown = [name for name in given if name not in slots]
    missing = [name for name in slots if name not in given] if strict else []
    if unknown or missing:
        raise RuntimeError(
            f"Error(s) in loading state_dict for {kind}: functional_call: "
            + "; ".join(
                f"{text} key(s): {', '.join(map(repr, names))}"
                for text, names in (("Unexpected", unknown), ("Missing", missing))
                if names
            )
        )


def _tied(slots: Mapping[str, tuple[dict[str, Any], str]], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was given for one name of a tensor, for all its names."""
    by_tensor: dict[int, tuple[str, Tensor]] = {}
    for name, value in given.items():
        attributes, attribute = slots[name]
        earlier = by_tensor.setdefault(id(attributes[attribute]), (name, value))
        if earlier[1] is not value:
            raise ValueError(
                f"functional_call: {earlier[0]!r} and {name!r} are tied, but two different tensors were given for them"
            )
    whole = {}
    for name, (attributes, attribute) in slots.items():
        found = by_tensor.get(id(attributes[attribute]))
        if found is not None:
            whole[name] = found[1]
    return whole


@contextmanager
def _replaced(slots: Mapping[str, tuple[dict[str, Any], str]], given: Mapping[str, Tensor]) -> Iterator[None]:
    """Buffers that the call itself rebinds are put back too."""
    before = [(attributes, name, attributes[name]) for attributes, name in slots.values()]
    try:
        for name, value in given.items():
            attributes, attribute = slots[name]
            attributes[attribute] = value
        _core.world_moved()
        yield
    finally:
        for attributes, name, value in before:
            attributes[name] = value
        _core.world_moved()


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers of several models of one architecture, stacked for `vmap` (torch.func.stack_module_state).

    Parameters
    ----------
    models : sequence of Module
        Of one class and in one mode (training or not).

    Returns
    -------
    parameters, buffers : dict of str to Tensor
        Each with the models as new first dimension; parameters are leaves that require grad where all of theirs do.

    Raises
    ------
    RuntimeError
        For no models, different classes or modes.

    Examples
    --------
    >>> models = [fastbp.nn.Linear(2, 1) for _ in range(3)]
    >>> parameters, buffers = fastbp.func.stack_module_state(models)
    >>> parameters["weight"].shape
    fastbp.Size([3, 1, 2])
    """
    if len(models) == 0:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({type(one) for one in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    if len({one.training for one in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    return (
        _stacked([dict(one.named_parameters()) for one in models]),
        _stacked([dict(one.named_buffers()) for one in models]),
    )


def _stacked(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    whole = {}
    for name in states[0]:
        each = [one[name] for one in states]
        stacked = _core.stack([one.detach() for one in each])
        whole[name] = stacked.requires_grad_() if all(one.requires_grad for one in each) else stacked
    return whole
