"""Which element of a result depends on which element of the input, found from the recorded graph.

Each node gets a set of input elements for each of its own elements, in the order of recording, by the rule of its op
(`rules`). Values decide nothing but where the graph itself holds them: integer indices, and the zeros of a
constant matrix in a product. So the pattern holds wherever the function runs through the same ops with the same
indices. It is never too small there; it may be too large.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import _recorded_graph
from .probes import forget
from .recording import Function, Recording, as_leaf, record, record_gradient
from .rules import Operand, Step, sets_of, shape_of
from .sets import Sets, identity, narrow, nothing, scipy_sparse


def jacobian_pattern(f: Function, x: Any, *args: Any) -> Sets:
    """Where the Jacobian of a function may be other than zero.

    Parameters
    ----------
    f : callable
        Of x and `args`, to one tensor of any shape. It is called once.
    x : Tensor or array, floating
        Any shape.
    *args
        Handed to `f` as they are, and not differentiated.

    Returns
    -------
    scipy.sparse.csr_array of bool, (elements of f(x), elements of x)
        A superset: true at least where the derivative is not zero, at x and wherever f runs through the same ops and
        indices. Elements are counted in row-major order.

    Raises
    ------
    ImportError
        Without SciPy.
    RuntimeError
        If x has no floating dtype, or the pattern is so large that the Jacobian is dense.
    TypeError
        If `f` returns something else than one tensor.

    Examples
    --------
    >>> f = lambda x: x[1:] * x[:-1]
    >>> jacobian_pattern(f, fastbp.ones(4)).toarray().astype(int)
    array([[1, 1, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 1, 1]])
    """
    scipy_sparse()
    return pattern_of(record(f, as_leaf(x, "jacobian_pattern"), args, "jacobian_pattern"))


def hessian_pattern(f: Function, x: Any, *args: Any) -> Sets:
    """Where the Hessian of a scalar function may be other than zero: the Jacobian pattern of its gradient.

    Parameters
    ----------
    f : callable
        Of x and `args`, to a tensor of one element. It is called once.
    x : Tensor or array, floating
        Any shape.
    *args
        Handed to `f` as they are, and not differentiated.

    Returns
    -------
    scipy.sparse.csr_array of bool, (elements of x, elements of x)
        A symmetric superset, as `jacobian_pattern`'s.

    Raises
    ------
    ImportError, TypeError
        As `jacobian_pattern`.
    RuntimeError
        As `jacobian_pattern`, and if f(x) has more than one element.

    Examples
    --------
    >>> f = lambda x: (x[1:] * x[:-1]).sum()
    >>> hessian_pattern(f, fastbp.ones(3)).toarray().astype(int)
    array([[0, 1, 0],
           [1, 0, 1],
           [0, 1, 0]])
    """
    scipy_sparse()
    return symmetric(pattern_of(record_gradient(f, as_leaf(x, "hessian_pattern"), args, "hessian_pattern")))


def symmetric(pattern: Sets) -> Sets:
    """What a superset of a symmetric pattern and its transpose have in common: it is one, too."""
    both = scipy_sparse().csr_array(pattern.multiply(pattern.T), dtype=bool)
    both.sum_duplicates()
    return narrow(both)


def pattern_of(recording: Recording) -> Sets:
    """The sets of a recorded result's elements."""
    n, m = int(np.prod(recording.x.shape)), int(np.prod(recording.shape))
    if recording.y is None:
        return nothing(m, n)
    nodes, (result, source) = _recorded_graph([recording.y, recording.x])
    last = _last_uses(nodes)
    done: list[Operand] = []
    for number, (op, inputs, attributes, value) in enumerate(nodes):
        operands = [None if i is None else done[i] for i in inputs]
        shape = tuple(value.shape) if value is not None else shape_of(op, operands, attributes)
        sets = None
        if number == source:
            sets = identity(n)
        elif op != "leaf":
            sets = sets_of(Step(op, operands, attributes, shape))
        done.append(Operand(value, shape, sets))
        for i in inputs:
            if i is not None and last[i] == number:
                done[i] = Operand(None, done[i].shape, None)  # nobody asks again: let it go
    forget()
    found = done[result].sets
    return nothing(m, n) if found is None else narrow(found)


def _last_uses(nodes: list[Any]) -> list[int]:
    """For each node the number of the node that reads it last."""
    last = list(range(len(nodes)))
    for number, (_, inputs, _, _) in enumerate(nodes):
        for i in inputs:
            if i is not None:
                last[i] = number
    return last
