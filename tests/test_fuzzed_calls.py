"""Random calls of everything public: an exception or a sound result, never a signal, a hang or a SystemError.

`make fuzz-calls` runs more of them; tests/calls says what they are. What it found stands here as tests of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COUNT = 8000

PLANTED = """
import ctypes, json, sys, time, types
sys.path.insert(0, "tests")
from calls import helpers, runner
from calls.targets import Target
from calls.valid import Known

def system_error(*args, **options):
    raise SystemError("planted")

helpers.planted = types.SimpleNamespace(
    crash=lambda *a, **k: ctypes.string_at(0), hang=lambda *a, **k: time.sleep(1e6), system_error=system_error,
    fine=lambda *a, **k: 3,
)
runner.PATIENCE = 1.0
every = [Target(f"planted.{name}", "function", "", []) for name in sys.argv[1:]]
for told in runner.work(every, Known([]), 1, iter([(0, 60)])):
    print(json.dumps(told))
"""


def planted(*names: str) -> dict[str, Any]:
    """What the runner tells of 60 calls of functions that do what their names say."""
    done = subprocess.run(
        [sys.executable, "-c", PLANTED, *names], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_some_calls(tmp_path: Path) -> None:
    """In children of a process of its own, where they may die; without the search for calls that succeed."""
    command = [sys.executable, str(ROOT / "tools" / "fuzz_calls.py"), "--count", str(COUNT), "--no-search"]
    done = subprocess.run(
        [*command, "--state", str(tmp_path / "state.json")], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "no findings" in done.stdout
    state = json.loads((tmp_path / "state.json").read_text())
    assert sum(state["calls"].values()) == COUNT
    # Calls that are refused at the door alone would find nothing.
    assert state["outcomes"]["returned"] > 0.15 * COUNT


def test_no_finding_where_nothing_is_wrong() -> None:
    told = planted("fine")
    assert not told["findings"]
    assert told["outcomes"]["returned"] > 0


@pytest.mark.parametrize(
    ("name", "kind"), [("crash", "signal 11"), ("hang", "more than 1 s"), ("system_error", "SystemError")]
)
def test_planted_faults_are_found(name: str, kind: str) -> None:
    told = planted(name, *["fine"] * 9)
    found = told["findings"]
    assert found
    assert {(one["kind"], one["target"]) for one in found} == {(kind, f"planted.{name}")}
    # Behind each the calls went on.
    assert told["calls"]["1"]
    assert max(int(one["number"]) for one in found) > min(int(one["number"]) for one in found)


def test_calls_follow_from_their_numbers() -> None:
    from calls.generate import generate
    from calls.targets import targets
    from calls.valid import Known

    every = targets()
    numbers = range(200)
    programs = [generate(every, Known([]), 5, number).lines for number in numbers]
    assert programs == [generate(every, Known([]), 5, number).lines for number in numbers]
    assert programs != [generate(every, Known([]), 6, number).lines for number in numbers]


def test_all_that_is_public_is_a_target() -> None:
    from calls.targets import LEFT_OUT, MODULES_LEFT_OUT, targets

    import fastbp

    every = {one.path for one in targets()}
    for name in ("add", "zeros", "compile", "no_grad", "manual_seed"):
        assert f"fastbp.{name}" in every
    for name in ("item", "__getitem__", "__array__", "backward", "__reduce__", "grad"):
        assert f"fastbp.Tensor.{name}" in every
    for module in (
        "nn.functional",
        "nn.init",
        "optim",
        "linalg",
        "func",
        "autograd",
        "utils.data",
        "sparse_derivatives",
    ):
        assert any(one.startswith(f"fastbp.{module}.") for one in every), module
    assert all(LEFT_OUT.values())
    assert all(MODULES_LEFT_OUT.values())
    assert fastbp.__name__ not in LEFT_OUT


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """The second run has nothing left to do, and tells the same."""
    command = [sys.executable, str(ROOT / "tools" / "fuzz_calls.py"), "--count", "20", "--no-search", "--scripts", "0"]
    command += ["--state", str(tmp_path / "state.json")]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    first, second = (
        subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
        for _ in range(2)
    )
    assert "20 calls" in first.stderr
    assert not second.stderr
    assert first.stdout == second.stdout
