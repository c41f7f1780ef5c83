"""Builds without Python's lock: every function of the extension that can be entered from outside enters one section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "fastbp" / "core"

pytest.importorskip("Cython", reason="needs what builds the extension")

# Prints what tools/sections.py does to the module in sys.argv[1]: names that are entered, then what is left out.
REPORT = """
import sys
from Cython.Compiler import Main, Options, Pipeline, Scanning
import sections

def report(transform):
    print(*transform.entered)
    for place in transform.left_out:
        print(*place)

sections.install(report)
options = Options.CompilationOptions(Options.default_options, language_level=3)
source = Main.CompilationSource(Scanning.FileSourceDescriptor(sys.argv[1]), sys.argv[2], ".")
Pipeline.parse_stage_factory(Main.Context.from_options(options))(source)
"""


def python(*arguments: str, **options: Any) -> str:
    """What a Python that has tools/ on its path prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_all_of_the_extension_is_entered_but_what_does_without_the_core() -> None:
    """A lambda or a generator that touches tensors would run outside of the section: write a loop, or a function."""
    entered, *left_out = python("-c", REPORT, "src/fastbp/_core.pyx", "fastbp._core", cwd=ROOT).splitlines()
    assert left_out == ["shape.pxi genexpr", "autograd.pxi generator_wrapper", "checkpoint.pxi <lambda>"]
    names = entered.split(" ")
    text = "\n".join(path.read_text() for path in SOURCES.glob("*.pxi"))
    callbacks = re.findall(r"^cdef [^\n(]*?(\w+)\((?:[^)]|\n)*?\) noexcept with gil:", text, re.M)
    assert len(callbacks) >= 10
    assert not set(callbacks) - set(names)
    assert {"__dealloc__", "__init__", "__getitem__", "backward", "holds", "advance"} <= set(names)


def test_a_section_is_left_by_every_way_out(tmp_path: Path) -> None:
    """Return, exception, fall through, methods, properties, closures, callbacks: entered once each, and left."""
    (tmp_path / "small.pyx").write_text(
        '''cdef extern from *:
    """
    static int section_depth = 0;
    #define section_begin(section, of) (section_depth++, (void)(section))
    #define section_end(section) (section_depth--, (void)(section))
    """
    int section_depth

core_section = []

def entered():
    """Docstrings stay."""
    return section_depth

def raising():
    raise ValueError(section_depth)

def falling(seen):
    seen.append(section_depth)

def closing():
    def inner():
        return section_depth
    return inner

def generating():
    yield section_depth

cdef class Held:
    cdef public object value
    def __init__(self):
        self.value = section_depth
    @property
    def depth(self):
        return section_depth
    def __getitem__(self, key):
        return section_depth + key

cdef int callback() noexcept with gil:
    return section_depth

cdef int plain() noexcept:
    return section_depth

def by_callback():
    return callback()

def by_plain():
    return plain()
'''
    )
    python(
        "-c",
        "import sections, sys; sections.install()\n"
        "from Cython.Build import cythonize\n"
        "from pathlib import Path\n"
        "from setuptools import Extension, setup\n"
        "(module,) = cythonize([Extension('small', ['small.pyx'])], language_level=3, quiet=True)\n"
        "made = Path('small.c')  # counted, with whatever Python this is\n"
        "for verb in ('Begin', 'End'):\n"
        "    text = made.read_text().replace(f'__Pyx_PyCriticalSection_{verb}(&', f'section_{verb.lower()}(&')\n"
        "    made.write_text(text)\n"
        "sys.argv[1:] = ['-q', 'build_ext', '--inplace']\n"
        "setup(name='small', ext_modules=[module])\n",
        cwd=tmp_path,
    )
    found = python(
        "-c",
        "import small\n"
        "print(small.entered.__doc__, small.entered())\n"
        "try: small.raising()\n"
        "except ValueError as error: print(error)\n"
        "seen = []; small.falling(seen); held = small.Held()\n"
        "print(*seen, small.closing()(), *small.generating(), held.value, held.depth, held[1])\n"
        "print(small.by_callback(), small.by_plain(), small.entered())\n",
        cwd=tmp_path,
    )
    assert found.splitlines() == ["Docstrings stay. 1", "1", "1 1 0 1 1 2", "2 1 1"]
