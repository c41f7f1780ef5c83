"""Memory that runs out in the middle of a step: a MemoryError, nothing half changed, and the next call is right.

The gradients of two layers are too large for the cache of arrays; the process is allowed memory for one of them.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

PROGRAM = """
import resource, sys
import fastbp
from fastbp import nn, optim

SIDE = 3000  # 36 MB a gradient
x = fastbp.randn(2, SIDE)

def made(make):
    fastbp.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False), nn.Tanh(), nn.Linear(SIDE, SIDE, bias=False))
    optimizer = make(model.parameters())
    def step():
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()
    return model, optimizer, step

def state_of(model, optimizer):
    found = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        values = [value for value in optimizer.state.get(p, {}).values() if value is not None]
        found += [v.clone() if isinstance(v, fastbp.Tensor) else fastbp.tensor(float(v)) for v in values]
    return found

def short_of_memory(call):
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 55 * 2**20, before[1]))
    try:
        call()
    except MemoryError:
        return True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    return False

make = {"sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9), "adam": lambda p: optim.Adam(p, lr=1e-3)}[sys.argv[2]]
model, optimizer, step = made(make)
twin, twin_optimizer, twin_step = made(make)
run = fastbp.compile(step) if sys.argv[1] == "compiled" else step
for _ in range(2):
    optimizer.zero_grad(); run()
    twin_optimizer.zero_grad(); twin_step()
optimizer.zero_grad()
before = state_of(model, optimizer)
gradients = [p.grad for p in model.parameters()]
assert short_of_memory(run), "there was memory enough"
after = state_of(model, optimizer)
assert len(before) == len(after) and all(fastbp.equal(a, b) for a, b in zip(before, after)), "something was changed"
if sys.argv[1] == "compiled":
    assert [p.grad for p in model.parameters()] == gradients == [None, None], "a gradient was left"
optimizer.zero_grad(); twin_optimizer.zero_grad()
assert fastbp.equal(run(), twin_step())
same = zip(state_of(model, optimizer), state_of(twin, twin_optimizer))
assert all(fastbp.equal(a, b) for a, b in same), "the step after it is another"
print("right")
"""


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("how", ["compiled", "eager"])
def test_memory_runs_out_in_a_step(how: str, optimizer: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, how, optimizer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
