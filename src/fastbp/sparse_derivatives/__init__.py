"""Derivatives that are mostly zeros: their pattern from the graph, coloured, and as few passes as there are colours.

The Jacobian of a banded function of 10,000 variables has 10,000 columns, but columns that have no row in common can
be found by one forward pass together. Three steps, a module each:

`pattern`
    Which element of the result depends on which element of the input: sets of elements, pushed through the recorded
    graph (`rules`, by the classes of the op table; `probes` asks linear ops themselves).
`colouring`
    Columns, rows or, for a symmetric Hessian, variables into groups that one pass serves.
`plan`
    One pass a colour, and where each number goes in a SciPy CSR array.

What is computed is exact: no finite differences. docs/derivations/sparse.md has the mathematics and the sources.
SciPy (`pip install 'fastbp[linalg]'`) is imported when it is first used.
"""

from .functions import sparse_hessian, sparse_hessian_plan, sparse_jacobian, sparse_jacobian_plan
from .pattern import hessian_pattern, jacobian_pattern
from .plan import SparseDerivative, SparseInfo

__all__ = [
    "SparseDerivative",
    "SparseInfo",
    "hessian_pattern",
    "jacobian_pattern",
    "sparse_hessian",
    "sparse_hessian_plan",
    "sparse_jacobian",
    "sparse_jacobian_plan",
]
