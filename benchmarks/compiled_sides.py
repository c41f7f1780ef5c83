"""The sides of the compiled-step sections: one training step in fastbp, PyTorch and JAX, ready to be timed.

Every builder makes its sides from the same initial values and runs their first steps, whose losses are kept: a side
whose losses differ computes something else, and its time means nothing.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.timing import Timed, calls, statement
from benchmarks.workloads import ADAM, Network, initial_values, make_training, make_training_step

# The losses before the update of this many steps are compared between the sides.
CHECKED_STEPS = 5

# An epoch reads its batches one after the other, the peers' loops the same batch over and over: so the epoch is kept
# small enough for a cache of some megabytes, else it would be the memory that is compared.
EPOCH_BYTES = 4 << 20
LEAST_EPOCH_STEPS = 10


@dataclass(frozen=True)
class Side:
    """One way to run a workload.

    Attributes
    ----------
    timed : callable
        A repetition is one training step.
    losses : dict
        Index of a step, below CHECKED_STEPS, to the loss before its update.
    """

    timed: Timed
    losses: dict[int, float]


def in_blocks(run: Callable[[], object], steps: int) -> Timed:
    """Return a side of single steps from a function that does `steps` of them at once."""

    def timed(number: int) -> float:
        blocks = max(1, round(number / steps))
        start = time.perf_counter()
        for _ in range(blocks):
            run()
        return (time.perf_counter() - start) * number / (blocks * steps)

    return timed


def _called(step: Callable[[], Any]) -> Side:
    """Return the side that calls a step, after its first steps."""
    losses = {index: float(step().item()) for index in range(CHECKED_STEPS)}
    return Side(calls(step), losses)


# ---- fastbp ----


def compiled_call(module: ModuleType, network: Network) -> Side:
    """Return the compiled step, one call a step."""
    training = make_training(module, network)
    step = module.compile(training.step)
    x, y = training.inputs, training.labels
    losses = {index: float(step(x, y).item()) for index in range(CHECKED_STEPS)}
    return Side(statement("step(x, y)", step=step, x=x, y=y), losses)


def epoch_steps(network: Network, loop_steps: int) -> int:
    """Return the number of batches of an epoch: `loop_steps`, or fewer where they would not fit EPOCH_BYTES."""
    batch_bytes = 4 * network.batch * network.sizes[0]
    return min(loop_steps, max(LEAST_EPOCH_STEPS, EPOCH_BYTES // batch_bytes))


def compiled_epoch(module: ModuleType, network: Network, loop_steps: int) -> Side:
    """Return the compiled step over a DataLoader whose batches are all the workload's one batch."""
    data = importlib.import_module(module.__name__ + ".utils.data")
    training = make_training(module, network)
    steps = epoch_steps(network, loop_steps)
    _, inputs, labels = initial_values(network)
    x, y = (np.tile(values, (steps,) + (1,) * (values.ndim - 1)) for values in (inputs, labels))
    dataset = data.TensorDataset(module.from_numpy(x), module.from_numpy(y))
    loader = data.DataLoader(dataset, batch_size=network.batch)
    step = module.compile(training.step)
    losses = np.asarray(step.epoch(loader).detach().numpy())
    if losses.shape != (steps,):
        raise ValueError(f"an epoch of {steps} steps returned losses of shape {losses.shape}")
    return Side(
        in_blocks(partial(step.epoch, loader), steps),
        {index: float(losses[index]) for index in range(CHECKED_STEPS)},
    )


# ---- PyTorch ----


def torch_eager(network: Network) -> Iterator[tuple[str, Side]]:
    """Return PyTorch's eager step with each implementation of its Adam."""
    torch = importlib.import_module("torch")
    variants = {
        "torch loop": {"foreach": False, "fused": False},
        "torch foreach": {"foreach": True},
        "torch fused": {"fused": True},
    }
    for name, options in variants.items():
        yield name, _called(make_training_step(torch, network, **options))


def torch_compiled(network: Network) -> Side:
    """Return the whole step under torch.compile, gradient by torch.func and update in one graph.

    Several times faster on small networks than compiling loss and optimizer apart.
    """
    torch = importlib.import_module("torch")
    training = make_training(torch, network)
    loss_of = getattr(torch.nn.functional, network.loss)
    names = [name for name, _ in training.model.named_parameters()]
    parameters = [parameter.detach().clone() for parameter in training.model.parameters()]
    means = [torch.zeros_like(parameter) for parameter in parameters]
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    count = torch.zeros((), dtype=torch.float64)
    rate, eps, (beta1, beta2) = ADAM["lr"], ADAM["eps"], ADAM["betas"]

    def step(parameters: Any, means: Any, squares: Any, count: Any, x: Any, y: Any) -> Any:
        def loss_by(values: Any) -> Any:
            call = torch.func.functional_call
            return loss_of(call(training.model, dict(zip(names, values, strict=True)), (x,)), y)

        gradients, loss = torch.func.grad_and_value(loss_by)(parameters)
        count += 1
        correction1 = (1 - beta1**count).to(torch.float32)
        correction2 = torch.sqrt(1 - beta2**count).to(torch.float32)
        for p, g, m, v in zip(parameters, gradients, means, squares, strict=True):
            m.mul_(beta1).add_(g * (1 - beta1))
            v.mul_(beta2).add_(g * g * (1 - beta2))
            p.sub_(rate / correction1 * m / (v.sqrt() / correction2 + eps))
        return loss

    compiled = torch.compile(step)

    def run() -> Any:
        with torch.no_grad():
            return compiled(parameters, means, squares, count, training.inputs, training.labels)

    return _called(run)


# ---- JAX ----


def jax_sides(network: Network, loop_steps: int) -> Iterator[tuple[str, Side]]:
    """Return JAX's jitted step, called and waited for one by one, and inside its own loop of `loop_steps` steps.

    The state is donated, so that parameters are updated in place. A loop returns its last loss alone: a loop of
    CHECKED_STEPS steps, the same program but for its length, is what is checked.
    """
    jax = importlib.import_module("jax")
    jnp = importlib.import_module("jax.numpy")
    lax = importlib.import_module("jax.lax")
    jax.config.update("jax_enable_x64", True)  # Adam's step count and its powers are float64, as in PyTorch
    step, make_state, x, y = _jax_training(jax, network)
    call = jax.jit(step, donate_argnums=0)
    state = make_state()

    def one() -> Any:
        nonlocal state
        state, loss = call(state, x, y)
        return loss.block_until_ready()

    yield "jax call", _called(one)

    def loop_of(steps: int) -> Callable[[Any, Any, Any], Any]:
        def loop(state: Any, x: Any, y: Any) -> Any:
            start = (state, jnp.zeros((), x.dtype))
            return lax.fori_loop(0, steps, lambda _, carried: step(carried[0], x, y), start)

        compiled: Callable[[Any, Any, Any], Any] = jax.jit(loop, donate_argnums=0)
        return compiled

    _, last = loop_of(CHECKED_STEPS)(make_state(), x, y)
    loop, loop_state = loop_of(loop_steps), make_state()

    def block() -> None:
        nonlocal loop_state
        loop_state, loss = loop(loop_state, x, y)
        loss.block_until_ready()

    yield "jax loop", Side(in_blocks(block, loop_steps), {CHECKED_STEPS - 1: float(last)})


def _jax_training(jax: ModuleType, network: Network) -> tuple[Any, Callable[[], Any], Any, Any]:
    """Return the step (state, x, y -> state, loss), what makes a fresh state, and the batch."""
    jnp = importlib.import_module("jax.numpy")
    values, inputs, labels = initial_values(network)
    activation = jnp.tanh if network.activation == "Tanh" else jax.nn.relu
    rate, eps, (beta1, beta2) = ADAM["lr"], ADAM["eps"], ADAM["betas"]

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        *hidden, (weight, bias) = parameters
        for hidden_weight, hidden_bias in hidden:
            x = activation(x @ hidden_weight + hidden_bias)
        out = x @ weight + bias
        if network.loss == "mse_loss":
            return jnp.mean((out - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[..., None], -1))

    def step(state: Any, x: Any, y: Any) -> Any:
        parameters, means, squares, count = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        count = count + 1
        scale1 = rate / (1 - beta1**count).astype(loss.dtype)
        scale2 = (1 / jnp.sqrt(1 - beta2**count)).astype(loss.dtype)
        over = jax.tree.map
        means = over(lambda m, g: beta1 * m + (1 - beta1) * g, means, gradients)
        squares = over(lambda v, g: beta2 * v + (1 - beta2) * g * g, squares, gradients)
        parameters = over(lambda p, m, v: p - scale1 * m / (jnp.sqrt(v) * scale2 + eps), parameters, means, squares)
        return (parameters, means, squares, count), loss

    def make_state() -> Any:
        pairs = zip(values[::2], values[1::2], strict=True)
        parameters = [(jnp.array(np.ascontiguousarray(weight.T)), jnp.array(bias)) for weight, bias in pairs]
        zeros = partial(jax.tree.map, jnp.zeros_like, parameters)
        return parameters, zeros(), zeros(), jnp.zeros((), jnp.float64)

    if labels.dtype == np.int64:
        labels = labels.astype(np.int32)  # JAX's own integer
    return step, make_state, jnp.asarray(inputs), jnp.asarray(labels)
