"""The worked examples that anyone can follow by hand; they must come out exactly (DESIGN.md)."""

from __future__ import annotations

import math

import pytest

import fastbp
from fastbp import Tensor


def number(value: float) -> Tensor:
    return fastbp.tensor(value, dtype=fastbp.float64, requires_grad=True)


def test_product_of_sums_over_two_paths() -> None:
    """e = (a + b)(b + 1): b reaches e over two paths, de/db = 1*3 + 1*5."""
    a, b = number(3.0), number(2.0)
    e = (a + b) * (b + 1)
    e.backward()
    assert (e.item(), a.grad.item(), b.grad.item()) == (15.0, 3.0, 8.0)


@pytest.mark.parametrize(("x", "y"), [(1.0, 2.0), (-0.5, 3.25), (0.0, 0.0), (7.0, -7.0)])
def test_square_of_a_sum(x: float, y: float) -> None:
    """z = (x + y)**2: dz/dx = dz/dy = 2 (x + y)."""
    a, b = number(x), number(y)
    z = (a + b) ** 2
    z.backward()
    assert (z.item(), a.grad.item(), b.grad.item()) == ((x + y) ** 2, 2 * (x + y), 2 * (x + y))


def test_price_with_tax() -> None:
    """price * count * tax = 220; the derivatives are the products of the two others."""
    price, count, tax = number(100.0), number(2.0), number(1.1)
    total = price * count * tax
    total.backward()
    assert total.item() == 100.0 * 2.0 * 1.1
    assert (price.grad.item(), count.grad.item(), tax.grad.item()) == (2.0 * 1.1, 100.0 * 1.1, 200.0)
    assert [round(v, 12) for v in (total.item(), price.grad.item(), count.grad.item())] == [220.0, 2.2, 110.0]


def test_two_fruits_with_tax() -> None:
    """(apple*2 + orange*3) * 1.1 = 715."""
    apple, apples, orange, oranges, tax = (number(v) for v in (100.0, 2.0, 150.0, 3.0, 1.1))
    total = (apple * apples + orange * oranges) * tax
    total.backward()
    assert total.item() == 650.0 * 1.1
    found = [x.grad.item() for x in (apple, apples, orange, oranges, tax)]
    assert found == [1.1 * 2.0, 1.1 * 100.0, 1.1 * 3.0, 1.1 * 150.0, 650.0]
    assert [round(v, 12) for v in (total.item(), *found)] == [715.0, 2.2, 110.0, 3.3, 165.0, 650.0]


def test_product_with_an_upstream_derivative() -> None:
    """x * y at (10, 5) with 1.3 from above: 6.5 to x, 13 to y."""
    x, y = number(10.0), number(5.0)
    (x * y).backward(fastbp.tensor(1.3, dtype=fastbp.float64))
    assert (x.grad.item(), y.grad.item()) == (6.5, 13.0)


def test_one_variable_with_three_edges() -> None:
    """y = x exp(x * x): x is shared by three edges, the derivative is the sum of three paths."""
    x = number(1.0)
    y = x * fastbp.exp(x * x)
    y.backward()
    assert (y.item(), x.grad.item()) == (2.718281828459045, 8.154845485377136)


def test_logarithm_product_and_sine() -> None:
    """ln x1 + x1 x2 - sin x2 at (2, 5)."""
    x1, x2 = number(2.0), number(5.0)
    y = fastbp.log(x1) + x1 * x2 - fastbp.sin(x2)
    y.backward()
    assert (y.item(), x1.grad.item(), x2.grad.item()) == (11.652071455223084, 5.5, 1.7163378145367738)


def test_sigmoid_neuron() -> None:
    """sigmoid(w0 x0 + w1 x1 + w2) at w = [2, -3, -3], x = [-1, -2]: the neuron's input is 1."""
    w0, w1, w2, x0, x1 = (number(v) for v in (2.0, -3.0, -3.0, -1.0, -2.0))
    y = fastbp.sigmoid(w0 * x0 + w1 * x1 + w2)
    y.backward()
    assert y.item() == 0.7310585786300049
    slope = 0.7310585786300049 * (1.0 - 0.7310585786300049)
    assert [w.grad.item() for w in (w0, w1, w2)] == [-slope, -2.0 * slope, slope]
    assert [round(w.grad.item(), 8) for w in (w0, w1, w2)] == [-0.19661193, -0.39322387, 0.19661193]


def test_examples_agree_with_the_reference_and_in_forward_mode() -> None:
    """The same functions, replayed in plain Python and pushed forward."""
    from fastbp.testing import check, check_grads

    x, y = (fastbp.tensor(v, dtype=fastbp.float64) for v in (2.0, 5.0))
    for function in (
        lambda a, b: (a + b) * (b + 1),
        lambda a, b: (a + b) ** 2,
        lambda a, b: a * fastbp.exp(b / a),
        lambda a, b: fastbp.log(a) + a * b - fastbp.sin(b),
        lambda a, b: fastbp.sigmoid(a - b),
    ):
        assert check(function, x, y)
        check_grads(function, x, y)


def test_the_values_of_the_table_are_those_of_mathematics() -> None:
    """The literals above, from the standard library."""
    assert math.isclose(1.0 * math.exp(1.0), 2.718281828459045, rel_tol=0.0)
    assert math.isclose(3.0 * math.exp(1.0), 8.154845485377136, rel_tol=1e-16)
    assert math.isclose(math.log(2.0) + 10.0 - math.sin(5.0), 11.652071455223084, rel_tol=1e-16)
    assert math.isclose(2.0 - math.cos(5.0), 1.7163378145367738, rel_tol=1e-16)
