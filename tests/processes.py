"""Programs that tests run in processes of their own: they may die, must end, or want other environments."""

from __future__ import annotations

import os
import subprocess
import sys


def run_program(program: str, *options: str, timeout: float = 300, **environment: str) -> str:
    """What a program prints, which must end by itself and well; it finds what the tests find.

    ``options`` are Python's, such as ``"-W", "ignore"``; ``environment`` is set beside what is there.
    """
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": path, **environment},
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
