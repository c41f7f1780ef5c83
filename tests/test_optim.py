"""optim: the updates agree with their formulas in plain Python; groups, state and saved form are PyTorch's."""

from __future__ import annotations

import copy
import math
import pickle
from collections import defaultdict
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import nn, optim

START = [1.0, -2.0, 0.5]
GRADIENTS = [[0.5, -1.0, 2.0], [-0.25, 0.0, 1.0], [1.0, 1.0, -3.0], [0.125, -0.5, 0.75]]


def parameter_with(gradient=None, start=START, dtype=fastbp.float64):
    parameter = nn.Parameter(fastbp.tensor(start, dtype=dtype))
    if gradient is not None:
        parameter.grad = fastbp.tensor(gradient, dtype=dtype)
    return parameter


def run(optimizer, parameter, gradients=GRADIENTS) -> list[float]:
    for gradient in gradients:
        parameter.grad = fastbp.tensor(gradient, dtype=parameter.dtype)
        optimizer.step()
    return values(parameter)


def values(tensor) -> list:
    return tensor.detach().numpy().tolist()


def sgd_by_hand(lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False) -> list[float]:
    result = []
    for p, gradients in zip(START, zip(*GRADIENTS, strict=True), strict=True):
        b = None
        for g in gradients:
            g = (-g if maximize else g) + weight_decay * p
            b = g if b is None else momentum * b + (1 - dampening) * g
            p -= lr * ((g + momentum * b if nesterov else b) if momentum else g)
        result.append(p)
    return result


def adam_by_hand(
    lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False, maximize=False, decoupled=False
) -> list[float]:
    result = []
    for p, gradients in zip(START, zip(*GRADIENTS, strict=True), strict=True):
        m = v = greatest = 0.0
        for t, g in enumerate(gradients, 1):
            g = -g if maximize else g
            if decoupled:
                p *= 1 - lr * weight_decay
            else:
                g += weight_decay * p
            m = betas[0] * m + (1 - betas[0]) * g
            v = betas[1] * v + (1 - betas[1]) * g * g
            greatest = max(greatest, v)
            denominator = math.sqrt((greatest if amsgrad else v) / (1 - betas[1] ** t)) + eps
            p -= lr * m / (1 - betas[0] ** t) / denominator
        result.append(p)
    return result


SGD_CASES = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.5},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"lr": 0.1, "momentum": 0.5, "maximize": True, "weight_decay": 0.1},
]
ADAM_CASES = [
    {},
    {"lr": 0.1},
    {"lr": 0.1, "betas": (0.5, 0.75), "eps": 0.1},
    {"lr": 0.1, "weight_decay": 0.5},
    {"lr": 0.1, "betas": (0.5, 0.5), "amsgrad": True},
    {"lr": 0.1, "maximize": True, "weight_decay": 0.5},
]
# Float64: a few roundings per step on values of order one. Float32: the same in its precision.
TOLERANCE = {fastbp.float64: 1e-13, fastbp.float32: 5e-6}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("options", SGD_CASES)
def test_sgd_agrees_with_its_formula(options, dtype):
    parameter = parameter_with(dtype=dtype)
    result = run(optim.SGD([parameter], **options), parameter)
    np.testing.assert_allclose(result, sgd_by_hand(**options), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("options", ADAM_CASES)
def test_adam_agrees_with_its_formula(options, dtype):
    parameter = parameter_with(dtype=dtype)
    result = run(optim.Adam([parameter], **options), parameter)
    np.testing.assert_allclose(result, adam_by_hand(**options), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("options", ADAM_CASES)
def test_adamw_agrees_with_its_formula(options, dtype):
    parameter = parameter_with(dtype=dtype)
    result = run(optim.AdamW([parameter], **options), parameter)
    expected = adam_by_hand(**{"weight_decay": 0.01, **options}, decoupled=True)
    np.testing.assert_allclose(result, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_known_values():
    # SGD: 1 - 0.1 * 0.5. Adam's first step moves by lr against the gradient's sign, but for eps.
    parameter = parameter_with([0.5, -1.0, 2.0])
    optim.SGD([parameter], lr=0.1).step()
    np.testing.assert_allclose(values(parameter), [0.95, -1.9, 0.3], rtol=1e-15)
    parameter = parameter_with([0.5, -1.0, 2.0])
    optim.Adam([parameter], lr=0.1).step()
    np.testing.assert_allclose(values(parameter), [0.9, -1.9, 0.4], rtol=1e-7)


def test_defaults_are_pytorchs():
    parameter = parameter_with()
    assert optim.SGD([parameter]).defaults["lr"] == optim.Adam([parameter]).defaults["lr"] == 1e-3
    assert optim.Adam([parameter]).defaults["betas"] == (0.9, 0.999)
    assert optim.AdamW([parameter]).defaults["weight_decay"] == 0.01
    assert isinstance(optim.AdamW([parameter]), optim.Adam)


# ----------------------------------------------------------------------------------------------- gradients and state


def optimizers():
    return [
        lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
        lambda params: optim.Adam(params, lr=0.1),
        lambda params: optim.Adam(params, lr=0.1, amsgrad=True),
        lambda params: optim.AdamW(params, lr=0.1),
    ]


@pytest.mark.parametrize("make", optimizers())
def test_a_parameter_without_gradient_is_passed_over(make):
    # `late` misses some steps; each parameter must move as if it were alone with its own gradients.
    always, late = parameter_with(), parameter_with()
    alone_always, alone_late = parameter_with(), parameter_with()
    optimizer = make([late, always])
    for step, gradient in enumerate(GRADIENTS):
        always.grad = fastbp.tensor(gradient, dtype=fastbp.float64)
        late.grad = fastbp.tensor(gradient, dtype=fastbp.float64) if step in (1, 3) else None
        optimizer.step()
    assert values(always) == run(make([alone_always]), alone_always)
    assert values(late) == run(make([alone_late]), alone_late, [GRADIENTS[1], GRADIENTS[3]])


@pytest.mark.parametrize("make", optimizers())
def test_no_gradient_at_all_changes_nothing(make):
    parameter = parameter_with()
    optimizer = make([parameter])
    optimizer.step()
    assert values(parameter) == START and len(optimizer.state) == 0


def test_state_is_pytorchs():
    parameter = parameter_with()
    optimizer = optim.Adam([parameter], amsgrad=True)
    run(optimizer, parameter)
    assert set(optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    assert optimizer.state[parameter]["step"] == 4
    parameter = parameter_with()
    optimizer = optim.SGD([parameter], lr=0.1)
    run(optimizer, parameter)
    assert len(optimizer.state) == 0
    optimizer = optim.SGD([parameter], lr=0.1, momentum=0.5)
    run(optimizer, parameter, GRADIENTS[:1])
    assert values(optimizer.state[parameter]["momentum_buffer"]) == GRADIENTS[0]


def test_options_may_change_between_steps():
    parameter = parameter_with()
    optimizer = optim.SGD([parameter], lr=0.1)
    run(optimizer, parameter, [[1.0, 1.0, 1.0]])
    optimizer.param_groups[0]["lr"] = 1.0
    result = run(optimizer, parameter, [[1.0, 1.0, 1.0]])
    np.testing.assert_allclose(result, [-0.1, -3.1, -0.6], rtol=1e-14)
    optimizer.param_groups[0]["momentum"] = 0.5
    run(optimizer, parameter, [[1.0, 0.0, 0.0]])
    result = run(optimizer, parameter, [[0.0, 0.0, 0.0]])
    np.testing.assert_allclose(result, [-1.6, -3.1, -0.6], rtol=1e-14)
    adam = optim.Adam([parameter])
    run(adam, parameter, GRADIENTS[:1])
    adam.param_groups[0]["amsgrad"] = True
    run(adam, parameter, GRADIENTS[1:2])
    assert "max_exp_avg_sq" in adam.state[parameter]


def test_replaced_parameters_and_cleared_state_are_noticed():
    first, second = parameter_with(), parameter_with()
    optimizer = optim.Adam([first], lr=0.1)
    run(optimizer, first, GRADIENTS[:2])
    optimizer.param_groups[0]["params"] = [second]
    expected = parameter_with()
    assert run(optimizer, second) == run(optim.Adam([expected], lr=0.1), expected)
    optimizer.param_groups[0]["params"][0] = first
    del optimizer.state[first]
    with fastbp.no_grad():
        first.copy_(fastbp.tensor(START))
    assert run(optimizer, first) == values(expected)
    optimizer.state.clear()
    with fastbp.no_grad():
        first.copy_(fastbp.tensor(START))
    assert run(optimizer, first) == values(expected)


def test_a_failed_step_changes_nothing():
    good, bad = parameter_with(GRADIENTS[0]), parameter_with(GRADIENTS[0])
    for make in optimizers():
        optimizer = make([good, bad])
        bad.data = fastbp.zeros(2, dtype=fastbp.float64)  # The gradient has three elements.
        with pytest.raises((RuntimeError, ValueError)):
            optimizer.step()
        assert values(good) == START
        assert optimizer.state[good].get("step", 0) == 0 and optimizer.state[good].get("momentum_buffer") is None


def test_zero_grad():
    parameter = parameter_with(GRADIENTS[0])
    gradient = parameter.grad
    optimizer = optim.SGD([parameter], lr=0.1)
    optimizer.zero_grad(set_to_none=False)
    assert values(gradient) == [0.0, 0.0, 0.0]
    optimizer.zero_grad()
    assert parameter.grad is None
    optimizer.zero_grad(set_to_none=False)


def test_step_runs_the_closure():
    parameter = parameter_with()
    optimizer = optim.SGD([parameter], lr=0.25)

    def closure():
        optimizer.zero_grad()
        loss = (parameter * parameter).sum()
        loss.backward()
        return loss

    with fastbp.no_grad():
        assert optimizer.step(closure).item() == 5.25
    assert values(parameter) == [0.5, -1.0, 0.25]
    assert optimizer.step() is None


def test_training_finds_the_minimum():
    for make in optimizers():
        parameter = parameter_with()
        optimizer = make([parameter])
        optimizer.param_groups[0]["weight_decay"] = 0.0
        for _ in range(600):
            optimizer.zero_grad()
            ((parameter - 3) ** 2).sum().backward()
            optimizer.step()
        np.testing.assert_allclose(values(parameter), [3.0] * 3, atol=1e-3)


# ----------------------------------------------------------------------------------------------- groups


def test_groups_have_their_own_options():
    first, second, third = parameter_with(), parameter_with(), parameter_with()
    optimizer = optim.SGD([{"params": first}, {"params": [second], "lr": 1.0}], lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    optimizer.add_param_group({"params": (parameter for parameter in [third]), "momentum": 0.5})
    for parameter in (first, second, third):
        parameter.grad = fastbp.ones(3, dtype=fastbp.float64)
    optimizer.step()
    np.testing.assert_allclose(values(first), [0.9, -2.1, 0.4])
    np.testing.assert_allclose(values(second), [0.0, -3.0, -0.5])
    assert list(optimizer.state) == [third]


def test_named_parameters_are_taken():
    net = nn.Linear(2, 1)
    optimizer = optim.Adam(net.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.param_groups[0]["params"][1] is net.bias


def test_bad_arguments_raise():
    parameter = parameter_with()
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.Adam([])
    with pytest.raises(TypeError, match="should be an iterable of Tensors or dicts"):
        optim.Adam(parameter)
    with pytest.raises(TypeError, match="can only optimize Tensors, but one of the params is str"):
        optim.Adam(["weight"])
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([parameter * 2])
    with pytest.raises(TypeError, match="ordered collections"):
        optim.SGD([{"params": {parameter}}])
    with pytest.raises(ValueError, match="duplicate parameters"):
        optim.SGD([parameter, parameter])
    optimizer = optim.SGD([parameter])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": parameter})
    with pytest.raises(TypeError, match="must be a dict"):
        optimizer.add_param_group([parameter])
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (optim.SGD, {"lr": -1}, "Invalid learning rate: -1"),
        (optim.SGD, {"lr": math.nan}, "Invalid learning rate: nan"),
        (optim.SGD, {"momentum": -0.1}, "Invalid momentum value: -0.1"),
        (optim.SGD, {"weight_decay": -0.1}, "Invalid weight_decay value: -0.1"),
        (optim.SGD, {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        (optim.Adam, {"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        (optim.Adam, {"betas": (0.9, -1.0)}, "Invalid beta parameter at index 1: -1.0"),
        (optim.AdamW, {"eps": -1.0}, "Invalid epsilon value: -1.0"),
    ],
)
def test_options_outside_their_domain_raise(make, options, message):
    with pytest.raises(ValueError) as caught:
        make([parameter_with()], **options)
    assert str(caught.value) == message


def test_pytorchs_options_without_meaning_here():
    optim.Adam([parameter_with()], foreach=True, fused=True, capturable=True)
    with pytest.raises(NotImplementedError, match="differentiable"):
        optim.SGD([parameter_with()], differentiable=True)


def test_repr():
    text = repr(optim.SGD([parameter_with()], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n    differentiable: False\n")
    assert "    lr: 0.5\n" in text and text.endswith("    weight_decay: 0\n)")


def test_own_optimizers_can_be_written():
    class SignDescent(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        @fastbp.no_grad()
        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad.sign(), alpha=-group["lr"])

    parameter = parameter_with([2.0, -3.0, 0.0])
    SignDescent([parameter], lr=0.5).step()
    assert values(parameter) == [0.5, -1.5, 0.5]
    with pytest.raises(NotImplementedError):
        optim.Optimizer([parameter], {"lr": 1.0}).step()


# ----------------------------------------------------------------------------------------------- saving


def test_state_dict_has_pytorchs_layout():
    first, second, idle = parameter_with(), parameter_with(), parameter_with()
    optimizer = optim.Adam([{"params": [idle, first]}, {"params": [second], "lr": 0.5}])
    assert optimizer.state_dict()["state"] == {}
    for parameter in (first, second):
        parameter.grad = fastbp.ones(3, dtype=fastbp.float64)
    optimizer.step()
    saved = optimizer.state_dict()
    assert set(saved) == {"state", "param_groups"}
    assert [group["params"] for group in saved["param_groups"]] == [[0, 1], [2]]
    assert saved["param_groups"][1]["lr"] == 0.5
    assert set(saved["param_groups"][0]) == {
        "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable", "differentiable",
        "fused", "decoupled_weight_decay", "params",
    }  # fmt: skip
    assert set(saved["state"]) == {1, 2}
    step = saved["state"][1]["step"]
    assert step.item() == 1.0 and step.dtype == fastbp.float32 and list(step.shape) == []
    assert saved["state"][2]["exp_avg"] is optimizer.state[second]["exp_avg"]


@pytest.mark.parametrize("make", optimizers())
def test_loading_continues_exactly(make):
    whole, first, second = parameter_with(), parameter_with(), parameter_with()
    expected = run(make([whole]), whole)
    optimizer = make([first])
    run(optimizer, first, GRADIENTS[:2])
    resumed = make([second])
    resumed.load_state_dict(optimizer.state_dict())
    with fastbp.no_grad():
        second.copy_(first)
    assert run(resumed, second, GRADIENTS[2:]) == expected
    # The state was copied: the first optimizer is where it was.
    assert run(optimizer, first, GRADIENTS[2:]) == expected


def test_loading_takes_arrays_and_fills_in_options():
    parameter = parameter_with()
    optimizer = optim.Adam([parameter])
    state = {"step": np.float32(3), "exp_avg": np.ones(3, np.float32), "exp_avg_sq": np.ones(3)}
    optimizer.load_state_dict({"state": {0: state}, "param_groups": [{"lr": 0.5, "params": [0]}]})
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert optimizer.state[parameter]["step"] == 3
    assert optimizer.state[parameter]["exp_avg"].dtype == fastbp.float64


def test_loading_checks_before_it_changes():
    parameter = parameter_with()
    optimizer = optim.Adam([parameter], lr=0.1)
    run(optimizer, parameter, GRADIENTS[:1])
    before = copy.deepcopy(optimizer.state_dict()["param_groups"])
    group = {**before[0], "lr": 9.0}
    average = values(optimizer.state[parameter]["exp_avg"])
    bad_state = {0: {"step": 1, "exp_avg": np.ones(4)}}
    for saved, error in (
        ({"state": {}, "param_groups": []}, ValueError),
        ({"state": {}, "param_groups": [{**group, "params": [0, 1]}]}, ValueError),
        ({"state": bad_state, "param_groups": [group]}, RuntimeError),
        ({"state": {5: {}}, "param_groups": [group]}, ValueError),
    ):
        with pytest.raises(error):
            optimizer.load_state_dict(saved)
        assert optimizer.state_dict()["param_groups"] == before
        assert values(optimizer.state[parameter]["exp_avg"]) == average


def test_optimizers_can_be_copied_with_their_model():
    net = nn.Linear(2, 1)
    optimizer = optim.Adam(net.parameters(), lr=0.1)
    net(fastbp.ones(1, 2)).sum().backward()
    optimizer.step()
    for net2, optimizer2 in (copy.deepcopy((net, optimizer)), pickle.loads(pickle.dumps((net, optimizer)))):
        before = values(net.weight)
        assert optimizer2.param_groups[0]["params"][0] is net2.weight
        net2(fastbp.ones(1, 2)).sum().backward()
        optimizer2.step()
        assert values(net.weight) == before != values(net2.weight)


# ------------------------------------------------------------------------------------------- state that anyone may edit


def stepped(optimizer: optim.Optimizer, parameter: fastbp.Tensor, gradient: list[float]) -> list[float]:
    parameter.grad = fastbp.tensor(gradient)
    optimizer.step()
    return values(parameter)


def test_an_assigned_buffer_is_used() -> None:
    parameter = fastbp.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([parameter], lr=0.1, momentum=0.9)
    stepped(optimizer, parameter, [1.0])
    optimizer.state[parameter]["momentum_buffer"] = fastbp.tensor([10.0])
    assert stepped(optimizer, parameter, [1.0]) == pytest.approx([1.0 - 0.1 - 0.1 * (0.9 * 10 + 1)])
    optimizer.state[parameter]["momentum_buffer"] = None
    assert stepped(optimizer, parameter, [1.0]) == pytest.approx([1.0 - 0.1 - 1.0 - 0.1])


@pytest.mark.parametrize("edit", ["clear", "entry", "delete", "tensors", "dict"])
def test_what_is_missing_in_the_state_starts_anew(edit: str) -> None:
    parameter = fastbp.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.Adam([parameter], lr=0.1)
    for _ in range(3):
        stepped(optimizer, parameter, [1.0, -3.0])
    fresh = parameter.detach().clone().requires_grad_()
    other = optim.Adam([fresh], lr=0.1)
    if edit == "clear":
        optimizer.state.clear()
    elif edit == "entry":
        optimizer.state[parameter].clear()
    elif edit == "delete":
        del optimizer.state[parameter]
    elif edit == "dict":
        optimizer.state = defaultdict(dict)
    else:
        optimizer.state[parameter].update(step=0, exp_avg=fastbp.zeros(2), exp_avg_sq=fastbp.zeros(2))
    for _ in range(3):
        assert stepped(optimizer, parameter, [0.5, 1.0]) == stepped(other, fresh, [0.5, 1.0])


@pytest.mark.parametrize("number", [7, 7.0, fastbp.tensor(7.0), fastbp.tensor(7), np.int64(7)], ids=repr)
def test_a_count_of_steps_may_be_any_number(number: Any) -> None:
    one, other = (fastbp.tensor([1.0], requires_grad=True) for _ in range(2))
    optimizer = optim.Adam([one, other], lr=0.1)
    one.grad = other.grad = fastbp.ones(1)
    optimizer.step()
    optimizer.state[one]["step"] = number
    optimizer.step()
    assert [optimizer.state[p]["step"] for p in (one, other)] == [8, 2]
    assert type(optimizer.state[one]["step"]) is int and values(one) != values(other)


def test_a_count_that_is_no_number_is_refused_and_nothing_has_changed() -> None:
    parameter = fastbp.tensor([1.0], requires_grad=True)
    optimizer = optim.Adam([parameter])
    stepped(optimizer, parameter, [1.0])
    before = values(parameter)
    optimizer.state[parameter]["step"] = "many"
    with pytest.raises((TypeError, ValueError)):
        optimizer.step()
    assert values(parameter) == before
