"""What a captured function touches besides its arguments: the modules that it calls, and tensors that it keeps."""

from __future__ import annotations

import functools
import gc
import warnings
from typing import TYPE_CHECKING

from . import _core
from ._core import Tensor

if TYPE_CHECKING:
    from typing import Any


class watching:
    """Context manager: calls of modules are noted by this thread's capture."""

    def __enter__(self) -> None:
        from .nn import module

        module._watchers.append(_note_module)

    def __exit__(self, *error: object) -> None:
        from .nn import module

        module._watchers.remove(_note_module)


def _note_module(module: Any) -> None:
    """The capture of this thread, where there is one, depends on a module; should it fail, the module is as it was."""
    capture = _core.current_capture()
    if capture is None or any(one is module for one in capture.modules):
        return
    capture.modules.append(module)
    for child in module.modules():
        names = (*child._parameter_names, *child._buffer_names, *child._module_names)
        present = {name: child.__dict__[name] for name in names if name in child.__dict__}
        before = {name: value for name, value in present.items() if not _is_symbolic(value)}
        capture.on_failure(functools.partial(child.__dict__.update, before))


def _is_symbolic(value: Any) -> bool:
    """Whether this is a tensor of the captured function, in a module in place of its own (functional_call)."""
    return isinstance(value, Tensor) and _core.is_symbolic(value)


def check_kept(function: Any, capture: Any, known: list[Any]) -> None:
    """Warn of tensors that the function has put somewhere: they have no values, and no later call will change them."""
    if capture.kept(known):
        gc.collect()  # cycles of references that no one holds
    if capture.kept(known):
        warnings.warn(
            f"compile: {name_of(function)} keeps a tensor outside of itself (in an attribute, a list, a variable of "
            "an outer function, or a cycle of references); that tensor has no values, and later calls do not renew it: "
            "return it, or write into a tensor that is there before (state.copy_(value))",
            stacklevel=6,
        )


def guards_of(modules: list[Any]) -> list[tuple[dict[str, Any], str, Any]]:
    """What must stay as it is in modules that the function called: flags, parameters, buffers, children."""
    found: dict[int, Any] = {}
    for one in modules:
        for child in one.modules():
            found[id(child)] = child
    guards = []
    for module in found.values():
        attributes = module.__dict__
        for name in ("training", *module._parameter_names, *module._buffer_names, *module._module_names):
            if name in attributes:
                if _is_symbolic(attributes[name]):
                    raise RuntimeError(
                        f"compile: {name} of {type(module).__name__} is bound to a tensor of the function, which has "
                        "no values after it, and which later calls would not renew; write into the present one: "
                        f"self.{name}.copy_(...)"
                    )
                guards.append((attributes, name, attributes[name]))
    return guards


def name_of(function: Any) -> str:
    """A function, or the class of what is called like one, for messages."""
    return getattr(function, "__qualname__", type(function).__name__)
