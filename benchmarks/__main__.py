"""`python -m benchmarks`: fastbp beside PyTorch and NumPy in one run, every row against its bar.

Exit status: 0 when all judged rows pass, 1 when a row misses its bar, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import environment

if TYPE_CHECKING:
    from benchmarks.results import Context, Row


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="some seconds per section; good for a smoke test only")
    parser.add_argument("--only", metavar="NAME", action="append", help="run this section (may be repeated)")
    parser.add_argument("--list", action="store_true", help="list the sections")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out even if it is installed")
    parser.add_argument("--torch-compile", action="store_true", help="time torch.compile on all compiled workloads")
    parser.add_argument("--force", action="store_true", help="run although other processes are busy")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write every sample to this file")
    parser.add_argument("--markdown", metavar="PATH", type=Path, help="rewrite the measured part of this document")
    return parser.parse_args()


def all_sections(torch_compile: bool = False) -> dict[str, tuple[str, Callable[[Context], Iterator[Row]]]]:
    """Return the sections: name, title, and the function that measures.

    Parameters
    ----------
    torch_compile : bool
        Whether to measure torch.compile on every compiled workload, not on the smallest only.
    """
    from benchmarks import compiled, compiled_costs, derivatives, eager, pointwise, processes, products, scalar_chain

    return {
        "op": ("One small op with its gradient recorded", eager.one_op),
        "chain": ("A chain of ten ops", eager.chain),
        "train": ("A training step: forward, backward, Adam, eager", eager.training),
        "compiled": ("Compiled training steps, one thread", partial(compiled.one_thread, torch_compile=torch_compile)),
        "compiled-threads": ("Compiled training steps, two threads", compiled.two_threads),
        "compiled-overhead": ("What a compiled call and its capture cost", compiled_costs.overhead),
        "compiled-scalar": ("A compiled graph of scalars", compiled_costs.scalar),
        "compiled-memory": ("Memory of a compiled step", compiled_costs.memory),
        "derivatives": ("Derivatives of functions, one thread", derivatives.functions),
        "explain": ("Explanation of a graph", derivatives.explanation),
        "scalar": ("A graph of a million scalar ops", scalar_chain.scalar_graph),
        "product": ("Matrix products, one thread", products.one_thread),
        "threads": ("Matrix products, two threads", products.two_threads),
        "pointwise": ("Elementary functions", pointwise.functions),
        "import": ("Import", processes.import_time),
        "size": ("Installed size", processes.size),
    }


def measure(
    context: Context, chosen: dict[str, tuple[str, Callable[[Context], Iterator[Row]]]]
) -> dict[str, list[Row]]:
    """Run sections and print each table as soon as it is complete; a section that fails becomes a failed row."""
    from benchmarks import report
    from benchmarks.results import Row

    sections: dict[str, list[Row]] = {}
    for title, section in chosen.values():
        rows: list[Row] = []
        try:
            rows.extend(section(context))
        except Exception as error:  # the other sections are still worth their time
            rows.append(Row("section", problem=f"{type(error).__name__}: {error}"))
        sections[title] = rows
        if rows:
            print(f"\n{title}\n\n{report.aligned(report.table(rows))}", flush=True)
    return {title: rows for title, rows in sections.items() if rows}


def measured_peak(context: Context, sections: dict[str, list[Row]]) -> dict[str, float]:
    """Return the median of the peak over all rows that measured it, in GFLOP/s per dtype."""
    if context.peak is None:
        return {}
    found: dict[str, list[float]] = {}
    for rows in sections.values():
        for row in rows:
            if "peak" in row.samples:
                dtype = row.case.split()[0]
                found.setdefault(dtype, []).append(context.peak.flops[dtype] / row.samples["peak"].median / 1e9)
    return {dtype: statistics.median(rates) for dtype, rates in found.items()}


def reason_to_refuse(options: argparse.Namespace, names: list[str], installed: bool) -> str | None:
    """Return why nothing should be measured, None when all is well.

    With --quick or --force a busy machine is only worth a warning.
    """
    unknown = sorted(set(options.only or ()) - set(names))
    if unknown:
        return f"no section named {', '.join(unknown)}; there are {', '.join(names)}"
    if not installed:
        return "fastbp is not installed in this Python"
    trouble = environment.disturbance()
    if trouble is not None and (options.force or options.quick):
        print(f"warning: {trouble}", file=sys.stderr)
        return None
    return trouble and f"{trouble}; wait for a quiet machine, or pass --force and do not quote the figures"


def other_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of peers that this process does not import, those which are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> int:
    """Prepare the process, measure, report; return the exit status."""
    options = arguments()
    processors = environment.available_processors()
    environment.prepare(1, processors)
    # From here on NumPy is loaded: the environment is settled.
    from benchmarks import peak, report
    from benchmarks.results import Context
    from benchmarks.timing import FULL, QUICK
    from benchmarks.workloads import import_or_none

    sections = all_sections(options.torch_compile)
    if options.list:
        print("\n".join(f"{name:17} {title}" for name, (title, _) in sections.items()))
        return 0
    subject = import_or_none("fastbp")
    refusal = reason_to_refuse(options, list(sections), subject is not None)
    if refusal is not None or subject is None:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    torch = None if options.no_torch else import_or_none("torch")
    for module in filter(None, (subject, torch)):
        module.set_num_threads(1)
    context = Context(subject, torch, QUICK if options.quick else FULL, peak.build(), processors, options.quick)

    facts: dict[str, Any] = environment.describe(
        processors, {"fastbp": subject, "torch": torch, "numpy": import_or_none("numpy")}
    )
    facts["versions"] |= other_versions(("jax", "casadi"))
    facts["command"] = "python -m benchmarks " + shlex.join(sys.argv[1:])
    facts["threads"] = "1, pinned to one processor; 2 where a row says so"
    facts["quick"] = options.quick
    print("\n".join(report.machine_lines(facts)))
    watch = environment.Watch.start()
    measured = measure(context, {name: sections[name] for name in options.only or sections})
    facts |= {"others_share": watch.busy_share(), "stolen_share": watch.stolen_share()}
    if rates := measured_peak(context, measured):
        facts["peak"] = rates
    print("\n" + "\n".join([*report.machine_lines(facts)[5:], report.summary(measured)]))
    if facts["others_share"] > environment.BUSY_LIMIT:
        print("warning: the machine was not quiet; do not quote these figures", file=sys.stderr)
    if options.json is not None:
        report.write_json(options.json, facts, measured)
    if options.markdown is not None:
        report.write_markdown(options.markdown, facts, measured)
    return 1 if any(row.passed is False for rows in measured.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
