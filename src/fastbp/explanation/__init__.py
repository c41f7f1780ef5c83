"""Why a derivative is what it is: the recorded graph, its local derivatives, paths and sweeps; and nets at a glance.

- :func:`explain` takes a recorded result apart: each edge's local derivative, every path with its product, the
  forward-mode and reverse-mode traces, the layers of a fully connected net; as text, DOT and SVG;
- :func:`summary` lists the layers of a model with shapes, parameters, flops and bytes.

What they return lives in the modules beside this one, each on one subject: ``graph`` (nodes and edges), ``local``
(Jacobians and their structure), ``paths``, ``traces``, ``layers``, ``text``, ``picture``, ``costs``. They are imported
at the first use, so that ``import fastbp`` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._core import Tensor
    from ..nn import Module
    from .costs import Summary
    from .explained import Explanation

__all__ = ["explain", "summary"]


def explain(
    y: Tensor,
    wrt: Tensor | Sequence[Tensor] | Mapping[str, Tensor] | None = None,
    names: Mapping[str, Tensor] | Mapping[Tensor, str] | Module | None = None,
    max_paths: int = 10,
    grad_output: Tensor | float | None = None,
    model: Module | None = None,
) -> Explanation:
    """Take a derivative apart: the sum, over all paths from x to y, of the product of the edges' local derivatives.

    Parameters
    ----------
    y : Tensor
        A tensor of any shape with a recorded graph, or the result of a compiled function, which is then run once more
        eagerly. Explain before ``backward()``, or keep the saved values with ``backward(retain_graph=True)``.
    wrt : Tensor, sequence of Tensor or dict of str to Tensor, optional
        Leaves or intermediate results to differentiate by. Default: all leaves behind `y` that require grad.
    names : dict of str to Tensor, dict of Tensor to str, or Module, optional
        Names of nodes; a module names its parameters. Default: `wrt`'s keys, or x1, x2, ... for inputs, v1, v2, ... for
        intermediate results, y for `y`.
    max_paths : int, optional
        List at most so many paths for each input; all are counted. Default: 10.
    grad_output : Tensor or float, optional
        Cotangent of `y`, of its shape. Default: 1 for one element; else none, and derivatives are whole Jacobians.
    model : Module, optional
        Short for `names` where the names of tensors are wanted beside those of a model's parameters.

    Returns
    -------
    Explanation
        Prints as text, shows as a picture in notebooks; its methods give each part as data.

    Raises
    ------
    RuntimeError
        When `y` was not recorded, a tensor of `wrt` does not lead to `y`, or values that the rules need are gone.
    TypeError, ValueError
        For arguments of a wrong kind, and for names of tensors that are not in the graph.

    Examples
    --------
    >>> a = fastbp.tensor(3.0, requires_grad=True)
    >>> b = fastbp.tensor(2.0, requires_grad=True)
    >>> e = fastbp.explain((a + b) * (b + 1), wrt={"a": a, "b": b})
    >>> e.derivative("b"), [path.product for path in e.paths("b")]
    (8.0, [5.0, 3.0])

    Notes
    -----
    Derivatives are sums of products of local derivatives, of numbers in float64 whatever their dtype: they agree with
    ``backward()`` but for rounding. Local derivatives are those of the op table's own rules, edge by edge
    (`csrc/ops/ops.def`); the traces are laid out as in Baydin, Pearlmutter, Radul & Siskind, "Automatic differentiation
    in machine learning: a survey" (2018).
    """
    from .arguments import make_explanation

    return make_explanation(y, wrt, names, max_paths, grad_output, model)


def summary(model: Module, *args: Any, **kwargs: Any) -> Summary:
    """List a model's layers: output shapes, parameters, flops and bytes of one forward pass.

    Parameters
    ----------
    model : Module
    *args, **kwargs
        What the model is called with. It is captured, not computed: weights, buffers and random state stay as they are.

    Returns
    -------
    Summary
        Prints as a table; `rows` has a row a layer, in the order of calls.

    Raises
    ------
    TypeError
        When `model` is not a module.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    >>> s = fastbp.summary(model, fastbp.zeros(8, 64))
    >>> s.parameters, int(s.flops)
    (2410, 38144)
    """
    from .costs import make_summary

    return make_summary(model, args, kwargs)
