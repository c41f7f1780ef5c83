"""The examples run as they stand and print what they promise; their own assertions find planted faults."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Words that each example's output must contain; a new example is added here.
EXPECTED = {
    "01_train_digits.py": ["epoch 20: training loss 0.0", "test accuracy: 9"],
    "02_scalar_graph.py": ["e = c * d = 15", "de/dc = 3, de/dd = 5", "de/da = 3\n", "de/db = 8\n"],
    "03_chain_rule_by_paths.py": ["by one sweep in reverse: 8.15484548537", "1,099,511,627,776 paths over 120 edges"],
    "04_forward_and_reverse.py": ["func.vjp, once:                 5.500000000000 1.716337814537", "of 50 x 2: 300"],
    "05_shared_parameters.py": ["by three variables: 0.863209 + -0.706785 + -0.353392 = -0.196967", "loss 0.8001"],
    "06_fully_connected.py": ["3      softmax ", "(a - T) / batch: "],
    "07_convolution_and_recurrent.py": ["used at 20 positions", "dC/dK ", "dC/dx'", "dC/dW "],
    "08_gradient_descent.py": ["answers 0.02 0.98 0.98 0.02", "From zeros: 1 step, loss 0.693147"],
    "09_physics_informed.py": ["step  3000: mean square", "Relative error against the solution"],
    "10_hessian_vector_newton.py": ["against differences of gradients: ", "at the end: |gradient| ", "1,000 steps: "],
    "11_nist_regression.py": ["2.3894212918e+02  5.5015643181e-04", "1.9280693458e-01", "1.2881396800e+03"],
}

# Faults, each of which an example's own assertions must find: (example, text, what is put in its place).
FAULTS = [
    # the sum over paths
    ("03_chain_rule_by_paths.py", "product * local)", "local)"),
    ("03_chain_rule_by_paths.py", '("x", at), ("x", at)', '("x", at)'),
    ("03_chain_rule_by_paths.py", "math.cos(value) - value", "math.cos(value) + value"),
    # tangents and cotangents
    ("04_forward_and_reverse.py", "d1 * X2 + X1 * d2", "d1 * X2"),
    ("04_forward_and_reverse.py", "by_y, by_y, -by_y", "by_y, by_y, by_y"),
    ("04_forward_and_reverse.py", "by_x2 + by_v2 * X1", "by_v2 * X1"),
    ("04_forward_and_reverse.py", "1 - fastbp.tanh", "1 + fastbp.tanh"),
    # a use that is left out
    ("05_shared_parameters.py", "y = f(w, w, w)", "y = f(w, w.detach(), w)"),
    ("05_shared_parameters.py", "(shared,) = fastbp.autograd.grad(loss(W, W), W)", "shared = by_encoder"),
    # the recursion of a fully connected net
    ("06_fully_connected.py", "return cotangent * a * (1 - a)", "return cotangent * (1 - a)"),
    ("06_fully_connected.py", "return cotangent * (1 - a * a)", "return cotangent"),
    ("06_fully_connected.py", "(cotangent - (cotangent * a).sum(dim=1, keepdim=True))", "(1 - a) * cotangent"),
    ("06_fully_connected.py", "cotangent = delta @ weights[layer]", "cotangent = delta @ weights[layer].abs()"),
    ("06_fully_connected.py", "delta.T @ activations[layer]", "delta.T @ activations[layer] / BATCH"),
    ("06_fully_connected.py", "delta.sum(dim=0)", "delta.mean(dim=0)"),
    # uses of a kernel, steps through time
    ("07_convolution_and_recurrent.py", "by_kernel += delta", "by_kernel = delta"),
    ("07_convolution_and_recurrent.py", "by_image[i : i + K, j : j + K] +=", "by_image[i : i + K, j : j + K] ="),
    ("07_convolution_and_recurrent.py", "by_kernel, delta.sum(), by_image", "by_kernel, delta.mean(), by_image"),
    ("07_convolution_and_recurrent.py", "kernel.flip(0, 1)", "kernel"),
    ("07_convolution_and_recurrent.py", "+ W.T @ delta", "+ W @ delta"),
    ("07_convolution_and_recurrent.py", "fastbp.outer(delta, states[t])", "fastbp.outer(delta, h)"),
    ("07_convolution_and_recurrent.py", "by_b += delta", "by_b = delta"),
    # training
    ("08_gradient_descent.py", "parameter -= RATE", "parameter += RATE"),
    ("08_gradient_descent.py", "nn.init.normal_(parameter)", "nn.init.zeros_(parameter)"),
    ("08_gradient_descent.py", "nn.Tanh()", "nn.Identity()"),
    # the equation, the frame of initial values, training
    ("09_physics_informed.py", "- NU * u_xx", "+ NU * u_xx"),
    ("09_physics_informed.py", "* said - fastbp.sin", "* said + fastbp.sin"),
    ("09_physics_informed.py", "        optimizer.step()\n", ""),
    # Hessian times vector, conjugate gradients, Newton
    ("10_hessian_vector_newton.py", "/ (2 * h)", "/ h"),
    ("10_hessian_vector_newton.py", "residual - length * image", "residual - 0.9 * length * image"),
    ("10_hessian_vector_newton.py", "func.hvp(loss, (w,), (v,)))", "func.hvp(loss, (w,), (v,)) + 0.01 * v)"),
    # data, Jacobian: differences give it to some digits only
    ("11_nist_regression.py", "593.1 689.1", "593.1 698.1"),
    (
        "11_nist_regression.py",
        "np.asarray(slopes(fastbp.from_numpy(b)))",
        "np.stack([(residual(b + h) - residual(b)) / h.sum() for h in np.diag(1e-6 * b)], axis=1)",
    ),
]


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


def test_every_example_is_listed_in_reading_order():
    lines = (EXAMPLES / "README.md").read_text().splitlines()
    listed = [line.split("](")[1].split(")")[0] for line in lines if "](" in line and ".py)" in line]
    assert listed == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name):
    run = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    for words in EXPECTED[name]:
        assert words in run.stdout


@pytest.mark.parametrize(
    ("name", "text", "fault"), FAULTS, ids=[f"{name[:2]}-{text.strip()}" for name, text, _ in FAULTS]
)
def test_examples_find_planted_faults(name, text, fault, tmp_path, monkeypatch):
    source = (EXAMPLES / name).read_text()
    assert source.count(text) == 1
    faulty = tmp_path / name
    faulty.write_text(source.replace(text, fault))
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(AssertionError):
        runpy.run_path(str(faulty), run_name="__main__")


def test_examples_with_claims_have_faults_planted():
    asserting = {name for name in EXPECTED if "assert " in (EXAMPLES / name).read_text()}
    assert asserting == {name for name, _, _ in FAULTS}


def test_regression_without_scipy(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    monkeypatch.setattr(sys, "argv", ["11_nist_regression.py"])
    runpy.run_path(str(EXAMPLES / "11_nist_regression.py"), run_name="__main__")
    assert "by Levenberg and Marquardt, in this file" in capsys.readouterr().out


def test_regression_with_scipy(monkeypatch, capsys):
    pytest.importorskip("scipy.optimize")
    monkeypatch.setattr(sys, "argv", ["11_nist_regression.py"])
    runpy.run_path(str(EXAMPLES / "11_nist_regression.py"), run_name="__main__")
    assert "by scipy.optimize.least_squares" in capsys.readouterr().out
