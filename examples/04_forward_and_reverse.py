"""Forward against reverse: the same products, multiplied from either end, at very different costs.

Run it with ``python examples/04_forward_and_reverse.py``.

Forward mode starts from one input and carries the derivative by it along with the values. Reverse mode starts from one
output and pulls its derivative back to every node. A Jacobian of m outputs by n inputs therefore costs n sweeps
forward or m sweeps in reverse. Training has one loss and many weights: that is why it uses reverse mode.
"""

from __future__ import annotations

import math

import fastbp
from fastbp import func

X1, X2 = 2.0, 5.0


def forward_by_hand(d1: float, d2: float) -> float:
    """y = ln x1 + x1 x2 - sin x2: each value with its derivative in the direction (d1, d2)."""
    v1, dv1 = math.log(X1), d1 / X1
    v2, dv2 = X1 * X2, d1 * X2 + X1 * d2
    v3, dv3 = math.sin(X2), math.cos(X2) * d2
    y, dy = v1 + v2 - v3, dv1 + dv2 - dv3
    assert abs(y - 11.652071455223084) < 1e-14
    return dy


def reverse_by_hand() -> tuple[float, float]:
    """The derivatives of y by all nodes, last node first; an input adds up what its uses send."""
    by_y = 1.0
    by_v1, by_v2, by_v3 = by_y, by_y, -by_y
    by_x2 = by_v3 * math.cos(X2)
    by_x1, by_x2 = by_v2 * X2, by_x2 + by_v2 * X1
    by_x1 += by_v1 / X1
    return by_x1, by_x2


def by_fastbp() -> None:
    def f(x1: fastbp.Tensor, x2: fastbp.Tensor) -> fastbp.Tensor:
        return fastbp.log(x1) + x1 * x2 - fastbp.sin(x2)

    x = (fastbp.tensor(X1, dtype=fastbp.float64), fastbp.tensor(X2, dtype=fastbp.float64))
    one, zero = fastbp.ones_like(x[0]), fastbp.zeros_like(x[0])
    columns = [func.jvp(f, x, direction)[1].item() for direction in ((one, zero), (zero, one))]
    _, pull = func.vjp(f, *x)
    row = [part.item() for part in pull(one)]

    print(f"y = ln x1 + x1 x2 - sin x2 at ({X1:g}, {X2:g})")
    print(f"    forward by hand, two sweeps:    {forward_by_hand(1, 0):.12f} {forward_by_hand(0, 1):.12f}")
    print(f"    reverse by hand, one sweep:     {reverse_by_hand()[0]:.12f} {reverse_by_hand()[1]:.12f}")
    print(f"    func.jvp, twice:                {columns[0]:.12f} {columns[1]:.12f}")
    print(f"    func.vjp, once:                 {row[0]:.12f} {row[1]:.12f}")
    for found in ((forward_by_hand(1, 0), forward_by_hand(0, 1)), reverse_by_hand(), columns, row):
        # A handful of operations on numbers of size one: some roundings of 1e-16.
        assert abs(found[0] - 5.5) < 1e-14
        assert abs(found[1] - 1.7163378145367738) < 1e-14


def jacobians(n: int, m: int) -> None:
    """A layer of n inputs and m outputs, its Jacobian by columns and by rows."""
    generator = fastbp.Generator().manual_seed(0)
    W = fastbp.randn(m, n, dtype=fastbp.float64, generator=generator) / n**0.5
    x, u = fastbp.randn(n, dtype=fastbp.float64, generator=generator), fastbp.randn(n, dtype=fastbp.float64)
    v = fastbp.randn(m, dtype=fastbp.float64)

    def f(x: fastbp.Tensor) -> fastbp.Tensor:
        return fastbp.tanh(W @ x)

    by_columns, by_rows = func.jacfwd(f)(x), func.jacrev(f)(x)
    by_formula = (1 - fastbp.tanh(W @ x) ** 2).unsqueeze(1) * W
    x.requires_grad_()
    costs = fastbp.explain(f(x), wrt={"x": x}).costs()
    print(
        f"A Jacobian of {m} x {n}: {costs.forward['x']:,} multiplications forward, in sweeps: {costs.sweeps[0]}; "
        f"{costs.reverse:,} in reverse, in sweeps: {costs.sweeps[1]}"
    )
    # Sums of n <= 50 products of numbers of size one: their roundings stay below 1e-14.
    assert (by_columns - by_formula).abs().max().item() < 1e-14
    assert (by_rows - by_formula).abs().max().item() < 1e-14
    assert costs.sweeps == (n, m)
    assert (costs.forward["x"] < costs.reverse) == (n < m)

    # Either mode is the same linear map, seen from its two ends: <v, J u> = <J' v, u>.
    left = (v * func.jvp(f, (x,), (u,))[1]).sum()
    right = (func.vjp(f, x)[1](v)[0] * u).sum()
    print(f"    <v, J u> = {left.item():.12f}, <J' v, u> = {right.item():.12f}")
    assert abs(left.item() - right.item()) < 1e-12


def main() -> None:
    by_fastbp()
    jacobians(n=50, m=1)
    jacobians(n=2, m=50)


if __name__ == "__main__":
    main()
