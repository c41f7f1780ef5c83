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
COUNT = 6000

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


# ---- what was found -----------------------------------------------------------------------------------------------


def survives(code: str) -> str:
    """What a program prints that once died; run alone, as it may do so again."""
    names = "import sys\nsys.path.insert(0, 'tests')\nfrom calls.helpers import *\nfrom calls.helpers import _core\n"
    done = subprocess.run(
        [sys.executable, "-c", names + code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-1500:]}"
    return done.stdout.strip()


@pytest.mark.parametrize("keep", [False, True])
def test_compiled_over_a_graph_whose_leaves_no_one_holds(keep: bool) -> None:
    """The leaf's elements are gone: no one can see its gradient, and no plan may ask for it."""
    code = f"""
w = fastbp.full((2,), 0.5, requires_grad=True)
r = w.exp()
kept = w if {keep} else None
w = None
x = T((2,), grad=True)
f = fastbp.compile(lambda x: x * r)
g = fastbp.compile(lambda x: x * r)
for _ in range(2):
    f(x).sum().backward(retain_graph=True)
    g(x.detach()).sum().backward(retain_graph=True)
print(np.allclose(x.grad, 2 * r.detach()), kept is None or np.allclose(kept.grad, 4 * (x * r).detach()))
"""
    assert survives(code) == "True True"


def test_capture_leaves_graphs_outside_as_they_are() -> None:
    import fastbp

    w = fastbp.full((2,), 0.5, requires_grad=True)
    r = w.exp()
    fastbp.compile(lambda x: x * r)(fastbp.ones(2))
    r.sum().backward()  # its values have not been let go of
    assert w.grad is not None
    assert w.grad.tolist() == r.tolist()


def test_gradients_that_are_left_of_another_shape() -> None:
    """The memory of one element was written as that of six, and a plan for one row read two."""
    code = """
def run(wrap, before, after):
    x = T(before, grad=True)
    step = wrap(lambda: (x * x).sum().backward())
    step()
    x.data = T(after)
    for _ in range(3):
        step()
    return x.grad.tolist()

for before, after in [((1, 1), (2, 3)), ((1, 3), (2, 3)), ((3,), (2, 3))]:
    print(run(lambda f: f, before, after) == run(fastbp.compile, before, after))
"""
    assert survives(code) == "True\nTrue\nTrue"


@pytest.mark.parametrize("result", ["leaked()", "[x, leaked()]", "leaked(2)"])
def test_compiled_functions_that_return_tensors_of_a_vmap(result: str) -> None:
    """These have no memory that a plan could write; eager code stands in."""
    code = f"""
import warnings
warnings.simplefilter("ignore")
s = fastbp.compile(lambda x: {result})
for x in (T((6,)), T((2, 3), grad=True)):
    consume(s(x))
print(s.plan)
"""
    assert survives(code) == "None"


@pytest.mark.parametrize("spec", [3, None, b".2f", ("a",)])
def test_format_of_what_is_no_text(spec: Any) -> None:
    import fastbp

    with pytest.raises(TypeError, match="must be str"):
        fastbp.ones(()).__format__(spec)


@pytest.mark.parametrize("make", ["{0}", "[{0}]", "[[1], {0}]"])
def test_room_for_the_items_of_a_sequence_comes_first(make: str) -> None:
    """Not after reading them one by one, which took hours."""
    import fastbp

    with pytest.raises((MemoryError, OverflowError, ValueError, TypeError)):
        fastbp.tensor(eval(make.format("range(2**45)")))


def test_rows_are_applied_to_as_many_tensors_as_they_take() -> None:
    code = """
names = [row["name"] for row in _core.op_table()]
arity = {row["name"]: row["arity"] for row in _core.op_table()}
attributes = dict(dims=(0,), shape=(3, 3), axes=(0, 1), size=(3, 3), start=(0, 0), step=(1, 1), count=(1, 1), first=0,
                  second=1, sizes=(3, 3), dtype=fastbp.float32, reduction="mean")
for name in names:
    most = arity[name] if arity[name] >= 0 else 3
    for count in range(most):
        for place in range(count + 1):
            given = [None if i == place else T((3, 3)) for i in range(count)]
            with contextlib.suppress(Exception):
                _core._apply(name, given, attributes)
    for place in range(most):
        with contextlib.suppress(Exception):
            _core._apply(name, [None if i == place else T((3, 3)) for i in range(most)], attributes)
print("alive")
"""
    assert survives(code) == "alive"


def test_nodes_are_applied_to_all_that_they_take() -> None:
    code = """
record = _core.GraphRecord(T((), grad=True) * T(()))
for node in range(len(record)):
    for given in ([None, T(())], [T(()), None], [None, None]):
        with contextlib.suppress(TypeError, ValueError):
            print(record.apply(node, given, False))
"""
    assert survives(code) == ""


# ---- pickles ------------------------------------------------------------------------------------------------------

PICKLED = [
    "T((2, 3))", "T((2,), 'float64', grad=True)", "T((), 'bool')", "nn.Parameter(T((3,)))", "fastbp.Generator()",
    "fastbp.float32", "T((2, 3)).shape", "fastbp.device('cpu')", "optimizer_of(optim.Adam)", "nn.Linear(2, 2)",
    "fastbp.compile(OwnModule())", "own(OwnTensor, T((2,)))", "a_loader()",
]  # fmt: skip


@pytest.mark.parametrize("value", PICKLED)
def test_pickles_that_were_cut_off_raise(value: str) -> None:
    code = f"""
p = pickle.dumps({value})
for end in range(len(p)):
    try:
        pickle.loads(p[:end])
    except Exception:
        continue
    print("read", end)
"""
    assert survives(code) == ""


@pytest.mark.parametrize("value", PICKLED)
def test_pickles_with_changed_bytes_raise_or_make_sound_objects(value: str) -> None:
    code = f"""
import random, resource, warnings
warnings.simplefilter("ignore")
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
p = pickle.dumps({value}, 2)
draw = random.Random(3)
for place in range(0, len(p), max(1, len(p) // 300)):
    for byte in (draw.randrange(256), p[place] ^ 1, 0xFF):
        with contextlib.suppress(Exception):
            consume(loads(swap_bytes(p, [(place, byte)])))
print("alive")
"""
    assert survives(code) == "alive"


RECONSTRUCTED = [
    ("_core.rebuild", ["A((2, 3))", "np.array([None])", "None", "3", "'a'", "A((2,), 'f2')"], ["True", "None", "'a'"]),
    ("_core.make_generator", ["T((16,), 'uint8')", "T((15,), 'uint8')", "None", "A((16,), 'uint8')", "b'a' * 16"], []),
    ("nn.Parameter", ["T((2,))", "None", "A((2,))", "3", "T((2,), 'int64')"], ["True", "False", "'a'"]),
    ("fastbp.Size", ["(2, 3)", "None", "(2, 'a')", "(-1,)", "(2**70,)"], []),
    ("fastbp.device", ["'cpu'", "'cuda'", "None", "3"], []),
    ("fastbp.compiler.Compiled", ["None", "3", "OwnModule()", "len"], ["None", "'a'", "-1"]),
    ("object.__new__", ["fastbp.Tensor", "nn.Parameter", "fastbp.Generator", "fastbp.dtype", "_core.Plan"], []),
    ("fastbp.Tensor.__new__", ["fastbp.Tensor", "nn.Parameter", "OwnTensor"], ["T((2,))", "None", "2**62", "A((2,))"]),
]  # fmt: skip
STATES = ["None", "{}", "{'a': 1}", "(None, {'node': 3})", "3", "[1]"]


@pytest.mark.parametrize(("function", "firsts", "seconds"), RECONSTRUCTED, ids=[one[0] for one in RECONSTRUCTED])
def test_reconstructors_raise_or_make_sound_objects(function: str, firsts: list[str], seconds: list[str]) -> None:
    code = f"""
import warnings
warnings.simplefilter("ignore")
firsts, seconds, states = {firsts}, {seconds}, {STATES}
for first in firsts:
    for given in [f"({{first}},)", *(f"({{first}}, {{second}})" for second in seconds)]:
        for state in states:
            for make in (rebuilt, called):
                with contextlib.suppress(Exception):
                    consume(make(eval({function!r}), eval(given), eval(state)))
print("alive")
"""
    assert survives(code) == "alive"
