"""A parameter with several uses: treat each use as a variable of its own, then add the derivatives.

Run it with ``python examples/05_shared_parameters.py``.

This is all there is to weight sharing, which makes convolutions and recurrent nets (example 07). The graph does it by
itself: every use is an edge, and the sweep adds what comes back along the edges.
"""

from __future__ import annotations

import fastbp
import fastbp.nn.functional as F
from fastbp import func


def one_number() -> None:
    def f(w1: fastbp.Tensor, w2: fastbp.Tensor, w3: fastbp.Tensor) -> fastbp.Tensor:
        return w1 * fastbp.sin(w2 * 2.0 + w3)

    w = fastbp.tensor(0.7, dtype=fastbp.float64, requires_grad=True)
    apart = [part.item() for part in func.grad(f, argnums=(0, 1, 2))(w, w, w)]
    y = f(w, w, w)
    uses = [float(derivative) for _, derivative in fastbp.explain(y, wrt={"w": w}).uses("w")]
    (shared,) = fastbp.autograd.grad(y, w)
    print("y = w sin(2 w + w) at w = 0.7, each use of w apart:")
    print("    by three variables: " + " + ".join(f"{part:.6f}" for part in apart) + f" = {sum(apart):.6f}")
    print("    by explain:         " + " + ".join(f"{part:.6f}" for part in uses))
    print(f"    by one sweep:       {shared.item():.6f}")
    assert len(uses) == 3
    # Three terms of size one: some roundings of 1e-16.
    assert max(abs(a - b) for a, b in zip(sorted(apart), sorted(uses), strict=True)) < 1e-14
    assert abs(sum(apart) - shared.item()) < 1e-14


def tied_weights() -> None:
    """An autoencoder whose decoder is the transposed encoder: W is used twice in each forward pass."""
    fastbp.manual_seed(0)
    X = fastbp.randn(16, 6, dtype=fastbp.float64)

    def loss(encoder: fastbp.Tensor, decoder: fastbp.Tensor) -> fastbp.Tensor:
        return F.mse_loss(fastbp.tanh(X @ encoder.T) @ decoder, X)

    W = (fastbp.randn(3, 6, dtype=fastbp.float64) * 0.5).requires_grad_()
    by_encoder, by_decoder = func.grad(loss, argnums=(0, 1))(W, W)
    (shared,) = fastbp.autograd.grad(loss(W, W), W)
    difference = (by_encoder + by_decoder - shared).abs().max().item()
    print("An autoencoder with tied weights: the largest elements of dC/dW")
    largest = [part.abs().max().item() for part in (by_encoder, by_decoder)]
    print(f"    of the encoder's use {largest[0]:.4f}, of the decoder's {largest[1]:.4f}")
    print(f"    their sum against the shared gradient: differs by {difference:.1e}")
    # Sums of 96 terms of size 0.01.
    assert difference < 1e-14
    # Neither use alone is the gradient: descending along one of them would not be gradient descent.
    assert (by_encoder - shared).abs().max().item() > 1e-2
    assert (by_decoder - shared).abs().max().item() > 1e-2

    before = loss(W, W).item()
    for _ in range(300):
        (slope,) = fastbp.autograd.grad(loss(W, W), W)
        with fastbp.no_grad():
            W -= 0.5 * slope
    after = loss(W, W).item()
    print(f"    300 steps of descent along it: loss {before:.4f} -> {after:.4f}")
    assert after < 0.6 * before


def main() -> None:
    one_number()
    tied_weights()


if __name__ == "__main__":
    main()
