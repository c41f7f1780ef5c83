# Methods of Tensor: linear algebra.  The functions stand in fastbp._matrices and fastbp.linalg, in Python.

def inverse(self):
    """Inverses of square matrices; see `fastbp.linalg.inv`."""
    from fastbp import _matrices
    return _matrices.inverse(self)

def pinverse(self, rcond=1e-15):
    """Pseudoinverses of matrices; see `fastbp.linalg.pinv`."""
    from fastbp import _matrices
    return _matrices.pinverse(self, rcond)

def det(self):
    """Determinants of square matrices."""
    from fastbp import _matrices
    return _matrices.det(self)

def slogdet(self):
    """Signs and logarithms of the absolute values of determinants."""
    from fastbp import _matrices
    return _matrices.slogdet(self)

def logdet(self):
    """Logarithms of determinants: NaN where they are negative, -inf where they are 0."""
    from fastbp import _matrices
    return _matrices.logdet(self)

def cholesky(self, upper=False):
    """Cholesky factors of positive definite matrices; see `fastbp.linalg.cholesky`."""
    from fastbp import _matrices
    return _matrices.cholesky(self, upper)

def cholesky_solve(self, input2, upper=False):
    """X of A X = self, from the Cholesky factor of A."""
    from fastbp import _matrices
    return _matrices.cholesky_solve(self, input2, upper)

def cholesky_inverse(self, upper=False):
    """The inverse of A, of which this is the Cholesky factor."""
    from fastbp import _matrices
    return _matrices.cholesky_inverse(self, upper)

def qr(self, some=True):
    """QR decompositions (Q, R); some=False for square Q; see `fastbp.linalg.qr`."""
    from fastbp import _matrices
    return _matrices.qr(self, some)

def svd(self, some=True, compute_uv=True):
    """Singular value decompositions (U, S, V): V, not its transpose, as PyTorch's older function gives it."""
    from fastbp import _matrices
    return _matrices.svd(self, some, compute_uv)

def matrix_power(self, n):
    """The n-th power of square matrices; a negative n takes the inverse."""
    from fastbp import _matrices
    return _matrices.matrix_power(self, n)

def inner(self, other):
    """Sums of products along the last axis; see `fastbp.inner`."""
    from fastbp import _matrices
    return _matrices.inner(self, other)

def kron(self, other):
    """Kronecker product."""
    from fastbp import _matrices
    return _matrices.kron(self, other)

def cross(self, other, dim=None):
    """Vector products along an axis of 3 elements."""
    from fastbp import _matrices
    return _matrices.cross(self, other, dim)

def vdot(self, other):
    """Inner product of two vectors."""
    return dot(self, other)
