"""fastbp.linalg: against NumPy, derivatives, batches, empty matrices, refusals, float32, compiled functions."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import fastbp
from fastbp import _core, linalg
from fastbp.linalg import LinAlgError, _lapack, _products
from fastbp.testing import check, check_grads

# Of results of well-conditioned 4 x 4 matrices (singular values of 1 to 2.5), relative to their size: some hundred
# roundings, in whatever order.
ROUNDING = {"float32": 3e-5, "float64": 5e-14}


def general(*shape: int, seed: int = 0) -> Any:
    """Matrices with singular values evenly spaced from 1 to 2.5."""
    random = np.random.default_rng(seed)
    *batch, rows, columns = shape
    count = min(rows, columns)
    u, v = (np.linalg.qr(random.standard_normal((*batch, n, count)))[0] for n in (rows, columns))
    return (u * np.linspace(1, 2.5, count)) @ np.swapaxes(v, -1, -2)


def definite(*shape: int, seed: int = 0) -> Any:
    """Symmetric ones with these eigenvalues."""
    u = np.linalg.qr(np.random.default_rng(seed).standard_normal(shape))[0]
    made = (u * np.linspace(1, 2.5, shape[-1])) @ np.swapaxes(u, -1, -2)
    return (made + np.swapaxes(made, -1, -2)) / 2


def drawn(*shape: int, seed: int = 1) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


def tensor(a: Any, dtype: str = "float64") -> fastbp.Tensor:
    return fastbp.from_numpy(np.asarray(a, dtype))


def close(found: fastbp.Tensor, wanted: Any, factor: float = 1.0) -> None:
    array = found.detach().numpy()
    assert array.shape == np.shape(wanted), f"shape {array.shape}, not {np.shape(wanted)}"
    allowed = factor * ROUNDING[array.dtype.name] * max(1.0, float(np.abs(wanted).max(initial=0)))
    assert np.abs(array - wanted).max(initial=0) <= allowed


T = np.swapaxes

# ---- values ----------------------------------------------------------------------------------------------------------

NUMPY: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Any]]] = {
    "inv": (linalg.inv, np.linalg.inv, [general(2, 3, 4, 4)]),
    "inverse": (fastbp.inverse, np.linalg.inv, [general(4, 4)]),
    "inverse method": (lambda a: a.inverse(), np.linalg.inv, [general(4, 4)]),
    "solve": (linalg.solve, np.linalg.solve, [general(2, 4, 4), drawn(2, 4, 3)]),
    "solve broadcast": (linalg.solve, np.linalg.solve, [general(3, 1, 4, 4), drawn(2, 4, 3)]),
    "solve vector": (linalg.solve, lambda a, b: np.linalg.inv(a) @ b, [general(4, 4), drawn(4)]),
    "solve one vector for many": (linalg.solve, lambda a, b: np.linalg.inv(a) @ b, [general(2, 4, 4), drawn(4)]),
    "solve vectors": (linalg.solve, lambda a, b: (np.linalg.inv(a) @ b[..., None])[..., 0],
                      [general(3, 4, 4), drawn(3, 4)]),
    "solve rows as matrices": (linalg.solve, lambda a, b: np.linalg.inv(a) @ b, [general(4, 4, 4), drawn(4, 2)]),
    "solve left=False": (lambda a, b: linalg.solve(a, b, left=False), lambda a, b: b @ np.linalg.inv(a),
                         [general(2, 4, 4), drawn(2, 3, 4)]),
    "triangular": (lambda a, b: linalg.solve_triangular(a, b, upper=False),
                   lambda a, b: np.linalg.inv(np.tril(a)) @ b, [definite(2, 4, 4), drawn(4, 3)]),
    "triangular right": (lambda a, b: linalg.solve_triangular(a, b, upper=True, left=False),
                         lambda a, b: b @ np.linalg.inv(np.triu(a)), [definite(2, 4, 4), drawn(3, 4)]),
    "triangular unit": (lambda a, b: linalg.solve_triangular(a, b, upper=True, unitriangular=True),
                        lambda a, b: np.linalg.inv(np.triu(a, 1) + np.eye(4)) @ b, [general(4, 4), drawn(2, 4, 3)]),
    "triangular large": (lambda a, b: linalg.solve_triangular(a, b, upper=False),
                         lambda a, b: np.linalg.inv(np.tril(a)) @ b,
                         [0.1 * drawn(2, 40, 40) + 3 * np.eye(40), drawn(40, 3)]),
    "triangular large unit": (lambda a, b: linalg.solve_triangular(a, b, upper=True, unitriangular=True),
                              lambda a, b: np.linalg.inv(np.triu(a, 1) + np.eye(40)) @ b,
                              [0.1 * drawn(40, 40), drawn(2, 40, 3)]),
    "cholesky": (linalg.cholesky, np.linalg.cholesky, [definite(2, 4, 4)]),
    "cholesky reads the lower triangle": (linalg.cholesky, lambda a: np.linalg.cholesky(definite(4, 4)),
                                          [np.tril(definite(4, 4)) + np.triu(drawn(4, 4), 1)]),
    "cholesky upper": (lambda a: linalg.cholesky(a, upper=True),
                       lambda a: T(np.linalg.cholesky(definite(2, 4, 4)), 1, 2),
                       [np.triu(definite(2, 4, 4)) + 9 * np.tril(np.ones((4, 4)), -1)]),
    "cholesky method": (lambda a: a.cholesky(True), lambda a: np.linalg.cholesky(a).T, [definite(4, 4)]),
    "cholesky_solve": (lambda b, a: fastbp.cholesky_solve(b, linalg.cholesky(a)), lambda b, a: np.linalg.inv(a) @ b,
                       [drawn(4, 2), definite(2, 4, 4)]),
    "cholesky_solve upper": (lambda b, a: b.cholesky_solve(linalg.cholesky(a).mT, upper=True),
                             lambda b, a: np.linalg.inv(a) @ b, [drawn(4, 2), definite(2, 4, 4)]),
    "cholesky_inverse": (lambda a: fastbp.cholesky_inverse(linalg.cholesky(a)), np.linalg.inv, [definite(2, 4, 4)]),
    "det": (fastbp.det, np.linalg.det, [general(2, 3, 4, 4)]),
    "det method": (lambda a: a.det(), np.linalg.det, [general(4, 4)]),
    "sign": (lambda a: fastbp.slogdet(a).sign, lambda a: np.linalg.slogdet(a)[0], [general(5, 4, 4)]),
    "logabsdet": (lambda a: a.slogdet().logabsdet, lambda a: np.linalg.slogdet(a)[1], [general(5, 4, 4)]),
    "logdet": (fastbp.logdet, lambda a: np.linalg.slogdet(a)[1], [definite(5, 4, 4)]),
    "eigvalsh": (linalg.eigvalsh, np.linalg.eigvalsh, [definite(2, 4, 4)]),
    "eigvalsh U": (lambda a: linalg.eigvalsh(a, "U"), lambda a: np.linalg.eigvalsh(a, "U"), [general(2, 4, 4)]),
    "svdvals": (linalg.svdvals, lambda a: np.linalg.svd(a, compute_uv=False), [general(2, 3, 5)]),
    "svd values": (lambda a: a.svd(compute_uv=False).S, lambda a: np.linalg.svd(a, compute_uv=False), [general(5, 3)]),
    "pinv tall": (linalg.pinv, np.linalg.pinv, [general(2, 5, 3)]),
    "pinv wide": (fastbp.pinverse, np.linalg.pinv, [general(3, 5)]),
    "pinv of rank 2": (linalg.pinv, lambda a: np.linalg.pinv(a, 1e-5), [general(5, 2) @ general(2, 4)]),
    "pinv atol": (lambda a: linalg.pinv(a, atol=1.3), lambda a: np.linalg.pinv(a, 1.3 / 2.5), [general(4, 4)]),
    "pinv hermitian": (lambda a: linalg.pinv(a, hermitian=True), lambda a: np.linalg.inv(definite(4, 4)),
                       [np.tril(definite(4, 4)) + np.triu(drawn(4, 4), 1)]),
    "matrix_rank": (linalg.matrix_rank, np.linalg.matrix_rank,
                    [np.stack([general(4, 4), np.ones((4, 4)), 0 * general(4, 4)])]),
    "matrix_rank tol": (lambda a: linalg.matrix_rank(a, atol=1.6), lambda a: np.array(2), [general(4, 4)]),
    "matrix_rank hermitian": (lambda a: linalg.matrix_rank(a, hermitian=True), np.linalg.matrix_rank,
                              [-definite(4, 4)]),
    "matrix_power 0": (lambda a: linalg.matrix_power(a, 0), lambda a: np.linalg.matrix_power(a, 0), [general(2, 4, 4)]),
    "matrix_power 1": (lambda a: linalg.matrix_power(a, 1), lambda a: a, [general(2, 4, 4)]),
    "matrix_power 5": (lambda a: a.matrix_power(5), lambda a: np.linalg.matrix_power(a, 5), [general(2, 4, 4) / 2]),
    "matrix_power 6": (lambda a: a.matrix_power(6), lambda a: np.linalg.matrix_power(a, 6), [general(2, 4, 4) / 2]),
    "matrix_power 7": (lambda a: a.matrix_power(7), lambda a: np.linalg.matrix_power(a, 7), [general(2, 4, 4) / 2]),
    "matrix_power -3": (lambda a: linalg.matrix_power(a, -3), lambda a: np.linalg.matrix_power(a, -3),
                        [general(2, 4, 4)]),
    "multi_dot": (lambda *xs: linalg.multi_dot(xs), lambda *xs: np.linalg.multi_dot(xs),
                  [drawn(2, 5), drawn(5, 3), drawn(3, 4), drawn(4, 2)]),
    "multi_dot vectors": (lambda *xs: linalg.multi_dot(xs), lambda *xs: np.linalg.multi_dot(xs),
                          [drawn(5), drawn(5, 3), drawn(3)]),
    "multi_dot two": (lambda *xs: linalg.multi_dot(xs), lambda a, b: a @ b, [drawn(5), drawn(5, 3)]),
    "chain_matmul": (fastbp.chain_matmul, lambda *xs: np.linalg.multi_dot(xs), [drawn(2, 5), drawn(5, 3), drawn(3, 4)]),
    "kron": (fastbp.kron, np.kron, [drawn(2, 3), drawn(4, 5)]),
    "kron of other axes": (fastbp.kron, np.kron, [drawn(3), drawn(2, 2, 5)]),
    "cross": (linalg.cross, np.cross, [drawn(4, 3), drawn(4, 3, seed=2)]),
    "cross broadcast": (linalg.cross, np.cross, [drawn(4, 1, 3), drawn(1, 5, 3)]),
    "cross dim": (lambda a, b: linalg.cross(a, b, dim=0), lambda a, b: np.cross(a, b, axis=0),
                  [drawn(3, 5), drawn(3, 5, seed=2)]),
    "cross older": (fastbp.cross, lambda a, b: np.cross(a, b, axis=1), [drawn(2, 3, 3), drawn(2, 3, 3, seed=2)]),
    "vecdot": (linalg.vecdot, lambda a, b: (a * b).sum(-1), [drawn(4, 3), drawn(3)]),
    "inner": (fastbp.inner, np.inner, [drawn(2, 4, 3), drawn(5, 3)]),
    "inner of vectors": (fastbp.inner, np.inner, [drawn(3), drawn(3)]),
    "inner with a number": (fastbp.inner, np.inner, [drawn(2, 3), drawn()]),
    "vdot": (fastbp.vdot, np.vdot, [drawn(3), drawn(3)]),
    "tensordot": (fastbp.tensordot, np.tensordot, [drawn(2, 3, 4), drawn(3, 4, 5)]),
    "tensordot 0": (lambda a, b: fastbp.tensordot(a, b, 0), lambda a, b: np.tensordot(a, b, 0),
                    [drawn(2, 3), drawn(4)]),
    "tensordot 1": (lambda a, b: fastbp.tensordot(a, b, dims=1), lambda a, b: np.tensordot(a, b, 1),
                    [drawn(2, 3), drawn(3, 4)]),
    "tensordot lists": (lambda a, b: fastbp.tensordot(a, b, ([0, -1], [2, 0])),
                        lambda a, b: np.tensordot(a, b, ([0, -1], [2, 0])), [drawn(2, 3, 4), drawn(4, 5, 2)]),
    "tensordot of all": (lambda a, b: fastbp.tensordot(a, b, 2), np.tensordot, [drawn(2, 3), drawn(2, 3)]),
    "tensordot of size 1": (lambda a, b: fastbp.tensordot(a, b, 1), lambda a, b: a.sum(-1, keepdims=True) @ b,
                            [drawn(2, 3), drawn(1, 4)]),
    "trace": (fastbp.trace, np.trace, [drawn(3, 4)]),
    "outer": (fastbp.outer, np.outer, [drawn(3), drawn(4)]),
    "cond": (linalg.cond, np.linalg.cond, [general(2, 4, 4)]),
    **{f"cond {p}": (lambda a, p=p: linalg.cond(a, p), lambda a, p=p: np.linalg.cond(a, p), [general(2, 4, 4)])
       for p in (2, -2, 1, -1, math.inf, -math.inf, "fro", "nuc")},
    **{f"matrix_norm {p}": (lambda a, p=p: linalg.matrix_norm(a, p),
                            lambda a, p=p: np.linalg.norm(a, p, (-2, -1)), [general(2, 3, 4)])
       for p in (2, -2, 1, -1, math.inf, -math.inf, "fro", "nuc")},
    **{f"norm {p} keepdim": (lambda a, p=p: linalg.norm(a, p, (2, 0), True),
                             lambda a, p=p: np.linalg.norm(a, p, (2, 0), True), [drawn(3, 2, 4)])
       for p in (2, 1, -math.inf, "fro", "nuc")},
    **{f"norm of matrix {p}": (lambda a, p=p: linalg.norm(a, p), lambda a, p=p: np.linalg.norm(a, p), [general(3, 4)])
       for p in (None, 2, 1, math.inf, "fro", "nuc")},
    **{f"norm of vectors {p}": (lambda a, p=p: linalg.norm(a, p, dim=1), lambda a, p=p: np.linalg.norm(a, p, 1),
        [drawn(3, 4, 2)])
       for p in (None, 2, 1, 0, 3.5, math.inf, -math.inf)},
    **{f"vector_norm {p}": (lambda a, p=p: linalg.vector_norm(a, p), lambda a, p=p: np.linalg.norm(a.ravel(), p),
        [drawn(3, 4)])
       for p in (2, 1, 0, 3.5, math.inf, -math.inf)},
    "norm of many axes": (linalg.norm, lambda a: np.linalg.norm(a.ravel()), [drawn(3, 4, 2)]),
    "Tensor.norm nuc": (lambda a: a.norm("nuc"), lambda a: np.linalg.norm(a, "nuc"), [general(3, 4)]),
    "matmul": (linalg.matmul, np.matmul, [drawn(2, 3), drawn(3, 4)]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NUMPY)
def test_agrees_with_numpy(name: str, dtype: str) -> None:
    ours, theirs, arrays = NUMPY[name]
    rounded = [a.astype(dtype) for a in arrays]
    found = ours(*(tensor(a, dtype) for a in rounded))
    wanted = np.asarray(theirs(*(a.astype("float64") for a in rounded)))
    if found.dtype.name == "int64":
        assert np.array_equal(found.numpy(), wanted)
        return
    assert found.dtype.name == dtype
    close(found, wanted, 10.0 if "large" in name else 1.0)


SHAPES = [(4, 4), (5, 3), (3, 5), (2, 5, 3), (2, 1, 3, 5)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_decompositions_by_what_defines_them(shape: tuple[int, ...], dtype: str) -> None:
    a = general(*shape).astype(dtype)
    x = tensor(a, dtype)
    rows, columns = shape[-2:]
    k = min(rows, columns)
    for mode, width in (("reduced", k), ("complete", rows)):
        Q, R = linalg.qr(x, mode)
        assert Q.shape == (*shape[:-1], width) and R.shape == (*shape[:-2], width, columns)
        close(Q @ R, a)
        close(Q.mT @ Q, np.broadcast_to(np.eye(width), (*shape[:-2], width, width)))
        assert np.array_equal(R.numpy(), np.triu(R.numpy()))
    assert np.array_equal(linalg.qr(x, "r").R.numpy(), linalg.qr(x).R.numpy()) and linalg.qr(x, "r").Q.numel() == 0
    assert [part.shape for part in x.qr(some=False)] == [part.shape for part in linalg.qr(x, "complete")]
    for full in (False, True):
        U, S, Vh = linalg.svd(x, full)
        height, width = (rows, columns) if full else (k, k)
        assert U.shape == (*shape[:-1], height) and Vh.shape == (*shape[:-2], width, columns)
        close(U[..., :k] * S.unsqueeze(-2) @ Vh[..., :k, :], a)
        close(U.mT @ U, np.broadcast_to(np.eye(height), (*shape[:-2], height, height)))
        close(Vh @ Vh.mT, np.broadcast_to(np.eye(width), (*shape[:-2], width, width)))
        close(S, np.broadcast_to(np.linspace(2.5, 1, k), S.shape))
    U, S, V = fastbp.svd(x)
    close(U * S.unsqueeze(-2) @ V.mT, a)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("UPLO", ["L", "U", "u"])
def test_eigh_by_what_defines_it(UPLO: str, dtype: str) -> None:
    a = definite(2, 3, 4, 4).astype(dtype)
    half = np.tril(a) if UPLO == "L" else np.triu(a)
    w, V = linalg.eigh(tensor(half, dtype), UPLO)
    close(V * w.unsqueeze(-2) @ V.mT, a)
    close(V.mT @ V, np.broadcast_to(np.eye(4), a.shape))
    close(w, np.broadcast_to(np.linspace(1, 2.5, 4), w.shape))


def test_signs_are_chosen_by_the_largest_component() -> None:
    """So that vectors do not hang on LAPACK's chance; components equal but for rounding do not either."""
    for a in (general(6, 5, 5), np.ones((3, 3)) + np.eye(3), np.array([[2.0, 1.0], [1.0, 2.0]])):
        symmetric = tensor(a + T(a, -1, -2))
        for vectors in (linalg.eigh(symmetric).eigenvectors, linalg.svd(tensor(a)).U):
            v = vectors.numpy()
            size = np.abs(v)
            first = (size >= 0.9 * size.max(-2, keepdims=True)).argmax(-2)
            assert (np.take_along_axis(v, first[..., None, :], -2) > 0).all()
    assert np.allclose(linalg.eigh(tensor([[2.0, 1.0], [1.0, 2.0]])).eigenvectors.numpy() * 2**0.5, [[1, 1], [-1, 1]])


def test_lstsq() -> None:
    for shape, right in (((5, 3), (5, 2)), ((3, 5), (3, 2)), ((2, 5, 3), (2, 5, 2)), ((5, 3), (5,)),
        ((2, 5, 3), (2, 5))):
        a, b = general(*shape), drawn(*right)
        found = linalg.lstsq(tensor(a), tensor(b), driver="gelsd")
        vectors = b.ndim == a.ndim - 1
        columns = b[..., None] if vectors else b
        wanted = np.linalg.pinv(a) @ columns
        close(found.solution, wanted[..., 0] if vectors else wanted)
        assert found.rank.tolist() == np.linalg.matrix_rank(a).tolist()
        close(found.singular_values, np.linalg.svd(a, compute_uv=False))
        if shape[-2] > shape[-1]:
            close(found.residuals, ((a @ wanted - columns) ** 2).sum(-2))
        else:
            assert found.residuals.numel() == 0
    deficient = linalg.lstsq(fastbp.ones(4, 2), fastbp.ones(4, 1))
    assert deficient.rank.item() == 1 and deficient.residuals.numel() == 0 and deficient.singular_values.numel() == 0
    close(deficient.solution, np.full((2, 1), 0.5))


def test_chains_are_multiplied_in_the_cheapest_order() -> None:
    """The worked example of Cormen, Leiserson, Rivest and Stein: ((A1 (A2 A3)) ((A4 A5) A6))."""
    split = _products._cheapest([30, 35, 15, 5, 10, 20, 25])
    assert split[0][5] == 2 and split[0][2] == 0 and split[3][5] == 4


def test_results_have_names() -> None:
    x = tensor(definite(3, 3))
    assert linalg.qr(x)._fields == ("Q", "R") and linalg.eigh(x)._fields == ("eigenvalues", "eigenvectors")
    assert linalg.svd(x)._fields == ("U", "S", "Vh") and fastbp.svd(x)._fields == ("U", "S", "V")
    assert fastbp.slogdet(x)._fields == ("sign", "logabsdet")
    assert linalg.lstsq(x, x)._fields == ("solution", "residuals", "rank", "singular_values")


def test_out_is_written() -> None:
    x = tensor(definite(3, 3))
    single, pair = fastbp.empty(3, 3, dtype=fastbp.float64), (fastbp.empty(3).double(), fastbp.empty(3, 3).double())
    assert linalg.inv(x, out=single) is single and np.array_equal(single.numpy(), linalg.inv(x).numpy())
    w, V = linalg.eigh(x, out=pair)
    assert w is pair[0] and V is pair[1] and np.array_equal(V.numpy(), linalg.eigh(x).eigenvectors.numpy())


def test_functions_are_in_the_package_and_methods_of_tensors() -> None:
    for name in ("cholesky", "cross", "det", "inner", "inverse", "kron", "logdet", "matrix_power", "qr", "slogdet",
        "svd"):
        assert name in dir(fastbp) and callable(getattr(fastbp, name)) and callable(getattr(fastbp.Tensor, name))
    assert not hasattr(fastbp, "no_such_function")


# ---- empty, singular, not finite -------------------------------------------------------------------------------------


def test_empty_matrices() -> None:
    zero, batch = fastbp.empty(0, 0), fastbp.empty(0, 3, 3)
    assert linalg.inv(zero).shape == (0, 0) and linalg.inv(batch).shape == (0, 3, 3)
    assert linalg.det(zero).item() == 1.0 and linalg.det(batch).shape == (0,)
    assert [x.item() for x in linalg.slogdet(zero)] == [1.0, 0.0] and fastbp.logdet(zero).item() == 0.0
    assert linalg.cholesky(zero).shape == (0, 0) and linalg.eigvalsh(zero).shape == (0,)
    assert [x.shape for x in linalg.eigh(zero)] == [(0,), (0, 0)]
    assert linalg.solve(zero, fastbp.empty(0, 2)).shape == (0, 2)
    assert linalg.solve(fastbp.eye(3), fastbp.empty(3, 0)).shape == (3, 0)
    assert linalg.solve_triangular(zero, fastbp.empty(0, 2), upper=True).shape == (0, 2)
    assert linalg.matrix_power(zero, 3).shape == (0, 0) and fastbp.kron(zero, fastbp.ones(2, 2)).shape == (0, 0)
    for rows, columns in ((0, 3), (3, 0)):
        x = fastbp.empty(rows, columns)
        assert [part.shape for part in linalg.qr(x)] == [(rows, 0), (0, columns)]
        assert [part.shape for part in linalg.svd(x, False)] == [(rows, 0), (0,), (0, columns)]
        U, _, Vh = linalg.svd(x)
        assert np.array_equal(np.abs(U.numpy()), np.eye(rows)) and np.array_equal(np.abs(Vh.numpy()), np.eye(columns))
        Q, R = linalg.qr(x, "complete")
        assert np.array_equal(np.abs(Q.numpy()), np.eye(rows)) and R.shape == (rows, columns)
        assert linalg.pinv(x).shape == (columns, rows) and linalg.matrix_rank(x).item() == 0
        assert linalg.lstsq(x, fastbp.ones(rows, 2)).solution.tolist() == [[0.0, 0.0]] * columns


def test_derivatives_of_empty_matrices() -> None:
    for call in (linalg.inv, linalg.det, linalg.cholesky, linalg.eigvalsh, lambda x: linalg.slogdet(x)[1]):
        x = fastbp.empty(0, 0, requires_grad=True)
        call(x).sum().backward()
        assert x.grad.shape == (0, 0)
    for shape in ((0, 3), (3, 0)):
        for call in (linalg.pinv, linalg.svdvals, lambda x: linalg.qr(x).Q):
            x = fastbp.empty(*shape, requires_grad=True)
            call(x).sum().backward()
            assert x.grad.shape == shape


SINGULAR = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.0, 1.0, 5.0]])


def test_determinants_of_singular_matrices() -> None:
    x = tensor(np.zeros((3, 3)))
    assert [y.item() for y in linalg.slogdet(x)] == [0.0, -math.inf] and fastbp.logdet(x).item() == -math.inf
    assert math.isnan(fastbp.logdet(-fastbp.eye(3)).item())
    for singular in (SINGULAR, np.ones((3, 3)), np.zeros((3, 3)), np.diag([1.0, 0.0, 0.0])):
        check_grads(linalg.det, singular)


def test_zeros_on_a_triangle_s_diagonal_give_infinities() -> None:
    a, b = fastbp.tensor([[1.0, 1.0], [0.0, 0.0]]), fastbp.ones(2, 1)
    x = linalg.solve_triangular(a, b, upper=True)
    assert x.tolist() == [[-math.inf], [math.inf]]
    assert linalg.solve_triangular(a.mT, b.mT, upper=False, left=False).shape == (1, 2)
    assert linalg.solve_triangular(a, b, upper=True, unitriangular=True).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("upper", [False, True])
def test_substitution_solves_triangular_systems(upper: bool, unit: bool) -> None:
    """The way that zeros on the diagonal go, on matrices that the other ways solve as well."""
    a, b = general(2, 5, 5) + 3 * np.eye(5), drawn(5, 2)
    found, wanted = np.empty((2, 5, 2)), np.empty((2, 5, 2))
    _lapack._substitute(found, a, b, upper, unit)
    _lapack._solve_triangular(wanted, a, b, upper, unit)
    np.testing.assert_allclose(found, wanted, rtol=1e-11)


def test_triangular_systems_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = 0.1 * drawn(2, 40, 40) + 3 * np.eye(40), drawn(40, 3)
    monkeypatch.setitem(sys.modules, "scipy.linalg", None)
    for upper, unit in ((False, False), (True, True)):
        x = linalg.solve_triangular(tensor(a), tensor(b), upper=upper, unitriangular=unit)
        matrix = np.triu(a, 1) + np.eye(40) if upper else np.tril(a)
        close(x, np.linalg.inv(matrix) @ b, 10.0)


def test_values_that_are_equal() -> None:
    """Derivatives of values are finite, those of vectors are not: as PyTorch documents and does."""
    x = fastbp.eye(2, dtype=fastbp.float64).requires_grad_()
    for values in (linalg.eigvalsh, lambda x: linalg.eigh(x)[0], linalg.svdvals, lambda x: linalg.svd(x)[1]):
        (g,) = fastbp.autograd.grad(values(x).sum(), x)
        assert np.allclose(g.numpy(), np.eye(2))
    for vectors in (lambda x: linalg.eigh(x)[1], lambda x: linalg.svd(x)[0]):
        (g,) = fastbp.autograd.grad((vectors(x) * tensor(drawn(2, 2))).sum(), x)
        assert not np.isfinite(g.numpy()).any(axis=None)


def test_full_svd_differentiates_the_first_vectors() -> None:
    a, weight = general(5, 3), tensor(drawn(5, 3))
    pulled = []
    for full in (False, True):
        x = tensor(a).requires_grad_()
        U, S, Vh = linalg.svd(x, full)
        ((U[:, :3] * weight).sum() + S.sum() + Vh[0, 0]).backward()
        pulled.append(x.grad.numpy())
    assert np.array_equal(*pulled)


# ---- derivatives ---------------------------------------------------------------------------------------------------


def symmetric(x: fastbp.Tensor) -> fastbp.Tensor:
    return (x + x.mT) / 2


SMOOTH: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "inv": (linalg.inv, [general(2, 3, 3)]),
    "solve": (linalg.solve, [general(2, 3, 3), drawn(3, 2)]),
    "solve broadcast A": (linalg.solve, [general(3, 3), drawn(2, 3, 2)]),
    "solve vector": (linalg.solve, [general(3, 3), drawn(3)]),
    "solve vectors": (linalg.solve, [general(2, 3, 3), drawn(2, 3)]),
    "solve left=False": (lambda a, b: linalg.solve(a, b, left=False), [general(2, 3, 3), drawn(2, 3)]),
    "triangular": (lambda a, b: linalg.solve_triangular(a, b, upper=False), [definite(2, 3, 3), drawn(3, 2)]),
    "triangular right": (lambda a, b: linalg.solve_triangular(a, b, upper=True, left=False, unitriangular=True),
                         [definite(3, 3), drawn(2, 2, 3)]),
    "cholesky": (lambda a: linalg.cholesky(symmetric(a)), [definite(2, 3, 3)]),
    "cholesky upper": (lambda a: linalg.cholesky(symmetric(a), upper=True), [definite(3, 3)]),
    "cholesky_solve": (lambda b, l: fastbp.cholesky_solve(b, l), [drawn(3, 2), np.linalg.cholesky(definite(3, 3))]),
    "cholesky_inverse": (fastbp.cholesky_inverse, [np.linalg.cholesky(definite(3, 3))]),
    "qr": (linalg.qr, [general(2, 3, 3)]),
    "qr tall": (linalg.qr, [general(4, 3)]),
    "qr wide": (linalg.qr, [general(2, 2, 4)]),
    "qr r": (lambda a: linalg.qr(a, "r").R, [general(4, 3)]),
    "eigh": (lambda a: linalg.eigh(symmetric(a)), [definite(2, 3, 3)]),
    "eigh U": (lambda a: linalg.eigh(symmetric(a), "U"), [definite(3, 3)]),
    "eigvalsh": (lambda a: linalg.eigvalsh(symmetric(a)), [definite(2, 3, 3)]),
    "svd": (lambda a: linalg.svd(a, False), [general(2, 3, 3)]),
    "svd tall": (lambda a: linalg.svd(a, False), [general(4, 3)]),
    "svd wide": (lambda a: linalg.svd(a, False), [general(2, 2, 4)]),
    "svdvals": (linalg.svdvals, [general(2, 4, 3)]),
    "pinv": (linalg.pinv, [general(2, 4, 3)]),
    "pinv hermitian": (lambda a: linalg.pinv(symmetric(a), hermitian=True), [definite(3, 3)]),
    "pinv of rank 2": (lambda a, b: linalg.pinv(a @ b, rtol=1e-8), [general(4, 2), general(2, 3)]),
    "lstsq": (lambda a, b: linalg.lstsq(a, b)[:2], [general(4, 3), drawn(4, 2)]),
    "lstsq wide": (lambda a, b: linalg.lstsq(a, b).solution, [general(2, 4), drawn(2)]),
    "det": (linalg.det, [general(2, 3, 3)]),
    "det of the other sign": (linalg.det, [general(2, 3, 3)[:, ::-1].copy()]),
    "det of one": (linalg.det, [general(1, 1)]),
    "slogdet": (lambda a: linalg.slogdet(a).logabsdet, [general(2, 3, 3)]),
    "logdet": (lambda a: fastbp.logdet(symmetric(a)), [definite(3, 3)]),
    "matrix_power 5": (lambda a: linalg.matrix_power(a, 5), [general(2, 3, 3)]),
    "matrix_power -2": (lambda a: linalg.matrix_power(a, -2), [general(3, 3)]),
    "multi_dot": (lambda *xs: linalg.multi_dot(xs), [drawn(4), drawn(4, 2), drawn(2, 3)]),
    "kron": (fastbp.kron, [drawn(2, 3), drawn(3, 2)]),
    "cross": (linalg.cross, [drawn(4, 3), drawn(1, 3)]),
    "inner": (fastbp.inner, [drawn(2, 3), drawn(4, 3)]),
    "tensordot": (fastbp.tensordot, [drawn(2, 3, 4), drawn(3, 4, 2)]),
    "vecdot": (linalg.vecdot, [drawn(2, 3), drawn(3)]),
    "cond": (linalg.cond, [general(3, 3)]),
    "cond 1": (lambda a: linalg.cond(a, 1), [general(3, 3)]),
    **{f"matrix_norm {p}": (lambda a, p=p: linalg.matrix_norm(a, p), [general(2, 3, 4)])
       for p in (2, -2, 1, -1, math.inf, -math.inf, "fro", "nuc")},
    **{f"vector_norm {p}": (lambda a, p=p: linalg.vector_norm(a, p, 1),
        [general(2, 3)]) for p in (1, 2, 3.5, math.inf)},
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives(name: str) -> None:
    call, arrays = SMOOTH[name]
    check_grads(call, *arrays)


@pytest.mark.parametrize("name", SMOOTH)
def test_rules_keep_what_they_read(name: str) -> None:
    """Operands and results that nobody else holds: their memory would be another array's by now."""
    call, arrays = SMOOTH[name]
    for alone in [None, *range(len(arrays))] if len(arrays) > 1 else [None]:
        kept, dropped = (pulled_from_temporaries(call, arrays, alone, held) for held in (True, False))
        assert all(np.array_equal(a, b) for a, b in zip(kept, dropped, strict=True)), f"operand {alone} alone"


def test_cofactor_keeps_what_it_reads() -> None:
    """A row that only the derivative of det makes."""
    kept, dropped = (
        pulled_from_temporaries(lambda a: _core._apply("cofactor", [a]), [general(3, 3)], None, held)
        for held in (True, False)
    )
    assert np.array_equal(kept[0], dropped[0])


def pulled_from_temporaries(call: Callable[..., Any], arrays: list[Any], alone: int | None, held: bool) -> list[Any]:
    """Gradients, of all operands or one, with operands and results dropped before the sweep unless `held`."""
    given = [tensor(a).requires_grad_(alone in (None, i)) for i, a in enumerate(arrays)]
    operands = [x * 1.0 for x in given]
    results = call(*operands)
    results = [results] if isinstance(results, fastbp.Tensor) else list(results)
    total = sum((x * tensor(drawn(*x.shape))).sum() for x in results if x.requires_grad)
    if not held:
        del operands, results
    others = [tensor(np.full_like(a, 7.0)) for a in arrays for _ in range(4)]  # where freed memory would be used again
    total.backward()
    assert others
    return [x.grad.numpy() for x in given if x.grad is not None]


@pytest.mark.parametrize("name", [name for name in SMOOTH if "cond" not in name])
def test_recorded_graphs_are_replayed_by_the_reference(name: str) -> None:
    call, arrays = SMOOTH[name]
    ops = check(call, *(tensor(a) for a in arrays))
    assert ops


def test_the_gradient_of_a_symmetric_matrix_is_symmetric() -> None:
    pinv = partial(linalg.pinv, hermitian=True)
    for call in (linalg.cholesky, lambda x: linalg.eigh(x)[1], linalg.eigvalsh, pinv):
        x = tensor(definite(3, 3)).requires_grad_()
        y = call(x)
        (y * tensor(drawn(*y.shape))).sum().backward()
        close(x.grad, x.grad.numpy().T)


def test_third_derivatives() -> None:
    check_grads(linalg.det, general(3, 3), order=3, modes=("rev",))
    check_grads(linalg.inv, general(2, 2), order=3, modes=("rev",))


def test_closed_forms() -> None:
    """d log det A = A^-T;  d (1/2 x A^-1 x) by A = -1/2 (A^-1 x)(A^-1 x)^T;  d det A = det A A^-T."""
    a, b = definite(4, 4), drawn(4)
    x = tensor(a).requires_grad_()
    (linalg.slogdet(x).logabsdet + 0.5 * (tensor(b) * linalg.solve(x, tensor(b))).sum()).backward()
    y = np.linalg.solve(a, b)
    close(x.grad, np.linalg.inv(a).T - 0.5 * np.outer(y, y))
    x = tensor(a).requires_grad_()
    linalg.det(x).backward()
    close(x.grad, np.linalg.det(a) * np.linalg.inv(a).T, 10.0)


# ---- refusals ------------------------------------------------------------------------------------------------------

ones, eye = fastbp.ones, fastbp.eye
NAN = fastbp.full((2, 2), math.nan)
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "inv singular": (lambda: linalg.inv(ones(2, 2)), LinAlgError, "linalg.inv: .*singular"),
    "inv in a batch": (lambda: linalg.inv(fastbp.stack([eye(2), 0 * eye(2)])), LinAlgError, r"\(Batch element 1\)"),
    "inv not square": (lambda: linalg.inv(ones(2, 3)), RuntimeError, r"linalg.inv: A must be .*2 by 3 .*\(2, 3\)"),
    "inv of a vector": (lambda: linalg.inv(ones(2)), RuntimeError, r"linalg.inv: .*at least 2 dimensions.*\(2,\)"),
    "inv of integers": (lambda: linalg.inv(ones(2, 2).long()), RuntimeError, "linalg.inv: Expected a floating.*int64"),
    "inv of an array": (lambda: linalg.inv(np.eye(2)), TypeError, "must be Tensor, not ndarray"),
    "solve singular": (lambda: linalg.solve(ones(3, 3), ones(3)), LinAlgError, "linalg.solve: .*singular"),
    "solve shapes": (lambda: linalg.solve(eye(3), ones(2, 2)), RuntimeError, r"Incompatible.*\(3, 3\).*\(2, 2\)"),
    "solve vector": (lambda: linalg.solve(eye(3), ones(2)), RuntimeError, r"Incompatible shapes"),
    "solve batches": (
        lambda: linalg.solve(ones(2, 3, 3), ones(4, 3, 1)),
        RuntimeError,
        r"batch dimensions of A, \(2, 3, 3\), and B, \(4, 3, 1\), cannot be broadcast",
    ),
    "solve dtypes": (lambda: linalg.solve(eye(3), ones(3).double()), RuntimeError, "float32 and float64"),
    "solve not square": (lambda: linalg.solve(ones(2, 3), ones(2)), RuntimeError, "linalg.solve: A must be batches"),
    "triangular vector": (lambda: linalg.solve_triangular(eye(3), ones(3), upper=True), RuntimeError, "at least 2 dim"),
    "triangular side": (lambda: linalg.solve_triangular(eye(3), ones(3, 1)), TypeError, "upper"),
    "cholesky": (lambda: linalg.cholesky(ones(3, 3)), LinAlgError, "minor of order 2 is not positive-definite"),
    "cholesky in a batch": (
        lambda: linalg.cholesky(fastbp.stack([eye(3), eye(3), -eye(3)])),
        LinAlgError,
        r"\(Batch element 2\).*order 1 ",
    ),
    "cholesky not square": (lambda: linalg.cholesky(ones(2, 3)), RuntimeError, "linalg.cholesky: A must be batches"),
    "qr mode": (lambda: linalg.qr(eye(2), "half"), RuntimeError, "unrecognized mode 'half'"),
    "qr of a vector": (lambda: linalg.qr(ones(2)), RuntimeError, "linalg.qr: .*at least 2 dimensions"),
    "eigh UPLO": (lambda: linalg.eigh(eye(2), "X"), RuntimeError, "UPLO argument to be 'L' or 'U', but got X"),
    "eigh not square": (lambda: linalg.eigvalsh(ones(2, 3)), RuntimeError, "linalg.eigvalsh: A must be batches"),
    "svd of NaN": (lambda: linalg.svd(NAN), LinAlgError, "non-finite"),
    "svdvals of integers": (lambda: linalg.svdvals(ones(2, 2).long()), RuntimeError, "linalg.svdvals: .*int64"),
    "det not square": (lambda: linalg.det(ones(2, 3)), RuntimeError, "linalg.det: A must be batches"),
    "slogdet of integers": (lambda: fastbp.slogdet(eye(2).long()), RuntimeError, "linalg.slogdet: Expected a floating"),
    "pinv of a vector": (lambda: linalg.pinv(ones(2)), RuntimeError, "linalg.pinv: .*at least 2"),
    "lstsq rows": (lambda: linalg.lstsq(ones(4, 2), ones(3)), RuntimeError, r"\(4, 2\) and B of shape \(3,\)"),
    "lstsq driver": (lambda: linalg.lstsq(eye(2), ones(2), driver="fast"), RuntimeError, "driver.*'fast'"),
    "power of a wide one": (lambda: linalg.matrix_power(ones(2, 3), 2), RuntimeError, "linalg.matrix_power: A must be"),
    "power of no integer": (lambda: linalg.matrix_power(eye(2), 1.5), TypeError, "must be int, not float"),
    "power of a singular one": (lambda: linalg.matrix_power(ones(2, 2), -1), LinAlgError, "singular"),
    "multi_dot one": (lambda: linalg.multi_dot([eye(2)]), RuntimeError, "at least 2 tensors but got 1"),
    "multi_dot sizes": (lambda: linalg.multi_dot([eye(3), eye(2)]), RuntimeError, r"0 and 1 with shapes \[3, 3\]"),
    "multi_dot axes": (lambda: linalg.multi_dot([eye(2), ones(2), eye(2)]), RuntimeError,
                       "tensor 1 must be 2D but got"),
    "cross length": (lambda: linalg.cross(ones(2), ones(2)), RuntimeError, "must have length 3. Got 2 and 2"),
    "cross axes": (lambda: linalg.cross(ones(3), ones(2, 3)), RuntimeError, "same number of dimensions"),
    "cross older": (lambda: fastbp.cross(ones(2), ones(2)), RuntimeError, "no dimension of size 3"),
    "inner": (lambda: fastbp.inner(ones(2, 3), ones(4)), RuntimeError, r"must match.*\[2, 3\] and \[4\]"),
    "tensordot sizes": (lambda: fastbp.tensordot(ones(2, 3), ones(4, 3), 1), RuntimeError, "size 3 in dim 1.*size 4"),
    "tensordot dims": (lambda: fastbp.tensordot(ones(2, 3), ones(4, 3), 5), RuntimeError, "got dims=5"),
    "tensordot lists": (lambda: fastbp.tensordot(eye(2), eye(2), ([1], [0, 1])), RuntimeError, "same length"),
    "norm order": (lambda: linalg.matrix_norm(eye(2), 3), RuntimeError, "Order 3 not supported"),
    "norm word": (lambda: linalg.norm(eye(2), "x"), RuntimeError, "Order x not supported"),
    "norm axes": (lambda: linalg.norm(ones(2, 2, 2), 2), RuntimeError, "must be 1D or 2D. Got 3D"),
    "norm dims": (lambda: linalg.norm(ones(2, 2, 2), 2, (0, 1, 2)), RuntimeError, "of length 1 or 2"),
    "norm of a vector": (lambda: linalg.matrix_norm(ones(2)), RuntimeError, "linalg.matrix_norm: .*at least 2"),
    "norm same axes": (lambda: linalg.matrix_norm(eye(2), dim=(1, -1)), RuntimeError, "dims must be different"),
    "norm far axis": (lambda: linalg.matrix_norm(eye(2), dim=(0, 2)), IndexError, "out of range"),
    "norm of integers": (lambda: linalg.vector_norm(ones(2).long()), RuntimeError, "Expected a floating.*int64"),
    "cond not square": (lambda: linalg.cond(ones(2, 3), 1), RuntimeError, r"linalg.cond\(ord=1\): A must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text) as caught:
        call()
    assert (type(caught.value) is LinAlgError) == (error is LinAlgError)


def test_linalg_error_is_a_runtime_error() -> None:
    assert issubclass(LinAlgError, RuntimeError) and LinAlgError.__module__ == "fastbp.linalg"


def test_complete_qr_of_a_tall_matrix_has_no_derivative() -> None:
    x = tensor(general(4, 2)).requires_grad_()
    with pytest.raises(RuntimeError, match=r"not differentiable when mode='complete' and nrows > ncols.*\(4, 2\)"):
        linalg.qr(x, "complete").R.sum().backward()


def test_derivatives_that_do_not_exist_are_nan() -> None:
    """log|det| of singular matrices, one of a batch; det of what is not finite.  Nothing raises."""
    x = tensor(np.stack([np.ones((2, 2)), np.eye(2)])).requires_grad_()
    linalg.slogdet(x).logabsdet.sum().backward()
    assert np.isnan(x.grad[0].numpy()).all() and np.array_equal(x.grad[1].numpy(), np.eye(2))
    x = tensor(np.stack([np.full((2, 2), math.nan), np.eye(2)])).requires_grad_()
    linalg.det(x).sum().backward()
    assert np.isnan(x.grad[0].numpy()).all() and np.allclose(x.grad[1].numpy(), np.eye(2))


@pytest.mark.parametrize("error", [LinAlgError, ZeroDivisionError, KeyboardInterrupt])
def test_what_the_callback_raises_arrives(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """From a function, from backward(), which leaves gradients as they were, and from a plan."""

    def fail(*_: Any, **__: Any) -> None:
        raise error("planted")

    weight = tensor(general(3, 3)).requires_grad_()
    weight.grad = fastbp.ones_like(weight)
    y, compiled = linalg.det(weight), fastbp.compile(linalg.det)
    compiled(weight.detach())
    compiled(weight.detach())
    monkeypatch.setitem(_lapack.ROWS, "cofactor", fail)
    with pytest.raises(error, match="planted"):
        y.backward()
    assert weight.grad.tolist() == fastbp.ones_like(weight).tolist()
    monkeypatch.setitem(_lapack.ROWS, "det", fail)
    with pytest.raises(error, match="planted"):
        linalg.det(weight)
    with pytest.raises(error, match="planted"):
        compiled(weight.detach())


# ---- layouts -------------------------------------------------------------------------------------------------------


def test_any_strides() -> None:
    a = general(3, 4, 4)
    for x in (tensor(T(a, 1, 2).copy()).mT, tensor(np.repeat(a, 2, 0))[::2], tensor(np.repeat(a, 2, -1))[..., ::2]):
        assert not x.is_contiguous() or x.shape == (3, 4, 4)
        close(linalg.inv(x), np.linalg.inv(a))
        close(linalg.det(x), np.linalg.det(a))
    close(linalg.inv(tensor(a[:1]).expand(3, 4, 4)), np.broadcast_to(np.linalg.inv(a[:1]), a.shape))


def test_inputs_are_left_alone() -> None:
    a = definite(2, 4, 4)
    for name, row in _lapack.ROWS.items():
        inputs = [a.copy(), a.copy()] if "solve" in name else [a.copy()]
        _core._apply(name, [tensor(x) for x in inputs])
        assert all(np.array_equal(x, a) for x in inputs), row


# ---- compiled ------------------------------------------------------------------------------------------------------

COMPILED: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "inv": (linalg.inv, [general(2, 3, 3)]),
    "solve": (linalg.solve, [general(3, 3), drawn(3)]),
    "solve turned": (lambda a, b: linalg.solve(a, b, left=False), [general(3, 3), drawn(2, 3)]),
    "triangular": (lambda a, b: linalg.solve_triangular(a, b, upper=True),
                   [general(3, 3) + 3 * np.eye(3), drawn(3, 2)]),
    "cholesky": (lambda a: linalg.cholesky(a @ a.mT), [general(3, 3)]),
    "qr": (lambda a: linalg.qr(a).R, [general(4, 3)]),
    "eigh": (lambda a: linalg.eigh(a + a.mT).eigenvectors.square(), [general(3, 3)]),
    "svd": (lambda a: linalg.svd(a).S, [general(4, 3)]),
    "pinv": (linalg.pinv, [general(4, 3)]),
    "det": (linalg.det, [general(2, 3, 3)]),
    "slogdet": (lambda a: linalg.slogdet(a).logabsdet, [general(3, 3)]),
    "lstsq": (lambda a, b: linalg.lstsq(a, b).solution, [general(4, 3), drawn(4)]),
    "cond": (lambda a: linalg.cond(a, 1), [general(3, 3)]),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_is_eager(name: str) -> None:
    """Values and gradients of a whole step, for arguments other than those of the capture."""
    call, arrays = COMPILED[name]

    def step(*xs: fastbp.Tensor) -> Any:
        wanted = [x.detach().requires_grad_() for x in xs]
        y = (call(*wanted) * 1.5).tanh().sum()
        return [y.detach(), *fastbp.autograd.grad(y, wanted)]

    compiled = fastbp.compile(step)
    for seed in range(3):
        given = [tensor(a + 0.05 * drawn(*a.shape, seed=seed)) for a in arrays]
        for found, wanted in zip(compiled(*given), step(*given), strict=True):
            close(found, wanted.numpy())  # sums and products may be joined in other orders
    assert compiled.plan is not None


@pytest.mark.parametrize("name", ["inv", "solve", "triangular", "cholesky", "qr", "pinv", "det", "slogdet"])
def test_compiled_with_its_derivative(name: str) -> None:
    """A function that is compiled without backward(): the sweep comes later, and is a plan of its own."""
    call, arrays = COMPILED[name]
    compiled = fastbp.compile(lambda *xs: call(*xs).tanh())
    for seed in range(3):
        pulled = []
        for function in (compiled, lambda *xs: call(*xs).tanh()):
            given = [tensor(a + 0.05 * drawn(*a.shape, seed=seed)).requires_grad_() for a in arrays]
            function(*given).square().sum().backward()
            pulled.append([x.grad for x in given])
        for found, wanted in zip(*pulled, strict=True):
            close(found, wanted.numpy())


def test_a_singular_matrix_at_run_time() -> None:
    """The plan's line raises what eager code raises; parameters stay, and the next call is right."""
    weight = fastbp.nn.Parameter(fastbp.ones(2))
    optimizer = fastbp.optim.SGD([weight], lr=0.1)

    @fastbp.compile
    def step(a: fastbp.Tensor) -> fastbp.Tensor:
        optimizer.zero_grad()
        loss = (linalg.solve(a, weight) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    step(fastbp.eye(2))
    step(fastbp.eye(2))
    before = weight.detach().clone()
    for _ in range(2):
        with pytest.raises(LinAlgError, match="singular"):
            step(fastbp.ones(2, 2))
        assert np.array_equal(weight.detach().numpy(), before.numpy())
    loss = step(2 * fastbp.eye(2))
    assert loss.item() == pytest.approx(float((before.numpy() ** 2).sum()) / 4, rel=1e-6)


def test_plans_of_several_threads_take_the_lock_in_turn() -> None:
    a = general(8, 8)
    compiled = fastbp.compile(lambda x: linalg.inv(x) @ x)
    compiled(tensor(a))
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                close(compiled(tensor(a)), np.eye(8), 10.0)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert not failed


def test_the_plan_names_its_lines() -> None:
    compiled = fastbp.compile(linalg.inv)
    compiled(tensor(general(3, 3)))
    compiled(tensor(general(3, 3)))
    assert "inverse" in str(compiled.plan)


# ---- training ------------------------------------------------------------------------------------------------------


def test_a_gaussian_process_finds_its_length_scale() -> None:
    """Log marginal likelihood through cholesky: the scale that drew the data is more likely than others."""
    random = np.random.default_rng(0)
    x = tensor(np.sort(random.uniform(0, 10, 30)))
    apart = (x.unsqueeze(1) - x) ** 2

    def kernel(log_scale: fastbp.Tensor) -> fastbp.Tensor:
        return (-0.5 * apart / (2 * log_scale).exp()).exp() + 0.01 * fastbp.eye(30, dtype=fastbp.float64)

    y = linalg.cholesky(kernel(fastbp.tensor(0.0, dtype=fastbp.float64))) @ tensor(random.standard_normal(30))
    log_scale = fastbp.tensor(1.0, dtype=fastbp.float64, requires_grad=True)
    optimizer = fastbp.optim.Adam([log_scale], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        L = linalg.cholesky(kernel(log_scale))
        z = linalg.solve_triangular(L, y.unsqueeze(-1), upper=False)
        loss = 0.5 * (z**2).sum() + L.diagonal().log().sum()
        loss.backward()
        optimizer.step()
    assert abs(log_scale.item()) < 0.4  # 30 points tell the scale to some tens of percent


def test_the_second_derivative_of_det_says_when_there_are_too_many_axes() -> None:
    x = fastbp.eye(2).reshape((1,) * 14 + (2, 2)).requires_grad_()
    (g,) = fastbp.autograd.grad(linalg.det(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="one axis more than the 16"):
        g.square().sum().backward()
