"""The same bits for any number of threads: every structural case, and arrays large enough to be shared out.

Work is split so that no sum's order depends on the number of threads; one that did would show as a differing bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import FLOATS, POINTWISE, Case, draw, elementwise_dtypes, elementwise_operands, function, parameters
from processes import run_program
from structural_cases import STRUCTURAL

import fastbp
import fastbp.nn.functional as F
from fastbp import _core

COUNTS = (1, 2, 3, 7)


def bits(call: Callable[[], Any]) -> list[bytes]:
    """The results of a call, as bytes, one a thread count."""
    found = []
    for count in COUNTS:
        with fastbp.threads(count):
            results = call()
        tensors = [results] if isinstance(results, fastbp.Tensor) else list(results)
        found.append(b"".join(x.detach().numpy().tobytes() for x in tensors))
    return found


def assert_same(what: str, call: Callable[[], Any]) -> None:
    found = bits(call)
    differing = [count for count, one in zip(COUNTS, found, strict=True) if one != found[0]]
    assert not differing, f"{what}: with {differing} threads other bits than with 1"


def with_gradients(call: Callable[..., Any], arrays: list[np.ndarray[Any, Any]]) -> Callable[[], Any]:
    """The call's result and the gradients of its operands."""

    def run() -> list[fastbp.Tensor]:
        tensors = [fastbp.from_numpy(a.copy()) for a in arrays]
        free = [x.requires_grad_() for x in tensors if x.is_floating_point()]
        y = call(*tensors)
        if not y.requires_grad:
            return [y]
        cotangent = fastbp.from_numpy(np.cos(np.arange(y.numel(), dtype=y.dtype.name)).reshape(tuple(y.shape)))
        return [y, *(g for g in _core.grad(y, free, cotangent, allow_unused=True) if g is not None)]

    return run


@pytest.mark.parametrize("case", STRUCTURAL, ids=str)
def test_structural_cases(case: Case) -> None:
    dtype = case.dtypes[0]
    arrays = draw(case.operands, dtype, 7)
    if case.inputs and case.op == "extreme_grad":
        case.inputs(arrays)
    fixed = {i for i, operand in enumerate(case.operands) if operand.constant}

    def call(*tensors: fastbp.Tensor) -> Any:
        return case.call(*(x.detach() if i in fixed else x for i, x in enumerate(tensors)))

    assert_same(str(case), with_gradients(call, arrays))


# Beyond every threshold below which one thread works alone (docs/threads.md), and no multiple of a vector or a piece.
LARGE = (517, 1031)


@pytest.mark.parametrize("name", POINTWISE)
def test_large_elementwise(name: str) -> None:
    dtype = next(d for d in (*FLOATS, "int32") if d in elementwise_dtypes(name))
    arrays = elementwise_operands(name, dtype, LARGE)
    assert_same(name, with_gradients(lambda *xs: function(name)(*xs, **parameters(name)[0]), arrays))


def real(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def index(below: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(below).integers(0, below, shape)


LARGE_CALLS: dict[str, tuple[Callable[..., Any], list[np.ndarray[Any, Any]]]] = {
    **{
        f"{name} over {dim}": (lambda x, n=name, d=dim: getattr(fastbp, n)(x, dim=d), [real(*LARGE)])
        for name in ("sum", "mean", "prod", "amax", "amin", "var", "std", "norm", "logsumexp")
        for dim in ((0,), (1,), (0, 1))
    },
    **{
        f"{name} along {dim}": (lambda x, n=name, d=dim: getattr(fastbp, n)(x, d), [real(*LARGE)])
        for name in ("softmax", "log_softmax", "cumsum")
        for dim in (0, 1)
    },
    **{
        f"{name} along {dim}": (lambda x, n=name, d=dim: getattr(fastbp, n)(x, d), [real(*LARGE)])
        for name in ("argmax", "argmin", "any", "all", "argsort")
        for dim in (0, 1)
    },
    "sum of a long vector": (lambda x: x.sum(), [real(1_000_003)]),
    "sum over the middle": (lambda x: x.sum(1), [real(33, 257, 65)]),
    "sum over both ends": (lambda x: x.sum((0, 2)), [real(33, 257, 65)]),
    "broadcast product": (lambda x, y: x * y, [real(*LARGE), real(LARGE[1])]),
    "broadcast sum of columns": (lambda x, y: x + y, [real(*LARGE), real(LARGE[0], 1)]),
    "transposed copy": (lambda x: x.t().contiguous(), [real(*LARGE)]),
    "strided copy": (lambda x: x[:, ::3].clone(), [real(*LARGE)]),
    "cast": (lambda x: x.to(fastbp.float64), [real(*LARGE)]),
    "concatenation": (lambda x, y: fastbp.cat([x, y], 1), [real(*LARGE), real(*LARGE)]),
    "triangle": (fastbp.tril, [real(*LARGE)]),
    "product of matrices": (fastbp.matmul, [real(257, 513), real(513, 129)]),
    "transposed products": (lambda x, y: x.t() @ y.t(), [real(513, 257), real(129, 513)]),
    "batched product": (fastbp.matmul, [real(17, 65, 67), real(17, 67, 33)]),
    "matrix and vector": (fastbp.matmul, [real(1031, 517), real(517)]),
    "long inner product": (fastbp.matmul, [real(3, 100_003), real(100_003, 2)]),
    "linear": (F.linear, [real(257, 513), real(129, 513), real(129)]),
    "gather": (lambda x, i: x.gather(1, i), [real(*LARGE), index(LARGE[1], *LARGE)]),
    "scatter_add": (lambda x, i, y: x.scatter_add(1, i, y), [real(*LARGE), index(7, *LARGE), real(*LARGE)]),
    "index_select": (lambda x, i: x.index_select(0, i), [real(*LARGE), index(LARGE[0], 900)]),
    "index_add": (lambda x, i, y: x.index_add(0, i, y), [real(7, 1031), index(7, 517), real(*LARGE)]),
    "rows by index": (lambda x, i: x[i], [real(*LARGE), index(LARGE[0], 900)]),
    "cross entropy": (F.cross_entropy, [real(2051, 129), index(129, 2051)]),
    "smoothed cross entropy": (
        lambda x, i: F.cross_entropy(x, i, label_smoothing=0.1),
        [real(2051, 129), index(129, 2051)],
    ),
    "mean squared error": (F.mse_loss, [real(*LARGE), real(*LARGE)]),
}


@pytest.mark.parametrize("name", LARGE_CALLS)
def test_large_structural(name: str) -> None:
    call, arrays = LARGE_CALLS[name]
    assert_same(name, with_gradients(call, arrays))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_training(optimizer: str) -> None:
    """A whole training run: forward, loss, backward, update, many times over."""

    def run() -> list[fastbp.Tensor]:
        fastbp.manual_seed(3)
        model = fastbp.nn.Sequential(fastbp.nn.Linear(300, 400), fastbp.nn.Tanh(), fastbp.nn.Linear(400, 7))
        steps = getattr(fastbp.optim, optimizer)(model.parameters(), lr=1e-2)
        x, target = fastbp.from_numpy(real(301, 300)), fastbp.from_numpy(index(7, 301))
        for _ in range(3):
            steps.zero_grad()
            F.cross_entropy(model(x), target).backward()
            steps.step()
        return list(model.parameters())

    assert_same(f"training with {optimizer}", run)


def test_the_count_is_restored() -> None:
    before = fastbp.get_num_threads()
    with fastbp.threads(7):
        assert fastbp.get_num_threads() == 7
        with fastbp.threads(2):
            assert fastbp.get_num_threads() == 2
        assert fastbp.get_num_threads() == 7
    assert fastbp.get_num_threads() == before


def run_alone(program: str) -> str:
    """What a program prints in a process of its own, in which NumPy's BLAS has no threads."""
    return run_program(program, OPENBLAS_NUM_THREADS="1")


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads by /proc")

# One limit each, below what 64 threads need but enough for some.
LIMITS = {
    "memory": """
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * resource.getpagesize() + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
""",
    "threads of a user": """
os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))
""",
}


@needs_proc
@pytest.mark.parametrize("what", LIMITS)
def test_refused_threads_lower_the_count_for_good(what: str) -> None:
    if "setuid" in LIMITS[what] and os.getuid() != 0:
        pytest.skip("only root can become a user without threads")
    program = f"""
import os, resource
import numpy as np
import fastbp
x = fastbp.from_numpy(np.ones(2_000_000))
{LIMITS[what]}
fastbp.set_num_threads(64)
assert fastbp.get_num_threads() == 64 and "refused" not in fastbp.show_config()
for _ in range(3):
    assert (x + x).sum().item() == 4_000_000
count = fastbp.get_num_threads()
assert 1 <= count < 64, count
fastbp.set_num_threads(64)
assert fastbp.get_num_threads() == count
assert f"no more than {{count}}, for the system refused to start another" in fastbp.show_config()
print(count)
"""
    count = int(run_alone(program))
    assert count <= 4 or what == "memory"


TWO_PLANS = """
import os, threading, time
import numpy as np
import fastbp

def started():
    return set(os.listdir("/proc/self/task"))

fastbp.set_num_threads(2)
keys = fastbp.from_numpy(np.random.default_rng(0).standard_normal(8_000_000))
x = fastbp.from_numpy(np.ones(2_000_000))
lasting = fastbp.compile(lambda x: x.argsort(0))  # one task
shared = fastbp.compile(lambda x: (x * 2).exp())
lasting(keys)
entered = threading.Event()
other = threading.Thread(target=lambda: (entered.set(), lasting(keys)))
other.start()
entered.wait()
time.sleep(0.03)
before = started()
shared(x)
during, together = started(), other.is_alive()
other.join()
before_alone = started()
shared(x)
print(together, len(during - before), len(started() - before_alone))
"""


@needs_proc
def test_two_plans_together_use_no_more_threads_than_one_may() -> None:
    """With two threads, a plan that runs while another does starts no helper; later, alone, it does."""
    found = [run_alone(TWO_PLANS).split()]
    while ["True", "0", "1"] not in found and len(found) < 10:  # the other may have been early, or late
        found.append(run_alone(TWO_PLANS).split())
    assert ["True", "0", "1"] in found, found


def test_a_process_ends_while_a_daemon_is_in_a_region() -> None:
    program = """
import threading
import numpy as np
import fastbp
fastbp.set_num_threads(3)
x = fastbp.from_numpy(np.ones(500_000))
step = fastbp.compile(lambda x: (x * 2).exp())
count = 0
many = threading.Event()

def work():
    global count
    while True:
        step(x)
        count += 1
        if count > 20:
            many.set()

threading.Thread(target=work, daemon=True).start()
many.wait()
print("ends")
"""
    for _ in range(3):
        assert run_alone(program) == "ends\n"
