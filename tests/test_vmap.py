"""vmap: which axis is the batch, what a function may do inside, and what it may not.

The loop over examples is the truth (`looped`); each row of the op table is held to it in test_vmap_ops.py, so here the
forms of arguments, randomness, promotion, indexing, modules and bad input are.
"""

from __future__ import annotations

import itertools
import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp
import fastbp.nn.functional as F
from fastbp import _tree, func, nn

Pair = namedtuple("Pair", "first second")

# One product over a batch may add in another order than the examples' own.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-13}

A = np.array([[0.5, -1.5, 2.5], [3.5, 4.5, -5.5]])
B = np.arange(12.0).reshape(3, 4)


def a() -> fastbp.Tensor:
    return fastbp.from_numpy(A.copy())


def b() -> fastbp.Tensor:
    return fastbp.from_numpy(B.copy())


def same(found: Any, wanted: Any) -> None:
    assert isinstance(found, fastbp.Tensor)
    got, want = found.detach().numpy(), np.asarray(wanted)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, **TOLERANCE)


def looped(function: Callable[..., Any], *batches: fastbp.Tensor) -> list[np.ndarray[Any, Any]]:
    """Each tensor of the function's results, stacked over the examples."""
    rows = []
    for k in range(batches[0].shape[0]):
        leaves: list[Any] = []
        _tree.flatten(function(*[one[k] for one in batches]), leaves)
        rows.append([one.detach().numpy() for one in leaves])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def agrees(function: Callable[..., Any], *batches: fastbp.Tensor, **words: Any) -> None:
    """vmap and the loop give equal values, shapes and dtypes."""
    leaves: list[Any] = []
    _tree.flatten(func.vmap(function, **words)(*batches), leaves)
    wanted = looped(function, *batches)
    assert len(leaves) == len(wanted)
    for one, each in zip(leaves, wanted, strict=True):
        got = one.detach().numpy()
        assert (got.shape, got.dtype) == (each.shape, each.dtype)
        np.testing.assert_allclose(got, each, **TOLERANCE)


def refuses(kind: type[Exception], words: str, call: Callable[[], Any]) -> None:
    depth = fastbp._core.vmap_depth()
    with pytest.raises(kind, match=re.escape(words)) as caught:
        call()
    assert type(caught.value) is kind
    assert fastbp._core.vmap_depth() == depth


# ---- where the batch is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "place"), [((0, 0), (0, 0)), ((1, 0), (1, 0)), ((-1, -2), (1, 0)), ((0, 1), (0, 1))])
def test_in_dims(dims: tuple[int, int], place: tuple[int, int]) -> None:
    p, q = np.moveaxis(A, 0, place[0]), np.moveaxis(A, 0, place[1])
    found = func.vmap(lambda s, t: s * 2 + t.sum(), in_dims=dims)(fastbp.tensor(p), fastbp.tensor(q))
    same(found, A * 2 + A.sum(1, keepdims=True))


def test_in_dims_of_shared_arguments() -> None:
    same(func.vmap(lambda s, t: s @ t, in_dims=(0, None))(a(), b()), A @ B)
    same(func.vmap(lambda t, s: s @ t, in_dims=(None, 1))(b(), a().T), A @ B)
    same(func.vmap(lambda s, n: s * n, in_dims=(0, None))(a(), 2.0), A * 2)
    same(func.vmap(lambda s, word: s * len(word), in_dims=(0, None))(a(), "two"), A * 3)
    same(func.vmap(lambda s, nothing: s, in_dims=(0, None))(a(), None), A)
    same(func.vmap(lambda s, t: s, in_dims=[0, None])(a(), b()), A)


def test_in_dims_of_trees() -> None:
    tree = {"a": a(), "b": [a().T, Pair(b(), a())]}

    def function(t: Any) -> Any:
        return t["a"] * t["b"][0] + t["b"][1].first.sum() - t["b"][1].second

    wanted = A * A + B.sum() - A
    same(func.vmap(function, in_dims=({"a": 0, "b": [1, Pair(None, 0)]},))(tree), wanted)
    same(func.vmap(function, in_dims=({"a": 0, "b": [-1, Pair(None, -2)]},))(tree), wanted)
    same(func.vmap(lambda t: t["a"] + t["b"][0], in_dims=(0,))({"a": a(), "b": [a()]}), 2 * A)
    same(func.vmap(lambda t: t["a"] + t["b"][0], in_dims=0)({"a": a(), "b": [a()]}), 2 * A)
    same(func.vmap(lambda t, s: t["a"] + s, in_dims=(None, 0))({"a": b()[:, 0]}, a()), A + B[:, 0])


def test_keyword_arguments_are_not_batched() -> None:
    same(func.vmap(lambda s, t: s @ t)(a(), t=b()), A @ B)
    same(func.vmap(lambda s, k=1.0: s * k)(a(), k=3.0), A * 3)
    same(func.vmap(lambda s, k=1.0: s * k, chunk_size=1)(a(), k=fastbp.tensor(A[0])), A * A[0])


def test_out_dims() -> None:
    same(func.vmap(lambda s: s * 2, out_dims=1)(a()), 2 * A.T)
    same(func.vmap(lambda s: s * 2, out_dims=-2)(a()), 2 * A)
    same(func.vmap(lambda s: fastbp.stack([s, -s]), out_dims=-1)(a()), np.stack([A.T, -A.T]))
    found = func.vmap(lambda s: {"k": s, "m": [s.sum(), Pair(s, s)]}, out_dims={"k": 1, "m": [0, Pair(0, -1)]})(a())
    same(found["k"], A.T)
    same(found["m"][0], A.sum(1))
    assert type(found["m"][1]) is Pair
    same(found["m"][1].second, A.T)
    one, two = func.vmap(lambda s: (s, s), out_dims=1)(a())
    same(one, A.T)
    same(two, A.T)
    one, two = func.vmap(lambda s, t: (s * t, t * 2), in_dims=(0, None), out_dims=(0, None))(a(), b()[:, 0])
    same(one, A * B[:, 0])
    same(two, 2 * B[:, 0])
    same(func.vmap(lambda s: b())(a()), np.stack([B, B]))
    same(func.vmap(lambda s: b(), out_dims=-1)(a()), np.stack([B, B], -1))
    assert func.vmap(lambda s: (s, None))(a())[1] is None
    assert func.vmap(lambda s: ())(a()) == ()


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7])
def test_chunks(chunk_size: int) -> None:
    s, t = fastbp.arange(20, dtype=fastbp.float64).reshape(5, 4), fastbp.arange(15, dtype=fastbp.float64).reshape(3, 5)
    runs = []

    def function(u: Any, v: Any, w: Any) -> Any:
        runs.append(1)
        return u * v.sum(), {"k": v @ w}, w

    words = {"in_dims": (0, 1, None), "out_dims": (1, 0, None)}
    found = func.vmap(function, **words, chunk_size=chunk_size)(s, t, b())
    assert len(runs) == -(-5 // chunk_size)
    wanted = func.vmap(function, **words)(s, t, b())
    for one, other in zip((found[0], found[1]["k"], found[2]), (wanted[0], wanted[1]["k"], wanted[2]), strict=True):
        same(one, other.numpy())
    same(found[0], s.numpy().T * t.numpy().sum(0))


@pytest.mark.parametrize("size", [0, 1])
def test_small_batches(size: int) -> None:
    s = a()[:size]
    found = func.vmap(lambda u: (u.sum(), u * 2, u @ b()))(s)
    for one, wanted in zip(found, (A[:size].sum(1), A[:size] * 2, A[:size] @ B), strict=True):
        same(one, wanted)
    same(func.vmap(func.grad(lambda u: (u @ b()).sum()))(s), np.tile(B.sum(1), (size, 1)))
    same(func.vmap(lambda u: u, chunk_size=3)(s), A[:size])


def test_the_function_runs_once() -> None:
    runs = []
    func.vmap(lambda s: (runs.append(s.shape), s)[1])(fastbp.zeros(1000, 3))
    assert runs == [(3,)]


def test_shapes_inside_are_the_example_s() -> None:
    def function(s: Any) -> Any:
        assert (s.shape, s.ndim, len(s), s.numel(), s.size(0), s.dtype) == ((3,), 1, 3, 3, 3, fastbp.float64)
        return sum(one * k for k, one in enumerate(s)) + s.reshape(s.shape[0], 1)

    agrees(function, a())
    shown: list[str] = []
    func.vmap(lambda s: (shown.append(repr(s)), s)[1])(a())
    assert shown[0].startswith("BatchedTensor(lvl=")


# ---- what a function may do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda s: s[0],
        lambda s: s[-1],
        lambda s: s[::2],
        lambda s: s[1:],
        lambda s: s[..., None],
        lambda s: s[None],
        lambda s: s[[0, 2]],
        lambda s: s[fastbp.tensor([2, 0, 0])],
        lambda s: s[fastbp.tensor([True, False, True])],
        lambda s: s[:, None] * s,
        lambda s: fastbp.where(s > 0, s, -s),
        lambda s: s.masked_fill(s > 1, 0.0),
        lambda s: s.view(3, 1),
        lambda s: s.view(-1),
        lambda s: s.reshape(1, 3).T,
        lambda s: s.unsqueeze(0).squeeze(0),
        lambda s: s.expand(2, 3),
        lambda s: s.flip(0),
        lambda s: s.roll(1, 0),
        lambda s: s.clone().contiguous(),
        lambda s: (s.float(), s.to(fastbp.int64), s.detach()),
        lambda s: s.gather(0, fastbp.tensor([2, 2])),
        lambda s: (*s.unbind(0), *s.split(2), *s.chunk(3)),
        lambda s: s.cumsum(0),
        lambda s: (
            fastbp.zeros_like(s) + s,
            fastbp.ones_like(s) * s,
            fastbp.full_like(s, 3) - s,
            s.new_zeros(2) + s[0],
        ),
    ],
)
def test_shapes_and_indices(function: Any) -> None:
    agrees(function, a())


def test_batched_indices() -> None:
    which, many = fastbp.tensor([2, 0]), fastbp.tensor([[0, -1], [2, 2]])
    agrees(lambda s, i: s[i], a(), which)
    agrees(lambda s, i: s[i], a(), many)
    agrees(lambda s, i: s[i, None], a(), which)
    agrees(lambda s, i: s.gather(0, i % 3), a(), many)
    agrees(lambda i: b()[i], which)
    agrees(lambda i: b()[:, i], which)
    agrees(lambda i: b()[i, i + 1], which)
    agrees(lambda i: b()[i, 1:3], which)
    agrees(lambda i: b()[1, i], which)
    agrees(lambda i: b()[i], many)
    agrees(lambda i: b()[i[0], i], many)
    agrees(lambda i: b()[:, i], many)
    agrees(lambda s, i: s.index_select(0, i), a(), many.abs())
    w = b().requires_grad_()
    (gradient,) = fastbp.autograd.grad((func.vmap(lambda i: w[i] * 2)(which)).sum(), w)
    same(gradient, np.array([2.0, 0, 2.0])[:, None] * np.ones(4))
    refuses(IndexError, "out of", lambda: func.vmap(lambda s, i: s[i])(a(), fastbp.tensor([0, 3])))


REDUCTIONS = "sum mean max min prod std var norm argmax argmin amax amin any all"


@pytest.mark.parametrize("name", REDUCTIONS.split())
def test_reductions_over_an_example(name: str) -> None:
    agrees(lambda s: getattr(s, name)(), a())
    agrees(lambda s: getattr(s, name)(), fastbp.arange(24, dtype=fastbp.float64).reshape(2, 3, 4).sin())
    agrees(lambda s: tuple(s.max(0)) + tuple(s.sort(0)) + tuple(s.topk(2, 0)) + (s.argsort(0), s.logsumexp(0)), a())


@pytest.mark.parametrize("dtypes", list(itertools.product(["float32", "float64", "int64", "int32", "bool"], repeat=2)))
def test_promotion_is_the_example_s(dtypes: tuple[str, str]) -> None:
    """An example without dimensions is a number beside a tensor, and a tensor beside a Python number."""
    first, second = (getattr(fastbp, name) for name in dtypes)
    number, whole = fastbp.tensor([1, 0]).to(first), fastbp.tensor([[1, 2, 3], [0, 1, 1]]).to(second)
    shared, outside = whole[0], number[0]
    for operation in (fastbp.add, fastbp.mul, lambda p, q: fastbp.where(p > 0, p, q), fastbp.maximum, fastbp.eq):
        agrees(operation, number, whole)
        agrees(lambda p, q, operation=operation: operation(q, p), number, whole)
        agrees(lambda p, operation=operation: operation(p, shared), number)
        agrees(lambda q, operation=operation: operation(outside, q), whole)
    for value in (2, 2.5, True):
        agrees(lambda p, value=value: p + value, number)
        agrees(lambda p, value=value: value * p, whole)


def test_joining_with_shared_tensors() -> None:
    agrees(lambda s: fastbp.cat([s, b()[0]]), a())
    agrees(lambda s: fastbp.cat([b()[0], s, s]), a())
    agrees(lambda s: fastbp.stack([s, b()[:, 0], s], 1), a())
    agrees(lambda s: fastbp.stack([b()[:, 0], b()[:, 1]]) * s, a())


@pytest.mark.parametrize("first", [(3,), (2, 3), (4, 2, 3)], ids=str)
@pytest.mark.parametrize("second", [(3,), (3, 2), (4, 3, 2)], ids=str)
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (-1, 1)], ids=str)
def test_matmul(first: tuple[int, ...], second: tuple[int, ...], dims: tuple[int | None, int | None]) -> None:
    rng = np.random.default_rng(0)
    operands, examples = [], []
    for shape, dim in zip((first, second), dims, strict=True):
        whole = rng.standard_normal(shape if dim is None else (5, *shape))
        examples.append([whole if dim is None else whole[k] for k in range(5)])
        operands.append(fastbp.tensor(whole if dim is None else np.moveaxis(whole, 0, dim).copy()))
    found = func.vmap(fastbp.matmul, in_dims=dims)(*operands)
    same(found, np.stack([np.matmul(p, q) for p, q in zip(*examples, strict=True)]))


@pytest.mark.filterwarnings("ignore:vmap:RuntimeWarning")
def test_losses() -> None:
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss):
        for reduction in ("none", "mean", "sum"):
            agrees(lambda s, t, f=loss, r=reduction: f(s, t, reduction=r), a(), a().flip(0))
    agrees(lambda s, t: F.binary_cross_entropy_with_logits(s, t.sigmoid()), a(), a().flip(0))
    labels = fastbp.tensor([0, 2])
    agrees(F.cross_entropy, a(), labels)
    agrees(lambda s, t: F.cross_entropy(s[None], t[None], label_smoothing=0.1), a(), labels)
    agrees(lambda s, t: F.nll_loss(s.log_softmax(-1), t), a(), labels)
    agrees(lambda s: (s.softmax(0), F.log_softmax(s, -1)), a())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))

    def forward(self, v: fastbp.Tensor) -> fastbp.Tensor:
        return self.layers(v)


def test_modules_inside() -> None:
    net = Net().double()
    agrees(net, a())
    agrees(lambda v: net(v.reshape(1, 3)), a())
    outputs = func.vmap(net)(a())
    outputs.square().sum().backward()
    found = [p.grad.numpy().copy() for p in net.parameters()]
    net.zero_grad()
    net(a()).square().sum().backward()
    for one, parameter in zip(found, net.parameters(), strict=True):
        np.testing.assert_allclose(one, parameter.grad.numpy(), **TOLERANCE)


def test_gradients_of_each_example() -> None:
    net = Net().double()
    state = {name: p.detach() for name, p in net.named_parameters()}
    labels = fastbp.tensor([1, 0])

    def loss(given: Any, v: Any, label: Any) -> Any:
        return F.cross_entropy(func.functional_call(net, given, (v[None],)), label[None])

    found = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(state, a(), labels)
    for k in range(2):
        net.zero_grad()
        F.cross_entropy(net(a()[k : k + 1]), labels[k : k + 1]).backward()
        for name, parameter in net.named_parameters():
            np.testing.assert_allclose(found[name][k].numpy(), parameter.grad.numpy(), **TOLERANCE)


def test_ensembles() -> None:
    models = [Net().double() for _ in range(3)]
    parameters, buffers = func.stack_module_state(models)
    assert buffers == {}
    assert all(p.requires_grad and p.is_leaf for p in parameters.values())

    def call(state: Any, v: Any) -> Any:
        return func.functional_call(models[0], state, (v,))

    found = func.vmap(call, in_dims=(0, None))(parameters, a())
    same(found, np.stack([one(a()).detach().numpy() for one in models]))
    own = func.vmap(call)(parameters, fastbp.stack([a(), a() * 2, a() * 3]))
    same(own, np.stack([one(a() * k).detach().numpy() for k, one in enumerate(models, 1)]))
    found.square().sum().backward()
    inside = func.vmap(func.grad(lambda s: call(s, a()).square().sum()))({n: p.detach() for n, p in parameters.items()})
    for k, model in enumerate(models):
        model(a()).square().sum().backward()
        for name, parameter in model.named_parameters():
            np.testing.assert_allclose(parameters[name].grad[k].numpy(), parameter.grad.numpy(), **TOLERANCE)
            np.testing.assert_allclose(inside[name][k].numpy(), parameter.grad.numpy(), **TOLERANCE)
    refuses(RuntimeError, "at least one model", lambda: func.stack_module_state([]))
    refuses(RuntimeError, "same class", lambda: func.stack_module_state([nn.Linear(1, 1), Net()]))
    refuses(RuntimeError, "same training/eval mode", lambda: func.stack_module_state([Net(), Net().eval()]))


# ---- randomness ----------------------------------------------------------------------------------------------------

DRAWS: dict[str, Callable[[Any], Any]] = {
    "rand": lambda s: fastbp.rand(50),
    "rand_like": fastbp.rand_like,
    "randn": lambda s: fastbp.randn(50, dtype=fastbp.float64),
    "randn_like": fastbp.randn_like,
    "randint": lambda s: fastbp.randint(0, 1000, (50,)),
    "bernoulli": fastbp.bernoulli,
    "bernoulli shared": lambda s: fastbp.bernoulli(fastbp.full((50,), 0.5)),
    "randperm": lambda s: fastbp.randperm(50),
    "dropout": lambda s: F.dropout(s, 0.5),
    "dropout shared": lambda s: F.dropout(fastbp.ones(50), 0.5),
    "normal": lambda s: fastbp.normal(s, 1.0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_randomness(name: str) -> None:
    s = fastbp.full((4, 50), 0.5, dtype=fastbp.float64)
    alike = func.vmap(DRAWS[name], randomness="same")(s)
    different = func.vmap(DRAWS[name], randomness="different")(s)
    assert alike.shape == different.shape == (4, 50)
    pairs = list(itertools.combinations(range(4), 2))
    # Fifty draws of two values agree by chance once in 2**50.
    assert all((alike[i] == alike[j]).all() for i, j in pairs)
    assert not any((different[i] == different[j]).all() for i, j in pairs)
    if name == "randperm":
        assert (different.sort(1)[0] == fastbp.arange(50)).all()
    if name.startswith(("bernoulli", "dropout")):
        assert len(np.unique(different.numpy())) == 2
    refuses(RuntimeError, "while in randomness error mode", lambda: func.vmap(DRAWS[name])(s))
    fastbp.manual_seed(3)
    again = func.vmap(DRAWS[name], randomness="different")(s)
    fastbp.manual_seed(3)
    assert (func.vmap(DRAWS[name], randomness="different")(s) == again).all()


@pytest.mark.parametrize("outer", ["same", "different"])
@pytest.mark.parametrize("inner", ["same", "different"])
@pytest.mark.parametrize("name", [name for name in DRAWS if "like" in name or "rand" in name or "shared" in name])
def test_randomness_of_nested_levels(outer: str, inner: str, name: str) -> None:
    s = fastbp.full((3, 2, 50), 0.5)
    found = func.vmap(func.vmap(DRAWS[name], randomness=inner), randomness=outer)(s)
    assert found.shape == (3, 2, 50)
    assert bool((found[0] == found[1]).all()) == (outer == "same")
    assert bool((found[:, 0] == found[:, 1]).all()) == (inner == "same")


def test_an_error_level_refuses_inner_draws() -> None:
    for outer, inner in (("error", "same"), ("different", "error")):
        refuses(
            RuntimeError,
            "randomness",
            lambda outer=outer, inner=inner: func.vmap(
                func.vmap(lambda s: s + fastbp.rand(4), randomness=inner), randomness=outer
            )(fastbp.zeros(3, 2, 4)),
        )
    same(func.vmap(lambda s: F.dropout(s, 0.5, training=False))(a()), A)
    same(func.vmap(nn.Dropout(0.5).eval())(a()), A)


# ---- what it may not do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "word"),
    [
        (lambda s: s.sum().item(), "item()"),
        (lambda s: s if s.sum() > 1 else -s, "bool()"),
        (lambda s: s.numpy(), "numpy()"),
        (lambda s: s.tolist(), "tolist()"),
        (lambda s: fastbp.tensor(float(s[0])), "item()"),
    ],
)
def test_values_are_not_there(ask: Any, word: str) -> None:
    refuses(
        RuntimeError, f"vmap: the value of a tensor is asked for by {word} at {__file__}", lambda: func.vmap(ask)(a())
    )


def test_shapes_that_depend_on_values() -> None:
    refuses(RuntimeError, "depends on values", lambda: func.vmap(lambda s: s[s > 1])(a()))
    refuses(RuntimeError, "depends on values", lambda: func.vmap(lambda s: s.nonzero())(a()))


def test_in_place_is_refused() -> None:
    kept = a()
    refuses(
        RuntimeError,
        "vmap: add_: in-place operations on batched tensors are not supported (target (3,)); use x.add() for x.add_()",
        lambda: func.vmap(lambda s: s.add_(1))(kept),
    )
    refuses(RuntimeError, "in-place", lambda: func.vmap(lambda s: fastbp.zeros(3).add_(s))(kept))

    def written(s: Any) -> Any:
        s[0] = 5.0
        return s

    refuses(
        RuntimeError,
        "in-place operations on batched tensors are not supported (target (3,)); make a new",
        lambda: func.vmap(written)(kept),
    )
    same(kept, A)
    same(func.vmap(lambda s: s + fastbp.zeros(3, dtype=fastbp.float64).add_(1))(kept), A + 1)  # not batched


def test_backward_inside_is_refused() -> None:
    w = fastbp.ones(3, dtype=fastbp.float64).requires_grad_()
    refuses(
        RuntimeError, "backward() called inside of vmap", lambda: func.vmap(lambda s: (s * w).sum().backward())(a())
    )
    refuses(
        RuntimeError,
        "backward() called inside of vmap",
        lambda: func.vmap(lambda s: fastbp.autograd.backward([(s * w).sum()]))(a()),
    )
    assert w.grad is None


def test_tensors_of_a_vmap_that_has_ended() -> None:
    kept: list[Any] = []
    func.vmap(lambda s: (kept.append(s * 2), s)[1])(a())
    for use in (lambda s: s + 1, lambda s: s.sum(), lambda s: s.numpy(), lambda s: s[0], lambda s: s.tolist()):
        refuses(RuntimeError, "belongs to a vmap that has ended", lambda use=use: use(kept[0]))
    refuses(RuntimeError, "belongs to a vmap that has ended", lambda: func.vmap(lambda s: s + kept[0])(a()))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            {"in_dims": 2},
            "got in_dim=2 for an input of dimensionality 2 (shape (2, 3)), so expected in_dim to satisfy -2 <=",
        ),
        ({"in_dims": -3}, "got in_dim=-3"),
        ({"in_dims": (0, 0)}, "in_dims has 2 entries for 1 positional"),
        ({"in_dims": 0.5}, "got: float"),
        ({"in_dims": ("x",)}, "must be an int or None, got 'x'"),
        ({"in_dims": None}, "got: NoneType"),
        ({"in_dims": {"a": 0}}, "got: dict"),
        ({"in_dims": True}, "got: bool"),
        ({"in_dims": (None,)}, "at least one input must be a Tensor with a batch"),
        ({"in_dims": ([0],)}, "[0] is given for"),
        ({"out_dims": 2}, "got out_dim=2 for a result of dimensionality 1"),
        ({"out_dims": -3}, "got out_dim=-3"),
        ({"out_dims": None}, "different for each example and cannot be returned with out_dim None"),
        ({"out_dims": 1.0}, "got 1.0"),
        ({"out_dims": (0, 0)}, "out_dims: (0, 0) is given for what is one tensor"),
    ],
)
def test_dims_that_do_not_fit(words: dict[str, Any], text: str) -> None:
    refuses(ValueError, text, lambda: func.vmap(lambda s: s, **words)(a()))


def test_arguments_that_do_not_fit() -> None:
    refuses(ValueError, "got sizes [2, 3]", lambda: func.vmap(lambda s, t: s)(a(), b()))
    refuses(ValueError, "at least one input", lambda: func.vmap(lambda: a())())
    refuses(
        ValueError,
        "got in_dim=0 for an input of type float, which is no Tensor",
        lambda: func.vmap(fastbp.add)(a(), 2.0),
    )
    refuses(ValueError, "of type int", lambda: func.vmap(lambda t: t[0], in_dims=([0, 0],))([a(), 3]))
    refuses(ValueError, "does not have the structure of", lambda: func.vmap(lambda t: t[0], in_dims=([0, 0],))([a()]))
    refuses(ValueError, "got in_dim=0 for an input of dimensionality 0", lambda: func.vmap(lambda s: s)(a().sum()))
    refuses(ValueError, "must only return Tensors, got type float", lambda: func.vmap(lambda s: 3.0)(a()))
    refuses(ValueError, "must only return Tensors, got type str", lambda: func.vmap(lambda s: (s, "x"))(a()))
    refuses(RuntimeError, "Only allowed values for randomness are", lambda: func.vmap(lambda s: s, randomness="x")(a()))
    for size in (0, -1, 2.0, True):
        refuses(
            ValueError,
            "chunk_size should be None or greater than 0",
            lambda size=size: func.vmap(lambda s: s, chunk_size=size),
        )


def test_examples_of_sixteen_dimensions_have_no_room_for_the_batch() -> None:
    x, most = fastbp.ones(3, 1), (1,) * 16
    shared = fastbp.ones(most)
    for run in (
        lambda s: s.reshape(most),
        lambda s: s.expand(most),
        lambda s: s + shared,
        lambda s: fastbp.cat([shared, s.reshape((1,) * 15).unsqueeze(0)]),
        lambda s: fastbp.linalg.solve(shared, s.reshape(1, 1)),
    ):
        with pytest.raises(RuntimeError, match=r"vmap over tensors of 16 dimensions; the most is 15"):
            func.vmap(run)(x)
    with pytest.raises(RuntimeError, match=r"no room for the batch beside 16 dimensions"):
        func.vmap(lambda s: s @ shared)(x)
