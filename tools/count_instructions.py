#!/usr/bin/env python3
"""Instructions of one call, counted by callgrind: what a change costs the short paths, whatever else the machine does.

    python tools/count_instructions.py /path/to/before/src /path/to/after/src
    python tools/count_instructions.py src --only "compiled call, 16 parameters"

Each folder is one that `import fastbp` finds a built package in (`python setup.py build_ext --inplace`, the same
compiler flags on both sides). A workload runs 200 and 1,200 times in processes of its own; a thousandth of the
difference is printed. It needs valgrind, which knows no AVX-512, so that the kernels are those of AVX2.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

FEW, MANY = 200, 1200
PRELUDE = """
import sys
import fastbp
from fastbp import nn, optim
fastbp.set_num_threads(1)
a, b, leaf = fastbp.ones(16), fastbp.ones(16), fastbp.ones(16, requires_grad=True)
x = fastbp.ones(4)

def chain(count):
    parameters = [fastbp.ones(4, requires_grad=True) for _ in range(count)]
    def product(x):
        for one in parameters:
            x = x * one
        return x
    return parameters, product

def forward(count):
    _, product = chain(count)
    return fastbp.compile(lambda x: product(x).detach())

def training(make, count):
    parameters, product = chain(count)
    optimizer = make(parameters)
    @fastbp.compile
    def step(x):
        optimizer.zero_grad()
        product(x).sum().backward()
        optimizer.step()
    return step

def hundred():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(100)])
    return fastbp.compile(lambda x: model(x).detach())
"""
# By name: what makes `run`, the call that is counted.
WORKLOADS = {
    "a * b": "run = lambda: a * b",
    "a * b, with gradient": "run = lambda: leaf * b",
    "one backward node and a sum": "total = (leaf * b).sum(); run = lambda: total.backward(retain_graph=True)",
    "Linear call": "layer = nn.Linear(4, 4); run = lambda: layer(x)",
    "compiled call, 1 parameter": "call = forward(1); run = lambda: call(x)",
    "compiled call, 16 parameters": "call = forward(16); run = lambda: call(x)",
    "compiled call, 100 modules": "call = hundred(); run = lambda: call(x)",
    "compiled step, SGD, 1 parameter": "call = training(lambda p: optim.SGD(p, lr=1e-3), 1); run = lambda: call(x)",
    "compiled step, momentum, 16 parameters": (
        "call = training(lambda p: optim.SGD(p, lr=1e-3, momentum=0.9), 16); run = lambda: call(x)"
    ),
    "compiled step, Adam, 1 parameter": "call = training(lambda p: optim.Adam(p), 1); run = lambda: call(x)",
    "compiled step, Adam, 16 parameters": "call = training(lambda p: optim.Adam(p), 16); run = lambda: call(x)",
}
LOOP = """
for _ in range(3):
    run()
for _ in range(int(sys.argv[1])):
    run()
"""


def collected(folder: str, code: str, repeat: int) -> int:
    """Instructions of a process that imports the package in `folder` and runs the workload so often."""
    own = {"PYTHONPATH": folder, "PYTHONHASHSEED": "0", "FASTBP_ISA": "avx2", "OMP_NUM_THREADS": "1"}
    callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [*callgrind, sys.executable, "-c", code, str(repeat)]
    told = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=True).stderr
    found = re.search(r"Collected : (\d+)", told)
    if found is None:
        raise SystemExit(f"callgrind told no count:\n{told}")
    return int(found[1])


def instructions(folder: str, name: str) -> float:
    """Instructions of one run of a workload."""
    code = PRELUDE + WORKLOADS[name] + LOOP
    return (collected(folder, code, MANY) - collected(folder, code, FEW)) / (MANY - FEW)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", help="of the builds; ratios are to the first")
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), help="a workload; may be repeated")
    options = parser.parse_args()
    for name in options.only or WORKLOADS:
        counts = [instructions(os.path.abspath(folder), name) for folder in options.folders]
        ratios = "".join(f"{100 * (one / counts[0] - 1):+8.1f} %" for one in counts[1:])
        print(f"{name:40}" + "".join(f"{one:12,.0f}" for one in counts) + ratios, flush=True)


if __name__ == "__main__":
    main()
