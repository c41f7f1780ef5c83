"""Section: elementary functions over arrays that fit the first cache."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.results import Check, Context, Row, ratio, time_columns
from benchmarks.timing import calls, interleave

ELEMENTS = 4096

# Float32 results of two sound implementations differ by a few units in the last place, of numbers up to 20.
TOLERANCE = 1e-4


def numpy_functions(x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the functions as one writes them in NumPy when speed matters: every result into a buffer."""
    out = np.empty_like(x)
    buffer = np.empty_like(x)
    one, half = np.float32(1), np.float32(0.5)
    scale, cubic = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)

    def sigmoid() -> Any:
        np.negative(x, out=out)
        np.exp(out, out=out)
        np.add(out, one, out=out)
        return np.divide(one, out, out=out)

    def gelu() -> Any:
        np.multiply(x, x, out=buffer)
        np.multiply(buffer, cubic, out=buffer)
        np.add(buffer, one, out=buffer)
        np.multiply(buffer, x, out=buffer)
        np.multiply(buffer, scale, out=buffer)
        np.tanh(buffer, out=buffer)
        np.add(buffer, one, out=buffer)
        np.multiply(buffer, half, out=buffer)
        return np.multiply(buffer, x, out=out)

    return {
        "tanh": lambda: np.tanh(x, out=out),
        "exp": lambda: np.exp(x, out=out),
        "sigmoid": sigmoid,
        "gelu (tanh form)": gelu,
    }


def module_functions(module: ModuleType, x: Any) -> dict[str, Callable[[], Any]]:
    """Return the same functions in PyTorch's API; gelu has no out= form there."""
    gelu = importlib.import_module(module.__name__ + ".nn.functional").gelu
    out = module.empty_like(x)
    tanh, exp, sigmoid = module.tanh, module.exp, module.sigmoid
    return {
        "tanh": lambda: tanh(x, out=out),
        "exp": lambda: exp(x, out=out),
        "sigmoid": lambda: sigmoid(x, out=out),
        "gelu (tanh form)": lambda: gelu(x, approximate="tanh"),
        "gelu (exact)": lambda: gelu(x),
    }


def functions(context: Context) -> Iterator[Row]:
    """Time each function on 4,096 float32 numbers in [-3, 3]."""
    x = np.random.default_rng(0).uniform(-3, 3, ELEMENTS).astype(np.float32)
    yardsticks = numpy_functions(x)
    # NumPy has no erf: its tanh form, which is cheaper than any exact one, stands in.
    yardsticks["gelu (exact)"] = yardsticks["gelu (tanh form)"]
    modules = [module for module in (context.subject, context.torch) if module is not None]
    ours = {module.__name__: module_functions(module, module.from_numpy(x)) for module in modules}
    for name, yardstick in yardsticks.items():
        sides = {module: calls(table[name]) for module, table in ours.items()}
        sides["numpy"] = calls(yardstick)
        samples = interleave(sides, context.effort)
        check = Check("NumPy's speed", ratio(samples, "numpy", context.name), 4.0, at_least=True)
        row = Row(f"{name}, {ELEMENTS:,} float32", time_columns(samples), [check], samples)
        own = ELEMENTS / samples[context.name].median
        row.figures["G elements/s"] = f"{own / 1e9:.2f}"
        tolerance = 1e-3 if name == "gelu (exact)" else TOLERANCE  # the tanh form itself is off by up to 5e-4
        if not np.allclose(ours[context.name][name]().numpy(), yardstick(), rtol=tolerance, atol=tolerance):
            row.problem = "result differs from NumPy's"
        yield row
