"""What the planner may not do: move a read over a write or back, give memory to two values, take one thing for another.

Each of these was a fault that some change of the planner had, or would have; sizes go beyond a block or a register.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twins import batches, check_function, check_twins, drawn, make_step

import fastbp
import fastbp.nn.functional as F


def test_a_state_is_shifted_within_itself() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=fastbp.arange(5000).float())

        def step(x: Any) -> Any:
            world.w[1:].add_(world.w[:-1] * 0.5)
            world.w[:-1].mul_(world.w[1:] * 1e-4 + x)
            return world.w.sum()

        world.step = step
        return world

    check_twins(make, batches(1))


@pytest.mark.parametrize("size", [3, 40, 2000])
def test_a_state_is_read_whole_and_by_parts_while_it_is_written(size: int) -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=drawn(size, size if size < 100 else 3, seed=1), v=drawn(size, seed=2))

        def step(x: Any) -> Any:
            w, v = world.w, world.v
            a = w * w[0]
            w.mul_(0.9).add_(a * 0.01)
            b = w[:, :1] + w
            w.sub_(w[0] * 0.1)
            v.add_(v[0])
            v.mul_(v[-1:].tanh())
            v[: size // 2] = v[size - size // 2 :] * 2
            c = v + 1
            v.copy_(w[:, 0])
            return a, b, c, w.sum(), v.mean() + x

        world.step = step
        return world

    check_twins(make, batches(1))


def test_a_state_is_multiplied_by_itself() -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=drawn(40, 40, seed=1) * 0.1, m=drawn(40, 40, seed=2) * 0.1)

        def step(x: Any) -> Any:
            world.w.add_(world.w @ world.m)
            world.m.copy_(world.m @ world.m)
            world.m += fastbp.eye(40) * x
            return world.w.sum()

        world.step = step
        return world

    check_twins(make, batches(1))


@pytest.mark.parametrize("shape", [(1, 2), (3, 4), (40, 50), (2, 3000)], ids=str)
def test_a_temporary_is_written_again(shape: tuple[int, ...]) -> None:
    """What was made of it before is of its old elements, and what it takes in is not lost to its first ones."""

    def taken_in(x: Any) -> Any:
        v = x[0].sin()
        m = (x * 0.3).sin()
        m.add_(v * 0.5)
        return m, v.sin().mean()

    def summed(x: Any) -> Any:
        y = x / (2 + x.tanh())
        m = y.mean(1, keepdim=True)
        total = y.sum()
        y.add_(x)
        n = y.mean(1)
        y.mul_(2)
        return m, total, n, y.sum(), y.mean(1, keepdim=True)

    def assigned(x: Any) -> Any:
        y = x * 0.5
        before = y + 1
        y[:, :1] = 5.0
        middle = y + 1
        y[0] = x[-1]
        return before, middle, y + 1, y.sum(0)

    for function in (taken_in, summed, assigned):
        check_function(function, drawn(*shape))


def test_overlapping_copies() -> None:
    """Eager and compiled, beside NumPy's copy of the old elements."""
    for function in (
        lambda t: t.copy_(t.T.clone()),
        lambda t: t.copy_(t.t()),
        lambda t: t.t().copy_(t),
        lambda t: t[1:].copy_(t[:-1]),
        lambda t: t[:-1].copy_(t[1:]),
    ):
        check_function(function, drawn(40, 40))


def test_results_that_are_needed_before_and_after_a_write() -> None:
    def step(x: Any, y: Any) -> Any:
        before = x + y
        kept = x.clone()
        x.mul_(2)
        after = x + y
        view = x[1:]
        x.add_(before)
        return before, kept, after, view, x, y, x.sum(), x

    check_function(step, drawn(6), drawn(6, seed=1))
    check_function(step, drawn(5000), drawn(5000, seed=1))


# ------------------------------------------------------------------------------------------- products


def add_itself(x: Any, m: Any, n: Any) -> Any:
    h = (x @ m).tanh()
    return (h + h @ n) @ m


def add_itself_from_the_right(x: Any, m: Any, n: Any) -> Any:
    h = (x @ m).tanh()
    return (h + n @ h) @ m


def read_between(x: Any, m: Any, n: Any) -> Any:
    d = (x @ m).tanh()
    c = x @ n
    e = d @ m
    y = c + d
    return y @ n, e


def product_read_twice(x: Any, m: Any, n: Any) -> Any:
    d = (x @ m).tanh()
    c = x @ n
    y = c + d
    return y @ m, c @ m, c.sum(0)


def sum_of_two_products(x: Any, m: Any, n: Any) -> Any:
    d, c = x @ m, x @ n
    y = c + d
    return y @ m, c @ m


def product_of_what_comes_later(x: Any, m: Any, n: Any) -> Any:
    c = x @ m
    d = (n @ m).sin()
    e = (c * d).tanh() + (d @ x).cos()
    return e @ m, c.sum(1), d.sum(1)


def bias_and_activation(x: Any, m: Any, n: Any) -> Any:
    y = F.linear(x, m, n[0])
    z = F.linear(y.relu(), n, y[0])
    return y.sum(), z * y, (z * n[1] + m[:, :1]).sigmoid().sum(1)


@pytest.mark.parametrize("size", [3, 40, 130])
@pytest.mark.parametrize(
    "function",
    [
        add_itself,
        add_itself_from_the_right,
        read_between,
        product_read_twice,
        sum_of_two_products,
        product_of_what_comes_later,
        bias_and_activation,
    ],
    ids=lambda f: f.__name__,
)
def test_products(function: Any, size: int) -> None:
    x, m, n = (drawn(size, size, seed=k) * (0.5 / size**0.5) for k in range(3))
    check_function(function, x, m, n)
    parameters = {"m": m, "n": n}
    loss_of = lambda x, m, n: sum(y.sin().sum() for y in [*function(x, m, n)])  # noqa: E731
    check_twins(make_step(parameters, loss_of), batches(size, size, count=2), factor=100)


# ------------------------------------------------------------------------------------------- equal and not equal


def test_equal_inputs_with_other_attributes_are_other_values() -> None:
    def step(x: Any) -> Any:
        return (
            (x.sum(0), x.sum(1), x.mean(0), x.sum(0)),
            (F.leaky_relu(x, 0.1), F.leaky_relu(x, 0.2), x.clamp(-1, 1), x.clamp(-1, 0.5)),
            (x.softmax(0), x.softmax(1), x.cumsum(0), x.cumsum(1), x.argmax(0), x.argmax(1)),
            (x.transpose(0, 1) @ x, x @ x, x.to(fastbp.float64), x.to(fastbp.int64), x**2, x**3),
            (F.elu(x, 0.5), F.elu(x, 1.5), x.flip(0), x.flip(1), x.roll(1, 0), x.roll(2, 0), x.tril(), x.tril(-1)),
        )

    check_function(step, drawn(6, 6))


def test_one_prediction_with_two_sets_of_labels() -> None:
    first, second = fastbp.tensor([0, 1, 2, 0]), fastbp.tensor([2, 2, 0, 1])

    def loss_of(x: Any, w: Any) -> Any:
        y = x @ w
        return (
            F.cross_entropy(y, first) + 2 * F.cross_entropy(y, second) + F.cross_entropy(y, first, label_smoothing=0.2)
        )

    check_twins(make_step({"w": drawn(5, 3, seed=1)}, loss_of), batches(4, 5))


# ------------------------------------------------------------------------------------------- state


@pytest.mark.parametrize("size", [3, 3000])
def test_a_state_is_read_between_its_next_value_and_the_write(size: int) -> None:
    def make() -> SimpleNamespace:
        world = SimpleNamespace(w=drawn(size, seed=1), v=drawn(size, seed=2))

        def step(x: Any) -> Any:
            w, v = world.w, world.v
            new = w * 0.9 + x
            old = (w * x).sum(), w.exp().mean(), w[1:].clone()
            w.copy_(new)
            other = v.sin() * 2
            v.copy_(other)
            v.mul_(0.5)
            w.add_(v)
            return old, new + 1, new, other, other * 2, w.sum()

        world.step = step
        return world

    check_twins(make, batches(size))
