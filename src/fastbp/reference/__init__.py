"""Every operation in plain Python: the second, independent truth that the C kernels are held to.

Written from the mathematics over flat lists, with the standard library's ``math`` alone; it neither imports nor is
generated from anything else of fastbp, so that an error in the op table cannot be repeated here. It is slow by
intention: the shortest text that is evidently right.

- ``OPS[name].forward(*inputs, **attributes)`` evaluates an operation, by PyTorch's name and keyword arguments;
- ``OPS[name].vjp(cotangent, *inputs, **attributes)`` pulls a cotangent back to the inputs;
- :func:`replay` and :func:`gradient` do the same with a whole captured graph;
- :func:`philox4x32` is the random generator.

Semantics, the derivatives at kinks and the ways of NaN are PyTorch's. Arithmetic is Python's: float64, whole numbers
without overflow (``OPS["cast"]`` wraps them), sums rounded once.

Examples
--------
>>> from fastbp import reference
>>> reference.OPS["softmax"].forward([0.0, 0.0], dim=0).to_nested()
[0.5, 0.5]
"""

from . import (
    convolution,
    factorizations,
    indexing,
    linear_algebra,
    losses,
    matrices,
    normalization,
    pointwise,
    pulls,
    reductions,
    shapes,
    sources,
    spectra,
    update,
)
from .array import Array, as_array
from .graph import gradient, replay
from .pointwise import cast_value, round_to_float32
from .random import philox4x32, uniform_float32, uniform_float64
from .registry import OPS, Op
from .sources import random_words

__all__ = [
    "OPS",
    "Array",
    "Op",
    "as_array",
    "cast_value",
    "convolution",
    "factorizations",
    "gradient",
    "indexing",
    "linear_algebra",
    "losses",
    "matrices",
    "normalization",
    "philox4x32",
    "pointwise",
    "pulls",
    "random_words",
    "reductions",
    "replay",
    "round_to_float32",
    "shapes",
    "sources",
    "spectra",
    "uniform_float32",
    "uniform_float64",
    "update",
]
