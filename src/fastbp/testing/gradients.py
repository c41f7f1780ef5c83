"""Derivatives against finite differences, along random directions, in both modes and to any order.

One number judges a whole Jacobian J: u . J v, for random u and v. A finite difference gives it as the slope of u . f
along v; reverse mode as (J'u) . v; forward mode as u . (J v). The last two need no finite difference to agree: they
must be equal to rounding. A second derivative is the same check of the function that the first one computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core import Tensor, forward_gradient, from_numpy, grad, keep_values

Function = Callable[..., Any]

# The central difference of five points errs by step**4 f^(5) / 30 and by rounding of about 2e-16 |f| / step: here both
# are below 1e-12 unless the fifth derivative exceeds some hundreds.
STEP = 5e-4
OFFSETS = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
ROUNDING = 2.0**-53
ORDER_MOST = 10  # of the derivatives that check_grads looks at


def check_grads(
    fn: Function,
    *inputs: Any,
    modes: Sequence[str] = ("rev", "fwd"),
    order: int = 2,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    step: float = STEP,
    seed: int = 0,
) -> None:
    """Raise unless the derivatives of a function agree with finite differences, and both modes with each other.

    Parameters
    ----------
    fn : callable
        Of tensors, to a tensor or a sequence of tensors. It is called some ten times an order, and must be smooth
        within two steps of the inputs.
    *inputs : Tensor or array
        Float64 ones are differentiated; the others are passed on as they are.
    modes : sequence of str, optional
        "rev", "fwd" or (default) both; each order is checked by each mode over each of the order before.
    order : int, optional
        The highest derivative, 10 at most: each takes as many checks as all before it. Default: 2.
    rtol, atol : float, optional
        Of the agreement with finite differences, relative to the size of the terms that are added up. Defaults: 1e-7
        and 1e-9.
    step : float, optional
        Of the finite difference. Default: 5e-4.
    seed : int, optional
        Of the random directions. Default: 0.

    Raises
    ------
    AssertionError
        With the order, the mode and both numbers.
    TypeError
        If no input is a float64 tensor: float32 has too few digits for finite differences.
    ValueError
        If a mode is neither "rev" nor "fwd", or the order is not from 1 to 10.

    Examples
    --------
    >>> x = fastbp.tensor([0.5, 1.0], dtype=fastbp.float64)
    >>> fastbp.testing.check_grads(lambda x: x.exp() * x, x)
    """
    if not 1 <= order <= ORDER_MOST or not modes or any(mode not in ("rev", "fwd") for mode in modes):
        raise ValueError(
            f"check_grads: order {order} must be from 1 to {ORDER_MOST} and modes {tuple(modes)} of 'rev' and 'fwd'"
        )
    tensors = [x if isinstance(x, Tensor) else from_numpy(np.asarray(x)) for x in inputs]
    places = [i for i, x in enumerate(tensors) if _is_real(x)]
    if not places:
        raise TypeError("check_grads: at least one input must be of dtype float64")

    def of_reals(*reals: Tensor) -> list[Tensor]:
        arguments = list(tensors)
        for i, x in zip(places, reals, strict=True):
            arguments[i] = x
        return _outputs(fn(*arguments))

    values = [tensors[i].detach().numpy().copy() for i in places]
    _check(of_reals, values, tuple(modes), order, (rtol, atol, step), np.random.default_rng(seed), "")


def _is_real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.name == "float64"


def _outputs(result: Any) -> list[Tensor]:
    """The differentiable outputs of a function: float64 tensors among what it returns."""
    return [y for y in ([result] if isinstance(result, Tensor) else result) if _is_real(y)]


Values = list[np.ndarray[Any, Any]]


def _check(
    fn: Function,
    values: Values,
    modes: tuple[str, ...],
    order: int,
    tolerance: tuple[float, float, float],
    random: np.random.Generator,
    path: str,
) -> None:
    """Check first derivatives of `fn`, and by recursion those of its first derivatives; `path` says what `fn` is."""
    outputs = _evaluate(fn, values)
    v = [np.asarray(random.standard_normal(x.shape)) for x in values]
    u = [np.asarray(random.standard_normal(y.shape)) for y in outputs]
    measured, scale = _finite_difference(fn, values, v, u, tolerance[2])
    results = {}
    for mode, differentiate in (("rev", _reverse), ("fwd", _forward)):
        if mode in modes:
            results[mode], size = differentiate(fn, values, v, u)
            _compare(results[mode], measured, max(scale, size), tolerance, f"{path}{mode}")
    if len(results) == 2:
        _compare_modes(results["rev"], results["fwd"], size, sum(x.size for x in (*values, *outputs)), path)
    if order > 1:
        count = len(values)
        for mode in modes:
            derivative = _pulled(fn, count) if mode == "rev" else _pushed(fn, count)
            seeds = u if mode == "rev" else v
            _check(derivative, values + seeds, modes, order - 1, tolerance, random, f"{path}{mode}, then ")


def _tensors(values: Values, requires_grad: bool) -> list[Tensor]:
    return [from_numpy(x.copy()).requires_grad_(requires_grad) for x in values]


def _evaluate(fn: Function, values: Values) -> Values:
    return [y.detach().numpy().copy() for y in fn(*_tensors(values, False))]


def _dot(a: Values, b: Values) -> tuple[float, float]:
    """The dot product, and the size of what was added up."""
    products = [x * y for x, y in zip(a, b, strict=True)]
    return float(sum(p.sum() for p in products)), float(sum(np.abs(p).sum() for p in products))


def _finite_difference(fn: Function, values: Values, v: Values, u: Values, step: float) -> tuple[float, float]:
    slope, size = 0.0, 0.0
    for offset, weight in OFFSETS:
        moved = _evaluate(fn, [np.asarray(x + offset * step * d) for x, d in zip(values, v, strict=True)])
        dot, terms = _dot(moved, u)
        slope += weight * dot / step
        size = max(size, terms)
    return slope, size


def _reverse(fn: Function, values: Values, v: Values, u: Values) -> tuple[float, float]:
    inputs = _tensors(values, True)
    pulled = _pull(fn(*inputs), inputs, _tensors(u, False), create_graph=False)
    return _dot([g.numpy() for g in pulled], v)


def _forward(fn: Function, values: Values, v: Values, u: Values) -> tuple[float, float]:
    inputs = _tensors(values, True)
    with keep_values():
        outputs = fn(*inputs)
    pushed = _push(outputs, inputs, _tensors(v, False))
    return _dot([t.detach().numpy() for t in pushed], u)


def _pull(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Any, create_graph: bool) -> list[Tensor]:
    """Gradients of the inputs, zeros where no path leads to them."""
    reached = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
    if not reached:
        return [x.detach() * 0.0 for x in inputs]
    roots, seeds = zip(*reached, strict=True)
    found = grad(list(roots), list(inputs), list(seeds), create_graph=create_graph, allow_unused=True)
    return [x.detach() * 0.0 if g is None else g for g, x in zip(found, inputs, strict=True)]


def _push(outputs: Sequence[Tensor], inputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
    """Tangents of the outputs, zeros where no path leads to them."""
    found = forward_gradient(list(outputs), list(inputs), list(tangents))
    return [y.detach() * 0.0 if t is None else t for t, y in zip(found, outputs, strict=True)]


def _pulled(fn: Function, count: int) -> Function:
    """The function (inputs, cotangents) -> gradients of the inputs."""

    def derivative(*arguments: Tensor) -> list[Tensor]:
        # Inputs that require no gradient must do so within, or nothing would be recorded.
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in arguments[:count]]
        return _pull(fn(*inputs), inputs, arguments[count:], create_graph=True)

    return derivative


def _pushed(fn: Function, count: int) -> Function:
    """The function (inputs, tangents) -> tangents of the outputs."""

    def derivative(*arguments: Tensor) -> list[Tensor]:
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in arguments[:count]]
        with keep_values():
            outputs = fn(*inputs)
            return _push(outputs, inputs, arguments[count:])

    return derivative


def _compare(found: float, measured: float, scale: float, tolerance: tuple[float, float, float], what: str) -> None:
    rtol, atol, _ = tolerance
    allowed = atol * max(1.0, scale) + rtol * abs(measured)
    if not abs(found - measured) <= allowed:
        raise AssertionError(
            f"check_grads: the derivative along a random direction ({what} mode) is {found:.15g}, "
            f"finite differences give {measured:.15g}; the difference {abs(found - measured):.3g} exceeds {allowed:.3g}"
        )


def _compare_modes(reverse: float, forward: float, size: float, count: int, path: str) -> None:
    """<J'u, v> = <u, J v>, but for the rounding of sums of `count` terms, with room for what an op itself rounds."""
    allowed = 16 * ROUNDING * (count + 16) * max(size, 1.0)
    if not abs(reverse - forward) <= allowed:
        where = f" ({path}the last order)" if path else ""
        raise AssertionError(
            f"check_grads: the modes disagree{where}: <J'u, v> = {reverse:.17g} but <u, J v> = {forward:.17g}; "
            f"the difference {abs(reverse - forward):.3g} exceeds rounding, {allowed:.3g}"
        )
