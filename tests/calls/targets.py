"""All that a program can call, read, set or delete in fastbp, found by walking it."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import pkgutil
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastbp

# Modules that are not walked, and why.
MODULES_LEFT_OUT = {
    "fastbp.__main__": "the command line: reads arguments of the process and exits",
    "fastbp.demo": "trains for seconds and draws on the terminal; it calls what is walked elsewhere",
    "fastbp.reference": "plain Python over lists, for tests: it does not reach the extension",
}
# Callables that are not called, and why.
LEFT_OUT = {
    "fastbp.set_num_threads": "a million threads is what was asked for; tests/test_threads.py has its wrong arguments",
    "fastbp._core.threads": "as set_num_threads",
    "fastbp.testing.translate.random_words": "plain Python, and a million words are what was asked for",
    "fastbp._core.SymbolicNumber.__round__": "Python's own round() of an int to -2**63 digits takes forever",
    "fastbp.testing.check_program": "compiles the program that it is given, in many ways: seconds a call",
}
# Slots that object itself has, or that tell nothing.
SLOTS_LEFT_OUT = {
    "__class__", "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__init__",
    "__new__", "__init_subclass__", "__subclasshook__", "__class_getitem__", "__slots__", "__match_args__",
    "__orig_bases__", "__parameters__", "__abstractmethods__", "__static_attributes__", "__firstlineno__",
    "__pyx_vtable__", "__pyx_capi__",
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A parameter: its name, its annotation as text, whether it has a default, and inspect's kind."""

    name: str
    annotation: str
    optional: bool
    kind: str
    default: str = ""


@dataclass
class Target:
    """Something to do: `kind` is "function", "class", "new", "method", "static", "get", "set" or "delete".

    `path` is how it is written; of methods and attributes `owner` is the path of the class.
    """

    path: str
    kind: str
    owner: str = ""
    parameters: list[Parameter] | None = None  # without self; None where nothing is known
    names: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path if self.kind in ("function", "class", "method", "static") else f"{self.path} ({self.kind})"


def modules() -> list[types.ModuleType]:
    """fastbp, its public modules, and the extension."""
    found = [fastbp]
    for one in pkgutil.walk_packages(fastbp.__path__, "fastbp."):
        parts = one.name.split(".")[1:]
        left_out = any(one.name == out or one.name.startswith(out + ".") for out in MODULES_LEFT_OUT)
        if not left_out and all(not part.startswith("_") for part in parts):
            found.append(importlib.import_module(one.name))
    found[1:] = sorted(found[1:], key=lambda one: (one.__name__.count("."), one.__name__))
    return [fastbp, importlib.import_module("fastbp._core"), *found[1:]]


def is_ours(value: Any) -> bool:
    """Whether a callable is one of fastbp's."""
    module = getattr(value, "__module__", None) or ""
    return str(module).split(".")[0] == "fastbp" or type(value).__name__ == "cython_function_or_method"


def annotations_of_stub() -> dict[str, dict[str, tuple[str, bool]]]:
    """Annotations of the extension's functions and methods, which stand in its stub alone."""
    tree = ast.parse((Path(fastbp.__file__).parent / "_core.pyi").read_text())
    found: dict[str, dict[str, tuple[str, bool]]] = {}

    def note(prefix: str, function: ast.FunctionDef) -> None:
        known = found.setdefault(prefix + function.name, {})
        every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        every += [one for one in (function.args.vararg, function.args.kwarg) if one is not None]
        for one in every:
            if one.annotation is not None:
                text = ast.unparse(one.annotation)
                known[one.arg] = (known[one.arg][0] + " | " + text if one.arg in known else text, True)

    for one in tree.body:
        if isinstance(one, ast.FunctionDef):
            note("", one)
        elif isinstance(one, ast.ClassDef):
            for inner in one.body:
                if isinstance(inner, ast.FunctionDef):
                    note(one.name + ".", inner)
    return found


STUB = annotations_of_stub()


def parameters_of(value: Any, bound: bool, stub: str = "") -> list[Parameter] | None:
    """The parameters of a callable, without self where it is `bound`; None where they cannot be found."""
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return None
    known = STUB.get(stub, {})
    found = []
    for one in list(signature.parameters.values())[1 if bound else 0 :]:
        annotation = one.annotation
        text = "" if annotation is inspect.Parameter.empty else str(getattr(annotation, "__name__", annotation))
        text = known.get(one.name, (text, False))[0]
        default = "" if one.default is inspect.Parameter.empty else repr(one.default)
        found.append(Parameter(one.name, text, bool(default), one.kind.name, default))
    return found


# Parameters of slots, which tell no signature.
SLOT_PARAMETERS = {0: [], 1: ["other"], 2: ["key", "value"]}
UNARY = set(
    [
        "repr",
        "str",
        "hash",
        "len",
        "iter",
        "next",
        "neg",
        "pos",
        "abs",
        "invert",
        "bool",
        "int",
        "float",
        "index",
        "complex",
        "del",
        "enter",
        "reduce",
        "getstate",
        "copy",
        "dir",
        "sizeof",
        "await",
        "aiter",
        "anext",
        "trunc",
        "floor",
        "ceil",
    ]
)


def slot_parameters(name: str) -> list[Parameter]:
    bare = name.strip("_")
    count = 0 if bare in UNARY else 2 if bare in ("setitem", "setattr", "set") else 1
    names = SLOT_PARAMETERS[count]
    if bare in ("getattribute", "getattr", "delattr", "setattr"):
        names = ["name", "value"][:count]
    return [Parameter(one, "", False, "POSITIONAL_ONLY") for one in names]


def of_class(path: str, kind: type) -> list[Target]:
    """The constructor, `__new__`, and all that stands in the class itself."""
    found = [Target(path, "class", path, parameters_of(kind, False, f"{kind.__name__}.__init__"))]
    found.append(Target(path, "new", path, []))
    for name, value in sorted(vars(kind).items()):
        slot = name.startswith("__") and name.endswith("__")
        if name in SLOTS_LEFT_OUT or (name.startswith("_") and not slot):
            continue
        full = f"{path}.{name}"
        if full in LEFT_OUT:
            continue
        if isinstance(value, (property, types.GetSetDescriptorType, types.MemberDescriptorType)):
            found += [Target(full, way, path, []) for way in ("get", "set", "delete")]
        elif isinstance(value, (staticmethod, classmethod)):
            bound = getattr(kind, name)
            if callable(bound):
                found.append(Target(full, "static", path, parameters_of(bound, False, f"{kind.__name__}.{name}")))
        elif callable(value) and not isinstance(value, type):
            known = parameters_of(value, True, f"{kind.__name__}.{name}")
            if known is None and slot:
                known = slot_parameters(name)
            found.append(Target(full, "method", path, known))
    return found


def targets() -> list[Target]:
    """Everything, in a fixed order."""
    seen: dict[int, str] = {}
    found: list[Target] = []
    for module in modules():
        for name in sorted({*dir(module), *getattr(module, "__all__", ())}):  # some are made when they are asked for
            value = getattr(module, name)
            hidden = name.startswith("__") or (name.startswith("_") and module.__name__ != "fastbp._core")
            path = f"{module.__name__}.{name}"
            if hidden or not callable(value) or not is_ours(value) or id(value) in seen:
                continue
            if path in LEFT_OUT or getattr(value, "__module__", "") in ("typing", "__future__"):
                continue
            seen[id(value)] = path
            if isinstance(value, type):
                found += of_class(path, value)
            elif not isinstance(value, fastbp.dtype):
                with contextlib.suppress(AttributeError):
                    found.append(Target(path, "function", "", parameters_of(value, False, name)))
    return found
