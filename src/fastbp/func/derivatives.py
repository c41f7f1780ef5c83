"""Derivatives of functions: gradients, products with Jacobians and Hessians."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from .. import _core
from .._tree import LEAF, count, unflatten
from ._points import Point, Run, check_alike, check_argnums, flatten_directions, push, sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._core import Tensor
    from ._points import Argnums

    Function = Callable[..., Any]


def _like(function: Function) -> Callable[[Function], Function]:
    """Give a wrapper the function's name and text, where it has them."""
    return functools.wraps(function) if hasattr(function, "__name__") else lambda wrapper: wrapper


def grad_and_value(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The function that returns a function's gradient and value (torch.func.grad_and_value).

    Parameters
    ----------
    func : callable
        Returns a tensor of one element; with `has_aux`, a pair of it and anything else.
    argnums : int or tuple of int, optional
        Arguments to differentiate by: tensors, or lists, tuples and dicts of tensors. Default: 0.
    has_aux : bool, optional
        Default: False.

    Returns
    -------
    callable
        Of the same arguments, to ``(gradient, value)`` or, with `has_aux`, ``(gradient, (value, aux))``. The gradient
        has the structure, shapes and dtypes of the argument, and is a tuple of such where `argnums` is.

    Raises
    ------
    RuntimeError
        When called: for an output that is not one element of floating point, arguments that are not floating point,
        argnums out of range.
    ValueError
        When called: for arguments that hold other things than tensors.

    Examples
    --------
    >>> g, y = fastbp.func.grad_and_value(lambda x: (x ** 3).sum())(fastbp.tensor([1., 2.]))
    >>> g, y
    (tensor([ 3., 12.]), tensor(9.))
    """
    return _gradient(func, argnums, has_aux, "grad_and_value", lambda gradient, run: (gradient, _value(run, has_aux)))


def grad(func: Function, argnums: Argnums = 0, has_aux: bool = False) -> Function:
    """The function that returns a function's gradient (torch.func.grad).

    Parameters
    ----------
    func, argnums, has_aux
        As of `grad_and_value`.

    Returns
    -------
    callable
        Of the same arguments, to the gradient or, with `has_aux`, ``(gradient, aux)``.

    Raises
    ------
    RuntimeError, ValueError
        As `grad_and_value`.

    Examples
    --------
    >>> fastbp.func.grad(lambda x: x ** 3)(fastbp.tensor(2.))
    tensor(12.)
    >>> fastbp.func.grad(fastbp.func.grad(lambda x: x ** 3))(fastbp.tensor(2.))
    tensor(12.)
    """
    return _gradient(func, argnums, has_aux, "grad", lambda gradient, run: (gradient, run.aux) if has_aux else gradient)


def _value(run: Run, has_aux: bool) -> Any:
    return (run.value, run.aux) if has_aux else run.value


def _gradient(
    func: Function, argnums: Argnums, has_aux: bool, name: str, result: Callable[[Any, Run], Any]
) -> Function:
    @_like(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        point = Point(args, check_argnums(argnums, len(args), name), name)
        run = Run(func, point, kwargs, name, has_aux)
        y = run.outputs[0]
        if len(run.outputs) != 1 or run.structure is not LEAF or y.numel() != 1 or not y.is_floating_point():
            shapes = ", ".join(f"{tuple(one.shape)} {one.dtype!r}" for one in run.outputs)
            raise RuntimeError(
                f"{name}: expected the function to return one floating point tensor of one element, got {shapes}; "
                "sum the "
                "losses of a batch, or use func.vjp or func.jacrev"
            )
        gradients = sweep(run, [y], point.leaves, [None], run.is_recorded())
        return result(point.rebuild(gradients, not isinstance(argnums, tuple)), run)

    return wrapper


def vjp(func: Function, *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """A function's value, and the function that multiplies cotangents with its Jacobian (torch.func.vjp).

    Parameters
    ----------
    func : callable
        Of `primals`, to tensors in any structure.
    *primals : tensors in any structure
    has_aux : bool, optional
        `func` returns a pair, of which the second part is handed out as it is. Default: False.

    Returns
    -------
    output : tensors in func's structure
    vjp_fn : callable
        Of cotangents in the output's structure, to a tuple of cotangents, one a primal. It can be called again and
        again.
    aux
        With `has_aux`.

    Raises
    ------
    RuntimeError
        For cotangents of other shapes, dtypes or structure than the output.

    Examples
    --------
    >>> y, pull = fastbp.func.vjp(fastbp.sin, fastbp.tensor([0., 1.]))
    >>> pull(fastbp.ones(2))
    (tensor([1.0000, 0.5403]),)
    """
    point = Point(primals, range(len(primals)), "vjp")
    run = Run(func, point, {}, "vjp", has_aux)

    def vjp_fn(*cotangents: Any) -> Any:
        structure, given = flatten_directions(
            cotangents[0] if len(cotangents) == 1 else cotangents, "vjp: the cotangents", run.structure, run.outputs
        )
        if structure != run.structure:
            raise RuntimeError(
                f"vjp: cotangents of structure {structure!r} for an output of structure {run.structure!r}; they must "
                "agree"
            )
        check_alike(given, run.outputs, "vjp: a cotangent", "an output")
        pulled = sweep(run, run.outputs, point.leaves, given, run.is_recorded(given))
        return point.rebuild(pulled, single=False)

    return (run.value, vjp_fn, run.aux) if has_aux else (run.value, vjp_fn)


def jvp(
    func: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...], *, strict: bool = False, has_aux: bool = False
) -> tuple[Any, ...]:
    """A function's value, and its Jacobian times tangents, in one pass forward (torch.func.jvp).

    The function runs once, and tangents follow through each op's own forward rule: no reverse sweep is involved.

    Parameters
    ----------
    func : callable
    primals, tangents : tuple
        Of equal structure, shapes and dtypes.
    strict : bool, optional
        Raise where an output does not depend on the primals, instead of giving zeros. Default: False.
    has_aux : bool, optional
        As of `vjp`. Default: False.

    Returns
    -------
    output, tangent : tensors in func's structure
    aux
        With `has_aux`.

    Raises
    ------
    RuntimeError
        For tangents that do not fit the primals.

    Examples
    --------
    >>> fastbp.func.jvp(fastbp.sin, (fastbp.tensor(0.),), (fastbp.tensor(2.),))
    (tensor(0.), tensor(2.))
    """
    point, run = _recorded(func, primals, "jvp", has_aux)
    out = _pushed(point, run, tangents, "jvp", strict)
    return (run.value, out, run.aux) if has_aux else (run.value, out)


def linearize(func: Function, *primals: Any) -> tuple[Any, Function]:
    """A function's value, and its Jacobian as a linear function, at a pass forward a call (torch.func.linearize).

    Parameters
    ----------
    func : callable
    *primals : tensors in any structure

    Returns
    -------
    output : tensors in func's structure
    jvp_fn : callable
        Of one tangent a primal, to the output's tangent. `func` is not run again.

    Raises
    ------
    RuntimeError
        For tangents that do not fit the primals.

    Examples
    --------
    >>> y, push = fastbp.func.linearize(lambda x: x * x, fastbp.tensor(3.))
    >>> push(fastbp.tensor(1.)), push(fastbp.tensor(2.))
    (tensor(6.), tensor(12.))
    """
    point, run = _recorded(func, primals, "linearize", False)

    def jvp_fn(*tangents: Any) -> Any:
        return _pushed(point, run, tangents, "linearize", False)

    return run.value, jvp_fn


def _recorded(func: Function, primals: Any, name: str, has_aux: bool) -> tuple[Point, Run]:
    if not isinstance(primals, tuple) or not primals:
        raise RuntimeError(f"{name}: expected primals to be a non-empty tuple, got {type(primals).__name__}")
    point = Point(primals, range(len(primals)), name)
    return point, Run(func, point, {}, name, has_aux, keep=True)


def _pushed(point: Point, run: Run, tangents: Any, name: str, strict: bool) -> Any:
    if not isinstance(tangents, tuple) or len(tangents) != len(point.structures):
        raise RuntimeError(
            f"{name}: expected a tuple of {len(point.structures)} tangents, one a primal, got "
            + (f"{len(tangents)}" if isinstance(tangents, tuple) else type(tangents).__name__)
        )
    given: list[Tensor] = []
    for number, (tangent, structure) in enumerate(zip(tangents, point.structures, strict=True)):
        like = point.leaves[len(given) : len(given) + count(structure)]
        found, tensors = flatten_directions(tangent, f"{name}: tangent {number}", structure, like)
        if found != structure:
            raise RuntimeError(
                f"{name}: tangent {number} has structure {found!r}, its primal {structure!r}; they must agree"
            )
        given += tensors
    check_alike(given, point.leaves, f"{name}: a tangent", "a primal")
    results = push(run.outputs, point.leaves, given, run.is_recorded(given))
    if strict and any(one is None for one in results):
        raise RuntimeError(
            f"{name}: an output does not depend on the primals, with strict=True; pass strict=False for zeros"
        )
    filled = [_core.zeros_like(y).detach() if t is None else t for y, t in zip(run.outputs, results, strict=True)]
    return unflatten(run.structure, iter(filled))


def hvp(func: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """The Hessian of a function times tangents, forward over reverse, at two gradients' cost and without it.

    Parameters
    ----------
    func : callable
        Of `primals`, to a tensor of one element.
    primals, tangents : tuple
        Of equal structure, shapes and dtypes.

    Returns
    -------
    tensor or tuple
        Of the structure of the primal; a tuple of such for more than one primal.

    Raises
    ------
    RuntimeError
        As `grad` and `jvp`.

    References
    ----------
    Pearlmutter, B. A. (1994). Fast exact multiplication by the Hessian. Neural Computation 6(1).

    Examples
    --------
    >>> x, v = fastbp.tensor([1., 2.]), fastbp.tensor([1., 0.])
    >>> fastbp.func.hvp(lambda x: (x ** 3).sum(), (x,), (v,))
    tensor([6., 0.])
    """
    argnums: Argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    point, run = _recorded(grad(func, argnums), primals, "hvp", False)
    return _pushed(point, run, tangents, "hvp", False)
