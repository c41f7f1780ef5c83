"""PyTorch's functions of matrices that stand in the package's own namespace, as `fastbp.einsum`."""

from ._einsum import einsum
from .linalg import (
    chain_matmul,
    cholesky_inverse,
    cholesky_solve,
    det,
    inner,
    inverse,
    kron,
    logdet,
    matrix_power,
    pinverse,
    slogdet,
    tensordot,
)
from .linalg import cholesky_older as cholesky
from .linalg import cross_older as cross
from .linalg import qr_older as qr
from .linalg import svd_older as svd

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
