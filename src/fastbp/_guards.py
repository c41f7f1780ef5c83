"""What a captured function reads besides its arguments: modules, variables, classes, and tensors that it keeps."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING

from . import _core
from ._core import RunEagerly, Tensor
from ._tree import is_container, parts
from ._variables import Reader, is_library

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VARIABLES_MOST = 32  # compared at each call


class World:
    """Python's state as a capture finds it: noted before the function has changed anything, compared at its end.

    A context manager; within it, modules that are called, read as containers or changed are noted too.

    Attributes
    ----------
    unwatched : list of str
        After `guards()`: variables beyond the `VARIABLES_MOST` that a call compares.
    """

    def __init__(
        self, function: Any, capture: _core.Capture, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> None:
        self.unwatched: list[str] = []
        self._modules: dict[int, Any] = {}  # held, so that the ids stay taken
        self._guards: dict[int, _core.ModuleGuard] = {}
        self._inner: dict[int, Any] = {}  # modules that the function itself makes
        self._capture = capture
        self._reader = Reader(self.note)
        self._alone = threading.active_count() == 1
        self._random = [(name, read, read(), write) for name, read, write in _generators_of_the_host()]
        capture.world = self
        capture.on_failure(self._restore)
        self._reader.read(function, args, kwargs or {})

    def __enter__(self) -> World:
        from .nn import module

        module._watchers.append(_note_module)
        return self

    def __exit__(self, *error: object) -> None:
        from .nn import module

        module._watchers.remove(_note_module)

    def note(self, module: Any, made: bool = False) -> None:
        """The function depends on a module and all below it; one that it has made itself is its own affair."""
        if made or "_module_names" not in module.__dict__:
            self._inner[id(module)] = module
            return
        found = [module]
        while found:
            one = found.pop()
            if id(one) in self._modules or id(one) in self._inner:
                continue
            self._modules[id(one)] = one
            guard = self._guards[id(one)] = _core.ModuleGuard(one)
            attributes = one.__dict__
            found.extend(attributes[name] for name in guard.children() if attributes.get(name) is not None)
            self._reader.read_class(one)
            for hook in _hooks_of(one):
                self._reader.reach(hook)
            tensors = {id(value): value for value in attributes.values() if isinstance(value, Tensor)}
            self._reader.tensors.update(tensors)

    def guards(self) -> _core.Guards:
        """What must be at each call as it was before this one.

        Raises
        ------
        RunEagerly
            When the function has changed some of it, which a plan would not do again.
        """
        for kind, read, before, _ in self._random:
            if read() != before:
                raise RunEagerly(
                    f"it draws from {kind}, which a plan would not do again; fastbp.rand() draws at each call"
                )
        if self._alone and len(_generators_of_the_host()) > len(self._random):
            raise RunEagerly("it loads a module that has random numbers")
        version = _core.world_version()
        variables = list(self._reader.variables.values())
        classes = list(self._reader.classes.values())
        methods = list(self._reader.methods.values())
        noted: list[Any] = [*variables, *methods, *classes, *self._guards.values()]
        for one in noted:
            change = one.change()
            if change is not None:
                raise RunEagerly(f"it changes state that a plan would not change again ({' '.join(change)})")
        modules = [_core.ModuleGuard(self._modules[key]) if one.partial else one for key, one in self._guards.items()]
        for guard in modules:
            name = guard.symbolic_name()
            if name is not None:
                raise RuntimeError(
                    f"compile: {name} of {guard.kind} is bound to a tensor of the function, which has no values after "
                    f"it, and which later calls would not renew; write into the present one: self.{name}.copy_(...)"
                )
        chosen = sorted((one for one in variables if _may_change(one)), key=lambda one: not _is_plain(one.value))
        self.unwatched = [one.text for one in chosen[VARIABLES_MOST:]]
        guards = _core.Guards(modules, classes, [*chosen, *methods][:VARIABLES_MOST], version)
        given = {id(one) for one in self._capture.given}  # which have no attributes, or the function would run itself
        guards.watch_tensors([one for key, one in self._reader.tensors.items() if key not in given])
        return guards

    def _restore(self) -> None:
        """The capture has failed: modules are as they were, and all else too where the function is to run itself."""
        everything = self._capture.eager is not None
        for guard in self._guards.values():
            guard.restore(everything)
        if everything:
            for _, _, before, write in self._random:
                write(before)
            reader = self._reader
            named: list[Any] = [*reader.variables.values(), *reader.methods.values(), *reader.classes.values()]
            for one in named:
                one.restore()


def _generators_of_the_host() -> list[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
    """The random numbers of Python and of NumPy, where they are loaded: name, how to read the state, how to set it.

    None where there are other threads, whose draws cannot be told from the function's.
    """
    found: list[tuple[str, Callable[[], Any], Callable[[Any], Any]]] = []
    if threading.active_count() > 1:
        return found
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    if python is not None:
        found.append(("random", python.getstate, python.setstate))
    if numpy is not None:
        found.append(("numpy.random", lambda: _comparable(numpy.get_state()), numpy.set_state))
    return found


def _comparable(state: Any) -> Any:
    """A state of NumPy's generator with its numbers as a list."""
    name, numbers, *rest = state
    return (name, numbers.tolist(), *rest)


def _note_module(module: Any, made: bool = False) -> None:
    """What `nn.module._watchers` call: the capture of this thread, where there is one, depends on a module."""
    capture = _core.current_capture()
    if capture is not None and capture.world is not None:
        capture.world.note(module, made)


def _hooks_of(module: Any) -> list[Any]:
    """The hooks of a module, and of its own parameters and buffers."""
    found: list[Any] = []
    hooks = module.__dict__.get("_hooks")
    if hooks is not None:
        found += [one for one, *_ in (*hooks.forward_pre.values(), *hooks.forward.values())]
        found += hooks.full_backward.values()
    for value in module.__dict__.values():
        if isinstance(value, Tensor):
            found += _core.hooks_of(value)
    return found


def _is_plain(value: Any, depth: int = 100) -> bool:
    """A number, a string, None, or a tuple of such, not nested more deeply than the guards look."""
    if isinstance(value, tuple):
        return depth > 0 and all(_is_plain(one, depth - 1) for one in value)
    return value is None or value is _core.Absent or isinstance(value, bool | int | float | complex | str | bytes)


def _may_change(variable: _core.Variable) -> bool:
    """Whether a variable is worth a look at each call: not names that are imported or defined once."""
    value = variable.value
    if isinstance(value, ModuleType) or (isinstance(value, Tensor) and _core.is_symbolic(value)):
        return False
    if isinstance(value, FunctionType | BuiltinFunctionType | type) or callable(value):
        is_own_name = getattr(value, "__name__", None) == variable.key
        return not (is_own_name and is_library(getattr(value, "__module__", None)))
    return True


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


def check_objects(result: Any) -> None:
    """Raise RunEagerly where a result is an iterator or an object that holds tensors: each call makes its own."""
    if is_container(result):
        for one in parts(result):
            check_objects(one)
    elif isinstance(result, Iterator):
        raise RunEagerly(f"it returns a {type(result).__name__}, which runs once", forever=True)
    elif not _is_plain(result) and _holds_tensors(result):
        raise RunEagerly(f"it returns a {type(result).__name__} that holds tensors", forever=True)


def _holds_tensors(value: Any) -> bool:
    """Whether symbolic tensors are among the thousand objects next to this one."""
    found, seen = [value], set[int]()
    while found and len(seen) < 1000:
        one = found.pop(0)
        if id(one) in seen or isinstance(one, type | ModuleType | BuiltinFunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            if _core.is_symbolic(one):
                return True
        elif isinstance(one, FunctionType):
            found.extend(one.__closure__ or ())
        else:
            found.extend(gc.get_referents(one))
    return False


def warn_of_variables(function: Any, names: list[str]) -> None:
    """Warn of variables whose changes no call will see."""
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    warnings.warn(
        f"compile: {name_of(function)} reads more than {VARIABLES_MOST} variables; a call does not look whether these "
        f"have changed: {shown}. Put them into attributes of a Module, or pass them as arguments",
        stacklevel=6,
    )


def name_of(function: Any) -> str:
    """A function, or the class of what is called like one, for messages."""
    return getattr(function, "__qualname__", type(function).__name__)
