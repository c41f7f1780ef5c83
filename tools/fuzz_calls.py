"""Calls everything that fastbp has with arguments that are mostly wrong: `make fuzz-calls`.

The calls are those of tests/calls. Each worker runs them in children that may die: a signal, more than ten seconds and
a SystemError are findings. What is done stands in a state file; a run that was interrupted goes on where it was. The
first findings of each kind and callable are written as scripts beside the state file, which are run alone: a script
that shows nothing then is written again with the calls that ran before.

The exit status is 1 where there are findings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

ENVIRONMENT = {
    # Freed memory is overwritten, so that whoever reads it does not find what it looked for.
    "MALLOC_PERTURB_": "85",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
}
PATIENCE = 12.0  # seconds that a script may run


def known_calls(folder: Path, no_search: bool) -> Path:
    """The file of calls that succeed, made where it is missing or older than what it was made from."""
    if no_search:
        return Path(os.devnull)
    import fastbp._core

    digest = hashlib.sha256()
    for one in sorted((ROOT / "tests" / "calls").glob("*.py")):
        digest.update(one.read_bytes())
    there = Path(str(fastbp._core.__file__)).stat()
    digest.update(f"{there.st_size} {there.st_mtime_ns}".encode())
    path = folder / f"fuzz_calls_valid_{digest.hexdigest()[:16]}.json"
    if not path.exists():
        print("looking for calls that succeed", file=sys.stderr, flush=True)
        for old in folder.glob("fuzz_calls_valid_*.json"):
            old.unlink()
        temporary = path.with_suffix(".new")
        environment = os.environ | ENVIRONMENT
        subprocess.run([sys.executable, __file__, "--search", str(temporary)], check=True, env=environment)
        temporary.replace(path)
    return path


def load(path: Path) -> tuple[list[Any], Any]:
    """All targets, and the calls that succeed."""
    from calls.targets import targets
    from calls.valid import Known

    return targets(), Known([json.loads(line) for line in path.read_text().splitlines()])


def worker(options: argparse.Namespace) -> None:
    """Read numbers of pieces, and print what came of each as a line."""
    from calls.runner import PIECE, work

    every, known = load(options.known)
    last = options.start + options.count
    pieces = ((int(line), min(int(line) + PIECE, last)) for line in sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    for told in work(every, known, options.seed, pieces):
        out.write(json.dumps(told) + "\n")
        out.flush()


class Summary:
    """Counts over all calls, as they stand in the state file."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.done: list[int] = state.get("done", [])
        self.outcomes: Counter[str] = Counter(state.get("outcomes", {}))
        self.calls: Counter[str] = Counter(state.get("calls", {}))
        self.returned: Counter[str] = Counter(state.get("returned", {}))
        self.findings: list[dict[str, Any]] = state.get("findings", [])
        self.children: int = state.get("children", 0)
        self.seconds: float = state.get("seconds", 0.0)

    def add(self, told: dict[str, Any]) -> None:
        self.done.append(told["first"])
        self.outcomes.update(told["outcomes"])
        self.calls.update(told["calls"])
        self.returned.update(told["returned"])
        self.findings += told["findings"]
        self.children += told["children"]

    def wrong(self) -> list[dict[str, Any]]:
        return [one for one in self.findings if not one.get("odd")]


def run(options: argparse.Namespace, summary: Summary, key: dict[str, Any]) -> None:
    """All pieces that are not done yet."""
    from calls.runner import PIECE

    pieces: queue.Queue[int] = queue.Queue()
    for first in range(options.start, options.start + options.count, PIECE):
        if first not in summary.done:
            pieces.put(first)
    lock = threading.Lock()
    clock = time.monotonic()
    names = ("seed", "start", "count", "known")
    command = [sys.executable, __file__, "--worker"]
    command += [part for name in names for part in (f"--{name}", str(getattr(options, name)))]

    def serve() -> None:
        nonlocal clock
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT
        )
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            try:
                first = pieces.get_nowait()
            except queue.Empty:
                break
            process.stdin.write(f"{first}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"fuzz-calls: a worker ended with status {process.wait()}")
            with lock:
                now = time.monotonic()
                summary.seconds += now - clock
                clock = now
                summary.add(json.loads(line))
                temporary = options.state.with_suffix(".new")
                temporary.write_text(json.dumps({"key": key, **vars(summary)}))
                temporary.replace(options.state)
                print(
                    f"{sum(summary.calls.values()):,} calls, {len(summary.wrong())} findings",
                    file=sys.stderr,
                    flush=True,
                )
        process.stdin.close()
        process.wait()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(options.jobs)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


# ---- scripts ------------------------------------------------------------------------------------------------------


def script(numbers: list[int], every: list[Any], known: Any, seed: int, title: str) -> str:
    """A program that needs nothing but fastbp and NumPy."""
    from calls.generate import generate
    from calls.runner import source_of
    from calls.targets import modules

    names = ", ".join(repr(one.__name__) for one in modules()[1:])
    text = f'"""{title}\n\nWritten by tools/fuzz_calls.py.\n"""\n\n'
    text += (ROOT / "tests" / "calls" / "helpers.py").read_text().split('"""', 2)[2].lstrip()
    text += (
        "\n\ndef later(error):\n    if isinstance(error, SystemError):\n        raise error\n\n"
        "\nimport faulthandler\nimport importlib\nimport resource\nimport warnings\n\n"
        f"for name in [{names}]:\n    importlib.import_module(name)\n"
        'warnings.simplefilter("ignore")\nfaulthandler.enable()\n'
        "mapped = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (mapped + (768 << 20),) * 2)\n"
    )
    for number in numbers:
        body = source_of(generate(every, known, seed, number)).replace("\n", "\n    ")
        text += f"\n\ndef call_{number}():\n    {body}\n\n\n"
        text += f"fastbp.manual_seed(0)\ntry:\n    call_{number}()\nexcept SystemError:\n    raise\n"
        text += "except BaseException as error:\n"
        text += "    print(type(error).__name__, str(error)[:200])\n"
    return text


def shown(path: Path) -> str:
    """What a script does alone: "" where it ends well."""
    import fastbp

    here = str(Path(fastbp.__file__).parents[1])
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": here}
    try:
        done = subprocess.run(
            [sys.executable, str(path)],
            capture_output=True,
            timeout=PATIENCE,
            env=environment,
            cwd=path.parent,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"more than {PATIENCE:.0f} s"
    if done.returncode < 0:
        return f"signal {-done.returncode} ({signal.Signals(-done.returncode).name})"
    return "SystemError" if b"SystemError" in done.stderr else ""


def write_scripts(options: argparse.Namespace, summary: Summary, folder: Path) -> None:
    """A script of the first findings of each kind and callable."""
    every, known = load(options.known)
    told: Counter[tuple[str, str]] = Counter()
    folder.mkdir(exist_ok=True)
    for one in sorted(summary.wrong(), key=lambda one: one["number"]):
        kind = (one["kind"], one["target"])
        told[kind] += 1
        if told[kind] > options.scripts:
            continue
        number, began = one["number"], one["began"]
        path = folder / f"call_{options.seed}_{number}.py"
        seen = ""
        for before in (0, 4, 64, number - began):
            numbers = list(range(max(began, number - before), number + 1))
            path.write_text(script(numbers, every, known, options.seed, f"{one['kind']}: {one['target']}"))
            seen = shown(path)
            if seen or before >= number - began:
                break
        one["alone"] = f"{seen or 'not seen again'}, {len(numbers)} calls"
        print(f"{one['kind']}: {one['target']}: {one['line']}\n    ({one['alone']}: python {path})", flush=True)


def report(options: argparse.Namespace, summary: Summary) -> bool:
    """Print the counts; whether all is well."""
    every, known = load(options.known)
    total = sum(summary.calls.values())
    print(
        f"\n{total:,} calls of {len(every):,} targets, {summary.seconds:.0f} s, {summary.children:,} children", end=""
    )
    print(f" ({total / max(summary.seconds, 1e-9):,.0f} calls a second, {options.jobs} at a time)")
    for what, count in summary.outcomes.most_common():
        print(f"  {count:9,} {what}")
    never = [
        one.name
        for place, one in enumerate(every)
        if not known.calls.get(one.name) and not summary.returned[str(place)]
    ]
    print(f"{len(every) - len(never):,} targets returned at least once; these never did:")
    print("  " + " ".join(never[: None if options.coverage else 40]) + (" ..." if len(never) > 40 else ""))
    odd = Counter(f"{one['kind']}: {one['target']}: {one['text'][:120]}" for one in summary.findings if one.get("odd"))
    for what, count in odd.most_common(40):
        print(f"  odd: {count:,} {what}")
    found = summary.wrong()
    for (kind, target), count in Counter((one["kind"], one["target"]) for one in found).most_common():
        print(f"  FOUND: {count:,} {kind}: {target}")
    print(f"{len(found):,} findings" if found else "no findings")
    return not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1_000_000, help="calls (1,000,000)")
    parser.add_argument("--start", type=int, default=0, help="the number of the first call (0)")
    parser.add_argument("--seed", type=int, default=0, help="with the number it makes the call (0)")
    parser.add_argument("--jobs", type=int, default=2, help="workers at a time (2)")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "fuzz_calls.json", help="what is done so far")
    parser.add_argument("--fresh", action="store_true", help="forget the state file")
    parser.add_argument("--scripts", type=int, default=1, help="findings of a kind and callable that are written (1)")
    parser.add_argument("--coverage", action="store_true", help="list all callables that never returned")
    parser.add_argument("--no-search", action="store_true", help="do without the calls that are known to succeed")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="print one call as a script")
    parser.add_argument("--known", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        from calls.runner import search_in_children
        from calls.targets import targets

        with options.search.open("w") as stream:
            for one in search_in_children(targets(), []):
                stream.write(json.dumps(one) + "\n")
        return 0
    if options.worker:
        worker(options)
        return 0
    options.state = options.state.resolve()
    options.state.parent.mkdir(parents=True, exist_ok=True)
    options.known = options.known or known_calls(options.state.parent, options.no_search)
    if options.show is not None:
        every, known = load(options.known)
        print(script([options.show], every, known, options.seed, f"call {options.show} of seed {options.seed}"))
        return 0
    key = {"start": options.start, "count": options.count, "seed": options.seed, "known": options.known.name}
    before = json.loads(options.state.read_text()) if options.state.exists() and not options.fresh else {}
    summary = Summary(before if before.get("key") == key else {})
    run(options, summary, key)
    write_scripts(options, summary, options.state.parent / "fuzz_calls")
    return 0 if report(options, summary) else 1


if __name__ == "__main__":
    sys.exit(main())
