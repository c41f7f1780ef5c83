"""What goes into compiled functions and comes out: operations, dtypes, shapes, views, arguments, results, plans."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from twins import (
    OPTIMIZERS,
    assert_same,
    batches,
    check_function,
    check_twins,
    drawn,
    make_step,
    snapshot,
)

import fastbp
import fastbp.nn.functional as F
from fastbp import nn

T = fastbp.tensor
INDEX = T([2, 0, 1, 2])


def in_place_chain(x: Any) -> Any:
    y = x * 2
    y.add_(1).mul_(3).sub_(0.5)
    y[0] = 0.5
    y[1:, 0] += 3
    y.t()[2].neg_()
    return y, y.sum(0)


def through_views(x: Any) -> Any:
    y = x.clone()
    v = y[1:3]
    w = v.t()
    w.mul_(10)
    z = y + 1
    v.zero_()
    return z, y, w


def masked(x: Any) -> Any:
    m = (x > 0) & ~(x > 1) | (x == x.max())
    y = fastbp.where(m, x.exp(), -x)
    return y, m, fastbp.where(x > 0, x, 0.0), x.masked_fill(m, 5.0), fastbp.isnan(x / 0.0), (x != x).any()


def indexed(x: Any) -> Any:
    return (
        x[INDEX],
        x[:, INDEX],
        x.gather(1, INDEX.reshape(4, 1)),
        x.index_select(0, INDEX),
        x[1],
        x[..., -1],
        x[::2, 1:],
    )


def scattered(x: Any) -> Any:
    y = fastbp.zeros(4, 3).scatter(1, INDEX.reshape(4, 1), x[:, :1])
    z = fastbp.zeros(3, 3).index_add(0, INDEX, x)
    x = x.clone()
    x[INDEX[:2]] = 7.0
    return y, z, x


def reduced(x: Any) -> Any:
    return (
        [
            x.sum(),
            x.sum(0),
            x.sum(1),
            x.sum((0, 1)),
            x.sum(-1, keepdim=True),
            x.mean(),
            x.mean(0),
            x.mean(1, keepdim=True),
        ],
        [
            x.amax(),
            x.amax(0),
            x.amin(1),
            x.max(1),
            x.min(0),
            x.argmax(),
            x.argmax(1),
            x.prod(),
            x.prod(0),
            x.var(),
            x.std(1),
        ],
        [(x * x).sum(1), (x.exp() + 1).mean(0), (x > 0).sum(), (x > 0).all(1), x.norm(), x.logsumexp(1), x.cumsum(0)],
    )


def joined(x: Any) -> Any:
    y = fastbp.cat([x, x * 2, x[:1]], 0)
    return y, fastbp.stack([x, -x], 1), y.split(2), x.chunk(2, 1), fastbp.cat([x[:, :1], x], 1).sum(1), x.repeat(2, 1)


def shaped(x: Any) -> Any:
    return (
        x.t() * 2, x.reshape(-1)[3:7] + 1, x.unsqueeze(1).expand(4, 5, 3) * x.unsqueeze(1), x.T.contiguous(),
        x.view(2, 6).sum(1), x.flatten(), x[None].squeeze(0) + x, x.flip(0), fastbp.tril(x), x.t().reshape(12), x.T @ x,
        x.diagonal(), x.roll(1, 0),
    )  # fmt: skip


def softmaxes(x: Any) -> Any:
    return (
        F.softmax(x, 1),
        F.log_softmax(x, 0),
        F.softmax(x, -1).log().sum(),
        fastbp.sigmoid(x),
        F.gelu(x),
        F.softplus(x),
    )


def products(x: Any) -> Any:
    y = x.unsqueeze(0).expand(2, 4, 3)
    return (
        x @ x.t(),
        x.t() @ x,
        y @ x.t(),
        y @ y.transpose(1, 2),
        x @ x[0],
        x[0] @ x[1],
        F.linear(x, x, x[:, 0]),
        fastbp.outer(x[0], x[1]),
    )


def constants(x: Any) -> Any:
    a = fastbp.arange(3) * 2.0 + fastbp.ones(3)
    b = T([1.0, 2.0, 3.0])
    b.add_(x[0])
    c = fastbp.zeros(4, 3)
    c += x
    c[0] = a
    return (
        a,
        b,
        c,
        fastbp.eye(3) @ a,
        fastbp.full((2,), 3.0),
        fastbp.linspace(0, 1, 5) + x.sum(),
        x * 1 + 0 - 0.0,
        x / 1,
    )


def residual(x: Any) -> Any:
    m = x.t() @ x * 0.1
    h = fastbp.tanh(x @ m)
    y = h + h @ m
    return y @ m


def residual_chain(x: Any) -> Any:
    m, n = x.t() @ x * 0.25, (x.t() @ x).tanh()
    h = x @ m
    for _ in range(3):
        h = h + (h @ n).tanh()
        h = h @ m + h
    return h.tanh()


def integer_conditions(x: Any) -> Any:
    i = (x * 10).long()
    c = i[0] % 2 > 0
    return fastbp.where(c, x[0], x[1]) @ x.t(), fastbp.where(i[:, 1] > 0, x[:, 0], x[:, 1] * 2) @ x


def equal_parts(x: Any) -> Any:
    a, b = (x * 2).exp(), (x * 2).exp()
    c = x.sum(1, keepdim=True) + x.sum(1, keepdim=True)
    c = c.add_(1)
    return a, b, c, x.exp() - x.exp()


def casts(x: Any) -> Any:
    return (
        x.double() * 2,
        x.long() + 1,
        (x * 10).int() // 3,
        x.bool(),
        (x.double() + x).float(),
        (x > 0).float() * x,
        x.long() / 2,
    )


PARTS = (
    in_place_chain,
    through_views,
    masked,
    indexed,
    scattered,
    reduced,
    joined,
    shaped,
    softmaxes,
    products,
    constants,
)
FUNCTIONS = {one.__name__: one for one in (*PARTS, residual, residual_chain, integer_conditions, equal_parts, casts)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, dtype: Any) -> None:
    if dtype is np.float64:
        fastbp.set_default_dtype(fastbp.float64)
    check_function(FUNCTIONS[name], drawn(4, 3, seed=3, dtype=dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_functions(name: str) -> None:
    """The same functions with a backward pass, through every floating result."""

    def loss_of(x: Any, w: Any) -> Any:
        found: list[Any] = []

        def collect(value: Any) -> None:
            if isinstance(value, fastbp.Tensor):
                found.append(value)
            else:
                for one in value:
                    collect(one)

        collect(FUNCTIONS[name](x * w))
        return sum((one.float() * (k + 1)).sum().cos() for k, one in enumerate(found) if one.requires_grad)

    if name == "masked":
        pytest.skip("its results hold infinities")
    check_twins(make_step({"w": drawn(4, 3, seed=5)}, loss_of), batches(4, 3), factor=20)


LABELS = T([1, 0, 2, 1])
LOSSES: dict[str, Any] = {
    "mse": lambda x: F.mse_loss(x, x.detach() * 0.5 + 1),
    "l1": lambda x: F.l1_loss(x, x.detach() * 0.5 + 1),
    "smooth l1": lambda x: F.smooth_l1_loss(x, x.detach() * 2 + 0.1),
    "cross entropy": lambda x: F.cross_entropy(x, LABELS),
    "cross entropy smoothed": lambda x: F.cross_entropy(x, LABELS, label_smoothing=0.1, reduction="sum"),
    "cross entropy none": lambda x: (F.cross_entropy(x, LABELS, reduction="none") * T([1.0, 2.0, 3.0, 4.0])).sum(),
    "cross entropy weights": lambda x: F.cross_entropy(x, LABELS, weight=T([1.0, 2.0, 0.5]), ignore_index=0),
    "cross entropy twice": lambda x: (
        F.cross_entropy(x, LABELS) + 3 * F.cross_entropy(x, LABELS) + F.cross_entropy(-x, LABELS)
    ),
    "cross entropy scaled": lambda x: F.cross_entropy(x * 2, LABELS) * x.sum(),
    "nll": lambda x: F.nll_loss(F.log_softmax(x, 1), LABELS),
    "bce": lambda x: F.binary_cross_entropy(x.sigmoid(), (x.detach() > 0).float()),
    "bce logits": lambda x: F.binary_cross_entropy_with_logits(x, (x.detach() > 0).float()),
    "huber": lambda x: F.huber_loss(x, x.detach() * 3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    def loss_of(x: Any, w: Any, b: Any) -> Any:
        return LOSSES[name](F.linear(x, w, b))

    check_twins(make_step({"w": drawn(3, 6, seed=5), "b": drawn(3, seed=6)}, loss_of), batches(4, 6), factor=4)


SHAPES = [
    (),
    (0,),
    (1,),
    (3,),
    (1, 1),
    (0, 3),
    (3, 0),
    (5, 1),
    (1, 5),
    (17,),
    (513,),
    (1025,),
    (40, 40),
    (3, 700),
    (5000,),
    (2, 3, 4),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_shapes(shape: tuple[int, ...], dtype: Any) -> None:
    """Chains with rows, columns, sums and casts in them, of every size that blocks treat differently."""

    def loss_of(x: Any, w: Any) -> Any:
        y = (x * w).tanh() + w
        if x.ndim:
            y = y * x.sum(-1, keepdim=True) + w.mean(0)
            y = y - y.mean(-1, keepdim=True)
        z = fastbp.where(x > 0, y, y * 0.1)
        return (z * z).sum() + z.sum() / 7 + (w < 0).sum() * 0.5 + z.double().sum().to(x.dtype)

    check_twins(make_step({"w": drawn(*shape, seed=5, dtype=dtype)}, loss_of), batches(*shape, dtype=dtype), factor=20)


def test_integer_functions() -> None:
    def step(i: Any, u: Any, b: Any) -> Any:
        i2 = i * 3 + 1
        i2[1] = 9
        return i2, i // 2, i % 3, u + 1, b & (i > 2), i.sum(), i.float().mean(), -i, i.max(), u.long() * 2, (i > 1) | b

    check_function(step, T([1, 2, 3, 4]), T([1, 2, 3, 255], dtype=fastbp.uint8), T([True, False, True, True]))


# ------------------------------------------------------------------------------------------- sizes and threads


def test_long_chains_and_many_results() -> None:
    def step(x: Any) -> Any:
        found = []
        for k in range(120):
            x = (x * 0.99 + 0.01).sin() if k % 3 else x + found[-1] if found else x * 2
            found.append(x)
        return found

    check_function(step, drawn(7))
    check_function(step, drawn(3000))


def test_many_scalar_operations() -> None:
    """Enough one-element lines for a batched scalar program, with results in its middle."""

    def loss_of(x: Any, w: Any) -> Any:
        a, b = w[0], w[1]
        parts = []
        for k in range(60):
            a, b = (a * b).sin() + x[0], (a - b).cos() * 0.5
            if k % 20 == 3:
                parts.append(a)
        return a + b + sum(parts)

    parameters = {"w": drawn(2, seed=5, dtype=np.float64)}
    check_twins(make_step(parameters, loss_of), batches(1, dtype=np.float64), factor=100)


@pytest.mark.parametrize("name", ["adam", "sgd nesterov decay"])
def test_same_bits_for_any_number_of_threads_and_every_run(name: str) -> None:
    found = set()
    for count in (1, 2, 3, 7, 1):
        with fastbp.threads(count):
            fastbp.manual_seed(0)
            model = nn.Sequential(nn.Linear(300, 257), nn.Tanh(), nn.Dropout(0.1), nn.Linear(257, 30))
            optimizer = OPTIMIZERS[name](SimpleNamespace(parameters=model.parameters))

            @fastbp.compile
            def step(x: Any, t: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), t) + model[0].weight.square().sum() * 1e-4
                loss.backward()
                optimizer.step()
                return loss.detach()

            losses = [step(drawn(200, 300, seed=k), fastbp.arange(200) % 30).item() for k in range(3)]
            found.add((*losses, *(p.detach().numpy().tobytes() for p in model.parameters())))
    assert len(found) == 1


# ------------------------------------------------------------------------------------------- arguments and results

Pair = namedtuple("Pair", "first second")


def test_nested_arguments_and_results() -> None:
    def step(batch: Any, *rest: Any, scale: Any, flag: bool = True, names: Any = ()) -> Any:
        x = batch["x"] * (scale if flag else 1)
        return {"y": x, "all": [x + batch["more"][0], (x, None, "text", 3)], "pair": Pair(x * 2, rest), "names": names}

    def arguments() -> Any:
        batch = {"x": drawn(3), "more": (drawn(3, seed=1), [np.ones(2, np.float32)])}
        return (batch, drawn(2, seed=2), Pair(1.5, drawn(1))), {"scale": 2.0, "names": ["a", "b"]}

    check_twins(lambda: SimpleNamespace(step=step), [arguments] * 3)
    x = step({"x": drawn(3), "more": [drawn(3)]}, scale=1)
    y = fastbp.compile(step)({"x": drawn(3), "more": [drawn(3)]}, scale=1)
    assert type(y["pair"]) is Pair and type(y["all"]) is list and type(y["all"][1]) is tuple
    assert_same(snapshot(y), snapshot(x), "result")


def test_static_arguments_make_plans_of_their_own() -> None:
    counted = []

    @fastbp.compile
    def step(x: Any, how: Any, k: Any = 2) -> Any:
        counted.append(1)
        return x.sum() * k if how == "sum" else x.mean() * k

    x = drawn(4)
    for _ in range(2):
        for how in ("sum", "mean"):
            for k in (2, 2.5, True):
                wanted = (x.sum() if how == "sum" else x.mean()).item() * k
                assert step(x, how, k).item() == pytest.approx(wanted, rel=1e-6)
                assert step(x, how=how, k=k).item() == pytest.approx(wanted, rel=1e-6)
    assert len(counted) == 12


def test_signed_zeros_are_two_arguments() -> None:
    step = fastbp.compile(lambda x, k: x / k)
    assert [step(fastbp.ones(1), k).item() for k in (0.0, -0.0)] == [np.inf, -np.inf]


def test_numpy_arguments_are_read_in_place() -> None:
    step = fastbp.compile(lambda a, b: (a * b).sum())
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    assert step(a, b).item() == 15
    plan = step.plan
    a[:] = 1
    assert step(a, b).item() == 6
    assert step.plan is plan
    b.flags.writeable = False
    assert step(a, b).item() == 6
    assert step(a.astype(np.float64), b).dtype is fastbp.float64
    assert step(a[:, ::-1], np.array([1, 2, 3], np.float32)).item() == 12
    assert step(a.T, b.T).item() == 6
    assert step(a[:, 1:], b[:, :2]).item() == 4


def test_strided_arguments() -> None:
    def step(x: Any) -> Any:
        y = x * 2
        x.add_(1)
        return y, x.sum(0)

    base = drawn(8, 9)
    for look in (
        lambda x: x.t(),
        lambda x: x[::2],
        lambda x: x[:, 1:4],
        lambda x: x[2],
        lambda x: x[:, 2],
        lambda x: x[1:, ::3].t(),
    ):
        check_twins(lambda: SimpleNamespace(step=step), [lambda look=look: (look(base.clone()),)] * 2)


def test_results_are_arguments_views_outside_tensors_or_nothing() -> None:
    outside = drawn(3)

    def step(x: Any) -> Any:
        y = x + outside
        return x, outside, outside[1:], y, y[1:], y.t() if y.ndim > 1 else y.view(3, 1), None

    compiled = fastbp.compile(step)
    x = drawn(3, seed=1)
    for _ in range(2):
        found = compiled(x)
        assert found[0] is x and found[1] is outside
        assert_same(snapshot(found), snapshot(step(x)), "results")
    assert fastbp.compile(lambda x: None)(x) is None
    assert fastbp.compile(lambda x: 5)(x) == 5
    assert fastbp.compile(lambda: 5)() == 5
    assert fastbp.compile(lambda x: x)(x) is x
    assert fastbp.compile(lambda: outside * 2)().tolist() == (outside * 2).tolist()


def test_results_of_calls_are_independent() -> None:
    step = fastbp.compile(lambda x: (x * 2, x.sum()))
    first = step(fastbp.ones(3))
    second = step(fastbp.zeros(3))
    assert first[0].tolist() == [2, 2, 2] and second[0].tolist() == [0, 0, 0] and first[1].item() == 3
