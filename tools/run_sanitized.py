#!/usr/bin/env python3
"""Runs the Python tests on an extension that was built for AddressSanitizer and UBSan (`make check-sanitize`).

    python tools/run_sanitized.py build/sanitize
    python tools/run_sanitized.py build/sanitize tests/test_vmap.py -k linear

The folder holds the package, built with FASTBP_BUILD_SANITIZE=address: without caches of memory, so that a use after free
is seen (csrc/base/memory.c). Python itself is not sanitized; its allocator is told to be malloc, which is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Of no use here: what they look at is not the extension, or is another thing under a sanitizer.
LEFT_OUT = {
    "test_benchmarks.py": "times",
    "test_checks.py": "builds of its own",
    "test_memory.py": "counts allocations that the caches would save, and resident memory",
    "test_packaging.py": "the package that users get",
}


def library(name: str) -> str:
    """Path of one of the compiler's own libraries."""
    compiler = os.environ.get("CC") or "cc"
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> int:
    """Exit status of pytest; 1 where a sanitizer stopped the process."""
    folder, arguments = Path(sys.argv[1]).resolve(), sys.argv[2:]
    files = [name for name in arguments if name.startswith("tests/")]
    if not files:
        arguments += [f"tests/{path.name}" for path in sorted((ROOT / "tests").glob("test_*.py")) if path.name not in LEFT_OUT]
    environment = {
        **os.environ,
        "LD_PRELOAD": library("libasan.so"),
        # Python keeps memory to its end, and a failed allocation is an exception, not the end of the process.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(folder),
    }
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return 1 if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode else 0


if __name__ == "__main__":
    sys.exit(main())
