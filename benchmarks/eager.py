"""Sections: the cost of one recorded op, a short chain forward and backward, and whole training steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.results import Check, Context, Row, ratio, time_columns
from benchmarks.timing import calls, interleave, statement
from benchmarks.workloads import (
    DIGITS_NETWORK,
    RL_NETWORK,
    Network,
    first_losses,
    make_chain,
    make_operands,
    make_training_step,
)

SMALL_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (4,), (16,), (64,))

# Float32 rounds at 6e-8; sums in another order and another tanh grow that over 20 Adam steps, which divide by the
# gradient's own size. 1e-4 leaves room for it and still shows a wrong rule, a wrong mean or another epsilon.
LOSS_TOLERANCE = 1e-4


def one_op(context: Context) -> Iterator[Row]:
    """Time `a * b` with gradients recorded against NumPy's `a * b` without; each result is dropped at once."""
    for shape in SMALL_SHAPES:
        sides = {}
        for module in filter(None, (context.subject, context.torch)):
            a, b = make_operands(module, shape, requires_grad=True)
            sides[module.__name__] = statement("a * b", a=a, b=b)
        arrays = [np.asarray(np.random.default_rng(seed).uniform(-0.5, 0.5, shape), np.float32) for seed in (1, 2)]
        sides["numpy"] = statement("a * b", a=arrays[0], b=arrays[1])
        samples = interleave(sides, context.effort)
        check = Check("NumPy's time", ratio(samples, context.name, "numpy"), 1.0, at_least=False)
        yield Row(f"a * b, shape {shape}", time_columns(samples), [check], samples)


def chain(context: Context) -> Iterator[Row]:
    """Time ten ops on 16 elements, their sum, and the gradients by both inputs."""
    modules = filter(None, (context.subject, context.torch))
    sides = {module.__name__: calls(make_chain(module, 16)) for module in modules}
    samples = interleave(sides, context.effort)
    check = Check("PyTorch's speed", ratio(samples, "torch", context.name), 6.0, at_least=True)
    yield Row("ten ops, 16 elements, forward + backward", time_columns(samples), [check], samples)


def training(context: Context) -> Iterator[Row]:
    """Time whole steps: forward, backward and Adam."""
    for network, bar in ((RL_NETWORK, 8.0), (DIGITS_NETWORK, 4.0)):
        yield _training_row(context, network, bar)


def _training_row(context: Context, network: Network, bar: float) -> Row:
    """Time one network; PyTorch is taken with the better of its foreach and fused Adam."""
    builders = {context.name: partial(make_training_step, context.subject, network)}
    if context.torch is not None:
        for variant in ("foreach", "fused"):
            builders[f"torch {variant}"] = partial(make_training_step, context.torch, network, **{variant: True})
    losses = {name: first_losses(build()) for name, build in builders.items()}
    samples = interleave({name: calls(build()) for name, build in builders.items()}, context.effort)
    peers = [sample.median for name, sample in samples.items() if name != context.name]
    value = min(peers) / samples[context.name].median if peers else None
    row = Row(network.title, time_columns(samples), [Check("PyTorch's speed", value, bar, at_least=True)], samples)
    for name, theirs in losses.items():
        if not np.allclose(theirs, losses[context.name], rtol=LOSS_TOLERANCE, atol=0):
            row.problem = f"losses differ: {name} {theirs}, {context.name} {losses[context.name]}"
    return row
