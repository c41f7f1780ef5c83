"""Derivatives against finite differences, element by element (torch.autograd.gradcheck).

`fastbp.testing.check_grads` judges the same along random directions, to any order, at a fraction of the cost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._core import Tensor, enable_grad, forward_gradient, from_numpy, grad, keep_values

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]


class GradcheckError(RuntimeError):
    """What `gradcheck` and `gradgradcheck` raise when derivatives are wrong."""


# ------------------------------------------------------------------------------------------- values as plain arrays


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _floating(func: Function, inputs: Sequence[Any]) -> list[Tensor]:
    """The outputs that can have a derivative."""
    return [y for y in _listed(func(*inputs)) if isinstance(y, Tensor) and y.is_floating_point()]


def _flat(t: Tensor) -> Array:
    return np.array(t.detach().contiguous().numpy(), dtype=np.float64).reshape(-1)


def _evaluate(func: Function, inputs: Sequence[Any]) -> list[Array]:
    return [_flat(y) for y in _floating(func, inputs)]


def _like(values: Array, t: Tensor) -> Tensor:
    """Numbers in the shape and dtype of a tensor."""
    return from_numpy(np.array(values.reshape(tuple(t.shape)))).to(t.dtype)


def _moved(func: Function, inputs: Sequence[Any], x: Tensor, step: Array) -> list[Array]:
    """The outputs with x moved by `step` in its own memory, so that closures over it see it, too."""
    memory = x.detach().numpy()
    before = memory.copy()
    try:
        memory[...] = before + step.reshape(before.shape)
        return _evaluate(func, inputs)
    finally:
        memory[...] = before


# ------------------------------------------------------------------------------------------- Jacobians
# Of shape (elements of the input, elements of the output), as PyTorch prints them.


def _numeric(func: Function, inputs: Sequence[Any], x: Tensor, eps: float) -> list[Array]:
    """By central differences, one an output."""
    rows = []
    for i in range(x.numel()):
        step = np.zeros(x.numel())
        step[i] = eps
        after, before = _moved(func, inputs, x, step), _moved(func, inputs, x, -step)
        rows.append([(a - b) / (2 * eps) for a, b in zip(after, before, strict=True)])
    return [np.array(column).reshape(x.numel(), -1) for column in zip(*rows, strict=True)]


def _by_reverse(y: Tensor, wanted: Sequence[Tensor]) -> list[Array]:
    """One an input, from a sweep an element of y."""
    found = [np.zeros((x.numel(), y.numel())) for x in wanted]
    if not y.requires_grad:
        return found
    for k in range(y.numel()):
        seed = np.zeros(y.numel())
        seed[k] = 1.0
        for into, g in zip(found, _pulled(y, wanted, seed), strict=True):
            into[:, k] = g
    return found


def _pulled(y: Tensor, wanted: Sequence[Tensor], seed: Array) -> list[Array]:
    gradients = grad(y, list(wanted), _like(seed, y), retain_graph=True, allow_unused=True)
    for x, g in zip(wanted, gradients, strict=True):
        if g is not None and tuple(g.shape) != tuple(x.shape):
            raise GradcheckError(f"Analytical gradient has incorrect size: {tuple(g.shape)} for {tuple(x.shape)}")
    return [np.zeros(x.numel()) if g is None else _flat(g) for x, g in zip(wanted, gradients, strict=True)]


def _by_forward(outputs: Sequence[Tensor], x: Tensor) -> list[Array]:
    """One an output, from a pass an element of x."""
    found = [np.zeros((x.numel(), y.numel())) for y in outputs]
    for i in range(x.numel()):
        seed = np.zeros(x.numel())
        seed[i] = 1.0
        for into, t in zip(found, forward_gradient(outputs, [x], [_like(seed, x)]), strict=True):
            if t is not None:
                into[i] = _flat(t)
    return found


# ------------------------------------------------------------------------------------------- comparisons


class _Check:
    """One call of gradcheck: what is checked, and how closely."""

    def __init__(self, func: Function, inputs: tuple[Any, ...], eps: float, atol: float, rtol: float) -> None:
        self.func, self.inputs, self.eps, self.atol, self.rtol = func, inputs, eps, atol, rtol
        self.wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        self.places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]

    def outputs(self) -> list[Tensor]:
        return _floating(self.func, self.inputs)

    def compare(self, analytical: Array, numerical: Array, k: int, place: int, what: str = "") -> None:
        if not np.allclose(analytical, numerical, self.rtol, self.atol):
            raise GradcheckError(
                f"Jacobian {what}mismatch for output {k} with respect to input {place},\n"
                f"numerical:{numerical}\nanalytical:{analytical}\n"
            )

    def slow(self, nondet_tol: float, backward: bool, forward: bool) -> None:
        """Every element of every Jacobian."""
        numeric = [_numeric(self.func, self.inputs, x, self.eps) for x in self.wanted]
        if backward:
            for k, y in enumerate(self.outputs()):
                found = _by_reverse(y, self.wanted)
                for i, place in enumerate(self.places):
                    self.compare(found[i], _column(numeric[i], k, self.wanted[i], y), k, place)
                for again, first in zip(_by_reverse(y, self.wanted), found, strict=True):
                    _compare_again(again, first, nondet_tol)
        if forward:
            with keep_values():
                outputs = self.outputs()
                for i, place in enumerate(self.places):
                    for k, pushed in enumerate(_by_forward(outputs, self.wanted[i])):
                        column = _column(numeric[i], k, self.wanted[i], outputs[k])
                        self.compare(pushed, column, k, place, "computed with forward mode ")

    def fast(self, nondet_tol: float, backward: bool, forward: bool) -> None:
        """u J v for random u and v, an output and an input at a time."""
        random = np.random.default_rng(0)
        with keep_values():
            outputs = self.outputs()
        for i, (place, x) in enumerate(zip(self.places, self.wanted, strict=True)):
            u = random.standard_normal(x.numel())
            u /= max(float(np.linalg.norm(u)), 1e-300)
            after, before = (_moved(self.func, self.inputs, x, sign * self.eps * u) for sign in (1, -1))
            for k, y in enumerate(outputs):
                v = random.standard_normal(y.numel())
                numerical = np.array(v @ (after[k] - before[k]) / (2 * self.eps))
                if backward:
                    pulled = [_pulled(y, self.wanted, v)[i] if y.requires_grad else np.zeros(x.numel()) for _ in "ab"]
                    self.compare(np.array(pulled[0] @ u), numerical, k, place)
                    _compare_again(pulled[1], pulled[0], nondet_tol)
                if forward:
                    (t,) = forward_gradient([y], [x], [_like(u, x)])
                    pushed = np.array(0.0 if t is None else v @ _flat(t))
                    self.compare(pushed, numerical, k, place, "computed with forward mode ")

    def zero_cotangent(self) -> None:
        """Gradients are multiples of what they are given."""
        for y in self.outputs():
            if not y.requires_grad:
                continue
            for g in _pulled(y, self.wanted, np.zeros(y.numel())):
                if not (g == 0).all():
                    raise GradcheckError("backward not multiplied by grad_output")

    def batched(self) -> None:
        """Sweeps of several cotangents at once give what they give one by one."""
        for k, y in enumerate(self.outputs()):
            if not y.requires_grad:
                continue
            seeds = np.random.default_rng(0).standard_normal((2, y.numel()))
            several = from_numpy(seeds.reshape(2, *y.shape)).to(y.dtype)
            options: dict[str, Any] = {"is_grads_batched": True, "retain_graph": True, "allow_unused": True}
            together = grad([y], self.wanted, [several], **options)
            for row, seed in enumerate(seeds):
                for i, g in enumerate(_pulled(y, self.wanted, seed)):
                    of = together[i]
                    found = np.zeros_like(g) if of is None else _flat(of[row])
                    self.compare(found, g, k, self.places[i], "of batched gradients ")


def _column(numeric: list[Array], k: int, x: Tensor, y: Tensor) -> Array:
    """The numeric Jacobian of output k; an empty input was never moved."""
    return numeric[k] if numeric else np.zeros((x.numel(), y.numel()))


def _compare_again(again: Array, first: Array, tolerance: float) -> None:
    if again.size and not np.abs(again - first).max() <= tolerance:
        raise GradcheckError(
            "Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives "
            "different values, although analytical gradient matches numerical gradient. The tolerance for "
            f"nondeterminism was {tolerance}."
        )


def _check_inputs(inputs: tuple[Any, ...]) -> None:
    any_wanted = False
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor) or not x.requires_grad:
            continue
        any_wanted = True
        if x.dtype.name != "float64":
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point. This check will likely "
                "fail if all the inputs are not of double precision floating point.",
                stacklevel=4,
            )
        if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
            raise RuntimeError(
                f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs that are "
                "non-overlapping to be able to compute the numerical gradients correctly. You should call .contiguous "
                "on the input before passing it to gradcheck."
            )
    if not any_wanted:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True."
        )


# ------------------------------------------------------------------------------------------- the public functions


def gradcheck(
    func: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Check the derivatives of a function against central differences.

    Parameters
    ----------
    func : callable
        Of the inputs, to a tensor or a sequence; floating tensors among it are checked.
    inputs : Tensor or tuple
        Those that require grad are differentiated; float64, or one is warned.
    eps : float, optional
        The step. Default: 1e-6.
    atol, rtol : float, optional
        Allowed: ``atol + rtol * abs(numerical)``. Defaults: 1e-5 and 1e-3, room for the rounding of about 1e-10 that a
        central difference with this step has, and its third derivative.
    raise_exception : bool, optional
        Raise, or return False. Default: True.
    nondet_tol : float, optional
        By how much a second sweep may differ. Default: 0.
    check_backward_ad, check_forward_ad : bool, optional
        Which modes. Defaults: True and False.
    check_batched_grad : bool, optional
        Check ``grad(..., is_grads_batched=True)`` too. Default: False.
    fast_mode : bool, optional
        Along one random direction an input and output, instead of every element. Default: False.
    check_undefined_grad, check_grad_dtypes, check_batched_forward_grad, masked
        Accepted for PyTorch's sake: outputs are swept one at a time, so that the others' gradients are undefined in any
        case, and gradients always have their inputs' dtypes.

    Returns
    -------
    bool
        Whether all agree.

    Raises
    ------
    GradcheckError
        With the output, the input and both Jacobians (rows: elements of the input).
    ValueError
        When no input requires grad.
    RuntimeError
        For an input whose elements share memory (expanded).

    Examples
    --------
    >>> x = fastbp.tensor([0.5, 1.0], dtype=fastbp.float64, requires_grad=True)
    >>> fastbp.autograd.gradcheck(lambda x: x.exp() * x, (x,))
    True
    """
    listed = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not (check_backward_ad or check_forward_ad):
        raise ValueError("gradcheck: Expected at least one of check_forward_ad or check_backward_ad to be True")
    _check_inputs(listed)
    check = _Check(func, listed, eps, atol, rtol)
    try:
        with enable_grad():
            if not check.outputs():
                raise ValueError("gradcheck: the function returns no floating tensor")
            (check.fast if fast_mode else check.slow)(nondet_tol, check_backward_ad, check_forward_ad)
            if check_backward_ad:
                check.zero_cotangent()
            if check_batched_grad:
                check.batched()
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Function,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Check second derivatives: `gradcheck` of the function that reverse mode computes.

    Parameters
    ----------
    func, inputs, eps, atol, rtol, raise_exception, nondet_tol, check_batched_grad, fast_mode
        As in `gradcheck`.
    grad_outputs : Tensor or tuple of Tensor, optional
        Cotangents of the outputs. Default: random ones.
    gen_non_contig_grad_outputs : bool, optional
        Make the random ones strided. Default: False.
    check_rev_over_rev, check_fwd_over_rev : bool, optional
        The mode of the second derivative. Defaults: True and False.
    check_undefined_grad, check_grad_dtypes, masked
        Accepted for PyTorch's sake.

    Returns
    -------
    bool
        Whether all agree.

    Raises
    ------
    GradcheckError, ValueError, RuntimeError
        As `gradcheck`.

    Examples
    --------
    >>> x = fastbp.tensor([0.5, 1.0], dtype=fastbp.float64, requires_grad=True)
    >>> fastbp.autograd.gradgradcheck(lambda x: x.exp() * x, (x,))
    True
    """
    listed = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    _check_inputs(listed)
    with enable_grad():
        outputs = [y for y in _floating(func, listed) if y.requires_grad]
    if grad_outputs is None:
        seeds = tuple(_random_like(y, i, gen_non_contig_grad_outputs) for i, y in enumerate(outputs))
    else:
        seeds = tuple(grad_outputs) if isinstance(grad_outputs, (tuple, list)) else (grad_outputs,)
    count = len(seeds)

    def slopes(*arguments: Any) -> tuple[Tensor, ...]:
        chosen = arguments[: len(arguments) - count]
        roots = [y for y in _floating(func, chosen) if y.requires_grad]
        wanted = [x for x in chosen if isinstance(x, Tensor) and x.requires_grad]
        found = grad(roots, wanted, arguments[len(chosen) :], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    try:
        return gradcheck(
            slopes,
            (*listed, *seeds),
            eps=eps,
            atol=atol,
            rtol=rtol,
            raise_exception=raise_exception,
            nondet_tol=nondet_tol,
            check_batched_grad=check_batched_grad,
            check_forward_ad=check_fwd_over_rev,
            check_backward_ad=check_rev_over_rev,
            fast_mode=fast_mode,
        )
    except ValueError as error:  # of the derivative, which no one has written
        if "no floating tensor" in str(error):
            raise ValueError("gradgradcheck: no output depends on an input that requires grad") from None
        raise


def _random_like(y: Tensor, seed: int, strided: bool) -> Tensor:
    values = np.random.default_rng(seed).standard_normal((*y.shape, 2))
    chosen = from_numpy(values).to(y.dtype)[..., 0]
    return (chosen if strided else chosen.contiguous()).detach().requires_grad_()
