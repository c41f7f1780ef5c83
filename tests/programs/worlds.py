"""What a program's world holds: parameters, models, optimizers and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from programs.writing import Name, Writer


@dataclass
class Optimizer:
    name: str
    kind: str
    params: list[str]


@dataclass
class Argument:
    """A parameter of the function: how it is made at each call, where it is not one that lasts."""

    name: str
    shape: Callable[[int], tuple[int, ...]]
    array: bool = False
    written: bool = False
    grad: str = ""  # "", "leaf", "leaf with grad", "non-leaf"
    lasting: bool = False
    text: str = ""  # an expression in place of numbers: classes, static values


@dataclass
class World:
    params: list[Name] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    arguments: list[Argument] = field(default_factory=list)
    model: str = ""  # the kind of model, if any
    attributes: list[tuple[str, str]] = field(default_factory=list)  # an event's feature, and its line
    drifting: list[str] = field(default_factory=list)  # lines that change an attribute again each time
    inputs: int = 0
    outputs: int = 0
    trains: bool = False  # the function calls backward() itself
    closure: set[str] = field(default_factory=set)
    hooks: list[str] = field(default_factory=list)  # handles that may be removed
    container: str = ""  # the brackets in which all arguments are given


SHAPES = ((3,), (4,), (2, 3), (3, 4), (1, 3), (3, 1), (4, 4), (1, 1), (1,), (2, 4))


def make_parameters(w: Writer, world: World) -> None:
    w.use("bare parameters")
    shapes = [w.pick(SHAPES)]
    for _ in range(w.pick([0, 1, 1, 2])):
        shapes.append(w.pick([shapes[0], shapes[0], w.pick(SHAPES), (*w.pick(SHAPES)[:1], shapes[0][-1])]))
    if len(shapes) > 1 and w.chance("parameter views of one memory", 0.06):
        sizes = [int_product(one) for one in shapes]
        w.setup.append(f"memory = numbers({sum(sizes)}, seed={w.number()})")
        first = 0
        for name, shape, size in zip("pqs", shapes, sizes, strict=False):
            view = f"memory[{first}:{first + size}].view({w.listed(shape)})"
            w.setup.append(f"{name} = {view}.requires_grad_()")
            first += size
            world.params.append(Name(name, shape, grad=True))
    else:
        for name, shape in zip("pqs", shapes, strict=False):
            w.setup.append(f"{name} = numbers({w.listed(shape)}seed={w.number()}).requires_grad_()")
            world.params.append(Name(name, shape, grad=True))
    for p in world.params:
        if w.chance("parameter with grad", 0.12):
            w.setup.append(f"{p}.grad = numbers({w.listed(p.shape)}seed={w.number()})")


def int_product(shape: tuple[int, ...]) -> int:
    count = 1
    for one in shape:
        count *= one
    return count


OPTIMIZERS = {
    "SGD": (
        "optim.SGD({}, lr=0.1)",
        "optim.SGD({}, lr=0.1, weight_decay=0.1)",
        "optim.SGD({}, lr=0.05, maximize=True)",
    ),
    "SGD momentum": (
        "optim.SGD({}, lr=0.1, momentum=0.9)",
        "optim.SGD({}, lr=0.1, momentum=0.9, dampening=0.3)",
        "optim.SGD({}, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
    ),
    "Adam": ("optim.Adam({}, lr=0.1)", "optim.Adam({}, lr=0.05, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1)"),
    "AdamW": ("optim.AdamW({}, lr=0.05, weight_decay=0.1)", "optim.AdamW({}, lr=0.05, maximize=True)"),
    "amsgrad": ("optim.Adam({}, lr=0.05, amsgrad=True)", "optim.AdamW({}, lr=0.05, amsgrad=True)"),
    "own optimizer": ("OwnSGD({}, lr=0.1)", "OwnSGD({}, lr=0.1, decay=0.1)"),
    "own optimizer with state": ("own_momentum(list({}), lr=0.1)",),
}


def make_optimizers(w: Writer, world: World) -> None:
    count = 1 + w.chance("two optimizers", 0.22)
    names = [str(one) for one in world.params]
    for number in range(count):
        kind = (
            w.choose(
                {
                    "SGD": 2,
                    "SGD momentum": 2,
                    "Adam": 2,
                    "AdamW": 1,
                    "amsgrad": 1,
                    "own optimizer": 1,
                    "own optimizer with state": 0.5,
                }
            )
            or "SGD"
        )
        chosen = names
        if count == 2:
            if w.chance("shared by optimizers", 0.5):
                chosen = names if number == 0 else w.some(names)
            else:
                chosen = names[number::2] or names
        params = f"[{', '.join(chosen)}]"
        if world.model:
            params = "model.parameters()"
            chosen = ["model"]
        text: str = w.pick(OPTIMIZERS[kind]).replace("{}", params)
        if len(chosen) > 1 and kind not in ("own optimizer with state",) and w.chance("two groups", 0.15):
            first, rest = chosen[0], ", ".join(chosen[1:])
            groups = f"[{{'params': [{first}], 'lr': 0.03}}, {{'params': [{rest}]}}]"
            text = text.replace(params, groups)
        name = "o" if number == 0 else "o2"
        w.setup.append(f"{name} = {text}")
        world.optimizers.append(Optimizer(name, kind, chosen))


ACTIVATIONS = ("nn.Tanh()", "nn.ReLU()", "nn.Sigmoid()", "nn.ELU(0.5)", "nn.Identity()", "nn.GELU()", "nn.Softplus()")


def make_model(w: Writer, world: World) -> None:
    w.use("model")
    tied = w.chance("tied parameters", 0.12)
    inputs = w.pick([1, 2, 3, 4])
    hidden = inputs if tied else w.pick([1, 2, 3, 5])
    outputs = inputs if tied else w.pick([1, 2, 3])
    bias = w.pick(["", "", ", bias=False"])
    first = f"nn.Linear({inputs}, {hidden}{bias})"
    middle = []
    for _ in range(w.pick([0, 1, 1, 2])):
        kind = w.choose({"": 3, "Dropout": 1, "LeakyReLU": 1, "Centred": 1})
        middle.append(
            {
                "": w.pick(ACTIVATIONS),
                "Dropout": "nn.Dropout(0.4)",
                "LeakyReLU": "nn.LeakyReLU(0.2)",
                "Centred": f"Centred({hidden})",
            }[kind]
        )
    last = f"nn.Linear({hidden}, {outputs}{bias})"
    layers = [first, *middle, last]
    holder = w.choose({"Sequential": 3, "ModuleList": 1.5, "ModuleDict": 1.5, "Block": 2}) or "Sequential"
    world.model, world.inputs, world.outputs = holder, inputs, outputs
    at = {"Sequential": "model[{}]", "ModuleList": "model.layers[{}]", "ModuleDict": "model.layers['k{}']"}
    if holder == "Block":
        layers = [f"Block({inputs}, {hidden})", *middle, last]
        if w.maybe(0.4):
            layers = [f"Block({inputs}, {outputs})"]
        w.setup.append(f"model = nn.Sequential({', '.join(layers)})")
    elif holder == "ModuleDict":
        w.setup.append(f"model = Named({', '.join(f'k{n}={one}' for n, one in enumerate(layers))})")
    else:
        w.setup.append(f"model = {'nn.Sequential' if holder == 'Sequential' else 'Layers'}({', '.join(layers)})")
    place = at.get(holder, "model[{}]")
    if tied and holder != "Block" and len(layers) > 1:
        w.setup.append(f"{place.format(len(layers) - 1)}.weight = {place.format(0)}.weight")
    world.attributes += model_events(w, holder, layers, place, outputs)
    for n, one in enumerate(layers):
        for kind, name in (("Dropout", "p"), ("LeakyReLU", "negative_slope"), ("Block", "factor"), ("Centred", "rate")):
            if one.startswith((kind, f"nn.{kind}")):
                world.drifting.append(f"{place.format(n)}.{name} = {place.format(n)}.{name} * 0.8")


def model_events(w: Writer, holder: str, layers: list[str], place: str, outputs: int) -> list[tuple[str, str]]:
    """What may be done to the model between calls."""
    events = []
    new = w.pick(["Negated()", "nn.Tanh()", f"nn.Linear({outputs}, {outputs})", "nn.LeakyReLU(0.3)"])
    container = {"Sequential": "model", "ModuleList": "model.layers", "Block": "model"}.get(holder)
    if container:
        events.append(("child appended", f"{container}.append({new})"))
    if holder == "Sequential":
        events.append(("child appended", f"model.add_module('extra', {new})"))
    if holder == "ModuleDict":
        events.append(("key added", f"model.layers['extra'] = {new}"))
    if len(layers) > 2:
        events.append(("child deleted", f"del {place.format(1)}"))
        events.append(("child replaced", f"{place.format(1)} = {w.pick(ACTIVATIONS)}"))
        events.append(("child replaced", f"{place.format(1)} = Negated()"))
    linear = [n for n, one in enumerate(layers) if "Linear" in one]
    if linear:
        one = place.format(w.pick(linear))
        events.append(("child parameter replaced", f"{one}.weight = nn.Parameter({one}.weight.detach() * 0.5)"))
    for n, one in enumerate(layers):
        at = place.format(n)
        if "Dropout" in one:
            events += [("Dropout p", f"{at}.p = {w.pick([0.0, 0.8, 0.1])}")] * 2
        if "LeakyReLU" in one:
            events += [("negative slope", f"{at}.negative_slope = {w.pick([0.5, -1.0])}")] * 2
        if "ELU(0.5)" in one:
            events.append(("negative slope", f"{at}.alpha = 1.5"))
        if "Centred" in one:
            events.append(("attribute number", f"{at}.rate = 0.7"))
            events.append(("module parameter replaced", f"{at}.mean = numbers({at}.mean.numel(), seed={w.number()})"))
        if "Block" in one:
            events += [
                ("attribute number", f"{at}.factor = {w.scalar()}"),
                ("attribute text", f"{at}.mode = 'none'"),
                ("attribute flag", f"{at}.doubled = not {at}.doubled"),
                ("attribute tuple", f"{at}.sizes = ({w.scalar()}, 2)"),
                ("attribute None", f"{at}.slope = {w.pick([0.5, -1.0])}"),
                ("module parameter replaced", f"{at}.inner.bias = nn.Parameter({at}.inner.bias.detach() + 1)"),
                ("child replaced", f"{at}.inner = nn.Linear({one[6:-1]})"),
            ]
    return events


def make_call_arguments(w: Writer, world: World, call: int, size: int) -> tuple[list[str], list[str]]:
    """The lines that make one call's arguments, and the arguments as they stand in the call."""
    lines, given = [], []
    for one in world.arguments:
        if one.text:
            given.append(one.text.replace("SIZE", str(size)).replace("SEED", str(w.number())))
            continue
        if one.lasting:
            given.append(one.name)
            continue
        shape = one.shape(size)
        text = w.laid_out(shape, one.array, plain=0.8 if one.written else 0.35)
        if one.written and ".expand(" in text:
            text = f"numbers({w.listed(shape)}seed={w.number()})"
        name = f"{one.name}{call}"
        if one.grad == "non-leaf":
            lines.append(f"{name}_leaf = numbers({w.listed(shape)}seed={w.number()}).requires_grad_()")
            text = f"{name}_leaf * 1"
        elif one.grad:
            text += ".requires_grad_()"
        lines.append(f"{name} = {text}")
        if one.grad == "leaf with grad":
            lines.append(f"{name}.grad = numbers({w.listed(shape)}seed={w.number()})")
        given.append(name)
    if world.container == "{}":
        given = [f"{{{', '.join(f'{arg.name!r}: {one}' for arg, one in zip(world.arguments, given, strict=True))}}}"]
    elif world.container:
        given = [f"{world.container[0]}{', '.join(given)},{world.container[1]}"]
    return lines, given
