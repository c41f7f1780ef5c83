"""The pure-Python reference is right by itself: worked examples forward, finite differences backward.

Nothing here calls a kernel. Every op of the registry must have an example and, if it is differentiable, a case for the
finite differences: a missing one fails by its name.
"""

from __future__ import annotations

import ast
import math
import pathlib
import random
from collections.abc import Callable
from typing import Any

import pytest

from fastbp import reference
from fastbp.reference import OPS, Array

nan, inf = math.nan, math.inf

# --- comparing ----------------------------------------------------------------------------------------------------


def close(a: Any, b: Any, tolerance: float = 1e-12) -> bool:
    """Equal types and structure, numbers to a relative (and below 1 absolute) tolerance, NaN equal to NaN."""
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        return len(a) == len(b) and all(close(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if type(a) is not type(b):
        return False
    if a is None or a == b or (a != a and b != b):
        return True
    return bool(abs(a - b) <= tolerance * max(1.0, abs(a), abs(b)))


def nested(value: Any) -> Any:
    if value is None or isinstance(value, Array):
        return value if value is None else value.to_nested()
    return [nested(part) for part in value]


def forward(name: str, *inputs: Any, **attributes: Any) -> Any:
    return nested(OPS[name].forward(*inputs, **attributes))


def vjp(name: str, cotangent: Any, *inputs: Any, **attributes: Any) -> Any:
    return nested(OPS[name].vjp(cotangent, *inputs, **attributes))


# --- forward: worked examples ---------------------------------------------------------------------------------------

UNARY: dict[str, Callable[[float], Any]] = {
    "neg": lambda x: -x,
    "abs": abs,
    "sign": lambda x: math.copysign(1.0, x),
    "square": lambda x: x**2,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: x**-0.5,
    "reciprocal": lambda x: 1 / x,
    "exp": math.exp,
    "exp2": lambda x: 2.0**x,
    "expm1": math.expm1,
    "log": math.log,
    "log1p": math.log1p,
    "log2": math.log2,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "asin": math.asin,
    "acos": math.acos,
    "atan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "erf": math.erf,
    "erfc": math.erfc,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "celu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "log_sigmoid": lambda x: -math.log(1 + math.exp(-x)),
    "mish": lambda x: x * math.tanh(math.log(1 + math.exp(x))),
    "softsign": lambda x: x / (1 + abs(x)),
    "hardtanh": lambda x: max(-1.0, min(1.0, x)),
    "hardsigmoid": lambda x: max(0.0, min(1.0, x / 6 + 0.5)),
    "hardswish": lambda x: x * max(0.0, min(1.0, x / 6 + 0.5)),
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "round": lambda x: float(round(x)),
    "trunc": lambda x: float(math.trunc(x)),
    "frac": lambda x: x - math.trunc(x),
    "isnan": lambda x: False,
    "isinf": lambda x: False,
    "isfinite": lambda x: True,
    "logical_not": lambda x: False,
    "clone": lambda x: x,
}
POSITIVE_ONLY = {"sqrt", "rsqrt", "log", "log2", "log10"}
WITHIN_ONE = {"asin", "acos", "log1p"}


def domain(name: str) -> list[float]:
    """Points off every kink where the function is defined."""
    if name in POSITIVE_ONLY:
        return [0.3, 1.7, 4.0]
    return [-0.7, 0.2, 0.6] if name in WITHIN_ONE else [-3.7, -1.3, -0.4, 0.45, 0.7, 2.6, 7.1]


@pytest.mark.parametrize("name", UNARY)
def test_unary_follows_its_definition(name: str) -> None:
    points = domain(name)
    assert close(forward(name, points), [UNARY[name](x) for x in points])


def wrapped(value: float, depth: int) -> Any:
    """``value`` in ``depth`` pairs of brackets."""
    return wrapped([value], depth - 1) if depth else value  # type: ignore[arg-type]


M = [[1.0, 2.0], [3.0, 4.0]]
EXAMPLES: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = [
    ("add", ([[1.0], [2.0]], [10.0, 20.0]), {}, [[11.0, 21.0], [12.0, 22.0]]),
    ("add", (1.0, 2.0), {"alpha": 3}, 7.0),
    ("sub", ([5, 3], 1), {}, [4, 2]),
    ("mul", ([2.0, 3.0], [4.0, 5.0]), {}, [8.0, 15.0]),
    ("div", ([1.0, -1.0, 0.0], [2.0, 0.0, 0.0]), {}, [0.5, -inf, nan]),
    ("div", ([7.0, -7.0], 2.0), {"rounding_mode": "floor"}, [3.0, -4.0]),
    ("div", ([7, -7], 2), {"rounding_mode": "trunc"}, [3, -3]),
    ("floor_divide", ([7.0, -7.0, 1.0], [2.0, 2.0, 0.0]), {}, [3.0, -4.0, inf]),
    ("pow", ([2.0, 0.0, -2.0, -8.0], [10.0, 0.0, 3.0, 0.5]), {}, [1024.0, 1.0, -8.0, nan]),
    ("fmod", ([5.0, -5.0, 5.0], [3.0, 3.0, -3.0]), {}, [2.0, -2.0, 2.0]),
    ("remainder", ([5.0, -5.0, 5.0], [3.0, 3.0, -3.0]), {}, [2.0, 1.0, -1.0]),
    ("lerp", (0.0, 10.0, 0.25), {}, 2.5),
    ("addcmul", (1.0, 2.0, 3.0), {"value": 0.5}, 4.0),
    ("addcdiv", (1.0, 3.0, 2.0), {"value": 2.0}, 4.0),
    ("atan2", (1.0, -1.0), {}, 0.75 * math.pi),
    ("hypot", (3.0, 4.0), {}, 5.0),
    ("logaddexp", (1000.0, 1000.0), {}, 1000.0 + math.log(2)),
    ("maximum", ([1.0, nan], [2.0, 0.0]), {}, [2.0, nan]),
    ("minimum", ([1.0, 5.0], [2.0, nan]), {}, [1.0, nan]),
    ("clamp", ([-2.0, 0.5, 2.0, nan],), {"min": -1, "max": 1}, [-1.0, 0.5, 1.0, nan]),
    ("where", ([True, False], 1.0, [2.0, 3.0]), {}, [1.0, 3.0]),
    ("masked_fill", ([1.0, 2.0], [False, True]), {"value": -inf}, [1.0, -inf]),
    ("eq", ([1.0, nan], [1.0, nan]), {}, [True, False]),
    ("ne", ([1.0, nan], [1.0, nan]), {}, [False, True]),
    ("lt", (1, 2), {}, True),
    ("le", (2, 2), {}, True),
    ("gt", (1, 2), {}, False),
    ("ge", (nan, 2.0), {}, False),
    ("logical_and", ([True, True], [True, False]), {}, [True, False]),
    ("logical_or", ([0.0, nan], [0.0, 0.0]), {}, [False, True]),
    ("logical_xor", ([1, 1], [2, 0]), {}, [False, True]),
    ("bitwise_and", (6, 3), {}, 2),
    ("bitwise_or", (6, 3), {}, 7),
    ("bitwise_xor", ([True, True], [True, False]), {}, [False, True]),
    ("bitwise_not", ([True, False],), {}, [False, True]),
    ("bitwise_not", (5,), {}, -6),
    ("cast", ([1.9, -1.9],), {"dtype": "int32"}, [1, -1]),
    ("cast", ([300, -1],), {"dtype": "uint8"}, [44, 255]),
    ("cast", ([2**31],), {"dtype": "int32"}, [-(2**31)]),
    ("cast", ([0.1, 1e300],), {"dtype": "float32"}, [0.10000000149011612, inf]),
    ("cast", ([0, 2],), {"dtype": "bool"}, [False, True]),
    ("sum", (M,), {"dim": 0}, [4.0, 6.0]),
    ("sum", (M,), {"dim": (0, 1), "keepdim": True}, [[10.0]]),
    ("sum", ([0.1] * 10,), {}, 1.0),
    ("mean", (M,), {"dim": -1}, [1.5, 3.5]),
    ("prod", (M,), {}, 24.0),
    ("all", ([[True, False], [True, True]],), {"dim": 1}, [False, True]),
    ("any", ([False, False],), {}, False),
    ("var", ([1.0, 2.0, 3.0, 4.0],), {}, 5 / 3),
    ("std", ([1.0, 3.0],), {"correction": 0}, 1.0),
    ("amax", ([[1.0, 5.0], [nan, 2.0]],), {"dim": 1}, [5.0, nan]),
    ("amin", (M,), {"dim": (0, 1)}, 1.0),
    ("max", (M,), {}, 4.0),
    ("max", ([[1.0, 5.0, 5.0], [nan, 9.0, nan]],), {"dim": 1}, [[5.0, nan], [1, 0]]),
    ("min", ([[2.0, 1.0, 1.0]],), {"dim": 1, "keepdim": True}, [[[1.0]], [[1]]]),
    ("argmax", (M,), {}, 3),
    ("argmax", ([1.0, nan, 3.0],), {}, 1),
    ("argmin", (M,), {"dim": 0}, [0, 0]),
    ("norm", ([3.0, -4.0],), {}, 5.0),
    ("norm", ([3.0, -4.0],), {"p": 1}, 7.0),
    ("norm", ([3.0, -4.0],), {"p": inf}, 4.0),
    ("logsumexp", ([1000.0, 1000.0],), {"dim": 0}, 1000.0 + math.log(2)),
    ("softmax", ([0.0, math.log(3.0)],), {"dim": 0}, [0.25, 0.75]),
    ("log_softmax", ([0.0, math.log(3.0)],), {"dim": 0}, [math.log(0.25), math.log(0.75)]),
    ("cumsum", (M,), {"dim": 0}, [[1.0, 2.0], [4.0, 6.0]]),
    ("cumsum", ([1.0, 2.0, 3.0],), {"dim": 0, "reverse": True}, [6.0, 5.0, 3.0]),
    ("cumprod", (M,), {"dim": 1}, [[1.0, 2.0], [3.0, 12.0]]),
    ("reshape", (M,), {"shape": (-1,)}, [1.0, 2.0, 3.0, 4.0]),
    ("view", (M,), {"shape": (4, 1)}, [[1.0], [2.0], [3.0], [4.0]]),
    ("permute", ([[[1, 2, 3]]],), {"dims": (2, 0, 1)}, [[[1]], [[2]], [[3]]]),
    ("transpose", (M,), {"dim0": 0, "dim1": 1}, [[1.0, 3.0], [2.0, 4.0]]),
    ("expand", ([[1], [2]],), {"size": (2, 3)}, [[1, 1, 1], [2, 2, 2]]),
    ("squeeze", ([[[1, 2]]],), {"dim": 0}, [[1, 2]]),
    ("unsqueeze", ([1, 2],), {"dim": -1}, [[1], [2]]),
    ("flatten", ([[[1, 2], [3, 4]]],), {"start_dim": 1}, [[1, 2, 3, 4]]),
    ("slice", ([[1, 2, 3], [4, 5, 6]],), {"start": (1, None), "stop": (None, -1)}, [[4, 5]]),
    ("slice", ([1, 2, 3, 4, 5],), {"start": 0, "step": 2}, [1, 3, 5]),
    ("slice", ([[1, 2, 3], [4, 5, 6]],), {"start": (1, 2), "step": (1, -2), "count": (1, 2), "dropped": (0,)}, [6, 4]),
    ("embed", ([7.0],), {"size": (2, 2), "start": (1, 0), "count": (1, 1), "dropped": (0,)}, [[0.0, 0.0], [7.0, 0.0]]),
    ("slice_assign", ([1, 2, 3, 4], 9), {"start": 1, "stop": 3}, [1, 9, 9, 4]),
    ("embed_diagonal", ([1.0, 2.0],), {"size": (2, 3), "offset": 1}, [[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]),
    ("triangle", (M,), {"upper": True}, [[1.0, 2.0], [0.0, 4.0]]),
    ("select", (M,), {"dim": 1, "index": -1}, [2.0, 4.0]),
    ("diagonal", (M,), {"offset": 1}, [2.0]),
    ("flip", (M,), {"dims": (1,)}, [[2.0, 1.0], [4.0, 3.0]]),
    ("roll", ([1, 2, 3],), {"shifts": 1}, [3, 1, 2]),
    ("repeat", ([1, 2],), {"repeats": (2, 2)}, [[1, 2, 1, 2], [1, 2, 1, 2]]),
    ("tril", (M,), {}, [[1.0, 0.0], [3.0, 4.0]]),
    ("triu", (M,), {"diagonal": 1}, [[0.0, 2.0], [0.0, 0.0]]),
    ("cat", ([[1], [2]], [[3, 4], [5, 6]]), {"dim": 1}, [[1, 3, 4], [2, 5, 6]]),
    ("stack", ([1, 2], [3, 4]), {"dim": 1}, [[1, 3], [2, 4]]),
    ("split", ([1, 2, 3, 4, 5],), {"split_size_or_sections": 2}, [[1, 2], [3, 4], [5]]),
    ("chunk", ([1, 2, 3, 4, 5],), {"chunks": 4}, [[1, 2], [3, 4], [5]]),
    ("unbind", (M,), {"dim": 1}, [[1.0, 3.0], [2.0, 4.0]]),
    ("index", ([10, 20, 30], [-1, 0]), {}, [30, 10]),
    ("index", (M, [[True, False], [False, True]]), {}, [1.0, 4.0]),
    ("index", ([[[1, 2], [3, 4]]], [0, 0], None, [0, 1]), {}, [[1, 3], [2, 4]]),
    ("index_put", ([1, 2, 3], 9, [0, 2]), {}, [9, 2, 9]),
    ("index_put", ([1, 2], [5, 6], [0, 0]), {"accumulate": True}, [12, 2]),
    ("gather", (M, [[1, 1], [0, 0]]), {"dim": 1}, [[2.0, 2.0], [3.0, 3.0]]),
    ("scatter", ([0, 0, 0], [2, 0], [7, 8]), {"dim": 0}, [8, 0, 7]),
    ("scatter", ([0, 0, 0], [1]), {"dim": 0, "value": 5}, [0, 5, 0]),
    ("scatter_add", ([1, 1], [0, 0], [2, 3]), {"dim": 0}, [6, 1]),
    ("index_select", (M, [1, 1]), {"dim": 0}, [[3.0, 4.0], [3.0, 4.0]]),
    ("index_add", ([1, 1], [1], [5]), {"dim": 0, "alpha": 2}, [1, 11]),
    ("take", ([[[1], [2]], [[3], [4]]], [3, -4]), {"axes": 2}, [[4], [1]]),
    ("put", ([[1], [2], [3]], [2, 0], [[9]]), {}, [[9], [2], [9]]),
    ("put_add", ([1, 2, 3], [2, 2], [10, 20]), {}, [1, 2, 33]),
    ("nonzero", ([[0.0, 1.0], [2.0, 0.0]],), {}, [[0, 1], [1, 0]]),
    ("argsort", ([2.0, nan, 1.0, 2.0],), {}, [2, 0, 3, 1]),
    ("argsort", ([2.0, nan, 1.0, 2.0],), {"descending": True}, [1, 0, 3, 2]),
    ("sort", ([[3], [1]],), {"dim": 0}, [[[1], [3]], [[1], [0]]]),
    ("topk", ([1.0, 3.0, 2.0],), {"k": 2}, [[3.0, 2.0], [1, 2]]),
    ("embedding", (M, [[1], [0]]), {}, [[[3.0, 4.0]], [[1.0, 2.0]]]),
    ("one_hot", ([1, 0],), {}, [[0, 1], [1, 0]]),
    ("matmul", (M, M), {}, [[7.0, 10.0], [15.0, 22.0]]),
    ("matmul", ([1, 2], [3, 4]), {}, 11),
    ("matmul", ([[[1, 2]], [[3, 4]]], [1, 1]), {}, [[3], [7]]),
    ("mm", ([[1, 2]], [[3], [4]]), {}, [[11]]),
    ("bmm", ([[[2]], [[3]]], [[[5]], [[7]]]), {}, [[[10]], [[21]]]),
    ("mv", (M, [1.0, 1.0]), {}, [3.0, 7.0]),
    ("dot", ([1, 2], [3, 4]), {}, 11),
    ("addmm", ([nan, nan], M, M), {"beta": 0, "alpha": 2}, [[14.0, 20.0], [30.0, 44.0]]),
    ("baddbmm", (1, [[[2]], [[3]]], [[[5]], [[7]]]), {}, [[[11]], [[22]]]),
    ("outer", ([1, 2], [3, 4]), {}, [[3, 4], [6, 8]]),
    ("linear", ([1.0, 2.0], [[1.0, 1.0], [0.0, 3.0]], [10.0, 20.0]), {}, [13.0, 26.0]),
    ("mse_loss", ([1.0, 2.0], [0.0, 0.0]), {}, 2.5),
    ("l1_loss", ([1.0, -2.0], [0.0, 0.0]), {"reduction": "sum"}, 3.0),
    ("smooth_l1_loss", ([0.5, 3.0], [0.0, 0.0]), {"reduction": "none", "beta": 2.0}, [0.0625, 2.0]),
    ("huber_loss", ([0.5, 3.0], [0.0, 0.0]), {"reduction": "none", "delta": 2.0}, [0.125, 4.0]),
    ("binary_cross_entropy", ([0.5, 0.0], [1.0, 1.0]), {"reduction": "none"}, [math.log(2), 100.0]),
    ("binary_cross_entropy_with_logits", ([0.0, 800.0], [1.0, 0.0]), {"reduction": "none"}, [math.log(2), 800.0]),
    ("binary_cross_entropy_with_logits", (0.0, 1.0, None, 3.0), {}, 3 * math.log(2)),
    ("nll_loss", ([[-1.0, -2.0], [-3.0, -4.0]], [1, 0]), {}, 2.5),
    ("nll_loss", ([[-1.0, -2.0], [-3.0, -4.0]], [1, 0], [1.0, 3.0]), {}, 2.25),
    ("nll_loss", ([[-1.0, -2.0]], [1]), {"ignore_index": 1}, nan),
    ("cross_entropy", ([[0.0, 0.0]], [0]), {}, math.log(2)),
    ("cross_entropy", ([[0.0, math.log(3.0)]], [1]), {"label_smoothing": 0.5}, -0.25 * math.log(0.25 * 0.75**3)),
    ("cross_entropy", ([[0.0, 0.0]], [[0.25, 0.75]]), {}, math.log(2)),
    ("kl_div", ([math.log(0.5)], [1.0]), {}, math.log(2)),
    ("squared_error", ([1.0, 2.0], 0.0), {}, [1.0, 4.0]),
    ("absolute_error", ([1.0, 2.0], 3.0), {}, [2.0, 1.0]),
    ("smooth_absolute_error", ([0.5, 3.0], 0.0), {"beta": 2.0}, [0.0625, 2.0]),
    ("huber_error", ([0.5, 3.0], 0.0), {"delta": 2.0}, [0.125, 4.0]),
    ("binary_entropy", (0.5, 1.0), {}, math.log(2)),
    ("binary_entropy_with_logits", (-800.0, 1.0), {}, 800.0),
    ("divergence_error", (math.log(0.5), 1.0), {}, math.log(2)),
    ("conv1d", ([[1.0, 2.0, 3.0]], [[[1.0, 10.0]]], [0.5]), {}, [[21.5, 32.5]]),
    ("conv1d", ([[1, 2, 3]], [[[1, 10]]]), {"padding": 1, "stride": 2}, [[10.0, 32.0]]),
    ("conv1d", ([[1, 2, 3]], [[[1, 10]]]), {"padding": "same"}, [[21.0, 32.0, 3.0]]),
    ("conv2d", ([[[1.0, 2.0], [3.0, 4.0]]], [[[[1.0, 0.0], [0.0, 1.0]]]]), {}, [[[5.0]]]),
    ("conv3d", ([[[[2.0]]]], [[[[[3.0]]]]]), {}, [[[[6.0]]]]),
    ("conv_transpose1d", ([[1.0, 2.0]], [[[1.0, 10.0]]]), {}, [[1.0, 12.0, 20.0]]),
    ("conv_transpose2d", ([[[2.0]]], [[[[1.0, 2.0], [3.0, 4.0]]]], [1.0]), {}, [[[3.0, 5.0], [7.0, 9.0]]]),
    ("conv_transpose3d", ([[[[2.0]]]], [[[[[3.0]]]]]), {}, [[[[6.0]]]]),
    *(
        (f"{kind}_pool{rank}d", (x,), attributes, expected)
        for rank in (1, 2, 3)
        for kind, attributes, x, expected in (
            ("max", {"kernel_size": 1}, wrapped(5.0, rank + 1), wrapped(5.0, rank + 1)),
            ("avg", {"kernel_size": 3, "padding": 1}, wrapped(3.0**rank, rank + 1), wrapped(1.0, rank + 1)),
            ("adaptive_max", {"output_size": 1}, wrapped(5.0, rank + 1), wrapped(5.0, rank + 1)),
            ("adaptive_avg", {"output_size": 1}, wrapped(5.0, rank + 1), wrapped(5.0, rank + 1)),
        )
    ),
    (
        "max_pool1d",
        ([[1.0, 4.0, 2.0]],),
        {"kernel_size": 2, "stride": 1, "return_indices": True},
        [[[4.0, 4.0]], [[1, 1]]],
    ),
    ("avg_pool1d", ([[1.0, 4.0, 2.0]],), {"kernel_size": 2, "ceil_mode": True}, [[2.5, 2.0]]),
    ("adaptive_avg_pool1d", ([[1.0, 2.0, 6.0]],), {"output_size": 2}, [[1.5, 4.0]]),
    ("pad", ([1.0, 2.0, 3.0],), {"pad": (2, 1), "mode": "reflect"}, [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]),
    ("pad", ([[1.0, 2.0]],), {"pad": (-1, 1, 1, 0), "value": 9.0}, [[9.0, 9.0], [2.0, 9.0]]),
    ("layer_norm", ([[1.0, 3.0]], [2.0, 2.0], [0.0, 1.0]), {"normalized_shape": (2,), "eps": 0.0}, [[-2.0, 3.0]]),
    ("group_norm", ([[1.0, 3.0]],), {"num_groups": 1, "eps": 0.0}, [[-1.0, 1.0]]),
    ("rms_norm", ([3.0, 3.0], [1.0, 2.0]), {"normalized_shape": (2,), "eps": 0.0}, [1.0, 2.0]),
    (
        "batch_norm",
        ([[1.0], [3.0]], [0.0], [1.0]),
        {"training": True, "momentum": 0.5, "eps": 0.0},
        [[[-1.0], [1.0]], [1.0], [1.5]],
    ),
    ("batch_norm", ([[1.0]], [3.0], [4.0], [10.0], [0.5]), {"eps": 0.0}, [[[-9.5]], [3.0], [4.0]]),
    ("dropout", ([1.0, 2.0], [True, False]), {"p": 0.75}, [4.0, 0.0]),
    ("full", (), {"size": (2,), "fill_value": 0.1, "dtype": "float32"}, [0.10000000149011612] * 2),
    ("arange", (), {"start": 0, "end": 5, "step": 2}, [0, 2, 4]),
    # The first block of key 0 is 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
    ("uniform", (), {"size": (1,), "seed": 0}, [0x6627E8 / 2**24]),
    ("uniform", (), {"size": (1,), "seed": 0, "dtype": "float64"}, [(0x6627E8D5E169C58D >> 11) / 2**53]),
    ("randint", (), {"size": (2,), "low": -8, "high": 8, "seed": 0}, [-8 + 0x6, -8 + 0xB]),
    ("bernoulli", (), {"size": (4,), "p": 0.5, "seed": 0}, [True, False, False, False]),
    ("permutation", (), {"n": 2, "seed": 0}, [1, 0]),
    ("permutation", (), {"n": 1, "seed": 0}, [0]),
    ("sgd", (1.0, 2.0, 10.0), {"lr": 0.1, "momentum": 0.5}, [0.3, 7.0]),
    ("sgd", (1.0, 2.0, None), {"lr": 0.5}, [0.0, None]),
    ("sgd", (1.0, -2.0, None), {"lr": 0.1, "momentum": 0.5, "nesterov": True, "maximize": True}, [0.7, 2.0]),
    # The first Adam step has the size of lr, whatever the gradient is.
    ("adam", (1.0, 4.0, 0.0, 0.0), {"lr": 0.1, "step": 1, "eps": 0.0}, [0.9, 0.4, 0.016, None]),
    ("adamw", (1.0, 4.0, 0.0, 0.0), {"lr": 0.1, "step": 1, "eps": 0.0, "weight_decay": 1}, [0.8, 0.4, 0.016, None]),
    # factorizations, packed as the core packs them; 3, 4, 5 and 5, 12, 13 make whole numbers
    ("inverse", ([[2.0, 1.0], [0.0, 4.0]],), {}, [[0.5, -0.125], [0.0, 0.25]]),
    ("inverse", ([[1.0, 2.0], [2.0, 4.0]],), {"lenient": True}, [[nan, nan], [nan, nan]]),
    ("solve", ([[0.0, 2.0], [4.0, 0.0]], [[2.0], [8.0]]), {}, [[2.0], [1.0]]),
    (
        "solve_triangular",
        ([[2.0, 9.0], [1.0, 4.0]], [[2.0], [5.0]]),
        {"upper": False, "unitriangular": False},
        [[1.0], [1.0]],
    ),
    (
        "solve_triangular",
        ([[9.0, 2.0], [9.0, 9.0]], [[5.0], [1.0]]),
        {"upper": True, "unitriangular": True},
        [[3.0], [1.0]],
    ),
    ("cholesky", ([[4.0, 9.0], [2.0, 5.0]],), {}, [[2.0, 0.0], [1.0, 2.0]]),
    ("det", ([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]],), {}, [-2.0, -1.0]),
    ("det", (Array([], (0, 0)),), {}, 1.0),
    ("slogdet", ([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]],), {}, [[-1.0, math.log(2.0)], [0.0, -inf]]),
    ("cofactor", ([[1.0, 2.0], [3.0, 4.0]],), {}, [[4.0, -3.0], [-2.0, 1.0]]),
    ("cofactor", ([[1.0, 1.0], [1.0, 1.0]],), {}, [[1.0, -1.0], [-1.0, 1.0]]),
    ("qr", ([[3.0, 5.0], [4.0, 0.0]],), {}, [[-0.6, -0.8], [-0.8, 0.6], [-5.0, 0.0], [-3.0, -4.0]]),
    ("qr", ([[3.0], [4.0]],), {"mode": "complete"}, [[-0.6, -0.8], [-0.8, 0.6], [-5.0, 0.0]]),
    ("qr", ([[3.0, 1.0]],), {}, [[1.0], [3.0], [1.0]]),
    ("eigh", ([[2.0, 9.0], [1.0, 2.0]],), {}, [[1.0, 3.0], [math.sqrt(0.5)] * 2, [-math.sqrt(0.5), math.sqrt(0.5)]]),
    ("eigh", ([[2.0, 9.0], [1.0, 2.0]],), {"values": True}, [[1.0, 3.0]]),
    ("svd", ([[0.0, -2.0], [1.0, 0.0]],), {}, [[2.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]),
    ("svd", ([[3.0, 4.0]],), {}, [[5.0], [1.0], [0.6], [0.8]]),
    ("svd", ([[3.0], [4.0]],), {"values": True}, [[5.0]]),
    ("pinv", ([[3.0, 4.0]],), {}, [[0.12], [0.16]]),
    ("pinv", ([[2.0, 0.0], [0.0, 1.0]],), {"atol": 1.0}, [[0.5, 0.0], [0.0, 0.0]]),
    # pulls that are ops of their own
    ("softmax_grad", ([1.0, 3.0], [0.25, 0.75]), {"dim": 0}, [-0.375, 0.375]),
    ("log_softmax_grad", ([1.0, 3.0], [math.log(0.25), math.log(0.75)]), {"dim": 0}, [0.0, 0.0]),
    ("prod_grad", ([2.0], [[3.0, 0.0, 5.0]]), {"dim": 1}, [[0.0, 30.0, 0.0]]),
    ("extreme_grad", ([2.0], [7.0], [[7.0, 1.0, 7.0]]), {"dim": 1}, [[1.0, 0.0, 1.0]]),
    ("nll_grad", (3.0, [1, 0]), {"classes": 2}, [[0.0, -1.5], [-1.5, 0.0]]),
    ("nll_grad", (3.0, [1, 7], [1.0, 2.0]), {"classes": 2, "ignore_index": 7}, [[0.0, -3.0], [0.0, 0.0]]),
    ("cross_entropy_grad", (2.0, [[0.0, 0.0]], [1]), {"reduction": "sum"}, [[1.0, -1.0]]),
    ("positions", ([0, -1], [2, 1]), {"size": (3, 4)}, [2, 9]),
    ("linspace", (), {"start": -1.0, "end": 2.0, "steps": 4}, [-1.0, 0.0, 1.0, 2.0]),
    ("linspace", (), {"start": 3.0, "end": 2.0, "steps": 1}, [3.0]),
    ("eye", (), {"n": 2, "m": 3, "dtype": "int64"}, [[1, 0, 0], [0, 1, 0]]),
    (
        "exponential",
        (),
        {"size": (1,), "seed": 0, "dtype": "float64"},
        [-math.log(((0x6627E8D5E169C58D >> 11) + 1) * 2.0**-53)],
    ),
]


@pytest.mark.parametrize(("name", "inputs", "attributes", "expected"), EXAMPLES)
def test_worked_example(name: str, inputs: Any, attributes: Any, expected: Any) -> None:
    assert close(forward(name, *inputs, **attributes), expected)


# --- backward: finite differences ------------------------------------------------------------------------------------

_draw = random.Random(20240229)


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return Array([_draw.uniform(low, high) for _ in range(math.prod(shape))], shape)


def between(*shape: int) -> Array:
    """Numbers strictly between 0 and 1."""
    return draw(*shape, low=0.1, high=0.9)


def matrix(*shape: int, symmetric: bool = False) -> Array:
    """Matrices that are far from singular, with values far from each other."""
    rows, columns = shape[-2:]
    x = draw(*shape, low=-1.0, high=1.0)
    for p in range(x.size):
        i, j = p % (rows * columns) // columns, p % columns
        x.values[p] += 3.0 * (i + 1) * (i == j)
    if symmetric:
        for p in range(x.size):
            i, j = p % (rows * columns) // columns, p % columns
            x.values[p] = x.values[mirrored(p, x.shape)] if j > i else x.values[p]
    return x


def mirrored(p: int, shape: tuple[int, ...]) -> int:
    """Where the element across the diagonal is."""
    n = shape[-1]
    i, j = p % (n * n) // n, p % n
    return p + (j - i) * (n - 1)


STEP = 1e-5
TOLERANCE = (
    1e-7  # truncation is about STEP**2 = 1e-10 of the third derivative, rounding 1e-16 / STEP = 1e-11 of the value
)

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *((name, (Array(domain(name), (len(domain(name)),)),), {}) for name in UNARY if OPS[name].differentiable),
    *((name, (draw(2, 1, 3), draw(4, 1)), {}) for name in ("add", "sub", "mul", "maximum", "minimum", "logaddexp")),
    *((name, (draw(2, 3), draw(3, low=0.5)), {}) for name in ("div", "fmod", "remainder", "atan2", "hypot")),
    ("div", (draw(3), draw(3, low=0.5)), {"rounding_mode": "floor"}),
    ("floor_divide", (draw(3), draw(3, low=0.5)), {}),
    ("add", (draw(2), draw()), {"alpha": 2.5}),
    ("sub", (draw(2), draw()), {"alpha": 2.5}),
    ("pow", (draw(2, 3, low=0.2), draw(3)), {}),
    ("lerp", (draw(2, 3), draw(3), draw(2, 1)), {}),
    ("addcmul", (draw(2, 3), draw(3), draw(2, 1)), {"value": 0.5}),
    ("addcdiv", (draw(2, 3), draw(3), draw(2, 1, low=0.5)), {"value": 0.5}),
    ("leaky_relu", (draw(6),), {"negative_slope": 0.3}),
    ("elu", (draw(6),), {"alpha": 1.7}),
    ("celu", (draw(6),), {"alpha": 1.7}),
    ("softplus", (draw(6),), {"beta": 2.0, "threshold": 1.0}),
    ("hardtanh", (draw(6),), {"min_val": -0.5, "max_val": 1.5}),
    ("clamp", (draw(6),), {"min": -0.5, "max": 1.0}),
    ("clamp", (draw(6),), {"min": None, "max": 0.5}),
    ("where", ([[True], [False]], draw(2, 3), draw(3)), {}),
    ("masked_fill", (draw(2, 3), [True, False, True], draw()), {}),
    ("cast", (draw(3),), {"dtype": "float64"}),
    *(
        (name, (draw(2, 3, 2),), {"dim": dim, "keepdim": keepdim})
        for name in ("sum", "mean", "var", "std", "amax", "amin", "norm", "logsumexp", "prod")
        for dim, keepdim in ((1, False), ((0, -1), True))
    ),
    *((name, (draw(2, 3),), {}) for name in ("sum", "mean", "var", "std", "prod", "max", "min", "norm")),
    *((name, (draw(2, 3),), {"correction": 0.5}) for name in ("var", "std")),
    *(("norm", (draw(2, 3),), {"p": p, "dim": 1}) for p in (0, 0.5, 1, 1.5, 3, inf, -inf)),
    ("prod", ([[0.0, 2.0, 3.0], [0.0, 0.0, 2.0]],), {"dim": 1}),
    *((name, (draw(2, 3),), {"dim": dim}) for name in ("max", "min") for dim in (0, 1)),
    *((name, (draw(2, 3),), {"dim": d}) for name in ("softmax", "log_softmax", "cumsum", "cumprod") for d in (0, 1)),
    ("cumsum", (draw(2, 3),), {"dim": 1, "reverse": True}),
    ("cumprod", ([2.0, 0.0, 3.0, 0.0, 4.0],), {"dim": 0}),
    ("reshape", (draw(2, 3),), {"shape": (3, -1)}),
    ("view", (draw(2, 3),), {"shape": (6,)}),
    ("permute", (draw(2, 3, 2),), {"dims": (2, 0, 1)}),
    ("transpose", (draw(2, 3, 2),), {"dim0": 0, "dim1": -1}),
    ("expand", (draw(2, 1),), {"size": (3, -1, 2)}),
    ("squeeze", (draw(1, 2, 1),), {}),
    ("unsqueeze", (draw(2),), {"dim": 0}),
    ("flatten", (draw(2, 3, 2),), {"start_dim": 1}),
    ("slice", (draw(3, 4),), {"start": (1, None), "stop": (None, -1), "step": (None, 2)}),
    ("slice", (draw(3, 4),), {"start": (2, 1), "step": (-2, 1), "count": (2, 1), "dropped": (1,)}),
    ("embed", (draw(2),), {"size": (3, 4), "start": (2, 1), "step": (-2, 1), "count": (2, 1), "dropped": (1,)}),
    ("slice_assign", (draw(3, 4), draw(2, 1)), {"start": (1,), "stop": (3,), "step": (1, 2)}),
    ("embed_diagonal", (draw(2, 3),), {"size": (2, 3, 4), "offset": 1, "dim1": 1, "dim2": 2}),
    ("triangle", (draw(3, 3),), {"diagonal": 1, "upper": True}),
    ("select", (draw(3, 4),), {"dim": 1, "index": -2}),
    ("diagonal", (draw(2, 3, 4),), {"offset": 1, "dim1": 1, "dim2": 2}),
    ("flip", (draw(2, 3),), {"dims": (0, 1)}),
    ("roll", (draw(2, 3),), {"shifts": (1, -1), "dims": (0, 1)}),
    ("repeat", (draw(2),), {"repeats": (2, 3)}),
    ("tril", (draw(3, 3),), {"diagonal": -1}),
    ("triu", (draw(2, 3, 3),), {"diagonal": 1}),
    ("cat", (draw(2, 1), draw(2, 3), draw(2, 0)), {"dim": 1}),
    ("stack", (draw(2, 2), draw(2, 2)), {"dim": -1}),
    ("split", (draw(2, 5),), {"split_size_or_sections": [1, 4], "dim": 1}),
    ("chunk", (draw(5),), {"chunks": 2}),
    ("unbind", (draw(2, 3),), {"dim": 1}),
    ("index", (draw(2, 3, 2), [[0, -1], [1, 1]], None, [1, 0]), {}),
    ("index", (draw(2, 3), None, [True, False, True]), {}),
    ("index_put", (draw(3, 2), draw(2), [2, 0]), {}),
    ("index_put", (draw(3, 2), draw(2, 2), [0, 0]), {"accumulate": True}),
    ("gather", (draw(2, 3), [[2, 0], [1, 1]]), {"dim": 1}),
    ("scatter", (draw(2, 3), [[2, 0], [1, 0]], draw(2, 3)), {"dim": 1}),
    ("scatter_add", (draw(2, 3), [[0, 0, 1]], draw(2, 3)), {"dim": 0}),
    ("index_select", (draw(2, 3), [2, 2, 0]), {"dim": 1}),
    ("index_add", (draw(3, 2), [1, 1], draw(2, 2)), {"dim": 0, "alpha": 2.0}),
    ("take", (draw(2, 3, 2), [5, 0, 5]), {"axes": 2}),
    ("put", (draw(2, 3, 2), [5, 0], draw(2)), {"axes": 2}),
    ("put_add", (draw(3, 2), [1, 1], draw(2, 2)), {}),
    ("sort", (draw(3, 4),), {"dim": 0, "descending": True}),
    ("topk", (draw(3, 4),), {"k": 2, "dim": 1, "largest": False}),
    ("embedding", (draw(4, 2), [[3, 0], [3, 1]]), {}),
    *(
        ("matmul", (draw(*a), draw(*b)), {})
        for a, b in (((3,), (3,)), ((2, 3), (3,)), ((3,), (2, 3, 2)), ((2, 1, 2, 3), (3, 3, 2)))
    ),
    ("mm", (draw(2, 3), draw(3, 2)), {}),
    ("bmm", (draw(2, 2, 3), draw(2, 3, 2)), {}),
    ("mv", (draw(2, 3), draw(3)), {}),
    ("dot", (draw(3), draw(3)), {}),
    ("addmm", (draw(2), draw(3, 2), draw(2, 2)), {"beta": 0.5, "alpha": 2.0}),
    ("baddbmm", (draw(2, 1, 2), draw(2, 3, 2), draw(2, 2, 2)), {}),
    ("outer", (draw(2), draw(3)), {}),
    ("linear", (draw(2, 2, 3), draw(4, 3), draw(4)), {}),
    ("linear", (draw(2, 3), draw(3)), {}),
    *((name, (matrix(2, 3, 3),), {}) for name in ("inverse", "det", "cofactor", "slogdet", "qr", "svd", "pinv")),
    *((name, (matrix(*s),), {}) for name in ("qr", "svd", "pinv") for s in ((2, 4), (4, 2))),
    ("svd", (matrix(4, 2),), {"values": True}),
    ("pinv", ([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]],), {"rtol": 1e-9}),
    ("cofactor", ([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 5.0]],), {}),
    *((name, (matrix(2, 3, 3, symmetric=True),), {}) for name in ("cholesky", "eigh")),
    ("eigh", (matrix(3, 3, symmetric=True),), {"values": True}),
    *(("solve", (matrix(*a), draw(*b)), {}) for a, b in (((2, 3, 3), (3, 2)), ((3, 3), (2, 3, 1)))),
    *(
        ("solve_triangular", (matrix(2, 3, 3), draw(3, 2)), {"upper": upper, "unitriangular": unit})
        for upper in (False, True)
        for unit in (False, True)
    ),
    *(
        (name, (draw(2, 3), draw(2, 3)), {"reduction": reduction, **extra})
        for name, extra in (
            ("mse_loss", {}),
            ("l1_loss", {}),
            ("smooth_l1_loss", {"beta": 0.7}),
            ("huber_loss", {"delta": 0.7}),
            ("binary_cross_entropy_with_logits", {}),
            ("kl_div", {"log_target": True}),
        )
        for reduction in ("none", "mean", "sum")
    ),
    ("conv1d", (draw(2, 4, 6), draw(4, 4, 3), draw(4)), {"stride": 2, "padding": 1}),
    ("conv1d", (draw(2, 2, 5), draw(2, 2, 3), draw(2)), {"dilation": 2, "padding": "same"}),
    ("conv1d", (draw(4, 5), draw(4, 2, 3)), {"groups": 2, "padding": "valid"}),
    ("conv2d", (draw(2, 4, 3), draw(2, 2, 2, 3)), {"stride": (2, 1), "padding": (0, 1)}),
    ("conv3d", (draw(1, 1, 2, 3, 2), draw(2, 1, 2, 2, 1), draw(2)), {}),
    ("conv_transpose1d", (draw(2, 4, 3), draw(4, 1, 3), draw(2)), {"stride": 2, "groups": 2, "output_padding": 1}),
    ("conv_transpose2d", (draw(2, 2, 2), draw(2, 1, 2, 2)), {"dilation": 2, "padding": 1}),
    ("conv_transpose3d", (draw(1, 2, 1, 2, 2), draw(2, 1, 2, 2, 1)), {}),
    *(
        (f"{kind}_pool{rank}d", (draw(2, *(5, 4, 3)[-rank:]),), attributes)
        for rank in (1, 2, 3)
        for kind, attributes in (
            ("max", {"kernel_size": 2, "stride": 1, "padding": 1}),
            ("max", {"kernel_size": 2, "return_indices": True}),
            ("avg", {"kernel_size": 2, "padding": 1, "ceil_mode": True}),
            ("avg", {"kernel_size": 2, "padding": 1, "count_include_pad": False}),
            ("adaptive_max", {"output_size": 2}),
            ("adaptive_avg", {"output_size": 2}),
        )
    ),
    *(("pad", (draw(2, 4),), {"pad": (2, 1), "mode": m}) for m in ("constant", "reflect", "replicate", "circular")),
    ("layer_norm", (draw(2, 3, 2), draw(3, 2), draw(3, 2)), {"normalized_shape": (3, 2)}),
    ("group_norm", (draw(2, 4, 3), draw(4), draw(4)), {"num_groups": 2}),
    ("rms_norm", (draw(2, 3), draw(3)), {"normalized_shape": (3,), "eps": 0.1}),
    *(
        ("batch_norm", (draw(4, 2, 2), draw(2), between(2), draw(2), draw(2)), {"training": training, "momentum": 0.0})
        for training in (True, False)
    ),
    ("dropout", (draw(4), [True, False, True, True]), {"p": 0.3}),
    *((name, (draw(2, 3), draw(3)), {}) for name in ("squared_error", "absolute_error", "binary_entropy_with_logits")),
    ("smooth_absolute_error", (draw(5), draw(5)), {"beta": 0.7}),
    ("huber_error", (draw(5), draw(5)), {"delta": 0.7}),
    ("binary_entropy", (between(3), between(3)), {}),
    ("divergence_error", (draw(3), between(3)), {}),
    ("kl_div", (draw(3), between(3)), {}),
    ("binary_cross_entropy", (between(2, 3), between(2, 3), between(3)), {}),
    ("binary_cross_entropy_with_logits", (draw(2, 3), between(2, 3), between(3), between(3)), {}),
    *(("nll_loss", (draw(3, 4), [1, 3, 0], w), {"ignore_index": 3}) for w in (None, between(4))),
    ("nll_loss", (draw(2, 3, 2), [[0, 2], [1, 1]]), {"reduction": "none"}),
    *(
        ("cross_entropy", (draw(3, 4), target, w), {"label_smoothing": s, "ignore_index": 3, "reduction": reduction})
        for w in (None, between(4))
        for s in (0.0, 0.1)
        for target, reduction in (([1, 3, 0], "mean"), (between(3, 4), "mean"), ([1, 3, 0], "none"))
    ),
    *((f"{name}_grad", (draw(2, 3), draw(2, 3)), {"dim": d}) for name in ("softmax", "log_softmax") for d in (0, 1)),
    ("prod_grad", (draw(2), draw(2, 3)), {"dim": 1}),
    ("prod_grad", (draw(1, 1), [[0.0, 2.0], [3.0, 0.0]]), {"dim": (0, 1), "keepdim": True}),
    ("extreme_grad", (draw(2), [1.0, 1.0], [[0.5, 1.0], [1.0, 1.0]]), {"dim": 1}),
    *(
        ("nll_grad", (draw(*shape), [1, 3, 0], w), {"classes": 4, "reduction": reduction, "label_smoothing": 0.1})
        for shape, reduction in (((), "mean"), ((), "sum"), ((3,), "none"))
        for w in (None, between(4))
    ),
    ("nll_loss", (draw(3, 4), [1, 3, 0], between(4)), {"label_smoothing": 0.1}),
    *(
        (
            "cross_entropy_grad",
            (draw(*shape), draw(3, 4), [1, 3, 0]),
            {"reduction": reduction, "ignore_index": 3, **smooth},
        )
        for shape, reduction in (((), "mean"), ((), "sum"), ((3,), "none"))
        for smooth in ({}, {"label_smoothing": 0.1})
    ),
]


def outputs(result: Any) -> list[Array]:
    return list(result) if isinstance(result, tuple) else [result]


def worst_disagreement(name: str, inputs: tuple[Any, ...], attributes: dict[str, Any]) -> float:
    """Largest difference between a vjp and central differences of cotangent . forward, relative where above 1."""
    op = OPS[name]
    arrays = [reference.as_array(value) for value in inputs]
    plain = op.forward(*arrays, **attributes)
    cotangents = [draw(*y.shape) if y.is_float else None for y in outputs(plain)]
    pulled = op.vjp(tuple(cotangents) if isinstance(plain, tuple) else cotangents[0], *arrays, **attributes)
    assert len(pulled) == len(arrays)

    def paired() -> float:
        results = outputs(op.forward(*arrays, **attributes))
        pairs = [(g, y) for g, y in zip(cotangents, results, strict=True) if g is not None]
        return math.fsum(a * b for g, y in pairs for a, b in zip(g.values, y.values, strict=True))

    worst = 0.0
    # Of symmetric matrices both triangles move, each by half: there the rules hold.
    symmetric = name in ("cholesky", "eigh")
    for x, gradient in zip(arrays, pulled, strict=True):
        if gradient is None:
            continue
        assert x is not None and gradient.shape == x.shape
        for p in range(x.size):
            places = (p, mirrored(p, x.shape)) if symmetric else (p,)
            kept = list(x.values)
            for at in places:
                x.values[at] += STEP / len(places)
            above = paired()
            x.values[:] = kept
            for at in places:
                x.values[at] -= STEP / len(places)
            below = paired()
            x.values[:] = kept
            difference = abs((above - below) / (2 * STEP) - gradient.values[p])
            worst = max(worst, difference / max(1.0, abs(gradient.values[p])))
    return worst


@pytest.mark.parametrize(("name", "inputs", "attributes"), CASES)
def test_vjp_agrees_with_finite_differences(name: str, inputs: Any, attributes: Any) -> None:
    assert worst_disagreement(name, inputs, attributes) < TOLERANCE


def test_finite_differences_object_to_a_wrong_vjp(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = reference.Op("sin", lambda x: x, lambda g, x: (Array([2 * v for v in g.values], g.shape),))
    monkeypatch.setitem(OPS, "sin", wrong)
    assert worst_disagreement("sin", (draw(3),), {}) > 1e3 * TOLERANCE


def test_the_reference_imports_nothing_but_the_standard_library() -> None:
    allowed = {"__future__", "collections.abc", "itertools", "math", "struct", "typing"}
    for path in pathlib.Path(reference.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1 or (node.level == 0 and node.module in allowed), path


def test_every_op_has_an_example_and_a_case() -> None:
    examples = {OPS["normal"]} | {OPS[name] for name, *_ in EXAMPLES} | {OPS[name] for name in UNARY}
    cases = {OPS[name] for name, *_ in CASES}
    assert [name for name, op in OPS.items() if op not in examples] == []
    assert [name for name, op in OPS.items() if op.differentiable and op not in cases] == []


# --- kinks, ties and NaN ----------------------------------------------------------------------------------------------

KINKS: list[tuple[str, Any, tuple[Any, ...], dict[str, Any], Any]] = [
    ("abs", [1.0], ([0.0],), {}, [[0.0]]),
    ("relu", [1.0, 1.0], ([0.0, nan],), {}, [[0.0, 1.0]]),
    ("relu", [inf], ([-1.0],), {}, [[0.0]]),
    ("leaky_relu", [1.0], ([0.0],), {}, [[0.01]]),
    ("elu", [1.0], ([0.0],), {"alpha": 2.0}, [[2.0]]),
    ("hardtanh", [1.0, 1.0], ([-1.0, 1.0],), {}, [[0.0, 0.0]]),
    ("clamp", [1.0] * 3, ([-1.0, 1.0, 1.5],), {"min": -1, "max": 1}, [[1.0, 1.0, 0.0]]),
    ("maximum", [1.0, 1.0], ([2.0, nan], [2.0, 1.0]), {}, [[0.5, 1.0], [0.5, 1.0]]),
    ("minimum", [1.0, 1.0], ([2.0, 1.0], [2.0, 3.0]), {}, [[0.5, 1.0], [0.5, 0.0]]),
    ("where", [inf, inf], ([True, False], [1.0, 1.0], [1.0, 1.0]), {}, [None, [inf, 0.0], [0.0, inf]]),
    ("pow", [1.0] * 3, ([0.0] * 3, [0.0, 1.0, 2.0]), {}, [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
    ("sqrt", [1.0], ([0.0],), {}, [[inf]]),
    ("amax", 1.0, ([2.0, 1.0, 2.0],), {}, [[0.5, 0.0, 0.5]]),
    ("amin", [1.0], ([[1.0, 1.0]],), {"dim": 1}, [[[0.5, 0.5]]]),
    ("max", 1.0, ([2.0, 1.0, 2.0],), {}, [[0.5, 0.0, 0.5]]),
    ("max", 1.0, ([nan, 1.0, nan],), {}, [[0.5, 0.0, 0.5]]),
    ("max", ([1.0], None), ([[2.0, 1.0, 2.0]],), {"dim": 1}, [[[1.0, 0.0, 0.0]]]),
    ("min", ([1.0], None), ([[2.0, nan, nan]],), {"dim": 1}, [[[0.0, 1.0, 0.0]]]),
    ("prod", 1.0, ([0.0, 2.0, 3.0],), {}, [[6.0, 0.0, 0.0]]),
    ("prod", 1.0, ([0.0, 0.0, 3.0],), {}, [[0.0, 0.0, 0.0]]),
    ("norm", 1.0, ([0.0, 0.0],), {}, [[0.0, 0.0]]),
    ("norm", 1.0, ([0.0, -3.0],), {"p": 1}, [[0.0, -1.0]]),
    ("norm", 1.0, ([3.0, -3.0],), {"p": inf}, [[0.5, -0.5]]),
    ("std", 1.0, ([2.0, 2.0],), {}, [[0.0, 0.0]]),
    ("l1_loss", 1.0, ([1.0], [1.0]), {}, [[0.0], [0.0]]),
    ("smooth_l1_loss", 1.0, ([3.0], [1.0]), {"beta": 2.0}, [[1.0], [-1.0]]),
    ("embedding", [[1.0, 1.0]], (M, [0]), {"padding_idx": 0}, [[[0.0, 0.0], [0.0, 0.0]], None]),
    ("softplus", [1.0], ([30.0],), {}, [[1.0]]),
]


@pytest.mark.parametrize(("name", "cotangent", "inputs", "attributes", "expected"), KINKS)
def test_derivative_at_a_kink_is_pytorchs(
    name: str, cotangent: Any, inputs: Any, attributes: Any, expected: Any
) -> None:
    assert close(vjp(name, cotangent, *inputs, **attributes), expected)


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "error"),
    [
        ("add", ([1.0, 2.0], [1.0, 2.0, 3.0]), {}, ValueError),
        ("matmul", ([1.0, 2.0], [1.0, 2.0, 3.0]), {}, ValueError),
        ("reshape", ([1.0, 2.0],), {"shape": (3,)}, ValueError),
        ("sum", ([1.0],), {"dim": 1}, IndexError),
        ("gather", ([1.0], [1]), {"dim": 0}, IndexError),
        ("index", ([1.0], [1]), {}, IndexError),
        ("max", ([],), {}, ValueError),
        ("nll_loss", ([[0.0, 0.0]], [2]), {}, IndexError),
        ("mse_loss", ([1.0], [1.0]), {"reduction": "average"}, ValueError),
        ("cat", ([[1.0]], [[1.0], [2.0]]), {"dim": 1}, ValueError),
    ],
)
def test_bad_input_raises(name: str, inputs: Any, attributes: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        OPS[name].forward(*inputs, **attributes)


# --- arrays, random numbers, graphs -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, [], [1, 2], [[1.0], [2.0]], [[], []], [[[True]]]])
def test_nested_lists_survive_the_round_trip(value: Any) -> None:
    assert Array.from_nested(value).to_nested() == value


def test_ragged_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="ragged"):
        Array.from_nested([[1, 2], [3]])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that the authors of Philox publish with it
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: Any, key: Any, expected: Any) -> None:
    assert reference.philox4x32(counter, key) == expected


def test_normal_numbers_have_their_moments() -> None:
    for dtype in ("float32", "float64"):
        values = OPS["normal"].forward(size=(4000,), mean=1.0, std=2.0, seed=5, dtype=dtype).values
        mean = math.fsum(values) / 4000
        assert abs(mean - 1.0) < 0.15  # five standard errors of 2 / sqrt(4000)
        assert abs(math.fsum((v - mean) ** 2 for v in values) / 4000 - 4.0) < 0.45  # five of 4 sqrt(2 / 4000)


def test_random_numbers_do_not_depend_on_where_a_call_begins() -> None:
    whole = OPS["uniform"].forward(size=(12,), seed=1, stream=2, offset=2**32 - 1).values
    assert OPS["uniform"].forward(size=(8,), seed=1, stream=2, offset=2**32).values == whole[4:]


def test_uniform_numbers_stay_below_one() -> None:
    assert reference.uniform_float32(0) == 0.0 == reference.uniform_float64(0, 0)
    assert reference.uniform_float32(0xFFFFFFFF) == 1 - 2.0**-24
    assert reference.uniform_float64(0xFFFFFFFF, 0xFFFFFFFF) == 1 - 2.0**-53
    assert reference.round_to_float32(reference.uniform_float32(0xFFFFFFFF)) < 1.0


def test_gradient_sums_over_paths() -> None:
    """y = x exp(x x): x is used three times, and its derivative is the sum of three paths."""
    program: list[Any] = [("mul", (0, 0), {}), ("exp", (1,), {}), ("mul", (0, 2), {})]
    values = reference.replay(program, [1.0])
    assert values[-1].item() == 2.718281828459045
    assert close([g.item() for g in reference.gradient(program, [1.0])], [8.154845485377136], 1e-15)


def test_gradient_of_ln_x1_plus_x1_x2_minus_sin_x2() -> None:
    program: list[Any] = [
        ("log", (0,), {}),
        ("mul", (0, 1), {}),
        ("add", (2, 3), {}),
        ("sin", (1,), {}),
        ("sub", (4, 5), {}),
    ]
    assert close(reference.replay(program, [2.0, 5.0])[-1].item(), 11.652071455223084, 1e-15)
    gradients = [g.item() for g in reference.gradient(program, [2.0, 5.0])]
    assert close(gradients, [5.5, 1.7163378145367738], 1e-15)


def test_gradient_of_a_sigmoid_neuron() -> None:
    program: list[Any] = [[-1.0, -2.0, 1.0], ("dot", (0, 1), {}), ("sigmoid", (2,), {})]
    assert close(reference.replay(program, [[2.0, -3.0, -3.0]])[-1].item(), 0.7310585786300049, 1e-15)
    gradient = reference.gradient(program, [[2.0, -3.0, -3.0]])[0].to_nested()
    assert close(gradient, [-0.19661193324148185, -0.3932238664829637, 0.19661193324148185], 1e-15)


def test_gradient_through_one_of_several_outputs() -> None:
    program: list[Any] = [("max", (0,), {"dim": 1}), ("sum", ((2, 0),), {}), ("mul", (3, (3, 0)), {})]
    leaves = [[[1.0, 5.0], [7.0, 2.0]], [1.0]]
    gradients = reference.gradient(program, leaves)
    assert nested(gradients) == [[[0.0, 24.0], [24.0, 0.0]], [0.0]]


def test_gradient_starts_where_and_with_what_is_asked() -> None:
    program: list[Any] = [("mul", (0, 1), {}), ("exp", (2,), {})]
    assert nested(reference.gradient(program, [10.0, 5.0], output=2, cotangent=1.3)) == [6.5, 13.0]
    with pytest.raises(ValueError, match="cotangent"):
        reference.gradient(program, [10.0, 5.0], output=2, cotangent=[1.0])
    with pytest.raises(KeyError):
        reference.replay([("no such op", (0,), {})], [1.0])
