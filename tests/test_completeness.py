"""Nothing is forgotten: every row of the op table has a reference, a case, a benchmark, a function and a doc line.

Each test fails with the names of the rows that lack something.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
from cases import ELEMENTWISE, PARAMETERS, POINTWISE, PREDICATES, PUBLIC, ROWS, function
from structural_cases import ELSEWHERE, STRUCTURAL

import fastbp
import fastbp.nn.functional as F
from fastbp import _core
from fastbp.reference import OPS
from fastbp.testing.translate import TRANSLATIONS, parameter_names

ROOT = Path(__file__).resolve().parent.parent

# Elementwise rows that have no method in PyTorch either: they are functions of nn.functional, or parts of losses.
FUNCTIONS_ONLY = {
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_tanh",
    "silu",
    "softplus",
    "mish",
    "hardtanh",
    "log_sigmoid",
    "squared_error",
    "absolute_error",
    "smooth_absolute_error",
    "huber_error",
    "binary_entropy",
    "binary_entropy_with_logits",
}


def without_reference() -> list[str]:
    return [name for name in ROWS if name not in OPS]


def without_case() -> list[str]:
    cased = {case.op for case in STRUCTURAL} | set(ELSEWHERE)
    return [name for name, row in ROWS.items() if row["class"] not in ELEMENTWISE and name not in cased]


def test_every_row_has_a_reference() -> None:
    assert without_reference() == []


def test_every_row_has_a_case() -> None:
    assert without_case() == []
    for path in ELSEWHERE.values():
        assert (ROOT / path).is_file(), path


def test_every_case_has_a_row() -> None:
    assert sorted({case.op for case in STRUCTURAL} - set(ROWS)) == []
    assert sorted({*PARAMETERS, *PUBLIC, *FUNCTIONS_ONLY, *ELSEWHERE} - set(ROWS)) == []


def test_every_parameter_is_tried() -> None:
    missing = [name for name in (*POINTWISE, *PREDICATES) if parameter_names(ROWS[name]) and name not in PARAMETERS]
    assert missing == []


def test_every_row_that_can_be_recorded_can_be_replayed() -> None:
    recorded = [name for name, row in ROWS.items() if row["vjp"] and row["class"] not in ELEMENTWISE]
    assert [name for name in recorded if name not in TRANSLATIONS] == []
    assert sorted(set(TRANSLATIONS) - set(ROWS)) == []


def test_every_differentiable_row_has_both_modes() -> None:
    differentiable = ("pointwise", "linear", "bilinear", "general")
    assert [n for n, row in ROWS.items() if row["class"] in differentiable and not (row["vjp"] and row["jvp"])] == []
    assert [n for n, row in ROWS.items() if row["class"] in ("predicate", "nodiff", "update") and row["vjp"]] == []


@pytest.mark.parametrize("name", [*POINTWISE, *PREDICATES])
def test_every_elementwise_row_is_a_function_with_a_docstring(name: str) -> None:
    assert callable(function(name))
    if name not in PUBLIC:
        assert (getattr(_core, name).__doc__ or "").strip(), f"{name}: no docstring"
        assert hasattr(fastbp, name) or hasattr(F, name), f"{name}: not in fastbp or fastbp.nn.functional"


@pytest.mark.parametrize("name", [name for name in (*POINTWISE, *PREDICATES) if name not in FUNCTIONS_ONLY])
def test_every_elementwise_row_is_a_method(name: str) -> None:
    assert callable(getattr(fastbp.Tensor, name, None)), f"Tensor.{name} is missing"


def test_every_row_has_a_doc_line_and_a_domain() -> None:
    assert [name for name, row in ROWS.items() if not row["doc"].strip().endswith((".", ")"))] == []
    assert [name for name in POINTWISE if not ROWS[name]["domain"][0] < ROWS[name]["domain"][1]] == []


def benchmark_cases() -> ModuleType:
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module("benchmarks.op_cases")
    finally:
        sys.path.remove(str(ROOT))


def test_every_row_has_a_benchmark() -> None:
    if not (ROOT / "benchmarks" / "op_cases.py").is_file():
        pytest.skip("not in a checkout: benchmarks are not installed")
    assert benchmark_cases().complaints(fastbp, list(ROWS.values())) == []
