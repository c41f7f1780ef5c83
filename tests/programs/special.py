"""Programs of a form of their own: threads, tensors kept from a capture, functions that call themselves, passes."""

from __future__ import annotations

from programs.worlds import OPTIMIZERS, SHAPES
from programs.writing import Writer, indented


def write(w: Writer) -> None:
    """Draw one of the forms and write it."""
    wide = w.chance("float64", 0.4)
    w.setup.append(f"D = begin(fastbp.{'float64' if wide else 'float32'})")
    forms = {
        "made in another thread": made_in_another_thread,
        "kept from capture": kept_from_capture,
        "calls itself": calls_itself,
        "called from its own hook": called_from_its_own_hook,
        "inner compiled function": inner_function,
        "epoch": epoch,
        "eager call between": eager_between,
        "long sums": long_sums,
    }
    form = w.choose(dict.fromkeys(forms, 1.0))
    forms.get(form, inner_function)(w)


def trainer(w: Writer, body: list[str], arguments: str = "x") -> None:
    """Parameters p and an optimizer o, and a step around the lines of a loss."""
    shape = w.pick(SHAPES)
    w.setup.append(f"p = numbers({w.listed(shape)}seed={w.number()}).requires_grad_()")
    kind = w.pick(["SGD", "SGD momentum", "Adam"])
    w.setup.append(f"o = {w.pick(OPTIMIZERS[kind]).replace('{}', '[p]')}")
    w.setup.append(f"like = numbers({w.listed(shape)}seed={w.number()})")
    lines = ["o.zero_grad()", *body, "loss.backward()", "o.step()", "return loss.detach()"]
    w.script += [f"def step({arguments}):", *indented(lines), "step = wrap(step)"]


def made_in_another_thread(w: Writer) -> None:
    """Parameters, a buffer or a model that another thread makes while this one captures."""
    made = w.pick(
        [
            "numbers(3, seed=50).requires_grad_()",
            "(numbers(3, seed=50) * 2).requires_grad_()",
            "nn.Parameter(fastbp.zeros(3))",
            "fastbp.ones(3, requires_grad=True)",
        ]
    )
    w.setup.append("box = []")
    w.script += [
        "def first(x):",
        f"    if not box: box.append(elsewhere(lambda: {made}))",
        f"    return x {w.pick(['* 2', '+ 1'])}",
        "first = wrap(first)",
        "r0 = see.call(first, numbers(2, seed=1))",
        "p = box[0]",
        f"o = {w.pick(OPTIMIZERS[w.pick(['SGD', 'Adam'])]).replace('{}', '[p]')}",
        "def step(x):",
        "    o.zero_grad()",
        "    loss = (p * x).square().sum() + (p * x).sum()",
        "    loss.backward()",
        "    o.step()",
        "    return loss.detach()",
        "step = wrap(step)",
    ]
    for number in range(1, 4):
        w.script += [f"r{number} = see.call(step, numbers(3, seed={number}))", "see(locals(), history=False)"]


def kept_from_capture(w: Writer) -> None:
    """A tensor that is put aside has no values: every use of it raises."""
    w.setup += ["kept = []"]
    w.script += [
        "def step(x):",
        f"    h = x {w.pick(['* 2', '+ 1'])}",
        "    if not kept: kept.append(h)",
        "    return h.sum()",
        "step = wrap(step)",
        "other = wrap(lambda x: x * 3)",
        "r0 = see.call(step, numbers(3, seed=1))",
    ]
    uses = ["kept[0].uniform_", "kept[0].normal_", "lambda: kept[0] + 1", "lambda: kept[0].add_(1)", "kept[0].zero_"]
    uses += [
        "lambda: other(kept[0])",
        "lambda: kept[0].numpy()",
        "kept[0].bernoulli_",
        "kept[0].random_",
        "kept[0].exponential_",
    ]
    for use in w.some(uses, 3):
        w.script.append(f"see.withdrawn(kept[0], {use})")
    w.script += ["kept[:] = [0]", "r1 = see.call(step, numbers(3, seed=2))", "see(locals(), history=False)"]


def calls_itself(w: Writer) -> None:
    trains = w.maybe(0.5)
    if trains:
        trainer(w, ["loss = (p * like).square().sum() * x.sum()", "if depth: step(x * 0.5, depth - 1)"], "x, depth")
    else:
        w.setup.append(f"p = numbers(3, seed={w.number()}).requires_grad_()")
        w.script += [
            "def step(x, depth):",
            "    h = (x * p).tanh()",
            "    return step(h, depth - 1) + h if depth else h",
            "step = wrap(step)",
        ]
    for number in range(w.pick([2, 3])):
        w.script.append(f"r{number} = see.call(step, numbers(3, seed={number + 60}), {w.pick([0, 1, 2])})")
        w.script.append(f"see(locals(), history={not trains})")
        if not trains:
            w.script += [f"see.call(r{number}.sum().backward)", "see(locals())"]


def called_from_its_own_hook(w: Writer) -> None:
    """backward() inside runs a hook that calls the function again, or another compiled one."""
    w.script += ["other = wrap(lambda x: x * 0.5)"]
    loss = "loss = (p * like).square().sum() * x.sum() + (p * p).sum()"
    more = ""
    if w.maybe(0.4):
        trainer(w, [loss])
        w.script.append("p.register_hook(lambda g: other(g))")
    else:
        hook = w.pick(["lambda g: other(g)", "lambda g: g * step(x, False)", "lambda g: g * other(x).sum()"])
        trainer(w, [loss, f"if deep: loss.register_hook({hook})"], "x, deep")
        more = ", True"
    for number in range(3):
        w.script.append(f"r{number} = see.call(step, numbers(3, seed={number + 60}){more})")
        w.script.append("see(locals(), history=False)")


def inner_function(w: Writer) -> None:
    """A compiled function inside of another, and outside of it, over the same parameters."""
    w.use("inner compiled function")
    w.script += [
        "def part(x):",
        f"    return (p * like).sum() + {w.pick(['x.sum()', '(x * 2).sum()'])}",
        "part = wrap(part)",
    ]
    trainer(w, ["loss = part(x) * 0.5 + p.square().sum()"])
    for number in range(3):
        w.script.append(f"r{number} = see.call(step, numbers(2, seed={number + 60}))")
        w.script.append("see(locals(), history=False)")
        if w.maybe(0.5):
            w.script += [f"q{number} = see.call(part, numbers(2, seed=70))", f"see.call(q{number}.backward)"]
            w.script.append("see(locals(), history=False)")


def epoch(w: Writer) -> None:
    """Passes over a data set whose length is no multiple of the batch size, perhaps with gradients that come and go."""
    form = w.pick(["(p * x).sum()", "(p * x).square().mean()", "(p * x).sum() + (p * x).tanh().mean()"])
    w.setup.append(f"p = numbers(3, seed={w.number()}).requires_grad_()")
    w.setup.append(f"o = {w.pick(OPTIMIZERS[w.pick(['SGD', 'SGD momentum', 'Adam'])]).replace('{}', '[p]')}")
    zero = w.pick(["o.zero_grad()", "o.zero_grad()", "o.zero_grad(set_to_none=False)", "pass"])
    size, batch = w.pick([(6, 2), (7, 2), (5, 3), (4, 1), (24, 2)])
    update = w.pick(
        [
            "o.step()",
            "o.step()",
            "p.grad = x[0]; o.step()",
            "o.step(); data.tensors[0].mul_(0.5)",
            "p.grad = p.grad * 0.5; o.step()",
        ]
    )
    if w.maybe(0.3):
        zero, update = "complete = p.grad is not None", "_ = (o.step(), o.zero_grad()) if complete else None"
    w.script += [
        "def step(x):",
        f"    {zero}",
        f"    loss = {form}",
        "    loss.backward()",
        f"    {update}",
        f"    return {w.pick(['loss.detach()', 'loss.detach()', 'loss.detach(), p.detach(), x * 1'])}",
        "step = wrap(step)",
        f"data = TensorDataset(numbers({size}, 3, seed={w.number()}))",
        f"loader = DataLoader(data, batch_size={batch}, shuffle={w.maybe(0.5)})",
    ]
    for number in range(2):
        w.script += [f"r{number} = see.epoch(step, loader)", "see(locals(), history=False)"]
        event = w.pick(["p.data = p.data * 0.5", "o.param_groups[0]['lr'] = 0.01", "o.state.clear()", "p.grad = None"])
        if number == 0:
            w.script.append(event)


def long_sums(w: Writer) -> None:
    """Sums of more than a block, and products whose inner dimension is longer than one: declared classes."""
    rows, columns = w.pick([(30, 50), (2, 700), (600, 3)])
    loss = w.pick(["(p * x).tanh().sum()", "(p * x).sin().mean()", "(x @ p.t()).square().mean() + (p * p).mean()"])
    w.setup.append(f"p = numbers({rows}, {columns}, seed={w.number()}).requires_grad_()")
    w.setup.append("o = optim.SGD([p], lr=0.01)")
    lines = ["o.zero_grad()", f"loss = {loss}", "loss.backward()", "o.step()", "return loss.detach()"]
    w.script += ["def step(x):", *indented(lines), "step = wrap(step)"]
    for number in range(2):
        w.script.append(f"r{number} = see.call(step, numbers({rows}, {columns}, seed={number + 60}))")
        w.script.append("see(locals(), history=False)")


def eager_between(w: Writer) -> None:
    """Eager and compiled calls take turns over one state."""
    trainer(w, [f"loss = (p * {w.pick(['like', 'p', 'x.sum()'])}).sum() * x.mean()"])
    at = next(n for n, line in enumerate(w.script) if line.startswith("step = wrap"))
    w.script.insert(at, "plain = step")
    w.script.insert(at + 1, "step = wrap(step)")
    del w.script[at + 2]
    for number in range(5):
        w.script.append(f"r{number} = see.call({w.pick(['step', 'step', 'plain'])}, numbers(2, seed={number + 60}))")
        w.script.append("see(locals(), history=False)")
