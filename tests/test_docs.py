"""What the documents say is true: their code runs, their links lead somewhere, their lists are complete.

Blocks marked ``python`` in README.md, CONTRIBUTING.md and docs/ are run in order, one namespace a page; those with
prompts are doctests. Examples in docstrings find `fastbp`, `nn`, `F` and `np` imported.
"""

from __future__ import annotations

import doctest
import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastbp
import fastbp.nn.functional as F
from fastbp import _core, nn

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADDING = ROOT / "docs" / "adding-an-op.md"
REPOSITORY = re.compile(r"(?:csrc|src|docs|tools|tests|examples|benchmarks)/[\w./-]*\w")

MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastbp.__path__, "fastbp.")
    if module.name not in ("fastbp.__main__", "fastbp._core") and not module.name.startswith("fastbp.reference.")
]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def imported() -> dict[str, Any]:
    return {"fastbp": fastbp, "nn": nn, "F": F, "np": np}


def blocks(text: str) -> list[tuple[str, str, int]]:
    """Fenced blocks of a page: language, text and the line where it starts."""
    return [
        (match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    ]


# ---- code ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if page != ADDING], ids=relative)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__page__"}
    for language, text, line in blocks(page.read_text()):
        if language == "python" and ">>>" in text:
            run_examples(doctest.DocTestParser().get_doctest(text, namespace, page.name, str(page), line), namespace)
        elif language == "python":
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)


def run_examples(test: doctest.DocTest, namespace: dict[str, Any] | None = None) -> None:
    """Run a doctest and fail with what it printed; what it defines is added to `namespace`."""
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False, optionflags=FLAGS).run(test, out=said.append, clear_globs=False)
    if namespace is not None:
        namespace.update(test.globs)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", ["fastbp", *MODULES])
def test_the_examples_of_a_module_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name.startswith("fastbp.sparse_derivatives"):
        pytest.importorskip("scipy")
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder().find(module, name, module, extraglobs=imported()):
        run_examples(test)


def core_examples() -> dict[str, str]:
    """Docstrings of the extension that hold examples, by name; doctest's own finder does not see all of them."""
    owners = {"": _core, **{f"{n}.": c for n, c in vars(_core).items() if isinstance(c, type) and n == c.__name__}}
    found = {}
    for prefix, owner in owners.items():
        for name, member in vars(owner).items():
            if not name.startswith("_") and ">>>" in (getattr(member, "__doc__", None) or ""):
                found[prefix + name] = member.__doc__
    return found


@pytest.mark.parametrize("name", sorted(core_examples()))
def test_the_examples_of_the_extension_run(name: str) -> None:
    run_examples(doctest.DocTestParser().get_doctest(core_examples()[name], imported(), name, None, 0))


def test_a_wrong_example_is_noticed() -> None:
    planted = ">>> int(fastbp.tensor([1, 2]).sum())\n4\n"
    with pytest.raises(AssertionError, match=r"Expected:\s+4\s+Got:\s+3"):
        run_examples(doctest.DocTestParser().get_doctest(planted, imported(), "planted", None, 0))


# ---- links and lists -----------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page: Path) -> list[str]:
    """Targets of a page's links that are no file, or no heading of one; those to other sites are not looked at."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One heading\n[a](page.md#one-heading) [b](#two) [c](none.md) [d](https://example.org)\n")
    assert dead_links(page) == ["#two", "none.md"]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = [name for name in re.findall(r"`([^`\s]+)`", page.read_text()) if REPOSITORY.fullmatch(name)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index.read_text())}
    assert [relative(page) for page in sorted((ROOT / "docs").rglob("*.md")) if page not in listed | {index}] == []


def found(name: str) -> bool:
    """Whether fastbp has a name, or one of its parts does."""
    parts = [fastbp, fastbp.Tensor, nn, nn.Module, F, fastbp.optim, fastbp.utils.data, fastbp.autograd, fastbp.testing]
    parts += [fastbp.func, fastbp.autograd.function]
    target: Any = fastbp
    for word in name.split("."):
        target = getattr(target, word, None)
    return target is not None or any(hasattr(part, name) for part in parts)


def test_the_readme_says_what_works_and_what_does_not() -> None:
    text = (ROOT / "README.md").read_text()
    works = re.findall(r"`([A-Za-z_.]+)`", text[text.index("## What works") : text.index("[docs/ops.md]")])
    missing = re.findall(r"`([A-Za-z_.]+)`", text[text.index("Not yet:") : text.index("## Beside")])
    assert len(works) > 15 and len(missing) > 5
    assert [name for name in works if name not in ("init", "differentiable", "memory_budget") and not found(name)] == []
    assert [name for name in missing if name != "torch.func" and found(name)] == [], "now there: move it in README.md"


def test_the_list_of_ops_is_what_the_generator_writes() -> None:
    page = (ROOT / "docs" / "ops.md").read_text()
    text = tool("document_ops").generate()
    assert page == text, "run `python tools/document_ops.py` with the built package and commit docs/ops.md"


def tool(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "tools"))


# ---- adding an op --------------------------------------------------------------------------------------------------

PROBE = """\
#include <stdio.h>
#include "kernels/pointwise.h"
extern const fbp_pointwise_kernels fbp_pointwise_kernels_scalar;
int main(void) {
    const double p[2] = {0}, x[] = {-2.5, -0.25, 0.75, 3.0}, g[] = {1.0, -2.0, 0.5, 4.0};
    double y[4], gx[4];
    fbp_pointwise_kernels_scalar.forward[FBP_OP_cube][1](4, y, x, NULL, p);
    fbp_pointwise_kernels_scalar.pull[FBP_OP_cube][0][1](4, gx, g, x, NULL, y, p);
    printf("[[");
    for (int i = 0; i < 4; i++) printf("%.17g%s", y[i], i < 3 ? ", " : "], [");
    for (int i = 0; i < 4; i++) printf("%.17g%s", gx[i], i < 3 ? ", " : "]]");
    return 0;
}
"""
REFERENCE = """\
import json
from reference import OPS
op, x = OPS["cube"], [-2.5, -0.25, 0.75, 3.0]
print(json.dumps([op.forward(x).to_nested(), op.vjp([1.0, -2.0, 0.5, 4.0], x)[0].to_nested()]))
"""


def apply_snippets(page: str, tree: Path) -> list[str]:
    """Put the page's snippets before the lines that it names; the files that were changed."""
    pattern = r"<!-- apply to (\S+) before (.*?) -->\n```\w+\n(.*?)^```$"
    changed = []
    for file, place, snippet in re.findall(pattern, page, flags=re.DOTALL | re.MULTILINE):
        text = (tree / file).read_text()
        starts = [match.start() for match in re.finditer(f"^{re.escape(place)}", text, flags=re.MULTILINE)]
        assert len(starts) == 1, f"{file} has {len(starts)} lines that begin with {place!r}"
        (tree / file).write_text(text[: starts[0]] + snippet + text[starts[0] :])
        changed.append(file)
    return changed


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with the page's op in them, and what tools/generate.py makes of them."""
    tree = tmp_path_factory.mktemp("adding")
    without = shutil.ignore_patterns("*.so", "__pycache__", "generated_*", "tests")
    for folder in ("csrc", "src", "tools"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=without)
    assert apply_snippets(ADDING.read_text(), tree) == re.findall("<!-- apply to (\\S+) ", ADDING.read_text())
    subprocess.run([sys.executable, "tools/generate.py"], cwd=tree, check=True)
    return tree


def test_the_page_on_adding_an_op_makes_functions_and_methods(tree: Path) -> None:
    core = tree / "src" / "fastbp" / "core"
    assert "def cube(input, *, out=None):" in (core / "generated_functions.pxi").read_text()
    tensor = (core / "generated_tensor.pxi").read_text()
    assert "    def cube(self):" in tensor
    assert "    def cube_(self):" in tensor
    assert "FBP_OP_cube\n" in (core / "generated_ops.pxi").read_text()


def test_the_op_of_the_page_compiles_and_agrees_with_its_reference(tree: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    flags = [*tool("core_build").COMMON_FLAGS, "-Wall", "-Wextra", "-Werror", "-O1"]
    scalar = ["-DFBP_ISA=scalar", "-DFBP_VECTOR_BYTES=0"]
    for file in ("kernels/pointwise.c", "kernels/integer.c", "ops/table.c", "diff/pointwise_rules.c"):
        command = [compiler, *flags, *(scalar if "kernels" in file else [])]
        subprocess.run([*command, "-c", f"csrc/{file}", "-o", f"{Path(file).stem}.o"], cwd=tree, check=True)
    (tree / "probe.c").write_text(PROBE)
    subprocess.run([compiler, *flags, "probe.c", "pointwise.o", "-lm", "-o", "probe"], cwd=tree, check=True)
    kernels = json.loads(subprocess.run([tree / "probe"], capture_output=True, text=True, check=True).stdout)
    shutil.copytree(tree / "src" / "fastbp" / "reference", tree / "alone" / "reference")  # it needs nothing else
    environment = {**os.environ, "PYTHONPATH": str(tree / "alone")}
    command = [sys.executable, "-c", REFERENCE]
    reference = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    np.testing.assert_allclose(kernels, reference, rtol=1e-15)  # some roundings
    np.testing.assert_allclose(kernels[0], [-15.625, -0.015625, 0.421875, 27.0], rtol=1e-15)
