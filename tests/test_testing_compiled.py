"""fastbp.testing.check_compiled: it agrees with compiled functions of every kind, and objects to planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from test_compile_random import programs, run_program
from twins import OPTIMIZERS, drawn

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, nn, optim
from fastbp.reference import OPS, Op
from fastbp.testing import check_compiled, program

T = fastbp.tensor


def trainer(make: Callable[[Any], Any], dtype: Any = fastbp.float32) -> Callable[..., Any]:
    """A step of a small network; the function carries its model and optimizer."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    optimizer = make(model)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step.model, step.optimizer = model, optimizer  # type: ignore[attr-defined]
    return step


def batch(dtype: Any = np.float32) -> tuple[Any, Any]:
    return drawn(5, 3, dtype=dtype), drawn(5, 2, seed=1, dtype=dtype)


# ---- programs that are right ---------------------------------------------------------------------------------------


def test_the_lines_are_named() -> None:
    names = check_compiled(trainer(OPTIMIZERS["sgd"]), *batch())
    assert names[:3] == ["linear", "tanh", "linear"] and names[-1] == "sgd"
    assert "pull tanh" in names and "pull squared_error" in names


@pytest.mark.parametrize("dtype", [fastbp.float32, fastbp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_steps(name: str, dtype: Any) -> None:
    step = trainer(OPTIMIZERS[name], dtype)
    before = step.model[0].weight.detach().clone()  # type: ignore[attr-defined]
    for _ in range(3):  # the first makes state, the others have some
        check_compiled(step, *batch(np.dtype(dtype.name)))
    assert not fastbp.equal(before, step.model[0].weight)  # type: ignore[attr-defined]


def test_two_steps_in_one_program() -> None:
    one = trainer(OPTIMIZERS["sgd"])
    check_compiled(lambda x, y: (one(x, y), one(x, y)), *batch())


@pytest.mark.parametrize("name", ["sgd momentum", "adam"])
def test_two_steps_that_count_in_one_program(name: str) -> None:
    one = trainer(OPTIMIZERS[name])
    check_compiled(lambda x, y: (one(x, y), one(x, y)), *batch())


def test_options_are_read_when_the_plan_runs() -> None:
    step = trainer(OPTIMIZERS["adam"])
    for k in range(3):
        step.optimizer.param_groups[0]["lr"] = 0.3 / (k + 1)  # type: ignore[attr-defined]
        check_compiled(step, *batch())


def test_gradients_that_are_collected() -> None:
    w = drawn(3, 2).requires_grad_()
    x = drawn(4, 3, seed=1).requires_grad_()

    def step(x: Any) -> None:
        (x @ w).square().sum().backward()

    for _ in range(3):
        check_compiled(step, x)
    wanted = [3 * g for g in fastbp.grad((x @ w).square().sum(), [w, x])]
    fastbp.testing.assert_close([w.grad, x.grad], wanted)


def test_gradients_that_are_read_scaled_and_cleared() -> None:
    w, v = drawn(3).requires_grad_(), drawn(3, seed=1).requires_grad_()

    def step(x: Any) -> Any:
        before = v.grad * 2
        v.grad = None
        w.grad.zero_()
        (w * x).sin().sum().backward()
        w.grad.mul_(0.5)
        nn.utils.clip_grad_norm_([w], 0.1)
        return before

    (w * v).sum().backward()
    check_compiled(step, drawn(3, seed=2))
    assert v.grad is None


def test_a_function_with_its_derivative() -> None:
    w = drawn(3, 2).requires_grad_()
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.4), nn.ReLU())

    def function(x: Any, k: Any) -> Any:
        h = model(x @ w)
        return {"mean": h.mean(), "h": [h * k, k + 1], "static": "text"}

    names = check_compiled(function, drawn(4, 3, seed=1).requires_grad_(), T(3))
    assert names.count("dropout") == 2 and "pull relu" in names
    check_compiled(fastbp.compile(model), drawn(4, 2))
    with fastbp.no_grad():
        assert check_compiled(model, drawn(4, 2)) == ["linear", "dropout", "relu"]


def test_derivatives_that_are_told_by_the_result() -> None:
    def function(x: Any) -> Any:
        y = x.exp().sqrt() + x.tanh() * x.sigmoid() / (x.tan() + 3).reciprocal() + x.expm1().rsqrt()
        z = x * 1.0
        z.exp_()
        return y.softmax(0), y.logsumexp(0), y.std(), y.amax(), z * z, x.pow(y), 2.0**x

    check_compiled(function, (drawn(4).abs() + 0.1).requires_grad_())


def test_state_that_is_written() -> None:
    mean, seen, flags = fastbp.zeros(4), T(0), T([True, False, True])

    def step(x: Any, out: Any) -> Any:
        mean.mul_(0.9).add_(0.1 * x.mean(0))
        seen.add_(1)
        flags.copy_(~flags)
        x[1:3, ::2] = mean[1:3] * 2
        out.t()[0].copy_(x.sum(1))
        return x[-1], mean.view(2, 2).t(), x

    for k in range(2):
        check_compiled(step, drawn(5, 4, seed=k), fastbp.zeros(5, 2))
    assert seen.item() == 2


def test_views_arguments_and_arrays() -> None:
    def function(x: Any, y: Any, many: Any, scale: float) -> Any:
        a = x.t()[1:].expand(2, 3, 5)
        return a.diagonal(0, 1, 2) + y[::2, None, None][0], many["a"] * scale, [one.flip(0) for one in many["b"]], a

    check_compiled(function, drawn(5, 4), drawn(6)[1:], {"a": np.ones((2, 2)), "b": [drawn(3), np.arange(3)]}, 0.5)


def test_predicates_and_selections() -> None:
    def function(x: Any, i: Any) -> Any:
        near = (x > 0) & ~(x > 1) | x.isnan()
        y = fastbp.where(near, x, x * 0.5).masked_fill(x < -1, 2.0)
        order = x.argsort(1, descending=True)
        top, places = x.topk(2, 1)
        return (
            *(y, near.any(), near.all(1), x.argmax(), x.argmin(1, keepdim=True), order, top, places, x[i], x[:, i]),
            *(
                x[i, i],
                _core._apply("one_hot", [i], {"dim": 4}),
                x.gather(1, order),
                i // 2,
                i % 3,
                -i,
                (x * 10).long(),
                i.double(),
                x.bool(),
            ),
            *(x.maximum(y), x.clamp(-0.5, 0.5), x.sort(1)[0], x.index_select(1, i), x.round()),
        )

    check_compiled(function, drawn(3, 4), T([2, 0, 1]))


def test_reductions() -> None:
    def function(x: Any) -> Any:
        return (
            *(x.sum(), x.sum(0), x.mean((0, 2), keepdim=True), x.prod(1), x.amax(2), x.amin((0, 1)), x.var(0), x.std()),
            *(x.norm(), x.logsumexp(1), x.cumsum(2), x.softmax(0), x.log_softmax(2), (x > 0).sum(1), x.norm(1, 2)),
        )

    check_compiled(function, drawn(2, 3, 4).requires_grad_())


def test_losses() -> None:
    weight = T([0.5, 1.0, 2.0])

    def function(x: Any, t: Any) -> Any:
        log = x.log_softmax(1)
        return (
            *(F.cross_entropy(x, t), F.cross_entropy(x, t, weight=weight, reduction="sum"), F.nll_loss(log, t)),
            *(F.cross_entropy(x, t, label_smoothing=0.1, reduction="none"), F.cross_entropy(x, t, ignore_index=1)),
            *(F.binary_cross_entropy_with_logits(x, x.detach().sigmoid()), F.smooth_l1_loss(x, x.detach() + 0.3)),
        )

    check_compiled(function, drawn(4, 3).requires_grad_(), T([2, 0, 1, 1]))


def test_sources() -> None:
    def function(x: Any) -> Any:
        return (
            *(fastbp.arange(5), fastbp.arange(0.5, 2.0, 0.25), fastbp.linspace(0, 1, 4), fastbp.eye(2, 3)),
            *(
                fastbp.full((2,), 2**60 + 1),
                fastbp.ones(2, dtype=fastbp.bool),
                x + fastbp.zeros(3, dtype=fastbp.float64),
            ),
        )

    check_compiled(function, drawn(3))


def test_random_numbers() -> None:
    one, two = fastbp.Generator().manual_seed(5), fastbp.Generator().manual_seed(5)

    def function(x: Any) -> Any:
        return (
            *(fastbp.rand(3, generator=one), fastbp.randn(5, dtype=fastbp.float64), fastbp.randint(3, 9, (4,))),
            *(fastbp.rand(2, generator=two), fastbp.rand(3, generator=one), fastbp.randperm(6), x.uniform_(2, 3)),
            *(fastbp.bernoulli(x.detach(), 0.3), fastbp.empty(3).exponential_(2.0), F.dropout(x, 0.5)),
        )

    before = fastbp.get_rng_state()
    for _ in range(2):
        check_compiled(function, drawn(7))
    assert not fastbp.equal(before, fastbp.get_rng_state())


def test_types_are_mixed() -> None:
    w, v = drawn(3, 2).requires_grad_(), drawn(2, dtype=np.float64).requires_grad_()
    optimizer = optim.SGD([w, v], lr=0.1)

    def step(x: Any, i: Any) -> Any:
        optimizer.zero_grad()
        loss = ((x @ w).double() * v + i).square().sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    check_compiled(step, drawn(4, 3), T([1, 2]))


def test_programs_that_magnify_rounding() -> None:
    """They are allowed what moving operands by a last place does to them, and no more."""

    def function(x: Any) -> Any:
        return (x * 3e4).cos(), (x + 1e4) - 1e4 - x, (x * 12).tanh().atan().tan() - 1

    check_compiled(function, drawn(6).requires_grad_())
    w = drawn(4).requires_grad_()
    optimizer = optim.Adam([w], lr=0.1)

    def step(x: Any) -> None:
        optimizer.zero_grad()
        ((w * x).softmax(0).sum() * 7.3).backward()  # the gradient is zero but for rounding
        optimizer.step()

    check_compiled(step, drawn(4, seed=1))


def test_nothing_to_do() -> None:
    assert check_compiled(lambda x: x, drawn(3)) == []
    assert check_compiled(lambda: None) == []
    check_compiled(lambda x: (x.t() @ x, x.sum(), x.exp()), fastbp.zeros(0, 3))


@settings(max_examples=60)
@given(instructions=programs)
def test_random_programs(instructions: Any) -> None:
    fastbp.set_default_dtype(fastbp.float64)
    p = drawn(3, 4, seed=1, dtype=np.float64).requires_grad_()
    q = (drawn(4, 4, seed=2, dtype=np.float64) * 0.3).requires_grad_()
    optimizer = optim.SGD([p, q], lr=0.01, momentum=0.5)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss, last = run_program(instructions, x, [p, q])
        loss.backward()
        optimizer.step()
        return loss.detach(), [one.detach() for one in last]

    try:
        check_compiled(step, drawn(3, 4, seed=10, dtype=np.float64))
    except RuntimeError as error:  # no program: eager code cannot differentiate it either
        if "inplace operation" not in str(error) and "does not record history" not in str(error):
            raise


# ---- faults of the reference stand for faults of the planner: only that they disagree can be seen ------------------


def plant(monkeypatch: pytest.MonkeyPatch, name: str, **changed: Any) -> None:
    right = OPS[name]
    found = {"forward": right._forward, "vjp": right._vjp, **changed}
    monkeypatch.setitem(OPS, name, Op(name, found["forward"], found["vjp"]))


def scaled(function: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """All arrays that it returns, by a factor."""

    def wrong(*inputs: Any, **attributes: Any) -> Any:
        made = function(*inputs, **attributes)
        parts = [made] if not isinstance(made, tuple) else made
        changed = [None if x is None else type(x)([e * factor for e in x.values], x.shape) for x in parts]
        return tuple(changed) if isinstance(made, tuple) else changed[0]

    return wrong


@pytest.mark.parametrize("op", ["linear", "tanh", "squared_error", "mean", "matmul", "sum", "full", "adam"])
def test_a_wrong_op_is_caught(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    step = trainer(OPTIMIZERS["adam"])
    check_compiled(step, *batch())
    plant(monkeypatch, op, forward=scaled(OPS[op]._forward, 1.001))
    with pytest.raises(AssertionError, match="line"):
        check_compiled(step, *batch())


@pytest.mark.parametrize("op", ["tanh", "squared_error"])
def test_a_wrong_derivative_is_caught(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    right = OPS[op]._vjp
    assert right is not None
    plant(monkeypatch, op, vjp=scaled(right, 1.001))
    with pytest.raises(AssertionError, match="gradient of leaf"):
        check_compiled(trainer(OPTIMIZERS["sgd"]), *batch())


def test_a_shape_that_the_reference_does_not_have_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "tanh", forward=lambda x: OPS["sum"].forward(x))
    with pytest.raises(AssertionError, match=r"line 1, tanh: shape \(5, 4\) where the reference has \(\)"):
        check_compiled(trainer(OPTIMIZERS["sgd"]), *batch())


def test_other_random_numbers_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OPS["uniform"]._forward
    plant(monkeypatch, "uniform", forward=lambda *x, offset, **a: right(*x, offset=offset + 1, **a))
    with pytest.raises(AssertionError, match="returned tensor 0"):
        check_compiled(lambda x: x * fastbp.rand(3), drawn(3))


# ---- faults of a run -----------------------------------------------------------------------------------------------


def after_run(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], Any]) -> None:
    """`spoil` is given what a run returns, and may change it and the world."""
    right = program.Recorder.__call__

    def wrong(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = right(self, *args, **kwargs)
        spoil(made)
        return made

    monkeypatch.setattr(program.Recorder, "__call__", wrong)


@pytest.mark.parametrize("lr", [1e-5, 0.1])
@pytest.mark.parametrize("name", ["weight", "gradient", "exp_avg", "exp_avg_sq", "result", "argument"])
def test_a_wrong_number_is_caught(monkeypatch: pytest.MonkeyPatch, name: str, lr: float) -> None:
    step = trainer(lambda m: optim.Adam(m.parameters(), lr=lr))
    check_compiled(step, *batch())
    weight, given = step.model[0].weight, batch()  # type: ignore[attr-defined]
    state = step.optimizer.state[weight]  # type: ignore[attr-defined]
    changed = {"weight": weight, "argument": given[0], **state}

    def spoil(made: Any) -> None:
        x = made if name == "result" else weight.grad if name == "gradient" else changed[name]
        by = 0.2 * lr if name == "weight" else 1e-2 * x.detach().abs().max().item()
        x.detach().view(-1)[-1] += by

    after_run(monkeypatch, spoil)
    part = {"weight": "parameter", "result": "returned tensor 0", "argument": "tensor argument 0"}.get(name, name)
    with pytest.raises(AssertionError, match=part):
        check_compiled(step, *given)


def test_an_element_that_no_line_writes_is_held_to_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    w = fastbp.ones(3)
    after_run(monkeypatch, lambda made: w[1:2].add_(2e-7))
    with pytest.raises(AssertionError, match=r"state of 3 elements \(which no line writes\)"):
        check_compiled(lambda x: x * w, drawn(3))


def test_a_gradient_that_should_not_be_there_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    w = drawn(3).requires_grad_()

    def step(x: Any) -> None:
        (w * x).sum().backward()
        w.grad = None

    after_run(monkeypatch, lambda made: setattr(w, "grad", fastbp.ones(3)))
    with pytest.raises(AssertionError, match="present, unlike in the reference"):
        check_compiled(step, drawn(3))


def test_a_wrong_derivative_of_a_function_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    after_run(monkeypatch, lambda made: made.register_hook(lambda g: g * 1.001))
    with pytest.raises(AssertionError, match="gradient of leaf 0"):
        check_compiled(lambda x: x.sin(), drawn(3).requires_grad_())


def test_the_first_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(made: Any) -> None:
        for x in made:
            x.add_(1)

    after_run(monkeypatch, spoil)
    with pytest.raises(AssertionError, match=r"returned tensor 1 \(line 0, exp\)"):
        check_compiled(lambda x: (lambda y: (y.sin(), y))(x.exp()), drawn(3))


def test_a_tolerance_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    after_run(monkeypatch, lambda made: made.mul_(1.001))
    with pytest.raises(AssertionError, match="allowed"):
        check_compiled(lambda x: x.exp(), drawn(3))
    check_compiled(lambda x: x.exp(), drawn(3), rtol=1e-3)


# ---- what cannot be checked ----------------------------------------------------------------------------------------


def test_an_op_that_the_reference_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(OPS, "exp")
    with pytest.raises(KeyError, match="no op 'exp'"):
        check_compiled(lambda x: x.exp(), drawn(3))


def test_memory_under_two_names() -> None:
    x, w = drawn(6), drawn(6)
    with pytest.raises(NotImplementedError, match="arguments overlap"):
        check_compiled(lambda a, b: a.add_(b), x[:4], x[2:])
    with pytest.raises(NotImplementedError, match="overlaps with state"):
        check_compiled(lambda a: w.add_(a), w)
    check_compiled(lambda a, b: a + b + w, w, w)  # which is only read
