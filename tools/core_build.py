#!/usr/bin/env python3
"""How the C core is compiled: the one list of its flags, instruction sets and files.

``setup.py`` calls :func:`build_objects`; the command line below serves developers and CI::

    python tools/core_build.py --out build/check --tests --sanitize address --werror
    python tools/core_build.py --out build/arm --target aarch64 --tests
    python tools/core_build.py --out /tmp/x --tests --only test_math --keep-going

Files of csrc/base, graph, ops, diff, plan and exec are compiled once.  Files of csrc/kernels are compiled once per
instruction set, except those named dispatch*, which choose among the sets and are told which ones exist.
An object is rebuilt when its command line, its source or any header that it included (gcc's -MMD list) changed.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "csrc"
PLAIN_FOLDERS = ("base", "graph", "ops", "diff", "plan", "exec")
PER_ISA_INCLUDE = '#include "kernels/isa.h"'  # a test that has it is compiled and run once per instruction set
TEST_TIMEOUT_SECONDS = 900  # the slowest test under emulation stays far below
TEST_ENVIRONMENT = {
    # As the package sets them (docs/threads.md); test_base holds idle threads to it.
    "GOMP_SPINCOUNT": "1000",
    "KMP_BLOCKTIME": "0",
    **{name: value for name, value in os.environ.items() if not name.startswith("FASTBP_")},
}

COMMON_FLAGS = (
    "-std=c11",
    "-fPIC",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-asynchronous-unwind-tables",  # nothing unwinds through the core; a quarter of a megabyte
    "-fopenmp-simd",  # reads `#pragma omp simd` alone; OpenMP's threads are for THREAD_FILES["openmp"]
    "-Icsrc",
)
LINK_FLAGS = ("-pthread", "-lm")
OPENMP_FLAG = "-fopenmp"  # to compile OpenMP's team, so that no other file can open a region by mistake, and to link
# What runs the threads: one of these files of csrc/base is compiled, the others are left out.
THREAD_FILES = {"openmp": "team_openmp.c", "pool": "team_pool.c"}
THREADS_VARIABLE = "FASTBP_BUILD_THREADS"  # the choice where none is passed on: one of THREAD_FILES
WARNING_FLAGS = ("-Wall", "-Wextra")
SANITIZE_FLAGS = {
    # Memory that is given back is not handed out again, so that a use after free is seen (csrc/base/memory.c).
    "address": (
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-g",
        "-DFBP_MEMORY_CACHES=0",
    ),
    # With the pool alone: it does not see the barriers of gcc's OpenMP and takes every region for a race.
    "thread": ("-fsanitize=thread", "-fno-omit-frame-pointer", "-g", "-DFBP_MEMORY_CACHES=0"),
}
# Random bits must be the same on every instruction set, so that no multiply-add of this file may be fused.
# Plain loops whose peeled and unswitched copies would only add to the binary.
COMPACT = ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic")
FILE_FLAGS = {"random.c": ("-ffp-contract=off",), "integer.c": COMPACT, "index.c": COMPACT}


@dataclass(frozen=True)
class InstructionSet:
    """A set for which every kernel file is compiled: its name, vector width in bytes and compiler flags."""

    name: str
    vector_bytes: int
    flags: tuple[str, ...] = ()

    def all_flags(self) -> tuple[str, ...]:
        return (f"-DFBP_ISA={self.name}", f"-DFBP_VECTOR_BYTES={self.vector_bytes}", *self.flags)


# The reference set, and the one of processors older than 2013: small rather than unrolled.
SCALAR = InstructionSet("scalar", 0, ("-fno-tree-vectorize", "-Os"))
AVX512_FLAGS = ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512")
INSTRUCTION_SETS = {
    "x86_64": (
        SCALAR,
        InstructionSet("sse2", 16, ("-Os",)),
        InstructionSet("avx2", 32, ("-mavx2", "-mfma")),
        InstructionSet("avx512", 64, AVX512_FLAGS),
    ),
    "aarch64": (SCALAR, InstructionSet("neon", 16)),
}
MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Toolchain:
    """A compiler, the machine that it compiles for, and what the machine's programs run under."""

    cc: tuple[str, ...]
    machine: str
    ar: str = "ar"
    runner: tuple[str, ...] = ()
    extra_flags: tuple[str, ...] = ()
    optimise: tuple[str, str] = ("-O2", "-O3")  # files compiled once, kernel files
    threads: str = "pool"  # one of THREAD_FILES

    @property
    def instruction_sets(self) -> tuple[InstructionSet, ...]:
        return INSTRUCTION_SETS.get(self.machine, (SCALAR,))

    @property
    def have_flags(self) -> tuple[str, ...]:
        """What tells a file that is compiled once for which sets the kernels exist."""
        return tuple(f"-DFBP_HAVE_ISA_{isa.name}=1" for isa in self.instruction_sets)

    @property
    def link_flags(self) -> tuple[str, ...]:
        """Flags that a program or extension linked from the objects needs."""
        openmp = (OPENMP_FLAG,) if self.threads == "openmp" else ()
        return (*(flag for flag in self.extra_flags if flag.startswith("-fsanitize")), *openmp, *LINK_FLAGS)

    def file_flags(self, source: Path) -> tuple[str, ...]:
        """Flags of this one file."""
        openmp = (OPENMP_FLAG,) if source.name == THREAD_FILES["openmp"] else ()
        return (*openmp, *FILE_FLAGS.get(source.name, ()))


@dataclass(frozen=True)
class Unit:
    """One object file to be: its source, its name and the flags that are its own."""

    source: Path
    object_name: str
    flags: tuple[str, ...]


class BuildError(Exception):
    """A file did not compile or link; the compiler's own words are the message."""


def target_machine() -> str:
    """Name of this machine's architecture as INSTRUCTION_SETS spells it."""
    machine = platform.machine().lower()
    return MACHINE_ALIASES.get(machine, machine)


OPENMP_PROBE = """#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""


@functools.cache
def has_openmp(cc: tuple[str, ...]) -> bool:
    """Whether the compiler compiles and links OpenMP; Apple's does not, nor clang where libomp is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*cc, OPENMP_FLAG, "-x", "c", "-", "-o", str(Path(folder) / "probe")]
        try:
            done = subprocess.run(command, input=OPENMP_PROBE.encode(), capture_output=True, check=False)
        except OSError:
            return False  # no compiler at all: the first real command says so
        return done.returncode == 0


def choose_threads(cc: tuple[str, ...], threads: str | None, sanitize: str | None) -> str:
    """What runs the threads: as asked for (see make_toolchain), or as the compiler can; BuildError if it cannot be."""
    asked = threads or os.environ.get(THREADS_VARIABLE) or None
    if asked not in (None, *THREAD_FILES):
        raise BuildError(f"{THREADS_VARIABLE} is {asked!r}; it may be {' or '.join(THREAD_FILES)}")
    if sanitize == "thread":
        if asked == "openmp":
            raise BuildError("the thread sanitizer does not see OpenMP's barriers; take the pool")
        return "pool"
    if asked == "openmp" and not has_openmp(cc):
        raise BuildError(f"{shlex.join(cc)} has no OpenMP; set {THREADS_VARIABLE}=pool or leave it out")
    return asked or ("openmp" if has_openmp(cc) else "pool")


def make_toolchain(
    cc: str | None = None,
    *,
    target: str | None = None,
    sanitize: str | None = None,
    werror: bool = False,
    threads: str | None = None,
    extra_flags: Sequence[str] = (),
) -> Toolchain:
    """The toolchain for this machine, or for ``target`` ("aarch64") with a cross compiler and qemu.

    ``sanitize`` is one of SANITIZE_FLAGS, ``threads`` one of THREAD_FILES; None leaves the choice to THREADS_VARIABLE
    or, where that is not set, to the compiler: OpenMP where it has it.
    """
    machine, archiver = target_machine(), "ar"
    runner: tuple[str, ...] = ()
    if target and target != machine:
        if target != "aarch64":
            raise BuildError(f"unknown target {target!r}: this machine ({machine}) or aarch64")
        triple = "aarch64-linux-gnu"
        machine, archiver = target, f"{triple}-ar"
        cc = cc or f"{triple}-gcc"
        runner = ("qemu-aarch64", "-L", f"/usr/{triple}")
    command = tuple(shlex.split(cc or os.environ.get("CC") or "cc"))
    flags = (
        *WARNING_FLAGS,
        *(("-Werror",) if werror else ()),
        *(SANITIZE_FLAGS[sanitize] if sanitize else ()),
        *extra_flags,
    )
    return Toolchain(
        cc=command,
        machine=machine,
        ar=archiver,
        runner=runner,
        extra_flags=flags,
        optimise=("-O1", "-O1") if sanitize else ("-O2", "-O3"),
        threads=choose_threads(command, threads, sanitize),
    )


def list_units(toolchain: Toolchain, folders: Sequence[str] = ()) -> list[Unit]:
    """Every object of the core, or of these folders of csrc alone, in a fixed order."""
    plain, kernel = toolchain.optimise
    others = {file for name, file in THREAD_FILES.items() if name != toolchain.threads}
    units = []
    for folder in PLAIN_FOLDERS:
        for source in sorted((SOURCE / folder).glob("*.c")):
            if source.name in others:
                continue
            units.append(Unit(source, f"{folder}.{source.stem}.o", (plain, *toolchain.file_flags(source))))
    for source in sorted((SOURCE / "kernels").glob("*.c")):
        own = toolchain.file_flags(source)
        if source.name.startswith("dispatch"):
            units.append(Unit(source, f"kernels.{source.stem}.o", (plain, *toolchain.have_flags, *own)))
            continue
        for isa in toolchain.instruction_sets:
            flags = (kernel, *isa.all_flags(), *own)
            units.append(Unit(source, f"kernels.{source.stem}.{isa.name}.o", flags))
    return [unit for unit in units if not folders or unit.source.parent.name in folders]


def compile_command(toolchain: Toolchain, unit: Unit, target: Path) -> list[str]:
    """The command line that makes ``target`` from ``unit``; run from ROOT, so that paths stay relative."""
    return [
        *toolchain.cc,
        *COMMON_FLAGS,
        *toolchain.extra_flags,
        *unit.flags,
        "-MMD",
        "-MF",
        str(target.with_suffix(".d")),
        "-c",
        str(unit.source.relative_to(ROOT)),
        "-o",
        str(target),
    ]


def is_fresh(target: Path, command: Sequence[str]) -> bool:
    """Whether ``target`` was made by this very command from files that have not changed since."""
    record, dependencies = target.with_suffix(".cmd"), target.with_suffix(".d")
    try:
        if record.read_text() != shlex.join(command):
            return False
        made = target.stat().st_mtime_ns
        text = dependencies.read_text().split(":", 1)[1].replace("\\\n", " ")
        return all((ROOT / name).stat().st_mtime_ns <= made for name in shlex.split(text))
    except (OSError, IndexError):
        return False


def run_command(command: Sequence[str]) -> None:
    """Run a build command from ROOT; BuildError with its output when it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"cannot run {command[0]!r} ({error}); install a C compiler (gcc, clang) or set CC") from error
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    if done.stderr:
        print(done.stderr, file=sys.stderr, end="")


def compile_unit(toolchain: Toolchain, unit: Unit, build_dir: Path) -> Path:
    """Make one object unless it is fresh; returns its path."""
    target = build_dir / unit.object_name
    command = compile_command(toolchain, unit, target)
    if not is_fresh(target, command):
        # Under a name of this process's own first: another build of the same tree may be reading the old object.
        new = target.with_suffix(f".{os.getpid()}.new")
        started = time.time_ns()
        run_command([*command[:-1], str(new)])
        os.utime(new, ns=(started, started))  # what was edited while the compiler ran counts as newer
        new.replace(target)
        target.with_suffix(".cmd").write_text(shlex.join(command))
    return target


def compile_all(
    toolchain: Toolchain,
    build_dir: Path,
    jobs: int | None,
    *,
    folders: Sequence[str] = (),
    keep_going: bool = False,
) -> tuple[list[Path], list[str]]:
    """Make every object, ``jobs`` at a time; returns the objects and the failures' texts (empty unless keep_going)."""
    build_dir = build_dir.resolve()
    build_dir.mkdir(parents=True, exist_ok=True)
    objects: list[Path] = []
    failures: list[str] = []
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        pending = [pool.submit(compile_unit, toolchain, unit, build_dir) for unit in list_units(toolchain, folders)]
        for future in pending:
            try:
                objects.append(future.result())
            except BuildError as error:
                failures.append(str(error))
                if not keep_going:
                    pool.shutdown(cancel_futures=True)
                    break
    if failures and not keep_going:
        raise BuildError(failures[0])
    return objects, failures


def build_objects(
    build_dir: str | os.PathLike[str],
    extra_flags: Sequence[str] = (),
    jobs: int | None = None,
    *,
    cc: str | None = None,
    sanitize: str | None = None,
) -> list[Path]:
    """Compile the core for this machine into ``build_dir``.

    Parameters
    ----------
    build_dir : path
        Where objects and their records are kept; what is there already and fresh is reused.
    extra_flags : sequence of str
        Added to every compile command.
    jobs : int, optional
        Compilers at a time; default one per core.
    cc : str, optional
        Compiler; default ``$CC``, else ``cc``.
    sanitize : str, optional
        One of ``SANITIZE_FLAGS``.

    Returns
    -------
    list of Path
        All object files, in a fixed order.

    Raises
    ------
    BuildError
        When a file does not compile.
    """
    toolchain = make_toolchain(cc, sanitize=sanitize, extra_flags=extra_flags)
    objects, _ = compile_all(toolchain, Path(build_dir), jobs)
    return objects


def make_archive(toolchain: Toolchain, objects: Sequence[Path], build_dir: Path) -> Path:
    """Collect the objects in one library, so that a test pulls in only what it uses."""
    archive = build_dir / "libfastbp.a"
    archive.unlink(missing_ok=True)  # made anew each time: a removed source must not live on in it
    run_command([toolchain.ar, "qcs", str(archive), *map(str, objects)])
    return archive


PROBE = """#include "base/cpu.h"
int main(int count, char **names) { return count == 2 && fbp_cpu_has_isa(names[1]) ? 0 : 1; }
"""


def runnable_sets(toolchain: Toolchain, archive: Path, build_dir: Path) -> list[InstructionSet]:
    """The instruction sets that the machine at hand can run, by the core's own judgement."""
    source, program = build_dir / "probe_isa.c", build_dir / "probe_isa"
    source.write_text(PROBE)
    flags = (*COMMON_FLAGS, *toolchain.extra_flags)
    run_command([*toolchain.cc, *flags, str(source), str(archive), "-o", str(program), *toolchain.link_flags])
    found = []
    for isa in toolchain.instruction_sets:
        done = subprocess.run([*toolchain.runner, str(program), isa.name], check=False)
        if done.returncode == 0:
            found.append(isa)
    return found


def run_test(
    toolchain: Toolchain, source: Path, isa: InstructionSet | None, archive: Path, build_dir: Path
) -> tuple[str, bool, str]:
    """Compile, link and run one test program; returns its label, whether it passed, and its output."""
    name = source.stem + (f".{isa.name}" if isa else "")
    program = build_dir / name
    plain, kernel = toolchain.optimise
    own = (kernel, *isa.all_flags()) if isa else (plain, *toolchain.have_flags)
    command = [
        *toolchain.cc, *COMMON_FLAGS, *toolchain.extra_flags, *own,
        str(source.relative_to(ROOT)), str(archive), "-o", str(program), *toolchain.link_flags,
    ]  # fmt: skip
    try:
        run_command(command)
        done = subprocess.run(
            [*toolchain.runner, str(program), *(["--emulated"] if toolchain.runner else [])],
            cwd=ROOT, env=TEST_ENVIRONMENT, capture_output=True, text=True, check=False, timeout=TEST_TIMEOUT_SECONDS,
        )  # fmt: skip
    except BuildError as error:
        return name, False, str(error)
    except subprocess.TimeoutExpired:
        return name, False, f"did not end within {TEST_TIMEOUT_SECONDS} s"
    return name, done.returncode == 0, f"{done.stdout}{done.stderr}exit status {done.returncode}"


def run_tests(
    toolchain: Toolchain, objects: Sequence[Path], build_dir: Path, only: Sequence[str], jobs: int | None = None
) -> bool:
    """Run every csrc/tests/test_*.c (or those named in ``only``), ``jobs`` at a time; True when all passed.

    One line is printed for each, in order.
    """
    build_dir = build_dir.resolve()
    archive = make_archive(toolchain, objects, build_dir)
    sets = runnable_sets(toolchain, archive, build_dir)
    sources = [s for s in sorted((SOURCE / "tests").glob("test_*.c")) if not only or s.stem in only]
    if missing := set(only) - {source.stem for source in sources}:
        raise BuildError(f"no such test: {', '.join(sorted(missing))}")
    passed = True
    runs = [(s, isa) for s in sources for isa in (sets if PER_ISA_INCLUDE in s.read_text() else [None])]
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        pending = [pool.submit(run_test, toolchain, source, isa, archive, build_dir) for source, isa in runs]
        for one in pending:
            name, good, output = one.result()
            print(f"{'ok  ' if good else 'FAIL'} {name}", flush=True)
            if not good:
                passed = False
                print(output, flush=True)
    print(f"{len(sources)} test files, sets: {' '.join(isa.name for isa in sets)}: {'ok' if passed else 'FAILED'}")
    return passed


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status 0 when everything compiled and passed."""
    parser = argparse.ArgumentParser(description="Compile the C core and run its tests.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for objects and programs")
    parser.add_argument("--tests", action="store_true", help="compile and run csrc/tests/test_*.c")
    parser.add_argument("--only", default="", metavar="NAMES", help="tests to run, e.g. test_base,test_math")
    parser.add_argument("--sanitize", choices=SANITIZE_FLAGS, help="AddressSanitizer and UBSan, or ThreadSanitizer")
    parser.add_argument(
        "--threads", choices=THREAD_FILES, help=f"what runs them; default ${THREADS_VARIABLE}, else as the compiler can"
    )
    parser.add_argument("--werror", action="store_true", help="warnings are errors")
    parser.add_argument("--folders", default="", metavar="NAMES", help="compile these folders of csrc alone, e.g. base")
    parser.add_argument("--keep-going", action="store_true", help="test what compiles; still fails at the end")
    parser.add_argument("--cc", help="compiler; default $CC, else cc")
    parser.add_argument("--target", help="machine to compile for; default this one; else aarch64 (gcc cross, qemu)")
    parser.add_argument("--jobs", type=int, help="compilers at a time; default one per core")
    options = parser.parse_args(arguments)
    only = [name for name in options.only.split(",") if name]
    try:
        toolchain = make_toolchain(
            options.cc,
            target=options.target,
            sanitize=options.sanitize,
            werror=options.werror,
            threads=options.threads,
        )
        folders = [name for name in options.folders.split(",") if name]
        objects, failures = compile_all(
            toolchain, options.out, options.jobs, folders=folders, keep_going=options.keep_going
        )
        print(f"{len(objects)} objects for {toolchain.machine} ({toolchain.threads}) in {options.out}", flush=True)
        passed = run_tests(toolchain, objects, options.out, only, options.jobs) if options.tests else True
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    for failure in failures:
        print(failure, file=sys.stderr)
    return 0 if passed and not failures else 1


if __name__ == "__main__":
    sys.exit(main())
