"""Variables as they are at a call are what a compiled function computes with: globals, closures, attributes, classes.

Each case is a function and changes between its calls (twins.check_changes).
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from twins import Case, Scaled, check_changes, setting

import fastbp
from fastbp import nn, optim

CASES: list[Callable[[], Case]] = []


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES.append(make)
    return make


SCALE: Any = 2.0
TABLE = {"lr": 0.5, "other": 1}
settings = ModuleType("settings_of_a_user")
settings.rate = 2.0  # type: ignore[attr-defined]


class Options:
    rate = 1.0


def scaled(x: Any) -> Any:
    return x * SCALE


def set_global(name: str, value: Any) -> Callable[[], object]:
    return lambda: globals().__setitem__(name, value)


@pytest.fixture(autouse=True)
def globals_as_before() -> Iterator[None]:
    before = dict(SCALE=SCALE, scaled=scaled)
    yield
    globals().update(before)
    TABLE["lr"], Options.rate, settings.rate = 0.5, 1.0, 2.0  # type: ignore[attr-defined]


@case
def globals_of_functions_that_are_called() -> Case:
    def function(x: Any) -> Any:
        return scaled(x) + 1

    return function, [
        *[set_global("SCALE", one) for one in (3.0, 3, 0.0, -0.0, fastbp.tensor(4.0), fastbp.tensor(5.0))],
        set_global("scaled", lambda x: -x),
    ]


@case
def a_global_that_comes_and_goes() -> Case:
    def function(x: Any) -> Any:
        try:
            return x * NOT_YET  # type: ignore[name-defined]
        except NameError:
            return x

    return function, [set_global("NOT_YET", 3.0), lambda: globals().pop("NOT_YET")]


@case
def entries_and_attributes_behind_globals() -> Case:
    def function(x: Any) -> Any:
        return x * TABLE["lr"] + Options.rate + settings.rate  # type: ignore[attr-defined]

    return function, [
        lambda: TABLE.__setitem__("lr", 0.25),
        *setting(Options, "rate", 7.0),
        *setting(settings, "rate", 9.0),
    ]


@case
def variables_of_enclosing_functions() -> Case:
    factor: Any = 2.0
    deep = SimpleNamespace(inner=SimpleNamespace(value=1.0))

    def inner(x: Any) -> Any:
        return sum(x * one * deep.inner.value for one in [factor])

    def bind(value: Any) -> None:
        nonlocal factor
        factor = value

    return lambda x: inner(x), [
        *[functools.partial(bind, one) for one in (3.0, True, fastbp.tensor(2.0))],
        *setting(deep.inner, "value", 5.0),
        *setting(deep, "inner", SimpleNamespace(value=6.0)),
    ]


@case
def objects_behind_defaults_and_partials() -> Case:
    own, table = SimpleNamespace(scale=2.0, shift=1.0, power=2.0), {"lr": 1.0}

    def inner(x: Any, own: Any = own, *, also: Any = own) -> Any:
        return x * own.scale + also.shift

    def of(own: Any, x: Any, table: Any = table) -> Any:
        return x * own.power + table["lr"]

    by_name = functools.partial(of, own=own)
    changes = [*setting(own, "scale", 3.0), *setting(own, "shift", 4.0), *setting(own, "power", 5.0)]
    return functools.partial(lambda own, x: inner(x) + by_name(x=x) + own.scale, own), [
        *changes,
        lambda: table.update(lr=2.0),
    ]


@case
def dicts_of_other_classes() -> Case:
    class Attributes(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            return self[name]

    ordered, default, own = OrderedDict(k=1.0), defaultdict(float, k=1.0), Attributes(k=1.0)
    return lambda x: x * ordered["k"] + default["k"] + own["k"] * own.k + default["j"], [
        *[lambda table=table: table.update(k=table["k"] + 1) for table in (ordered, default, own)],
        lambda: default.update(j=3.0),
    ]


@case
def partial_methods() -> Case:
    class Own:
        def __init__(self) -> None:
            self.scale = 2.0

        def affine(self, table: Any, x: Any) -> Any:
            return x * self.scale + table.shift

        shared = SimpleNamespace(shift=4.0)
        run = functools.partialmethod(affine, shared)

    own = Own()
    return lambda x: own.run(x), [*setting(own, "scale", 3.0), *setting(Own.shared, "shift", 5.0)]


@case
def attributes_in_front_of_methods() -> Case:
    class Own:
        def scaled(self, x: Any) -> Any:
            return x * 2

    own = Own()
    return lambda x: own.scaled(x), [*setting(own, "scaled", lambda x: x * 3), lambda: delattr(own, "scaled")]


@case
def a_model_that_is_bound_anew() -> Case:
    model: Any = Scaled(2.0)

    def bind(value: Any) -> None:
        nonlocal model
        model = value

    return lambda x: model(x), [lambda: bind(Scaled(3.0)), lambda: bind(fastbp.tanh)]


@case
def callables() -> Case:
    class Own:
        gain = 1.0

        def __init__(self) -> None:
            self.scale = 2.0

        def __call__(self, x: Any, other: float = 1.0) -> Any:
            return x * self.scale * self.gain * other

    own = Own()
    return functools.partial(own, other=3.0), [*setting(own, "scale", 4.0), *setting(Own, "gain", 5.0)]


@case
def bound_methods() -> Case:
    world = SimpleNamespace(scale=2.0)
    method = (lambda self, x: x * self.scale).__get__(world)
    return method, setting(world, "scale", 3.0, 4.0)


@case
def rules_of_a_function() -> Case:
    gains = SimpleNamespace(forward=2.0, backward=3.0)

    class Own(fastbp.autograd.Function):
        bias = 1.0

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * gains.forward + Own.bias

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient * gains.backward

    apply = Own.apply

    def function(x: Any) -> Any:
        y = x.detach().requires_grad_()
        result = Own.apply(y) + apply(y)
        result.sum().backward()
        return result.detach(), y.grad

    return function, [*setting(gains, "forward", 4.0), *setting(gains, "backward", 5.0), *setting(Own, "bias", 6.0)]


@case
def an_optimizer_of_ones_own() -> Case:
    class Own(optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})
            self.rate = 1.0

        @fastbp.no_grad()
        def step(self) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(parameter.grad, alpha=self.rate)

    w = fastbp.zeros(3, requires_grad=True)
    optimizer = Own([w])

    def function(x: Any) -> Any:
        with fastbp.no_grad():
            w.zero_()
        w.grad = None
        (w * x).sum().backward()
        optimizer.step()
        return w.detach() + 0

    return function, setting(optimizer, "rate", 2.0, 3.0)


@case
def methods_that_are_decorated() -> Case:
    def twice(method: Any) -> Any:
        @functools.wraps(method)
        def run(self: Any, x: Any) -> Any:
            return method(self, method(self, x))

        return run

    class Own:
        def __init__(self) -> None:
            self.gain = 2.0

        @twice
        @fastbp.no_grad()
        def run(self, x: Any) -> Any:
            return x * self.gain

    own = Own()
    return lambda x: own.run(x), setting(own, "gain", 3.0)


@case
def decorated_functions() -> Case:
    gain = SimpleNamespace(value=1.0)

    def function(x: Any) -> Any:
        return x * gain.value

    return fastbp.no_grad()(functools.wraps(function)(lambda x: function(x))), setting(gain, "value", 3.0)


@case
def class_attributes() -> Case:
    class Own(Scaled):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * self.gain

        gain = 1.0

    def forward(self: Any, x: Any) -> Any:
        return x - self.gain

    model = Own()
    return model, [*setting(Own, "gain", 5.0), *setting(Own, "forward", forward), *setting(model, "gain", 9.0)]


@case
def methods_and_properties() -> Case:
    class Own(nn.Module):
        unit = 2.0

        @property
        def both(self) -> float:
            return self.unit * shift.value

        def helper(self, x: Any) -> Any:
            return x * self.both

        def forward(self, x: Any) -> Any:
            return self.helper(x)

    shift = SimpleNamespace(value=1.0)
    return Own(), [*setting(shift, "value", 3.0), *setting(Own, "unit", 4.0), *setting(Own, "both", 5.0)]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_changes_are_seen(make: Callable[[], Case]) -> None:
    assert check_changes(make).plan is not None


def test_methods_that_are_compiled_read_their_instance() -> None:
    class Own:
        unit = 1.0

        def __init__(self, scale: float) -> None:
            self.scale = scale

        @fastbp.compile
        def run(self, x: Any) -> Any:
            return self.helper(x) + self.unit

        def helper(self, x: Any) -> Any:
            return x * self.scale

    first, second, x = Own(2.0), Own(3.0), fastbp.ones(1)
    assert first.run(x).item() == 3 and second.run(x).item() == 4
    first.scale = 5.0
    assert first.run(x).item() == 6 and second.run(x).item() == 4
    Own.unit = 2.0
    assert first.run(x).item() == 7 and second.run(x).item() == 5
    first.unit = 3.0
    assert first.run(x).item() == 8 and second.run(x).item() == 5


def test_attributes_of_static_arguments() -> None:
    options, x = SimpleNamespace(scale=2.0), fastbp.ones(1)
    compiled = fastbp.compile(lambda x, o, *, p=None: x * o.scale * (1 if p is None else p.scale))
    for value in (2.0, 2.0, 3.0, 3.0, 2.0):
        options.scale = value
        assert compiled(x, options).item() == value
        assert compiled(x, o=options, p=options).item() == value**2


# ---- limits --------------------------------------------------------------------------------------------------------


def test_functions_that_lead_to_themselves() -> None:
    def function(x: Any) -> Any:
        return function, x * factor

    function.__wrapped__ = function  # type: ignore[attr-defined]
    factor = 2.0
    compiled = fastbp.compile(function)
    for value in (2.0, 3.0):
        factor = value
        assert compiled(fastbp.ones(1))[1].item() == value


def test_more_variables_than_a_call_compares() -> None:
    source = "def function(x):\n    return x" + "".join(f" + V{number}" for number in range(44))
    names = {f"V{number}": 1.0 for number in range(44)}
    names["__name__"] = "of_a_user"
    exec(source, names)
    compiled = fastbp.compile(names["function"])
    with pytest.warns(UserWarning, match="more than 32 variables.*: global variable V32.* and .* more") as caught:
        for shape in (1, 2):
            assert compiled(fastbp.zeros(shape)).sum().item() == 44 * shape
    assert len(caught) == 1
    names["V31"] = 2.0
    assert compiled(fastbp.zeros(1)).item() == 45


def test_instances_go_with_their_plans() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(1, 1), 2.0

        @fastbp.compile
        def run(self, x: Any) -> Any:
            return self.layer(x) * self.scale

    own = Own()
    own.run(fastbp.ones(1))
    reference = weakref.ref(own)
    del own
    gc.collect()
    assert reference() is None


# ---- the checks notice ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        globals_of_functions_that_are_called,
        entries_and_attributes_behind_globals,
        variables_of_enclosing_functions,
        methods_and_properties,
        callables,
        a_model_that_is_bound_anew,
    ],
)
def test_variables_that_are_not_read_are_noticed(make: Callable[[], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above fail where the bytecode is not looked at."""
    monkeypatch.setattr("fastbp._variables.chains_of", lambda code: ())
    monkeypatch.setattr("fastbp._variables.Reader._watch_class", lambda self, kind: None)
    with pytest.raises(AssertionError, match="after change"):
        check_changes(make)
