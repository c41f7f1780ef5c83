"""Eight threads at once, on tensors and models of their own and on shared ones.

They run eager code, backward, compiled steps, passes over batches, captures. Values are compared where no two threads
write the same memory: with those of one thread, bit by bit. Where threads do write the same memory, values may race and
memory may not (docs/threads.md): the run must end, and what it leaves must be whole tensors.

Meaningful with the lock, which changes hands between any two bytecodes, and more so without: `make
check-free-threading`, and under ThreadSanitizer `make check-race`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from twins import assert_same, drawn, snapshot

import fastbp
import fastbp.nn.functional as F
from fastbp import nn, optim
from fastbp.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 8
TURNS = int(os.environ.get("FASTBP_TEST_TURNS", "12"))  # of each thread; more of them find rarer races


@pytest.fixture(autouse=True)
def _short_turns() -> Iterator[None]:
    """With the lock, let it change hands often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(*work: Callable[[int], Any]) -> list[Any]:
    """What eight threads return that begin together: thread i of work[i % len(work)](i). Raises the first exception."""
    start = threading.Barrier(THREADS)
    results: list[Any] = [None] * THREADS
    errors: list[BaseException] = []

    def run(i: int) -> None:
        start.wait(60)
        try:
            results[i] = work[i % len(work)](i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def same_in_threads(work: Callable[[int], Any]) -> None:
    """Eight threads find what one thread finds."""
    wanted = [snapshot(work(i)) for i in range(THREADS)]
    for i, found in enumerate(in_threads(work)):
        assert_same(snapshot(found), wanted[i], f"thread {i}")


def own_world(i: int, width: int = 6) -> SimpleNamespace:
    """A model, an optimizer and data that thread i alone has; the numbers are drawn without the shared generator."""
    model = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 3))
    with fastbp.no_grad():
        for k, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(*parameter.shape) * (1 + k) / (2 + i))
    make = optim.Adam if i % 2 else optim.SGD
    return SimpleNamespace(
        model=model, optimizer=make(model.parameters(), lr=0.05), x=drawn(12, width), y=fastbp.arange(12) % 3
    )


def step_of(world: SimpleNamespace) -> Callable[[Any, Any], Any]:
    def step(x: Any, y: Any) -> Any:
        world.optimizer.zero_grad()
        loss = F.cross_entropy(world.model(x), y)
        loss.backward()
        world.optimizer.step()
        return loss.detach()

    return step


def check_whole(tensors: list[Any], like: list[Any]) -> None:
    """Tensors that threads raced on still are tensors: of their shape, their elements in reach."""
    for one, other in zip(tensors, like, strict=True):
        assert one.shape == other.shape
        assert one.detach().sum().shape == ()
        assert one.detach().clone().numpy().shape == tuple(other.shape)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="for builds of Python without the lock")
def test_the_extension_does_not_bring_the_lock_back() -> None:
    code = "import sys, warnings; warnings.simplefilter('error'); import fastbp; print(sys._is_gil_enabled())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    environment["PYTHONPATH"] = str(Path(fastbp.__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


# ---- eager code ------------------------------------------------------------------------------------------------------


def test_eager_code_on_tensors_of_their_own() -> None:
    def work(i: int) -> Any:
        x = drawn(5, 7) * (i + 1)
        for _ in range(TURNS):
            x = (x @ drawn(7, 7)).tanh() + x[:, :1] * 0.5
            x[1] = x[0].sort().values
            x = fastbp.cat([x[:3], x[3:].flip(0)])
        return x

    same_in_threads(work)


def test_eager_code_and_gradients_of_shared_leaves() -> None:
    shared = [drawn(6, 6).requires_grad_(), drawn(6).requires_grad_()]

    def work(i: int) -> Any:
        found = []
        for k in range(TURNS):
            loss = (F.linear(drawn(4, 6) * (i + k + 1), *shared).tanh() * shared[1]).square().sum()
            found.append(fastbp.autograd.grad(loss, shared, create_graph=k % 2 == 0))
        return found

    same_in_threads(work)


def test_backward_of_own_models() -> None:
    def work(i: int) -> Any:
        world = own_world(i)
        step = step_of(world)
        losses = [step(world.x, world.y) for _ in range(TURNS)]
        return losses, list(world.model.parameters()), [p.grad for p in world.model.parameters()]

    same_in_threads(work)


def test_backward_into_the_gradients_of_one_leaf() -> None:
    """Also: wrappers of one node are made and let go in eight threads, and replaced as a whole."""
    leaf = fastbp.ones(16, requires_grad=True)

    def add(i: int) -> None:
        for _ in range(TURNS * 4):
            (leaf * 2).sum().backward()

    def look(i: int) -> None:
        for _ in range(TURNS * 40):
            gradient = leaf.grad
            if gradient is not None:
                assert gradient.shape == (16,)
                del gradient

    def clear(i: int) -> None:
        for _ in range(TURNS * 4):
            leaf.grad = None if i % 3 else fastbp.zeros(16)

    in_threads(add, look, clear, look)
    check_whole([leaf.grad if leaf.grad is not None else leaf], [leaf])


def test_views_hooks_and_cells_that_others_change() -> None:
    base = drawn(8, 8)
    leaf = drawn(8).requires_grad_()
    kept: list[Any] = []

    def write(i: int) -> None:
        for k in range(TURNS * 4):
            base[k % 8] += 1
            base.view(64)[k % 64] = 0
            kept.append(base[i])
            if len(kept) > 40:
                kept.clear()

    def hook(i: int) -> None:
        for _ in range(TURNS * 4):
            handle = leaf.register_hook(lambda g: g * 1)
            fastbp.autograd.grad((leaf * 2).sum(), leaf)
            handle.remove()

    def collect(i: int) -> None:
        for _ in range(TURNS):
            gc.collect()
            [one.sum() for one in list(kept)]

    in_threads(write, hook, write, collect)
    check_whole([base, leaf], [base, leaf])


# ---- compiled code ---------------------------------------------------------------------------------------------------


def test_compiled_steps_of_own_models() -> None:
    def work(i: int) -> Any:
        world = own_world(i)
        step = fastbp.compile(step_of(world))
        losses = [step(world.x, world.y).clone() for _ in range(TURNS)]
        return losses, list(world.model.parameters())

    same_in_threads(work)


def test_one_compiled_function_in_all_threads() -> None:
    weight = drawn(6, 6)
    function = fastbp.compile(lambda x: (x @ weight).tanh().sum(1))

    def work(i: int) -> Any:
        return [function(drawn(1 + (i + k) % 3, 6) * (i + 1)).clone() for k in range(TURNS)]

    same_in_threads(work)


def test_compiled_with_its_derivative_in_all_threads() -> None:
    function = fastbp.compile(lambda x, w: (x @ w).sigmoid())

    def work(i: int) -> Any:
        w = (drawn(6, 4) * (i + 1)).requires_grad_()
        found = []
        for _ in range(TURNS):
            function(drawn(3, 6), w).sum().backward()
            found.append(w.grad.clone())
        return found

    same_in_threads(work)


def test_captures_in_all_threads() -> None:
    def work(i: int) -> Any:
        found = []
        for k in range(max(2, TURNS // 4)):
            scale = drawn(4) * (k + 1)
            function = fastbp.compile(lambda x, scale=scale: ((x * scale).exp() - scale).cumsum(0))
            found += [function(drawn(5, 4) + i).clone() for _ in range(2)]
        return found

    same_in_threads(work)


def test_passes_over_batches() -> None:
    def work(i: int) -> Any:
        world = own_world(i)
        step = fastbp.compile(step_of(world))
        loader = DataLoader(TensorDataset(world.x, world.y), batch_size=4)
        losses = [step.epoch(loader).clone() for _ in range(max(2, TURNS // 4))]
        return losses, list(world.model.parameters())

    same_in_threads(work)


@pytest.mark.filterwarnings("ignore:compile. .* runs eagerly from now on")  # what a capture sees of the others' steps
def test_a_compiled_and_an_eager_step_of_one_model() -> None:
    """And passes, gradients that are replaced, an optimizer's state that is read: nothing of it ends the process.

    What one thread takes away from under another's step may be an exception there: a gradient between backward and
    step, a saved value, an entry of the optimizer's state that is half made.
    """
    world = own_world(0)
    world.optimizer = optim.Adam(world.model.parameters(), lr=1e-3)
    eager = step_of(world)
    compiled = fastbp.compile(eager)
    loader = DataLoader(TensorDataset(world.x, world.y), batch_size=4)

    def compiled_steps(i: int) -> None:
        for _ in range(TURNS):
            with contextlib.suppress(Exception):
                compiled(world.x, world.y)

    def eager_steps(i: int) -> None:
        for _ in range(TURNS):
            with contextlib.suppress(Exception):
                eager(world.x, world.y)

    def passes(i: int) -> None:
        for _ in range(max(2, TURNS // 4)):
            with contextlib.suppress(Exception):
                compiled.epoch(loader)

    def others(i: int) -> None:
        for k in range(TURNS):
            for parameter in world.model.parameters():
                parameter.grad = None
            if k % 4 == 0:
                world.model[0].weight.data = world.model[0].weight.detach().clone()
            with contextlib.suppress(RuntimeError):  # the state's dict has grown meanwhile
                world.optimizer.state_dict()

    eager(world.x, world.y)
    compiled(world.x, world.y)
    in_threads(compiled_steps, eager_steps, passes, others)
    check_whole(list(world.model.parameters()), list(own_world(0).model.parameters()))
