"""A convolution and a recurrent net by slices and loops: shared parameters, backpropagated by hand and by the graph.

Run it with ``python examples/07_convolution_and_recurrent.py``.

A convolution uses one kernel at every position, a recurrent net one matrix at every time. The derivative by either is
the sum over its uses (example 05); the rest is the recursion of example 06. What the classical formulas call
convolution with the flipped kernel, and backpropagation through time, is nothing else.
"""

from __future__ import annotations

import fastbp
from fastbp import Tensor

K = 3  # the kernel is K x K


def compare(found: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Print and check pairs (by hand, by graph)."""
    for name, (by_hand, by_graph) in found.items():
        difference = ((by_hand - by_graph).abs().max() / by_graph.abs().max()).item()
        print(f"    dC/d{name:<3} norm {by_graph.norm().item():9.6f}, differs by {difference:.1e}")
        # Sums of less than a hundred float64 products in different orders: 1e-15.
        assert difference < 1e-12


# ---- convolution ----------------------------------------------------------------------------------------------------


def convolve(image: Tensor, kernel: Tensor, b: Tensor) -> Tensor:
    """z[i, j] = sum of kernel * image[i : i + K, j : j + K], plus b: the kernel slides without being flipped."""
    rows, columns = image.shape[0] - K + 1, image.shape[1] - K + 1
    sums = [(image[i : i + K, j : j + K] * kernel).sum() + b for i in range(rows) for j in range(columns)]
    return fastbp.stack(sums).reshape(rows, columns)


def convolution_backward(image: Tensor, kernel: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dC by kernel, bias and image from delta = dC/dz, position by position."""
    by_kernel, by_image = fastbp.zeros_like(kernel), fastbp.zeros_like(image)
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            by_kernel += delta[i, j] * image[i : i + K, j : j + K]  # one use of the kernel, one term
            by_image[i : i + K, j : j + K] += delta[i, j] * kernel
    return by_kernel, delta.sum(), by_image


def check_convolution() -> None:
    image = fastbp.randn(7, 6, dtype=fastbp.float64, requires_grad=True)
    kernel = fastbp.randn(K, K, dtype=fastbp.float64, requires_grad=True)
    b = fastbp.randn((), dtype=fastbp.float64, requires_grad=True)
    target = fastbp.randn(5, 4, dtype=fastbp.float64)

    a = fastbp.tanh(convolve(image, kernel, b))
    loss = ((a - target) ** 2).sum() / 2
    uses = fastbp.explain(loss, wrt={"kernel": kernel}).path_count("kernel")
    K_graph, b_graph, x_graph = fastbp.autograd.grad(loss, [kernel, b, image])

    with fastbp.no_grad():
        delta = (a - target) * (1 - a * a)
        by_kernel, by_b, by_image = convolution_backward(image, kernel, delta)
        # The derivative by the image once more: delta, padded by K - 1, convolved with the flipped kernel.
        padded = fastbp.zeros(5 + 2 * (K - 1), 4 + 2 * (K - 1), dtype=fastbp.float64)
        padded[K - 1 : -(K - 1), K - 1 : -(K - 1)] = delta
        by_flipped = convolve(padded, kernel.flip(0, 1), fastbp.zeros((), dtype=fastbp.float64))
    print(f"Convolution of 7 x 6 numbers with a {K} x {K} kernel, used at {a.numel()} positions:")
    compare(
        {
            "K": (by_kernel, K_graph),
            "b": (by_b, b_graph),
            "x": (by_image, x_graph),
            "x'": (by_flipped, x_graph),
        }
    )
    # The square of the error reads a - target once: a position is a path.
    assert uses == a.numel()


# ---- recurrent net --------------------------------------------------------------------------------------------------


def run_net(W: Tensor, U: Tensor, b: Tensor, inputs: Tensor) -> list[Tensor]:
    """h_0 = 0, h_t = tanh(W h_{t-1} + U x_t + b)."""
    states = [fastbp.zeros(W.shape[0], dtype=fastbp.float64)]
    for x in inputs:
        states.append(fastbp.tanh(W @ states[-1] + U @ x + b))
    return states


def through_time(W: Tensor, states: list[Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dC by W, U and b for C = half the sum of (h_t - target_t)^2: from the last time to the first."""
    by_W, by_U = fastbp.zeros_like(W), W.new_zeros(len(W), inputs.shape[1])
    by_b, delta = fastbp.zeros_like(states[0]), fastbp.zeros_like(states[0])  # delta: dC/dz of the time after
    for t in reversed(range(len(inputs))):
        h = states[t + 1]
        by_h = (h - targets[t]) + W.T @ delta  # h_t has two uses: in the loss, and at time t + 1
        delta = by_h * (1 - h * h)
        by_W += fastbp.outer(delta, states[t])
        by_U += fastbp.outer(delta, inputs[t])
        by_b += delta
    return by_W, by_U, by_b


def check_recurrent() -> None:
    W = (fastbp.randn(5, 5, dtype=fastbp.float64) / 5**0.5).requires_grad_()
    U = fastbp.randn(5, 3, dtype=fastbp.float64, requires_grad=True)
    b = fastbp.randn(5, dtype=fastbp.float64, requires_grad=True)
    inputs, targets = fastbp.randn(12, 3, dtype=fastbp.float64), fastbp.randn(12, 5, dtype=fastbp.float64)

    states = run_net(W, U, b, inputs)
    loss = ((fastbp.stack(states[1:]) - targets) ** 2).sum() / 2
    W_graph, U_graph, b_graph = fastbp.autograd.grad(loss, [W, U, b])
    with fastbp.no_grad():
        by_W, by_U, by_b = through_time(W, states, inputs, targets)
    print(f"A recurrent net of 5 states over {len(inputs)} times, W used at each:")
    compare({"W": (by_W, W_graph), "U": (by_U, U_graph), "b": (by_b, b_graph)})


def main() -> None:
    fastbp.manual_seed(0)
    check_convolution()
    check_recurrent()


if __name__ == "__main__":
    main()
