"""The program of a number: what it calls, with what, and what is done with the result."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from calls.arguments import Context
from calls.pickles import pickle_program
from calls.scenarios import scenario
from calls.targets import Target
from calls.valid import Call, Known, attempt, expression
from calls.wrong import wrong

UNKNOWN_NAMES = ["nonsense", "self", "input", "out", "dim", "dtype", "_", "args", "x" * 300]
# What is done besides to the tensor and the result; each line may raise.
AFTERWARDS = [
    "consume(r)",
    "consume(r)",
    "consume(r)",
    "t.sum().backward()",
    "r.sum().backward()",
    "repr(r)",
    "np.asarray(r)",
    "memoryview(r)",
    "np.from_dlpack(r)",
    "np.add(r, r)",
    "np.asarray(t).sum()",
    "copy.copy(r)",
    "copy.deepcopy(r)",
    "pickle.loads(pickle.dumps(r))",
    "r[0]",
    "r[...] = t",
    "r.grad",
    "list(r)",
    "len(r)",
    "iter(r)",
    "hash(r)",
    "r == r",
    "r + t",
    "t.add_(r)",
    "r = t = None; gc.collect()",
    "r.requires_grad_()",
    "gc.collect()",
    "next(r)",
    "r()",
    "r(t)",
    "with_result(r)",
    "t.data = r",
    "t.grad = r",
    "r.data = t",
    "fastbp.compile(lambda x: x + r)(t)",
    "func.vmap(lambda x: x * r)(t)",
    "func.grad(lambda x: (x * r).sum())(t)",
]


PICKLE, SCENARIO = 0xFFFF, 0xFFFE  # in place of the number of a target
OF_INSTANCES = ("method", "get", "set", "delete")


@dataclass
class Program:
    """Lines of Python; `target` is the number of what is called, and `valid` says that nothing was made wrong."""

    target: int
    lines: list[str]
    valid: bool = False


def spoil(call: Call, target: Target, random: Random, known: Known) -> bool:
    """Make one position of a call wrong; whether anything was."""
    places: list[object] = [*range(len(call.args)), *call.kwargs]
    choice = random.random()
    if call.receiver and (choice < 0.12 or not places):
        call.receiver, call.wrong_self = wrong(random), True
    elif choice < 0.15:
        call.kwargs[random.choice(UNKNOWN_NAMES)] = wrong(random)
    elif choice < 0.2 or not places:
        call.args += [wrong(random) for _ in range(random.choice([1, 1, 1, 2, 18]))]
    elif choice < 0.25 and call.args:
        call.args.pop(random.randrange(len(call.args)))
    elif choice < 0.33 and target.parameters:
        one = random.choice(target.parameters)
        if one.kind in ("VAR_POSITIONAL", "VAR_KEYWORD", "POSITIONAL_ONLY"):
            return False
        call.kwargs[one.name] = wrong(random)
    else:
        place = random.choice(places)
        if isinstance(place, int):
            call.args[place] = wrong(random)
        else:
            call.kwargs[str(place)] = wrong(random)
    return True


def call_of(target: Target, random: Random, known: Known) -> tuple[Call, bool]:
    """A call of a target, and whether nothing was made wrong in it."""
    found = known.calls.get(target.name)
    if found and random.random() < 0.75:
        one = random.choice(found)
        call = Call(one.receiver, [*one.args], {**one.kwargs})
    else:
        call = attempt(target, random, known.made)
    choice = random.random()
    if choice < 0.06:
        return call, True
    if choice < 0.14:
        call.args = [wrong(random) for _ in range(random.choice([0, 1, 1, 2, 3, 4]))]
        call.kwargs = {}
        return call, False
    spoiled = spoil(call, target, random, known)
    while random.random() < 0.3:
        spoiled = spoil(call, target, random, known) or spoiled
    return call, not spoiled


def unbound(target: Target, call: Call, random: Random) -> str:
    """A method or attribute reached through its class: there the self may be anything."""
    given = ", ".join([call.receiver, *call.args, *(f"{name}={value}" for name, value in call.kwargs.items())])
    name = target.path.rsplit(".", 1)[-1]
    if target.kind == "method":
        return f"{target.path}({given})"
    way = {"get": "__get__", "set": "__set__", "delete": "__delete__"}[target.kind]
    return f"vars({target.owner})[{name!r}].{way}({given})"


def generate(every: list[Target], known: Known, seed: int, number: int) -> Program:
    """The program of a number."""
    random = Random(f"{seed}:{number}")
    choice = random.random()
    if choice < 0.04:
        return Program(PICKLE, pickle_program(every, known, random))
    if choice < 0.14:
        return Program(SCENARIO, scenario(random))
    place = random.randrange(len(every))
    target = every[place]
    call, valid = call_of(target, random, known)
    context = Context.make(random)
    lines = [
        f"t = {context.filled(random.choice(['T(S)', 'T(S, D)', 'T(S, grad=True)', 'T((2, 3))']))}",
        "l = [t, 1, T((2, 3))]",
    ]
    lines.append("a = " + random.choice(["A((2, 3))", "A((6,))", "A((3,), 'int64')", "A((3,), 'float64')"]))
    through_class = call.wrong_self or (target.kind in OF_INSTANCES and random.random() < 0.1)
    text = unbound(target, call, random) if through_class else expression(target, call)
    text = text.replace("{t}", "t").replace("{l}", "l").replace("{a}", "a")
    lines.append(f"r = {text}")
    for _ in range(random.choice([0, 1, 1, 2])):
        lines.append(random.choice(AFTERWARDS))
    return Program(place, lines, valid)
