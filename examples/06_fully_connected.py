"""A fully connected net: backpropagation over the graph and the classical error recursion are the same thing.

Run it with ``python examples/06_fully_connected.py``.

With z_l = a_{l-1} W_l' + b_l and a_l = f_l(z_l), a batch in rows, and delta_l = dC/dz_l:

    delta_L = f_L'(z_L) dC/da_L             the activation's Jacobian: diagonal for sigmoid, full for softmax
    delta_l = (delta_{l+1} W_{l+1}) f_l'(z_l)
    dC/dW_l = delta_l' a_{l-1}              the outer product, summed over the batch
    dC/db_l = sum of delta_l over the batch

The recursion is written out below in plain tensor arithmetic; autograd knows nothing of layers, and agrees.
"""

from __future__ import annotations

from itertools import pairwise

import fastbp
from fastbp import Tensor

SIZES = [6, 8, 7, 4]
BATCH = 16
ACTIVATIONS = ["sigmoid", "tanh", "softmax"]


def activate(name: str, z: Tensor) -> Tensor:
    return z.softmax(dim=1) if name == "softmax" else getattr(fastbp, name)(z)


def pull(name: str, a: Tensor, cotangent: Tensor) -> Tensor:
    """The activation's Jacobian, transposed, times a cotangent; all three Jacobians are functions of a alone."""
    if name == "sigmoid":
        return cotangent * a * (1 - a)
    if name == "tanh":
        return cotangent * (1 - a * a)
    # softmax: da_i/dz_j = a_i (1[i = j] - a_j). Each z moves every a.
    return a * (cotangent - (cotangent * a).sum(dim=1, keepdim=True))


def forward(X: Tensor, weights: list[Tensor], biases: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The sums z_1 .. z_L, and the activations a_0 .. a_L."""
    zs, activations = [], [X]
    for name, W, b in zip(ACTIVATIONS, weights, biases, strict=True):
        zs.append(activations[-1] @ W.T + b)
        activations.append(activate(name, zs[-1]))
    return zs, activations


def recursion(activations: list[Tensor], weights: list[Tensor], T: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(delta, dC/dW, dC/db) of each layer, first to last, for C = - sum of T log a_L over the batch / its size."""
    cotangent = -T / activations[-1] / len(T)
    found = []
    for layer in reversed(range(len(weights))):
        delta = pull(ACTIVATIONS[layer], activations[layer + 1], cotangent)
        found.append((delta, delta.T @ activations[layer], delta.sum(dim=0)))
        cotangent = delta @ weights[layer]
    return found[::-1]


def main() -> None:
    fastbp.manual_seed(0)
    X = fastbp.randn(BATCH, SIZES[0], dtype=fastbp.float64)
    T = fastbp.eye(SIZES[-1], dtype=fastbp.float64)[fastbp.randint(0, SIZES[-1], (BATCH,))]
    weights = [
        (fastbp.randn(n, m, dtype=fastbp.float64) / m**0.5).requires_grad_()
        for m, n in pairwise(SIZES)
    ]
    biases = [fastbp.randn(n, dtype=fastbp.float64).requires_grad_() for n in SIZES[1:]]

    zs, activations = forward(X, weights, biases)
    loss = -(T * fastbp.log(activations[-1])).sum() / BATCH
    names = {f"{kind}{i}": one for kind, all_ in (("W", weights), ("b", biases)) for i, one in enumerate(all_, 1)}
    explained = fastbp.explain(loss, wrt=names).layers()
    by_graph = fastbp.autograd.grad(loss, [*zs, *weights, *biases])

    with fastbp.no_grad():
        classical = recursion(activations, weights, T)
    print(f"A net {'-'.join(map(str, SIZES))}, batch {BATCH}, loss {loss.item():.6f}. Graph against recursion:")
    print("    layer  activation  |delta|   |dW|      |db|      largest difference, relative")
    for i, by_hand in enumerate(classical):
        found = by_graph[i :: len(zs)]  # by z, W and b of this layer
        differences = [
            ((hand - graph).abs().max() / graph.abs().max()).item()
            for hand, graph in zip(by_hand, found, strict=True)
        ]
        norms = "  ".join(f"{graph.norm().item():.6f}" for graph in found)
        print(f"    {i + 1}      {ACTIVATIONS[i]:<10}  {norms}  {max(differences):.1e}")
        # Sums of some dozen float64 products in different orders: 1e-15; a wrong formula is wrong in the first digits.
        assert max(differences) < 1e-12
        # fastbp.explain finds the layers in the graph by itself and shows the same recursion.
        assert abs(explained[i].delta - by_hand[0].numpy()).max() < 1e-12
        assert explained[i].difference < 1e-12

    # Softmax and the loss together have the simplest delta of all.
    difference = ((activations[-1] - T) / BATCH - classical[-1][0]).abs().max().item()
    print(f"    delta of the last layer against (a - T) / batch: {difference:.1e}")
    assert difference < 1e-12


if __name__ == "__main__":
    main()
