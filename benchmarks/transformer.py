"""A character transformer's training step, written from tensor ops alone, for every module with PyTorch's API.

Decoder only, learned positions, layer norm before each part (eps 1e-5), exact gelu, an MLP of four times the width,
biases everywhere but in the head, which is not tied to the embedding.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

EPSILON = 1e-5


@dataclass(frozen=True)
class Transformer:
    """Sizes of the network and of its batch.

    Attributes
    ----------
    vocabulary, layers, width, heads : int
        Tokens, blocks, features of a token, attention heads.
    length, batch : int
        Tokens of a sequence, sequences of the one batch.
    """

    vocabulary: int = 65
    layers: int = 2
    width: int = 64
    heads: int = 4
    length: int = 64
    batch: int = 8


def initial_values(sizes: Transformer) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return parameters by name (weights of shape (in, out)), tokens of shape (batch, length), and the tokens next."""
    random = np.random.default_rng(0)
    width, length = sizes.width, sizes.length

    def weight(fan_in: int, fan_out: int) -> np.ndarray:
        bound = 1 / math.sqrt(fan_in)
        return random.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)

    values = {
        "token": (0.02 * random.standard_normal((sizes.vocabulary, width))).astype(np.float32),
        "position": (0.02 * random.standard_normal((length, width))).astype(np.float32),
    }
    shapes = {
        "attend": (width, 3 * width),
        "mix": (width, width),
        "widen": (width, 4 * width),
        "narrow": (4 * width, width),
    }
    for layer in range(sizes.layers):
        for norm in ("norm1", "norm2"):
            values[f"{layer}.{norm}.scale"] = np.ones(width, np.float32)
            values[f"{layer}.{norm}.shift"] = np.zeros(width, np.float32)
        for name, (fan_in, fan_out) in shapes.items():
            values[f"{layer}.{name}.weight"] = weight(fan_in, fan_out)
            values[f"{layer}.{name}.bias"] = np.zeros(fan_out, np.float32)
    values["norm.scale"], values["norm.shift"] = np.ones(width, np.float32), np.zeros(width, np.float32)
    values["head"] = weight(width, sizes.vocabulary)
    tokens = random.integers(0, sizes.vocabulary, (sizes.batch, length + 1))
    return values, np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])


def make_transformer(module: ModuleType, sizes: Transformer) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """Build the network in a module's API.

    Returns
    -------
    (step, tokens, targets)
        step(tokens, targets) does forward, backward and the AdamW update and returns the loss before the update.
    """
    functional = importlib.import_module(module.__name__ + ".nn.functional")
    optim = importlib.import_module(module.__name__ + ".optim")
    values, tokens, targets = initial_values(sizes)
    parameters = {name: module.from_numpy(value).requires_grad_() for name, value in values.items()}
    optimizer = optim.AdamW(parameters.values(), lr=1e-3, weight_decay=0.01)
    batch, length, width, heads = sizes.batch, sizes.length, sizes.width, sizes.heads
    mask = module.from_numpy(np.triu(np.full((length, length), -np.inf, np.float32), 1))

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        return centred * (variance + EPSILON).rsqrt() * parameters[name + ".scale"] + parameters[name + ".shift"]

    def linear(x: Any, name: str) -> Any:
        return x @ parameters[name + ".weight"] + parameters[name + ".bias"]

    def attention(x: Any, name: str) -> Any:
        parts = linear(x, name + ".attend").reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        scores = (query @ key.transpose(-1, -2)) * (1 / math.sqrt(width // heads)) + mask
        mixed = functional.softmax(scores, -1) @ value
        return linear(mixed.transpose(1, 2).reshape(batch, length, width), name + ".mix")

    def step(tokens: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        x = parameters["token"].index_select(0, tokens.reshape(-1)).reshape(batch, length, width)
        x = x + parameters["position"]
        for layer in range(sizes.layers):
            x = x + attention(norm(x, f"{layer}.norm1"), f"{layer}")
            hidden = functional.gelu(linear(norm(x, f"{layer}.norm2"), f"{layer}.widen"))
            x = x + linear(hidden, f"{layer}.narrow")
        scores = norm(x, "norm") @ parameters["head"]
        loss = functional.cross_entropy(scores.reshape(-1, sizes.vocabulary), targets.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step, module.from_numpy(tokens), module.from_numpy(targets)
