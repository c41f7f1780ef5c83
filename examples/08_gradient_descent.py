"""Gradient descent to convergence from random weights, and why the weights must be random.

Run it with ``python examples/08_gradient_descent.py``.

Initialise at random, forward, loss, backward, update; repeat until the loss converges. The task is exclusive or, which
no net without a hidden layer can learn. A small penalty on the weights gives the loss a lowest point at finite weights,
so that "converged" can be said with a number: the gradient is zero there. The step is compiled: its 100,000
repetitions take about a second.
"""

from __future__ import annotations

import fastbp
import fastbp.nn.functional as F
from fastbp import Tensor, nn

X = fastbp.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=fastbp.float64)
Y = fastbp.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=fastbp.float64)
RATE = 0.5
PENALTY = 1e-3
MOST = 100_000


def make_net() -> nn.Module:
    """2-4-1, weights and biases from N(0, 1)."""
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def descend(net: nn.Module, tolerance: float = 1e-9) -> tuple[int, float, float]:
    """Step against the gradient until its norm is below the tolerance: (steps, loss, norm of the gradient)."""
    parameters = list(net.parameters())

    @fastbp.compile
    def step() -> tuple[Tensor, Tensor]:
        loss = F.binary_cross_entropy_with_logits(net(X), Y)
        loss = loss + PENALTY * fastbp.stack([(p**2).sum() for p in parameters]).sum()
        slopes = fastbp.autograd.grad(loss, parameters)
        with fastbp.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter -= RATE * slope
        return loss, fastbp.stack([(slope**2).sum() for slope in slopes]).sum().sqrt()

    count, norm = 0, fastbp.tensor(fastbp.inf)
    while norm.item() >= tolerance and count < MOST:
        loss, norm = step()
        count += 1
    return count, loss.item(), norm.item()


def main() -> None:
    fastbp.manual_seed(0)
    print("Exclusive or by a 2-4-1 net. From random weights:")
    losses = []
    for start in range(4):
        net = make_net()
        steps, loss, norm = descend(net)
        losses.append(loss)
        with fastbp.no_grad():
            answers = fastbp.sigmoid(net(X)).flatten().tolist()
        print(
            f"    start {start}: {steps:6,} steps, loss {loss:.6f}, gradient {norm:.0e}, "
            f"answers {' '.join(f'{answer:.2f}' for answer in answers)}"
        )
        assert norm < 1e-9
        assert [round(answer) for answer in answers] == [0, 1, 1, 0]

    net = make_net()
    with fastbp.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    steps, loss, norm = descend(net)
    print(f"From zeros: {steps} step, loss {loss:.6f}, gradient {norm:.0e}")
    print("    for no unit has a reason to differ from another, and none to differ from zero")
    # ln 2, the loss of a guess: all derivatives by the weights vanish, and nothing is learnt.
    assert steps == 1
    assert abs(loss - 0.693147180559945) < 1e-12
    assert max(losses) < loss / 5


if __name__ == "__main__":
    main()
