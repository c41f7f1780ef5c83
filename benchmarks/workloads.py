"""What is computed: networks, initial weights, data and hyperparameters, for every module with PyTorch's API.

Weights are uniform in +-1/sqrt(fan_in), biases too, seed 0. Each workload has one fixed batch, whose second half
repeats the inputs of the first with other labels: so the loss cannot reach zero, and a long run stays clear of
denormal numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}

# The losses before the update of these steps are compared between the sides.
COMPARED_STEPS = (0, 1, 10, 20)


@dataclass(frozen=True)
class Network:
    """A fully connected classifier.

    Attributes
    ----------
    sizes : tuple of int
        Features of the input, of each hidden layer, and the number of classes.
    batch : int
        Rows of the one batch.
    activation : str
        Module between the layers: "Tanh" or "ReLU".
    """

    sizes: tuple[int, ...]
    batch: int
    activation: str

    @property
    def title(self) -> str:
        """Name in the tables."""
        return f"{'-'.join(map(str, self.sizes))} {self.activation.lower()}, batch {self.batch}"


RL_NETWORK = Network((8, 64, 64, 4), 32, "Tanh")
DIGITS_NETWORK = Network((784, 128, 10), 64, "ReLU")


def initial_values(network: Network) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return parameters (weight of shape (out, in), then bias, per layer), inputs and labels of a network."""
    random = np.random.default_rng(0)
    parameters = []
    for fan_in, fan_out in zip(network.sizes[:-1], network.sizes[1:], strict=True):
        bound = 1 / np.sqrt(fan_in)
        parameters.append(random.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32))
        parameters.append(random.uniform(-bound, bound, fan_out).astype(np.float32))
    inputs = random.standard_normal((network.batch, network.sizes[0])).astype(np.float32)
    half = network.batch // 2
    inputs[half:] = inputs[:half]
    labels = random.integers(0, network.sizes[-1], network.batch)
    return parameters, inputs, labels


def make_training_step(module: ModuleType, network: Network, **optimizer_options: Any) -> Callable[[], Any]:
    """Build a network in a module's API and return its training step.

    Parameters
    ----------
    module : module
        `torch`, or one that offers the same names.
    network : Network
        What to train.
    **optimizer_options
        Further arguments of Adam, such as ``fused=True``.

    Returns
    -------
    callable
        Does forward, backward and the Adam update; returns the loss before the update, a tensor.
    """
    nn = importlib.import_module(module.__name__ + ".nn")
    functional = importlib.import_module(module.__name__ + ".nn.functional")
    optim = importlib.import_module(module.__name__ + ".optim")
    parameters, inputs, labels = initial_values(network)
    layers = []
    for fan_in, fan_out in zip(network.sizes[:-1], network.sizes[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), getattr(nn, network.activation)()]
    model = nn.Sequential(*layers[:-1])
    with module.no_grad():
        for parameter, value in zip(model.parameters(), parameters, strict=True):
            parameter.copy_(module.from_numpy(value))
    optimizer = optim.Adam(model.parameters(), **ADAM, **optimizer_options)
    x, y = module.from_numpy(inputs), module.from_numpy(labels)

    def step() -> Any:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def first_losses(step: Callable[[], Any]) -> list[float]:
    """Run the first steps and return the losses at COMPARED_STEPS."""
    losses = [float(step().item()) for _ in range(COMPARED_STEPS[-1] + 1)]
    return [losses[index] for index in COMPARED_STEPS]


def make_operands(module: ModuleType, shape: tuple[int, ...], requires_grad: bool) -> tuple[Any, Any]:
    """Return two float32 tensors with values in [-0.5, 0.5)."""
    random = np.random.default_rng(1)
    first, second = (
        module.from_numpy(np.asarray(random.uniform(-0.5, 0.5, shape), np.float32)).clone() for _ in range(2)
    )
    return first.requires_grad_(requires_grad), second.requires_grad_(requires_grad)


def make_chain(module: ModuleType, size: int) -> Callable[[], None]:
    """Return the forward and backward pass of ten alternating products and sums over `size` elements."""
    a, b = make_operands(module, (size,), requires_grad=True)

    def chain() -> None:
        a.grad = None
        b.grad = None
        x = a
        for _ in range(5):
            x = x * b
            x = x + b
        x.sum().backward()

    return chain


def import_or_none(name: str) -> ModuleType | None:
    """Import a module, None when it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
