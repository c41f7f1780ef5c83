"""A physics-informed net: solve Burgers' equation by making a net obey it. Derivatives by inputs, trained by weights.

Run it with ``python examples/09_physics_informed.py``; ``--steps 10000`` trains longer.

    u_t + u u_x = nu u_xx,   u(x, 0) = -sin(pi x),   u(-1, t) = u(1, t) = 0,   nu = 0.05,   0 <= t <= 1

The net is told no values of u. Its loss is the square of what the equation leaves over at some hundred points; the
initial and boundary values are built in. Derivatives by x and t are taken forward (few inputs), the derivative of the
loss by the weights in reverse (one output), and `fastbp.compile` makes one planned step of all of it.

This equation has a solution in closed form, by Cole and Hopf's transformation: it is put through the same `left_over`
first, which shows that the equation is written down rightly, and measures the net in the end.

References
----------
Raissi, M., Perdikaris, P. & Karniadakis, G. E. (2019). Physics-informed neural networks. J. Comput. Phys. 378.
Basdevant, C. et al. (1986). Spectral and finite difference solutions of the Burgers equation. Comput. Fluids 14(1).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

import fastbp
from fastbp import Tensor, func, nn, optim

NU = 0.05
Solution = Callable[[Tensor, Tensor], Tensor]  # of x and t, one point a row: (points, 1) each


def left_over(u: Solution, x: Tensor, t: Tensor) -> Tensor:
    """u_t + u u_x - nu u_xx at each point.

    A point's u depends on its own x and t alone, so one push of ones along x gives u_x at all points.
    """
    ones = fastbp.ones_like(x)

    def u_and_slope(x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = func.jvp(lambda x: u(x, t), (x,), (ones,))
        return value, slope

    (value, u_x), (_, u_xx) = func.jvp(u_and_slope, (x,), (ones,))
    _, u_t = func.jvp(lambda t: u(x, t), (t,), (ones,))
    remainder: Tensor = u_t + value * u_x - NU * u_xx
    return remainder


def exact(x: Tensor, t: Tensor) -> Tensor:
    """Cole and Hopf's solution for t > 0: two integrals over a Gaussian, by Gauss and Hermite's rule."""
    nodes, weights = (fastbp.from_numpy(one) for one in np.polynomial.hermite.hermgauss(120))
    y = x - nodes * (4 * NU * t).sqrt()  # (points, 120)
    density = weights * fastbp.exp(-fastbp.cos(np.pi * y) / (2 * np.pi * NU))
    average: Tensor = (fastbp.sin(np.pi * y) * density).sum(dim=1, keepdim=True) / density.sum(dim=1, keepdim=True)
    return -average


def make_solution(net: nn.Module) -> Solution:
    """The net within a frame that has the initial and boundary values, whatever the net says."""

    def u(x: Tensor, t: Tensor) -> Tensor:
        said: Tensor = net(fastbp.cat([x, t], dim=1))
        return t * (1 - x * x) * said - fastbp.sin(np.pi * x)

    return u


def train(u: Solution, net: nn.Module, steps: int) -> tuple[float, float]:
    """Loss at the first and at the last step."""
    x = fastbp.rand(500, 1, dtype=fastbp.float64) * 2 - 1
    t = fastbp.rand(500, 1, dtype=fastbp.float64)
    optimizer = optim.Adam(net.parameters(), lr=1e-2)

    @fastbp.compile
    def step(x: Tensor, t: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (left_over(u, x, t) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    first = 0.0
    for count in range(steps):
        # A smaller step towards the end, so that Adam settles.
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - count / steps) + 1e-4
        loss = step(x, t)
        if count == 0:
            first = loss.item()
        if (count + 1) % (steps // 5) == 0:
            print(f"    step {count + 1:5}: mean square of what is left over {loss.item():.2e}")
    return first, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    steps = max(parser.parse_args().steps, 5)
    fastbp.manual_seed(0)

    grid = fastbp.linspace(-1, 1, 41, dtype=fastbp.float64), fastbp.linspace(0.1, 1, 10, dtype=fastbp.float64)
    x, t = (one.reshape(-1, 1) for one in fastbp.meshgrid(*grid, indexing="ij"))
    truth = exact(x, t)
    remainder = left_over(exact, x, t).abs().max().item()
    print(f"Cole and Hopf's solution leaves {remainder:.1e} over")
    # A wrong sign or factor would leave numbers of size one. What the rule of 120 points
    # misses is below the rounding of terms of size 10.
    assert remainder < 1e-11

    net = nn.Sequential(nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)).double()
    u = make_solution(net)
    first, last = train(u, net, steps)
    with fastbp.no_grad():
        error = (u(x, t) - truth).norm().item() / truth.norm().item()
    print(f"    fell by a factor of {first / last:,.0f} in {steps} steps")
    print(f"Relative error against the solution, in the 2-norm: {error:.2%}")
    if steps >= 3000:
        assert first / last > 300
        assert error < 0.02


if __name__ == "__main__":
    main()
