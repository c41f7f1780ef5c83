"""Random programs: compiled as eager, and as the reference in plain Python.

A program is a list of instructions over a growing list of values, two of which are parameters; its text is in the
failure's message (hypothesis shrinks it). Operations are smooth and bounded, so that rounding cannot grow beyond the
bound; where derivatives jump is decided by the inputs alone, which eager and compiled code see alike.
"""

from __future__ import annotations

import random
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import check_twins, drawn

import fastbp
from fastbp import optim

settings.register_profile("fastbp", deadline=None, max_examples=150, derandomize=True, database=None)
settings.load_profile("fastbp")

UNARY: dict[str, Any] = {
    "tanh": lambda x: x.tanh(),
    "sin": lambda x: x.sin(),
    "sigmoid": lambda x: x.sigmoid(),
    "neg": lambda x: -x,
    "scale": lambda x: x * 0.7 + 0.1,
    "square": lambda x: x * x * 0.3,
    "ratio": lambda x: x / (x * x + 1),
    "softplus": lambda x: (1 + x.tanh().exp()).log(),
    "one": lambda x: x * 1 / 1 - 0.0,
    "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach() * 0.5,
    "cast": lambda x: (x.double() * 0.5).to(x.dtype),
}
BINARY: dict[str, Any] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y * 0.5,
    "mix": lambda x, y: (x * 0.3 + y.tanh()).sin(),
    "divide": lambda x, y: x / (2 + y.tanh()),
}
REDUCE: dict[str, Any] = {
    "sum": lambda x, d, k: x.sum(d, keepdim=k) * 0.2,
    "mean": lambda x, d, k: x.mean(d, keepdim=k),
    "logsumexp": lambda x, d, k: x.logsumexp(d, keepdim=k),
}
VIEW: dict[str, Any] = {
    "t": lambda x: x.t(),
    "flip rows": lambda x: x[1:],
    "every other": lambda x: x[:, ::2],
    "row": lambda x: x[:1],
    "column": lambda x: x[:, -1:],
    "vector": lambda x: x[0],
    "flat": lambda x: x.reshape(-1),
    "unflat": lambda x: x.reshape(1, -1),
    "middle": lambda x: x[:, 1:3],
    "expand": lambda x: x[:1].expand(x.shape),
    "permute": lambda x: x[None].permute(2, 0, 1).reshape(x.shape[1], x.shape[0]),
}
IN_PLACE: dict[str, Any] = {
    "add_": lambda x, y: x.add_(y * 0.5),
    "mul_": lambda x, y: x.mul_(y.tanh()),
    "row add_": lambda x, y: x[0].add_(y[0] if y.ndim == x.ndim and y.ndim else y),
    "column mul_": lambda x, y: x[:, :1].mul_(0.5),
    "fill": lambda x, y: x[:1].fill_(0.25),
    "assign": lambda x, y: x.__setitem__((slice(None), slice(0, 2)), (y[..., :2] if y.ndim else y).clone()),
    "assign own": lambda x, y: x.__setitem__(slice(1, None), x[:-1] * 0.5),
    "turned sub_": lambda x, y: x.t().sub_(0.125),
    "copy_": lambda x, y: x.copy_(y.clone()),
}
BY_MASK = ("where", "masked_fill", "times mask")
OTHER = ("matmul", "matmul t", "linear", "cat", "stack", "softmax", "product into", "gather")
INSTRUCTIONS = (
    *(("unary", one) for one in UNARY),
    *(("binary", one) for one in BINARY),
    *(("binary", one) for one in BINARY),
    *(("reduce", one) for one in REDUCE),
    *(("view", one) for one in VIEW),
    *(("in place", one) for one in IN_PLACE),
    *(("mask", one) for one in BY_MASK),
    *(("other", one) for one in OTHER),
    *(("other", one) for one in ("matmul", "linear", "product into")),
)


def run_one(kind: str, name: str, values: list[Any], owned: list[bool], i: int, j: int, k: int, x: Any) -> Any:
    """The value of one instruction; None where its operands do not suit it."""
    a, b = values[i % len(values)], values[j % len(values)]
    if kind == "unary":
        return UNARY[name](a)
    if kind == "reduce":
        return REDUCE[name](a, k % a.ndim, bool(j % 2)) if a.ndim and a.numel() else None
    if kind == "view":
        return VIEW[name](a) if a.ndim == 2 and a.numel() else None
    if kind == "in place":
        i = max((n for n in range(len(values)) if owned[n] and n <= i % len(values)), default=-1)
        if i < 0 or values[i].ndim != 2 or values[i].numel() == 0:
            return None
        a = values[i]
        b = b if b.numel() and fits(b.shape, a.shape) else a
        if name == "assign" and not (b.ndim == 0 or (a.shape[1] >= 2 and b.shape[-1] >= 2)):
            return None
        if name == "row add_" and b.ndim == 2 and not fits(b[0].shape, a[0].shape):
            return None
        IN_PLACE[name](a, b)
        return a * 1.5
    if kind == "binary":
        return BINARY[name](a, b) if fits(a.shape, b.shape) or fits(b.shape, a.shape) else None
    if kind == "mask":
        mask = x > 0 if k % 2 else (x > -0.5) & (x < 0.5)
        if tuple(a.shape) != tuple(x.shape) or not fits(b.shape, a.shape):
            return None
        if name == "where":
            return fastbp.where(mask, a, b)
        return a.masked_fill(mask, 0.5) if name == "masked_fill" else a * mask
    return run_other(name, a, b)


def run_other(name: str, a: Any, b: Any) -> Any:
    if a.ndim != 2 or not a.numel():
        return None
    if name == "softmax":
        return a.softmax(1)
    if name == "gather":
        return a.index_select(0, fastbp.tensor([0, a.shape[0] - 1, 0]))
    if b.ndim != 2 or not b.numel():
        return None
    if name in ("matmul", "product into"):
        if a.shape[1] != b.shape[0]:
            return None
        y = a @ (b * 0.3)
        return y + a if name == "product into" and tuple(y.shape) == tuple(a.shape) else y.tanh()
    if name == "matmul t":
        return a @ b.t() * 0.2 if a.shape[1] == b.shape[1] else None
    if name == "linear":
        return fastbp.nn.functional.linear(a, b * 0.3, b[:, 0]).tanh() if a.shape[1] == b.shape[1] else None
    if name == "cat":
        return fastbp.cat([a, b, a]) if a.shape[1] == b.shape[1] and a.shape[0] + b.shape[0] < 60 else None
    return fastbp.stack([a, b]).sum(0) if tuple(a.shape) == tuple(b.shape) else None


def fits(inner: Any, outer: Any) -> bool:
    """Whether a shape broadcasts to another."""
    inner, outer = tuple(inner), tuple(outer)
    return len(inner) <= len(outer) and all(m in (1, n) for m, n in zip(inner[::-1], outer[::-1], strict=False))


def run_program(
    program: Any, x: Any, parameters: list[Any], in_place: bool = True, free: bool = False
) -> tuple[Any, list[Any]]:
    """The loss, and the last values; `free`: every value may be written, inputs and views too."""
    values, owned = [x, *parameters], [free] * (1 + len(parameters))
    for (kind, name), i, j, k in program:
        if kind == "in place" and not in_place:
            continue
        made = run_one(kind, name, values, owned, i, j, k, x)
        if made is None or made.numel() > 4096:
            continue
        # What an instruction has made by arithmetic may be written; views and inputs are only read.
        values.append(made)
        owned.append(made.ndim == 2 and (kind in ("binary", "mask") or (free and name != "expand")))
    loss = sum((one.sin() * (n % 3 + 1)).mean() for n, one in enumerate(values[1:]) if one.numel())
    return loss, values[-4:]


numbers = st.integers(0, 30)
programs = st.lists(st.tuples(st.sampled_from(INSTRUCTIONS), numbers, numbers, numbers), min_size=1, max_size=30)
sides = st.sampled_from([1, 2, 3, 4, 8, 17, 40])


def check_program(program: Any, rows: int, columns: int, dtype: Any, momentum: float) -> None:
    fastbp.set_default_dtype(fastbp.float64 if dtype is np.float64 else fastbp.float32)

    def make() -> SimpleNamespace:
        p = drawn(rows, columns, seed=1, dtype=dtype).requires_grad_()
        q = (drawn(columns, columns, seed=2, dtype=dtype) * 0.3).detach().requires_grad_()
        world = SimpleNamespace(p=p, q=q, optimizer=optim.SGD([p, q], lr=0.01, momentum=momentum))

        def step(x: Any) -> Any:
            world.optimizer.zero_grad()
            loss, last = run_program(program, x, [p, q])
            loss.backward()
            world.optimizer.step()
            return loss.detach(), [one.detach() for one in last]

        world.step = step
        return world

    calls = [lambda k=k: (drawn(rows, columns, seed=10 + k, dtype=dtype),) for k in range(2)]
    try:
        eager = make()
        eager.step(*calls[0]())
    except RuntimeError as error:
        refused = "inplace operation|does not record history"  # no programs: backward() could not be right
        if re.search(refused, str(error)):
            with pytest.raises(RuntimeError, match=refused):
                fastbp.compile(make().step)(*calls[0]())
            return
        raise
    check_twins(make, calls, factor=4)


@given(program=programs, rows=sides, columns=sides, momentum=st.sampled_from([0.0, 0.9]))
def test_random_steps_in_float32(program: Any, rows: int, columns: int, momentum: float) -> None:
    check_program(program, rows, columns, np.float32, momentum)


@given(program=programs, rows=sides, columns=sides)
def test_random_steps_in_float64(program: Any, rows: int, columns: int) -> None:
    check_program(program, rows, columns, np.float64, 0.0)


def check_updates(program: Any, rows: int, columns: int, dtype: Any) -> None:
    """All values may be written, those of the arguments, of the state and of views into them too."""

    def make() -> SimpleNamespace:
        world = SimpleNamespace(
            s=drawn(rows, columns, seed=1, dtype=dtype), t=drawn(columns, columns, seed=2, dtype=dtype)
        )

        def step(x: Any, y: Any) -> Any:
            with fastbp.no_grad():
                return run_program(program, x, [world.s, world.t, y, world.s[:2], world.t.t()], free=True)

        world.step = step
        return world

    def arguments(k: int) -> Any:
        return drawn(rows, columns, seed=10 + k, dtype=dtype), drawn(columns, rows, seed=20 + k, dtype=dtype)

    try:
        make().step(*arguments(0))
    except RuntimeError as error:
        assert "single memory location" in str(error)  # a write into an expanded view
        with pytest.raises(RuntimeError, match="single memory location"):
            fastbp.compile(make().step)(*arguments(0))
        return
    check_twins(make, [lambda k=k: arguments(k) for k in range(3)], factor=100)


@given(program=programs, rows=sides, columns=sides)
def test_random_updates(program: Any, rows: int, columns: int) -> None:
    check_updates(program, rows, columns, np.float64)


def drawn_program(seed: int) -> tuple[Any, int, int]:
    """Longer programs than hypothesis likes to draw, and as long for any seed."""
    rng = random.Random(seed)
    length = rng.choice([3, 8, 20, 40, 60])
    program = [
        (rng.choice(INSTRUCTIONS), rng.randrange(31), rng.randrange(31), rng.randrange(31)) for _ in range(length)
    ]
    return program, rng.choice([1, 2, 3, 4, 8, 17, 40]), rng.choice([1, 2, 3, 4, 8, 17, 40])


@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_long_random_programs(seed: int) -> None:
    for number in range(seed, seed + 20):
        program, rows, columns = drawn_program(number)
        dtype = (np.float32, np.float64)[number % 2]
        print(f"program {number}: {rows} by {columns}, {dtype.__name__}, {program}")
        check_program(program, rows, columns, dtype, 0.9 if number % 3 else 0.0)
        check_updates(program, rows, columns, np.float64)


@settings(max_examples=60)
@given(program=programs, rows=sides, columns=sides)
def test_random_functions_with_their_derivative(program: Any, rows: int, columns: int) -> None:
    """Without backward() inside: the function and its derivative take part in the eager graph."""

    def function(x: Any, p: Any, q: Any) -> Any:
        loss, last = run_program(program, x, [p, q], in_place=False)
        return loss, last[-1] * 1

    fastbp.set_default_dtype(fastbp.float64)
    compiled = fastbp.compile(function)

    def make(call: Any) -> SimpleNamespace:
        p = drawn(rows, columns, seed=1, dtype=np.float64).requires_grad_()
        q = (drawn(columns, columns, seed=2, dtype=np.float64) * 0.3).detach().requires_grad_()
        world = SimpleNamespace(p=p, q=q)

        def step(x: Any) -> Any:
            loss, last = call(x, p * 1, q)
            total = loss + (last * last.detach().cos()).sum() * 0.1 + (p * q.sum()).mean()
            total.backward()
            return total.detach(), last.detach()

        world.step = step
        return world

    from twins import assert_same, snapshot

    worlds = [make(function), make(compiled)]
    for k in range(2):
        x = drawn(rows, columns, seed=10 + k, dtype=np.float64)
        wanted, found = (snapshot([world.step(x), world.p, world.q]) for world in worlds)
        assert_same(found, wanted, f"call {k}", 4)


@settings(max_examples=25)
@given(program=st.lists(st.tuples(st.sampled_from(INSTRUCTIONS), numbers, numbers, numbers), max_size=12))
def test_random_programs_against_the_reference(program: Any) -> None:
    """The eager program is replayed in plain Python; the compiled one gives the same loss and gradients."""
    x = drawn(3, 4, seed=10, dtype=np.float64)
    p, q = drawn(3, 4, seed=1, dtype=np.float64), drawn(4, 4, seed=2, dtype=np.float64) * 0.3
    fastbp.set_default_dtype(fastbp.float64)
    fastbp.testing.check(lambda x, p, q: run_program(program, x, [p, q], in_place=False)[0], x, p, q)
    plain = [program[n] for n in range(len(program)) if program[n][0][0] != "in place"]
    check_program(plain, 3, 4, np.float64, 0.0)
