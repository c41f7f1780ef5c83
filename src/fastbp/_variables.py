"""Which variables, attributes and entries of dicts a function reads by name, from its bytecode.

There is no analysis of values here: a chain such as `config.scale` or `TABLE["lr"]` that begins at a global, at a
variable of an enclosing function, at `self` or at a static argument is followed as far as instance dicts and plain
dicts go, and functions found on the way are read in turn. What code reaches in other ways (a list's elements, a local
name for an object, `getattr`) is not found.
"""

from __future__ import annotations

import builtins
import dis
import functools
import io
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

from . import _core
from ._core import RunEagerly, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FUNCTIONS_MOST = 2000
DEPTH_MOST = 16
_MISSING: Any = object()


class Chain(NamedTuple):
    """A name that code reads or binds, and what it reads of the object behind it: ("." or "[]", name or constant)."""

    kind: str  # "global", "free" or "parameter"
    name: str
    path: tuple[tuple[str, Any], ...]


class WeakMethod:
    """A function called as the method of an instance that it does not keep alive."""

    def __init__(self, function: Callable[..., Any], reference: Callable[[], Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.reference = reference

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self.reference(), *args, **kwargs)


# ------------------------------------------------------------------------------------------------ from bytecode


@functools.lru_cache(maxsize=512)
def chains_of(code: CodeType) -> tuple[Chain, ...]:
    """All chains of a function and of those inside it, each once."""
    parameters = frozenset(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return tuple(dict.fromkeys(_chains(code, parameters, parameters, frozenset(code.co_freevars))))


def _chains(code: CodeType, own: frozenset[str], outer: frozenset[str], free: frozenset[str]) -> Iterator[Chain]:
    """Chains of one code object with these parameters; `outer` and `free` are the names of the function around it."""
    root: tuple[str, str] | None = None
    path: list[tuple[str, Any]] = []
    constant = _MISSING
    for one in dis.get_instructions(code):
        op, value = one.opname, one.argval
        if root is not None:
            if op in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"):
                path.append((".", value))
                continue
            if op in ("BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR") or (op == "BINARY_OP" and one.argrepr == "[]"):
                if constant is not _MISSING and isinstance(constant, str | int):
                    path.append(("[]", constant))
                    constant = _MISSING
                    continue
            elif op in ("COPY", "DUP_TOP", "DUP_TOP_TWO", "EXTENDED_ARG", "CACHE"):
                continue
            elif op in ("LOAD_CONST", "LOAD_SMALL_INT") and constant is _MISSING:
                constant = value
                continue
            yield Chain(*root, tuple(path))
        root, path, constant = _root_of(op, value, own, outer, free), [], _MISSING
    if root is not None:
        yield Chain(*root, tuple(path))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _chains(inner, frozenset(), outer, free)


def _root_of(
    op: str, value: Any, own: frozenset[str], outer: frozenset[str], free: frozenset[str]
) -> tuple[str, str] | None:
    """Where an instruction begins a chain, or binds a name."""
    if op in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"):
        return ("global", value)
    if op.startswith("LOAD_FAST") or op == "STORE_FAST_LOAD_FAST":
        name = value[-1] if isinstance(value, tuple) else value
        return ("parameter", name) if name in own else None
    if op.endswith("_DEREF") or op.endswith("_DEREFS") or op == "LOAD_CLASSDEREF":
        if value in free:
            return ("free", value)
        return ("parameter", value) if value in outer else None
    return None


@functools.lru_cache(maxsize=1024)
def is_library(name: str | None) -> bool:
    """Whether a module is fastbp's, Python's own or an installed package: no one changes its names."""
    top = (name or "").partition(".")[0]
    if top == "fastbp" or top in sys.stdlib_module_names or top == "builtins":
        return True
    file = getattr(sys.modules.get(name or ""), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


# ------------------------------------------------------------------------------------------------ from objects


class Reader:
    """Finds what a function reads, and notes each thing as it is before the function has run.

    Attributes
    ----------
    variables : dict
        Variables found, by the identity of what holds them and the name.
    methods : dict
        Places in which objects would have an attribute in front of a method of their class that is called, likewise.
    classes, tensors : dict
        Classes whose methods and plain attributes are read, and tensors that are found, by identity.
    """

    def __init__(self, note_module: Callable[[Any], None]) -> None:
        self.variables: dict[tuple[int, Any], _core.Variable] = {}
        self.methods: dict[tuple[int, str], _core.Variable] = {}
        self.classes: dict[int, _core.ClassGuard] = {}
        self.tensors: dict[int, Tensor] = {}
        self._note_module = note_module
        self._seen: set[tuple[int, int, int]] = set()
        self._partial = 0  # identity of the functools.partial whose function is about to be read
        self._given: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # until the function itself is read
        self._own = ""  # the package that the function is from
        self._depth = 0

    def read(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """All that a function, a module or another callable reads when called with these arguments."""
        self._given = (args, kwargs)
        named = function.func if isinstance(function, functools.partial) else function
        self._own = (getattr(named, "__module__", None) or type(named).__module__).partition(".")[0]
        self.reach(function)

    def read_class(self, module: Any) -> None:
        """What the forward of a module of the user's own class reads."""
        kind = type(module)
        if self._is_library(kind.__module__):
            return
        self._watch_class(kind)
        for base in self._own_bases(kind):
            for name in ("forward", "__call__"):
                self._visit(vars(base).get(name), module)
        self.reach(module.__dict__.get("forward"))

    def _is_library(self, name: str | None) -> bool:
        top = (name or "").partition(".")[0]
        return is_library(name) and (top == "fastbp" or top != self._own)

    def _own_bases(self, kind: type) -> list[type]:
        return [one for one in kind.__mro__ if not self._is_library(one.__module__)]

    def _watch_class(self, kind: type) -> None:
        if id(kind) not in self.classes and not self._is_library(kind.__module__):
            self.classes[id(kind)] = _core.ClassGuard(kind, self._own_bases(kind))

    def _add(self, holder: Any, key: Any, text: str) -> Any:
        """Note a variable; returns its value."""
        place = (id(holder), key)
        if place not in self.variables:
            self.variables[place] = _core.Variable(holder, key, text)
        return self.variables[place].now()

    # ---- callables -----------------------------------------------------------------------------------------------

    def reach(self, value: Any) -> None:
        """A function, a module or another object that code has found by name."""
        from .compiler import BoundCompiled, Compiled
        from .nn.module import Module

        if self._depth > DEPTH_MOST or value is None or isinstance(value, int | float | str):
            return
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            raise RunEagerly(f"it names a {type(value).__name__}, which gives something else each time", forever=True)
        self._depth += 1
        if isinstance(value, Tensor):
            self.tensors[id(value)] = value
            for hook in _core.hooks_of(value):
                self.reach(hook)
        elif isinstance(value, Module):
            self._note_module(value)
        elif isinstance(value, type):
            self._reach_class(value)
        elif isinstance(value, Compiled):
            self.reach(value._function)
        elif isinstance(value, BoundCompiled):
            self.reach(value._compiled)
        elif isinstance(value, WeakMethod):
            self._visit(value.function, value.reference())
        elif isinstance(value, MethodType):
            self._reach_method(value.__func__, value.__self__)
        elif isinstance(value, FunctionType):
            self._visit(value, None)
        elif isinstance(value, functools.partial):
            self._reach_partial(value)
        elif hasattr(value, "__wrapped__"):  # by a function in C
            self.reach(value.__wrapped__)
        elif callable(value) and not self._is_library(type(value).__module__):
            self._watch_class(type(value))
            for base in self._own_bases(type(value)):
                self._visit(vars(base).get("__call__"), value)
        elif isinstance(getattr(value, "__self__", None), type):  # the apply of an autograd.Function
            self._reach_class(value.__self__)
        self._depth -= 1

    def _reach_class(self, kind: type) -> None:
        """A class that code names: what it has, and what its rules read where it is an autograd.Function."""
        from .autograd import Function

        self._watch_class(kind)
        for base in self._own_bases(kind) if issubclass(kind, Function) else ():
            for name in ("forward", "backward", "vjp", "jvp", "vmap", "setup_context"):
                found = vars(base).get(name)
                self._visit(found.__func__ if isinstance(found, staticmethod) else found, None)

    def _reach_method(self, function: Any, instance: Any) -> None:
        from .nn.module import Module

        if isinstance(instance, type):
            self._reach_class(instance)
        if isinstance(instance, Module):
            self._note_module(instance)
        self._visit(function, instance)

    def _reach_partial(self, value: functools.partial[Any]) -> None:
        """What a function reads that is called with these arguments, and with those of a call of the compiled one."""
        for one in (*value.args, *value.keywords.values()):
            given, self._given = self._given, None
            self.reach(one)
            self._given = given
        args, kwargs = self._given or ((), {})
        self._given = ((*value.args, *args), {**value.keywords, **kwargs})
        self._partial = id(value)
        self.reach(value.func)
        self._given, self._partial = None, 0

    def _visit(self, function: Any, instance: Any) -> None:
        """What a function and what it wraps read, as methods of `instance` where there is one."""
        key = (id(function), id(instance), self._partial)
        if function is None or key in self._seen or len(self._seen) > FUNCTIONS_MOST:
            return
        self._seen.add(key)
        self._visit(getattr(function, "__wrapped__", None), instance)
        if not isinstance(function, FunctionType):
            return
        if instance is not None and not isinstance(instance, type):
            self._watch_class(type(instance))
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if self._is_library(function.__module__):  # a wrapper of the user's function, perhaps
            for cell in cells.values():
                self.reach(_content(cell))
            return
        parameters = self._parameters(function, instance)
        self._depth += 1
        for chain in chains_of(function.__code__):
            value = self._begin(chain, function, cells, parameters)
            if value is not _MISSING and value is not _core.Absent and self._depth <= DEPTH_MOST:
                self._follow(value, chain)
        self._depth -= 1

    def _parameters(self, function: FunctionType, instance: Any) -> dict[str, Any]:
        """What stands for parameters: self, defaults, what a partial has bound, arguments of the compiled function."""
        code = function.__code__
        names = code.co_varnames[: code.co_argcount]
        known = dict(function.__kwdefaults__ or {})
        defaults = function.__defaults__ or ()
        known.update(zip(names[len(names) - len(defaults) :], defaults, strict=True))
        own = 1 if instance is not None and names else 0
        if own:
            known[names[0]] = instance
        if self._given is not None:
            args, kwargs = self._given
            self._given, self._partial = None, 0
            known.update(zip(names[own:], args, strict=False))
            known.update(kwargs)
        return known

    # ---- chains --------------------------------------------------------------------------------------------------

    def _begin(
        self, chain: Chain, function: FunctionType, cells: dict[str, CellType], parameters: dict[str, Any]
    ) -> Any:
        if chain.kind == "parameter":
            return parameters.get(chain.name, _MISSING)
        if chain.kind == "free":
            if chain.name == "__class__":
                return _MISSING
            return self._add(cells[chain.name], None, f"variable {chain.name} around {function.__name__}")
        names = function.__globals__
        if chain.name not in names and hasattr(builtins, chain.name):
            return _MISSING
        return self._add(names, chain.name, f"global variable {chain.name}")

    def _follow(self, value: Any, chain: Chain) -> None:
        """Along a chain to its end, or as far as it can be seen."""
        text = chain.name
        for kind, key in chain.path:
            value = self._unwrapped(value)
            text = f"{text}.{key}" if kind == "." else f"{text}[{key!r}]"
            value = self._attribute(value, key, text) if kind == "." else self._entry(value, key, text)
            if value is _MISSING or value is _core.Absent:
                return
        self.reach(value)

    def _unwrapped(self, value: Any) -> Any:
        from .compiler import BoundCompiled, Compiled

        while isinstance(value, Compiled | BoundCompiled):
            value = value._function if isinstance(value, Compiled) else value._compiled
        return value

    def _entry(self, value: Any, key: Any, text: str) -> Any:
        if isinstance(value, dict) and type(value).__getitem__ is dict.__getitem__:
            return self._add(value, key, text)
        if type(value) in (list, tuple) and isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
        return _MISSING

    def _attribute(self, value: Any, name: str, text: str) -> Any:
        """An attribute, without running any code of the object's: from its dict, or from its class."""
        from .nn.module import Module
        from .optim import Optimizer

        if isinstance(value, ModuleType):
            return _MISSING if self._is_library(value.__name__) else self._add(vars(value), name, text)
        if isinstance(value, type):
            self._reach_class(value)
            return self._from_class(value, name, None)
        if isinstance(value, Tensor):
            self.tensors[id(value)] = value  # its attributes are compared with it
            return _core._attributes_of(value).get(name, _MISSING)
        if isinstance(value, FunctionType | BuiltinFunctionType | MethodType):
            return _MISSING
        if isinstance(value, Module):
            self._note_module(value)  # its own attributes are compared with it
        attributes: Any = getattr(value, "__dict__", None)
        if isinstance(value, Optimizer) and (name in attributes or name in ("param_groups", "state")):
            return _MISSING  # what it holds is followed as the numbers of an optimizer are
        if type(attributes) is not dict:
            return self._from_class(type(value), name, value)
        is_own = not isinstance(value, Module) and type(value).__module__.partition(".")[0] != "fastbp"
        if name in attributes:
            return self._add(attributes, name, text) if is_own else attributes[name]
        found = self._from_class(type(value), name, value)
        if not is_own:
            return found
        if found is not _MISSING or not hasattr(type(value), name):
            self._add(attributes, name, text)  # absent now
        elif callable(getattr(type(value), name)) and (id(attributes), name) not in self.methods:
            self.methods[id(attributes), name] = _core.Variable(attributes, name, text)
        if found is _MISSING and isinstance(value, dict) and dict.__contains__(value, name):
            return self._add(value, name, text)  # a dict whose entries are its attributes too
        return found

    def _from_class(self, kind: type, name: str, instance: Any) -> Any:
        """What a class has under a name; methods and properties are read, and are no value."""
        self._watch_class(kind)
        for base in self._own_bases(kind):
            if name not in vars(base):
                continue
            found = vars(base)[name]
            if isinstance(found, property):
                self._visit(found.fget, instance)
            elif isinstance(found, classmethod):
                self._visit(found.__func__, kind)
            elif isinstance(found, staticmethod):
                self._visit(found.__func__, None)
            elif isinstance(found, functools.partialmethod):
                self.reach(functools.partial(MethodType(found.func, instance), *found.args, **found.keywords))
            elif isinstance(self._unwrapped(found), FunctionType) or hasattr(found, "__wrapped__"):
                self._visit(self._unwrapped(found), instance)
            else:
                return found
            return _MISSING
        return _MISSING


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None
