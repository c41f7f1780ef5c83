"""Sections: the time to import and the size on disk."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from benchmarks import environment
from benchmarks.results import Check, Context, Row, ratio, write_time
from benchmarks.timing import Sample, summarize

IMPORT_BAR_MS = 25.0
SIZE_BAR_MB = 5.0

# What a source tree holds beside the files that are installed.
NOT_INSTALLED = {".c", ".cpp", ".html", ".o", ".pyc", ".pyx", ".pxi"}


def import_time(context: Context) -> Iterator[Row]:
    """Time fresh processes that import NumPy alone, and NumPy with each module, in turn.

    What counts is the whole process, from start to exit: what a user of a short script waits for.
    """
    names = [context.name] + (["torch"] if context.torch is not None else [])
    codes = {"numpy": "import numpy"} | {name: f"import numpy, {name}" for name in names}
    for code in codes.values():
        _process_seconds(code)  # writes the .pyc files and fills the file cache
    taken: dict[str, list[float]] = {name: [] for name in codes}
    for turn in range(context.effort.processes):
        for name, code in codes.items():
            if name != "torch" or turn < 5:  # a second each, and far from any bar
                taken[name].append(_process_seconds(code))
    samples: dict[str, Sample] = {name: summarize(values) for name, values in taken.items()}
    beyond = samples[context.name].median - samples["numpy"].median
    figures = {"numpy": write_time(samples["numpy"].median)}
    for name in names:
        figures[f"{name} beyond"] = write_time(max(samples[name].median - samples["numpy"].median, 0.0))
    check = Check("beyond import numpy", beyond / 1e-3, IMPORT_BAR_MS, at_least=False, style="ms")
    row = Row(f"import {context.name}", figures, [check], samples)
    gain = ratio(samples, "torch", context.name)
    if gain is not None:
        row.figures["process, PyTorch's over ours"] = f"{gain:.1f}x"
    yield row


def _process_seconds(code: str) -> float:
    """Return the seconds a fresh interpreter takes to run a line."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=environment.ROOT, check=True)
    return time.perf_counter() - start


def installed_bytes(module: ModuleType) -> tuple[int, str]:
    """Return the size of a module's files and where the list of them comes from.

    An installed distribution is measured by its own record. Otherwise (a source tree on the path) the package's
    folder counts, without what an installation leaves out.
    """
    try:
        files = importlib.metadata.distribution(module.__name__).files or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files]
    folder = Path(str(module.__file__)).parent
    if folder / "__init__.py" in paths:
        kept = [path for path in paths if path.suffix != ".pyc" and path.is_file()]
        return sum(path.stat().st_size for path in kept), "installed distribution"
    kept = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in NOT_INSTALLED]
    return sum(path.stat().st_size for path in kept), "source tree"


def size(context: Context) -> Iterator[Row]:
    """Add up the installed files, byte code left out."""
    own, origin = installed_bytes(context.subject)
    figures = {context.name: f"{own / 1e6:.2f} MB"}
    if context.torch is not None:
        figures["torch"] = f"{installed_bytes(context.torch)[0] / 1e6:.0f} MB"
    yield Row(f"files ({origin})", figures, [Check("on disk", own / 1e6, SIZE_BAR_MB, at_least=False, style="MB")])
