"""func.functional_call: modules as functions of their parameters; what is replaced is put back."""

from __future__ import annotations

import numpy as np
import pytest
from test_func import X, real, refuses, same, x

import fastbp
from fastbp import func, nn


class Tied(nn.Module):
    """Two names of one weight, and a buffer that each call rebinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight
        self.register_buffer("calls", fastbp.zeros(1))

    def forward(self, v: fastbp.Tensor, scale: float = 1.0) -> fastbp.Tensor:
        self.calls = self.calls + 1
        if scale == 0:
            raise ZeroDivisionError
        return self.b(self.a(v)) * scale


def test_functional_call() -> None:
    model = nn.Linear(3, 2).double()
    before = [p.detach().numpy().copy() for p in model.parameters()]
    weight = fastbp.arange(6, dtype=fastbp.float64).reshape(2, 3)
    wanted = np.arange(6.0).reshape(2, 3) @ X
    same(func.functional_call(model, {"weight": weight, "bias": real([1.0, 2.0])}, x()), wanted + np.array([1.0, 2.0]))
    same(func.functional_call(model, ({"weight": weight}, {"bias": real([0.0, 0.0])}), (x(),)), wanted)
    same(func.functional_call(model, {"weight": weight}, (), {"input": x()}), wanted + before[1], recorded=True)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert np.array_equal(parameter.detach().numpy(), value)
        assert isinstance(parameter, nn.Parameter)


def test_functional_call_with_tied_weights() -> None:
    model = Tied().double()
    eye = 2 * fastbp.eye(3, dtype=fastbp.float64)
    same(func.functional_call(model, {"a.weight": eye}, x()), 4 * X)
    same(func.functional_call(model, {"b.weight": eye}, x()), 4 * X)
    own = model.a.weight.detach().numpy()
    same(func.functional_call(model, {"a.weight": eye}, x(), tie_weights=False), 2 * own @ X, recorded=True)
    other = 3 * fastbp.eye(3, dtype=fastbp.float64)
    same(func.functional_call(model, {"a.weight": eye, "b.weight": other}, x(), tie_weights=False), 6 * X)
    refuses(
        ValueError,
        "'a.weight' and 'b.weight' are tied",
        lambda: func.functional_call(model, {"a.weight": eye, "b.weight": other}, x()),
    )
    assert model.a.weight is model.b.weight


def test_functional_call_puts_everything_back() -> None:
    model = Tied().double()
    weight, calls = model.a.weight, model.calls
    with pytest.raises(ZeroDivisionError):
        func.functional_call(model, {"a.weight": weight * 2, "calls": fastbp.ones(1)}, x(), {"scale": 0.0})
    func.functional_call(model, {"calls": fastbp.ones(1)}, x())
    assert model.a.weight is weight
    assert model.b.weight is weight
    assert model.calls is calls


def test_functional_call_refuses() -> None:
    model = nn.Linear(3, 2)
    refuses(
        RuntimeError,
        "Unexpected key(s): 'weights'",
        lambda: func.functional_call(model, {"weights": fastbp.ones(2, 3)}, x()),
    )
    refuses(
        RuntimeError,
        "Missing key(s): 'bias'",
        lambda: func.functional_call(model, {"weight": fastbp.ones(2, 3)}, x().float(), strict=True),
    )
    refuses(
        ValueError,
        "'bias' appears in more than one",
        lambda: func.functional_call(model, ({"bias": fastbp.ones(2)}, {"bias": fastbp.ones(2)}), x()),
    )
    refuses(TypeError, "'bias' must be a Tensor, got float", lambda: func.functional_call(model, {"bias": 1.0}, x()))  # type: ignore[dict-item]


def test_the_gradient_of_a_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    state = {name: p.detach() for name, p in model.named_parameters()}
    found = func.grad(lambda s: func.functional_call(model, s, x()).sum())(state)
    model(x()).sum().backward()
    for name, parameter in model.named_parameters():
        same(found[name], parameter.grad.numpy())
