"""Every row of the op table against the reference: dtype x instruction set x layout, tails, broadcasting, infinities.

Inputs are rounded to the dtype first, so that the reference, which computes in float64, sees just what the kernel sees.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
from cases import (
    ALL,
    EPSILON,
    FLOATS,
    ISAS,
    POINTWISE,
    PREDICATES,
    ROWS,
    Case,
    draw,
    elementwise_dtypes,
    elementwise_operands,
    function,
    kernels,
    parameters,
)
from layouts import LAYOUTS, laid_out
from structural_cases import STRUCTURAL

import fastbp
from fastbp import _core
from fastbp.reference import OPS, cast_value
from fastbp.testing.replay import to_numpy, to_reference

Array = np.ndarray[Any, Any]

# ---- elementwise rows ----------------------------------------------------------------------------------------------

# Greatest error in units of the last place, beside half a unit of rounding the exact result.
EXACT = 0.5 + 1e-6  # + - * / sqrt and choices round once, by IEEE 754; the rest is the reference's own rounding
ULPS: dict[str, float] = {
    **dict.fromkeys(
        (
            "neg",
            "abs",
            "sign",
            "square",
            "sqrt",
            "reciprocal",
            "add",
            "sub",
            "mul",
            "div",
            "minimum",
            "maximum",
            "clamp",
            "floor",
            "ceil",
            "round",
            "trunc",
            "relu",
            "hardtanh",
            "where",
            "floor_divide",
            "fmod",
        ),
        EXACT,
    ),
    "leaky_relu": 1.0,  # a product with a slope that was itself rounded
    "rsqrt": 1.5,  # a root and a quotient
    "remainder": 1.0,  # fmod is exact, a divisor added to it rounds
}
ELEMENTARY = 4.0  # the kernels' promise for functions made of polynomials, with one more operation or two about them

# In float64 the reference errs as well: it rounds the argument of erfc or the sigmoid, which is steep in the tail.
REFERENCE_ULPS = {"gelu": 8.0, "gelu_tanh": 8.0}

# Rows whose result is a difference of larger numbers: errors in units of those (floor), not of what is left of them.
FLOORS: dict[str, float] = {
    "squared_error": 0.0,
    "absolute_error": 0.0,
    "binary_entropy": 2.0,  # the sum of two logarithms' products
    "binary_entropy_with_logits": 2.0,  # (1 - t) x + softplus(-x)
    "smooth_absolute_error": 1.0,  # |d| - beta/2
    "huber_error": 1.0,
}


def exact(name: str, arrays: list[Array], words: dict[str, Any]) -> Array:
    """The reference's result, in float64 or whole numbers."""
    made = OPS[name].forward(*(to_reference(a) for a in arrays), **words)
    return np.array(made.values).reshape(made.shape)


def error_in_ulps(found: Array, wanted: Array, floor: float) -> float:
    """Largest error in units of the last place of the wanted number (or of `floor`, where that is larger)."""
    spacing = np.spacing(np.maximum(np.abs(wanted), floor).astype(found.dtype)).astype(np.float64)
    both_nan = np.isnan(found) & np.isnan(wanted)
    with np.errstate(invalid="ignore"):
        error = np.where((found == wanted) | both_nan, 0.0, np.abs(found.astype(np.float64) - wanted) / spacing)
    return float(np.max(error, initial=0.0)) if not np.isnan(error).any() else math.inf


def assert_elementwise(name: str, found: fastbp.Tensor, wanted: Array, dtype: str, what: str) -> None:
    """Compare a result with the reference's: in units of the last place, or exactly where it is of whole numbers."""
    array = found.numpy()
    assert array.shape == wanted.shape, f"{name}: {what}: shape {array.shape}, the reference has {wanted.shape}"
    if ROWS[name]["class"] == "predicate":
        assert found.dtype == fastbp.bool
        assert np.array_equal(array, wanted), f"{name}: {what}"
    elif array.dtype.kind == "f":
        bound = ULPS.get(name, ELEMENTARY) + (REFERENCE_ULPS.get(name, 0.0) if array.dtype == np.float64 else 0.0)
        error = error_in_ulps(array, wanted.astype(np.float64), FLOORS.get(name, 0.0))
        assert error <= bound, f"{name}: {what}: {error:.3g} units in the last place, {bound} are allowed"
    else:
        assert found.dtype == getattr(fastbp, dtype), f"{name}: {what}: dtype {found.dtype}"
        wrapped = np.array([cast_value(v, dtype) for v in wanted.ravel().tolist()]).reshape(wanted.shape)
        assert np.array_equal(array, wrapped), f"{name}: {what}"


def computed_dtype(name: str, dtype: str) -> str:
    """Dtype of an elementwise result."""
    return "float32" if ROWS[name]["kind"] == "F" and dtype not in FLOATS else dtype


def seed_of(text: str) -> int:
    return zlib.crc32(text.encode())


@pytest.mark.parametrize("name", [*POINTWISE, *PREDICATES])
def test_elementwise_on_every_kernel_and_layout(name: str) -> None:
    for dtype in elementwise_dtypes(name):
        arrays = elementwise_operands(name, dtype, (5, 43), seed_of(name + dtype))
        for words in parameters(name):
            wanted = exact(name, arrays, words)
            for isa in ISAS:
                for layout in LAYOUTS:
                    with kernels(isa):
                        found = function(name)(*(laid_out(a, layout) for a in arrays), **words)
                    assert_elementwise(
                        name, found, wanted, computed_dtype(name, dtype), f"{dtype}, {isa}, {layout}, {words}"
                    )


@pytest.mark.parametrize("name", [*POINTWISE, *PREDICATES])
def test_elementwise_at_every_length(name: str) -> None:
    """Around the vectors' widths nothing is lost, written twice or computed otherwise: a result does not depend on its
    neighbours or its place."""
    for dtype in ("float32", "float64", "int32") if "float32" in elementwise_dtypes(name) else ("int32", "uint8"):
        arrays = elementwise_operands(name, dtype, (70,), seed_of("length" + name))
        for isa in ISAS:
            with kernels(isa):
                words = parameters(name)[0]
                whole = function(name)(*(fastbp.from_numpy(a) for a in arrays), **words).numpy()
                for n in range(70):
                    part = function(name)(*(fastbp.from_numpy(a[70 - n :].copy()) for a in arrays), **words).numpy()
                    same = np.array_equal(part, whole[70 - n :], equal_nan=part.dtype.kind == "f")
                    assert same, f"{name}: {dtype}, {isa}: the last {n} of 70 elements differ from those computed alone"


SHAPES = [
    ((3, 1), (1, 4), (4,)),
    ((2, 3, 4), (4,), (3, 1)),
    ((), (5,), (1,)),
    ((), (), ()),
    ((0, 3), (3,), (1, 3)),
    ((1,), (2, 1, 2), ()),
    ((3, 5), (), (3, 5)),
    ((5,), (5, 1), (5, 5)),
]


@pytest.mark.parametrize("name", [name for name in (*POINTWISE, *PREDICATES) if ROWS[name]["arity"] > 1])
def test_elementwise_broadcasts(name: str, isa: str) -> None:
    dtype = elementwise_dtypes(name)[0]
    for shapes in SHAPES:
        for order in (shapes, shapes[::-1]):
            used = order[: ROWS[name]["arity"]]
            arrays = [
                elementwise_operands(name, dtype, shape, seed_of(f"{name}{i}"))[i] for i, shape in enumerate(used)
            ]
            words = parameters(name)[0]
            found = function(name)(*(fastbp.from_numpy(a) for a in arrays), **words)
            assert_elementwise(name, found, exact(name, arrays, words), dtype, f"{isa}, shapes {used}")


@pytest.mark.parametrize("name", [*POINTWISE, *PREDICATES])
def test_elementwise_of_repeated_elements(name: str, isa: str) -> None:
    """Stride 0: one row or one column seen many times."""
    dtype = elementwise_dtypes(name)[0]
    for shape in ((1, 37), (5, 1), (1, 1)):
        arrays = elementwise_operands(name, dtype, shape, seed_of(name + "expand"))
        words = parameters(name)[0]
        found = function(name)(*(fastbp.from_numpy(a).expand(5, 37) for a in arrays), **words)
        wanted = np.broadcast_to(exact(name, arrays, words), (5, 37))
        assert_elementwise(name, found, wanted, dtype, f"{isa}, expanded from {shape}")


SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    1e-30,
    -1e-30,
    30.0,
    -30.0,
    200.0,
    -200.0,
    1e30,
    -1e30,
    math.inf,
    -math.inf,
    math.nan,
]

# Probabilities: what lies outside [0, 1] has no entropy.
PROBABILITIES = [0.0, -0.0, 0.5, 1.0, 1e-30, math.nan]
SPECIAL_OPERANDS = {
    "binary_entropy": (PROBABILITIES, PROBABILITIES),
    "binary_entropy_with_logits": (SPECIAL, PROBABILITIES),
    # At -infinity the kernels give the limit, -0, where PyTorch and the reference multiply infinity by 0.
    "gelu": ([x for x in SPECIAL if x != -math.inf],),
    "gelu_tanh": ([x for x in SPECIAL if x != -math.inf],),
}


@pytest.mark.parametrize("name", [n for n in (*POINTWISE, *PREDICATES) if "float32" in elementwise_dtypes(n)])
def test_elementwise_special_values(name: str, isa: str) -> None:
    """Infinities, NaN, signed zeros, huge and tiny numbers: as the reference, that is as IEEE 754 and PyTorch have it.

    Finite results are compared loosely here (a function of a huge argument has its own accuracy); the point is which of
    NaN, infinity and zero comes out.
    """
    operands = SPECIAL_OPERANDS.get(name, (SPECIAL,) * ROWS[name]["arity"])
    grids = np.meshgrid(*[np.array(values) for values in operands], indexing="ij")
    for dtype in FLOATS:
        arrays = [grid.ravel().astype(dtype) for grid in grids]
        if name == "where":
            arrays[0] = arrays[0] > 0
        words = parameters(name)[0]
        found = function(name)(*(fastbp.from_numpy(a) for a in arrays), **words).numpy()
        with np.errstate(over="ignore"):
            wanted = exact(name, arrays, words).astype(found.dtype)
        rtol = 1e-5 if dtype == "float32" else 1e-13
        close = np.isclose(found.astype(np.float64), wanted.astype(np.float64), rtol=rtol, atol=1e-37, equal_nan=True)
        close |= found == wanted
        bad = [f"{[float(a[i]) for a in arrays]}: {found[i]!r}, not {wanted[i]!r}" for i in np.flatnonzero(~close)[:5]]
        assert not bad, f"{name}: {dtype}, {isa}: " + "; ".join(bad)


@pytest.mark.parametrize("name", [n for n in (*POINTWISE, *PREDICATES) if hasattr(fastbp.Tensor, n)])
def test_methods_and_in_place_forms_do_what_the_function_does(name: str, isa: str) -> None:
    """x.f(y), and x.f_(y) where there is one: into the memory of x, in any layout, with that derivative or none."""
    dtype = elementwise_dtypes(name)[0]
    arrays = elementwise_operands(name, dtype, (3, 37), seed_of(name + "method"))
    if name == "where":
        arrays[0], arrays[1] = arrays[1], arrays[0]  # x.where(condition, other)
    words = parameters(name)[0]
    for layout in ("contiguous", "transposed", "stepped"):
        x, *rest = (laid_out(a, layout) for a in arrays)
        wanted = function(name)(rest[0], x, rest[1]) if name == "where" else function(name)(x, *rest, **words)
        found = getattr(x, name)(*rest, **words)
        assert found.dtype == wanted.dtype and np.array_equal(found.numpy(), wanted.numpy(), equal_nan=True)
        if not hasattr(x, name + "_"):
            continue
        target = laid_out(arrays[0], layout)
        before = target.data_ptr()
        assert getattr(target, name + "_")(*rest, **words) is target and target.data_ptr() == before
        same = np.array_equal(target.numpy(), wanted.to(target.dtype).numpy(), equal_nan=dtype in FLOATS)
        assert same, f"{name}_: {isa}, {layout}"
        if dtype in FLOATS and ROWS[name]["class"] == "pointwise":
            leaf, other = (laid_out(arrays[0], layout).requires_grad_() for _ in range(2))
            function(name)(leaf, *rest, **words).sum().backward()
            written = getattr(other * 1.0, name + "_")(*rest, **words)
            written.sum().backward()
            # The value saved for the rule may lie otherwise than the function's: then one side runs the fused kernel,
            # which contracts multiply-adds, and the other the rule op by op; a few roundings apart.
            near = np.allclose(
                leaf.grad.numpy(),
                other.grad.numpy(),
                rtol=32 * np.finfo(dtype).eps,
                atol=32 * np.finfo(dtype).eps,
                equal_nan=True,
            )
            assert near, f"{name}_: {isa}, {layout}: derivative"


# ---- the other rows ------------------------------------------------------------------------------------------------


def reference_result(case: Case, arrays: list[Array]) -> Array:
    inputs = case.inputs(arrays) if case.inputs else arrays
    made = OPS[case.reference].forward(*(to_reference(np.asarray(a)) for a in inputs), **case.attributes)
    if isinstance(made, tuple):
        made = made[1]  # topk: values and indices; the row gives the indices
    return np.array(made.values).reshape(made.shape) if made.size else to_numpy(made)


def assert_structural(
    case: Case, found: fastbp.Tensor, wanted: Array, arrays: list[Array], dtype: str, what: str
) -> None:
    array = found.numpy()
    result = case.result or dtype
    assert found.dtype == getattr(fastbp, result), f"{case}: {what}: dtype {found.dtype}, not {result}"
    assert array.shape == wanted.shape, f"{case}: {what}: shape {array.shape}, the reference has {wanted.shape}"
    if result not in FLOATS:
        wrapped = np.array([cast_value(v, result) for v in wanted.ravel().tolist()]).reshape(wanted.shape)
        assert np.array_equal(array, wrapped), f"{case}: {what}"
        return
    rounded = wanted.astype(result).astype(np.float64) if case.bound == 0 else wanted.astype(np.float64)
    sizes = [float(np.abs(a.astype(np.float64)).max(initial=0.0)) for a in (*arrays, rounded)]
    allowed = case.bound * EPSILON[result] * max(1.0, *sizes)
    worst = float(np.abs(array.astype(np.float64) - rounded).max(initial=0.0))
    assert worst <= allowed, (
        f"{case}: {what}: error {worst:.3g}, {allowed:.3g} is allowed ({case.bound} units; {case.bound_reason})"
    )


@pytest.mark.parametrize("case", STRUCTURAL, ids=str)
def test_structural_on_every_kernel_and_layout(case: Case) -> None:
    for dtype in case.dtypes:
        arrays = draw(case.operands, dtype, seed_of(str(case)))
        wanted = reference_result(case, arrays)
        for isa in ISAS:
            for layout in LAYOUTS if arrays else ("contiguous",):
                with kernels(isa):
                    found = case.call(*(laid_out(a, layout) for a in arrays))
                assert_structural(case, found, wanted, arrays, dtype, f"{dtype}, {isa}, {layout}")


@pytest.mark.parametrize("case", [c for c in STRUCTURAL if c.operands and c.operands[0].shape], ids=str)
def test_structural_of_repeated_elements(case: Case) -> None:
    """The first operand's first axis has stride 0."""
    dtype = case.dtypes[0]
    arrays = draw(case.operands, dtype, seed_of("expand" + str(case)))
    arrays[0] = np.broadcast_to(arrays[0][:1], arrays[0].shape).copy()
    wanted = reference_result(case, arrays)
    for isa in ISAS:
        with kernels(isa):
            tensors = [fastbp.from_numpy(a.copy()) for a in arrays]
            tensors[0] = tensors[0][:1].expand(*arrays[0].shape)
            found = case.call(*tensors)
        assert_structural(case, found, wanted, arrays, dtype, f"{dtype}, {isa}, expanded")


@pytest.mark.parametrize("case", [c for c in STRUCTURAL if c.smooth], ids=str)
def test_case_ends_in_its_row(case: Case) -> None:
    """A case that calls another op than it says would test nothing."""
    dtype = next(d for d in case.dtypes if d in FLOATS)
    tensors = [fastbp.from_numpy(a) for a in draw(case.operands, dtype)]
    for x, operand in zip(tensors, case.operands, strict=True):
        x.requires_grad_(x.is_floating_point() and not operand.constant)
    nodes, positions = _core._recorded_graph([case.call(*tensors)])
    assert nodes[positions[0]][0] == case.op


def test_every_dtype_is_tried() -> None:
    tried = {dtype for case in STRUCTURAL for dtype in case.dtypes}
    assert tried == set(ALL)


def test_a_recorded_node_bears_the_name_of_its_row() -> None:
    """Every differentiable elementwise row, the table's first among them, is listed as itself."""
    named = 0
    for name, row in ROWS.items():
        if row["class"] != "pointwise" or row["kind"] == "I" or name == "where":
            continue
        middle = sum(row["domain"]) / 2
        operands = [fbp_leaf(middle) for _ in range(row["arity"])]
        made = _core._apply(name, operands, {"p": [0.5, 1.0]} if row["signature"] else {})
        nodes, (position,) = _core._recorded_graph([made])
        assert nodes[position][0] == name
        named += 1
    assert named > 40


def fbp_leaf(value: float) -> fastbp.Tensor:
    return fastbp.tensor([value], requires_grad=True)
