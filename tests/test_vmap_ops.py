"""Every row of the op table over a batch: values and derivatives equal those of the examples one by one.

A batch of three is run at once with each combination of batched and shared operands, forward, and with smooth rows also
with derivatives inside (`vmap` of `vjp`), around (`vjp` of `vmap`) and with batched cotangents and tangents (`jacrev`,
`jacfwd`). The loop over examples is the truth: `test_ops_forward.py` and `test_ops_gradient.py` hold it to the
reference.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
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

import fastbp
from fastbp import _core, func

EXAMPLES = 3

# The batched op may add in another order than the example's (one product of many rows); in units of float64.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-13}

# Rows that no vmap can batch, with what says so.
REFUSED = {name: "depends on values" for name, row in ROWS.items() if row["value_shaped"]}
# Rows without inputs: the same for every example, or drawn (tests/test_vmap.py).
SOURCES = {name for name, row in ROWS.items() if row["arity"] == 0}


def tensors(value: Any) -> list[fastbp.Tensor]:
    return [value] if isinstance(value, fastbp.Tensor) else [one for one in value if isinstance(one, fastbp.Tensor)]


def masks(count: int) -> Iterator[tuple[bool, ...]]:
    """Which operands are batched: all, and each one alone shared or alone batched."""
    every = [mask for mask in itertools.product((True, False), repeat=count) if any(mask)]
    yield from (mask for mask in every if all(mask) or sum(mask) in (1, count - 1))


def stacked(batches: Sequence[Sequence[Array]], mask: Sequence[bool]) -> list[fastbp.Tensor]:
    return [
        fastbp.from_numpy(np.stack([one[i] for one in batches]) if mask[i] else batches[0][i]) for i in range(len(mask))
    ]


def example(batches: Sequence[Sequence[Array]], mask: Sequence[bool], k: int) -> list[fastbp.Tensor]:
    return [fastbp.from_numpy((batches[k] if mask[i] else batches[0])[i].copy()) for i in range(len(mask))]


def assert_same(what: str, found: Sequence[fastbp.Tensor], wanted: Sequence[Sequence[fastbp.Tensor]]) -> None:
    """found[j] is the stack over examples k of wanted[k][j]."""
    assert len(found) == len(wanted[0]), what
    for j, one in enumerate(found):
        whole = np.stack([each[j].detach().numpy() for each in wanted])
        got = one.detach().numpy()
        assert (got.shape, got.dtype) == (whole.shape, whole.dtype), what
        np.testing.assert_allclose(got, whole, **TOLERANCE, err_msg=what)


def check_forward(what: str, call: Callable[..., Any], batches: Sequence[Sequence[Array]]) -> None:
    for mask in masks(len(batches[0])):
        dims = tuple(0 if one else None for one in mask)
        found = func.vmap(lambda *a: tuple(tensors(call(*a))), dims)(*stacked(batches, mask))
        wanted = [tensors(call(*example(batches, mask, k))) for k in range(EXAMPLES)]
        assert_same(f"{what} {mask}", found, wanted)


def free(call: Callable[..., Any], given: Sequence[fastbp.Tensor], constant: Sequence[bool]) -> tuple[Any, list[Any]]:
    """The call as a function of its operands that have derivatives, and those."""
    places = [i for i, x in enumerate(given) if x.is_floating_point() and not constant[i]]

    def of(*reals: fastbp.Tensor) -> tuple[fastbp.Tensor, ...]:
        rest = iter(reals)
        result = call(*(next(rest) if i in places else x for i, x in enumerate(given)))
        return tuple(one for one in tensors(result) if one.is_floating_point())

    return of, [given[i] for i in places]


def pulled(call: Callable[..., Any], given: Sequence[fastbp.Tensor], constant: Sequence[bool]) -> list[fastbp.Tensor]:
    """Gradients of a weighted sum of the results."""
    of, reals = free(call, given, constant)
    outputs, pull = func.vjp(of, *reals)
    return list(pull(tuple((one * 0 + 1).cumsum(-1) if one.ndim else one * 0 + 2 for one in outputs)))


def check_derivatives(
    what: str, call: Callable[..., Any], batches: Sequence[Sequence[Array]], constant: Sequence[bool]
) -> None:
    for mask in masks(len(batches[0])):
        dims = tuple(0 if one else None for one in mask)
        given = stacked(batches, mask)
        wanted = [pulled(call, example(batches, mask, k), constant) for k in range(EXAMPLES)]
        inside = func.vmap(lambda *a: tuple(pulled(call, a, constant)), dims)(*given)
        assert_same(f"{what} {mask}: vmap of vjp", inside, wanted)
        # Around: the gradient of an operand that the examples share is the sum of theirs.
        around = pulled(func.vmap(lambda *a: tuple(tensors(call(*a))), dims), given, constant)
        for j, (one, place) in enumerate(
            zip(around, [i for i, x in enumerate(given) if x.is_floating_point() and not constant[i]], strict=True)
        ):
            each = np.stack([w[j].numpy() for w in wanted])
            # The weights of `pulled` run along the last axis of each example, and along the batch for numbers.
            if all(y.ndim for y in tensors(call(*example(batches, mask, 0)))):
                np.testing.assert_allclose(
                    one.numpy(),
                    each if mask[place] else each.sum(0),
                    **TOLERANCE,
                    err_msg=f"{what} {mask}: vjp of vmap",
                )


def check_jacobians(what: str, call: Callable[..., Any], arrays: Sequence[Array], constant: Sequence[bool]) -> None:
    """All rows at once, all columns at once, and the rows one by one."""
    of, reals = free(call, [fastbp.from_numpy(a.copy()) for a in arrays], constant)
    outputs, pull = func.vjp(of, *reals)
    places = tuple(range(len(reals)))
    reverse, forward = func.jacrev(of, places)(*reals), func.jacfwd(of, places)(*reals)
    for i, y in enumerate(outputs):
        for k in range(min(y.numel(), 4)):
            cotangents = [fastbp.zeros_like(one) for one in outputs]
            cotangents[i].reshape(-1)[k] = 1.0
            for j, row in enumerate(pull(tuple(cotangents))):
                for name, whole in (("jacrev", reverse), ("jacfwd", forward)):
                    got = whole[i][j].reshape(y.numel(), *reals[j].shape)[k]
                    np.testing.assert_allclose(got.numpy(), row.numpy(), **TOLERANCE, err_msg=f"{what}: {name}")


# ---- elementwise rows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*POINTWISE, *PREDICATES])
def test_elementwise_rows(name: str) -> None:
    dtypes = elementwise_dtypes(name)
    dtype = "float64" if "float64" in dtypes else dtypes[0]
    for words in parameters(name):
        call = functools.partial(function(name), **words)
        what = f"{name} {words}"
        for shapes in (((3, 4),) * 3, ((4,), (3, 1), ()), ((), (2,), (3, 1))):
            batches = [
                [
                    elementwise_operands(name, dtype, shape, seed)[i]
                    for i, shape in enumerate(shapes[: ROWS[name]["arity"]])
                ]
                for seed in range(EXAMPLES)
            ]
            check_forward(f"{what} {shapes}", call, batches)
            if name in POINTWISE and dtype == "float64":
                constant = [a.dtype.kind != "f" for a in batches[0]]
                check_derivatives(f"{what} {shapes}", call, batches, constant)
                check_jacobians(f"{what} {shapes}", call, batches[0], constant)


# ---- the others ------------------------------------------------------------------------------------------------------


def batched_cases() -> list[Case]:
    return [case for case in STRUCTURAL if case.op not in SOURCES and case.op not in REFUSED]


@pytest.mark.filterwarnings("ignore:vmap:RuntimeWarning")
@pytest.mark.parametrize("case", batched_cases(), ids=str)
def test_structural_rows(case: Case) -> None:
    dtype = "float64" if "float64" in case.dtypes else case.dtypes[0]
    batches = [draw(case.operands, dtype, seed) for seed in range(EXAMPLES)]
    constant = [operand.constant for operand in case.operands]
    calls = case.call
    if case.op == "dropout":  # the same zeros in all examples
        with pytest.raises(RuntimeError, match="randomness"):
            func.vmap(calls)(*stacked(batches, [True] * len(constant)))
        return
    check_forward(str(case), calls, batches)
    if case.smooth and dtype == "float64":
        check_derivatives(str(case), calls, batches, constant)
        check_jacobians(str(case), calls, batches[0], constant)


@pytest.mark.parametrize("case", [case for case in STRUCTURAL if case.op in REFUSED], ids=str)
def test_refused_rows_say_why(case: Case) -> None:
    batches = [draw(case.operands, case.dtypes[0], seed) for seed in range(EXAMPLES)]
    with pytest.raises(RuntimeError, match=REFUSED[case.op]):
        func.vmap(case.call)(*stacked(batches, [True] * len(case.operands)))


def test_every_row_is_batched_or_has_a_reason() -> None:
    tried = {*POINTWISE, *PREDICATES, *(case.op for case in batched_cases()), *REFUSED, *SOURCES, *ELSEWHERE}
    assert sorted(set(ROWS) - tried) == []


def test_rows_without_a_rule_say_so_once() -> None:
    _core.slow_ops_forget()
    x, y, w = fastbp.randn(3, 4, 5), fastbp.tensor([[0, 1, 2, 3]] * 3), fastbp.rand(3, 5) + 0.5
    over = func.vmap(lambda x, y, w: fastbp.nn.functional.nll_loss(x, y, w))
    with pytest.warns(RuntimeWarning, match="nll_loss has no batching rule"):
        over(x, y, w)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over(x, y, w)


def test_where_warnings_are_errors_a_row_without_a_rule_is_one() -> None:
    x, y, w = fastbp.randn(3, 4, 5), fastbp.tensor([[0, 1, 2, 3]] * 3), fastbp.rand(3, 5) + 0.5
    over = func.vmap(lambda x, y, w: fastbp.nn.functional.nll_loss(x, y, w))
    _core.slow_ops_forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # it was not said before the error: neither time
            with pytest.raises(RuntimeWarning, match="nll_loss has no batching rule"):
                over(x, y, w)
