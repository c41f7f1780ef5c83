"""Checkpoints: the same numbers as without, at the memory of arguments and results, in all ways of differentiating."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import Tensor, autograd, nn
from fastbp._core import memory_statistics
from fastbp.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential


def reals(*values: float) -> Tensor:
    return fastbp.tensor(list(values), dtype=fastbp.float64)


def test_the_same_bits_with_parameters_closures_and_dropout() -> None:
    net = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5)) for _ in range(4)])
    w = fastbp.randn(4, requires_grad=True)
    x = fastbp.randn(3, 4, requires_grad=True)

    def plain(x: Tensor) -> Tensor:
        return net(x * w).sum()

    def gradients(function: Any) -> list[Any]:
        fastbp.manual_seed(1)
        leaves = [x, w, *net.parameters()]
        for one in leaves:
            one.grad = None
        y = function(x)
        y.backward()
        after = fastbp.rand(1).item()
        return [y.item(), after, *(one.grad.tolist() for one in leaves)]

    expected = gradients(plain)
    assert gradients(lambda x: checkpoint(plain, x)) == expected
    assert gradients(lambda x: checkpoint(lambda x: checkpoint_sequential(net, 2, x * w).sum(), x)) == expected
    found = gradients(lambda x: checkpoint(plain, x, preserve_rng_state=False))
    assert found[0] == expected[0] and found[2] != expected[2], "the planted fault: other numbers were dropped"


def two(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x * 2).exp().sin(), x.sum()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: checkpoint(two, x)[0] * checkpoint(two, x)[1],
        lambda x: checkpoint(lambda z: checkpoint(lambda y: y.exp() * x, z * z), x),
        lambda x: checkpoint(lambda z: checkpoint(lambda y: y.exp() * x, z * x).sin() * x, x),
        lambda x: checkpoint(lambda a, *, named: a[0] * named["b"] + x, [x.sin()], named={"b": x * 2}),
        lambda x: checkpoint(lambda z: z * x, x * x) * x,
    ],
    ids=["several outputs", "nested", "nested, dependent", "structures", "argument and closure depend"],
)
def test_derivatives_in_both_modes_to_second_order(function: Any) -> None:
    fastbp.testing.check_grads(function, reals(0.3, -0.2, 0.5), order=2)


def test_gradients_by_chosen_inputs_and_intermediate_tensors() -> None:
    w = reals(2.0).requires_grad_()
    x = reals(3.0).requires_grad_()
    h = x * w
    y = checkpoint(lambda h: h * h * w, h)
    assert [g.item() for g in autograd.grad(y, (h, w, x), retain_graph=True)] == [24, 108, 48]
    assert autograd.grad(y, h, retain_graph=True)[0].item() == 24
    h.retain_grad()
    seen: list[float] = []
    h.register_hook(lambda g: seen.append(g.item()))
    y.backward()
    assert h.grad.item() == 24 and seen == [24] and w.grad.item() == 108


def test_intermediate_values_are_not_kept() -> None:
    kept: list[Any] = []

    def block(x: Tensor) -> Tensor:
        h = x.exp()
        kept.append(weakref.ref(h))
        return h.sin().cos().tanh()

    def bytes_of(depth: int, call: Any) -> int:
        x = fastbp.zeros(1000, dtype=fastbp.float64).requires_grad_()
        before = memory_statistics()["live_bytes"]
        y = x
        for _ in range(depth):
            y = call(y)
        held: int = memory_statistics()["live_bytes"] - before
        y.sum().backward()
        assert x.grad is not None
        return held

    plain = bytes_of(8, block)
    kept.clear()
    held = bytes_of(8, lambda y: checkpoint(block, y))
    assert all(one() is None for one in kept)
    # A block keeps the results of exp, sin and tanh: three arrays of 8000 bytes; a checkpoint its argument. There is
    # the last result, too.
    assert plain > 8 * 3 * 8000 * 0.9 and held < 9 * 8000 * 1.05


def test_values_are_computed_twice_and_freed_after_backward() -> None:
    calls: list[int] = []

    def block(x: Tensor) -> Tensor:
        calls.append(1)
        return x * x

    x = reals(3.0).requires_grad_()
    y = checkpoint(block, x)
    y.backward()
    assert x.grad.item() == 6 and len(calls) == 2
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()


def test_without_recording_it_is_a_plain_call() -> None:
    x = reals(1.0)
    assert not checkpoint(lambda x: x * 2, x).requires_grad
    with fastbp.no_grad():
        assert not checkpoint(lambda x: x * 2, x.requires_grad_()).requires_grad


def test_results_that_are_no_tensors_or_older_stay_as_they_are() -> None:
    x, other = reals(1.0).requires_grad_(), reals(2.0).requires_grad_()
    y, same, number, plain = checkpoint(lambda x: (x * 2, other, "text", x.detach()), x)
    assert same is other and number == "text" and not plain.requires_grad
    (y + same).backward()
    assert x.grad.item() == 2 and other.grad.item() == 1


def test_in_compiled_functions() -> None:
    def step(x: Tensor) -> Any:
        y = checkpoint(lambda x: x.exp().sin(), x).sum()
        return autograd.grad(y, x)[0]

    x = reals(0.3, 0.4).requires_grad_()
    np.testing.assert_allclose(fastbp.compile(step)(x).detach().numpy(), step(x).numpy(), rtol=1e-15)


def test_contexts_of_both_calls() -> None:
    import contextlib

    seen: list[str] = []

    @contextlib.contextmanager
    def noted(name: str) -> Any:
        seen.append(name)
        yield

    x = reals(1.0).requires_grad_()
    checkpoint(lambda x: x * x, x, context_fn=lambda: (noted("forward"), noted("again"))).backward()
    assert seen == ["forward", "again"]


# ---- bad input ----


def test_another_result_in_backward_is_refused() -> None:
    sizes = iter([2, 1])
    x = reals(1.0, 2.0).requires_grad_()
    y = checkpoint(lambda x: x[: next(sizes)] * 2, x)
    with pytest.raises(CheckpointError, match="recomputed values have different metadata"):
        y.sum().backward()


def test_an_argument_changed_in_place_is_noticed() -> None:
    x = reals(1.0).requires_grad_()
    h = x * 1
    y = checkpoint(lambda h: h * h, h)
    h.mul_(2)
    with pytest.raises(RuntimeError, match="saved by checkpoint, is at version 1; expected version 0"):
        y.backward()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: checkpoint(lambda x: x, x, determinism_check="maybe"), ValueError, "determinism_check must be"),
        (lambda x: checkpoint_sequential([abs, abs], 3, x), ValueError, "must be from 1 to the 2 functions, got 3"),
        (lambda x: checkpoint_sequential([abs, abs], 0, x), ValueError, "got 0"),
        (lambda x: checkpoint_sequential([abs], 1, x, planted=1), TypeError, "Unexpected keyword arguments: planted"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(reals(1.0).requires_grad_())
