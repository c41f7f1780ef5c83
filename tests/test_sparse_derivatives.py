"""Sparse Jacobians and Hessians: patterns that miss nothing, colourings that are ones, numbers that are exact.

The truth is the dense derivative, row by row of `autograd.grad`. Numbers of sparse and dense derivatives are the sums
of the same terms in another order: they agree to some units in the last place of the largest, 1e-12 in float64.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import POINTWISE, ROWS, Array, Case, draw, elementwise_dtypes, elementwise_operands, function, parameters
from hypothesis import given, settings
from hypothesis import strategies as st
from structural_cases import ELSEWHERE, STRUCTURAL

import fastbp
import fastbp.nn.functional as F

pytest.importorskip("scipy")

import scipy.integrate
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg

from fastbp import sparse_derivatives as sd
from fastbp.sparse_derivatives import colouring, plan, recording, rules, sets
from fastbp.sparse_derivatives.pattern import symmetric

Function = Callable[..., Any]

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}


def dense_jacobian(f: Function, x: Array) -> Array:
    """The Jacobian by a reverse sweep for each row."""
    leaf = fastbp.from_numpy(x.copy()).requires_grad_()
    y = f(leaf)
    rows = np.zeros((y.numel(), x.size))
    if y.requires_grad:
        for i in range(y.numel()):
            seed = np.zeros(y.numel(), y.dtype.name)
            seed[i] = 1.0
            cotangent = fastbp.from_numpy(seed.reshape(y.shape))
            (g,) = fastbp.autograd.grad(y, leaf, cotangent, retain_graph=True, materialize_grads=True)
            rows[i] = g.numpy().ravel()
    return rows


def gradient_of(f: Function) -> Function:
    def gradient(x: fastbp.Tensor) -> fastbp.Tensor:
        (g,) = fastbp.autograd.grad(f(x), x, create_graph=True, materialize_grads=True)
        return g

    return gradient


def assert_same(found: Any, wanted: Array) -> None:
    assert found.shape == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
    worst = float(np.abs(found.toarray() - wanted).max(initial=0.0))
    assert worst <= TOLERANCE[found.dtype.name] * scale, f"errs by {worst:.3g} of {scale:.3g}"


def assert_covers(found: Any, wanted: Array) -> None:
    missing = np.argwhere((wanted != 0) & ~found.toarray())
    assert not len(missing), f"the pattern lacks {missing[:3].tolist()}, {len(missing)} in all"


# ---- every row of the op table -------------------------------------------------------------------------------------


def joined(call: Function, arrays: list[Array], constant: list[bool]) -> tuple[Function, Array]:
    """A call as a function of all its free floating operands in one vector, and that vector."""
    free = [not fixed and a.dtype == np.float64 for a, fixed in zip(arrays, constant, strict=True)]
    parts = [a.ravel() for a, is_free in zip(arrays, free, strict=True) if is_free]

    def f(x: fastbp.Tensor) -> fastbp.Tensor:
        given, at = [], 0
        for a, is_free in zip(arrays, free, strict=True):
            if is_free:
                given.append(x[at : at + a.size].reshape(a.shape))
                at += a.size
            else:
                given.append(fastbp.from_numpy(a))
        return call(*given)

    return f, np.concatenate([np.zeros(0), *parts])


DIFFERENTIABLE = ("linear", "bilinear", "general")
CASES = [c for c in STRUCTURAL if ROWS[c.op]["class"] in DIFFERENTIABLE and "float64" in c.dtypes]


def function_of(case: Case) -> tuple[Function, Array]:
    arrays = draw(case.operands, "float64")
    if case.inputs is not None:
        case.inputs(arrays)  # some arrange the operands in place
    return joined(case.call, arrays, [bool(operand.constant) for operand in case.operands])


def elementwise(name: str, words: dict[str, float]) -> tuple[Function, Array]:
    """Operands that broadcast against each other: (3, 4), (4,), (3, 1)."""
    arrays = elementwise_operands(name, "float64", (3, 4), smooth=True)
    if len(arrays) > 1:
        arrays[1] = arrays[1][0]
    if len(arrays) > 2:
        arrays[2] = arrays[2][:, :1]
    return joined(lambda *x: function(name)(*x, **words), arrays, [False] * len(arrays))


def test_every_differentiable_row_is_among_the_cases() -> None:
    rows = {name for name, row in ROWS.items() if row["class"] in DIFFERENTIABLE}
    assert sorted(rows - {case.op for case in CASES} - set(ELSEWHERE)) == []


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case}" for i, case in enumerate(CASES)])
def test_patterns_of_structural_rows_miss_nothing(case: Case) -> None:
    f, x = function_of(case)
    wanted = dense_jacobian(f, x)
    found = sd.jacobian_pattern(f, x)
    assert_covers(found, wanted)
    if ROWS[case.op]["class"] == "linear" and case.op not in ("cumsum", "dropout"):
        # These say where each element comes from: no more than there is.
        assert found.nnz == np.count_nonzero(wanted), f"{found.nnz} entries, {np.count_nonzero(wanted)} are not zero"


@pytest.mark.parametrize("name", [name for name in POINTWISE if "float64" in elementwise_dtypes(name)])
def test_patterns_of_elementwise_rows_miss_nothing(name: str) -> None:
    for words in parameters(name, smooth=True):
        f, x = elementwise(name, words)
        found = sd.jacobian_pattern(f, x)
        assert_covers(found, dense_jacobian(f, x))
        assert found.nnz <= 12 * ROWS[name]["arity"]  # one element of each operand for each of 12


SMALL = [case for case in CASES if case.smooth and 0 < sum(np.prod(o.shape) for o in case.operands) <= 120]


@pytest.mark.parametrize("case", SMALL, ids=[f"{i}-{case}" for i, case in enumerate(SMALL)])
def test_hessian_patterns_of_structural_rows_miss_nothing(case: Case) -> None:
    f, x = function_of(case)

    def scalar(x: fastbp.Tensor) -> fastbp.Tensor:
        return f(x).square().sum()

    assert_covers(sd.hessian_pattern(scalar, x), dense_jacobian(gradient_of(scalar), x))


@pytest.mark.parametrize("name", [name for name in POINTWISE if "float64" in elementwise_dtypes(name)])
def test_hessian_patterns_of_elementwise_rows_miss_nothing(name: str) -> None:
    f, x = elementwise(name, parameters(name, smooth=True)[0])

    def scalar(x: fastbp.Tensor) -> fastbp.Tensor:
        return f(x).square().sum()

    assert_covers(sd.hessian_pattern(scalar, x), dense_jacobian(gradient_of(scalar), x))


def test_a_wrong_rule_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above object to rules that forget an operand, a place, or an axis."""
    x = np.linspace(0.5, 1.5, 12)

    def product(x: fastbp.Tensor) -> fastbp.Tensor:
        return x[:6] * x[6:]

    def rows(x: fastbp.Tensor) -> fastbp.Tensor:
        return x.reshape(3, 4).softmax(1)

    def forgetful(step: Any) -> Any:
        return rules.choose(step.dependent[0].sets, np.arange(step.size))

    def turned_round(right: Function) -> Function:
        return lambda *given: right(*given)[::-1]

    def gram(x: fastbp.Tensor) -> fastbp.Tensor:
        return x.reshape(3, 4) @ x.reshape(4, 3)

    def chosen(x: fastbp.Tensor) -> fastbp.Tensor:
        return x[fastbp.tensor([3, 0, 0])]

    for f, name, fault in (
        (product, "_elementwise", forgetful),
        (product, "places_of_view", turned_round(rules.places_of_view)),
        (chosen, "map_of_linear", turned_round(rules.map_of_linear)),
        (rows, "_axes", lambda step, whole: (0,)),
        (gram, "_left", lambda a, b: sets.nothing(9, 12)),
    ):
        assert_covers(sd.jacobian_pattern(f, x), dense_jacobian(f, x))
        with monkeypatch.context() as patched:
            patched.setattr(rules, name, fault)
            with pytest.raises(AssertionError, match="lacks"):
                assert_covers(sd.jacobian_pattern(f, x), dense_jacobian(f, x))


def test_unknown_rows_mix_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that nobody has taught the rules, and ops with rules of their own in Python, are dense and not wrong."""
    x = fastbp.ones(5)
    monkeypatch.setitem(rules.CLASSES, "mul", "bilinear")
    assert sd.jacobian_pattern(lambda x: x[:3] * x[1:4], x).toarray().tolist() == [[True] * 4 + [False]] * 3
    monkeypatch.setitem(rules.CLASSES, "mul", "general")
    assert sd.jacobian_pattern(lambda x: x[:3] * x[1:4], x).nnz == 12


# ---- tight patterns ------------------------------------------------------------------------------------------------


def count(f: Function, x: Any) -> int:
    return int(sd.jacobian_pattern(f, x).nnz)


def test_patterns_are_tight_where_the_structure_is_known() -> None:
    x = fastbp.ones(4, 6)
    lower = fastbp.tril(fastbp.ones(4, 4))
    weight = fastbp.triu(fastbp.ones(3, 6))
    assert count(lambda x: x.softmax(1), x) == 4 * 6 * 6
    assert count(lambda x: x.softmax(0), x) == 4 * 6 * 4
    assert count(lambda x: x.logsumexp(1), x) == 24
    assert count(lambda x: x - x.amax(1, keepdim=True), x) == 4 * 6 * 6
    assert count(lambda x: x.cumsum(0), x) == 4 * 6 * 4  # the whole axis: more than there is
    assert count(lambda x: x @ fastbp.ones(6, 3), x) == 4 * 3 * 6
    assert count(lambda x: lower @ x, x) == 10 * 6
    assert count(lambda x: F.linear(x, weight), x) == 4 * (6 + 5 + 4)
    assert count(lambda x: x @ x.mT, x) == 4 * 6 + 4 * 3 * 12
    assert count(lambda x: F.cross_entropy(x, fastbp.tensor([0, 1, 2, 3]), reduction="none"), x) == 24
    assert count(lambda x: F.cross_entropy(x, fastbp.tensor([0, 1, 2, 3])), x) == 24
    assert count(lambda x: F.dropout(x, 0.5), x) == 24
    assert count(lambda x: x.double().float(), x) == 24
    assert count(lambda x: fastbp.stack([x[i % 4] * 2 for i in range(20)]), x) == 120
    assert count(lambda x: x.roll(1, 0).flip(1).mT.reshape(-1)[::2], x) == 12
    assert count(lambda x: x.sort(1).values, x) == 24


def test_hessian_of_cross_entropy_is_block_diagonal() -> None:
    target = fastbp.tensor([0, 1, 2])
    x = np.random.default_rng(0).standard_normal((3, 4))
    f = lambda x: F.cross_entropy(x, target)  # noqa: E731
    found, info = sd.sparse_hessian(f, x, return_info=True)
    assert (info.nonzeros, info.passes) == (3 * 16, 4)
    assert_same(found, dense_jacobian(gradient_of(f), x))


def test_losses_mix_the_classes_of_one_position_only() -> None:
    target = fastbp.tensor([0, 1, 2])
    scaled = lambda x: x[0] * F.cross_entropy(x[1:].reshape(3, 4), target)  # noqa: E731
    x = np.random.default_rng(0).standard_normal(13)
    found = sd.sparse_hessian(scaled, x)
    assert found.nnz == 3 * 16 + 2 * 12  # blocks, and an arrow for the scale
    assert_same(found, dense_jacobian(gradient_of(scaled), x))

    def pulled(x: fastbp.Tensor) -> fastbp.Tensor:
        y = fastbp.zeros(3, 4, dtype=x.dtype).requires_grad_()
        (g,) = fastbp.autograd.grad((F.nll_loss(y, target, reduction="none") * x).sum(), y, create_graph=True)
        return g

    assert count(pulled, np.ones(3)) == 12


def test_a_hessian_pattern_keeps_what_both_halves_have() -> None:
    half = scipy.sparse.csr_array(np.array([[1, 1, 0], [0, 0, 1], [0, 1, 0]], bool))
    assert symmetric(half).toarray().astype(int).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_in_place_ops_are_followed() -> None:
    def f(x: fastbp.Tensor) -> fastbp.Tensor:
        y = fastbp.zeros(6, dtype=x.dtype)
        y[1:] = x[:-1] * x[1:]
        y[0] += x[0].exp()
        y.mul_(2).add_(x.roll(2))
        return y

    x = np.linspace(0.1, 1.0, 6)
    found = sd.sparse_jacobian(f, x)
    wanted = dense_jacobian(f, x)
    assert_same(found, wanted)
    assert found.nnz == np.count_nonzero(wanted)


# ---- colourings ----------------------------------------------------------------------------------------------------


def random_pattern(m: int, n: int, density: float, seed: int) -> Any:
    return scipy.sparse.csr_array(np.random.default_rng(seed).random((m, n)) < density)


@given(st.integers(0, 12), st.integers(0, 12), st.floats(0.0, 0.8), st.integers(0, 10_000))
def test_columns_of_a_colour_share_no_row(m: int, n: int, density: float, seed: int) -> None:
    found = random_pattern(m, n, density, seed)
    colours = colouring.colour_columns(found)
    entries = found.toarray()
    assert ((colours >= 0) == entries.any(0)).all()
    assert sorted({*colours.tolist()} - {-1}) == list(range(colours.max(initial=-1) + 1))
    for colour in range(colours.max(initial=-1) + 1):
        assert entries[:, colours == colour].sum(1).max(initial=0) <= 1


def test_colourings_are_as_small_as_they_should_be() -> None:
    band = scipy.sparse.csr_array(np.array([[1, 1, 1, 0], [0, 1, 1, 1]], bool))
    assert colouring.colour_columns(band).tolist() == [0, 1, 2, 0]
    # A crown: pairs (u_i, v_i) side by side, where u_i meets every v but its own. In this order a greedy colouring
    # takes a colour for each pair, by incidence two in all.
    pairs = [(2 * i, 2 * j + 1) for i in range(6) for j in range(6) if i != j]
    crown = np.zeros((len(pairs), 12), bool)
    for row, pair in enumerate(pairs):
        crown[row, pair] = True
    assert colouring.colour_columns(scipy.sparse.csr_array(crown)).max() + 1 == 2
    for size in (2, 5, 30):
        star = np.zeros((size, size), bool)
        star[size // 2] = star[:, size // 2] = True
        assert colouring.colour_symmetric(scipy.sparse.csr_array(star)).max() + 1 == 2
    path = np.eye(9, k=1) + np.eye(9, k=-1)
    assert colouring.colour_symmetric(scipy.sparse.csr_array(path.astype(bool))).max() + 1 == 3


def two_coloured_paths(entries: Array, colours: Array) -> int:
    """Paths of four vertices, or edges, that have fewer colours than a star colouring allows."""
    n = len(entries)
    edge = entries & ~np.eye(n, dtype=bool)
    bad = int((edge & (colours[:, None] == colours[None, :])).sum())
    for b, c in np.argwhere(edge):
        for a, d in itertools.product(np.flatnonzero(edge[b]), np.flatnonzero(edge[c])):
            bad += len({a, b, c, d}) == 4 and colours[a] == colours[c] and colours[b] == colours[d]
    return bad


@given(st.integers(0, 12), st.floats(0.0, 0.6), st.integers(0, 10_000))
@settings(deadline=None)
def test_star_colourings_have_no_path_of_two_colours(n: int, density: float, seed: int) -> None:
    half = random_pattern(n, n, density, seed).toarray()
    entries = half | half.T
    colours = colouring.colour_symmetric(scipy.sparse.csr_array(entries))
    assert two_coloured_paths(entries, colours) == 0


def test_a_path_of_two_colours_is_noticed() -> None:
    path = (np.eye(4, k=1) + np.eye(4, k=-1)).astype(bool)
    assert two_coloured_paths(path, np.array([0, 1, 0, 1])) > 0
    assert two_coloured_paths(path, np.array([0, 1, 0, 2])) == 0


# ---- known matrices ------------------------------------------------------------------------------------------------


def five_points(u: fastbp.Tensor) -> fastbp.Tensor:
    """The Laplacian of a grid, times u: five points a row."""
    inner = u[1:-1, 1:-1]
    return (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * inner) * inner


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Passes that are made from now on, an entry a call."""
    made: list[int] = []
    for name in ("push_forward", "pull_back"):
        right = getattr(recording, name)
        monkeypatch.setattr(plan, name, lambda r, d, right=right: made.append(len(d)) or right(r, d))
    return made


def test_a_band_of_size_10000_costs_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    n, half = 10_000, 6

    def f(x: fastbp.Tensor) -> fastbp.Tensor:
        padded = fastbp.cat([fastbp.zeros(half, dtype=x.dtype), x, fastbp.zeros(half, dtype=x.dtype)])
        return sum((k + 1.0) * padded[k : k + n] * x for k in range(2 * half + 1))

    x = np.random.default_rng(0).uniform(0.5, 1.5, n)
    made = counted(monkeypatch)
    found, info = sd.sparse_jacobian(f, x, return_info=True)
    assert sum(made) == info.passes == 2 * half + 1
    # d/dx_j of x_i sum_k (k+1) x_(i+k-h) is (j-i+h+1) x_i off the diagonal; on it stands the sum as well.
    weights = scipy.sparse.diags_array([np.full(n - abs(k), half + k + 1.0) for k in range(-half, half + 1)],
                                       offsets=range(-half, half + 1), format="csr")
    wanted = scipy.sparse.diags_array(x) @ weights + scipy.sparse.diags_array(weights @ x)
    assert found.nnz == (2 * half + 1) * n - half * (half + 1)
    assert abs(found - wanted).max() <= 1e-12 * abs(wanted).max()


def test_the_five_point_laplacian_needs_few_colours() -> None:
    u = np.random.default_rng(0).uniform(-1, 1, (12, 11))
    found, info = sd.sparse_jacobian(five_points, u, return_info=True)
    assert 5 <= info.passes <= 7 and info.nonzeros == 5 * 90
    assert_same(found, dense_jacobian(five_points, u))
    f = lambda u: five_points(u).square().sum()  # noqa: E731
    hessian, info = sd.sparse_hessian(f, u, return_info=True)
    assert info.passes <= 17
    assert_same(hessian, dense_jacobian(gradient_of(f), u))


def test_an_arrow_goes_the_way_of_fewer_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.5, 50)
    column = lambda x: x[0] * x.square()  # noqa: E731  # a full first column, and the diagonal
    row = lambda x: fastbp.cat([x.square().sum().reshape(1), x[1:] ** 3])  # noqa: E731
    made = counted(monkeypatch)
    for f, mode in ((column, "fwd"), (row, "rev")):
        found, info = sd.sparse_jacobian(f, x, return_info=True)
        assert (info.mode, info.passes) == (mode, 2)
        assert_same(found, dense_jacobian(f, x))
        other, cost = sd.sparse_jacobian(f, x, mode="rev" if mode == "fwd" else "fwd", return_info=True)
        assert cost.passes == 50 and cost.mode != mode
        assert_same(other, dense_jacobian(f, x))
    assert made == [2, 50, 2, 50]
    f = lambda x: x[-1] * x.square().sum()  # noqa: E731  # a Hessian with both: two colours by symmetry
    hessian, info = sd.sparse_hessian(f, x, return_info=True)
    assert info.passes == 2
    assert_same(hessian, dense_jacobian(gradient_of(f), x))


def rosenbrock(x: fastbp.Tensor) -> fastbp.Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def test_the_hessian_of_rosenbrock_is_tridiagonal() -> None:
    n = 10_000
    x = np.random.default_rng(0).uniform(-1.0, 1.0, n)
    found, info = sd.sparse_hessian(rosenbrock, x, return_info=True)
    assert info == sd.SparseInfo("fwd", 3, 3 * n - 2, (n, n))
    main = np.zeros(n)
    main[:-1] = 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    main[1:] += 200
    wanted = scipy.sparse.diags_array([-400 * x[:-1], main, -400 * x[:-1]], offsets=[-1, 0, 1], format="csr")
    assert abs(found - wanted).max() <= 1e-12 * abs(wanted).max()
    assert_same(sd.sparse_hessian(rosenbrock, x[:60]), scipy.optimize.rosen_hess(x[:60]))
    assert (abs(found - found.T)).max() == 0  # each pair is read from one place


def test_more_directions_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.5, 9)
    monkeypatch.setattr(plan, "BLOCK", 4)
    made = counted(monkeypatch)
    f = lambda x: x * x.sum()  # noqa: E731
    assert_same(sd.sparse_jacobian(f, x), dense_jacobian(f, x))
    assert made == [4, 4, 1]
    made.clear()
    monkeypatch.setattr(plan, "BLOCK_ELEMENTS", 20)  # two directions of nine elements
    assert_same(sd.sparse_jacobian(f, x, mode="rev"), dense_jacobian(f, x))
    assert made == [2, 2, 2, 2, 1]


def test_a_product_that_is_the_same_for_all_directions() -> None:
    same = recording._batched(lambda given: fastbp.arange(3.0), fastbp.ones(2, 3), fastbp.ones(3))
    assert same.tolist() == [[0.0, 1.0, 2.0]] * 2


# ---- corners -------------------------------------------------------------------------------------------------------


def test_functions_that_depend_on_little() -> None:
    x = np.arange(1.0, 5.0)
    for f, wanted in (
        (lambda x: x, np.eye(4)),
        (lambda x: x.detach() * 2, np.zeros((4, 4))),
        (lambda x: x > 1, np.zeros((4, 4))),
        (lambda x: x.floor(), np.zeros((4, 4))),
        (lambda x: x.sign() + x.sum(), np.ones((4, 4))),
        (lambda x: fastbp.ones(2, dtype=fastbp.float64), np.zeros((2, 4))),
        (lambda x: fastbp.cat([x[:1] * 0, fastbp.zeros(2, dtype=x.dtype), x[3:] ** 2]), np.diag([0.0, 0, 0, 8])),
    ):
        for mode in ("auto", "fwd", "rev"):
            assert_same(sd.sparse_jacobian(f, x, mode=mode), wanted)
    assert sd.sparse_hessian(lambda x: (x * 2).sum(), x).nnz == 0
    assert sd.sparse_hessian(lambda x: fastbp.ones(()), x).nnz == 0
    plan = sd.sparse_jacobian_plan(lambda x: fastbp.cat([x[:1] ** 2, fastbp.zeros(2, dtype=x.dtype)]), x)
    assert plan.colours.tolist() == [0, -1, -1, -1] and plan.passes == 1  # nothing is spent on empty columns


def test_shapes_and_dtypes() -> None:
    f = lambda x: x[:, 1:] * x[:, :-1]  # noqa: E731
    for dtype in ("float32", "float64"):
        x = np.random.default_rng(0).uniform(0.5, 1.5, (3, 4)).astype(dtype)
        before = x.copy()
        for given_ in (x, fastbp.from_numpy(x), fastbp.from_numpy(x).requires_grad_()):
            found = sd.sparse_jacobian(f, given_)
            assert isinstance(found, scipy.sparse.csr_array) and found.dtype == dtype
            assert_same(found, dense_jacobian(f, x))
        assert (x == before).all()
        assert_same(sd.sparse_jacobian(lambda x: x**2, np.asarray(x[0, 0])), np.array([[2.0 * x[0, 0]]]))
        assert sd.sparse_jacobian(lambda x: x * 2, x[:0]).shape == (0, 0)
        assert sd.sparse_hessian(lambda x: (x * x).sum(), x[:0]).shape == (0, 0)
        assert_same(sd.sparse_hessian(lambda x: (x * x).sum(), x), 2 * np.eye(12))
    mixed = sd.sparse_jacobian(lambda x: x.double() ** 2, np.ones(3, np.float32))
    assert mixed.dtype == np.float64
    with fastbp.no_grad():
        assert_same(sd.sparse_jacobian(lambda x: x * 2, np.ones(3)), 2 * np.eye(3))


def test_no_state_is_left_behind() -> None:
    x = fastbp.ones(3, dtype=fastbp.float64).requires_grad_()
    sd.sparse_hessian(lambda x: (x**3).sum(), x)
    assert x.grad is None and x.is_leaf
    plain = fastbp.ones(3)
    sd.sparse_jacobian(lambda x: x * 2, plain)
    assert not plain.requires_grad
    frozen = np.ones(3)
    frozen.flags.writeable = False
    found = sd.sparse_jacobian(lambda x: x * 2, frozen)
    found.data[:] = 7.0
    assert sd.sparse_jacobian(lambda x: x * 2, x).diagonal().tolist() == [2.0] * 3


# ---- plans ---------------------------------------------------------------------------------------------------------


def test_a_plan_serves_other_points_and_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    f = lambda x, t: t * x[1:] * x[:-1] ** 2  # noqa: E731
    x = np.random.default_rng(0).uniform(0.5, 1.5, 40)
    plan = sd.sparse_jacobian_plan(f, x, 1.0)
    for name in ("functions.pattern_of", "plan.colour_columns"):
        monkeypatch.setattr(f"fastbp.sparse_derivatives.{name}", lambda *a: pytest.fail("found once more"))
    for t in (1.0, 3.0):
        found = plan(x + t, t, check=True)
        assert_same(found, dense_jacobian(lambda x, t=t: f(x, t), x + t))
        found.eliminate_zeros()
        found.indices[:] = 0  # the caller's own
    assert repr(plan) == "SparseDerivative(Jacobian 39 x 40, 78 entries, 2 passes, mode='fwd')"
    assert plan.info == sd.SparseInfo("fwd", 2, 78, (39, 40))


def test_newton_with_a_plan_solves_rosenbrock() -> None:
    x = np.full(200, 1.2)
    hessian = sd.sparse_hessian_plan(rosenbrock, x)
    for _ in range(20):
        g = dense_gradient(rosenbrock, x)
        x = x - scipy.sparse.linalg.spsolve(hessian(x, check=True).tocsc(), g)
    assert np.abs(x - 1).max() < 1e-10  # Newton's method squares the error: rounding is left


def test_a_stiff_equation_takes_a_plan_for_its_jacobian() -> None:
    """The heat equation with a source, by BDF: the same solution as with finite differences."""
    n = 40

    def rate(u: fastbp.Tensor) -> fastbp.Tensor:
        edge = fastbp.zeros(1, dtype=u.dtype)
        padded = fastbp.cat([edge, u, edge])
        return (padded[2:] - 2 * u + padded[:-2]) * n**2 + u * (1 - u)

    def solve(jac: Any) -> Any:
        start = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
        fun = lambda t, u: rate(fastbp.from_numpy(u)).numpy()  # noqa: E731
        return scipy.integrate.solve_ivp(fun, (0.0, 0.1), start, method="BDF", jac=jac, rtol=1e-8, atol=1e-10)

    plan = sd.sparse_jacobian_plan(rate, np.zeros(n))
    assert plan.passes == 3
    exact, differences = solve(lambda t, u: plan(u, check=True).tocsc()), solve(None)
    assert exact.success and exact.njev >= 1
    # Both are solutions to the solver's tolerance; its global error is some hundred times that of a step.
    assert np.abs(exact.y[:, -1] - differences.y[:, -1]).max() < 1e-6


def test_gradients_within_the_function_are_followed() -> None:
    x = np.random.default_rng(0).uniform(-1.0, 1.0, 30)
    found, info = sd.sparse_jacobian(gradient_of(rosenbrock), x, return_info=True)
    assert info.nonzeros == 3 * 30 - 2 and info.passes == 3
    assert_same(found, scipy.optimize.rosen_hess(x))
    weight = fastbp.ones(30, dtype=fastbp.float64).requires_grad_()  # somebody else's parameter: a constant here
    assert_same(sd.sparse_jacobian(lambda x: weight * x * x, x), np.diag(2 * x))
    assert weight.grad is None


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_compiled_functions_have_the_pattern_of_what_they_compile(mode: str) -> None:
    x = np.arange(1.0, 4.0)
    found = sd.sparse_jacobian(fastbp.compile(lambda x: x * x[0]), x, mode=mode)
    assert_same(found, dense_jacobian(lambda x: x * x[0], x))
    assert found.nnz == 5


def dense_gradient(f: Function, x: Array) -> Array:
    leaf = fastbp.from_numpy(x.copy()).requires_grad_()
    return np.asarray(fastbp.autograd.grad(f(leaf), leaf)[0].numpy())


def test_a_pattern_that_no_longer_holds_is_noticed() -> None:
    def f(x: fastbp.Tensor) -> fastbp.Tensor:
        return x * x.flip(0) if float(x[0]) > 0 else x * 2

    for dtype in ("float32", "float64"):
        x = np.array([-1.0, 2.0, 3.0, 4.0]).astype(dtype)
        plan = sd.sparse_jacobian_plan(f, x)
        plan(x, check=True)
        with pytest.raises(RuntimeError, match=r"pattern found when the plan was made .* branches on values"):
            plan(-x, check=True)
        given_ = sd.sparse_jacobian_plan(lambda x: x * x.flip(0), x, pattern=np.eye(4))
        with pytest.raises(RuntimeError, match="pattern given is too small"):
            given_(x, check=True)
    first = lambda x: x * x if float(x[0]) > 0 else x * fastbp.cat([x[1:2], x[1:]])  # noqa: E731
    one = sd.sparse_jacobian_plan(first, np.ones(4))
    with pytest.raises(RuntimeError, match=r"row 0 \(1 of 4\) depends on more"):
        one(-np.arange(1.0, 5.0), check=True)
    hessian = sd.sparse_hessian_plan(lambda x: (x[1:] * x[:-1]).sum() if float(x[0]) > 0 else (x**2).sum(), np.ones(4))
    hessian(np.ones(4) * 2, check=True)
    with pytest.raises(RuntimeError, match="sparse_hessian: the pattern"):
        hessian(-np.ones(4), check=True)


def test_wrong_colours_are_noticed_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastbp.sparse_derivatives.plan.colour_columns", lambda p: np.zeros(p.shape[1], np.int64))
    f = lambda x: x[1:] * x[:-1]  # noqa: E731
    x = np.arange(1.0, 5.0)
    with pytest.raises(AssertionError, match="errs by"):
        assert_same(sd.sparse_jacobian(f, x), dense_jacobian(f, x))
    with pytest.raises(RuntimeError, match="does not hold here"):
        sd.sparse_jacobian_plan(f, x)(x, check=True)


def test_patterns_of_the_user() -> None:
    x = np.arange(1.0, 5.0)
    f = lambda x: x[1:] * x[:-1]  # noqa: E731
    own = np.eye(3, 4) + np.eye(3, 4, k=1)
    for given_ in (own, scipy.sparse.coo_matrix(own), scipy.sparse.csr_array(own)):
        found = sd.sparse_jacobian(f, x, pattern=given_)
        assert_same(found, dense_jacobian(f, x))
        assert found.indices.dtype == np.int32
    wide = scipy.sparse.csr_array(own)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert sd.sparse_jacobian(f, x, pattern=wide).indices.dtype == np.int32  # what direct solvers take
    assert sd.sparse_jacobian(lambda x: x.roll(1) + x[fastbp.tensor([0, 0, 1, 2])], x).indices.dtype == np.int32
    stored_zero = scipy.sparse.csr_array((np.array([1.0, 0.0]), ([0, 1], [0, 2])), shape=(3, 4))
    assert sd.sparse_jacobian(lambda x: x[:3] * 2, x, pattern=stored_zero).nnz == 1 and stored_zero.nnz == 2
    assert_same(sd.sparse_hessian(lambda x: f(x).sum(), x, pattern=np.ones((4, 4))), np.eye(4, k=1) + np.eye(4, k=-1))


# ---- random functions ----------------------------------------------------------------------------------------------

UNARY: list[Function] = [
    lambda x: x.sin(),
    lambda x: x[1:] * x[:-1],
    lambda x: x.roll(2) + x,
    lambda x: x[::2].repeat(2) * 0.5,
    lambda x: fastbp.cat([x[2:], x[:1] ** 2, x.sum().reshape(1).tanh()]),
    lambda x: x[fastbp.tensor([0, 0, 2, 1])] * x[:4],
    lambda x: fastbp.where(x > 0.1, x, x * x),
    lambda x: x.softmax(0) + x,
    lambda x: x.cumsum(0).tanh(),
    lambda x: fastbp.zeros(7, dtype=x.dtype).index_add(0, fastbp.arange(len(x)) % 7, x).cos(),
    lambda x: (fastbp.tril(fastbp.ones(4, 4, dtype=x.dtype)) @ x[:4]).sin(),
    lambda x: (x[:4].reshape(2, 2) @ x[-4:].reshape(2, 2)).reshape(-1).tanh(),
    lambda x: fastbp.diag_embed(x[:3]).sum(0) * x[:3].mean() + x[1],
    lambda x: x.amax(0) - x,
    lambda x: x.flip(0).clone().mul_(x),
]


@given(st.lists(st.integers(0, len(UNARY) - 1), min_size=1, max_size=5), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_compositions_agree_with_dense_derivatives(chain: list[int], seed: int) -> None:
    def f(x: fastbp.Tensor) -> fastbp.Tensor:
        for i in chain:
            # Each wants four elements at least.
            x = UNARY[i](x if len(x) >= 5 else fastbp.cat([x, x, x, x, x])[: max(5, len(x))])
        return x

    x = np.random.default_rng(seed).uniform(-1.0, 1.0, 8)
    wanted = dense_jacobian(f, x)
    assert_covers(sd.jacobian_pattern(f, x), wanted)
    for mode in ("fwd", "rev"):
        assert_same(sd.sparse_jacobian(f, x, mode=mode), wanted)

    def scalar(x: fastbp.Tensor) -> fastbp.Tensor:
        return f(x).square().sum()

    assert_same(sd.sparse_hessian(scalar, x), dense_jacobian(gradient_of(scalar), x))


# ---- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    x = np.ones(3)
    square = lambda x: x * x  # noqa: E731
    plan = sd.sparse_jacobian_plan(square, x)
    grows = sd.sparse_jacobian_plan(lambda x: x[x > 0], x)
    for wanted, message, call in (
        (TypeError, "must be a Tensor or a NumPy array, got list", lambda: sd.sparse_jacobian(square, [1.0])),
        (RuntimeError, r"floating .*, got fastbp.int64; .*", lambda: sd.sparse_jacobian(square, np.arange(3))),
        (TypeError, "must return one Tensor, got tuple; .*cat", lambda: sd.sparse_jacobian(lambda x: (x, x), x)),
        (TypeError, "must return one Tensor, got float", lambda: sd.sparse_hessian(lambda x: 1.0, x)),
        (ValueError, "'auto', 'fwd' or 'rev', got 'forward'", lambda: sd.sparse_jacobian(square, x, mode="forward")),
        (ValueError, r"shape \(2, 3\), .* \(3, 3\)", lambda: sd.sparse_jacobian(square, x, pattern=np.ones((2, 3)))),
        (ValueError, "must be symmetric", lambda: sd.sparse_hessian(lambda x: x.sum(), x, pattern=np.eye(3, k=1))),
        (RuntimeError, r"must return a scalar, got shape \(3,\)", lambda: sd.sparse_hessian(square, x)),
        (RuntimeError, r"must return a scalar, got shape \(3,\)", lambda: sd.hessian_pattern(square, x)),
        (ValueError, r"x of shape \(3,\), fastbp.float64, got \(4,\)", lambda: plan(np.ones(4))),
        (ValueError, r"float64, got \(3,\), fastbp.float32", lambda: plan(np.ones(3, np.float32))),
        (ValueError, r"f\(x\) has shape \(2,\), and had \(3,\)", lambda: grows(np.array([1.0, -1.0, 1.0]))),
        (ZeroDivisionError, "division", lambda: sd.sparse_jacobian(lambda x: x * (1 / 0), x)),
    ):
        with pytest.raises(wanted, match=message):
            call()
    assert fastbp.is_grad_enabled()


def test_inside_of_a_compiled_function_values_are_refused() -> None:
    f = fastbp.compile(lambda x: x * sd.sparse_jacobian(lambda x: x * x, x).sum())
    with pytest.raises(RuntimeError, match="compile: the value of a tensor is asked for"):
        f(fastbp.ones(3))


def test_a_dense_pattern_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "MOST_ENTRIES", 99)
    assert sd.jacobian_pattern(lambda x: x * x, fastbp.ones(10)).nnz == 10
    with pytest.raises(RuntimeError, match=r"10 x 10, would have 100 entries: this derivative is dense; use func"):
        sd.jacobian_pattern(lambda x: x * x.norm(), fastbp.ones(10))


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    for call in (sd.sparse_jacobian, sd.jacobian_pattern, sd.sparse_jacobian_plan):
        with pytest.raises(ImportError, match=r"pip install 'fastbp\[linalg\]'"):
            call(lambda x: x, fastbp.ones(2))


def test_scipy_is_imported_when_it_is_used() -> None:
    import subprocess

    code = "import sys, fastbp.sparse_derivatives; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
