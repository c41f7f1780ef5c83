"""Threads may share everything: values race, memory does not.

Each program runs in a process of its own, which must not die.
"""

from __future__ import annotations

import textwrap

import pytest
from processes import run_program

PRELUDE = """
import copy, gc, os, sys, threading
import fastbp
from fastbp import nn
import fastbp.nn.functional as F
sys.setswitchinterval(1e-6)
fastbp.manual_seed(0)
ALLOWED = (RuntimeError, TypeError, AttributeError, KeyError, IndexError, ValueError)
said = set()

def make(size=32, dropout=0.0):
    model = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Dropout(dropout), nn.Linear(size, 4))
    optimizer = fastbp.optim.Adam(model.parameters(), lr=1e-3)
    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()
    return model, optimizer, step, fastbp.randn(16, size), fastbp.randn(16, 4)

def forever(work, turns):
    def run():
        for i in range(turns):
            try:
                work(i)
            except ALLOWED as error:
                said.add(f"{type(error).__name__}: {error}"[:200])
    return run

def together(*works, turns=1200):
    threads = [threading.Thread(target=forever(work, turns)) for work in works]
    for one in threads: one.start()
    for one in threads: one.join()

model, optimizer, step, x, y = make()
compiled = fastbp.compile(step)
compiled(x, y)
"""


def run(program: str, limit: float = 240) -> str:
    """What a program prints; it must end by itself."""
    return run_program(PRELUDE + textwrap.dedent(program), "-W", "ignore", timeout=limit)


OTHERS = {
    "an eager step": "step(x, y)",
    "the same compiled step": "compiled(x, y)",
    "another shape": "compiled(x[:5 + i % 3], y[:5 + i % 3])",
    "zero_grad": "optimizer.zero_grad(set_to_none=bool(i % 2))",
    "gradients that are replaced": "[setattr(p, 'grad', fastbp.zeros_like(p)) for p in model.parameters()]",
    "parameters over other memory": "[setattr(p, 'data', p.data.clone()) for p in model.parameters()]",
    "parameters of another shape": """
        p = model[3].bias
        before = p.data
        p.data = fastbp.zeros(4096 if i % 2 else 1)
        p.data = before
    """,
    "arguments over other memory": "x.data = fastbp.randn(16, 32); y.data = fastbp.randn(16, 4)",
    "arguments of another shape": "x.data = fastbp.randn(3, 32); x.data = fastbp.randn(16, 32)",
    "load_state_dict": "model.load_state_dict(model.state_dict()); optimizer.load_state_dict(optimizer.state_dict())",
    "state that is cleared": "optimizer.state.clear()",
    "state that is replaced": """
        for entry in list(optimizer.state.values()):
            entry['exp_avg'] = fastbp.zeros_like(entry['exp_avg'])
    """,
    "param_groups": """
        optimizer.param_groups[0]['lr'] = 1e-3 * (i % 5)
        optimizer.param_groups = list(optimizer.param_groups)
    """,
    "deepcopy": "copy.deepcopy(model)",
    "set_num_threads": "fastbp.set_num_threads(1 + i % 2)",
    "modules that are exchanged": "model[1] = nn.Tanh()",
    "requires_grad": "model[0].weight.requires_grad_(bool(i % 2))",
    "captures": "fastbp.compile(step)(x, y)",
    "gc": "gc.collect() if i % 20 == 0 else [fastbp.ones(i % 7 + 1) for _ in range(20)]",
}


@pytest.mark.parametrize("other", OTHERS)
def test_compiled_steps_beside(other: str) -> None:
    body = textwrap.indent(textwrap.dedent(OTHERS[other]), "    ")
    run(f"def other(i):\n{body}\ntogether(lambda i: compiled(x, y), other, lambda i: compiled(x, y))\nprint('end')")


def test_compiled_and_eager_steps_in_eight_threads() -> None:
    run("""
        model, optimizer, step, x, y = make(96)
        compiled = fastbp.compile(step)
        together(*[lambda i: compiled(x, y), lambda i: step(x, y)] * 4, turns=900)
    """)


def test_nothing_is_left_of_steps_in_threads() -> None:
    """Whatever has raced: when all is over, a call computes what a fresh one does."""
    run("""
        together(lambda i: compiled(x, y), lambda i: step(x, y), lambda i: optimizer.zero_grad())
        fastbp.manual_seed(1)
        saved, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
        losses = []
        for call in (compiled, step):
            model.load_state_dict(copy.deepcopy(saved)); optimizer.load_state_dict(copy.deepcopy(state))
            losses.append([call(x, y).item() for _ in range(5)])
        assert all(abs(a - b) <= 1e-6 * (1 + abs(b)) for a, b in zip(*losses)), losses
    """)


def test_derivatives_of_compiled_functions_in_threads() -> None:
    run("""
        forward = fastbp.compile(lambda x: model(x).square().sum())
        def work(i):
            forward(x).backward()
        kept = [forward(x)]
        def again(i):
            kept[0].backward(retain_graph=bool(i % 3))
            if i % 3 == 0: kept[0] = forward(x)
        together(work, again, again, lambda i: optimizer.zero_grad(),
                 lambda i: [setattr(p, 'data', p.data.clone()) for p in model.parameters()])
    """)


def test_masks_of_threads_that_share_a_generator() -> None:
    """The backward of a compiled call has the mask of its forward, whatever other threads draw in between."""
    run("""
        def work(which):
            drop = fastbp.compile(lambda x: F.dropout(x, 0.5))
            ones = fastbp.ones(64, requires_grad=True)
            def one(i):
                ones.grad = None
                out = drop(ones)
                out.sum().backward()
                assert (ones.grad == out.detach()).all(), "another mask"
            return one
        def check(work):
            def run(i):
                try: work(i)
                except AssertionError: os._exit(3)
            return run
        together(check(work(0)), check(work(1)), lambda i: fastbp.rand(3), turns=1500)
    """)


def test_epochs_over_one_dataset() -> None:
    run("""
        from fastbp.utils.data import DataLoader, TensorDataset, Subset
        data = TensorDataset(fastbp.randn(128, 32), fastbp.randn(128, 4))
        order = list(range(128))
        loaders = [DataLoader(data, batch_size=16, shuffle=True), DataLoader(Subset(data, order), batch_size=8)]
        def other(i):
            data.tensors[0].data = fastbp.randn(128, 32)
            optimizer.zero_grad()
        passes = [lambda i, loader=one: compiled.epoch(loader) for one in loaders]
        together(*passes, other, lambda i: step(x, y), turns=60)
    """)


def test_eager_steps_see_no_gradients_of_a_capture() -> None:
    """What a function that is captured does to gradients is its own until its plan runs."""
    run("""
        inside, done = threading.Event(), threading.Event()
        seen = []
        weight = fastbp.ones(3, requires_grad=True)
        weight.grad = fastbp.full((3,), 7.0)
        def function(x):
            (weight * x).sum().backward()
            own = weight.grad.shape
            inside.set(); done.wait(60)
            return x * 2
        def other():
            inside.wait(60)
            seen.append(weight.grad.tolist())
            weight.grad = None
            (weight * 2).sum().backward()
            seen.append(weight.grad.tolist())
            done.set()
        thread = threading.Thread(target=other)
        thread.start()
        fastbp.compile(function)(fastbp.ones(3))
        thread.join()
        assert seen == [[7.0] * 3, [2.0] * 3], seen
        assert weight.grad.tolist() == [3.0] * 3, weight.grad
    """)


@pytest.mark.parametrize("retain", [True, False])
def test_sweeps_of_threads_over_one_graph_with_hooks_that_switch(retain: bool) -> None:
    """Sweeps take turns within hooks; each comes to its own gradients, or says that saved values are gone."""
    run(f"""
        import time
        a = fastbp.full((3,), 2.0, requires_grad=True)
        b = a.sin()
        c = b * a
        for t in (b, c):
            t.register_hook(lambda g: time.sleep(0.0005))
        out = (c * b).sum()
        at = (a.detach().sin() ** 2 * 1 + 2 * 2.0 * a.detach().sin() * a.detach().cos())
        wrong = []
        def work(i):
            if {retain}:
                g, = fastbp.autograd.grad(out, a, retain_graph=True)
                if not fastbp.allclose(g, at): wrong.append(g.tolist())
                g, = fastbp.autograd.grad(out, b, retain_graph=True)
                if not fastbp.allclose(g, 2 * b.detach() * a.detach()): wrong.append(g.tolist())
                out.backward(retain_graph=True)
            else:
                out.backward()
        together(work, work, work, lambda i: fastbp.autograd.grad(c, a, fastbp.ones(3), retain_graph=True), turns=40)
        assert not wrong, wrong[:3]
        if {retain}:
            assert not said, said
        else:
            assert all("second time" in one for one in said), said
            assert fastbp.allclose(a.grad, at), a.grad  # one of them has come through
    """)


def test_a_hook_that_takes_the_graph_away() -> None:
    run("""
        def build():
            a = fastbp.ones(1000, requires_grad=True)
            b = (a * 2).exp()
            c = (b + 1).log()
            return a, b, c
        for i in range(50):
            a, b, c = build()
            holder = [c.sum(), b]
            def hook(g):
                holder.clear()
                a.data = fastbp.ones(3)
                gc.collect()
            b.register_hook(hook)
            c.register_hook(lambda g: holder and holder[0].backward())
            loss = holder[0]
            del b, c
            try: fastbp.autograd.grad(loss, a)
            except RuntimeError: pass
    """)


def test_errors_of_callbacks_belong_to_their_thread() -> None:
    run("""
        import time
        wrong = []
        def work(which):
            def hook(g):
                time.sleep(0.0002)
                raise ValueError(which)
            def one(i):
                t = fastbp.ones(2, requires_grad=True) * 2
                t.register_hook(hook)
                try: t.sum().backward()
                except ValueError as error:
                    if error.args[0] != which: wrong.append(error.args)
            return one
        together(work("a"), work("b"), work("c"))
        assert not wrong, wrong
    """)


def test_a_child_of_a_fork_runs_a_plan_that_another_thread_was_in() -> None:
    run(
        """
        stop = []
        def work():
            while not stop: compiled(x, y)
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(40):
            child = os.fork()
            if child == 0:
                compiled(x, y)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.append(1)
        thread.join()
    """,
        120,
    )


def test_a_finalizer_that_calls_the_function_in_its_own_run() -> None:
    """The plan's lock is not waited for by who has it: the function itself runs."""
    run(
        """
        import weakref
        calls = []
        class Rate(float):
            def __float__(self):
                return 1e-3
        class Late:
            def __float__(self):
                if not calls:
                    calls.append(1)
                    compiled(x, y)
                return 1e-3
        optimizer.param_groups[0]["lr"] = 1e-3
        for p in model.parameters(): pass
        optimizer.param_groups[0]["eps"] = Late()
        try: compiled(x, y)
        except TypeError: pass
        compiled(x, y)
    """,
        60,
    )
