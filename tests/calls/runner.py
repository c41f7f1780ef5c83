"""Runs programs one after another, each from the same state, in children that may die.

A child writes the number of each program on a shared board before it runs it, and what came of it after. So its parent
knows what it died of, or what takes so long, and starts another child behind that program.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastbp
from calls import helpers
from calls.generate import PICKLE, SCENARIO, Program, generate
from calls.targets import Target
from calls.valid import Known, search
from fastbp import _core

PIECE = 2000  # programs a child runs before it is replaced
PATIENCE = 10.0  # seconds that a program may take
ROOM = 768 << 20  # bytes of addresses that programs may take beside what is mapped at the start
MANY_OPEN_FILES = 256
DIRTY = 77  # the child's exit status where a program left a state that cannot be taken back

OUTCOMES = [
    "not run", "returned", "TypeError", "ValueError", "RuntimeError", "IndexError", "AttributeError", "OverflowError",
    "MemoryError", "KeyError", "NotImplementedError", "RecursionError", "ZeroDivisionError", "BufferError",
    "StopIteration", "another exception", "another BaseException", "AssertionError", "UnboundLocalError", "NameError",
    "SystemError",
]  # fmt: skip
CODES = {name: code for code, name in enumerate(OUTCOMES)}
# No mistake of a caller should be told in these words.
ODD = ("AssertionError", "UnboundLocalError", "NameError", "another BaseException")
RECORD = struct.Struct("<HBB")  # target, outcome, whether nothing was made wrong
HEAD = 16


class Board:
    """Shared memory: the number of the program that runs, and a record of each one that ran."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, HEAD + size * RECORD.size)

    def begin(self, number: int) -> None:
        struct.pack_into("<q", self.memory, 0, number)

    def current(self) -> int:
        return int(struct.unpack_from("<q", self.memory, 0)[0])

    def note(self, place: int, target: int, outcome: int, valid: bool) -> None:
        RECORD.pack_into(self.memory, HEAD + place * RECORD.size, target, outcome, valid)

    def records(self, size: int) -> list[tuple[int, int, int]]:
        return list(RECORD.iter_unpack(self.memory[HEAD : HEAD + size * RECORD.size]))

    def clear(self, size: int) -> None:
        self.memory[HEAD : HEAD + size * RECORD.size] = bytes(size * RECORD.size)


# ---- one program --------------------------------------------------------------------------------------------------

CALL_LINE = 3  # the line of a program that is the call itself; what follows is only done if it returned


def source_of(program: Program) -> str:
    """The program as one text: what comes after the call may fail line by line."""
    head = len(program.lines) - 2 if program.target == PICKLE else CALL_LINE + 1
    lines = program.lines[:head]
    for one in program.lines[head:]:
        body = one.replace("\n", "\n    ")
        lines.append(f"try:\n    {body}\nexcept BaseException as error:\n    later(error)")
    return "\n".join(lines)


def name_of(program: Program, every: list[Target]) -> str:
    """What a program calls."""
    special = {PICKLE: "a pickle", SCENARIO: "a scenario"}
    return special.get(program.target) or every[program.target].name


def outcome_of(error: BaseException) -> str:
    """The row of OUTCOMES for an exception, or for the SystemError behind it."""
    if helpers.has_system_error(error):
        return "SystemError"
    if isinstance(error, NameError) and len(getattr(error, "name", None) or "") == 1:
        return "another exception"  # of the program: the line before has raised
    for kind in type(error).__mro__:
        if kind.__name__ in CODES:
            return kind.__name__
    return "another exception" if isinstance(error, Exception) else "another BaseException"


BEST_ISA = _core.get_isa()


def reset() -> bool:
    """Go back to the state that a process starts with; whether that could be done."""
    capture = _core.current_capture()
    if capture is not None or _core.vmap_depth():
        return False
    fastbp.set_default_dtype(fastbp.float32)
    fastbp.set_grad_enabled(True)
    _core.set_anomaly(0)
    _core.set_isa(BEST_ISA)
    fastbp.manual_seed(0)
    helpers.OwnFunction.forward_result = helpers.OwnFunction.backward_result = None
    return True


class Told:
    """What is told in words, beside the board: lines of a file that several processes append to."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self.number = 0

    def add(self, kind: str, error: BaseException) -> None:
        try:
            text = f"{type(error).__name__}: {error}"[:300]
        except BaseException:
            text = type(error).__name__
        line = json.dumps({"number": self.number, "kind": kind, "text": text}) + "\n"
        with contextlib.suppress(OSError):
            os.write(self.file.fileno(), line.encode())

    def read(self) -> list[dict[str, Any]]:
        self.file.seek(0)
        found = [json.loads(line) for line in self.file.read().splitlines()]
        self.file.seek(0)
        self.file.truncate()
        return found


def run_program(program: Program, space: dict[str, Any], told: Told) -> int:
    """Run one program; returns the number of the outcome."""

    def later(error: BaseException) -> None:
        kind = outcome_of(error)
        if kind == "SystemError" or kind in ODD:
            told.add(kind, error)

    names = {**space, "later": later}
    try:
        exec(compile(source_of(program), "<program>", "exec"), names)
    except BaseException as error:
        kind = outcome_of(error)
        if kind == "SystemError" or kind in ODD:
            told.add(kind, error)
        return CODES[kind]
    finally:
        # A reference that lives on would let one program reach into the next.
        names.clear()
    return CODES["returned"]


def limit() -> None:
    """Bound what a program may take of the machine, and send away what it prints."""
    if sys.platform == "linux":
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(nowhere, place)


def child(
    first: int, last: int, make: Callable[[int], Program], board: Board, begin: int, told: Told, traces: int
) -> None:
    """Run programs until the last, or until one leaves a state that cannot be taken back."""
    faulthandler.enable(file=traces)
    limit()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    space = {name: value for name, value in vars(helpers).items() if not name.startswith("__")}

    def unraisable(seen: Any) -> None:
        kind = "another exception" if seen.exc_value is None else outcome_of(seen.exc_value)
        if kind == "SystemError" or kind in ODD:
            told.add(kind, seen.exc_value)

    sys.unraisablehook = unraisable
    reset()
    for number in range(first, last):
        told.number = number
        program = make(number)
        board.begin(number)
        outcome = run_program(program, space, told)
        board.note(number - begin, program.target, outcome, program.valid)
        if number % 64 == 0:
            gc.collect()
        if not reset():
            os._exit(DIRTY)
    board.begin(last)
    gc.collect()
    os._exit(0)


# ---- many programs ------------------------------------------------------------------------------------------------


def progress_of(process: int) -> tuple[str, float]:
    """Whether a process runs or sleeps, and its seconds of processor time; "S" where that is not told."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "S", 0.0
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(process: int, board: Board) -> tuple[int, bool]:
    """The status of a child at its end, and whether it had to be ended as a program took too long.

    On a machine that others use, too, a program that waits for its turn is not one that hangs.
    """
    since, seen, hung = time.monotonic(), board.current(), False
    used = killed_at = 0.0
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status, hung
        now = time.monotonic()
        if board.current() != seen:
            since, seen, used = now, board.current(), progress_of(process)[1]
        elif hung and now > killed_at + 3:
            os.kill(process, signal.SIGKILL)
        elif not hung and now - since > PATIENCE:
            state, total = progress_of(process)
            if state == "S" or total - used > PATIENCE or now - since > 12 * PATIENCE:
                hung, killed_at = True, now
                os.kill(process, signal.SIGABRT)  # faulthandler tells where it was
        time.sleep(0.002 if now - since < 0.01 else 0.02)


def run_piece(
    first: int, last: int, make: Callable[[int], Program], told: Told
) -> tuple[list[tuple[int, int, int]], list[dict[str, Any]], int]:
    """Run programs in as many children as it takes; returns records, findings and how many children there were."""
    board = Board(last - first)
    findings: list[dict[str, Any]] = []
    begin, children = first, 0
    while begin < last:
        board.begin(begin)
        traces = tempfile.TemporaryFile()  # noqa: SIM115
        children += 1
        process = os.fork()
        if process == 0:
            try:
                child(begin, last, make, board, first, told, traces.fileno())
            finally:
                os._exit(70)
        status, hung = wait_for(process, board)
        current = board.current()
        traces.seek(0)
        trace = traces.read().decode(errors="replace")
        traces.close()
        dirty = os.WIFEXITED(status) and os.WEXITSTATUS(status) == DIRTY
        if status and not dirty:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
            kind = f"more than {PATIENCE:.0f} s" if hung else how
            findings.append({"number": current, "kind": kind, "began": begin, "text": trace[:1500]})
        begin = current + 1 if status else last
    for one in told.read():
        if one["kind"] == "SystemError":
            findings.append({**one, "began": one["number"]})
        else:
            findings.append({**one, "began": one["number"], "odd": True})
    return board.records(last - first), findings, children


def work(every: list[Target], known: Known, seed: int, pieces: Iterator[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Run pieces; yields the counts and findings of each."""
    told = Told()
    gc.collect()
    gc.freeze()  # children need not look through what they share
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # What programs may write is not theirs to find again.
        for first, last in pieces:
            records, findings, children = run_piece(
                first, last, lambda number: generate(every, known, seed, number), told
            )
            outcomes: Counter[str] = Counter(OUTCOMES[outcome] for _, outcome, _ in records)
            calls: Counter[str] = Counter()
            returned: Counter[str] = Counter()
            for target, outcome, _ in records:
                if outcome:
                    calls[str(target)] += 1
                    returned[str(target)] += outcome == CODES["returned"]
            for one in findings:
                program = generate(every, known, seed, one["number"])
                one["target"] = name_of(program, every)
                one["line"] = "; ".join(program.lines[CALL_LINE:])[:400]
            yield {
                "first": first, "outcomes": outcomes, "calls": calls, "returned": returned, "findings": findings,
                "children": children,
            }  # fmt: skip
        os.chdir("/")


def search_in_children(every: list[Target], lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What `valid.search` finds: where it dies, it goes on behind the target that it died of."""
    skip: set[str] = set()
    while True:
        known = Known(lines)
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    os.chdir(folder)
                    os.close(reading)
                    copied = os.dup(writing)
                    os.set_inheritable(copied, False)
                    limit()
                    space = dict(vars(helpers))
                    with os.fdopen(copied, "w") as stream:
                        for one in search(every, known, space, skip):
                            stream.write(json.dumps(one) + "\n")
                            stream.flush()
                            reset()
                os._exit(0)
            finally:
                os._exit(70)
        os.close(writing)
        begun = ""
        with os.fdopen(reading) as stream:
            for line in stream:
                one = json.loads(line)
                if "begin" in one:
                    begun = one["begin"]
                else:
                    begun = ""
                    lines.append(one)
                    yield one
        status = os.waitpid(process, 0)[1]
        if status == 0:
            return
        if not begun or begun in skip:
            raise RuntimeError(f"the search for valid calls ended with status {status} at {begun!r}")
        skip.add(begun)
