"""FASTBP_CHECK=1: what it must find, and that it finds nothing where nothing is wrong.

The variable is read once, so each check is a process of its own. That corrupted plans are found is for
csrc/tests/test_check.c to show; here faults are planted from Python, and whole test files are the healthy programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def checked(*command: str) -> subprocess.CompletedProcess[str]:
    """A Python process with FASTBP_CHECK=1."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "FASTBP_CHECK": "1"},
    )


def output_of(program: str) -> list[str]:
    done = checked("-c", program)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout.strip().splitlines()


# ---- healthy programs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files",
    [("test_compile_random.py",), ("test_compile_derivative.py", "test_compile_hazards.py"), ("test_checkpoint.py",)],
    ids=" ".join,
)
def test_healthy_programs_pass(files: tuple[str, ...]) -> None:
    """Random trainers, derivatives, hazards of in-place writes and recomputed values, each call held to its replay."""
    done = checked("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


EPOCH = """
import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
from fastbp.utils.data import DataLoader, TensorDataset

def train(epoch, order):
    fastbp.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.2), nn.Tanh(), nn.Linear(7, 3))
    optimizer = order(model.parameters())
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    step = fastbp.compile(step)
    x, y = fastbp.randn(50, 5), fastbp.randint(0, 3, (50,))
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    losses = []
    for _ in range(2):
        losses += step.epoch(loader).tolist() if epoch else [step(*batch).item() for batch in loader]
    return losses, [p.tolist() for p in model.parameters()]

for order in (lambda p: optim.Adam(p, lr=0.01, amsgrad=True), lambda p: optim.SGD(p, lr=0.1, momentum=0.9)):
    assert train(True, order) == train(False, order)
print("same")
"""


def test_passes_are_checked_batch_by_batch() -> None:
    assert output_of(EPOCH) == ["same"]


# ---- faults -------------------------------------------------------------------------------------------------------

# A factorization asks the host in the middle of a call: once in the replay, then twice in the plan, on the kernels in
# force and on the scalar ones. Numbers are wrong from the second time on, and the world is changed behind the plan's
# back at the third: the steps by themselves agree.
FAULTS = """
import fastbp
from fastbp import nn, optim
from fastbp.linalg import _lapack

compute, asked, right, action, wrong = _lapack.compute, 0, 1, None, 0.0

def meddle(name, given, out, attributes):
    global asked
    asked += 1
    compute(name, given, out, attributes)
    if asked == 3 and action is not None:
        action()
    if asked > right:
        out += wrong

_lapack.compute = meddle
def world():
    global asked
    weight, buffer = nn.Parameter(fastbp.eye(3) * 2), fastbp.zeros(3, 3)
    optimizer = optim.SGD([weight], lr=0.5, momentum=0.9)
    def step(x):
        y = fastbp.linalg.inv(x) @ weight
        optimizer.zero_grad()
        loss = y.square().sum()
        loss.backward()
        optimizer.step()
        buffer.add_(y.detach())
        return loss.detach()
    step = fastbp.compile(step)
    x = fastbp.eye(3) * 4
    for _ in range(2):
        step(x)
    asked = 0
    return x, weight, buffer, optimizer, step

def attempt(call):
    try:
        call()
    except RuntimeError as error:
        print(str(error).split(",")[0])
    else:
        print("nothing found")
"""


@pytest.mark.parametrize(
    "plant, found",
    [
        ("pass", "nothing found"),
        ("wrong = 1.0", "FASTBP_CHECK: result 0"),
        ("action = lambda: weight.data.mul_(2)", "FASTBP_CHECK: result 0"),
        ("action = lambda: x.mul_(2)", "FASTBP_CHECK: argument 0"),
        ("action = lambda: buffer.mul_(3)", "FASTBP_CHECK: state"),
        ("action = lambda: optimizer.state[weight]['momentum_buffer'].mul_(2)", "FASTBP_CHECK: state"),
        ("action = lambda: optimizer.state[weight].update(momentum_buffer=weight)", "FASTBP_CHECK: 'momentum_buffer'"),
    ],
)
def test_what_differs_is_named(plant: str, found: str) -> None:
    call = f"x, weight, buffer, optimizer, step = world()\n{plant}\nattempt(lambda: step(x))\nprint(asked)\n"
    said, asked = output_of(FAULTS + call)
    assert asked == "3"
    assert said.startswith(found), said


@pytest.mark.parametrize("wrong, found", [(0.0, "nothing found"), (1.0, "FASTBP_CHECK: gradient 0 of")])
def test_derivatives_are_checked(wrong: float, found: str) -> None:
    """A function that is compiled with its derivative: the reverse sweep solves triangular systems."""
    program = (
        FAULTS
        + f"""
factor = fastbp.compile(lambda x: fastbp.linalg.cholesky(x))
x = (fastbp.eye(3) * 4).requires_grad_()
factor(x).sum().backward()
y = factor(x)
asked, right = 0, 10**9
y.sum().backward(retain_graph=True)
assert asked % 3 == 0 and asked, asked
right, asked, wrong = asked // 3, 0, {wrong}
attempt(lambda: y.sum().backward())
"""
    )
    assert output_of(program)[0].startswith(found)
