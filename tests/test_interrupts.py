"""Ctrl-C ends what lasts, and leaves all as it was or as a whole step makes it; so do exceptions in hooks.

Limits are generous: nothing is timed.
"""

from __future__ import annotations

import textwrap

import pytest
from processes import run_program

import fastbp
from fastbp import nn

PRELUDE = """
import gc, signal, sys, time
import fastbp
from fastbp import nn
import fastbp.nn.functional as F

def interrupted(work, after=0.3):
    '''Whether Ctrl-C, after so many seconds, ends `work`, which would last for longer.'''
    def handler(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return False
"""


def run(program: str, limit: float = 120) -> str:
    """What a program prints; it must end by itself."""
    return run_program(PRELUDE + textwrap.dedent(program), "-W", "ignore", timeout=limit)


ENDLESS = [
    "fastbp.ones(1).expand(2**40).tolist()",
    "fastbp.ones(2**60, 0).tolist()",
    "fastbp.ones(2**60, 0).unbind()",
    "fastbp.ones(1).expand(2**40).split(1)",
    "list(fastbp.ones(2**60, 0))",
]


@pytest.mark.parametrize("call", ENDLESS)
def test_loops_over_elements_that_cost_no_memory(call: str) -> None:
    run(f"assert interrupted(lambda: {call})")


@pytest.mark.parametrize(
    "call",
    [
        "fastbp.repeat_interleave(fastbp.ones(2), 2**45)",
        "fastbp.repeat_interleave(fastbp.ones(2), fastbp.tensor([2**45, 1]))",
        "fastbp.repeat_interleave(fastbp.ones(2), fastbp.tensor([2**62, 2**62]))",
        "nn.init.trunc_normal_(fastbp.empty(3), float('nan'), 1, -1, 1)",
        "nn.init.trunc_normal_(fastbp.empty(3), 0, 1e-320, 1, 2)",
    ],
)
def test_sizes_and_bounds_that_cannot_be_had(call: str) -> None:
    run(f"""
        try: {call}
        except (MemoryError, RuntimeError, ValueError): pass
        else: raise SystemExit("no error")
    """)


def test_trunc_normal_far_out() -> None:
    drawn = nn.init.trunc_normal_(fastbp.empty(1000), 0.0, 1.0, 1e7, 2e7)
    assert (drawn >= 1e7).all()
    assert (nn.init.trunc_normal_(fastbp.empty(3), 0.0, 1.0, 1e200, 2e200) > 1e30).all()


def test_repeat_interleave_says_what_is_wrong() -> None:
    with pytest.raises(RuntimeError, match="can not be negative"):
        fastbp.repeat_interleave(fastbp.ones(2), fastbp.tensor([1, -1]))
    with pytest.raises(RuntimeError, match="same size as input"):
        fastbp.repeat_interleave(fastbp.ones(2), fastbp.tensor([1, 2, 3]))
    assert fastbp.repeat_interleave(fastbp.ones(2), fastbp.tensor([3])).tolist() == [1.0] * 6


def test_softmax_of_rows_of_nothing() -> None:
    """However many there are: nothing is computed."""
    assert nn.functional.softmax(fastbp.ones(2**40, 0), 1).numel() == 0


def test_a_long_backward_is_interrupted() -> None:
    """No scratch is left on the graph: a further sweep comes to the right gradients, and nothing is held."""
    run("""
        x = fastbp.ones(256, requires_grad=True)
        y = x
        for _ in range(300_000): y = y * 1.0
        loss = y.sum()
        def long():
            while True: loss.backward(retain_graph=True)
        assert interrupted(long)
        x.grad = None
        loss.backward()
        assert (x.grad == 1).all()
        g = x.grad
        del loss, y, long
        gc.collect()
    """)


def test_an_interruption_within_a_sweep_is_of_that_sweep() -> None:
    """The handler runs in the middle of it, and not after its end."""
    run("""
        x = fastbp.ones(4, requires_grad=True)
        y = x
        for _ in range(200_000): y = y * 1.0
        seen = []
        def handler(*_):
            seen.append(x.grad is None)
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, handler)
        for _ in range(200):
            x.grad = None
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            try: y.backward(fastbp.ones(4), retain_graph=True)
            except KeyboardInterrupt:
                if x.grad is None: break
            finally: signal.setitimer(signal.ITIMER_REAL, 0)
        else:
            raise SystemExit("no sweep was interrupted before it had come to its leaf")
    """)


def test_an_epoch_is_interrupted_between_steps() -> None:
    """Parameters and optimizer's state are of one and the same number of steps, and training goes on."""
    run("""
        from fastbp.utils.data import DataLoader, TensorDataset
        model = nn.Linear(32, 4)
        optimizer = fastbp.optim.Adam(model.parameters(), lr=1e-3)
        @fastbp.compile
        def step(x, y):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()
        loader = DataLoader(TensorDataset(fastbp.randn(1 << 17, 32), fastbp.randn(1 << 17, 4)), batch_size=1)
        def long():
            while True: step.epoch(loader)
        assert interrupted(long, 1.0)
        steps = {int(entry["step"]) for entry in optimizer.state.values()}
        assert len(steps) == 1 and steps.pop() > 0
        before = int(next(iter(optimizer.state.values()))["step"])
        step(fastbp.randn(1, 32), fastbp.randn(1, 4))
        assert int(next(iter(optimizer.state.values()))["step"]) == before + 1
    """)


def test_a_capture_is_interrupted() -> None:
    """Gradients, optimizers and the function are as before; the next call captures anew."""
    run("""
        weight = fastbp.ones(8, requires_grad=True)
        optimizer = fastbp.optim.SGD([weight], lr=0.1, momentum=0.9)
        size = [10**9]
        def function(x):
            y = x * weight
            for _ in range(size[0]): y = y * 1.0
            optimizer.zero_grad()
            y.sum().backward()
            optimizer.step()
            return y.detach()
        step = fastbp.compile(function)
        weight.grad = fastbp.full((8,), 7.0)
        assert interrupted(lambda: step(fastbp.ones(8)))
        assert weight.grad.tolist() == [7.0] * 8 and not optimizer.state and (weight == 1).all()
        size[0] = 3
        step(fastbp.ones(8))
        assert fastbp.allclose(weight, fastbp.full((8,), 0.9)), weight
    """)


def test_waiting_for_a_plan_is_interrupted() -> None:
    """A thread that waits until another's run is over sees Ctrl-C; the lock is not left behind."""
    run("""
        import threading
        big = fastbp.randn(700, 700)
        @fastbp.compile
        def long(x):
            for _ in range(60): x = (x @ big).tanh()
            return x
        long(big)
        stop = []
        def other():
            while not stop: long(big)
        threads = [threading.Thread(target=other) for _ in range(2)]
        for one in threads: one.start()
        def here():
            while True: long(big)
        assert interrupted(here)
        stop.append(1)
        for one in threads: one.join()
        long(big)
    """)


class _Wrong(Exception):
    pass


@pytest.mark.parametrize("kind", ["tensor", "accumulated", "module"])
def test_exceptions_in_hooks_leave_whole_steps(kind: str) -> None:
    """A parameter and its state are both stepped or both not, gradients may be there; the next step is right."""
    fastbp.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = fastbp.optim.Adam(model.parameters(), lr=0.1)
    x = fastbp.ones(3, 4)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    def fail(*_: object) -> None:
        raise _Wrong

    step()
    handle = {
        "tensor": lambda: model.weight.register_hook(fail),
        "accumulated": lambda: model.weight.register_post_accumulate_grad_hook(fail),
        "module": lambda: model.register_forward_hook(fail),
    }[kind]()
    values = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(_Wrong):
        step()
    moved = [not bool((p.detach() == before).all()) for p, before in zip(model.parameters(), values, strict=True)]
    steps = [int(optimizer.state[p]["step"]) for p in model.parameters()]
    assert steps == [1 + one for one in moved]
    handle.remove()
    step()
    assert {int(optimizer.state[p]["step"]) for p in model.parameters()} == {steps[0] + 1}
