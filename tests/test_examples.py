"""The examples run as they stand and print what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Words that each example's output must contain; a new example is added here.
EXPECTED = {
    "01_train_digits.py": ["epoch 20: training loss 0.0", "test accuracy: 9"],
    "02_scalar_graph.py": ["e = c * d = 15", "de/dc = 3, de/dd = 5", "de/da = 3\n", "de/db = 8\n"],
}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name):
    run = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    for words in EXPECTED[name]:
        assert words in run.stdout
