"""Every check is shown to fail: faults are planted, and the checks must object to each.

A fault is a wrapper around a function of fastbp, or a wrong entry of the reference; the check that runs is the very one
that the other test files run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cases
import numpy as np
import pytest
import test_completeness
import test_ops_forward
import test_ops_gradient
import test_shapes_hypothesis
import test_threads
from cases import ROWS, Case
from structural_cases import STRUCTURAL

import fastbp
from fastbp import _core, reference
from fastbp.reference import OPS, Array, Op
from fastbp.testing import assert_close, check, check_grads, gradients

X = fastbp.tensor([0.3, 0.7, -0.4], dtype=fastbp.float64)


def first_case(op: str) -> Case:
    return next(case for case in STRUCTURAL if case.op == op and case.operands and len(case.operands[0].shape) > 1)


def test_the_checks_pass_without_a_fault() -> None:
    """Or their failures below would mean nothing."""
    check_grads(lambda x: x.sin() * x, X)
    assert check(lambda x: (x.sin() * x).sum(), X) == ["sin", "mul", "sum"]
    test_ops_forward.test_elementwise_on_every_kernel_and_layout("exp")
    test_ops_forward.test_elementwise_at_every_length("exp")
    test_ops_forward.test_structural_on_every_kernel_and_layout(first_case("sum"))
    test_ops_gradient.test_elementwise_cotangents_on_every_kernel("exp")
    test_ops_gradient.test_structural_derivatives_to_second_order(first_case("sum"))


# ---- wrong derivatives ---------------------------------------------------------------------------------------------


def hooked(x: fastbp.Tensor, hook: Callable[[fastbp.Tensor], Any]) -> fastbp.Tensor:
    """x, whose gradient the hook changes: a fault of reverse mode alone."""
    y = x * 1.0
    if y.requires_grad:
        y.register_hook(hook)
    return y


@pytest.mark.parametrize("modes", [("rev",), ("fwd",), ("rev", "fwd")])
def test_a_wrong_derivative_is_caught_in_each_mode(modes: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError, match=f"{modes[0]} mode"):
        check_grads(lambda x: x * x.detach(), X, modes=modes, order=1)  # x**2, with half its derivative


def test_a_derivative_that_is_off_by_a_millionth_is_caught() -> None:
    with pytest.raises(AssertionError, match="rev mode"):
        check_grads(lambda x: hooked(x, lambda g: g * (1.0 + 1e-6)).sum(), X, order=1)


def test_modes_that_disagree_by_less_than_finite_differences_see_are_caught() -> None:
    with pytest.raises(AssertionError, match="modes disagree"):
        check_grads(lambda x: hooked(x, lambda g: g * (1.0 + 1e-11)).sin(), X, order=1)


def test_a_wrong_push_forward_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradients.forward_gradient
    monkeypatch.setattr(
        gradients, "forward_gradient", lambda *lists: [t if t is None else t * 1.5 for t in right(*lists)]
    )
    with pytest.raises(AssertionError, match="fwd mode"):
        check_grads(lambda x: x.exp(), X, order=1)


def test_a_wrong_second_derivative_is_caught() -> None:
    def cubed(x: fastbp.Tensor) -> fastbp.Tensor:
        return hooked(x, lambda g: g.detach()) * x * x

    check_grads(cubed, X, order=1)
    with pytest.raises(AssertionError, match="rev, then"):
        check_grads(cubed, X, order=2, modes=("rev",))


def test_a_forgotten_sum_over_a_broadcast_axis_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_grads(lambda x, y: x + hooked(y, lambda g: g / 3.0), fastbp.ones(3, 2, dtype=fastbp.float64), X[:2])


def test_check_grads_refuses_what_it_cannot_judge() -> None:
    with pytest.raises(TypeError, match="float64"):
        check_grads(lambda x: x, fastbp.ones(2))
    with pytest.raises(ValueError, match="order"):
        check_grads(lambda x: x, X, order=0)
    with pytest.raises(ValueError, match="modes"):
        check_grads(lambda x: x, X, modes=("reverse",))


def test_a_wrong_cotangent_kernel_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _core.grad

    def wrong(outputs: Any, inputs: Any, *rest: Any, **words: Any) -> Any:
        found = right(outputs, inputs, *rest, **words)
        return [g * 1.0001 if _core.get_isa() == cases.ISAS[-1] else g for g in found]

    monkeypatch.setattr(_core, "grad", wrong)
    with pytest.raises(AssertionError, match=cases.ISAS[-1]):
        test_ops_gradient.test_elementwise_cotangents_on_every_kernel("exp")
    with pytest.raises(AssertionError, match=cases.ISAS[-1]):
        test_ops_gradient.test_structural_cotangents_on_every_kernel(first_case("softmax"))


# ---- wrong kernels -------------------------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[[np.ndarray[Any, Any]], None]) -> None:
    """Let `fault` spoil the results of an elementwise function."""
    right = getattr(_core, name)

    def wrong(*inputs: Any, **words: Any) -> Any:
        result = right(*inputs, **words)
        fault(result.detach().numpy())
        return result

    monkeypatch.setattr(_core, name, wrong)


@pytest.mark.parametrize("isa", cases.ISAS)
def test_a_wrong_kernel_of_one_instruction_set_is_caught(monkeypatch: pytest.MonkeyPatch, isa: str) -> None:
    def fault(y: np.ndarray[Any, Any]) -> None:
        if _core.get_isa() == isa and y.size > 40:
            y.flat[17] += 8 * np.spacing(y.flat[17])

    planted(monkeypatch, "exp", fault)
    with pytest.raises(AssertionError, match=isa):
        test_ops_forward.test_elementwise_on_every_kernel_and_layout("exp")


@pytest.mark.parametrize("length", [1, 7, 17, 63])
def test_a_fault_in_a_tail_is_caught(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    def fault(y: np.ndarray[Any, Any]) -> None:
        if y.size == length:
            y.flat[-1] = 0

    planted(monkeypatch, "exp", fault)
    with pytest.raises(AssertionError, match=f"the last {length} of 70"):
        test_ops_forward.test_elementwise_at_every_length("exp")


def test_a_kernel_that_ignores_strides_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _core.exp

    def wrong(x: fastbp.Tensor) -> fastbp.Tensor:
        if x.is_contiguous() or x.storage_offset():
            return right(x)
        return right(fastbp.from_numpy(np.ascontiguousarray(x.numpy().T).reshape(x.shape)))

    monkeypatch.setattr(_core, "exp", wrong)
    with pytest.raises(AssertionError, match=r"transposed|stepped"):
        test_ops_forward.test_elementwise_on_every_kernel_and_layout("exp")


def test_a_wrong_special_value_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "exp", lambda y: np.nan_to_num(y, copy=False))
    with pytest.raises(AssertionError, match="nan"):
        test_ops_forward.test_elementwise_special_values("exp", _core.get_isa())


def test_a_wrong_structural_result_is_caught() -> None:
    right = first_case("amax")
    cases_of = test_ops_forward.test_structural_on_every_kernel_and_layout
    faults = {
        "shape": replace(right, call=lambda x: right.call(x).unsqueeze(0)),
        "dtype": replace(right, call=lambda x: right.call(x).to(fastbp.float64)),
        "units": replace(right, call=lambda x: right.call(x) + (1 if x.is_floating_point() else 0)),
        "int64": replace(
            right, call=lambda x: right.call(x) if x.is_floating_point() else (right.call(x) * 0).to(x.dtype)
        ),
    }
    for what, fault in faults.items():
        with pytest.raises(AssertionError, match=what):
            cases_of(fault)


def test_a_case_that_calls_another_row_is_caught() -> None:
    with pytest.raises(AssertionError):
        test_ops_forward.test_case_ends_in_its_row(replace(first_case("amax"), op="amin"))


def test_wrong_attributes_are_caught() -> None:
    """The reference's arguments are written by hand: a public function that hands on wrong ones does not agree."""
    wrong = replace(first_case("cumsum"), attributes={"dim": 1})
    with pytest.raises(AssertionError, match="cumsum"):
        test_ops_forward.test_structural_on_every_kernel_and_layout(wrong)


def test_a_sum_whose_order_depends_on_the_threads_is_caught() -> None:
    x = fastbp.from_numpy(np.random.default_rng(0).standard_normal(10_007).astype(np.float32))

    def total() -> fastbp.Tensor:
        pieces = np.array_split(x.numpy(), fastbp.get_num_threads())
        return fastbp.tensor(sum(float(piece.sum()) for piece in pieces), dtype=fastbp.float64)

    with pytest.raises(AssertionError, match="threads other bits"):
        test_threads.assert_same("total", total)


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("sum", test_shapes_hypothesis.test_reductions),
        ("where", test_shapes_hypothesis.test_broadcasting),
        ("cat", test_shapes_hypothesis.test_cat_and_split),
    ],
)
def test_random_shapes_find_a_fault(monkeypatch: pytest.MonkeyPatch, name: str, test: Callable[[], None]) -> None:
    """A fault in results of more than two dimensions only."""
    right = getattr(fastbp, name)

    def wrong(*arguments: Any, **words: Any) -> Any:
        result = right(*arguments, **words)
        return result.flip(0) if result.ndim > 2 and result.shape[0] > 1 else result

    monkeypatch.setattr(fastbp, name, wrong)
    with pytest.raises(AssertionError):
        test()


# ---- a wrong or missing reference ----------------------------------------------------------------------------------


def test_a_missing_reference_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPS, "tanh")
    assert test_completeness.without_reference() == ["tanh"]
    with pytest.raises(KeyError, match="tanh"):
        check(lambda x: x.tanh(), X)


def test_a_missing_case_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "fft", {"class": "linear", "vjp": True, "kind": ""})
    assert test_completeness.without_case() == ["fft"]


def test_a_missing_benchmark_is_named() -> None:
    if not (test_completeness.ROOT / "benchmarks" / "op_cases.py").is_file():
        pytest.skip("not in a checkout: benchmarks are not installed")
    rows = [*ROWS.values(), {**ROWS["sum"], "name": "fft"}]
    assert any("fft" in line for line in test_completeness.benchmark_cases().complaints(fastbp, rows))


def test_check_names_the_op_whose_value_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OPS["sin"]
    monkeypatch.setitem(
        OPS, "sin", Op("sin", lambda x: Array([math.sin(v) + 1e-8 for v in x.values], x.shape), right.vjp)
    )
    with pytest.raises(AssertionError, match="sin"):
        check(lambda x: (x * 2).sin().sum(), X)


def test_check_names_the_argument_whose_gradient_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OPS["sin"]
    wrong = Op("sin", right.forward, lambda g, x: (Array([2 * v for v in g.values], g.shape),))
    monkeypatch.setitem(OPS, "sin", wrong)
    with pytest.raises(AssertionError, match="argument 1"):
        check(lambda x, y: (x * y.sin()).sum(), X, X + 1.0)


def test_check_follows_views_writes_dropout_and_several_outputs() -> None:
    def program(x: fastbp.Tensor, y: fastbp.Tensor) -> list[fastbp.Tensor]:
        z = x * 3.0
        z[0] = y[0] * 2
        z.mul_(2.0)
        values, _ = z.sort()
        return [fastbp.nn.functional.dropout(values, 0.3), z[::2].sum(), x]

    assert {"slice_assign", "dropout", "gather"} <= set(check(program, X, X + 1.0))


# ---- assert_close --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("actual", "expected", "words", "message"),
    [
        (X, X + 1e-6, {}, "Mismatched elements: 3 / 3"),
        (X, X[:2], {}, "shape"),
        (X, X.float(), {}, "dtype"),
        (X, X.tolist(), {}, "length|sequence"),
        ([X, X], [X], {}, "lengths"),
        ({"a": X}, {"b": X}, {}, "keys"),
        ({"a": X}, {"a": X * 2}, {}, "'a'"),
        (math.nan, math.nan, {}, "close"),
        (2**60, 2**60 + 1, {}, "close"),
        (1.0, 1.1, {"msg": "so"}, "^so$"),
        (1.0, 1.1, {"msg": lambda text: "so: " + text}, "^so: "),
        (fastbp.ones(2, 3).t(), fastbp.ones(3, 2), {"check_stride": True}, "stride"),
    ],
)
def test_assert_close_objects(actual: Any, expected: Any, words: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, expected, **words)


def test_assert_close_accepts() -> None:
    assert_close(X, X + 1e-9)
    assert_close(X.float(), X, check_dtype=False)
    assert_close([X, {"a": 1}], [X, {"a": 1}])
    assert_close(math.nan, math.nan, equal_nan=True)
    assert_close(1.0, 1.1, rtol=0.0, atol=0.2)
    with pytest.raises(ValueError, match="both"):
        assert_close(1.0, 1.0, rtol=0.1)


def test_the_reference_is_independent_of_the_table() -> None:
    """Nothing of fastbp but itself is imported there (tests/test_reference.py reads its imports)."""
    assert not hasattr(reference, "_core") and "op_table" not in vars(reference)
