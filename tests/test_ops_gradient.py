"""Derivatives of every row: against the reference, against finite differences, by both modes, to second order.

Finite differences and the identity <J'u, v> = <u, J v> are told by `fastbp.testing.check_grads`, in float64. The fused
cotangent kernels of elementwise rows are held to the reference's vjp on each instruction set and in both types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from cases import (
    EPSILON,
    FLOATS,
    ISAS,
    POINTWISE,
    ROWS,
    Case,
    Operand,
    draw,
    elementwise_dtypes,
    elementwise_operands,
    function,
    kernels,
    parameters,
)
from layouts import laid_out
from structural_cases import STRUCTURAL

import fastbp
from fastbp import _core
from fastbp.reference import OPS
from fastbp.testing import check_grads
from fastbp.testing.replay import to_numpy, to_reference

Array = np.ndarray[Any, Any]

SMOOTH = [name for name in POINTWISE if "float64" in elementwise_dtypes(name)]

# Greatest error of a cotangent in units of its largest element: partials are products and quotients of elementary
# functions of 4 units each, and summing back to a broadcast operand adds up some.
PULL_BOUND = 32.0


def leaves(arrays: list[Array], layout: str = "contiguous", operands: Sequence[Operand] = ()) -> list[fastbp.Tensor]:
    """Tensors that require grad where they can and are not constants."""
    tensors = [laid_out(a, layout) for a in arrays]
    for i, x in enumerate(tensors):
        x.requires_grad_(x.is_floating_point() and not (operands and operands[i].constant))
    return tensors


def over_free_operands(case: Case, arrays: list[Array]) -> tuple[Callable[..., Any], list[Array]]:
    """The case as a function of its operands that are no constants, and those.

    Finite differences move an operand that is symmetric along symmetric matrices: its rule holds there.
    """
    fixed = {i: fastbp.from_numpy(a) for i, a in enumerate(arrays) if case.operands[i].constant}

    symmetric = [getattr(operand, "symmetric", False) for operand in case.operands if not operand.constant]

    def call(*free: fastbp.Tensor) -> Any:
        given = iter([(x + x.mT) / 2 if is_symmetric else x for x, is_symmetric in zip(free, symmetric, strict=True)])
        return case.call(*(fixed[i] if i in fixed else next(given) for i in range(len(arrays))))

    return call, [a for i, a in enumerate(arrays) if i not in fixed]


def assert_pulled(
    what: str, tensors: list[fastbp.Tensor], y: fastbp.Tensor, cotangent: fastbp.Tensor, wanted: Any
) -> None:
    """Compare the core's gradients with the reference's, None of which are zeros."""
    inputs = [x for x in tensors if x.requires_grad]
    found = _core.grad(y, inputs, cotangent, allow_unused=True)
    expected = [w for x, w in zip(tensors, wanted, strict=True) if x.requires_grad]
    for number, (x, g, w) in enumerate(zip(inputs, found, expected, strict=True)):
        zeros = np.zeros(tuple(x.shape))
        one, two = zeros if g is None else g.numpy(), zeros if w is None else to_numpy(w)
        assert one.shape == two.shape, f"{what}: gradient {number} has shape {one.shape}"
        scale = max(1.0, float(np.abs(two).max(initial=0.0)))
        worst = float(np.abs(one - two).max(initial=0.0)) / (EPSILON[x.dtype.name] * scale)
        assert worst <= PULL_BOUND, f"{what}: gradient {number} errs by {worst:.3g} units, {PULL_BOUND} are allowed"


# ---- elementwise rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMOOTH)
def test_elementwise_cotangents_on_every_kernel(name: str) -> None:
    for dtype in FLOATS:
        arrays = elementwise_operands(name, dtype, (3, 43), 1)
        cotangent = np.random.default_rng(2).standard_normal((3, 43)).astype(dtype)
        for words in parameters(name):
            wanted = OPS[name].vjp(to_reference(cotangent), *(to_reference(a) for a in arrays), **words)
            wanted = wanted or (None,) * len(arrays)
            for isa in ISAS:
                for layout in ("contiguous", "transposed", "stepped"):
                    with kernels(isa):
                        tensors = leaves(arrays, layout)
                        y = function(name)(*tensors, **words)
                        assert_pulled(
                            f"{name}: {dtype}, {isa}, {layout}, {words}",
                            tensors,
                            y,
                            laid_out(cotangent, layout),
                            wanted,
                        )


@pytest.mark.parametrize("name", [name for name in SMOOTH if ROWS[name]["arity"] > 1])
def test_elementwise_cotangents_are_summed_to_broadcast_operands(name: str, isa: str) -> None:
    for shapes in (
        ((3, 1), (1, 4), (4,)),
        ((), (5,), (2, 1)),
        ((2, 3, 4), (3, 1), ()),
        ((0, 3), (3,), (1, 3)),
        ((5,), (), ()),
    ):
        for order in (shapes, shapes[::-1]):
            used = order[: ROWS[name]["arity"]]
            arrays = [elementwise_operands(name, "float32", shape, i)[i] for i, shape in enumerate(used)]
            tensors = leaves(arrays)
            y = function(name)(*tensors, **parameters(name)[0])
            cotangent = np.asarray(np.random.default_rng(3).standard_normal(tuple(y.shape))).astype(np.float32)
            inputs = [to_reference(a) for a in arrays]
            wanted = OPS[name].vjp(to_reference(cotangent), *inputs, **parameters(name)[0])
            assert_pulled(f"{name}: {isa}, {used}", tensors, y, fastbp.from_numpy(cotangent), wanted)


@pytest.mark.parametrize("name", SMOOTH)
def test_elementwise_derivatives_to_second_order(name: str) -> None:
    for words in parameters(name, smooth=True):
        for seed, shapes in enumerate((((2, 3),) * 3, ((2, 3),) * 3, ((2, 1), (3,), ()), ((), (3,), (2, 1)))):
            used = shapes[: ROWS[name]["arity"]]
            arrays = [elementwise_operands(name, "float64", s, seed, smooth=True)[i] for i, s in enumerate(used)]
            check_grads(lambda *xs, words=words: function(name)(*xs, **words), *arrays)


# ---- the other rows ------------------------------------------------------------------------------------------------

DIFFERENTIABLE = [case for case in STRUCTURAL if case.smooth]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_structural_cotangents_on_every_kernel(case: Case) -> None:
    for dtype in (dtype for dtype in case.dtypes if dtype in FLOATS):
        arrays = draw(case.operands, dtype, 4)
        inputs = [to_reference(np.asarray(a)) for a in (case.inputs(arrays) if case.inputs else arrays)]
        for isa in ISAS:
            with kernels(isa):
                tensors = leaves(arrays, "stepped", case.operands)
                y = case.call(*tensors)
                cotangent = np.asarray(np.random.default_rng(5).standard_normal(tuple(y.shape))).astype(y.dtype.name)
                wanted = list(OPS[case.reference].vjp(to_reference(cotangent), *inputs, **case.attributes))[
                    : len(tensors)
                ]
                if case.op == "reshape" and len(case.attributes["shape"]) == 2 and case.inputs:
                    wanted = None  # the case's own transposition is not the reference's: finite differences see to it
                if wanted is not None:
                    assert_pulled(f"{case}: {dtype}, {isa}", tensors, y, laid_out(cotangent, "transposed"), wanted)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_structural_derivatives_to_second_order(case: Case) -> None:
    dtype = next(dtype for dtype in ("float64", *case.dtypes) if dtype in case.dtypes)
    if dtype != "float64":
        pytest.skip("the operand is a float32: finite differences would see its rounding")
    call, arrays = over_free_operands(case, draw(case.operands, dtype, 6))
    check_grads(call, *arrays)


# ---- between rows --------------------------------------------------------------------------------------------------


def test_every_row_that_has_rules_is_differentiated() -> None:
    covered = {*SMOOTH, *(case.op for case in DIFFERENTIABLE)}
    missing = [name for name, row in ROWS.items() if row["vjp"] and name not in covered]
    whole_numbers = [name for name in missing if ROWS[name]["kind"] == "I"]
    linear_in_all_but_ties = ["extreme_grad"]  # reached, and checked, as the second derivative of amax and amin
    assert sorted(set(missing) - set(whole_numbers)) == linear_in_all_but_ties


def test_casts_pass_gradients_between_the_types() -> None:
    x = fastbp.tensor([1.5, 2.5], requires_grad=True)
    (x.to(fastbp.float64) * 2.0).sum().backward()
    assert x.grad.dtype == fastbp.float32 and x.grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("order", [3, 4])
def test_higher_orders(order: int) -> None:
    x = fastbp.tensor([0.3, -0.4], dtype=fastbp.float64)
    check_grads(lambda x: (x.sin() * x.exp()).sum(), x, order=order, modes=("rev",))


def test_many_views_of_a_changed_base_have_its_history() -> None:
    """Joining five views of an array that was changed through another door: each carries the change's derivative."""
    x = fastbp.ones(4, requires_grad=True)
    base = x * 1.0
    view = base[:2]
    base.mul_(2.0)
    fastbp.cat([view] * 5).sum().backward()
    assert x.grad.tolist() == [10.0, 10.0, 0.0, 0.0]
