"""Random training programs: compiled as eager. `make fuzz` runs more of them; tests/programs says what they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs.compare import Failure, Outcome
from programs.generate import Program, generate
from programs.minimise import CRASH, in_child, kind_here, kind_of_failure, minimise, script
from programs.observe import SkippedError, check
from programs.writing import FEATURES

import fastbp
from fastbp import optim

ROOT = Path(__file__).resolve().parents[1]
PIECE = 50
# Where eager code stands in for the compiled one, calls that only a capture refuses cannot be told.
OF_CAPTURE = ("kept from capture", "raises at capture", "epoch")


def failure_of(program: Program, wrap: Callable[..., Any] | None = None) -> Failure | None:
    try:
        check(program.function(), wrap)
    except SkippedError:
        return None
    except Failure as failure:
        return failure
    return None


@pytest.mark.parametrize("first", range(0, 24 * PIECE, PIECE))
def test_compiled_as_eager(first: int) -> None:
    """In a child, which may die: that is a failure of the program that it ran."""

    def run(send: Callable[[Any], None]) -> None:
        for seed in range(first, first + PIECE):
            send(seed)
            failure = failure_of(generate(seed))
            if failure is not None:
                send(str(failure))
                return

    seed, text = first, CRASH[1]
    for message in in_child(run):
        seed = message if isinstance(message, int) else seed
        text = message if isinstance(message, str) else CRASH[1]
        if text not in (CRASH[1], "end"):
            break
    if text != "end":
        short = minimise(generate(seed).source, seconds=15)
        pytest.fail(f"seed {seed}: {text}\n{script(short, text)}", pytrace=False)


def test_same_program_from_same_seed() -> None:
    assert [generate(seed).source for seed in range(40)] == [generate(seed).source for seed in range(40)]


def test_equal_sides_agree() -> None:
    """What is compared does not depend on where things lie, or on what ran before: eager code agrees with itself."""
    skipped, calls = 0, 0
    for seed in range(400):
        try:
            outcome: Outcome = check(generate(seed, OF_CAPTURE).function(), lambda function, **_: function)
            calls += outcome.calls
        except SkippedError:
            skipped += 1
    assert skipped < 40 and calls > 800, (skipped, calls)


def test_features_are_used_and_switched_off() -> None:
    used = set().union(*(generate(seed).used for seed in range(3000)))
    assert used == set(FEATURES), set(FEATURES) - used
    off = FEATURES[::9]
    assert not set(off) & set().union(*(generate(seed, off).used for seed in range(200)))


# ---- planted faults ----


def world_of(function: Any) -> list[Any]:
    """What a function of a program closes over."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell_is_set(cell)]
    return cells


def cell_is_set(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def planted(fault: Callable[[Any, int, Any], Any]) -> Callable[..., Any]:
    """In place of fastbp.compile: the function itself, and after each call a fault in what it returns or leaves."""

    def wrap(function: Any, **options: Any) -> Any:
        calls = [0]

        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            calls[0] += 1
            return fault(result, calls[0], function)

        return call

    return wrap


def each_tensor(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, fastbp.Tensor):
        return change(value)
    return type(value)(each_tensor(one, change) for one in value) if isinstance(value, list | tuple) else value


def last_bit(result: Any, call: int, function: Any) -> Any:
    """The second result is off by one rounding."""

    def change(one: Any) -> Any:
        if not one.is_floating_point() or one.requires_grad:
            return one
        return fastbp.from_numpy(np.nextafter(one.numpy(), np.inf, dtype=one.numpy().dtype))

    return each_tensor(result, change) if call == 2 else result


def parameters_of(function: Any) -> list[Any]:
    return [one for one in world_of(function) if isinstance(one, fastbp.Tensor) and one.is_leaf and one.requires_grad]


def gradient_off(result: Any, call: int, function: Any) -> Any:
    for p in parameters_of(function):
        if p.grad is not None and call == 2:
            p.grad.mul_(1.0 + 2.0**-20)
    return result


def gradient_missing(result: Any, call: int, function: Any) -> Any:
    for p in parameters_of(function):
        p.grad = None if call == 2 else p.grad
    return result


def gradient_of_another_object(result: Any, call: int, function: Any) -> Any:
    for p in parameters_of(function):
        if p.grad is not None:
            p.grad = p.grad.clone()
    return result


def step_count_off(result: Any, call: int, function: Any) -> Any:
    for one in world_of(function):
        for entry in one.state.values() if isinstance(one, optim.Optimizer) else ():
            if "step" in entry and call == 2:
                entry["step"] = entry["step"] + 1
    return result


def parameter_frozen(result: Any, call: int, function: Any) -> Any:
    """The parameter is given new memory, as a plan does that writes where it was at first."""
    for p in parameters_of(function):
        if call == 2:
            p.data = p.data * 1.5
    return result


def draws_more(result: Any, call: int, function: Any) -> Any:
    fastbp.rand(1)
    return result


def copies(result: Any, call: int, function: Any) -> Any:
    return each_tensor(result, lambda one: one if one.requires_grad else one.clone())


def without_history(result: Any, call: int, function: Any) -> Any:
    return each_tensor(result, lambda one: one.detach())


def stale(result: Any, call: int, function: Any, kept: dict[Any, Any] = {}) -> Any:  # noqa: B006
    """Each call's results lie in one memory, as if a plan reused it."""
    first = kept.setdefault(function, result)
    tensors = all(isinstance(one, fastbp.Tensor) and not one.requires_grad for one in (first, result))
    return first.copy_(result) if tensors and first is not result and first.shape == result.shape else result


FAULTS = (
    last_bit,
    gradient_off,
    gradient_missing,
    gradient_of_another_object,
    step_count_off,
    parameter_frozen,
    draws_more,
    copies,
    without_history,
    stale,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_planted_fault_is_found(fault: Any) -> None:
    assert any(failure_of(generate(seed, OF_CAPTURE), planted(fault)) for seed in range(150)), fault.__name__


def test_program_is_minimised_and_printed(tmp_path: Path) -> None:
    wrap = planted(step_count_off)
    program, failure = next(
        (program, failure)
        for program in (generate(seed, OF_CAPTURE) for seed in range(200))
        if (failure := failure_of(program, wrap))
    )
    failing = lambda source: kind_here(source, wrap)  # noqa: E731
    short = minimise(program.source, failing, seconds=20)
    found = failing(short)
    assert found is not None and found[0] == failure.kind
    assert len(short) < len(program.source) / 2
    assert "step = wrap(step)" in short and "see.call(step" in short and "optim.Adam" in short, short
    # The script as it is printed runs by itself: what was planted is not there, so that it ends well.
    path = tmp_path / "program.py"
    path.write_text(script(short, str(failure)).replace("check(program)", "check(program, lambda step: step)"))
    assert subprocess.run([sys.executable, path], check=False).returncode == 0
    planting = (
        "def wrap(function):\n    def call(*args):\n        o = [c.cell_contents for c in function.__closure__]\n"
        "        result = function(*args)\n        fastbp.rand(1)\n        return result\n    return call\n"
    )
    text = script(short, str(failure)).replace("check(program)", f"{planting}check(program, wrap)")
    path.write_text(text)
    ended = subprocess.run([sys.executable, path], check=False, capture_output=True, text=True)
    assert ended.returncode == 1 and "generator" in ended.stderr


def test_crash_is_a_failure() -> None:
    source = "def program(wrap, see):\n    step = wrap(lambda: None)\n    see.call(step)\n    see(locals())\n"
    assert kind_of_failure(source) is None

    def wrap(function: Any) -> Any:
        import os

        return lambda: os.abort()

    assert kind_of_failure(source, wrap) == CRASH
