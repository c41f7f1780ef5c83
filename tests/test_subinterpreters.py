"""A subinterpreter, of whatever kind, gets an ImportError with a sentence; the main interpreter goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fastbp

# Runs `ask` in a new interpreter: "isolated", from 3.12 on with a lock of its own, or "legacy", one lock for all.
RUN = """
import sys, tempfile, pathlib

def in_subinterpreter(kind, code):
    if sys.version_info >= (3, 13):
        import _interpreters
        other = _interpreters.create(kind)
        failed = _interpreters.exec(other, code)
        assert failed is None, failed
        _interpreters.destroy(other)
    else:
        import _xxsubinterpreters
        other = _xxsubinterpreters.create(isolated=kind == "isolated")
        _xxsubinterpreters.run_string(other, code)
        _xxsubinterpreters.destroy(other)

answer = pathlib.Path(tempfile.mkdtemp()) / "answer"
ask = f'''
import sys
sys.path[:] = {sys.path!r}
found = []
for name in ("fastbp", "fastbp", "fastbp._core", "fastbp.nn"):
    try:
        __import__(name)
        found.append("imported")
    except ImportError as error:
        found.append(str(error))
with open({str(answer)!r}, "w") as file:
    file.write(chr(10).join(found))
'''
kind, first = sys.argv[1:]
if first == "main":
    import fastbp
for _ in range(3):
    in_subinterpreter(kind, ask)
    found = answer.read_text().splitlines()
    assert len(found) == 4, found
    for one in found:
        assert one.startswith("fastbp cannot be imported in a subinterpreter"), found
import fastbp
x = fastbp.ones(3, requires_grad=True)
(x * 2).sum().backward()
assert x.grad.tolist() == [2.0] * 3
print("sound")
"""


@pytest.mark.parametrize("first", ["main", "sub"])
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_subinterpreter_is_refused(kind: str, first: str) -> None:
    path = [str(Path(fastbp.__file__).parent.parent), *sys.path]
    code = f"import sys; sys.path[:] = {path!r}\n{RUN}"
    done = subprocess.run(
        [sys.executable, "-c", code, kind, first], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "sound"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters came with Python 3.14")
def test_interpreters_of_the_standard_library_are_refused() -> None:
    from concurrent import interpreters

    other = interpreters.create()
    try:
        with pytest.raises(interpreters.ExecutionFailed, match="fastbp cannot be imported in a subinterpreter"):
            other.exec(f"import sys; sys.path[:] = {sys.path!r}; import fastbp")
    finally:
        other.close()
