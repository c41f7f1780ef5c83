"""The committed types of the extension are those of the built extension."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

import fastbp
from fastbp import _core

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "src" / "fastbp" / "_core.pyi"
REFRESH = "run `python tools/generate_stub.py` with the built package and commit src/fastbp/_core.pyi"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module("generate_stub")
    finally:
        sys.path.remove(str(ROOT / "tools"))


def declared(text: str) -> dict[str, set[str]]:
    """Names that a stub declares: of the module under "", of each class under its name."""
    found: dict[str, set[str]] = {"": set()}
    for node in ast.parse(text).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[""].add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[""].add(node.name)
        if isinstance(node, ast.ClassDef):
            found[node.name] = {member.name for member in node.body if isinstance(member, ast.FunctionDef)} | {
                member.target.id
                for member in node.body
                if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name)
            }
    return found


def test_every_public_name_of_the_extension_is_in_the_stub_and_vice_versa(generator: ModuleType) -> None:
    in_stub = {name for name in declared(STUB.read_text())[""] if not name.endswith(("_result", "_HasArray"))}
    in_module = set(generator.declared_names(_core))
    assert sorted(in_module - in_stub) == [], f"missing in the stub; {REFRESH}"
    assert sorted(in_stub - in_module) == [], f"no longer in the module; {REFRESH}"


@pytest.mark.parametrize("name", ["Tensor", "Generator", "GradFunction", "dtype", "device_type", "Size"])
def test_every_public_member_of_a_class_is_in_the_stub_and_vice_versa(name: str) -> None:
    in_stub = {member for member in declared(STUB.read_text())[name] if not member.startswith("_")}
    in_module = {member for member in vars(getattr(_core, name)) if not member.startswith("_")}
    assert in_stub == in_module, REFRESH


def test_the_stub_is_what_the_generator_writes(generator: ModuleType) -> None:
    assert STUB.read_text() == generator.generate(_core), REFRESH


def test_a_parameter_without_a_type_stops_the_generator(generator: ModuleType) -> None:
    namespace: dict[str, object] = {}
    exec("def planted(unheard_of): ...", namespace)
    signature = generator.inspect.signature(namespace["planted"])
    with pytest.raises(SystemExit, match=r"no type for planted\.unheard_of"):
        generator.function_text("planted", signature)


def test_an_overload_that_lost_a_parameter_stops_the_generator(generator: ModuleType) -> None:
    namespace: dict[str, object] = {}
    exec("def max(input, dim=None, keepdim=False, *, other=None, axis=None, planted=None): ...", namespace)
    with pytest.raises(SystemExit, match="max has other parameters"):
        generator.function_text("max", generator.inspect.signature(namespace["max"]))


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(fastbp.__file__).parent / "py.typed").is_file()
