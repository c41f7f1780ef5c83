"""Element-by-element operations: each row is a name, the function and its partial derivatives.

The derivatives at kinks are PyTorch's: 0 for ``abs`` and ``relu`` at 0, 1 for ``clamp`` at its bounds but 0 for
``hardtanh`` at them, one half each for ``maximum`` and ``minimum`` of equal numbers.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from . import ieee
from .array import Array
from .elementwise import pointwise
from .registry import alias, define

SQRT_HALF = math.sqrt(0.5)
SQRT_TWO_PI = math.sqrt(2.0 * math.pi)
GELU_TANH_SCALE = math.sqrt(2.0 / math.pi)
GELU_TANH_CUBE = 0.044715
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def _zero(*inputs: Any, **attributes: Any) -> float:
    """The derivative of a step function, where it has one."""
    return 0.0


# --- arithmetic -------------------------------------------------------------------------------------------------

pointwise("neg", lambda x: -x, lambda x: -1.0)
pointwise("abs", abs, ieee.sign)
pointwise("sign", ieee.sign, _zero)
pointwise("add", lambda a, b, alpha=1: a + alpha * b, lambda a, b, alpha=1: 1.0, lambda a, b, alpha=1: alpha)
pointwise("sub", lambda a, b, alpha=1: a - alpha * b, lambda a, b, alpha=1: 1.0, lambda a, b, alpha=1: -alpha)
pointwise("mul", lambda a, b: a * b, lambda a, b: b, lambda a, b: a)
pointwise("square", lambda x: x * x, lambda x: 2 * x)
pointwise("reciprocal", lambda x: ieee.div(1.0, x), lambda x: -ieee.div(1.0, x) * ieee.div(1.0, x))
pointwise("sqrt", ieee.sqrt, lambda x: ieee.div(0.5, ieee.sqrt(x)))


def rsqrt(x: float) -> float:
    """1 / sqrt(x)."""
    return ieee.div(1.0, ieee.sqrt(x))


pointwise("rsqrt", rsqrt, lambda x: -0.5 * rsqrt(x) * rsqrt(x) * rsqrt(x))


def _floor_quotient(a: float, b: float) -> float:
    try:
        return a // b
    except ZeroDivisionError:
        if isinstance(a, int) and isinstance(b, int):
            raise
        return ieee.div(a, b)


def _divide(a: float, b: float, rounding_mode: str | None = None) -> float:
    if rounding_mode is None:
        return ieee.div(a, b)
    if rounding_mode == "floor":
        return _floor_quotient(a, b)
    if rounding_mode != "trunc":
        raise ValueError(f"div: rounding_mode {rounding_mode!r} is not None, 'trunc' or 'floor'")
    if isinstance(a, int) and isinstance(b, int):
        return (a - int(ieee.fmod(a, b))) // b
    return ieee.trunc(ieee.div(a, b))


pointwise(
    "div",
    _divide,
    lambda a, b, rounding_mode=None: 0.0 if rounding_mode else ieee.div(1.0, b),
    lambda a, b, rounding_mode=None: 0.0 if rounding_mode else -ieee.div(ieee.div(a, b), b),
)
pointwise("floor_divide", _floor_quotient, _zero, _zero)
# a = n b + r with a whole n: r moves with a, and against b by n.
pointwise("fmod", ieee.fmod, lambda a, b: 1.0, lambda a, b: -ieee.trunc(ieee.div(a, b)))
pointwise("remainder", ieee.remainder, lambda a, b: 1.0, lambda a, b: -_floor_quotient(a, b))


def _power_by_base(a: float, b: float) -> float:
    return 0.0 if b == 0 else b * ieee.power(a, b - 1)  # x**0 is constant, even at 0


def _power_by_exponent(a: float, b: float) -> float:
    if a == 0 and b >= 0:  # 0**b is 0 for all b > 0: log(0) must not meet it
        return 0.0
    return ieee.power(a, b) * ieee.log(a)


pointwise("pow", ieee.power, _power_by_base, _power_by_exponent)
pointwise("lerp", lambda a, b, w: a + w * (b - a), lambda a, b, w: 1 - w, lambda a, b, w: w, lambda a, b, w: b - a)
pointwise(
    "addcmul",
    lambda x, a, b, value=1: x + value * a * b,
    lambda x, a, b, value=1: 1.0,
    lambda x, a, b, value=1: value * b,
    lambda x, a, b, value=1: value * a,
)
pointwise(
    "addcdiv",
    lambda x, a, b, value=1: x + value * ieee.div(a, b),
    lambda x, a, b, value=1: 1.0,
    lambda x, a, b, value=1: ieee.div(value, b),
    lambda x, a, b, value=1: -value * ieee.div(ieee.div(a, b), b),
)

# --- exponentials and trigonometry --------------------------------------------------------------------------------

pointwise("exp", ieee.exp, ieee.exp)
pointwise("exp2", lambda x: ieee.power(2.0, x), lambda x: ieee.power(2.0, x) * math.log(2.0))
pointwise("expm1", ieee.expm1, ieee.exp)
pointwise("log", ieee.log, lambda x: ieee.div(1.0, x))
pointwise("log1p", ieee.log1p, lambda x: ieee.div(1.0, 1.0 + x))
pointwise("log2", ieee.log2, lambda x: ieee.div(1.0, x * math.log(2.0)))
pointwise("log10", ieee.log10, lambda x: ieee.div(1.0, x * math.log(10.0)))
pointwise("sin", ieee.sin, ieee.cos)
pointwise("cos", ieee.cos, lambda x: -ieee.sin(x))
pointwise("tan", ieee.tan, lambda x: 1.0 + ieee.tan(x) * ieee.tan(x))
pointwise("asin", ieee.asin, lambda x: rsqrt((1.0 - x) * (1.0 + x)))
pointwise("acos", ieee.acos, lambda x: -rsqrt((1.0 - x) * (1.0 + x)))
pointwise("atan", math.atan, lambda x: 1.0 / (1.0 + x * x))
pointwise(
    "atan2",
    math.atan2,
    lambda y, x: ieee.div(x, x * x + y * y) if (x, y) != (0, 0) else 0.0,
    lambda y, x: ieee.div(-y, x * x + y * y) if (x, y) != (0, 0) else 0.0,
)
pointwise("sinh", ieee.sinh, ieee.cosh)
pointwise("cosh", ieee.cosh, ieee.sinh)
pointwise("hypot", math.hypot, lambda a, b: ieee.div(a, math.hypot(a, b)), lambda a, b: ieee.div(b, math.hypot(a, b)))


def _sech_squared(x: float) -> float:
    """1 - tanh(x)**2 without its cancellation."""
    return 1.0 / ieee.cosh(x) / ieee.cosh(x)


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow on either side."""
    return 1.0 / (1.0 + ieee.exp(-x)) if x >= 0 else ieee.exp(x) / (1.0 + ieee.exp(x))


pointwise("tanh", math.tanh, _sech_squared)
pointwise("sigmoid", sigmoid, lambda x: sigmoid(x) * sigmoid(-x))
pointwise("erf", math.erf, lambda x: 2.0 / math.sqrt(math.pi) * ieee.exp(-x * x))
pointwise("erfc", math.erfc, lambda x: -2.0 / math.sqrt(math.pi) * ieee.exp(-x * x))


def log_add_exp(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) about the larger of the two."""
    high, low = ieee.maximum(a, b), ieee.minimum(a, b)
    return high if math.isinf(high) else high + math.log1p(ieee.exp(low - high))


pointwise("logaddexp", log_add_exp, lambda a, b: sigmoid(a - b), lambda a, b: sigmoid(b - a))

# --- activations ------------------------------------------------------------------------------------------------

# The derivative asks "x <= 0" and not "x > 0", so that a NaN passes the cotangent on, as in PyTorch.
pointwise("relu", lambda x: type(x)(0) if x <= 0 else x, lambda x: None if x <= 0 else 1.0)
pointwise("relu6", lambda x: ieee.minimum(ieee.maximum(x, 0.0), 6.0), lambda x: 1.0 if 0 < x < 6 else None)
pointwise(
    "leaky_relu",
    lambda x, negative_slope=0.01: x if x > 0 else x * negative_slope,
    lambda x, negative_slope=0.01: 1.0 if x > 0 else negative_slope,
)
pointwise(
    "elu",
    lambda x, alpha=1.0: x if x > 0 else alpha * ieee.expm1(x),
    lambda x, alpha=1.0: 1.0 if x > 0 else alpha * ieee.exp(x),
)
pointwise(
    "celu",
    lambda x, alpha=1.0: x if x > 0 else alpha * ieee.expm1(x / alpha),
    lambda x, alpha=1.0: 1.0 if x > 0 else ieee.exp(x / alpha),
)
pointwise(
    "selu",
    lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * ieee.expm1(x)),
    lambda x: SELU_SCALE * (1.0 if x > 0 else SELU_ALPHA * ieee.exp(x)),
)


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * SQRT_HALF)


def _normal_pdf(x: float) -> float:
    return ieee.exp(-0.5 * x * x) / SQRT_TWO_PI


def _gelu_inner(x: float) -> float:
    return GELU_TANH_SCALE * (x + GELU_TANH_CUBE * x * x * x)


def _gelu_tanh_slope(x: float) -> float:
    inner = _gelu_inner(x)
    inner_slope = GELU_TANH_SCALE * (1.0 + 3.0 * GELU_TANH_CUBE * x * x)
    return sigmoid(2.0 * inner) + 0.5 * x * _sech_squared(inner) * inner_slope


pointwise("gelu", lambda x: x * _normal_cdf(x), lambda x: _normal_cdf(x) + x * _normal_pdf(x))
# (1 + tanh u) / 2 is sigmoid(2u), which keeps its digits where tanh u is near -1.
pointwise("gelu_tanh", lambda x: x * sigmoid(2.0 * _gelu_inner(x)), _gelu_tanh_slope)
pointwise("silu", lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1.0 + x * sigmoid(-x)))


def log1p_exp(x: float) -> float:
    """log(1 + exp(x)), without overflow."""
    return x + math.log1p(ieee.exp(-x)) if x > 0 else math.log1p(ieee.exp(x))


pointwise(
    "softplus",
    lambda x, beta=1.0, threshold=20.0: x if x * beta > threshold else log1p_exp(x * beta) / beta,
    lambda x, beta=1.0, threshold=20.0: 1.0 if x * beta > threshold else sigmoid(x * beta),
)
pointwise("log_sigmoid", lambda x: -log1p_exp(-x), lambda x: sigmoid(-x))
alias("logsigmoid", "log_sigmoid")


def _mish_slope(x: float) -> float:
    soft = log1p_exp(x)
    return math.tanh(soft) + x * sigmoid(x) * _sech_squared(soft)


pointwise("mish", lambda x: x * math.tanh(log1p_exp(x)), _mish_slope)
pointwise("softsign", lambda x: ieee.div(x, 1.0 + abs(x)), lambda x: ieee.div(1.0, (1.0 + abs(x)) * (1.0 + abs(x))))
pointwise(
    "hardtanh",
    lambda x, min_val=-1.0, max_val=1.0: ieee.minimum(ieee.maximum(x, min_val), max_val),
    lambda x, min_val=-1.0, max_val=1.0: 1.0 if min_val < x < max_val else None,
)
pointwise(
    "hardsigmoid",
    lambda x: ieee.minimum(ieee.maximum(x + 3.0, 0.0), 6.0) / 6.0,
    lambda x: 1.0 / 6.0 if -3 < x < 3 else None,
)
pointwise(
    "hardswish",
    lambda x: x * ieee.minimum(ieee.maximum(x + 3.0, 0.0), 6.0) / 6.0,
    lambda x: None if x <= -3 else (1.0 if x >= 3 else x / 3.0 + 0.5),
)

# --- choices ----------------------------------------------------------------------------------------------------

# Where a NaN takes part neither side is the smaller, and both get the whole cotangent, as in PyTorch.
pointwise(
    "maximum",
    ieee.maximum,
    lambda a, b: 0.5 if a == b else (None if a < b else 1.0),
    lambda a, b: 0.5 if a == b else (None if b < a else 1.0),
)
pointwise(
    "minimum",
    ieee.minimum,
    lambda a, b: 0.5 if a == b else (None if a > b else 1.0),
    lambda a, b: 0.5 if a == b else (None if b > a else 1.0),
)


def _clamp(x: float, min: float | None = None, max: float | None = None) -> float:
    low = x if min is None or ieee.is_nan(x) or x >= min else min
    result = low if max is None or ieee.is_nan(low) or low <= max else max
    return float(result) if isinstance(x, float) else result


def _clamp_slope(x: float, min: float | None = None, max: float | None = None) -> float | None:
    inside = (min is None or x >= min) and (max is None or x <= max)
    return 1.0 if inside else None


pointwise("clamp", _clamp, _clamp_slope)
pointwise(
    "where",
    lambda condition, a, b: a if condition else b,
    None,
    lambda condition, a, b: 1.0 if condition else None,
    lambda condition, a, b: None if condition else 1.0,
)
pointwise(
    "masked_fill",
    lambda x, mask, value: value if mask else x,
    lambda x, mask, value: None if mask else 1.0,
    None,
    lambda x, mask, value: 1.0 if mask else None,
)

# --- whole numbers, comparisons, logic ----------------------------------------------------------------------------

pointwise("floor", ieee.floor, _zero)
pointwise("ceil", ieee.ceil, _zero)
pointwise("round", ieee.nearest, _zero)
pointwise("trunc", ieee.trunc, _zero)
pointwise("frac", lambda x: x - ieee.trunc(x), lambda x: 1.0)
pointwise("eq", lambda a, b: a == b)
pointwise("ne", lambda a, b: a != b)
pointwise("lt", lambda a, b: a < b)
pointwise("le", lambda a, b: a <= b)
pointwise("gt", lambda a, b: a > b)
pointwise("ge", lambda a, b: a >= b)
pointwise("logical_and", lambda a, b: bool(a) and bool(b))
pointwise("logical_or", lambda a, b: bool(a) or bool(b))
pointwise("logical_xor", lambda a, b: bool(a) != bool(b))
pointwise("logical_not", lambda a: not a)
pointwise("isnan", lambda x: ieee.is_nan(x))
pointwise("isinf", lambda x: math.isinf(x))
pointwise("isfinite", lambda x: math.isfinite(x))
pointwise("bitwise_and", lambda a, b: a & b)
pointwise("bitwise_or", lambda a, b: a | b)
pointwise("bitwise_xor", lambda a, b: a ^ b)
pointwise("bitwise_not", lambda a: not a if isinstance(a, bool) else ~a)
alias("clip", "clamp")

# --- casts ------------------------------------------------------------------------------------------------------

INTEGER_BITS = {"uint8": 8, "int32": 32, "int64": 64}


def round_to_float32(x: float) -> float:
    """The nearest float32, halves to even, as a Python float; too large numbers become infinite.

    Examples
    --------
    >>> round_to_float32(0.1)
    0.10000000149011612
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", x))[0])
    except OverflowError:
        return math.copysign(math.inf, x)


def cast_value(x: float, dtype: str) -> float:
    """Convert one number as C does: floats lose their fraction, whole numbers wrap around, non-zero is True.

    C leaves open what a float beyond the target's range becomes; here it wraps as a whole number does, and NaN and
    the infinities become 0. No test should hold a kernel to that.
    """
    if dtype == "bool":
        return x != 0
    if dtype == "float64":
        return float(x)
    if dtype == "float32":
        return round_to_float32(x)
    if dtype not in INTEGER_BITS:
        raise ValueError(f"cast: unknown dtype {dtype!r}")
    whole = math.trunc(x) if math.isfinite(x) else 0
    bits = INTEGER_BITS[dtype]
    wrapped = whole % (1 << bits)
    return wrapped - (1 << bits) if dtype != "uint8" and wrapped >= 1 << (bits - 1) else wrapped


def _cast(x: Array, dtype: str) -> Array:
    return Array([cast_value(value, dtype) for value in x.values], x.shape)


def _cast_vjp(cotangent: Array, x: Array, dtype: str) -> tuple[Array | None]:
    return (cotangent if dtype.startswith("float") and x.is_float else None,)


define("cast", _cast, _cast_vjp)
