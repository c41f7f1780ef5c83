"""The public functions: a sparse Jacobian or Hessian at once, or as a plan for many points."""

from __future__ import annotations

from typing import Any

import numpy as np

from .pattern import pattern_of, symmetric
from .plan import Mode, SparseDerivative
from .recording import Function, Recording, as_leaf, record, record_gradient
from .sets import Sets, narrow, scipy_sparse


def _given_pattern(pattern: Any, shape: tuple[int, int], who: str) -> Sets:
    """A user's pattern as a canonical boolean array."""
    found = scipy_sparse().csr_array(pattern, dtype=bool, copy=True)
    if found.shape != shape:
        raise ValueError(f"{who}: the pattern has shape {found.shape}, the derivative has {shape}")
    found.sum_duplicates()
    found.eliminate_zeros()
    return narrow(found)


def _plan(
    f: Function, x: Any, args: tuple[Any, ...], mode: str, pattern: Any, hessian: bool
) -> tuple[SparseDerivative, Recording]:
    who = "sparse_hessian" if hessian else "sparse_jacobian"
    scipy_sparse()
    if mode not in ("auto", "fwd", "rev"):
        raise ValueError(f"{who}: mode must be 'auto', 'fwd' or 'rev', got {mode!r}")
    recording = (record_gradient if hessian else record)(f, as_leaf(x, who), args, who)
    if pattern is None:
        pattern = pattern_of(recording)
        pattern = symmetric(pattern) if hessian else pattern
    else:
        shape = (int(np.prod(recording.shape)), int(np.prod(recording.x.shape)))
        pattern = _given_pattern(pattern, shape, who)
        if hessian and (pattern != pattern.T).nnz:
            raise ValueError(f"{who}: the pattern of a Hessian must be symmetric")
    chosen: Mode | None = "fwd" if mode == "fwd" else "rev" if mode == "rev" else None
    return SparseDerivative(f, recording, pattern, chosen, hessian), recording


def sparse_jacobian_plan(f: Function, x: Any, *args: Any, mode: str = "auto", pattern: Any = None) -> SparseDerivative:
    """The pattern and colouring of a Jacobian, for use at many points: Newton's method, stiff differential equations.

    Parameters
    ----------
    f, x, *args, mode, pattern
        As `sparse_jacobian`. x tells the shape and dtype, and the way the function goes.

    Returns
    -------
    SparseDerivative
        Call it with a point.

    Raises
    ------
    ImportError, RuntimeError, TypeError, ValueError
        As `sparse_jacobian`.

    Examples
    --------
    Newton's method for u'' + exp(u) = 0 on a grid, u = 0 at both ends (Bratu's problem):

    >>> from scipy.sparse.linalg import spsolve
    >>> n, zero = 99, fastbp.zeros(1, dtype=fastbp.float64)
    >>> def residual(u):
    ...     v = fastbp.cat([zero, u, zero])
    ...     return (v[2:] - 2 * v[1:-1] + v[:-2]) * (n + 1) ** 2 + u.exp()
    >>> u = np.zeros(n)
    >>> jacobian = sparse_jacobian_plan(residual, u)
    >>> for _ in range(5):
    ...     u = u - spsolve(jacobian(u).tocsc(), residual(fastbp.from_numpy(u)).numpy())
    >>> print(round(float(u.max()), 4), jacobian.passes)
    0.1405 3
    """
    return _plan(f, x, args, mode, pattern, False)[0]


def sparse_hessian_plan(f: Function, x: Any, *args: Any, pattern: Any = None) -> SparseDerivative:
    """The pattern and star colouring of a Hessian, for use at many points.

    Parameters
    ----------
    f, x, *args, pattern
        As `sparse_hessian`.

    Returns
    -------
    SparseDerivative
        Call it with a point.

    Raises
    ------
    ImportError, RuntimeError, TypeError, ValueError
        As `sparse_hessian`.

    Examples
    --------
    >>> sparse_hessian_plan(lambda x: (x[1:] * x[:-1]).sum(), fastbp.ones(100))
    SparseDerivative(Hessian 100 x 100, 198 entries, 3 passes, mode='fwd')
    """
    return _plan(f, x, args, "fwd", pattern, True)[0]


def sparse_jacobian(
    f: Function, x: Any, *args: Any, mode: str = "auto", pattern: Any = None, return_info: bool = False
) -> Any:
    """The Jacobian of a function as a SciPy sparse array, in as few passes as its pattern allows.

    Parameters
    ----------
    f : callable
        Of x and `args`, to one tensor of any shape. It is called once.
    x : Tensor or array, floating
        Any shape.
    *args
        Handed to `f` as they are, and not differentiated.
    mode : str, optional
        "fwd": columns together that share no row, by forward passes; "rev": rows together that share no column, by
        reverse passes; "auto" (default): whichever takes fewer.
    pattern : sparse or dense array, (elements of f(x), elements of x), optional
        Where the Jacobian may be other than zero; entries that it lacks are taken for zeros and spoil others.
        Default: found from the graph.
    return_info : bool, optional
        Also return a `SparseInfo`. Default: False.

    Returns
    -------
    scipy.sparse.csr_array, (elements of f(x), elements of x)
        Exact, in the dtype of f(x); elements are counted in row-major order. Zeros within the pattern are stored.
    SparseInfo
        With `return_info`.

    Raises
    ------
    ImportError
        Without SciPy.
    RuntimeError
        If x has no floating dtype, or the Jacobian is large and dense.
    TypeError
        If x is no tensor or array, or `f` returns something else than one tensor.
    ValueError
        For an unknown mode, or a pattern of another shape.

    References
    ----------
    Curtis, Powell & Reid, IMA J. Appl. Math. 13 (1974); Coleman & More, SIAM J. Numer. Anal. 20 (1983); Gebremedhin,
    Manne & Pothen, SIAM Review 47 (2005).

    Examples
    --------
    >>> x = fastbp.linspace(0, 1, 10_000, dtype=fastbp.float64)
    >>> J, info = sparse_jacobian(lambda x: x[2:] - 2 * x[1:-1] + x[:-2], x, return_info=True)
    >>> info
    SparseInfo(mode='fwd', passes=3, nonzeros=29994, shape=(9998, 10000))
    """
    plan, recording = _plan(f, x, args, mode, pattern, False)
    found = plan._evaluate(recording)
    return (found, plan.info) if return_info else found


def sparse_hessian(f: Function, x: Any, *args: Any, pattern: Any = None, return_info: bool = False) -> Any:
    """The Hessian of a scalar function as a SciPy sparse array: forward passes over the recorded gradient.

    Parameters
    ----------
    f : callable
        Of x and `args`, to a tensor of one element. It is called once.
    x : Tensor or array, floating
        Any shape.
    *args
        Handed to `f` as they are, and not differentiated.
    pattern : sparse or dense array, (elements of x, elements of x), optional
        Symmetric; where the Hessian may be other than zero. Default: found from the graph of the gradient.
    return_info : bool, optional
        Also return a `SparseInfo`. Default: False.

    Returns
    -------
    scipy.sparse.csr_array, (elements of x, elements of x)
        Exact, in the dtype of x. Zeros within the pattern are stored.
    SparseInfo
        With `return_info`.

    Raises
    ------
    ImportError, TypeError
        As `sparse_jacobian`.
    RuntimeError
        As `sparse_jacobian`, and if f(x) has more than one element.
    ValueError
        For a pattern that is not symmetric, or of another shape.

    References
    ----------
    Powell & Toint, SIAM J. Numer. Anal. 16 (1979); Coleman & More, Math. Programming 28 (1984); Gebremedhin, Manne &
    Pothen, SIAM Review 47 (2005).

    Examples
    --------
    >>> rosenbrock = lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
    >>> H, info = sparse_hessian(rosenbrock, fastbp.ones(1000), return_info=True)
    >>> info
    SparseInfo(mode='fwd', passes=3, nonzeros=2998, shape=(1000, 1000))
    """
    plan, recording = _plan(f, x, args, "fwd", pattern, True)
    found = plan._evaluate(recording)
    return (found, plan.info) if return_info else found
