"""`python -m benchmarks.ops`: every op of the table at three sizes, forward and with its gradients, beside PyTorch.

It refuses to start while an op has no benchmark case, or a case no op.
Exit status: 0 when every op ran, 1 when one failed, 2 when it refused.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import environment

SIDES = (4, 64, 512)  # of square operands: 16, 4,096 and 262,144 elements


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one size, few samples; good for a smoke test only")
    parser.add_argument("--only", metavar="OP", action="append", help="time this op (may be repeated)")
    parser.add_argument("--check", action="store_true", help="only tell whether every op has a case")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out even if it is installed")
    parser.add_argument("--force", action="store_true", help="run although other processes are busy")
    parser.add_argument("--json", metavar="PATH", type=Path, help="write every sample to this file")
    return parser.parse_args()


def with_gradients(function: Callable[..., Any], operands: list[Any]) -> Callable[[], Any] | None:
    """Return the call followed by its backward pass, None where the op has no gradient to give."""
    leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in operands]
    if not any(x.requires_grad for x in leaves):
        return None
    result = function(*leaves)
    if not getattr(result, "requires_grad", False):
        return None
    cotangent = result.detach().clone()

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        function(*leaves).backward(cotangent)

    return run


def measure(modules: list[Any], row: dict[str, Any], side: int, effort: Any) -> dict[str, Any]:
    """Time one op at one size; returns side name to sample.

    The first module is the one under test and must succeed; a peer that lacks the op or its derivative stays blank.
    """
    from benchmarks.timing import interleave

    sides = make_sides(modules[0], row, side)
    for peer in modules[1:]:
        # Peers say "not implemented" with exceptions of several types; none of them concerns this run.
        with contextlib.suppress(Exception):
            sides |= make_sides(peer, row, side)
    return interleave(sides, effort)


def make_sides(module: Any, row: dict[str, Any], side: int) -> dict[str, Callable[[int], float]]:
    """Return the forward call of an op, and where it has gradients the call with its backward pass."""
    from benchmarks.op_cases import BACKWARD_OF, Tools, make
    from benchmarks.timing import calls

    made = make(Tools(module, side), row)
    if made is None:
        return {}
    function, operands = made
    sides = {}
    if row["name"] not in BACKWARD_OF:
        sides[f"{module.__name__} forward"] = calls(partial(function, *operands))
    both = with_gradients(function, operands) if operands else None
    if both is not None:
        both()
        sides[f"{module.__name__} and backward"] = calls(both)
    return sides


def walk(modules: list[Any], table: list[dict[str, Any]], options: argparse.Namespace) -> tuple[list[Any], int]:
    """Time the rows of the table, printing each as it comes; returns the results and how many ops failed."""
    from benchmarks.results import ratio, write_time
    from benchmarks.timing import QUICK, Effort

    effort = QUICK if options.quick else Effort(0.002, 0.1, 5, 15, 1)
    names = [f"{module.__name__} {what}" for what in ("forward", "and backward") for module in modules]
    print(f"{'op':28}{'elements':>10}" + "".join(f"{name:>22}" for name in [*names, "PyTorch's / ours"]))
    results, failed = [], 0
    for row in table:
        for side in SIDES[:1] if options.quick else SIDES:
            line = f"{row['name']:28}{side * side:>10,}"
            try:
                samples = measure(modules, row, side, effort)
            except Exception as error:  # one op's failure must not hide the others' figures
                failed += 1
                print(f"{line}  failed: {type(error).__name__}: {error}", flush=True)
                break
            gains = [ratio(samples, f"torch {what}", f"fastbp {what}") for what in ("forward", "and backward")]
            cells = [write_time(samples[name].median) if name in samples else "" for name in names]
            cells.append(" ".join(f"{gain:.2f}x" for gain in gains if gain is not None))
            print(line + "".join(f"{cell:>22}" for cell in cells), flush=True)
            results.append(
                {"op": row["name"], "elements": side * side, "seconds": {n: asdict(s) for n, s in samples.items()}}
            )
    return results, failed


def main() -> int:
    """Check that the cases are complete, then time them; return the exit status."""
    options = arguments()
    processors = environment.available_processors()
    environment.prepare(1, processors)

    from benchmarks.op_cases import NOT_COMPUTED, complaints
    from benchmarks.workloads import import_or_none

    subject = import_or_none("fastbp")
    if subject is None:
        print("error: fastbp is not installed in this Python", file=sys.stderr)
        return 2
    table = [row for row in subject._core.op_table() if row["class"] not in NOT_COMPUTED]
    wrong = complaints(subject, table)
    if wrong:
        print("error: the op table and the benchmark cases disagree", *wrong, sep="\n  ", file=sys.stderr)
        return 2
    if options.check:
        print(f"all {len(table)} ops have a benchmark case")
        return 0
    unknown = set(options.only or ()) - {row["name"] for row in table}
    if unknown:
        print(f"error: no op named {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    trouble = environment.disturbance()
    if trouble is not None:
        print(f"{'warning' if options.force or options.quick else 'error'}: {trouble}", file=sys.stderr)
        if not (options.force or options.quick):
            return 2
    torch = None if options.no_torch else import_or_none("torch")
    modules = [module for module in (subject, torch) if module is not None]
    for module in modules:
        module.set_num_threads(1)
    chosen = [row for row in table if not options.only or row["name"] in options.only]
    results, failed = walk(modules, chosen, options)
    if options.json is not None:
        facts = environment.describe(processors, {module.__name__: module for module in modules})
        options.json.write_text(json.dumps({"facts": facts, "ops": results}, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
