"""What the functions of fastbp.linalg share: errors, refusals, and out=."""

from __future__ import annotations

from .._core import Tensor


class LinAlgError(RuntimeError):
    """A matrix for which the result does not exist, as in PyTorch (where it is a RuntimeError too)."""

    __module__ = "fastbp.linalg"


def stored(result: Tensor, out: Tensor | None) -> Tensor:
    """`result`, or `out` with its elements."""
    return result if out is None else out.copy_(result)


def check_tensors(name: str, **given: object) -> None:
    """Raise TypeError unless all of these arguments are tensors."""
    for argument, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}(): argument '{argument}' must be Tensor, not {type(x).__name__}")


def check_matrix(name: str, A: Tensor, any_dtype: bool = False) -> None:
    """Raise unless A is a batch of matrices of floats."""
    if not isinstance(A, Tensor):
        raise TypeError(f"{name}(): argument 'A' must be Tensor, not {type(A).__name__}")
    if not any_dtype and not A.is_floating_point():
        raise RuntimeError(
            f"{name}: Expected a floating point tensor as input. Got {A.dtype.name}, of shape {tuple(A.shape)}; cast "
            f"it with .to(fastbp.float64)"
        )
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions, got shape {tuple(A.shape)}")


def check_square(name: str, A: Tensor, any_dtype: bool = False) -> None:
    """Raise unless A is a batch of square matrices."""
    check_matrix(name, A, any_dtype)
    rows, columns = A.shape[-2:]
    if rows != columns:
        raise RuntimeError(
            f"{name}: A must be batches of square matrices, but they are {rows} by {columns} matrices (shape "
            f"{tuple(A.shape)})"
        )


def check_triangle(UPLO: str) -> bool:
    """Whether UPLO names the upper triangle."""
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper() == "U"


def rank_limits(A: Tensor, atol: float | None, rtol: float | None) -> tuple[float, float]:
    """PyTorch's defaults of the tolerances below which singular values count as 0."""
    if rtol is None:
        epsilon = 2.0**-23 if A.dtype.name == "float32" else 2.0**-52
        rtol = 0.0 if atol is not None and float(atol) > 0 else max(A.shape[-2:]) * epsilon
    return float(atol or 0.0), float(rtol)
