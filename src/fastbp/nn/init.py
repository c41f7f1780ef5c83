"""nn.init: fill tensors with starting values.

Every function fills its tensor in place, outside any graph, and returns it. Random ones take a `generator`.
Sources: Glorot and Bengio 2010 (xavier), He et al. 2015 (kaiming), Saxe et al. 2014 (orthogonal).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .. import _core

if TYPE_CHECKING:
    from typing import Any

    from .._core import Tensor


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's weights are scaled to keep the variance through a nonlinearity.

    Parameters
    ----------
    nonlinearity : str
        "linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu" or a name of a convolution, such as "conv2d".
    param : float, optional
        For "leaky_relu" its negative slope. Default: 0.01.

    Raises
    ------
    ValueError
        For another name.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 0.75}
    if nonlinearity in gains:
        return gains[nonlinearity]
    if nonlinearity in {f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)}:
        return 1.0
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with draws from the uniform distribution on [a, b)."""
    with _core.no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with draws from the normal distribution."""
    with _core.no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with the value `val`."""
    with _core.no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity; raises ValueError for other than two dimensions."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    with _core.no_grad():
        return tensor.copy_(_core.eye(rows, columns))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """How many inputs each output has and how many outputs each input: (fan_in, fan_out) of a weight tensor."""
    if tensor.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fill uniformly in +-a, ``a = gain * sqrt(6 / (fan_in + fan_out))``; at least two dimensions, else ValueError."""
    fan_in, fan_out = _fans(tensor)
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fill normally, ``std = gain * sqrt(2 / (fan_in + fan_out))``; at least two dimensions, else ValueError."""
    fan_in, fan_out = _fans(tensor)
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / (fan_in + fan_out)), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _fans(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Fill uniformly in +-sqrt(3) std, ``std = gain / sqrt(fan)``.

    Parameters
    ----------
    tensor : Tensor
        At least two dimensions; one without elements is left as it is.
    a : float, optional
        Negative slope of the leaky ReLU that follows. Default: 0.
    mode : {"fan_in", "fan_out"}, optional
        Whether the forward or the backward pass keeps its variance. Default: "fan_in".
    nonlinearity : str, optional
        As in `calculate_gain`. Default: "leaky_relu".

    Raises
    ------
    ValueError
        For fewer than two dimensions, another mode or another nonlinearity.
    """
    if 0 in tensor.shape:
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Fill normally, ``std = gain / sqrt(fan)``; arguments and errors as `kaiming_uniform_`."""
    if 0 in tensor.shape:
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """Fill with `gain` times a random matrix with orthonormal rows or columns, whichever are fewer.

    Dimensions after the first count as columns. Raises ValueError for fewer than two dimensions.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if 0 in tensor.shape:
        return tensor
    import numpy

    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    normal = _core.randn(max(rows, columns), min(rows, columns), dtype=_core.float64, generator=generator)
    q, r = numpy.linalg.qr(normal.numpy())
    # QR leaves the columns' signs open; taking R's diagonal positive makes Q uniformly distributed.
    q *= numpy.sign(numpy.diagonal(r))
    matrix = numpy.ascontiguousarray((gain * (q.T if rows < columns else q)).reshape(tensor.shape))
    with _core.no_grad():
        return tensor.copy_(_core.from_numpy(matrix))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Fill with draws from the normal distribution restricted to [a, b] (values, not standard deviations).

    Raises
    ------
    ValueError
        When `std` is not positive, `a` is not below `b`, or no draw can come between them.
    """
    if not std > 0 or not a < b:
        raise ValueError(f"trunc_normal_ needs std > 0 and a < b, but got std={std}, a={a}, b={b}")
    import numpy

    low, high = (a - mean) / std, (b - mean) / std
    if not (low < math.inf and high > -math.inf):  # also where they are not numbers
        raise ValueError(f"trunc_normal_: no draw comes between a={a} and b={b} with mean={mean}, std={std}")
    count = tensor.numel()
    draws = numpy.empty(0)
    while draws.size < count:
        draws = numpy.concatenate([draws, _truncated_draws(low, high, count - draws.size, generator)])
    # Rounding must not carry a value over the bounds.
    values = numpy.clip(mean + std * draws[:count], a, b).reshape(tensor.shape)
    with _core.no_grad():
        return tensor.copy_(_core.from_numpy(numpy.ascontiguousarray(values)))


# Standard deviations beyond which all that is left of a tail lies between two neighbouring numbers.
FURTHEST = 1e8


def _truncated_draws(low: float, high: float, wanted: int, generator: Any) -> Any:
    """Up to about `wanted` draws from the standard normal distribution restricted to [low, high], by rejection."""
    import numpy

    mass = 0.5 * (math.erfc(-high / math.sqrt(2)) - math.erfc(-low / math.sqrt(2)))
    if mass > 0.1:
        proposals = _core.randn(int(wanted / mass) + 16, dtype=_core.float64, generator=generator).numpy()
        return proposals[(proposals >= low) & (proposals <= high)]
    # A narrow interval or a tail: uniform proposals z, accepted with the density relative to that at the interval's
    # densest point. A tail is cut where the density has fallen by exp(-50), which no draw would reach.
    densest = min(max(0.0, low), high)
    if abs(densest) > FURTHEST:
        return numpy.full(wanted, densest)
    reach = math.sqrt(densest**2 + 100.0)
    low, high = max(low, -reach), min(high, reach)
    uniform = _core.rand(2, 8 * wanted + 16, dtype=_core.float64, generator=generator).numpy()
    proposals = low + (high - low) * uniform[0]
    return proposals[uniform[1] <= numpy.exp((densest**2 - proposals**2) / 2)]
