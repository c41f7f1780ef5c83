"""What is computed: networks, initial weights, data and hyperparameters, for every module with PyTorch's API.

Weights are uniform in +-1/sqrt(fan_in), biases too, seed 0. Each network has one fixed batch: the XOR table, or
random inputs whose second half repeats the first with other labels, so that the loss cannot reach zero and a long run
stays clear of denormal numbers. XOR's loss does reach zero, after some ten thousand steps; its steps then take as long
as before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

ADAM: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}

# The losses before the update of these steps are compared between the sides.
COMPARED_STEPS = (0, 1, 10, 20)


@dataclass(frozen=True)
class Network:
    """A fully connected network.

    Attributes
    ----------
    sizes : tuple of int
        Features of the input, of each hidden layer, and the number of outputs (classes for a classifier).
    batch : int
        Rows of the one batch.
    activation : str
        Module between the layers: "Tanh" or "ReLU".
    loss : str
        Function of nn.functional: "cross_entropy" of classes, or "mse_loss" of the XOR table, which is then the batch.
    """

    sizes: tuple[int, ...]
    batch: int
    activation: str
    loss: str = "cross_entropy"

    @property
    def title(self) -> str:
        """Name in the tables."""
        return f"{'-'.join(map(str, self.sizes))} {self.activation.lower()}, batch {self.batch}"

    @property
    def flops(self) -> float:
        """Multiplications and additions of a training step's products.

        Every layer takes batch * in * out multiply-adds in the forward pass, as many for the gradient of its weight,
        and, but for the first layer, as many for the gradient of its input.
        """
        layers = [fan_in * fan_out for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:], strict=True)]
        return 2.0 * self.batch * (3 * sum(layers) - layers[0])


XOR_NETWORK = Network((2, 8, 1), 4, "Tanh", "mse_loss")
RL_NETWORK = Network((8, 64, 64, 4), 32, "Tanh")
LARGE_BATCH_RL_NETWORK = Network((8, 64, 64, 4), 256, "Tanh")
DIGITS_NETWORK = Network((784, 128, 10), 64, "ReLU")
MIDDLE_NETWORK = Network((256, 512, 512, 10), 256, "ReLU")
LARGE_NETWORK = Network((1024, 1024, 1024, 1024, 10), 512, "ReLU")


Values = tuple[list[np.ndarray], np.ndarray, np.ndarray]


def initial_values(network: Network) -> Values:
    """Return parameters (weight of shape (out, in), then bias, per layer), inputs and labels of a network."""
    random = np.random.default_rng(0)
    parameters = []
    for fan_in, fan_out in zip(network.sizes[:-1], network.sizes[1:], strict=True):
        bound = 1 / np.sqrt(fan_in)
        weight = random.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)
        parameters.append(np.ascontiguousarray(weight.T))
        parameters.append(random.uniform(-bound, bound, fan_out).astype(np.float32))
    if network.loss == "mse_loss":
        inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        return parameters, inputs, np.array([[0], [1], [1], [0]], np.float32)
    inputs = random.standard_normal((network.batch, network.sizes[0])).astype(np.float32)
    half = network.batch // 2
    inputs[half:] = inputs[:half]
    labels = random.integers(0, network.sizes[-1], network.batch)
    return parameters, inputs, labels


@dataclass(frozen=True)
class Training:
    """A network in one module's API, ready to train.

    Attributes
    ----------
    model : nn.Sequential
        The layers.
    step : callable
        Takes inputs and labels; does forward, backward and the Adam update; returns the loss before the update.
    inputs, labels : Tensor
        The one batch.
    """

    model: Any
    step: Callable[[Any, Any], Any]
    inputs: Any
    labels: Any


def make_training(
    module: ModuleType, network: Network, values: Values | None = None, **optimizer_options: Any
) -> Training:
    """Build a network in a module's API.

    Parameters
    ----------
    module : module
        `torch`, or one that offers the same names.
    network : Network
        What to train.
    values : tuple, optional
        What `initial_values` returned for it; made here by default.
    **optimizer_options
        Further arguments of Adam, such as ``fused=True``.
    """
    nn = importlib.import_module(module.__name__ + ".nn")
    functional = importlib.import_module(module.__name__ + ".nn.functional")
    optim = importlib.import_module(module.__name__ + ".optim")
    parameters, inputs, labels = values or initial_values(network)
    layers = []
    for fan_in, fan_out in zip(network.sizes[:-1], network.sizes[1:], strict=True):
        layers += [nn.Linear(fan_in, fan_out), getattr(nn, network.activation)()]
    model = nn.Sequential(*layers[:-1])
    with module.no_grad():
        for parameter, value in zip(model.parameters(), parameters, strict=True):
            parameter.copy_(module.from_numpy(value))
    optimizer = optim.Adam(model.parameters(), **ADAM, **optimizer_options)
    loss_function = getattr(functional, network.loss)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return Training(model, step, module.from_numpy(inputs), module.from_numpy(labels))


def make_training_step(module: ModuleType, network: Network, **optimizer_options: Any) -> Callable[[], Any]:
    """Return the training step of `make_training` on its one batch, a function without arguments."""
    training = make_training(module, network, **optimizer_options)
    return partial(training.step, training.inputs, training.labels)


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


def scalar_leaves() -> list[float]:
    """Return the 16 inputs of `scalar_graph`."""
    return [float(value) for value in np.random.default_rng(1).uniform(-0.9, 0.9, 16)]


def scalar_graph(leaves: Sequence[Any], nodes: int, tanh: Callable[[Any], Any]) -> Any:
    """Return a scalar that depends on 16 scalars by a graph of `nodes` ops, some nodes/5 deep.

    Each block of five ops (two products, two sums, a tanh) takes other leaves.
    """
    total = leaves[0]
    for k in range(nodes // 5):
        inner = leaves[k % 16] * leaves[(3 * k + 1) % 16] + leaves[(5 * k + 2) % 16]
        total = total + tanh(inner) * leaves[(7 * k + 3) % 16]
    return total


def import_or_none(name: str) -> ModuleType | None:
    """Import a module, None when it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
