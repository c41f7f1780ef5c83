"""What other threads do while one captures is theirs: tensors that they make, numbers that they draw, captures."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from twins import assert_same, drawn, snapshot

import fastbp
from fastbp import nn, optim

if TYPE_CHECKING:
    from collections.abc import Callable


def during_a_capture(work: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> tuple[Any, Any]:
    """Run `work` in another thread while this one captures a function that calls `before` first: both results."""
    inside, done = threading.Event(), threading.Event()
    found: list[Any] = []

    def other() -> None:
        inside.wait(60)
        try:
            found.append(work())
        finally:
            done.set()

    def function(x: Any) -> Any:
        made = before()
        if not found:
            inside.set()
            done.wait(60)
        return x * 2 if made is None else made + x * 0

    thread = threading.Thread(target=other)
    thread.start()
    result = fastbp.compile(function)(fastbp.zeros(3))
    thread.join()
    return found[0], result


def test_a_model_made_while_another_thread_captures_trains() -> None:
    worlds = []
    for wrap in (lambda f: f, fastbp.compile):
        fastbp.manual_seed(0)
        model, _ = during_a_capture(lambda: nn.Linear(4, 1))
        with fastbp.no_grad():
            for parameter in model.parameters():
                parameter.copy_(drawn(*parameter.shape))
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (model(x) - 1).square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        call = wrap(step)
        worlds.append([[call(drawn(8, 4)).clone() for _ in range(4)], list(model.parameters())])
    assert worlds[0][0][3].item() < 0.9 * worlds[0][0][0].item()
    assert_same(snapshot(worlds[1]), snapshot(worlds[0]), "training")


def test_a_tensor_made_after_a_capture_of_another_thread_is_the_functions_own() -> None:
    """A whole capture lies between two tensors that the function makes: both are made anew at each call."""
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(60)
        fastbp.compile(lambda x: x + 1)(fastbp.ones(2))
        done.set()

    def function(x: Any) -> Any:
        inside.set()
        done.wait(60)
        total = fastbp.tensor([1.0, 2.0])
        total += x
        return total

    thread = threading.Thread(target=other)
    thread.start()
    compiled = fastbp.compile(function)
    found = [compiled(fastbp.ones(2)).tolist() for _ in range(3)]
    thread.join()
    assert found == [[2.0, 3.0]] * 3


@pytest.mark.parametrize("shared", [False, True])
def test_numbers_drawn_while_another_thread_captures(shared: bool) -> None:
    """A capture draws nothing from its generators: others draw from them what they would have drawn without it."""
    own = fastbp.Generator().manual_seed(7)
    generator = own if shared else None
    fastbp.manual_seed(7)
    drawn_there, drawn_here = during_a_capture(
        lambda: [fastbp.rand(3, generator=generator), fastbp.randn(2, generator=generator)],
        lambda: fastbp.rand(3, generator=generator),
    )
    after = fastbp.rand(3, generator=generator)
    fastbp.manual_seed(7)
    own.manual_seed(7)
    wanted = [fastbp.rand(3, generator=generator), fastbp.randn(2, generator=generator)]
    wanted += [fastbp.rand(3, generator=generator), fastbp.rand(3, generator=generator)]
    assert_same(snapshot([*drawn_there, drawn_here, after]), snapshot(wanted), "numbers")


def test_captures_of_two_threads_over_one_tensor() -> None:
    """Each capture notes by itself what it reads: both plans follow a tensor whose memory is replaced."""
    inside, done = threading.Event(), threading.Event()
    shared = fastbp.ones(3)

    def second(x: Any) -> Any:
        return x + shared

    def other() -> None:
        inside.wait(60)
        compiled[1](fastbp.zeros(3))
        done.set()

    def first(x: Any) -> Any:
        y = x * shared
        inside.set()
        done.wait(60)
        return y + shared

    compiled = [fastbp.compile(first), fastbp.compile(second)]
    thread = threading.Thread(target=other)
    thread.start()
    x = fastbp.full((3,), 2.0)
    found = [compiled[0](x)]
    thread.join()
    shared.data = fastbp.full((3,), 5.0)
    found += [compiled[0](x), compiled[1](x)]
    assert [one.tolist() for one in found] == [[3.0] * 3, [15.0] * 3, [7.0] * 3]
