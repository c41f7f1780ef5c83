"""Builds the one extension module, fastbp._core, from src/fastbp/_core.pyx and the C core.

Everything that is not about compiling stands in pyproject.toml; how the core is compiled stands in tools/core_build.py.
FASTBP_BUILD_THREADS in the environment, openmp or pool, chooses what runs the threads (docs/threads.md).
With FASTBP_BUILD_SANITIZE=address in the environment, core and extension are built for AddressSanitizer and UBSan
(`make check-sanitize`): such a module is loaded by a Python whose LD_PRELOAD names the compiler's libasan.so; =thread
is the same for ThreadSanitizer, on the pool.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))  # the build backend does not put the project's own folder on the path

import core_build  # noqa: E402

GENERATOR = ROOT / "tools" / "generate.py"  # turns csrc/ops/ops.def into src/fastbp/core/generated_*.pxi
BUILD = ROOT / "build"  # fixed, so that editable installs and wheels share fresh objects
SANITIZE = os.environ.get("FASTBP_BUILD_SANITIZE") or None
COMPILE_FLAGS = (
    ("-O0", *core_build.SANITIZE_FLAGS[SANITIZE])  # what Cython writes takes gcc five minutes and 2 GB at -O1
    if SANITIZE
    else ("-Os", "-g0", "-fno-asynchronous-unwind-tables")  # small: calls, not loops
)
HIDDEN = "-fvisibility=hidden"  # PyInit__core is the only name that leaves the extension

# Checks are on: an index out of bounds, None where a tensor belongs and a division by zero are exceptions.
CYTHON_DIRECTIVES = {
    "language_level": 3,
    "boundscheck": True,
    "wraparound": True,
    "nonecheck": True,
    "cdivision": False,
    "auto_pickle": False,  # internal objects have no pickles, so that no pickle calls a reconstructor with anything
    "embedsignature": True,  # of methods, which the interpreter's own descriptors make: they check what `self` is
    "embedsignature.format": "clinic",
}

# By name: loops in which a check is off (`@cython.boundscheck(False)` and the like), and what guards them in its place.
# tests/test_boundary.py holds this list to the sources.
UNCHECKED = {}


class BuildCore(build_ext):
    """Generates sources, compiles the C core to objects, then lets setuptools build the extension with them."""

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize  # needed for building only, not for metadata or sdist

        if GENERATOR.exists():
            subprocess.run([sys.executable, str(GENERATOR)], cwd=ROOT, check=True)
        bare = Extension(ext.name, list(ext.sources), language="c")
        (module,) = cythonize(
            [bare], build_dir=str(BUILD / "cython"), compiler_directives=CYTHON_DIRECTIVES, quiet=True
        )
        ext.sources = module.sources
        folder = BUILD / (f"core-{SANITIZE}" if SANITIZE else "core")
        objects = core_build.build_objects(folder, extra_flags=(HIDDEN,), jobs=self.parallel, sanitize=SANITIZE)
        toolchain = core_build.make_toolchain(sanitize=SANITIZE)
        ext.extra_objects = [str(path) for path in objects]
        headers = [str(path) for pattern in ("*.h", "*.def") for path in (ROOT / "csrc").rglob(pattern)]
        ext.depends = [*ext.depends, *ext.extra_objects, *headers]  # link, or compile, again when the core changed
        ext.extra_link_args = [*toolchain.link_flags, *ext.extra_link_args]
        super().build_extension(ext)


setup(
    ext_modules=[
        Extension(
            "fastbp._core",
            sources=["src/fastbp/_core.pyx"],
            include_dirs=["csrc"],
            language="c",
            extra_compile_args=[*COMPILE_FLAGS, HIDDEN],
            extra_link_args=[] if SANITIZE else ["-s"],
        )
    ],
    cmdclass={"build_ext": BuildCore},
)
