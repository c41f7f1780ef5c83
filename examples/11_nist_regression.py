"""Nonlinear regression to certified digits: three of NIST's reference problems, with exact Jacobians.

Run it with ``python examples/11_nist_regression.py``; ``--own`` takes the solver of this file where SciPy is installed.

The Statistical Reference Datasets (StRD) come with parameters certified to eleven digits. A solver is measured by the
digits that it agrees in: the log relative error, -log10 |b - certified| / |certified|. What limits most solvers is
Jacobians from differences; `func.jacfwd` gives them to rounding: one pass forward for all parameters, which are few.

References
----------
NIST/ITL Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/ (public domain): Misra1a (D. Misra 1978),
MGH09 (Kowalik & Osborne 1978; More, Garbow & Hillstrom 1981), Thurber (R. Thurber 1979).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

import fastbp
from fastbp import Tensor, func

try:
    from scipy.optimize import least_squares  # type: ignore[import-untyped]
except ImportError:  # SciPy is optional: `levenberg_marquardt` takes its place
    least_squares = None


class Problem(NamedTuple):
    """A data set, its model, NIST's first (farther) starting point and the certified parameters."""

    name: str
    model: Callable[[Tensor, Tensor], Tensor]  # of the parameters b and x
    start: Sequence[float]
    certified: Sequence[float]
    squares: float  # certified sum of squares of the residuals
    x: str
    y: str


PROBLEMS = [
    Problem(
        "Misra1a",
        lambda b, x: b[0] * (1 - fastbp.exp(-b[1] * x)),
        [500, 0.0001],
        [2.3894212918e02, 5.5015643181e-04],
        1.2455138894e-01,
        "77.6 114.9 141.1 190.8 239.9 289.0 332.8 378.4 434.8 477.3 536.8 593.1 689.1 760.0",
        "10.07 14.73 17.94 23.93 29.61 35.18 40.02 44.82 50.76 55.05 61.01 66.40 75.47 81.78",
    ),
    Problem(
        "MGH09",
        lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
        [25, 39, 41.5, 39],
        [1.9280693458e-01, 1.9128232873e-01, 1.2305650693e-01, 1.3606233068e-01],
        3.0750560385e-04,
        "4 2 1 0.5 0.25 0.167 0.125 0.1 0.0833 0.0714 0.0625",
        "0.1957 0.1947 0.1735 0.16 0.0844 0.0627 0.0456 0.0342 0.0323 0.0235 0.0246",
    ),
    Problem(
        "Thurber",
        lambda b, x: (
            (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (1 + b[4] * x + b[5] * x**2 + b[6] * x**3)
        ),
        [1000, 1000, 400, 40, 0.7, 0.3, 0.03],
        [
            1.2881396800e03,
            1.4910792535e03,
            5.8323836877e02,
            7.5416644291e01,
            9.6629502864e-01,
            3.9797285797e-01,
            4.9727297349e-02,
        ],
        5.6427082397e03,
        "-3.067 -2.981 -2.921 -2.912 -2.840 -2.797 -2.702 -2.699 -2.633 -2.481 -2.363 -2.322 -1.501 -1.460 -1.274 "
        "-1.212 -1.100 -1.046 -0.915 -0.714 -0.566 -0.545 -0.400 -0.309 -0.109 -0.103 0.010 0.119 0.377 0.790 "
        "0.963 1.006 1.115 1.572 1.841 2.047 2.200",
        "80.574 84.248 87.264 87.195 89.076 89.608 89.868 90.101 92.405 95.854 100.696 101.060 401.672 390.724 "
        "567.534 635.316 733.054 759.087 894.206 990.785 1090.109 1080.914 1122.643 1178.351 1260.531 1273.514 "
        "1288.339 1327.543 1353.863 1414.509 1425.208 1421.384 1442.962 1464.350 1468.705 1447.894 1457.628",
    ),
]

Vector = np.ndarray
Function = Callable[[Vector], Vector]


def levenberg_marquardt(residual: Function, jacobian: Function, b: Vector, most: int = 1000) -> Vector:
    """Gauss and Newton's step, shortened by a multiple of J's own column norms (More 1978) until it descends."""
    damping, norms = 1e-3, np.zeros(len(b))
    r = residual(b)
    for _ in range(most):
        J = jacobian(b)
        norms = np.maximum(norms, np.linalg.norm(J, axis=0))
        while True:
            # Least squares of two blocks, one below the other: normal equations would lose half of the digits.
            blocks = np.vstack([J, damping**0.5 * np.diag(norms)])
            step = np.linalg.lstsq(blocks, np.concatenate([-r, np.zeros(len(b))]), rcond=None)[0]
            tried, linear = residual(b + step), r + J @ step
            gain, promised = r @ r - tried @ tried, r @ r - linear @ linear
            if gain > 0:
                break
            if np.all(np.abs(step) <= 1e-15 * np.abs(b)):
                return b
            damping = max(damping, 1e-16) * 4
        b, r = b + step, tried
        # As far as the linear model keeps its promise it is trusted more, else less.
        damping = damping / 5 if gain > 0.75 * promised else damping * 4 if gain < 0.25 * promised else damping
    raise RuntimeError(f"levenberg_marquardt: no convergence in {most} steps")


def polish(residual: Function, jacobian: Function, b: Vector) -> Vector:
    """Full steps of Gauss and Newton's at the end.

    A sum of squares is flat at its minimum and tells eight digits of b at most. J'r = 0 tells the others, where J
    is exact.
    """
    for _ in range(50):
        b = b + np.linalg.lstsq(jacobian(b), -residual(b), rcond=None)[0]
    return b


def solve(problem: Problem, own: bool) -> tuple[Vector, Vector, float]:
    """The parameters as the solver finds them and polished, and the sum of squares of the residuals."""
    x, y = (fastbp.tensor([float(one) for one in text.split()], dtype=fastbp.float64) for text in problem[-2:])

    def difference(b: Tensor) -> Tensor:
        return problem.model(b, x) - y

    slopes = fastbp.compile(func.jacfwd(difference))
    start = np.array(problem.start, float)

    def residual(b: Vector) -> Vector:
        return difference(fastbp.from_numpy(b)).numpy()

    def jacobian(b: Vector) -> Vector:
        return np.asarray(slopes(fastbp.from_numpy(b)))

    if own:
        found = levenberg_marquardt(residual, jacobian, start)
    else:
        options = {"method": "lm", "x_scale": "jac", "xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15, "max_nfev": 10_000}
        found = least_squares(residual, start, jac=jacobian, **options).x
    polished = polish(residual, jacobian, found)
    return found, polished, float(residual(polished) @ residual(polished))


def digits(found: Sequence[float] | Vector, certified: Sequence[float]) -> float:
    """The smallest log relative error; no more than the eleven digits that NIST prints."""
    worst = max(abs(b / known - 1) for b, known in zip(found, certified, strict=True))
    return min(-math.log10(worst), 11.0) if worst else 11.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--own", action="store_true", help="the solver of this file, also where SciPy is installed")
    own = parser.parse_args().own or least_squares is None
    print(f"Solved by {'Levenberg and Marquardt, in this file' if own else 'scipy.optimize.least_squares'}:")
    for problem in PROBLEMS:
        found, polished, squares = solve(problem, own)
        print(f"    {problem.name:<8} " + "  ".join(f"{b:.10e}" for b in polished[:4]) + " ..." * (len(polished) > 4))
        right = digits(found, problem.certified), digits(polished, problem.certified)
        print(
            f"    {'':<8} as certified in {right[0]:.1f} digits by the solver, {right[1]:.1f} polished; "
            f"sum of squares {squares:.10e} in {digits([squares], [problem.squares]):.1f}"
        )
        assert right[0] >= 6
        # Eleven digits are certified, the last of them rounded: half of 1e-10 at most.
        assert right[1] >= 10
        assert digits([squares], [problem.squares]) >= 10


if __name__ == "__main__":
    main()
