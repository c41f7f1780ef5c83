"""What is installed and what is in the repository: metadata, size, exported names, documented variables, the build."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zlib
from pathlib import Path
from types import ModuleType

import pytest

import fastbp

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastbp.__file__).resolve().parent
LARGEST_WHEEL_BYTES = 3_000_000  # what is promised of a wheel; its files are deflated one by one
LARGEST_INSTALL_BYTES = 6_000_000  # unpacked, without what Python compiles

# Folders that exist on somebody's machine alone; a URL's path does not count.
MACHINE_PATH = re.compile(r"(?<![\w.:/\-])/(?:root|work|home|Users)/[\w.]")


@pytest.fixture
def core_build(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The build's own module, from tools/."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import core_build as module

    return module


def test_metadata_states_the_license_as_pep_639_has_it() -> None:
    metadata = importlib.metadata.metadata("fastbp")
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert tuple(map(int, metadata["Metadata-Version"].split("."))) >= (2, 4)
    assert not [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    installed = {str(path) for path in importlib.metadata.files("fastbp") or []}
    assert any(name.endswith("licenses/LICENSE") for name in installed)


def test_numpy_is_the_only_dependency() -> None:
    requires = importlib.metadata.requires("fastbp") or []
    assert [r for r in requires if "extra ==" not in r] == ["numpy>=2.0"]


def test_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.metadata.version("fastbp") == project["version"] == fastbp.__version__


def test_sizes() -> None:
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    largest = sorted(files, key=lambda p: -p.stat().st_size)[:3]
    for bound, total in (
        (LARGEST_INSTALL_BYTES, sum(p.stat().st_size for p in files)),
        (LARGEST_WHEEL_BYTES, sum(len(zlib.compress(p.read_bytes(), 6)) for p in files)),
    ):
        assert total <= bound, f"{total} bytes; largest: {[p.name for p in largest]}"


def test_typing_files_and_modules_are_installed() -> None:
    assert (PACKAGE / "py.typed").exists()
    source = ROOT / "src" / "fastbp"
    wanted = [p.relative_to(source) for pattern in ("*.py", "*.pyi") for p in source.rglob(pattern)]
    assert [str(p) for p in wanted if not (PACKAGE / p).exists()] == []
    data = [p.relative_to(source) for p in (source / "data").glob("*") if p.is_file()]
    assert [str(p) for p in data if not (PACKAGE / p).exists()] == []


@pytest.mark.skipif(PACKAGE.is_relative_to(ROOT / "src"), reason="an editable install runs from its sources")
def test_no_sources_of_the_extension_are_installed() -> None:
    assert [p.name for p in PACKAGE.rglob("*") if p.suffix in (".c", ".h", ".pyx", ".pxi", ".o")] == []


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("nm"), reason="nm reads ELF symbols")
def test_extension_exports_its_init_function_alone() -> None:
    import fastbp._core as core

    done = subprocess.run(["nm", "-D", "--defined-only", core.__file__], capture_output=True, text=True, check=True)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["PyInit__core"]


def tracked_files() -> list[Path]:
    """Files under version control; skips the test where there is none, as in an unpacked sdist."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_tracked_files_name_no_machines_folders() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # data
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("see /" + "home/somebody/x", True),
        ("'/" + "root/.cache'", True),
        ("https://example.org/" + "home/page", False),
        ("a/" + "work/b", False),
        ("/proc/self/cgroup", False),
    ],
)
def test_machine_path_pattern(line: str, named: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is named


def table_variables() -> list[str]:
    """Names in the table of csrc/base/environment.c, in its order."""
    text = (ROOT / "csrc" / "base" / "environment.c").read_text()
    return re.findall(r'^\s*\{\{"(\w+)",', text, re.MULTILINE)


def test_every_environment_variable_is_documented() -> None:
    names = table_variables()
    assert len(names) >= 5 and len(set(names)) == len(names)
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "environment.md").read_text(), re.MULTILINE)
    assert documented == names


def test_environment_variables_are_read_in_one_file() -> None:
    sources = [p for p in (ROOT / "csrc").rglob("*.[ch]") if p.parent.name != "tests"]
    readers = [p.name for p in sources if re.search(r"\bgetenv\s*\(", p.read_text())]
    assert readers == ["environment.c"]
    used = set()
    for path in (ROOT / "src").rglob("*.py*"):
        if path.suffix in (".py", ".pyx", ".pyi"):
            used |= set(re.findall(r"\bFASTBP_[A-Z_]+\b", path.read_text()))
    assert used <= set(table_variables())


def test_every_kernel_is_compiled_for_every_instruction_set(core_build: ModuleType) -> None:
    toolchain = core_build.Toolchain(cc=("cc",), machine="x86_64")
    units = core_build.list_units(toolchain)
    names = [unit.object_name for unit in units]
    assert len(set(names)) == len(names)
    kernels = [p.stem for p in (ROOT / "csrc" / "kernels").glob("*.c") if not p.name.startswith("dispatch")]
    for stem in kernels:
        assert [n for n in names if n.startswith(f"kernels.{stem}.")] == [
            f"kernels.{stem}.{isa}.o" for isa in ("scalar", "sse2", "avx2", "avx512")
        ]
    other = core_build.Toolchain(cc=("cc",), machine="x86_64", threads="openmp")
    compiled = {unit.source for unit in (*units, *core_build.list_units(other))}
    compiled |= set((ROOT / "csrc" / "tests").glob("*.c"))
    assert compiled == set((ROOT / "csrc").rglob("*.c")), "a file outside of the folders that the build walks"
    for unit in units:
        assert not [flag for flag in unit.flags if "fast-math" in flag or "march" in flag]


@pytest.mark.parametrize("threads", ["openmp", "pool"])
def test_one_team_of_threads_is_compiled(core_build: ModuleType, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_build, "has_openmp", lambda cc: True)
    monkeypatch.setenv("FASTBP_BUILD_THREADS", threads)
    toolchain = core_build.make_toolchain("cc")
    units = core_build.list_units(toolchain)
    assert [u.object_name for u in units if u.source.name.startswith("team_")] == [f"base.team_{threads}.o"]
    opened = [u.source.name for u in units if "-fopenmp" in u.flags]
    assert opened == (["team_openmp.c"] if threads == "openmp" else [])
    assert ("-fopenmp" in toolchain.link_flags) == (threads == "openmp")


def test_the_choice_of_threads(core_build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(has_openmp: bool, **options: str) -> str:
        monkeypatch.setattr(core_build, "has_openmp", lambda cc: has_openmp)
        return str(core_build.make_toolchain("cc", **options).threads)

    monkeypatch.delenv("FASTBP_BUILD_THREADS", raising=False)
    assert chosen(True) == "openmp"
    assert chosen(False) == "pool"
    assert chosen(True, sanitize="thread") == "pool"
    monkeypatch.setenv("FASTBP_BUILD_THREADS", "pool")
    assert chosen(True) == "pool"
    assert chosen(True, threads="openmp") == "openmp"
    for value, has_openmp, options, words in (
        ("serial", True, {}, "may be openmp or pool"),
        ("openmp", False, {}, "has no OpenMP"),
        ("openmp", True, {"sanitize": "thread"}, "take the pool"),
    ):
        monkeypatch.setenv("FASTBP_BUILD_THREADS", value)
        with pytest.raises(core_build.BuildError, match=words):
            chosen(has_openmp, **options)


@pytest.fixture
def small_tree(core_build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A core of one file and one header in a temporary folder, which the build takes for the project."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    base = tmp_path / "csrc" / "base"
    base.mkdir(parents=True)
    (base / "one.h").write_text("int one(void);\n")
    (base / "one.c").write_text('#include "base/one.h"\nint one(void) { return 1; }\n')
    monkeypatch.setattr(core_build, "ROOT", tmp_path)
    monkeypatch.setattr(core_build, "SOURCE", tmp_path / "csrc")
    monkeypatch.delenv("CC", raising=False)
    return tmp_path


def test_objects_are_rebuilt_exactly_when_something_changed(core_build: ModuleType, small_tree: Path) -> None:
    out = small_tree / "build"

    def build(*flags: str) -> int:
        (made,) = core_build.build_objects(out, flags)
        return int(made.stat().st_mtime_ns)

    first = build()
    assert build() == first
    header = small_tree / "csrc" / "base" / "one.h"
    later = time.time() + 1
    os.utime(header, (later, later))
    second = build()
    assert second != first, "a touched header must rebuild what includes it"
    os.utime(header, (1, 1))
    third = build("-DSOMETHING=1")
    assert third != second, "other flags must rebuild"
    assert build("-DSOMETHING=1") == third


def test_a_failing_compilation_is_an_error_with_the_compilers_words(core_build: ModuleType, small_tree: Path) -> None:
    (small_tree / "csrc" / "base" / "one.c").write_text("int one(void) { return wrong; }\n")
    with pytest.raises(core_build.BuildError, match="wrong"):
        core_build.build_objects(small_tree / "build")
    with pytest.raises(core_build.BuildError, match="install a C compiler"):
        core_build.build_objects(small_tree / "build", cc="no-such-compiler")
