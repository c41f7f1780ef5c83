"""einsum against NumPy's, its derivatives, its refusals, and how it computes."""

from __future__ import annotations

import itertools
import string
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastbp
from fastbp import _einsum
from fastbp.testing import check_grads

# Sums of at most some hundred terms of size about 1, in float64, in another order than NumPy's.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}

SIZES = {letter: size for letter, size in zip("abcdefgh", itertools.cycle((2, 3, 1, 4)), strict=False)}


def drawn(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def operands(subscripts: str) -> list[Any]:
    parts = subscripts.split("->")[0].replace(" ", "").split(",")
    return [drawn(tuple(SIZES[letter] for letter in part), number) for number, part in enumerate(parts)]


EQUATIONS = [
    "ab,bd->ad", "ab,bd", "ab->ba", "ab->", "ab->b", "aa->a", "aa", "aab->b", "abab->ab", "aaa->a", "ab,ab->ab",
    "ab,ab->", "a,b->ab", "a,a", "a,b,d->abd", "abd,dbe->ae", "bad,bde->bae", "badd,bed->bae", "ab,bd,de->ae",
    "ab,ab,ab->a", "ba,bd,de,ef,fg->ag", "ab,bd,de,ef,fg,gh,ha->", "ab,d->ad", "ab,cd->abcd", "eab,ebd->ead",
    "b,ab->ab", "ab,->ab", ",->", "adb,eb->ade", "aab,bdd->ad", " a b , b d -> a d ", "ab,be->ea", "hab,hbe,he->ha",
]  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS)
def test_agrees_with_numpy(equation: str) -> None:
    arrays = operands(equation)
    found = fastbp.einsum(equation, *(fastbp.from_numpy(np.asarray(a)) for a in arrays)).numpy()
    wanted = np.einsum(equation.replace(" ", ""), *arrays)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, **ROUNDING)


ELLIPSES = [
    ("...ab,...bd->...ad", (5, 2, 3), (5, 3, 4)), ("...ab,bd", (5, 7, 2, 3), (3, 4)), ("...,...", (2, 3), (3,)),
    ("a...,b...->ab...", (2, 3, 4), (5, 4)), ("...a->a...", (2, 3, 4), None), ("...->", (2, 3), None),
    ("...a,...a->...", (5, 1, 3), (4, 3)), ("a...b->ba", (2, 5, 3), None), ("ab...,b...->a...", (2, 3, 1), (3, 4)),
    ("...ii->...i", (2, 3, 3), None), ("ab->...ab", (2, 3), None), ("a...a", (3, 2, 3), None),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "first", "second"), ELLIPSES)
def test_ellipses(equation: str, first: tuple[int, ...], second: tuple[int, ...] | None) -> None:
    arrays = [drawn(first, 1)] + ([drawn(second, 2)] if second is not None else [])
    found = fastbp.einsum(equation, *(fastbp.from_numpy(a) for a in arrays)).numpy()
    if equation == "...->":  # NumPy wants the ellipsis in the result; PyTorch sums it away
        wanted = arrays[0].sum()
    elif equation == "a...b->ba":
        wanted = arrays[0].sum(1).T
    else:
        wanted = np.einsum(equation, *arrays)
    assert found.shape == np.shape(wanted)
    np.testing.assert_allclose(found, wanted, **ROUNDING)


def test_lists_of_subscripts() -> None:
    a, b = (fastbp.from_numpy(drawn(shape, 3)) for shape in ((2, 3), (3, 4)))
    product = (a @ b).numpy()
    for found in (
        fastbp.einsum(a, [0, 1], b, [1, 2], [0, 2]),
        fastbp.einsum(a, [0, 1], b, [1, 2]),
        fastbp.einsum(a, [..., 51], b, [51, 7], [..., 7]),
        fastbp.einsum("ij,jk->ik", [a, b]),
    ):
        np.testing.assert_array_equal(found.numpy(), product)
    # 0 .. 25 are capitals, which come first in a result that is not said
    np.testing.assert_array_equal(fastbp.einsum(a, [26, 0]).numpy(), a.T.numpy())
    np.testing.assert_array_equal(fastbp.einsum("aB", a).numpy(), a.T.numpy())


def test_size_one_is_repeated() -> None:
    """NumPy does it too, but for operands' own diagonals."""
    a, b = drawn((1, 3)), drawn((4, 1), 1)
    for equation in ("ij,ij->ij", "ij,kj->ik", "ij,ij->", "ij,ik->jk"):
        found = fastbp.einsum(equation, fastbp.from_numpy(a), fastbp.from_numpy(b)).numpy()
        left, right = equation.split("->")[0].split(",")
        sizes = {letter: max(size for part, x in ((left, a), (right, b)) for at, size in enumerate(x.shape)
                             if part[at] == letter) for letter in left + right}  # fmt: skip
        wide = [np.broadcast_to(x, tuple(sizes[letter] for letter in part)) for part, x in ((left, a), (right, b))]
        np.testing.assert_allclose(found, np.einsum(equation, *wide), **ROUNDING)


@st.composite
def contractions(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An equation over up to four operands with up to five letters, repeats included, and shapes."""
    letters = string.ascii_lowercase[:5]
    sizes = {letter: draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 3)) for letter in letters}
    parts = draw(st.lists(st.text(letters, max_size=4), min_size=1, max_size=4))
    used = sorted({letter for part in parts for letter in part})
    chosen = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
    arrow = draw(st.booleans())
    equation = ",".join(parts) + ("->" + "".join(chosen) if arrow else "")
    return equation, [tuple(sizes[letter] for letter in part) for part in parts]


@given(contractions())
@settings(max_examples=250, deadline=None)
def test_random_equations(case: tuple[str, list[tuple[int, ...]]]) -> None:
    equation, shapes = case
    arrays = [np.asarray(drawn(shape, number)) for number, shape in enumerate(shapes)]
    tensors = [fastbp.from_numpy(a).requires_grad_() for a in arrays]
    result = fastbp.einsum(equation, *tensors)
    wanted = np.einsum(equation, *arrays)
    assert tuple(result.shape) == wanted.shape
    np.testing.assert_allclose(result.detach().numpy(), wanted, **ROUNDING)
    # The gradient of operand n is linear: <g, x> = <cotangent, result> for each n, as einsum is linear in each.
    cotangent = np.asarray(drawn(wanted.shape, 9))
    pulled = fastbp.autograd.grad(result, tensors, fastbp.from_numpy(cotangent), allow_unused=True)
    total = float((cotangent * wanted).sum())
    for g, x in zip(pulled, arrays, strict=True):
        assert g is not None and tuple(g.shape) == x.shape
        size = np.abs(g.numpy() * x).sum() + np.abs(cotangent * wanted).sum() + 1
        assert abs(float((g.numpy() * x).sum()) - total) <= 1e-12 * size


@pytest.mark.parametrize(
    "equation", ["ab,bd->ad", "aab,bd->d", "ab,bd,de->ae", "abd,abe->de", "aa,a->", "ab,ab,ab->a", "a,b->ba"]
)
def test_derivatives(equation: str) -> None:
    check_grads(lambda *xs: fastbp.einsum(equation, *xs), *operands(equation))


def test_derivatives_over_repeated_axes() -> None:
    check_grads(lambda a, b: fastbp.einsum("...ij,...jk->...ik", a, b), drawn((5, 1, 2, 1)), drawn((4, 3, 2), 1))


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32"])
def test_other_dtypes(dtype: str) -> None:
    arrays = [np.random.default_rng(1).integers(-3, 4, shape).astype(dtype) for shape in ((2, 3), (3, 4), (4,))]
    found = fastbp.einsum("ij,jk,k->i", *(fastbp.from_numpy(a) for a in arrays))
    assert found.dtype.name == dtype
    np.testing.assert_array_equal(found.numpy(), np.einsum("ij,jk,k->i", *arrays))  # small whole numbers: exact


ones = fastbp.ones
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing": (lambda: fastbp.einsum(), ValueError, "must specify the equation string and at least one operand"),
    "no operand": (lambda: fastbp.einsum("ij"), ValueError, "at least one operand"),
    "no list": (lambda: fastbp.einsum(ones(2)), ValueError, "its subscripts list"),
    "few": (lambda: fastbp.einsum("ij,jk", ones(3, 3)), RuntimeError, "fewer operands were provided"),
    "many": (lambda: fastbp.einsum("ij", ones(3, 3), ones(3)), RuntimeError, "more operands were provided"),
    "letters": (
        lambda: fastbp.einsum("ijk", ones(3, 3)),
        RuntimeError,
        r"number of subscripts in the equation \(3\) does not match the number of dimensions \(2\) for operand 0",
    ),
    "letters beside dots": (lambda: fastbp.einsum("ijk...", ones(3, 3)), RuntimeError, "more than the number of dim"),
    "digit": (lambda: fastbp.einsum("i1", ones(3, 3)), RuntimeError, "invalid subscript given at index 1 in the"),
    "digit in second": (lambda: fastbp.einsum("i,1", ones(3), ones(3)), RuntimeError, "given at index 2"),
    "digit in output": (lambda: fastbp.einsum("i->2", ones(3)), RuntimeError, "given at index 3"),
    "half arrow": (lambda: fastbp.einsum("ij-", ones(3, 3)), RuntimeError, "given at index 2"),
    "two arrows": (lambda: fastbp.einsum("ij->i->", ones(3, 3)), RuntimeError, "given at index 5"),
    "accent": (lambda: fastbp.einsum("ié", ones(3, 3)), RuntimeError, "given at index 1"),
    "two ellipses": (lambda: fastbp.einsum("...i...", ones(3, 3)), RuntimeError, "an ellipsis was already found"),
    "one dot": (lambda: fastbp.einsum(".i", ones(3, 3)), RuntimeError, "not part of any ellipsis"),
    "output twice": (lambda: fastbp.einsum("ij->ii", ones(3, 3)), RuntimeError, "i appears more than once"),
    "output unknown": (lambda: fastbp.einsum("ij->iz", ones(3, 3)), RuntimeError, "z does not appear in the equation"),
    "diagonal": (lambda: fastbp.einsum("ii", ones(2, 3)), RuntimeError, "i is repeated for operand 0 .*3 != 2"),
    "sizes": (
        lambda: fastbp.einsum("ij,jk", ones(3, 3), ones(2, 2)),
        RuntimeError,
        "subscript j has size 2 for operand 1 which does not broadcast with previously seen size 3",
    ),
    "ellipsis sizes": (lambda: fastbp.einsum("...i,...i", ones(2, 3), ones(4, 3)), RuntimeError, "does not broadcast"),
    "dtypes": (lambda: fastbp.einsum("i,i", ones(2), ones(2).double()), RuntimeError, "float32 and .*float64"),
    "number 52": (lambda: fastbp.einsum(ones(2, 2), [0, 52]), ValueError, r"valid range \[0, 52\)"),
    "an array": (lambda: fastbp.einsum("i", np.ones(3)), TypeError, "must be Tensors, got ndarray"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def recorded(equation: str, *shapes: tuple[int, ...]) -> list[str]:
    tensors = [ones(*shape, requires_grad=True) for shape in shapes]
    nodes, _ = fastbp._core._recorded_graph([fastbp.einsum(equation, *tensors)])
    return [node[0] for node in nodes if node[0] != "leaf"]


def test_a_pair_is_one_product_without_a_broadcast_intermediate() -> None:
    for equation, shapes in (
        ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
        ("ij,kj->ik", ((3, 4), (5, 4))),
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5))),
        ("ijk,jil->kl", ((2, 3, 4), (3, 2, 5))),
        ("bi,bi->b", ((2, 3), (2, 3))),
    ):
        ops = recorded(equation, *shapes)
        assert ops.count("matmul") == 1 and set(ops) <= {"matmul", "permute", "reshape"}, (equation, ops)


def test_what_needs_no_product_has_none() -> None:
    assert recorded("ij->ji", (2, 3)) == ["permute"]
    assert recorded("ii->i", (3, 3)) == ["diagonal"]
    assert recorded("ij->j", (2, 3)) == ["sum"]
    assert "matmul" not in recorded("i,j->ij", (2,), (3,))


def path_of(equation: str, *shapes: tuple[int, ...]) -> list[tuple[int, int]]:
    return [pair.places for pair in _einsum._planned(equation, shapes).pairs]


def test_the_order_is_the_cheapest() -> None:
    """(1000 x 2)(2 x 1000)(1000 x 2): from the right 2 * 1000 * 4 multiplications, from the left 250 times as many."""
    assert path_of("ij,jk,kl->il", (1000, 2), (2, 1000), (1000, 2)) == [(1, 2), (0, 1)]
    assert path_of("ij,jk,kl->il", (2, 1000), (1000, 2), (2, 1000)) == [(0, 1), (0, 1)]


def test_many_operands_go_the_greedy_way() -> None:
    """A ring of ten matrices, of which one bond is wide: no intermediate has more than two axes."""
    letters = string.ascii_lowercase[:10]
    equation = ",".join(letters[i] + letters[(i + 1) % 10] for i in range(10)) + "->"
    arrays = [drawn((3, 3), i) for i in range(10)]
    found = fastbp.einsum(equation, *(fastbp.from_numpy(a) for a in arrays))
    wanted = np.trace(np.linalg.multi_dot(arrays))
    np.testing.assert_allclose(found.item(), wanted, rtol=1e-11)
    plan = _einsum._planned(equation, ((3, 3),) * 10)
    assert max(len(pair.result) for pair in plan.pairs) == 2


def test_compiled_is_eager() -> None:
    def step(a: Any, b: Any, c: Any) -> Any:
        return fastbp.einsum("bij,bjk,k->bi", a, b, c).tanh()

    arguments = [fastbp.from_numpy(drawn(shape, 5)) for shape in ((2, 3, 4), (2, 4, 5), (5,))]
    compiled = fastbp.compile(step)
    for _ in range(3):
        assert np.array_equal(compiled(*arguments).numpy(), step(*arguments).numpy())
