"""The processor's arithmetic peak, measured in the same run as what is compared with it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.timing import Timed

SOURCE = Path(__file__).with_name("peak.c")
FLAGS = ("-std=gnu11", "-O2", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared")
TYPES = {"float32": "float", "float64": "double"}


class Peak:
    """The compiled peak kernel.

    Parameters
    ----------
    library : ctypes.CDLL
        What `peak.c` was compiled to.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._kernels: dict[str, Any] = {}
        self.flops: dict[str, float] = {}
        for dtype, name in TYPES.items():
            kernel = getattr(library, f"peak_{name}")
            kernel.restype, kernel.argtypes = ctypes.c_double, [ctypes.c_long]
            self._kernels[dtype] = kernel
            count = getattr(library, f"peak_{name}_flops")
            count.restype, count.argtypes = ctypes.c_double, []
            self.flops[dtype] = count()

    def side(self, dtype: str) -> Timed:
        """Return a side for `timing.interleave`; a repetition does `flops[dtype]` operations."""
        kernel = self._kernels[dtype]

        def timed(number: int) -> float:
            start = time.perf_counter()
            kernel(number)
            return time.perf_counter() - start

        return timed


def build() -> Peak | None:
    """Compile and load the kernel; None without a working C compiler, and then no share of the peak is shown."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "peak.so"
        command = [*compiler.split(), *FLAGS, str(SOURCE), "-o", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True)
            return Peak(ctypes.CDLL(str(target)))
        except (OSError, subprocess.CalledProcessError):
            return None
