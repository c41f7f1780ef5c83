"""What must be settled before a number is worth printing: threads, pinning, a quiet machine, and a record of it.

Nothing here imports NumPy: `prepare` has to run before any BLAS or OpenMP runtime reads the environment.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "FASTBP_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# These make OpenBLAS pick another processor's kernels, which halves NumPy on some machines: an unfair yardstick.
OPENBLAS_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

# A run is refused when others keep more than this share of one processor busy.
BUSY_LIMIT = 0.10


def available_processors() -> list[int]:
    """Return the processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def prepare(threads: int, processors: list[int]) -> None:
    """Set the thread variables, drop OpenBLAS overrides, pin this process.

    Parameters
    ----------
    threads : int
        Threads that every library of this process, and of its children, shall use.
    processors : list of int
        Where it may run: the first `threads` of them are taken.
    """
    for name in OPENBLAS_OVERRIDES:
        os.environ.pop(name, None)
    for name in THREAD_VARIABLES:
        os.environ[name] = str(threads)
    # Fresh processes are timed with their .pyc files present.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors[:threads])


@dataclass
class Watch:
    """Processor time used by everyone since the watch was started."""

    started: float
    others_at_start: float
    stolen_at_start: float

    @classmethod
    def start(cls) -> Watch:
        """Start watching now."""
        return cls(time.monotonic(), _others_seconds(), _stolen_seconds())

    def busy_share(self) -> float:
        """Return processor time of other processes per second of wall time (1.0 is one whole processor)."""
        return max(0.0, _others_seconds() - self.others_at_start) / max(time.monotonic() - self.started, 1e-9)

    def stolen_share(self) -> float:
        """Return the time per second that a hypervisor gave to others."""
        return max(0.0, _stolen_seconds() - self.stolen_at_start) / max(time.monotonic() - self.started, 1e-9)


def _processor_ticks() -> list[int]:
    """Return the first line of /proc/stat as numbers (user, nice, system, idle, ...), empty where there is none."""
    try:
        return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return []


def _others_seconds() -> float:
    """Return the processor time that other processes have used since boot, in seconds."""
    ticks = _processor_ticks()
    if not ticks:
        return 0.0
    user, nice, system, _, _, interrupt, soft_interrupt = ticks[:7]
    busy = (user + nice + system + interrupt + soft_interrupt) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def _stolen_seconds() -> float:
    ticks = _processor_ticks()
    return ticks[7] / os.sysconf("SC_CLK_TCK") if len(ticks) > 7 else 0.0


def disturbance(seconds: float = 1.0) -> str | None:
    """Return a sentence about other work on this machine, None when it is quiet.

    Parameters
    ----------
    seconds : float
        How long to watch.
    """
    watch = Watch.start()
    time.sleep(seconds)
    share = watch.busy_share()
    if share > BUSY_LIMIT:
        return f"other processes use {share:.0%} of one processor"
    return None


def load_average() -> float | None:
    """Return the load average of the last minute, which includes this process's own past."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def processor_name() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def vector_extensions() -> str:
    """Return the widest vector instructions the processor offers, as far as the system tells."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "unknown"
    for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("sse2", "SSE2"), ("asimd", "NEON")):
        if flag in flags:
            return name
    return "unknown"


def commit() -> str:
    """Return the commit of the working tree, "+changes" behind it when files differ, "unknown" outside git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        name = git("rev-parse", "--short=12", "HEAD")
        return name + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe(processors: list[int], modules: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that belong beside every figure.

    Parameters
    ----------
    processors : list of int
        The processors available before pinning.
    modules : dict
        Name to imported module (None where it is absent), whose versions are recorded.
    """
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "vector": vector_extensions(),
        "processors": len(processors),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "load_average": load_average(),
        "executable": Path(sys.executable).name,
    }
    facts["versions"] = {
        name: getattr(module, "__version__", "unknown") for name, module in modules.items() if module is not None
    }
    return facts
