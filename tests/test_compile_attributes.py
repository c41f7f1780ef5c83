"""Attributes of tensors that compiled functions read are compared as those of modules; what sets them runs eagerly."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import fastbp
from fastbp import nn


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(fastbp.ones(2))

    def forward(self, x: Any) -> Any:
        w = self.weight  # a local name, which no chain of names in the code leads through
        return x * w * getattr(w, "scale", 1.0)


def closure_variable() -> tuple[Any, Callable[[Any], Any]]:
    w = fastbp.ones(2)
    return w, lambda x: x * getattr(w, "scale", 1.0) + w


def variable_that_only_has_attributes() -> tuple[Any, Callable[[Any], Any]]:
    w = fastbp.ones(7)
    return w, lambda x: x * (w.scale if hasattr(w, "scale") else 1.0)


def parameter_of_a_module() -> tuple[Any, Callable[[Any], Any]]:
    layer = Layer()
    return layer.weight, layer


def method_of_a_module() -> tuple[Any, Callable[[Any], Any]]:
    layer = Layer()
    return layer.weight, layer.forward


def leaf_that_collects_gradients() -> tuple[Any, Callable[[Any], Any]]:
    layer = Layer()

    def step(x: Any) -> Any:
        layer.weight.grad = None
        (layer(x) ** 2).sum().backward()
        return layer.weight.grad + 0

    return layer.weight, step


MAKERS = [
    closure_variable,
    variable_that_only_has_attributes,
    parameter_of_a_module,
    method_of_a_module,
    leaf_that_collects_gradients,
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_changes_of_attributes_are_seen(make: Callable[[], tuple[Any, Callable[[Any], Any]]]) -> None:
    w, f = make()
    compiled, x = fastbp.compile(f), fastbp.tensor([1.0, 2.0])

    def agree() -> None:
        for _ in range(2):
            assert compiled(x).tolist() == f(x).tolist()

    agree()
    for value in (2.0, 3.0, True, 2.0):
        w.scale = value
        agree()
    del w.scale
    agree()
    w.__dict__ = {"scale": 5.0}
    agree()
    attributes = vars(w)
    for value in (7.0, 8.0):
        attributes["scale"] = value  # past the tensor's __setattr__
        agree()
    attributes.clear()
    agree()


def test_a_state_that_was_there_before_finds_its_plan() -> None:
    w, f = closure_variable()
    compiled, x = fastbp.compile(f), fastbp.ones(2)
    plans = []
    for value in (2.0, 3.0, 2.0, 3.0):
        w.scale = value
        compiled(x)
        plans.append(compiled.plan)
    assert plans[0] is plans[2] is not plans[1] and plans[1] is plans[3]


def test_other_tensors_cost_no_plan() -> None:
    f = closure_variable()[1]
    compiled, x, other = fastbp.compile(f), fastbp.ones(2), fastbp.ones(2)
    compiled(x)
    plan = compiled.plan
    for i in range(3):
        other.tag = i
        compiled(x)
        assert compiled.plan is plan


def test_arguments_with_attributes_run_the_function_itself() -> None:
    def f(x: Any) -> Any:
        return x * getattr(x, "scale", 1.0)

    compiled, plain = fastbp.compile(f), fastbp.ones(2)
    assert compiled(plain).tolist() == [1, 1]
    for value in (2.0, 3.0):
        scaled = fastbp.ones(2)
        scaled.scale = value
        assert compiled(scaled).tolist() == [value, value]
        assert compiled(plain).tolist() == [1, 1]
    plain.scale = 4.0
    assert compiled(plain).tolist() == [4, 4]
    del plain.scale
    assert compiled(plain).tolist() == [1, 1] and compiled.plan is not None
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        fastbp.compile(lambda x: x * x.other)(plain)


def set_on_argument(x: Any) -> Any:
    x.tag = getattr(x, "tag", 0) + 1
    return x * 2


def set_on_result(x: Any) -> Any:
    y = x * 2
    y.tag = 1
    return y


def set_past_setattr(x: Any) -> Any:
    y = x * 2
    vars(y)["tag"] = 1
    return y


@pytest.mark.parametrize("f", [set_on_argument, set_on_result, set_past_setattr], ids=lambda f: f.__name__)
def test_functions_that_set_attributes_run_eagerly(f: Callable[[Any], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = fastbp.compile(f)
        for _ in range(5):
            x, again = fastbp.ones(2), fastbp.ones(2)
            y, wanted = compiled(x), f(again)
            assert (vars(x), vars(y), y.tolist()) == (vars(again), vars(wanted), [2, 2])


def test_a_counter_on_a_tensor_from_outside_counts_each_call_once() -> None:
    w = fastbp.ones(2)
    w.count = 0

    def f(x: Any) -> Any:
        w.count += 1
        return x * w.count

    compiled = fastbp.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(1, 6):
            assert compiled(fastbp.ones(2)).tolist() == [i, i]
    assert w.count == 5


def test_properties_are_no_attributes() -> None:
    w = nn.Parameter(fastbp.ones(2))

    def step(x: Any) -> Any:
        w.grad = None
        (x * w).sum().backward()
        return x + 1

    compiled = fastbp.compile(step)
    compiled(fastbp.ones(2))
    assert compiled.plan is not None and w.grad.tolist() == [1, 1]
