"""PyTorch's functions of matrices that stand in the package's own namespace, as `fastbp.einsum`."""

from ._einsum import einsum
from .linalg._decompositions import det, logdet, slogdet
from .linalg._decompositions import qr_older as qr
from .linalg._decompositions import svd_older as svd
from .linalg._products import chain_matmul, inner, kron, matrix_power, tensordot
from .linalg._products import cross_older as cross
from .linalg._systems import cholesky_inverse, cholesky_solve, inverse, pinverse
from .linalg._systems import cholesky_older as cholesky

__all__ = [
    "chain_matmul",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "cross",
    "det",
    "einsum",
    "inner",
    "inverse",
    "kron",
    "logdet",
    "matrix_power",
    "pinverse",
    "qr",
    "slogdet",
    "svd",
    "tensordot",
]
