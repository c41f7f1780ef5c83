"""Sections: matrix products on one thread, as a share of the processor's peak, and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.results import Check, Context, Row, ratio, write_time
from benchmarks.timing import FULL, QUICK, Sample, Timed, calls, interleave

SQUARES = (32, 64, 128, 256, 512, 1024, 2048)
FORMS = ("NN", "NT", "TN")
DTYPES = ("float32", "float64")
THREADED_SQUARES = (512, 1024, 2048)

# Sums of k rounded products differ by some sqrt(k) units in the last place between orders of summation, relative
# to the largest entry; the factor 8 keeps the check quiet.
UNITS_OF_ERROR = 8

# The clock wanders by a few percent between two samples; beyond that a share above 1 is a measuring fault.
IMPOSSIBLE_SHARE = 1.05


@dataclass(frozen=True)
class Product:
    """One product: (m, k) times (k, n), the operands stored as the form says.

    Attributes
    ----------
    title : str
        Name in the table.
    m, k, n : int
        Rows, inner size, columns.
    form : str
        "NN": both as written; "NT": the second is stored as (n, k); "TN": the first is stored as (k, m).
    bar : float
        Least share of the peak.
    """

    title: str
    m: int
    k: int
    n: int
    form: str
    bar: float

    @property
    def flops(self) -> float:
        """Additions and multiplications."""
        return 2.0 * self.m * self.k * self.n


def all_products(quick: bool) -> Iterator[Product]:
    """Return the products of the table; the largest are left out of quick runs."""
    for size in SQUARES[:5] if quick else SQUARES:
        for form in FORMS:
            yield Product(f"{form} n = {size}", size, size, size, form, 0.9 if 64 <= size <= 512 else 0.8)
    yield Product("layer: 64x784 @ 784x128", 64, 784, 128, "NN", 0.8)
    yield Product("layer, by weight: 784x64 @ 64x128", 784, 64, 128, "TN", 0.8)
    yield Product("layer, by input: 64x128 @ 128x784", 64, 128, 784, "NT", 0.8)


def operands(product: Product, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the two factors as NumPy views of the product's shapes, laid out as its form says."""
    random = np.random.default_rng(0)

    def stored(rows: int, columns: int, transposed: bool) -> np.ndarray:
        values = random.standard_normal((columns, rows) if transposed else (rows, columns)).astype(dtype)
        return values.T if transposed else values

    return (
        stored(product.m, product.k, product.form == "TN"),
        stored(product.k, product.n, product.form == "NT"),
    )


def in_module(module: ModuleType, values: np.ndarray) -> Any:
    """Return a tensor with the same values and the same layout."""
    if values.flags.c_contiguous:
        return module.from_numpy(values)
    return module.from_numpy(values.T).t()


def product_call(module: ModuleType, a: np.ndarray, b: np.ndarray) -> tuple[Callable[[], object], Any]:
    """Return the product in a module's API, writing into an existing tensor, and that tensor."""
    x, y = in_module(module, a), in_module(module, b)
    out = module.empty((a.shape[0], b.shape[1]), dtype=getattr(module, str(a.dtype)))
    multiply = module.matmul
    return lambda: multiply(x, y, out=out), out


def one_thread(context: Context) -> Iterator[Row]:
    """Time every product beside NumPy's OpenBLAS, PyTorch, and the peak kernel."""
    for dtype in DTYPES:
        overhead = _call_cost(context, dtype)
        floor = _undisturbed_peak(context, dtype)
        for product in all_products(context.quick):
            yield _product_row(context, product, dtype, overhead, floor)


def _call_cost(context: Context, dtype: str) -> float:
    """Return the seconds of the subject's product of two 1 x 1 matrices: what a call costs before any arithmetic."""
    call, _ = product_call(context.subject, *operands(Product("", 1, 1, 1, "NN", 0), dtype))
    return interleave({"call": calls(call)}, context.effort)["call"].median


def _undisturbed_peak(context: Context, dtype: str) -> float:
    """Return the peak in operations per second, measured alone; 0 where it cannot be measured."""
    if context.peak is None:
        return 0.0
    sample = interleave({"peak": context.peak.side(dtype)}, context.effort)["peak"]
    return float(context.peak.flops[dtype]) / sample.median


def _product_row(context: Context, product: Product, dtype: str, overhead: float, floor: float) -> Row:
    """Time one product and check its result.

    The peak is that of this row's own rounds, but no less than `floor`, the one measured alone before: other work on
    the machine lowers a measured peak, and would flatter the product.
    """
    a, b = operands(product, dtype)
    out = np.empty((product.m, product.n), dtype)
    subject, result = product_call(context.subject, a, b)
    sides: dict[str, Timed] = {context.name: calls(subject), "numpy": calls(lambda: np.dot(a, b, out=out))}
    if context.torch is not None:
        sides["torch"] = calls(product_call(context.torch, a, b)[0])
    if context.peak is not None:
        sides["peak"] = context.peak.side(dtype)
    samples = interleave(sides, context.effort)
    row = Row(f"{dtype} {product.title}", samples=samples)
    own = samples[context.name].median
    row.figures = {name: write_time(samples[name].median) for name in sides if name != "peak"}
    row.figures["GFLOP/s"] = f"{product.flops / own / 1e9:.1f}"
    share = None
    if context.peak is not None:
        rate = max(floor, context.peak.flops[dtype] / samples["peak"].median)
        share = product.flops / own / rate
        row.figures["peak GFLOP/s"] = f"{rate / 1e9:.1f}"
        # Informative: what the kernel does once the call's own cost, which no kernel can mend, is taken off.
        row.figures["peak share less call"] = f"{100 * product.flops / max(own - overhead, 1e-9) / rate:.0f}%"
    row.checks = [
        Check("of the peak", share, product.bar, at_least=True, style="percent"),
        Check("NumPy's speed", ratio(samples, "numpy", context.name), 1.0, at_least=True),
    ]
    bound = UNITS_OF_ERROR * np.finfo(dtype).eps * np.sqrt(product.k) * np.abs(out).max()
    worst = np.abs(np.asarray(result.numpy()) - out).max()
    if share is not None and share > IMPOSSIBLE_SHARE:
        row.problem = "faster than the peak: the machine was disturbed"
    if not worst <= bound:
        row.problem = f"result is off by {worst:.3g}, more than {bound:.3g}"
    return row


def two_threads(context: Context) -> Iterator[Row]:
    """Time large squares on two threads against one, each module in a process of its own.

    Separate processes, for a second library's pool of threads disturbs the first one's.
    """
    if len(context.processors) < 2:
        return
    sizes = THREADED_SQUARES[:1] if context.quick else THREADED_SQUARES
    names = [context.name] + (["torch"] if context.torch is not None else [])
    measured = {name: _in_process(name, sizes, context) for name in names}
    for dtype in DTYPES:
        for size in sizes:
            key = f"{dtype} n = {size}"
            row = Row(f"{key}, 2 threads")
            for name in names:
                one, two = (Sample(**measured[name][key][count]) for count in ("1", "2"))
                row.samples |= {f"{name} 1": one, f"{name} 2": two}
                row.figures |= {
                    f"{name} 1 thread": write_time(one.median),
                    f"{name} 2 threads": write_time(two.median),
                    f"{name} gain": f"{one.median / two.median:.2f}x",
                }
            gain = ratio(row.samples, f"{context.name} 1", f"{context.name} 2")
            row.checks = [Check("one thread's speed", gain, 1.8, at_least=True)]
            yield row


def _in_process(name: str, sizes: tuple[int, ...], context: Context) -> dict[str, Any]:
    """Run this file as a program in a process that may use two processors, and return what it measured."""
    variables = os.environ | {variable: "2" for variable in environment.THREAD_VARIABLES}
    processors = ",".join(map(str, context.processors[:2]))
    command = [sys.executable, "-m", "benchmarks.products", name, processors, ",".join(map(str, sizes))]
    if context.quick:
        command.append("--quick")
    done = subprocess.run(command, cwd=environment.ROOT, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name} on two threads: {done.stderr.strip().splitlines()[-1:]}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _measure_threads(name: str, sizes: list[int], quick: bool) -> dict[str, Any]:
    """Time squares on one and on two threads, in turn."""
    module = __import__(name)
    measured: dict[str, Any] = {}
    for dtype in DTYPES:
        for size in sizes:
            call, _ = product_call(module, *operands(Product("", size, size, size, "NN", 0), dtype))

            def on_threads(count: int, call: Callable[[], object] = call) -> Timed:
                timed = calls(call)

                def run(number: int) -> float:
                    module.set_num_threads(count)
                    call()  # wakes the pool, outside the time
                    return timed(number)

                return run

            samples = interleave({"1": on_threads(1), "2": on_threads(2)}, QUICK if quick else FULL)
            measured[f"{dtype} n = {size}"] = {count: vars(sample) for count, sample in samples.items()}
    return measured


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [int(processor) for processor in sys.argv[2].split(",")])
    print(
        json.dumps(_measure_threads(sys.argv[1], [int(size) for size in sys.argv[3].split(",")], "--quick" in sys.argv))
    )
