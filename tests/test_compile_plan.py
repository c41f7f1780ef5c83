"""Plans to look at and to run: text, peak memory, no allocation, several threads, forked children, FASTBP_CHECK."""

from __future__ import annotations

import os
import re
import threading
from typing import Any

import numpy as np
import pytest
from processes import run_program
from twins import OPTIMIZERS, assert_same, drawn, make_trainer, snapshot

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim

# ------------------------------------------------------------------------------------------- plans as text


def make_small_step() -> Any:
    fastbp.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @fastbp.compile
    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def test_a_plan_prints_a_line_a_step() -> None:
    step = make_small_step()
    assert step.plan is None
    step(fastbp.ones(4, 3), fastbp.tensor([0, 1, 1, 0]))
    lines = str(step.plan).splitlines()
    head = re.fullmatch(r"plan of (\d+) steps, ([\d,]+) bytes of arena", lines[0])
    assert head and int(head[1]) == len(step.plan) == len(step.plan.steps) == len(lines) - 2
    assert int(head[2].replace(",", "")) == step.plan.peak_bytes > 0
    assert lines[1].split() == ["step", "result", "bytes", "flops", "offset"]
    text = [re.sub(r"\s+", " ", line.strip()) for line in lines[2:]]
    for number, line in enumerate(text):
        assert re.fullmatch(rf"{number} \S.* (float32|int64|bool) \([\d, ]*\) [\d,]+ [\d,]+ ([\d,]+|-)", line), line
    names = " ".join(one["name"] for one in step.plan.steps)
    for wanted in ("linear", "cross_entropy", "sgd"):
        assert wanted in names
    product = next(one for one in step.plan.steps if one["name"].startswith("linear"))
    assert product["shape"] == (4, 2) and product["flops"] >= 2 * 4 * 3 * 2 and product["bytes"] >= 4 * (12 + 6 + 2 + 8)
    assert str(step.plan) == repr(step.plan)


def test_peak_bytes_is_less_than_all_values_together() -> None:
    step = fastbp.compile(lambda x: (((x @ x).tanh() @ x).tanh() @ x).tanh().sum())
    step(drawn(64, 64))
    assert 64 * 64 * 4 <= step.plan.peak_bytes <= 3 * 64 * 64 * 4 + 256
    chain = fastbp.compile(lambda x: x.sin().cos().tanh().exp() * 2 + 1)
    chain(drawn(100, 100))
    assert len(chain.plan) == 1 and chain.plan.peak_bytes <= 64


def test_what_is_computed_twice_or_not_needed_is_not_in_the_plan() -> None:
    def step(x: Any) -> Any:
        (x.exp() @ x).tanh()
        return (x @ x) * 1 + (x @ x)

    compiled = fastbp.compile(step)
    compiled(drawn(30, 30))
    assert sum("matmul" in one["name"] for one in compiled.plan.steps) == 1
    assert not any("exp" in one["name"] for one in compiled.plan.steps)


def test_the_plan_is_of_the_latest_call() -> None:
    step = fastbp.compile(lambda x: x * 2)
    step(fastbp.ones(3))
    first = step.plan
    step(fastbp.ones(4))
    assert step.plan is not first and step.plan.steps[0]["shape"] == (4,)
    step(fastbp.ones(3))
    assert step.plan is first


# ------------------------------------------------------------------------------------------- memory, threads, processes


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_calls_allocate_nothing(name: str) -> None:
    fastbp.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Dropout(0.1), nn.Linear(30, 5))
    optimizer = OPTIMIZERS[name](nn.Sequential(model[0], model[1], model[3]))

    @fastbp.compile
    def step(x: Any, t: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        return loss.detach()

    x, t = drawn(64, 20), fastbp.arange(64) % 5
    for _ in range(5):
        step(x, t)
    before = fastbp._core.memory_statistics()
    for _ in range(100):
        step(x, t)
    after = fastbp._core.memory_statistics()
    assert after["allocations"] == before["allocations"]
    assert (after["live_blocks"], after["live_bytes"]) == (before["live_blocks"], before["live_bytes"])


def test_two_plans_in_two_threads_and_one_plan_in_many() -> None:
    worlds = [make_trainer(OPTIMIZERS["adam"])() for _ in range(2)]
    twins = [make_trainer(OPTIMIZERS["adam"])() for _ in range(2)]
    for world, twin in zip(worlds, twins, strict=True):
        twin.model.load_state_dict(world.model.state_dict())
    errors: list[BaseException] = []

    def work(step: Any) -> None:
        try:
            for k in range(200):
                step(drawn(16, 5, seed=k % 7))
        except BaseException as error:
            errors.append(error)

    def run(steps: list[Any]) -> None:
        threads = [threading.Thread(target=work, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors

    run([fastbp.compile(world.step) for world in worlds])
    for twin in twins:
        work(twin.step)
    assert_same(snapshot(worlds), snapshot(twins), "two plans", factor=50)

    total = fastbp.zeros(1, dtype=fastbp.int64)

    def count(x: Any) -> None:
        total.add_(1)

    run([fastbp.compile(count)] * 4)
    assert total.item() == 800


def test_captures_in_two_threads_at_once() -> None:
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        for k in range(20):
            model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
            step = fastbp.compile(lambda x, model=model: model(x).detach())
            x = drawn(2, 3, seed=k)
            model.eval()
            step(x)
            with fastbp.no_grad():
                model[0].weight.mul_(2.0)
            model[0].bias = nn.Parameter(drawn(3, seed=k))
            found[number * 100 + k] = (step(x).tolist(), model(x).tolist())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 60
    for a, b in found.values():
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_plan_in_a_forked_child() -> None:
    program = """
import os, sys, fastbp
from fastbp import nn, optim
fastbp.set_num_threads(2)
model = nn.Sequential(nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 10))
optimizer = optim.Adam(model.parameters())
@fastbp.compile
def step(x):
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.detach()
x = fastbp.ones(256, 300)
for _ in range(3): step(x)
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, step(x).numpy().tobytes() + step(x[:9]).numpy().tobytes())
    os._exit(0)
found = os.read(read, 8)
assert os.waitpid(child, 0)[1] == 0
assert found == step(x).numpy().tobytes() + step(x[:9]).numpy().tobytes()
print("same")
"""
    assert run(program) == "same"


def run(program: str, **environment: str) -> str:
    """Run a program in a process of its own; its last line."""
    return run_program(program, **environment).strip().splitlines()[-1]


CHECKED = """
import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
model = nn.Sequential(nn.Linear(70, 33), nn.Tanh(), nn.Dropout(0.1), nn.Linear(33, 10))
optimizers = [optim.Adam(model.parameters(), lr=0.01), optim.SGD(model.parameters(), lr=0.1, momentum=0.9)]
buffer = fastbp.zeros(10)
def run(optimizer):
    @fastbp.compile
    def step(x, t):
        optimizer.zero_grad()
        y = model(x)
        buffer.mul_(0.9).add_(y.detach().mean(0))
        z = y.clone()
        z[1:3] = 0.5
        loss = F.cross_entropy(y, t) + (z.softmax(1) * z).mean() + model[0].weight.square().sum() * 1e-3
        loss.backward()
        optimizer.step()
        return loss.detach()
    losses = [step(fastbp.full((20, 70), 0.1 * k), fastbp.arange(20) % 10).item() for k in range(4)]
    return [round(one, 5) for one in losses]
fastbp.manual_seed(0)
print([run(one) for one in optimizers], round(buffer.sum().item(), 4))
"""


def test_every_step_is_checked_against_the_scalar_kernels() -> None:
    assert run(CHECKED, FASTBP_CHECK="1", FASTBP_DEBUG="1") == run(CHECKED, FASTBP_CHECK="0")
