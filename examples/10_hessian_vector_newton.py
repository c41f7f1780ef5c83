"""Hessian-vector products, and Newton's method without a Hessian.

Run it with ``python examples/10_hessian_vector_newton.py``.

The Hessian times a vector is the derivative of the gradient in that direction: forward mode over reverse mode, at a
few times the cost of the loss, and no Hessian is ever made (Pearlmutter 1994). Conjugate gradients ask for nothing
else, so they solve H p = -g for Newton's step. The loss is that of a logistic regression which tells handwritten threes
from eights, with a penalty. Near the minimum every step of Newton's doubles the number of right digits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import fastbp
import fastbp.nn.functional as F
from fastbp import Tensor, func
from fastbp.datasets import load_digits

PENALTY = 1e-2


def make_loss() -> Callable[[Tensor], Tensor]:
    """Mean over the images of ln(1 + exp(-sign w'x)), and the penalty |w|^2 / 200."""
    images, digits = load_digits(return_X_y=True)
    chosen = (digits == 3) | (digits == 8)
    X = fastbp.from_numpy(images[chosen] / 16).double()
    sign = fastbp.from_numpy((digits[chosen] == 3) * 2.0 - 1.0)

    def loss(w: Tensor) -> Tensor:
        return F.softplus(-sign * (X @ w)).mean() + PENALTY / 2 * (w * w).sum()

    return loss


def check_products(loss: Callable[[Tensor], Tensor], w: Tensor) -> None:
    v = fastbp.randn(len(w), dtype=fastbp.float64)
    product = func.hvp(loss, (w,), (v,))
    by_matrix = func.hessian(loss)(w) @ v
    gradient, h = func.grad(loss), 1e-5
    by_differences = (gradient(w + h * v) - gradient(w - h * v)) / (2 * h)
    print(f"H v by func.hvp, {len(w)} numbers of norm {product.norm().item():.6f}:")
    print(f"    against the whole Hessian times v: {(product - by_matrix).norm().item():.1e}")
    print(f"    against differences of gradients:  {(product - by_differences).norm().item():.1e}")
    # Sums of 65 products: 1e-15. Central differences: h^2 = 1e-10 of third derivatives, and 1e-16 / h in rounding.
    assert (product - by_matrix).norm().item() < 1e-12
    assert (product - by_differences).norm().item() < 1e-7


def conjugate_gradients(multiply: Callable[[Tensor], Tensor], b: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """Solve A p = b for symmetric positive definite A, known by its products alone: (p, number of products)."""
    p, residual = fastbp.zeros_like(b), b
    direction, square = residual, (residual @ residual).item()
    products = 0
    while square**0.5 > tolerance and products < 10 * len(b):
        image = multiply(direction)
        length = square / (direction @ image).item()
        p, residual = p + length * direction, residual - length * image
        square, before = (residual @ residual).item(), square
        direction = residual + square / before * direction
        products += 1
    return p, products


def newton(loss: Callable[[Tensor], Tensor], w: Tensor) -> list[float]:
    """Step until the gradient is zero but for rounding: its norm before each step and after the last."""
    gradient = fastbp.compile(func.grad(loss))
    hessian_times = fastbp.compile(lambda w, v: func.hvp(loss, (w,), (v,)))
    norms = []
    for count in range(20):
        g = gradient(w)
        norms.append(g.norm().item())
        if norms[-1] < 1e-13:
            break
        # The closer to the minimum, the more exact: what is left of H p = -g must not spoil the doubling of digits.
        tolerance = max(min(0.1, norms[-1]) * norms[-1], 1e-15)
        p, products = conjugate_gradients(partial(hessian_times, w), -g, tolerance)
        w = w + p
        print(f"    step {count + 1}: |gradient| {norms[-1]:.1e}, {products} products H v")
    print(f"    at the end: |gradient| {norms[-1]:.1e}, loss {loss(w).item():.12f}")
    return norms


def descend(loss: Callable[[Tensor], Tensor], w: Tensor, steps: int) -> float:
    """Plain gradient descent for comparison: the gradient's norm after so many steps."""
    gradient = fastbp.compile(func.grad(loss))
    for _ in range(steps):
        w = w - 0.3 * gradient(w)
    return float(gradient(w).norm())


def main() -> None:
    fastbp.manual_seed(0)
    loss = make_loss()
    w = fastbp.zeros(64, dtype=fastbp.float64)
    check_products(loss, fastbp.randn(64, dtype=fastbp.float64))
    print("Newton's method:")
    norms = newton(loss, w)
    # The gradient is a mean over 357 images of numbers of size one: its own rounding is some 1e-16.
    assert norms[-1] < 1e-13
    assert len(norms) <= 12
    # Quadratic convergence: the next norm is within a constant of the square of the last, until rounding ends it.
    late = [(a, b) for a, b in pairwise(norms) if a < 1e-2]
    assert late
    assert all(b < max(100 * a * a, 1e-13) for a, b in late)
    by_descent = descend(loss, w, 1000)
    print(f"Gradient descent, 1,000 steps: |gradient| {by_descent:.1e}")
    assert by_descent > 1e3 * norms[-1]


if __name__ == "__main__":
    main()
