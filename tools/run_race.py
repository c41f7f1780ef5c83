#!/usr/bin/env python3
"""Runs tests of eight threads at once on an extension that was built for ThreadSanitizer (`make check-race`).

    python tools/run_race.py build/race
    python tools/run_race.py build/race tests/test_compile_threads.py
    python tools/run_race.py --needs no-lock

The interpreter that runs this is one without the lock, itself built for ThreadSanitizer, from a source tree whose
suppressions are taken (CPYTHON=/path/to/cpython where that tree has moved); docs/threads.md says how to build it. The
folder holds the package, built with FASTBP_BUILD_SANITIZE=thread. NumPy is not instrumented and need not be.

With ``--needs`` it only says in a sentence, and by its exit status, whether the interpreter is one that will do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# One test has threads write the elements of shared parameters, which is a race of values by its own wish.
TESTS = ("tests/test_free_threading.py", "-k", "not of_one_model")
SUPPRESSIONS = ("suppressions_free_threading.txt", "suppressions.txt")  # of Python 3.13; of later ones


def unfit(needs: str) -> str:
    """Why this interpreter will not do, in a sentence; empty when it will."""
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return f"{sys.executable} has the lock; set PYTHON=/path/to/python3.14t (docs/threads.md says how to build one)"
    if needs == "thread-sanitizer" and "--with-thread-sanitizer" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        return f"{sys.executable} was not built --with-thread-sanitizer; docs/threads.md says how to build one"
    return ""


def suppressions() -> Path:
    """CPython's own list of what ThreadSanitizer is not to report of it."""
    tree = os.environ.get("CPYTHON") or sysconfig.get_config_var("abs_srcdir") or "."
    for name in SUPPRESSIONS:
        path = Path(tree) / "Tools" / "tsan" / name
        if path.exists():
            return path
    raise SystemExit(f"no Tools/tsan/{SUPPRESSIONS[0]} in {tree}; set CPYTHON to the source tree of {sys.executable}")


def main() -> int:
    """Exit status 0 when the tests passed and nothing was reported."""
    needs = sys.argv[2] if sys.argv[1] == "--needs" else "thread-sanitizer"
    reason = unfit(needs)
    if reason or sys.argv[1] == "--needs":
        print(reason or f"{sys.executable} will do", file=sys.stderr if reason else sys.stdout)
        return 1 if reason else 0
    folder, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(TESTS)
    reports = folder.parent / "race-reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHON_GIL": "0",
        "PYTHONPATH": str(folder),
        "TSAN_OPTIONS": f"suppressions={suppressions()}:log_path={reports / 'report'}:history_size=7:exitcode=0",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    if shutil.which("setarch"):  # older runtimes cannot place their shadow where addresses are spread wide
        command = ["setarch", "-R", *command]
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    found = sorted(reports.glob("report*"))
    for path in found:
        print(path.read_text())
    count = sum(path.read_text().count("WARNING: ThreadSanitizer") for path in found)
    print(f"ThreadSanitizer: {count or 'no'} reports")
    return 1 if status or count else 0


if __name__ == "__main__":
    sys.exit(main())
