"""What random training programs are made of: numbers, modules that read attributes, optimizers, things that raise."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from twins import drawn

import fastbp
from fastbp import nn, optim


class PlannedError(Exception):
    """Raised by a program on purpose."""


class Kind:
    """The dtype of a program's numbers, also where the default dtype changes later."""

    dtype: Any = np.float32


def begin(dtype: Any) -> Any:
    """Start a program whose numbers have this dtype; returns it."""
    fastbp.set_default_dtype(dtype)
    Kind.dtype = np.float64 if dtype is fastbp.float64 else np.float32
    Switch.raising = False
    return dtype


def array(*shape: int, seed: int = 0) -> Any:
    """Normal numbers as a NumPy array; no generator under test is touched."""
    return np.random.default_rng(seed).standard_normal(shape).astype(Kind.dtype)


def numbers(*shape: int, seed: int = 0) -> Any:
    """The same as a tensor."""
    return drawn(*shape, seed=seed, dtype=Kind.dtype)


def classes(count: int, most: int, seed: int = 0) -> Any:
    return fastbp.from_numpy(np.random.default_rng(seed).integers(0, most, count))


def elsewhere(function: Callable[[], Any]) -> Any:
    """What a function returns that runs in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


class Block(nn.Module):
    """A layer whose forward() reads plain attributes of each kind."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, outputs)
        self.factor = 0.5
        self.mode = "tanh"
        self.doubled = False
        self.sizes = (1, 2)
        self.slope: float | None = None
        self.fail = False

    def forward(self, x: Any) -> Any:
        h = self.inner(x) * self.factor
        if self.fail:
            raise PlannedError("block")
        if self.mode == "tanh":
            h = h.tanh()
        if self.doubled:
            h = h * 2
        if self.slope is not None:
            h = nn.functional.leaky_relu(h, self.slope)
        return h + self.sizes[0]


class Layers(nn.Module):
    """A ModuleList, walked."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Named(nn.Module):
    """A ModuleDict, walked by its keys."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Any) -> Any:
        for key in self.layers:
            x = self.layers[key](x)
        return x


class Centred(nn.Module):
    """A running mean, written in place while training, subtracted otherwise."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", fastbp.zeros(size))
        self.rate = 0.1

    def forward(self, x: Any) -> Any:
        if self.training:
            with fastbp.no_grad():
                self.mean.mul_(1 - self.rate).add_(x.detach().reshape(-1, x.shape[-1]).mean(0), alpha=self.rate)
        return x - self.mean


class Negated(nn.Module):
    def forward(self, x: Any) -> Any:
        return -x


class OwnSGD(optim.Optimizer):
    """step() reads numbers from param_groups with Python's arithmetic."""

    def __init__(self, params: Any, lr: float = 0.1, decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @fastbp.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad + p * group["decay"] if group["decay"] else p.grad
                p.add_(gradient, alpha=-group["lr"] * 0.5)


class OwnMomentum(optim.Optimizer):
    """step() keeps tensors in state."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @fastbp.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p]["mean"]
                mean.mul_(group["momentum"]).add_(p.grad)
                p.sub_(mean * group["lr"])


def own_momentum(params: list[Any], lr: float = 0.1, momentum: float = 0.5) -> OwnMomentum:
    """With its state made before the first step."""
    made = OwnMomentum(params, lr, momentum)
    for p in params:
        made.state[p]["mean"] = fastbp.zeros_like(p.detach())
    return made


class Switch:
    """Whether the next backward() of a `Guarded` raises."""

    raising = False


class Guarded(fastbp.autograd.Function):
    """Twice its input; backward() raises where the switch says so."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        if Switch.raising:
            raise PlannedError("backward")
        return gradient * 2


def halved(gradients: Any) -> Any:
    """What a backward hook of a module returns."""
    return tuple(one if one is None else one * 0.5 for one in gradients)


def raise_by_switch(gradient: Any) -> Any:
    """A hook that raises where the switch says so."""
    if Switch.raising:
        raise PlannedError("hook")
    return gradient * 1.5
