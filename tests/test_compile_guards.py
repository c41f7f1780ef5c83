"""Modules, their hooks and containers as they are at a call are what a compiled function computes with.

Each case is a function and changes between its calls (twins.check_changes). A state that was there before finds its
plan again.
"""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twins import Case, Scaled, check_changes, setting

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, nn

CASES: list[Callable[[], Case]] = []


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(make)
    return make


class Negate(nn.Module):
    def forward(self, x: Any) -> Any:
        return -x


# ---- modules -------------------------------------------------------------------------------------------------------


@case
def plain_attributes() -> Case:
    model = Scaled()
    return model, [
        *setting(model, "scale", 3.0, 3, True, 1.0, math.nan),
        *setting(model, "activation", F.sigmoid, fastbp.tanh),
        functools.partial(setattr, model, "shifted", None),
        functools.partial(delattr, model, "shifted"),
    ]


@case
def signed_zeros() -> Case:
    model = Scaled(0.0)
    return lambda x: 1 / model(x), setting(model, "scale", -0.0, 0.0)


@case
def tuples_strings_and_dtypes() -> Case:
    model = nn.Module()
    model.axes, model.mode, model.kind = ((0, (1,)),), "sum", fastbp.float32

    def total(x: Any) -> Any:
        y = x.expand(2, 3)
        for axis, _ in model.axes:
            y = getattr(y, model.mode)(axis)
        return y.to(model.kind)

    return total, [
        *setting(model, "axes", ((1, (1,)),), ((0, (1,)), (0, (2,)))),
        *setting(model, "mode", "mean"),
        *setting(model, "kind", fastbp.float64),
    ]


@case
def dropout() -> Case:
    model = nn.Sequential(nn.Dropout(0.5))
    return model, [*setting(model[0], "p", 0.1, 0.9), model.eval, model.train, *setting(model[0], "p", 0.5)]


@case
def activations() -> Case:
    model = nn.Sequential(nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.Hardtanh(), nn.Softmax(0))
    return model, [
        *setting(model[0], "negative_slope", 0.3),
        *setting(model[1], "alpha", 2.0),
        *setting(model[2], "beta", 3.0),
        *setting(model[3], "max_val", 0.5),
        *setting(model[4], "dim", -1),
    ]


@case
def tensors_as_plain_attributes() -> Case:
    model = Scaled(fastbp.tensor(2.0))
    return model, [*setting(model, "scale", fastbp.tensor(3.0)), lambda: model.scale.fill_(7.0)]


@case
def a_module_that_is_read_and_not_called() -> Case:
    model = Scaled()
    return lambda x: x * model.scale if model.training else x, [*setting(model, "scale", 4.0), model.eval]


@case
def parameters_and_buffers() -> Case:
    model = nn.Linear(3, 3)
    model.register_buffer("offset", fastbp.ones(3))
    return lambda x: model(x) + sum(model.buffers()), [
        lambda: setattr(model, "weight", nn.Parameter(fastbp.eye(3))),
        lambda: setattr(model, "bias", None),
        lambda: setattr(model, "offset", fastbp.zeros(3)),
        lambda: model.register_buffer("second", fastbp.ones(3)),
        lambda: model.load_state_dict({**model.state_dict(), "offset": fastbp.full((3,), 5.0)}, assign=True),
    ]


@case
def parameters_that_are_walked() -> Case:
    model = nn.Linear(3, 1)
    return lambda x: x.sum() + sum(p.square().sum() for p in model.parameters()), [
        lambda: model.register_parameter("extra", nn.Parameter(fastbp.ones(2))),
        lambda: model.add_module("more", nn.Linear(2, 2)),
        lambda: delattr(model, "extra"),
    ]


@case
def parameters_that_are_looked_up() -> Case:
    held = [nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)]

    def function(x: Any) -> Any:
        found = [one for one in held]  # neither called nor named
        y = x * sum(found[0].state_dict(keep_vars=True).values()).sum() + found[1].get_parameter("weight").sum()
        return y + sum(found[2]._parameters.values()).sum() + sum(p.sum() for _, p in found[3].named_parameters())

    def setting_weights(number: int) -> Callable[[], object]:
        return lambda: setattr(held[number], "weight", nn.Parameter(fastbp.full((3, 3), 2.0 + number)))

    return function, [setting_weights(number) for number in range(4)]


@case
def hooks_of_modules() -> Case:
    model = nn.Sequential(nn.Identity())
    handles: list[Any] = []
    gain = 1.0

    def doubled(module: Any, args: Any, result: Any) -> Any:
        return result * 2 + gain

    def change_gain() -> None:
        nonlocal gain
        gain = 5.0

    return model, [
        lambda: handles.append(model[0].register_forward_hook(doubled)),
        change_gain,
        lambda: handles.append(model[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))),
        lambda: handles.append(model[0].register_forward_hook(lambda module, args, y: y.square(), prepend=True)),
        lambda: handles.pop(0).remove(),
        lambda: [handle.remove() for handle in handles],
    ]


@case
def hooks_of_tensors() -> Case:
    w = fastbp.ones(3, requires_grad=True)
    handles: list[Any] = []

    def step(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad.clone()

    def halve(leaf: Any) -> None:
        leaf.grad.mul_(0.5)

    return step, [
        lambda: handles.append(w.register_hook(lambda gradient: gradient * 3)),
        lambda: handles.append(w.register_post_accumulate_grad_hook(halve)),
        lambda: handles.pop(0).remove(),
        lambda: handles.pop(0).remove(),
    ]


@case
def backward_hooks() -> Case:
    model = nn.Sequential(nn.Linear(3, 3))
    handles: list[Any] = []

    def step(x: Any) -> Any:
        model.zero_grad()
        y = x.detach().requires_grad_()
        model(y).sum().backward()
        return y.grad

    return step, [
        lambda: handles.append(model[0].register_full_backward_hook(lambda m, given, result: (given[0] * 3,))),
        lambda: handles.pop().remove(),
    ]


# ---- containers ----------------------------------------------------------------------------------------------------


def edits_of_lists(model: Any) -> list[Callable[[], object]]:
    return [
        lambda: model.append(Negate()),
        lambda: model.extend([Negate(), nn.Tanh()]),
        lambda: model.insert(0, nn.Sigmoid()),
        lambda: model.__setitem__(1, nn.Softplus()),
        lambda: model.pop(0),
        lambda: model.__delitem__(slice(1, 3)),
        lambda: model.__iadd__([Negate()]),
        lambda: model.add_module("last", nn.Tanh()),
        lambda: delattr(model, "last"),
    ]


@case
def sequential() -> Case:
    model = nn.Sequential(nn.Identity())
    return model, edits_of_lists(model)


@case
def sequential_inside() -> Case:
    model = nn.Sequential(nn.Sequential(nn.Identity()))
    return model, edits_of_lists(model[0])


def chained(modules: Any, x: Any) -> Any:
    for one in modules:
        x = one(x)
    return x


@case
def module_list() -> Case:
    model = nn.ModuleList([nn.Identity()])
    return lambda x: chained(model, x), edits_of_lists(model)


@case
def module_list_by_number() -> Case:
    model = nn.ModuleList([nn.Identity()])
    return lambda x: chained([model[i] for i in range(len(model))], x), edits_of_lists(model)


@case
def an_empty_list_in_a_list() -> Case:
    """Found neither by a call nor by a name."""
    held = [nn.ModuleList()]
    return lambda x: x + len(held[0]), [lambda: held[0].append(Negate()), lambda: held[0].pop(0)]


def edits_of_dicts(model: Any) -> list[Callable[[], object]]:
    return [
        lambda: model.__setitem__("b", Negate()),
        lambda: model.update({"c": nn.Tanh(), "d": Negate()}),
        lambda: model.pop("b"),
        lambda: model.__delitem__("d"),
        lambda: model.__setitem__("a", nn.Sigmoid()),
        lambda: model.clear(),
    ]


@case
def module_dict_by_key() -> Case:
    model = nn.ModuleDict({"a": nn.Identity()})
    return lambda x: chained([model[key] for key in model], x), edits_of_dicts(model)


@case
def module_dict_by_values() -> Case:
    held = [nn.ModuleDict({"a": nn.Identity()})]
    return lambda x: chained(held[0].values(), x), edits_of_dicts(held[0])


@case
def module_dict_by_membership() -> Case:
    held = [nn.ModuleDict({"a": nn.Identity()})]
    return lambda x: x if "b" in held[0] else -x, edits_of_dicts(held[0])


@case
def parameter_list() -> Case:
    held = [nn.ParameterList([fastbp.ones(3)])]
    weights = held[0]
    return lambda x: sum([x * w for w in held[0]]), [
        lambda: weights.append(fastbp.full((3,), 2.0)),
        lambda: weights.extend([fastbp.zeros(3)]),
        lambda: weights.__setitem__(0, fastbp.full((3,), 9.0)),
        lambda: weights.__iadd__([fastbp.ones(3)]),
    ]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_changes_are_seen(make: Callable[[], Case]) -> None:
    assert check_changes(make).plan is not None


def test_a_state_that_was_there_before_finds_its_plan() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.LeakyReLU())
    compiled = fastbp.compile(model)
    plans = set()
    for number in range(20):
        model.train(number % 2 == 0)
        model[1].negative_slope = (0.1, 0.2)[number // 2 % 2]
        compiled(fastbp.ones(2))
        plans.add(id(compiled.plan))
    assert len(plans) == 4
    assert model[1].negative_slope == 0.2


def test_one_value_in_another_object_is_no_change() -> None:
    model = Scaled((1.5, "a")[0])
    compiled = fastbp.compile(model)
    compiled(fastbp.ones(1))
    plan = compiled.plan
    for value in (float("1.5"), 3.0 / 2):
        model.scale = value
        model.other = None
        del model.other
        compiled(fastbp.ones(1))
        assert compiled.plan is plan


def test_values_are_compared_by_type_and_value() -> None:
    def function() -> None: ...

    alike = [(1, 1), (1.5, float("1.5")), ("ab", "".join("ab")), (math.nan, float("nan")), ((1, (2.0,)), (1, (2.0,)))]
    alike += [(None, None), (function, function), (math.nan * 1j, math.nan * 1j), (b"a", bytes([97]))]
    apart = [(1, True), (1, 1.0), (0.0, -0.0), ("a", b"a"), ((1,), (True,)), ((1,), (1, 2)), ([1], [1]), (None, 0)]
    apart += [(lambda: 0, lambda: 0), (0j, complex(0.0, -0.0)), (1, 2)]
    for a, b in alike:
        assert _core.same_value(a, b) and _core.same_value(b, a), (a, b)
    for a, b in apart:
        assert not _core.same_value(a, b) and not _core.same_value(b, a), (a, b)


# ---- the checks notice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [plain_attributes, dropout, sequential, module_dict_by_key, hooks_of_modules])
def test_a_counter_that_stands_still_is_noticed(make: Callable[[], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above fail where changes do not move the world's version."""
    monkeypatch.setattr("fastbp.nn.module._world_moved", lambda: None)
    monkeypatch.setattr("fastbp._core.world_moved", lambda: None)
    with pytest.raises(AssertionError, match="after change"):
        check_changes(make)


def test_values_that_are_nested_deeply_count_as_changed() -> None:
    """Looking into them would take the stack of the process."""
    code = """
import fastbp
def nested():
    value = ()
    for _ in range(200_000):
        value = (value,)
    return value
limit = nested()
@fastbp.compile
def f(x):
    return x * (2 if limit else 3)
assert f(fastbp.ones(2)).tolist() == [2, 2]
old, limit = limit, nested()
assert f(fastbp.ones(2)).tolist() == [2, 2]
print("done", flush=True)
import os; os._exit(0)  # the interpreter itself may not take these apart
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
