"""Linear algebra with derivatives: torch.linalg's functions, for batches of float32 and float64 matrices.

The last two axes are matrices, all before them a batch. Every function is differentiable to any order, in both modes,
but for ranks. Factorizations are ops like any other: they are captured into compiled functions, shown in graphs and
checked against `fastbp.reference`. Their numbers are computed by the LAPACK that NumPy brings; SciPy, where installed,
solves large triangular systems.
"""

from .._core import matmul
from ._checks import LinAlgError
from ._decompositions import det, eigh, eigvalsh, matrix_rank, qr, slogdet, svd, svdvals
from ._norms import cond, matrix_norm, norm, vector_norm
from ._products import cross, matrix_power, multi_dot, vecdot
from ._systems import cholesky, inv, lstsq, pinv, solve, solve_triangular

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "cross",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "vecdot",
    "vector_norm",
]
