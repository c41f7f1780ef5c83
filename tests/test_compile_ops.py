"""Every row of the op table as a line of a plan: values and derivatives equal those of eager calls.

One plan computes a row, one its reverse sweep, and one a pass forward over that sweep: what `docs/ops.md` says in its
column "compiled" is tried here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from cases import (
    POINTWISE,
    PREDICATES,
    ROWS,
    Array,
    Case,
    draw,
    elementwise_dtypes,
    elementwise_operands,
    function,
    parameters,
)
from structural_cases import ELSEWHERE, STRUCTURAL
from test_vmap_ops import free, tensors

import fastbp
from fastbp import func

# Chains of fused ops round as the single ones do; sums that are fused with what feeds them add in another order
# (docs/compile.md), some roundings of float64 at these sizes.
TOLERANCE = {"rtol": 1e-13, "atol": 1e-14}

REFUSED = {name for name, row in ROWS.items() if row["value_shaped"]}


def assert_compiled(what: str, call: Callable[..., Any], given: Sequence[fastbp.Tensor]) -> None:
    """Twice, for the second call runs a plan that is there."""
    wanted = tensors(call(*given))
    compiled = fastbp.compile(lambda *a: tuple(tensors(call(*a))))
    for _ in range(2):
        found = compiled(*given)
        for one, like in zip(found, wanted, strict=True):
            assert (one.shape, one.dtype) == (like.shape, like.dtype), what
            np.testing.assert_allclose(one.detach().numpy(), like.detach().numpy(), **TOLERANCE, err_msg=what)


def check(what: str, call: Callable[..., Any], arrays: Sequence[Array], constant: Sequence[bool], smooth: bool) -> None:
    given = [fastbp.from_numpy(a.copy()) for a in arrays]
    assert_compiled(what, call, given)
    if not smooth:
        return
    of, reals = free(call, given, constant)

    def pulled(*at: fastbp.Tensor) -> tuple[fastbp.Tensor, ...]:
        outputs, pull = func.vjp(of, *at)
        return tuple(pull(tuple(fastbp.ones_like(one) for one in outputs)))

    assert_compiled(f"{what}: vjp", pulled, reals)
    tangents = tuple(fastbp.full_like(one, 0.5) for one in reals)
    assert_compiled(f"{what}: jvp", lambda *at: func.jvp(of, at, tangents)[1], reals)
    assert_compiled(f"{what}: jvp of vjp", lambda *at: func.jvp(pulled, at, tangents)[1], reals)


@pytest.mark.parametrize("name", [*POINTWISE, *PREDICATES])
def test_elementwise_rows(name: str) -> None:
    dtypes = elementwise_dtypes(name)
    dtype = "float64" if "float64" in dtypes else dtypes[0]
    for words in parameters(name):
        call = functools.partial(function(name), **words)
        for shapes in (((3, 43),) * 3, ((43,), (3, 1), ())):
            used = shapes[: ROWS[name]["arity"]]
            arrays = [elementwise_operands(name, dtype, shape, i)[i] for i, shape in enumerate(used)]
            constant = [a.dtype.kind != "f" for a in arrays]
            smooth = name in POINTWISE and dtype == "float64"
            check(f"{name} {words} {shapes}", call, arrays, constant, smooth)


@pytest.mark.parametrize("case", [case for case in STRUCTURAL if case.op not in REFUSED], ids=str)
def test_structural_rows(case: Case) -> None:
    if ROWS[case.op]["arity"] == 0 or case.op == "dropout":
        pytest.skip("drawn or constant: test_compile_state.py compiles them")
    dtype = "float64" if "float64" in case.dtypes else case.dtypes[0]
    constant = [operand.constant for operand in case.operands]
    check(str(case), case.call, draw(case.operands, dtype), constant, case.smooth and dtype == "float64")


@pytest.mark.parametrize("case", [case for case in STRUCTURAL if case.op in REFUSED], ids=str)
def test_refused_rows_say_why(case: Case) -> None:
    given = [fastbp.from_numpy(a) for a in draw(case.operands, case.dtypes[0])]
    with pytest.raises(RuntimeError, match="depends on values"):
        fastbp.compile(case.call)(*given)


def test_every_row_is_tried() -> None:
    assert sorted(set(ROWS) - {*POINTWISE, *PREDICATES, *(case.op for case in STRUCTURAL), *ELSEWHERE}) == []
