"""Bodies of the functions that programs compile."""

from __future__ import annotations

from programs.expressions import grow, term, viewed
from programs.worlds import Argument, World
from programs.writing import Name, Writer, indented


def make_arguments(w: Writer, world: World, training: bool) -> list[Name]:
    """Draw the function's parameters; the names by which its body knows them."""
    names: list[Name] = []

    def add(argument: Argument, shape: tuple[int, ...]) -> None:
        if argument.grad:
            w.use(
                {"leaf": "leaf argument", "leaf with grad": "leaf argument with grad"}.get(
                    argument.grad, "non-leaf argument"
                )
            )
        if argument.lasting:
            w.use("lasting argument")
            w.setup.append(f"{argument.name} = {w.laid_out(shape)}" + (".requires_grad_()" if argument.grad else ""))
        world.arguments.append(argument)
        names.append(Name(argument.name, shape, grad=bool(argument.grad), argument=True))

    last = world.inputs or (world.params[0].shape[-1] if world.params else w.pick([1, 2, 3, 4]))
    between = w.pick([(), (), (), (), (1,), (1,), (2,), (1, 2), (2, 1), (2, 1)])
    grad = ""
    if w.chance("leaf argument", 0.2 if training else 0.35):
        grad = "leaf with grad" if w.chance("leaf argument with grad", 0.35) else "leaf"
    elif w.chance("non-leaf argument", 0.06 if training else 0.2):
        grad = "non-leaf"
    lasting = grad != "non-leaf" and w.maybe(0.4 if grad else 0.08)
    array = not grad and not lasting and w.chance("array argument", 0.25)
    shape = lambda n, b=between, k=last: (n, *b, k)  # noqa: E731
    add(Argument("x", shape, array=array, grad=grad, lasting=lasting), shape(3))
    if world.params and w.maybe(0.6):
        p = w.pick(world.params)
        like = lambda n, s=p.shape: s  # noqa: E731
        lasting = w.maybe(0.1)
        array = not lasting and w.chance("array argument", 0.2)
        add(Argument("g", like, array=array, lasting=lasting), p.shape)
    if world.model and w.chance("cross entropy", 0.25):
        world.arguments.append(Argument("c", lambda n: (n,), text=f"classes(SIZE, {world.outputs}, seed=SEED)"))
    if w.chance("static argument", 0.08):
        world.arguments.append(Argument("k", lambda n: (), text="2"))
    return names


def start_of_body(w: Writer, world: World, names: list[Name]) -> None:
    """Arrays as tensors; writes into arguments; what else stands before the loss."""
    arrays = [one for one in world.arguments if one.array]
    for one in arrays:
        w.body.append(f"{one.name} = fastbp.as_tensor({one.name})")
    if w.chance("raises in function", 0.04):
        w.setup.append("failing = False")
        w.body.append("if failing: raise PlannedError('in the function')")
        world.closure.add("failing")
    for one, name in zip((a for a in world.arguments if not a.text), names, strict=True):
        if one.grad in ("leaf", "leaf with grad"):
            if w.chance("argument grad None", 0.2):
                w.body.append(f"{name}.grad = None")
            elif w.chance("argument grad zeroed", 0.1):
                w.body.append(f"if {name}.grad is not None: {name}.grad.zero_()")
            elif w.chance("argument grad assigned", 0.06):
                w.body.append(f"{name}.grad = fastbp.ones({w.listed(name.shape)})") if one.lasting else None
        elif not one.lasting and w.chance("non-leaf argument written" if one.grad else "argument written", 0.1):
            one.written = True
            if one.array:
                w.use("array written")
            ways = [f"{name}.mul_(0.5)", f"{name}[0] = 0.25", f"{name}.add_({name}.detach().tanh())"]
            if not one.grad and w.maybe(0.3) and w.allowed("random fill of argument"):
                w.use("random fill of argument")
                ways = [f"{name}.uniform_(-1.0, 1.0)", f"{name}.normal_()"]
            w.body.append(w.pick(ways))


def factors(w: Writer, world: World, loss: str) -> str:
    """A loss times numbers from outside."""
    if w.chance("closure number", 0.08):
        world.closure.add("number")
        loss = f"{loss} * factor"
    if w.chance("global number", 0.08):
        world.closure.add("global")
        loss = f"{loss} * FACTOR"
    if w.chance("closure flag", 0.06):
        world.closure.add("flag")
        loss = f"({loss} if flag else {loss} * 0.5)"
    if w.chance("closure text", 0.05):
        world.closure.add("text")
        loss = f"({loss} if text == 'first' else -({loss}))"
    if any(one.name == "k" for one in world.arguments) and w.maybe(0.7):
        loss = f"{loss} * k"
    return loss


def losses(w: Writer, world: World, names: list[Name], chosen: list[Name], number: int) -> list[str]:
    """Lines that end by giving `loss<number>` a value."""
    lines: list[str] = []
    target = f"loss{number}"
    if world.model:
        x = names[0].name
        call = f"model({x})"
        lines.append(f"y{number} = {call}")
        if any(one.name == "c" for one in world.arguments) and len(names[0].shape) == 2:
            text = f"F.cross_entropy(y{number}, c)"
        else:
            text = w.pick([f"y{number}.square().mean()", f"y{number}.sum()", f"(y{number} - 1).square().sum() * 0.1"])
        lines.append(f"{target} = {factors(w, world, text)}")
        return lines
    values = [*names, *world.params]
    terms = [factors(w, world, term(w, p, values)) for p in chosen]
    for one in names:
        if one.grad and w.maybe(0.8):
            terms.append(w.pick([f"({one} * {one}).sum()", f"{one}.sum()", f"({one} * 0.5).tanh().mean()"]))
    if w.chance("random operations", 0.2):
        last = grow(w, list(values), lines, w.pick([2, 4, 7]))
        terms.append(f"{last}.sin().mean()")
    if w.chance("random numbers", 0.06):
        p = w.pick(chosen)
        terms.append(f"({p} * fastbp.rand({w.listed(p.shape)})).sum()")
    if w.chance("detach", 0.05):
        terms = [f"{terms[0]} * {terms[-1]}.detach()", *terms[1:]]
    lines.append(f"{target} = {' + '.join(terms)}")
    return lines


def gradients_before(w: Writer, world: World, optimizer: str) -> list[str]:
    """How gradients are cleared, if at all."""
    kind = w.choose({"set_to_none": 4, "zeros": 1.5, "grad None": 1, "grad zeroed if there": 1, "accumulate": 1.2})
    p = "next(iter(model.parameters()))" if world.model else w.pick(world.params)
    return {
        "set_to_none": [f"{optimizer}.zero_grad()"],
        "zeros": [f"{optimizer}.zero_grad(set_to_none=False)"],
        "grad None": [f"{p}.grad = None"],
        "grad zeroed if there": [f"if {p}.grad is not None: {p}.grad.zero_()"],
    }.get(kind, [])


def gradients_after(w: Writer, world: World, names: list[Name]) -> list[str]:
    """What is done to gradients between backward() and the optimizer's step."""
    if world.model:
        if w.chance("grad clipped", 0.12):
            return ["nn.utils.clip_grad_norm_(list(model.parameters()), 0.5)"]
        return []
    p = w.pick(world.params)
    like = [one for one in names if one.shape == p.shape and one.name == "g"]
    if like and w.chance("grad assigned argument", 0.22):
        return [f"{p}.grad = {like[0]}"]
    constant = ""
    kind = w.choose(
        {
            "": 10,
            "grad assigned constant": 0.6,
            "grad scaled in place": 0.8,
            "grad replaced": 0.8,
            "grad clipped": 0.8,
            "grad dropped after": 0.6,
        }
    )
    if kind == "grad assigned constant":
        constant = w.name("constant")
        w.setup.append(f"{constant} = numbers({w.listed(p.shape)}seed={w.number()})")
    return {
        "": [],
        "grad assigned constant": [f"{p}.grad = {constant}"],
        "grad scaled in place": [f"if {p}.grad is not None: {p}.grad.mul_(0.5)"],
        "grad replaced": [f"if {p}.grad is not None: {p}.grad = {p}.grad * 0.5"],
        "grad clipped": [f"nn.utils.clip_grad_norm_([{', '.join(map(str, world.params))}], 0.5)"],
        "grad dropped after": [f"{p}.grad = None"],
    }[kind]


def results(w: Writer, world: World, names: list[Name], training: bool, values: list[str]) -> str:
    """The text of what the function returns."""
    ways: list[tuple[str, str, float]] = [
        ("returns nothing", "None", 0.5),
        ("returns constant", "fastbp.ones(2)", 0.5),
        ("returns object", w.pick(["3", "'text'", "{'a': 1.5}"]), 0.5),
    ]
    first = "next(iter(model.parameters()))"
    for p in [first] if world.model else [w.pick(world.params)] if world.params else []:
        if training:
            ways.append(("returns grad", f"{p}.grad", 2.5))
        ways.append(("returns parameter", f"{p}", 0.7))
        ways.append(("returns view of parameter", f"{p}.detach()", 0.9))
    if world.params:
        p = w.pick([one for one in world.params if one.shape] or world.params)
        if p.shape:
            ways.append(("returns view of parameter", f"{p}.detach()[{w.pick(['1:', ':1', '0', '...'])}]", 0.9))
            ways.append(
                ("returns view of parameter", f"{p}[{w.pick(['1:', ':1', '0'])}]", 0.6 if not training else 0.3)
            )
    one = w.pick(names) if names else None
    if one is not None:
        ways.append(("returns argument", one.name, 0.7))
        ways.append(("returns view of argument", viewed(w, one)[0], 1.0))
    for value in values:
        ways.append(
            ("returns loss" if value.startswith("loss") else "returns intermediate", value, 3.0 if training else 4.0)
        )
    count = w.pick([1, 1, 2, 3])
    ways = [one for one in ways if w.allowed(one[0])] or [("returns nothing", "None", 1.0)]
    chosen = w.rng.choices(ways, [one[2] for one in ways], k=count)
    chosen = list(dict.fromkeys(chosen))
    for feature, _, _ in chosen:
        w.use(feature)
    if len(chosen) == 1:
        return chosen[0][1]
    w.use("returns several")
    texts = ", ".join(one[1] for one in chosen)
    if w.chance("returns mapping", 0.15):
        return f"{{{', '.join(f'{n}: {one[1]}' for n, one in enumerate(chosen))}}}"
    return w.pick([f"({texts})", f"[{texts}]"])


def train_body(w: Writer, world: World, names: list[Name]) -> None:
    """One to three times: gradients cleared, loss, backward, what is done to gradients, step."""
    count = 1
    if any(one.grad == "non-leaf" for one in world.arguments):
        pass  # its own graph is there for one backward() only
    elif w.chance("two steps", 0.25):
        count = 2
    elif w.chance("three steps", 0.08):
        count = 3
    values = []
    params = world.params
    outside: list[str] = []
    for number in range(count):
        optimizer = w.pick(world.optimizers).name
        chosen = params
        if len(params) > 1 and w.chance("some gradients only", 0.45 if count > 1 else 0.2):
            chosen = [w.pick(params)]
        outside += gradients_before(w, world, optimizer)
        inner = losses(w, world, names, chosen, number)
        place = w.rng.random()
        if place < 0.04 and w.allowed("enable_grad inside"):
            w.use("enable_grad inside")
            inner = ["with fastbp.enable_grad():", *indented(inner)]
        outside += inner
        if w.chance("hook on intermediate", 0.05):
            outside.append(f"loss{number}.register_hook(lambda g: g * 0.5)")
        if w.chance("raises in hook", 0.02):
            world.closure.add("switch")
            outside += ["if Switch.raising:", f"    loss{number}.register_hook(raise_by_switch)"]
        if w.chance("raises in Function.backward", 0.03):
            world.closure.add("switch")
            outside.append(f"loss{number} = Guarded.apply(loss{number})")
        outside.append(f"loss{number}.backward()")
        outside += gradients_after(w, world, names)
        if w.chance("parameter written", 0.05) and not world.model:
            outside += ["with fastbp.no_grad():", f"    {w.pick(params)}.mul_(0.9)"]
        outside.append(f"{optimizer}.step()")
        if w.maybe(0.1):
            outside += gradients_before(w, world, optimizer)
        values.append(f"loss{number}.detach()" if w.maybe(0.7) else f"loss{number}")
    w.body += outside
    w.body.append(f"return {results(w, world, names, True, values)}")


def function_body(w: Writer, world: World, names: list[Name]) -> list[str]:
    """Values that the outside differentiates; returns the results' names, which depend on parameters or arguments."""
    values = [*names, *world.params]
    lines: list[str] = []
    made: list[str] = []
    if world.model:
        lines.append(f"y = model({names[0]})")
        made.append("y")
    for number in range(w.pick([1, 2, 2, 3])):
        fixed = [*values]
        last = grow(w, fixed, lines, w.pick([1, 2, 4, 6]))
        text = last.name
        if last.name in [one.name for one in values]:
            text = f"{last} * 1.5"
        if world.params and w.maybe(0.7):
            p = w.pick(world.params)
            text = f"{text} + {term(w, p, values)}"
        lines.append(f"v{number} = {factors(w, world, text)}")
        made.append(f"v{number}")
        if w.maybe(0.4):
            values.append(Name(f"v{number}", last.shape))  # a result by which others may be differentiated
    if w.chance("zero cotangent", 0.2):
        source = w.pick(world.params or names)
        lines.append(f"z = {w.pick([f'({source} * 0).sqrt()', f'({source} * 0).log()', f'{source} / 0'])}")
        made.append("z")
    if w.chance("no_grad inside", 0.1):
        inner = ["with fastbp.no_grad():", f"    n = {made[0]} * 2"]
        if w.chance("enable_grad inside", 0.7):
            source = w.pick(world.params or names)
            inner += ["    with fastbp.enable_grad():", f"        e = {source} * {source}"]
            made.append("e")
        lines += inner
        made.append("n")
    if w.chance("hook on intermediate", 0.06):
        lines.append(f"if {made[0]}.requires_grad: {made[0]}.register_hook(lambda g: g * 0.5)")
    if w.chance("raises in Function.backward", 0.02):
        world.closure.add("switch")
        lines.append(f"{made[0]} = Guarded.apply({made[0]})")
    w.body += lines
    if w.chance("returns intermediate", 0.9):
        chosen = w.some(made)
        if len(made) > 1 and "z" in made and "z" not in chosen:
            chosen.append("z")
    else:
        chosen = made[:1]
    extra = results(w, world, names, False, []) if w.maybe(0.35) else ""
    texts = [*chosen, *([extra] if extra else [])]
    w.body.append(f"return ({', '.join(texts)},)")
    return chosen


def plain_body(w: Writer, world: World, names: list[Name]) -> None:
    """Operations without derivatives: views, products of odd layouts, writes into tensors from outside."""
    lines: list[str] = []
    values = [*names, *world.params]
    if w.maybe(0.6):
        shape = (2, names[0].shape[-1]) if w.maybe(0.5) else (names[0].shape[-1], 2)
        w.setup.append(f"weight = numbers({w.listed(shape)}seed={w.number()})")
        values.append(Name("weight", shape))
    made = []
    for _ in range(w.pick([1, 2, 3])):
        last = grow(w, list(values), lines, w.pick([1, 2, 3, 6]), first=values[0] if w.maybe(0.6) else None)
        made.append(last.name)
    if w.chance("buffer written", 0.2):
        w.setup.append(f"buffer = numbers(3, seed={w.number()})")
        lines.append(
            w.pick([f"buffer.mul_(0.9).add_({made[-1]}.detach().mean())", "buffer.add_(1)", "buffer.normal_()"])
        )
        if w.maybe(0.5):
            made.append(w.pick(["buffer", "buffer[1:]", "buffer * 2"]))
    if w.chance("random numbers", 0.08):
        lines.append("noise = fastbp.randn(2, 3)")
        made.append("noise")
    w.body += lines
    first = ", ".join(f"{one}" for one in made)
    w.body.append(f"return ({first}, {results(w, world, names, False, [])})")
