"""Runs random training programs, eagerly and compiled, and tells where they differ: `make fuzz`.

The programs are those of tests/programs. Each worker is a process that may die: that is a failure of the program that
it ran, and the next ones go on in a new worker. What is done stands in a state file; a run that was interrupted goes on
where it was. The first failures of each kind are minimised and written as scripts beside the state file.

The exit status is 1 where programs differed, or where the generator is at fault: a feature that never occurs, or too
many programs that eager code refuses.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

PIECE = 200  # programs a worker runs before it is replaced
PATIENCE = 60.0  # seconds without a word from a worker after which it hangs
SKIPPED_MOST = 0.1
SHORTENED = 2  # failures of a kind that are minimised


def worker(first: int, last: int, without: list[str], ignored: list[str]) -> None:
    """Run programs and print a line before and after each."""
    from programs.compare import Failure
    from programs.generate import generate
    from programs.observe import SkippedError, check

    warnings.simplefilter("ignore")
    for seed in range(first, last):
        print(json.dumps({"begin": seed}), flush=True)
        program = generate(seed, without)
        told: dict[str, Any] = {"seed": seed, "used": sorted(program.used)}
        try:
            outcome = check(program.function(), None, ignored)
            told |= {"calls": outcome.calls, "declared": outcome.declared, "refused": outcome.refused[:160]}
            told |= {"warned": [warning_kind(one) for one in outcome.warned], "tolerated": sorted(outcome.tolerated)}
        except SkippedError as skipped:
            told["skipped"] = str(skipped)[:200]
        except Failure as failure:
            told |= {"failed": failure.kind, "text": str(failure)[:600]}
        print(json.dumps(told), flush=True)


def warning_kind(text: str) -> str:
    """A warning without its names and numbers."""
    for part in ("keeps a tensor", "captured for more than", "memory budget"):
        if part in text:
            return part
    return text[:100]


def lines_of(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """The lines of a worker; None where it says nothing for too long."""
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    stream = process.stdout

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=PATIENCE)
        except queue.Empty:
            yield None
            return
        if not line:
            return
        yield line


def run_piece(first: int, last: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The outcomes of some seeds, by as many workers as it takes."""
    found: list[dict[str, Any]] = []
    # Freed memory is overwritten, so that whoever reads it does not find what it looked for.
    environment = os.environ | {"MALLOC_PERTURB_": "85"}
    while first < last:
        command = [sys.executable, __file__, "--worker", str(first), str(last)]
        command += [one for name in options.without for one in ("--without", name)]
        command += [one for name in options.ignore for one in ("--ignore", name)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        begun, hung = first - 1, False
        for line in lines_of(process):
            if line is None:
                hung = True
                process.kill()
                break
            told = json.loads(line)
            if "begin" in told:
                begun = told["begin"]
            else:
                found.append(told)
        process.wait()
        ended = found[-1]["seed"] if found else -1
        if begun < first:
            raise SystemExit(f"fuzz: a worker ended with status {process.returncode} before its first program")
        if begun != ended:
            how = f"no answer in {PATIENCE:.0f} s" if hung else f"the process ended with status {process.returncode}"
            found.append({"seed": begun, "used": [], "failed": "hang" if hung else "crash", "text": how})
        first = begun + 1
    return found


class Summary:
    """Counts over all programs, as they stand in the state file."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {}
        self.done: list[int] = state.get("done", [])
        self.counts = {name: Counter(state.get(name, {})) for name in COUNTED}
        self.failures: list[dict[str, Any]] = state.get("failures", [])
        self.seconds: float = state.get("seconds", 0.0)

    def add(self, first: int, told: list[dict[str, Any]]) -> None:
        for one in told:
            self.counts["programs"]["run"] += 1
            self.counts["programs"]["calls"] += one.get("calls", 0)
            self.counts["features"].update(one["used"])
            self.counts["warned"].update(one.get("warned", ()))
            self.counts["tolerated"].update(one.get("tolerated", ()))
            for name, differs in one.get("declared", {}).items():
                self.counts["declared"][name] += 1
                self.counts["declared, other bits"][name] += differs
            if one.get("refused"):
                self.counts["refused"][one["refused"][:80]] += 1
            if "skipped" in one:
                self.counts["programs"]["skipped"] += 1
                self.counts["skipped"][one["skipped"][:80]] += 1
            if "failed" in one:
                self.counts["failed"][one["failed"]] += 1
                self.failures.append({name: one[name] for name in ("seed", "failed", "text")})
        self.done.append(first)

    def as_state(self) -> dict[str, Any]:
        return {"done": self.done, "failures": self.failures, "seconds": self.seconds, **self.counts}


COUNTED = (
    "programs",
    "features",
    "declared",
    "declared, other bits",
    "tolerated",
    "warned",
    "refused",
    "skipped",
    "failed",
)


def run(options: argparse.Namespace, summary: Summary, state: Path, key: dict[str, Any]) -> None:
    """All pieces that are not done yet."""
    pieces: queue.Queue[int] = queue.Queue()
    for first in range(options.start, options.start + options.count, PIECE):
        if first not in summary.done:
            pieces.put(first)
    lock, last = threading.Lock(), options.start + options.count
    clock = time.monotonic()

    def work() -> None:
        nonlocal clock
        while True:
            try:
                first = pieces.get_nowait()
            except queue.Empty:
                return
            told = run_piece(first, min(first + PIECE, last), options)
            with lock:
                now = time.monotonic()
                summary.seconds += now - clock
                clock = now
                summary.add(first, told)
                temporary = state.with_suffix(".new")
                temporary.write_text(json.dumps({"key": key, **summary.as_state()}))
                temporary.replace(state)
                run_so_far = summary.counts["programs"]["run"]
                print(f"{run_so_far:,} programs, {len(summary.failures)} differ", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(options.jobs)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def shorten(options: argparse.Namespace, summary: Summary, folder: Path) -> None:
    """Scripts of the first failures of each kind."""
    from programs.generate import generate
    from programs.minimise import kind_here, kind_of_failure, minimise, script

    told: Counter[str] = Counter()
    for one in sorted(summary.failures, key=lambda one: one["seed"]):
        told[one["failed"]] += 1
        if told[one["failed"]] > options.shorten:
            continue
        program = generate(one["seed"], options.without)

        failing = partial(kind_here, ignored=options.ignore)
        short = minimise(program.source, failing, seconds=options.patience)
        unseen = "not seen again: it depends on what ran before, or on freed memory"
        message = kind_of_failure(short, None, options.ignore) or (one["failed"], unseen)
        path = folder / f"program_{one['seed']}.py"
        path.write_text(script(short, f"seed {one['seed']}: {message[1]}", options.ignore))
        print(f"\n---- seed {one['seed']}: {message[1][:300]}\n{short}\n(python {path})", flush=True)


def report(options: argparse.Namespace, summary: Summary) -> bool:
    """Print the counts; whether all is well."""
    from programs.writing import FEATURES

    counts = summary.counts
    total, skipped = counts["programs"]["run"], counts["programs"]["skipped"]
    print(f"\n{total:,} programs, {counts['programs']['calls']:,} calls, {summary.seconds:.0f} s", end="")
    print(f" ({summary.seconds / max(total, 1) * 1e3:.1f} ms a program, {options.jobs} at a time)")
    print(f"{len(summary.failures):,} differ; {skipped:,} that eager code refuses")
    for name in ("failed", "declared", "declared, other bits", "tolerated", "warned", "refused", "skipped"):
        for what, count in counts[name].most_common(25):
            print(f"  {name}: {count:,} {what}")
    print("features: " + ", ".join(f"{one} {counts['features'][one]:,}" for one in FEATURES))
    # A short run may miss a rare feature.
    never = [one for one in FEATURES if not counts["features"][one] and one not in options.without]
    if never and total >= 5000:
        print(f"never occurred: {', '.join(never)}")
    well = not summary.failures and skipped <= SKIPPED_MOST * total and not (never and total >= 5000)
    print(
        "no differences"
        if not summary.failures
        else "differences: " + " ".join(str(one["seed"]) for one in summary.failures[:40])
    )
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=20000, help="programs (20,000)")
    parser.add_argument("--start", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--jobs", type=int, default=2, help="workers at a time (2)")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "fuzz_programs.json", help="what is done so far")
    parser.add_argument("--fresh", action="store_true", help="forget the state file")
    parser.add_argument("--without", action="append", default=[], metavar="FEATURE", help="programs without a feature")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="KIND", help="a kind of difference to pass over"
    )
    parser.add_argument("--shorten", type=int, default=SHORTENED, help="failures of a kind that are minimised (2)")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds for minimising one (30)")
    parser.add_argument("--features", action="store_true", help="list the features")
    parser.add_argument("--show", type=int, metavar="SEED", help="print one program as a script")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from programs.generate import generate
    from programs.minimise import script
    from programs.writing import FEATURES

    unknown = set(options.without) - set(FEATURES)
    if unknown:
        parser.error(f"no such feature: {', '.join(sorted(unknown))}; --features lists them")
    if options.features:
        print("\n".join(FEATURES))
        return 0
    if options.show is not None:
        print(script(generate(options.show, options.without).source, f"seed {options.show}", options.ignore))
        return 0
    if options.worker:
        worker(options.worker[0], options.worker[1], options.without, options.ignore)
        return 0
    key = {"start": options.start, "count": options.count, "without": options.without, "ignore": options.ignore}
    options.state.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(options.state.read_text()) if options.state.exists() and not options.fresh else {}
    summary = Summary(known if known.get("key") == key else None)
    run(options, summary, options.state, key)
    shorten(options, summary, options.state.parent)
    return 0 if report(options, summary) else 1


if __name__ == "__main__":
    sys.exit(main())
