#!/usr/bin/env python3
"""Writes src/fastbp/_core.pyi, the types of the extension, from the built module.

    python tools/generate_stub.py            # write the file
    python tools/generate_stub.py --check    # exit 1 where the file is not what would be written

Names, parameters and defaults are those of the module: its Cython functions answer `inspect.signature`. Their types are
found by name in tools/stub_types.py. A name that is missing there stops the program, so that nothing becomes `Any`
unnoticed.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from pathlib import Path
from types import ModuleType

from stub_types import (
    ALIASES,
    ATTRIBUTES,
    CLASSES,
    HEADER,
    OVERLOADS,
    PARAMETERS,
    PROTOCOL_LEFT_OUT,
    RETURNS,
    SPECIAL,
    STARRED,
)

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "src" / "fastbp" / "_core.pyi"


def load_core() -> ModuleType:
    """The built extension: that of the fastbp which this Python imports."""
    from fastbp import _core

    return _core


def declared_names(core: ModuleType) -> list[str]:
    """Names that belong in the stub, sorted.

    All public ones, but for Python's own functions under another name, and the private functions, which
    fastbp.testing and the tests use.
    """

    def is_declared(name: str, value: object) -> bool:
        if name.startswith("_"):
            return type(value).__name__ == "cython_function_or_method" and not name.startswith("__")
        return not name.startswith("builtin_") and not isinstance(value, ModuleType)

    return sorted(name for name, value in vars(core).items() if is_declared(name, value))


def lookup(table: dict[str, str], *names: str) -> str | None:
    """The entry of the first of `names` that has one."""
    return next((table[name] for name in names if name in table), None)


def parameter_type(owner: str, function: str, parameter: inspect.Parameter) -> str:
    """Type text of a parameter."""
    particular = (f"{owner}{function}.{parameter.name}", f"{function}.{parameter.name}")
    found = lookup(PARAMETERS, *particular)
    if found is None and parameter.kind is parameter.VAR_POSITIONAL:
        found = STARRED.get(parameter.name)
    found = found or PARAMETERS.get(parameter.name)
    if found is None:
        raise SystemExit(f"tools/generate_stub.py: no type for {particular[0]}; add it to PARAMETERS in stub_types.py")
    if parameter.default is None and "None" not in found and "Any" not in found:
        found += " | None"
    return found


def signature_text(owner: str, function: str, signature: inspect.Signature) -> str:
    """Parameters with types and defaults, in parentheses."""
    parts, starred = [], False
    for at, parameter in enumerate(signature.parameters.values()):
        if owner and at == 0:
            parts.append(parameter.name)
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        prefix = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        prefix = "**" if parameter.kind is parameter.VAR_KEYWORD else prefix
        starred = starred or prefix == "*"
        text = f"{prefix}{parameter.name}: {parameter_type(owner, function, parameter)}"
        parts.append(text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}")
    return f"({', '.join(parts)})"


def parameter_names(text: str) -> set[str]:
    """Names of all parameters of the functions in a text."""
    return {node.arg for node in ast.walk(ast.parse(text)) if isinstance(node, ast.arg)}


def function_text(function: str, signature: inspect.Signature, owner: str = "", decorator: str = "") -> str:
    """The stub of a function or, with an `owner` such as "Tensor.", of a method."""
    overloads = OVERLOADS.get(owner + function) or OVERLOADS.get(function)
    if overloads:
        first = "self" if owner else "input: _Operand"
        lines = [f"def {function}{text.format(first=first)}: ...\n" for text in overloads]
        if parameter_names("".join(lines)) != set(signature.parameters):
            raise SystemExit(f"tools/generate_stub.py: {owner}{function} has other parameters now; mend OVERLOADS")
        return lines[0] if len(lines) == 1 else "".join("@overload\n" + line for line in lines)
    result = lookup(RETURNS, owner + function, function)
    if result is None:
        result = "Self" if owner and function.endswith("_") else "Tensor"
    return f"{decorator}def {function}{signature_text(owner, function, signature)} -> {result}: ...\n"


def special_text(name: str) -> str:
    """The stub of a method that the interpreter calls, "" for one that `object` describes well enough."""
    short = name.strip("_")
    if short in PROTOCOL_LEFT_OUT:
        return ""
    if short not in SPECIAL:
        raise SystemExit(f"tools/generate_stub.py: no type for Tensor.{name}; add it to SPECIAL")
    declared, _, comment = SPECIAL[short].partition(":  #")
    return f"def {name}{declared}: ...{'  #' + comment if comment else ''}\n"


def attribute_text(name: str) -> str:
    """The stub of a property of Tensor."""
    if name not in ATTRIBUTES:
        raise SystemExit(f"tools/generate_stub.py: no type for Tensor.{name}; add it to ATTRIBUTES")
    kind, _, settable = ATTRIBUTES[name].partition("; settable: ")
    text = f"@property\ndef {name}(self) -> {kind}: ...\n"
    return text + (f"@{name}.setter\ndef {name}(self, value: {settable}) -> None: ...\n" if settable else "")


def tensor_text(tensor: type) -> str:
    """The stub of class Tensor."""
    text = ""
    for name, member in sorted(vars(tensor).items()):
        if name.startswith("__"):
            text += special_text(name)
        elif isinstance(member, bool):
            text += f"{name}: _bool\n"
        elif isinstance(member, staticmethod):
            text += function_text(name, inspect.signature(member.__func__), "Tensor.").replace(
                "def ", "@staticmethod\ndef ", 1
            ).replace("(cls,", f"(cls: {PARAMETERS[name + '.cls']},")  # fmt: skip
        elif callable(member):
            text += function_text(name, inspect.signature(member), "Tensor.")
        else:
            text += attribute_text(name)
    return "class Tensor:\n" + "".join(f"    {line}" for line in text.splitlines(keepends=True))


def generate(core: ModuleType) -> str:
    """The whole stub's text."""
    text = HEADER
    for name in sorted(vars(core)):
        if name.startswith("_") and name.endswith("_result"):
            fields = "".join(f"    {field}: Tensor\n" for field in getattr(core, name)._fields)
            text += f"class {name}(NamedTuple):\n{fields}\n"
    names = declared_names(core)
    classes = [name for name in names if isinstance(getattr(core, name), type)]
    for name in classes:
        if name == "Tensor":
            text += tensor_text(core.Tensor) + "\n"
        elif name in CLASSES:
            text += CLASSES[name] + "\n"
        else:
            raise SystemExit(f"tools/generate_stub.py: no text for class {name}; add it to CLASSES")
    text += ALIASES
    for name in names:
        value = getattr(core, name)
        if name in classes:
            continue
        constant = f"{name}: {type(value).__name__}\n"
        text += function_text(name, inspect.signature(value)) if callable(value) else constant
    return text


def main() -> int:
    """Write the stub, or compare it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file would change")
    check = parser.parse_args().check
    text = generate(load_core())
    fresh = STUB.exists() and STUB.read_text() == text
    if check:
        return 0 if fresh else 1
    if not fresh:
        STUB.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
