"""A module's state by name: what it consists of, and loading it whole or not at all."""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING

from .. import _core
from .._core import Tensor
from .parameter import Parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from .module import Module


class IncompatibleKeys(namedtuple("IncompatibleKeys", ["missing_keys", "unexpected_keys"])):
    """What `Module.load_state_dict` returns: the names that did not match, empty where all did."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


def state_places(module: Module, prefix: str = "") -> Iterator[tuple[str, Module, str]]:
    """Yield (dotted name, owning module, attribute) of all that ``module.state_dict`` holds, in its order.

    These are the parameters and the persistent buffers that are not None, each module's own before its children's.
    A tensor with two names is met twice, as in PyTorch.
    """
    attributes = module.__dict__
    for name in module._parameter_names:
        if attributes[name] is not None:
            yield prefix + name, module, name
    for name, persistent in module._buffer_names.items():
        if persistent and attributes[name] is not None:
            yield prefix + name, module, name
    for name in module._module_names:
        if attributes[name] is not None:
            yield from state_places(attributes[name], f"{prefix}{name}.")


def load_state(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Do what `Module.load_state_dict` says: first find every fault, then change the module."""
    if not hasattr(state_dict, "keys"):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    places = {name: (owner, attribute) for name, owner, attribute in state_places(module)}
    missing = [name for name in places if name not in state_dict]
    unexpected = [name for name in state_dict if name not in places]
    errors = []
    if strict and unexpected:
        errors.append(f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
    if strict and missing:
        errors.append(f"Missing key(s) in state_dict: {_quoted(missing)}. ")

    loads = []
    for name, (owner, attribute) in places.items():
        if name not in state_dict:
            continue
        value, current = _as_tensor(name, state_dict[name]), owner.__dict__[attribute]
        if tuple(value.shape) != tuple(current.shape):
            errors.append(
                f"size mismatch for {name}: copying a param with shape {tuple(value.shape)} from checkpoint, "
                f"the shape in current model is {tuple(current.shape)}."
            )
        loads.append((owner, attribute, current, value))
    if errors:
        raise RuntimeError(f"Error(s) in loading state_dict for {module._get_name()}:\n\t" + "\n\t".join(errors))

    with _core.no_grad():
        for owner, attribute, current, value in loads:
            if not assign:
                current.copy_(value)
            elif isinstance(current, Parameter):
                setattr(owner, attribute, Parameter(value.detach(), current.requires_grad))
            else:
                setattr(owner, attribute, value)
    return IncompatibleKeys(missing, unexpected)


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _as_tensor(name: str, value: Any) -> Tensor:
    """The value of one entry of a state_dict as a tensor; raises RuntimeError where it cannot be one."""
    if isinstance(value, Tensor):
        return value
    import numpy

    try:
        return _core.from_numpy(numpy.array(value, order="C"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise RuntimeError(
            f'While copying the parameter named "{name}", expected a tensor or an array but received {type(value)}.'
        ) from error
