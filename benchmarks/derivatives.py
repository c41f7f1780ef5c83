"""Section: derivatives of functions beside PyTorch and JAX: Hessians, Jacobians, per-sample gradients, PINNs.

Each case is measured in a fresh process, for JAX reads its settings when it loads. All sides compute the same from the
same values, which is checked before anything is timed, and take turns on one thread.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.compiled import answer_of
from benchmarks.results import Check, Context, Row, write_time
from benchmarks.timing import FULL, QUICK, Sample, Timed, calls, interleave

# Roundings of float32 through three layers, and of sums in another order; a wrong derivative is off by far more.
TOLERANCE = {"float32": 2e-4, "float64": 1e-9}

EXPLAINED_NODES = 10_000


@dataclass(frozen=True)
class Bar:
    """What a case promises.

    Attributes
    ----------
    quantity : str
        In words.
    ours, peers : tuple of str
        Sides: the quicker of ours against the quickest of the peers that ran.
    least : float
        How many times as fast.
    """

    quantity: str
    ours: tuple[str, ...]
    peers: tuple[str, ...]
    least: float


@dataclass(frozen=True)
class Case:
    """A function with its derivative in the hands of each library.

    Attributes
    ----------
    title : str
    dtype : str
    sides : callable
        Of a library's name, to pairs of side and a function without arguments that returns the result as arrays.
    bars : tuple of Bar
    """

    title: str
    dtype: str
    sides: Callable[[str], Iterator[tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]]]
    bars: tuple[Bar, ...]


def _arrays(value: Any) -> list[Any]:
    """Tensors in dicts, lists and tuples as NumPy arrays, in order."""
    if isinstance(value, dict):
        return [array for name in sorted(value) for array in _arrays(value[name])]
    if isinstance(value, (list, tuple)):
        return [array for one in value for array in _arrays(one)]
    return [np.asarray(value.detach() if hasattr(value, "detach") else value)]


def _random(*shape: int, scale: float = 1.0, dtype: str = "float32", seed: int = 0) -> Any:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(dtype)


def _tensor(module: ModuleType, value: Any) -> Any:
    return module.from_numpy(value) if hasattr(module, "from_numpy") else module.asarray(value)


# ---- a physics-informed net: Burgers' equation, second derivatives by the inputs ----

PINN_SIZES = (2, 32, 32, 1)
PINN_POINTS, PINN_INITIAL, PINN_NU = 256, 64, 0.01


def pinn_values(dtype: str) -> tuple[list[Any], dict[str, Any]]:
    """Initial weights (in, out) and biases, and the points: uniform as PyTorch's default law, seed 0."""
    random = np.random.default_rng(0)
    values = []
    for before, after in itertools.pairwise(PINN_SIZES):
        bound = before**-0.5
        values.append(random.uniform(-bound, bound, (before, after)).astype(dtype))
        values.append(random.uniform(-bound, bound, (after,)).astype(dtype))
    start = random.uniform(-1, 1, (PINN_INITIAL, 1))
    points = {
        "t": random.uniform(0, 1, (PINN_POINTS, 1)).astype(dtype),
        "x": random.uniform(-1, 1, (PINN_POINTS, 1)).astype(dtype),
        "start_t": np.zeros((PINN_INITIAL, 1), dtype),
        "start_x": start.astype(dtype),
        "start_u": (-np.sin(np.pi * start)).astype(dtype),
    }
    return values, points


def pinn_model(module: ModuleType, values: list[Any], dtype: str) -> Any:
    """The net in PyTorch's API."""
    nn = importlib.import_module(module.__name__ + ".nn")
    layers = []
    for weight, bias in zip(values[::2], values[1::2], strict=True):
        layer = nn.Linear(*weight.shape, dtype=getattr(module, dtype))
        with module.no_grad():
            layer.weight.copy_(module.from_numpy(np.ascontiguousarray(weight.T)))
            layer.bias.copy_(module.from_numpy(bias))
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def pinn_step(module: ModuleType, dtype: str, forward: bool, **options: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A whole Adam step and its arguments; u_t, u_x, u_xx by reverse over reverse, or forward over forward."""
    values, points = pinn_values(dtype)
    model = pinn_model(module, values, dtype)
    func = importlib.import_module(module.__name__ + ".func")
    optim = importlib.import_module(module.__name__ + ".optim")
    optimizer = optim.Adam(model.parameters(), lr=1e-3, **options)
    grad = module.autograd.grad

    def by_reverse(t: Any, x: Any) -> tuple[Any, Any, Any, Any]:
        t, x = t.detach().requires_grad_(), x.detach().requires_grad_()
        u = model(module.cat([t, x], 1))
        ones = module.ones_like(u)
        u_t, u_x = grad(u, (t, x), ones, create_graph=True)
        return u, u_t, u_x, grad(u_x, x, ones, create_graph=True)[0]

    def by_forward(t: Any, x: Any) -> tuple[Any, Any, Any, Any]:
        ones = module.ones_like(x)

        def along_x(at: Any) -> Any:
            return func.jvp(lambda z: model(module.cat([t, z], 1)), (at,), (ones,))

        (u, u_x), (_, u_xx) = func.jvp(along_x, (x,), (ones,))
        u_t = func.jvp(lambda z: model(module.cat([z, x], 1)), (t,), (ones,))[1]
        return u, u_t, u_x, u_xx

    def step(t: Any, x: Any, start_t: Any, start_x: Any, start_u: Any) -> Any:
        optimizer.zero_grad()
        u, u_t, u_x, u_xx = (by_forward if forward else by_reverse)(t, x)
        residual = u_t + u * u_x - PINN_NU * u_xx
        loss = (residual * residual).mean() + ((model(module.cat([start_t, start_x], 1)) - start_u) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step, [module.from_numpy(array) for array in points.values()]


def _steps_of(step: Callable[..., Any], arguments: list[Any]) -> Callable[[], Any]:
    return lambda: step(*arguments)


def pinn_sides(dtype: str) -> Callable[[str], Iterator[Any]]:
    """The step of each library; the result that is compared are the losses of the first steps."""

    def first_losses(run: Callable[[], Any]) -> list[Any]:
        return [np.asarray([float(np.asarray(run().detach())) for _ in range(5)])]

    def of(library: str) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]]:
        if library == "jax":
            yield "jax call", _jax_pinn(dtype), lambda run: [np.asarray([float(run()) for _ in range(5)])]
            return
        module = importlib.import_module(library)
        if library == "torch":
            for name, options in (("foreach", {"foreach": True}), ("fused", {"fused": True})):
                yield f"torch reverse {name}", _steps_of(*pinn_step(module, dtype, False, **options)), first_losses
            yield "torch forward fused", _steps_of(*pinn_step(module, dtype, True, fused=True)), first_losses
            return
        step, arguments = pinn_step(module, dtype, False)
        yield f"{library} eager", _steps_of(step, arguments), first_losses
        for name, forward in (("reverse", False), ("forward", True)):
            step, arguments = pinn_step(module, dtype, forward)
            yield f"{library} compiled {name}", _steps_of(module.compile(step), arguments), first_losses

    return of


def _jax_pinn(dtype: str) -> Callable[[], Any]:
    """JAX's jitted step, forward over forward, its state donated."""
    jax = importlib.import_module("jax")
    jnp = importlib.import_module("jax.numpy")
    jax.config.update("jax_enable_x64", True)
    values, points = pinn_values(dtype)
    points = {name: jnp.asarray(array) for name, array in points.items()}

    def net(parameters: Any, t: Any, x: Any) -> Any:
        h = jnp.concatenate([t, x], 1)
        for number in range(0, len(parameters), 2):
            h = h @ parameters[number] + parameters[number + 1]
            h = jnp.tanh(h) if number + 2 < len(parameters) else h
        return h

    def loss_of(parameters: Any, given: Any) -> Any:
        t, x = given["t"], given["x"]
        ones = jnp.ones_like(x)

        def along_x(at: Any) -> Any:
            return jax.jvp(lambda z: net(parameters, t, z), (at,), (ones,))

        (u, u_x), (_, u_xx) = jax.jvp(along_x, (x,), (ones,))
        u_t = jax.jvp(lambda z: net(parameters, z, x), (t,), (ones,))[1]
        start = net(parameters, given["start_t"], given["start_x"])
        return jnp.mean((u_t + u * u_x - PINN_NU * u_xx) ** 2) + jnp.mean((start - given["start_u"]) ** 2)

    def step(state: Any, given: Any) -> Any:
        parameters, means, squares, count = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, given)
        count = count + 1
        scale = (1e-3 / (1 - 0.9**count)).astype(loss.dtype)
        root = (1 / jnp.sqrt(1 - 0.999**count)).astype(loss.dtype)
        over = jax.tree.map
        means = over(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = over(lambda v, g: 0.999 * v + 0.001 * g * g, squares, gradients)
        parameters = over(lambda p, m, v: p - scale * m / (jnp.sqrt(v) * root + 1e-8), parameters, means, squares)
        return (parameters, means, squares, count), loss

    compiled = jax.jit(step, donate_argnums=0)
    parameters = [jnp.array(value) for value in values]
    state: Any = (
        parameters,
        [jnp.zeros_like(one) for one in parameters],
        [jnp.zeros_like(one) for one in parameters],
        jnp.zeros((), jnp.float64),
    )

    def run() -> Any:
        nonlocal state
        state, loss = compiled(state, points)
        return loss.block_until_ready()

    return run


# ---- derivatives of functions ----


def _three(
    make: Callable[[ModuleType, ModuleType], tuple[Callable[..., Any], tuple[Any, ...]]],
) -> Callable[[str], Iterator[Any]]:
    """Eager and compiled sides of one text in PyTorch's names; JAX has it jitted."""

    def of(library: str) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]]:
        if library == "jax":
            jax = importlib.import_module("jax")
            jax.config.update("jax_enable_x64", True)
            function, arguments = make(importlib.import_module("jax.numpy"), jax)
            jitted = jax.jit(function)
            yield "jax call", lambda: jax.block_until_ready(jitted(*arguments)), lambda run: _arrays(run())
            return
        module = importlib.import_module(library)
        function, arguments = make(module, importlib.import_module(library + ".func"))
        yield f"{library} eager", lambda: function(*arguments), lambda run: _arrays(run())
        if library != "torch":
            compiled = module.compile(function)
            yield f"{library} compiled", lambda: compiled(*arguments), lambda run: _arrays(run())

    return of


def _hessian(module: ModuleType, func: ModuleType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Rosenbrock's function of 50 inputs plus the squares of a dense layer, float64."""
    weight = _tensor(module, _random(50, 50, scale=1 / 7, dtype="float64"))

    def function(x: Any) -> Any:
        valley = 100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2
        return valley.sum() + (module.tanh(weight @ x) ** 2).sum()

    return func.hessian(function), (_tensor(module, _random(50, dtype="float64")),)


def _jacobian(kind: str) -> Callable[[ModuleType, ModuleType], tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Three layers of 200 with tanh, float32."""

    def make(module: ModuleType, func: ModuleType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        weights = [_tensor(module, _random(200, 200, scale=1 / 14, seed=number)) for number in range(3)]

        def function(x: Any) -> Any:
            for weight in weights:
                x = module.tanh(weight @ x)
            return x

        return getattr(func, kind)(function), (_tensor(module, _random(200)),)

    return make


def _per_sample(module: ModuleType, func: ModuleType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Gradients of 8-64-64-4 with tanh and cross entropy, one for each of 256 examples, float32."""
    sizes = (8, 64, 64, 4)
    parameters = [
        [_tensor(module, _random(after, before, scale=before**-0.5)), _tensor(module, _random(after, scale=0.1))]
        for before, after in itertools.pairwise(sizes)
    ]
    x = _tensor(module, _random(256, 8))
    labels = np.random.default_rng(1).integers(0, 4, 256)
    is_jax = module.__name__.startswith("jax")
    y = _tensor(module, labels.astype(np.int32) if is_jax else labels)

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for number, (weight, bias) in enumerate(parameters):
            x = weight @ x + bias
            x = module.tanh(x) if number < 2 else x
        if is_jax:
            return -func.nn.log_softmax(x)[y]
        return importlib.import_module(module.__name__ + ".nn.functional").cross_entropy(x, y)

    in_axes = {"in_axes" if is_jax else "in_dims": (None, 0, 0)}
    return func.vmap(func.grad(loss), **in_axes), (parameters, x, y)


def _forward_cost(library: str) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], list[Any]]]]:
    """A net of three layers of 200 over a batch of 64, with and without a tangent; the sides' results differ."""
    if library == "jax":
        return
    module = importlib.import_module(library)
    func = importlib.import_module(library + ".func")
    weights = [module.from_numpy(_random(200, 200, scale=1 / 14, seed=number)) for number in range(3)]
    x, tangent = module.from_numpy(_random(64, 200)), module.ones(64, 200)

    def function(x: Any) -> Any:
        for weight in weights:
            x = module.tanh(x @ weight)
        return x

    def push(x: Any, tangent: Any) -> Any:
        return func.jvp(function, (x,), (tangent,))

    def value(run: Callable[[], Any]) -> list[Any]:
        return _arrays(run())[:1]

    yield f"{library} function", lambda: function(x), value
    yield f"{library} jvp", lambda: push(x, tangent), value
    if library != "torch":
        plain, pushed = module.compile(function), module.compile(push)
        yield f"{library} compiled function", lambda: plain(x), value
        yield f"{library} compiled jvp", lambda: pushed(x, tangent), value


TORCH_PINN = ("torch reverse foreach", "torch reverse fused", "torch forward fused")


def cases(name: str) -> dict[str, Case]:
    """The cases, for a library of this name."""
    pinn = tuple(f"{name} compiled {how}" for how in ("reverse", "forward"))
    both = (f"{name} eager", f"{name} compiled")
    pinn_bars = (Bar("PyTorch's speed", pinn, TORCH_PINN, 6.0), Bar("JAX call's speed", pinn, ("jax call",), 1.5))
    torch_bar = Bar("PyTorch's speed", both, ("torch eager",), 3.0)
    return {
        "pinn-f32": Case("2-32-32-1, Burgers, Adam, float32", "float32", pinn_sides("float32"), pinn_bars),
        "pinn-f64": Case("2-32-32-1, Burgers, Adam, float64", "float64", pinn_sides("float64"), pinn_bars),
        "hessian": Case(
            "a function of 50 inputs, float64",
            "float64",
            _three(_hessian),
            (replace(torch_bar, least=10.0), Bar("JAX call's speed", both, ("jax call",), 1.0)),
        ),
        "per-sample": Case("gradients of 8-64-64-4, batch 256", "float32", _three(_per_sample), (torch_bar,)),
        "jacrev": Case("200 to 200, three tanh layers", "float32", _three(_jacobian("jacrev")), (torch_bar,)),
        "jacfwd": Case("200 to 200, three tanh layers", "float32", _three(_jacobian("jacfwd")), (torch_bar,)),
        "forward": Case("200-200-200-200, batch 64", "float32", _forward_cost, ()),
    }


# ---- sections ----


def functions(context: Context) -> Iterator[Row]:
    """Time every case, all sides in turn."""
    libraries = [context.name]
    libraries += ["torch"] if context.torch is not None else []
    libraries += ["jax"] if importlib.util.find_spec("jax") is not None else []
    for name, case in cases(context.name).items():
        job = {"case": name, "subject": context.name, "libraries": libraries, "quick": context.quick}
        job["processors"] = context.processors[:1]
        try:
            yield judged(context.name, name, case, answer_of("benchmarks.derivatives", [json.dumps(job)], 1))
        except RuntimeError as error:  # the other cases are still worth their time
            yield Row(name, problem=str(error))


def judged(subject: str, name: str, case: Case, measured: dict[str, Any]) -> Row:
    """The row of what one process measured."""
    samples = {side: Sample(**values) for side, values in measured["samples"].items()}
    row = Row(f"{name}: {case.title}", samples=samples, problem=measured["problem"])
    row.figures = {side: write_time(sample.median) for side, sample in samples.items()}
    for bar in case.bars:
        peers = [samples[side].median for side in bar.peers if side in samples]
        ours = min(samples[side].median for side in bar.ours)
        row.checks.append(Check(bar.quantity, min(peers) / ours if peers else None, bar.least, at_least=True))
    if name == "forward":
        for how in ("", "compiled "):
            cost = samples[f"{subject} {how}jvp"].median / samples[f"{subject} {how}function"].median
            row.checks.append(Check(f"the {how or 'eager '}function's time", cost, 2.5, at_least=False))
    return row


def explanation(context: Context) -> Iterator[Row]:
    """Time `explain` of a graph of 10,000 scalar ops."""
    module = context.subject
    if not hasattr(module, "explain"):
        return
    nodes = EXPLAINED_NODES // 10 if context.quick else EXPLAINED_NODES
    x = module.tensor(0.5, dtype=module.float64, requires_grad=True)
    y = x
    for number in range(nodes // 2):
        y = module.tanh(y) if number % 2 else y * x
        y = y + x
    samples = interleave({context.name: calls(lambda: module.explain(y, wrt=x))}, context.effort)
    seconds = samples[context.name].median
    check = Check("time", 1e3 * seconds, 1000.0, at_least=False, style="ms")
    yield Row(f"explain, {nodes:,} nodes", {context.name: write_time(seconds)}, [check], samples)


# ---- the measuring process ----


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Build the sides of one case, compare their results, time them in turn.

    Returns
    -------
    dict
        "samples": side to the fields of its Sample; "problem": why they are worthless, or None.
    """
    case = cases(job["subject"])[job["case"]]
    sides: dict[str, Timed] = {}
    results: dict[str, list[Any]] = {}
    for library in job["libraries"]:
        with contextlib.suppress(AttributeError):
            importlib.import_module(library).set_num_threads(1)
        for name, run, result in case.sides(library):
            results[name] = result(run)
            sides[name] = calls(run)
    effort = QUICK if job["quick"] else replace(FULL, row_seconds=6.0)
    samples = interleave(sides, effort)
    problem = differing(results, TOLERANCE[case.dtype])
    return {"samples": {name: asdict(sample) for name, sample in samples.items()}, "problem": problem}


def differing(results: dict[str, list[Any]], tolerance: float) -> str | None:
    """A sentence about the first side whose results are not those of the first one, None when all agree."""
    first, wanted = next(iter(results.items()))
    for name, found in results.items():
        for number, (one, two) in enumerate(zip(found, wanted, strict=True)):
            scale = max(1.0, float(np.abs(two).max()))
            # An inequality that not-a-number does not pass.
            if one.shape != two.shape or not float(np.abs(one - two).max()) <= tolerance * scale:
                return f"result {number} of {name} differs from that of {first}"
    return None


def main(text: str) -> None:
    """Measure one job, given as JSON, and print the answer as one line of JSON."""
    job = json.loads(text)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job["processors"])
    print(json.dumps(measure(job)))


if __name__ == "__main__":
    main(sys.argv[1])
