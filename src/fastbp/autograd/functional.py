"""Jacobians, Hessians and products with them, of functions of tensors (torch.autograd.functional).

`fastbp.func` has the same as transformations of functions; these take the function and the point at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._core import Tensor, enable_grad, eye, forward_gradient, grad, keep_values, ones_like, stack, zeros, zeros_like

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = tuple[Tensor, ...]

# ------------------------------------------------------------------------------------------- arguments and results


def _as_tuple(given: Any, what: str, of: str) -> tuple[bool, Tensors]:
    """Whether it was a tuple, and it as one."""
    listed = given if isinstance(given, tuple) else (given,)
    for i, one in enumerate(listed):
        if not isinstance(one, Tensor):
            where = f"Value {i} of the {what}" if isinstance(given, tuple) else f"The {what}"
            raise TypeError(
                f"{where} given to {of} must be either a Tensor or a tuple of Tensors but the given {what} has type "
                f"{type(one)}."
            )
    return isinstance(given, tuple), listed


def _call(func: Callable[..., Any], inputs: Tensors, of: str) -> tuple[bool, Tensors]:
    return _as_tuple(func(*inputs), "outputs of the user-provided function", of)


def _variables(inputs: Tensors, create_graph: bool) -> Tensors:
    """Inputs to differentiate by: the given ones' own history stays attached under create_graph."""
    return tuple(x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_() for x in inputs)


def _vectors(v: Any, like: Tensors, was_tuple: bool, what: str, of: str) -> Tensors:
    """v, of the shapes of `like`; 1 where it was left out and there is one number."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(
                f"{of}: the vector v can only be None if {what} is a single Tensor with a single element."
            )
        return (ones_like(like[0].detach()),)
    _, vectors = _as_tuple(v, "v", of)
    if len(vectors) != len(like):
        count = f"{len(like)} Tensors" if was_tuple else "a single Tensor"
        raise RuntimeError(f"{of}: the given v should contain {count}, it has {len(vectors)}.")
    for i, (one, x) in enumerate(zip(vectors, like, strict=True)):
        if tuple(one.shape) != tuple(x.shape):
            entry = f"Entry {i} in v" if was_tuple else "v"
            raise RuntimeError(
                f"{of}: {entry} has invalid size: should be {tuple(x.shape)} but got {tuple(one.shape)}."
            )
    return vectors


def _single(outputs: Tensors, was_tuple: bool, of: str) -> Tensor:
    if was_tuple or len(outputs) != 1:
        raise RuntimeError(f"The function given to {of} should return a single Tensor")
    if outputs[0].numel() != 1:
        raise RuntimeError(f"The Tensor returned by the function given to {of} should contain a single element")
    return outputs[0]


def _require(outputs: Sequence[Tensor], strict: bool, what: str) -> None:
    for i, y in enumerate(outputs):
        if strict and not y.requires_grad:
            raise RuntimeError(
                f"Output {i} of {what} does not require gradients. The outputs must be computed in a differentiable "
                "manner from the input when running in strict mode."
            )


def _pull(
    outputs: Tensors,
    inputs: Tensors,
    cotangents: Tensors,
    create_graph: bool,
    strict: bool,
    what: str,
    retain: bool = False,
) -> Tensors:
    """Gradients; zeros where nothing leads to an input, which `strict` refuses."""
    known = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
    found: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if known:
        roots, seeds = zip(*known, strict=True)
        found = grad(
            roots, inputs, seeds, retain_graph=retain or create_graph, create_graph=create_graph, allow_unused=True
        )
    for i, g in enumerate(found):
        if strict and g is None:
            raise RuntimeError(f"{what} is independent of input {i}. This is not allowed in strict mode.")
        if strict and create_graph and g is not None and not g.requires_grad:
            raise RuntimeError(
                f"The derivative of {what} is independent of input {i}. This is not allowed in strict mode when "
                "create_graph=True."
            )
    return tuple(zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))


def _finish(results: Any, create_graph: bool) -> Any:
    if isinstance(results, tuple):
        return tuple(_finish(one, create_graph) for one in results)
    return results if create_graph else results.detach()


def _shaped(results: Tensors, was_tuple: bool) -> Any:
    return results if was_tuple else results[0]


_USER = "the user-provided function"

# ------------------------------------------------------------------------------------------- products


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs of a function, and v times its Jacobian: one reverse sweep.

    Parameters
    ----------
    func : callable
        Of tensors, to a tensor or a tuple of tensors.
    inputs : Tensor or tuple of Tensor
        Where; floating.
    v : Tensor or tuple of Tensor, optional
        Of the outputs' shapes. Default: 1, for an output of one element.
    create_graph : bool, optional
        Let results be differentiated. Default: False.
    strict : bool, optional
        Raise where an output does not depend on an input, instead of giving zeros. Default: False.

    Returns
    -------
    outputs, products
        As the function returns them, and of the inputs' shapes.

    Raises
    ------
    RuntimeError
        For v of another shape, and as `strict` says.
    TypeError
        For inputs or outputs that are not tensors.

    Examples
    --------
    >>> fastbp.autograd.functional.vjp(lambda x: x * x, fastbp.tensor([1.0, 2.0]), fastbp.ones(2))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    with enable_grad():
        inputs_tuple, given = _as_tuple(inputs, "inputs", "vjp")
        variables = _variables(given, create_graph)
        outputs_tuple, outputs = _call(func, variables, "vjp")
        _require(outputs, strict, _USER)
        vectors = _vectors(v, outputs, outputs_tuple, "the output", "vjp")
        products = _pull(outputs, variables, vectors, create_graph, strict, _USER)
    return (
        _finish(_shaped(outputs, outputs_tuple), create_graph),
        _finish(_shaped(products, inputs_tuple), create_graph),
    )


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs of a function, and its Jacobian times v: forward mode, in one pass.

    Parameters
    ----------
    func, inputs, create_graph, strict
        As in `vjp`.
    v : Tensor or tuple of Tensor, optional
        Of the inputs' shapes. Default: 1, for an input of one element.

    Returns
    -------
    outputs, products
        As the function returns them.

    Raises
    ------
    RuntimeError, TypeError
        As `vjp`.

    Examples
    --------
    >>> fastbp.autograd.functional.jvp(lambda x: x * x, fastbp.tensor([1.0, 2.0]), fastbp.ones(2))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    inputs_tuple, given = _as_tuple(inputs, "inputs", "jvp")
    vectors = _vectors(v, given, inputs_tuple, "the input", "jvp")
    with enable_grad():
        variables = _variables(given, create_graph)
        with keep_values():
            outputs_tuple, outputs = _call(func, variables, "jvp")
            _require(outputs, strict, _USER)
            pushed = _push(outputs, variables, vectors)
    for i, t in enumerate(pushed):
        if strict and t is None:
            raise RuntimeError(
                f"Output {i} of {_USER} is independent of the inputs. This is not allowed in strict mode."
            )
    products = tuple(zeros_like(y.detach()) if t is None else t for t, y in zip(pushed, outputs, strict=True))
    return (
        _finish(_shaped(outputs, outputs_tuple), create_graph),
        _finish(_shaped(products, outputs_tuple), create_graph),
    )


def _push(outputs: Tensors, inputs: Tensors, tangents: Tensors) -> tuple[Tensor | None, ...]:
    return forward_gradient(outputs, inputs, tangents)


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of a scalar function, and v times its Hessian, by two reverse sweeps.

    Parameters
    ----------
    func : callable
        Of tensors, to a tensor of one element.
    inputs, create_graph, strict
        As in `vjp`.
    v : Tensor or tuple of Tensor, optional
        Of the inputs' shapes. Default: 1, for an input of one element.

    Returns
    -------
    output, products
        The latter of the inputs' shapes.

    Raises
    ------
    RuntimeError, TypeError
        As `vjp`.

    Examples
    --------
    >>> fastbp.autograd.functional.vhp(lambda x: (x**3).sum(), fastbp.tensor([1.0, 2.0]), fastbp.ones(2))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _hessian_product("vhp", func, inputs, v, create_graph, strict)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of a scalar function, and its Hessian times v.

    A Hessian is symmetric: this is `vhp` under its other name. Parameters, results and errors are those of `vhp`.

    Examples
    --------
    >>> fastbp.autograd.functional.hvp(lambda x: (x**3).sum(), fastbp.tensor([1.0, 2.0]), fastbp.ones(2))
    (tensor(9.), tensor([ 6., 12.]))
    """
    return _hessian_product("hvp", func, inputs, v, create_graph, strict)


def _hessian_product(
    of: str, func: Callable[..., Any], inputs: Any, v: Any, create_graph: bool, strict: bool
) -> tuple[Any, Any]:
    inputs_tuple, given = _as_tuple(inputs, "inputs", of)
    vectors = _vectors(v, given, inputs_tuple, "the input", of)
    with enable_grad():
        variables = _variables(given, create_graph)
        outputs_tuple, outputs = _call(func, variables, of)
        y = _single(outputs, outputs_tuple, of)
        _require((y,), strict, _USER)
        slopes = _pull((y,), variables, (ones_like(y.detach()),), True, strict, _USER)
        products = _pull(slopes, variables, vectors, create_graph, strict, f"the jacobian of {_USER}")
    return _finish(y, create_graph), _finish(_shaped(products, inputs_tuple), create_graph)


# ------------------------------------------------------------------------------------------- whole matrices


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of a function.

    Parameters
    ----------
    func, inputs, create_graph, strict
        As in `vjp`.
    vectorize : bool, optional
        Accepted for PyTorch's sake. Default: False.
    strategy : {"reverse-mode", "forward-mode"}, optional
        One reverse sweep an element of the outputs, or one pass of tangents an element of the inputs. Default:
        "reverse-mode".

    Returns
    -------
    Tensor or nested tuple of Tensor
        By output, then by input, of shape ``(*output.shape, *input.shape)``; without the tuples that the function and
        `inputs` do not have.

    Raises
    ------
    RuntimeError, TypeError
        As `vjp`.
    ValueError
        For another strategy.

    Examples
    --------
    >>> fastbp.autograd.functional.jacobian(lambda x: x * x, fastbp.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f'jacobian: strategy must be "reverse-mode" or "forward-mode", got {strategy!r}')
    if strategy == "forward-mode" and strict:
        raise NotImplementedError('jacobian: strict=True and strategy="forward-mode" are not supported together')
    inputs_tuple, given = _as_tuple(inputs, "inputs", "jacobian")
    with enable_grad():
        variables = _variables(given, create_graph)
        with keep_values() if strategy == "forward-mode" else enable_grad():
            outputs_tuple, outputs = _call(func, variables, "jacobian")
            _require(outputs, strict, _USER)
            by = _columns if strategy == "forward-mode" else _rows
            blocks = by(outputs, variables, create_graph, strict)
    rows = tuple(_shaped(row, inputs_tuple) for row in blocks)
    return _finish(rows if outputs_tuple else rows[0], create_graph)


def _rows(outputs: Tensors, inputs: Tensors, create_graph: bool, strict: bool) -> list[Tensors]:
    """One sweep an element of each output."""
    blocks = []
    for y in outputs:
        seeds = eye(y.numel(), dtype=y.dtype).reshape(y.numel(), *y.shape)
        rows = [_pull((y,), inputs, (seed,), create_graph, strict, _USER, retain=True) for seed in seeds.unbind(0)]
        blocks.append(
            tuple(
                stack([row[i] for row in rows]).reshape(*y.shape, *x.shape)
                if rows
                else zeros(*y.shape, *x.shape, dtype=y.dtype)
                for i, x in enumerate(inputs)
            )
        )
    return blocks


def _columns(outputs: Tensors, inputs: Tensors, create_graph: bool, strict: bool) -> list[Tensors]:
    """One pass of tangents an element of each input."""
    columns: list[list[list[Tensor]]] = [[[] for _ in inputs] for _ in outputs]
    for i, x in enumerate(inputs):
        for seed in eye(x.numel(), dtype=x.dtype).reshape(x.numel(), *x.shape).unbind(0):
            pushed = _push(outputs, (x,), (seed,))
            for k, (t, y) in enumerate(zip(pushed, outputs, strict=True)):
                columns[k][i].append(zeros_like(y.detach()) if t is None else t)
    return [
        tuple(
            stack(columns[k][i], -1).reshape(*y.shape, *x.shape)
            if columns[k][i]
            else zeros(*y.shape, *x.shape, dtype=y.dtype)
            for i, x in enumerate(inputs)
        )
        for k, y in enumerate(outputs)
    ]


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a scalar function: the Jacobian of its gradient.

    Parameters
    ----------
    func : callable
        Of tensors, to a tensor of one element.
    inputs, create_graph, strict
        As in `vjp`.
    vectorize : bool, optional
        Accepted for PyTorch's sake. Default: False.
    outer_jacobian_strategy : {"reverse-mode", "forward-mode"}, optional
        Of the Jacobian of the gradient, which itself is by reverse mode. Default: "reverse-mode".

    Returns
    -------
    Tensor or tuple of tuples of Tensor
        By first and second input, of shape ``(*first.shape, *second.shape)``.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `jacobian`.

    Examples
    --------
    >>> fastbp.autograd.functional.hessian(lambda x: (x**3).sum(), fastbp.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    inputs_tuple, given = _as_tuple(inputs, "inputs", "hessian")

    def slopes(*variables: Tensor) -> Tensors:
        outputs_tuple, outputs = _call(func, variables, "hessian")
        y = _single(outputs, outputs_tuple, "hessian")
        _require((y,), strict, _USER)
        return _pull((y,), variables, (ones_like(y.detach()),), True, strict, _USER)

    found = jacobian(slopes, given, create_graph, strict, vectorize, outer_jacobian_strategy)
    return found if inputs_tuple else found[0][0]
