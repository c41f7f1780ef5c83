"""Programs that read pickles: of fastbp's own objects with bytes changed, and of calls of their reconstructors."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from calls.wrong import wrong

if TYPE_CHECKING:
    from calls.targets import Target
    from calls.valid import Known

# What is pickled.
OBJECTS = [
    "T((2, 3))",
    "T((2, 3), grad=True)",
    "T((), 'int64')",
    "T((0, 3), 'bool')",
    "nn.Parameter(T((3,)))",
    "fastbp.Generator()",
    "fastbp.float32",
    "[fastbp.int64, fastbp.bool]",
    "T((2, 3)).shape",
    "fastbp.device('cpu')",
    "OwnModule()",
    "nn.Linear(3, 2)",
    "nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.ReLU())",
    "optimizer_of(optim.Adam)",
    "optimizer_of(optim.AdamW)",
    "optimizer_of(optim.SGD)",
    "optimizer_of(optim.Adam).state_dict()",
    "OwnModule().state_dict()",
    "fastbp.compile(OwnModule())",
    "data.TensorDataset(T((4, 3)))",
    "a_loader()",
    "fastbp.get_rng_state()",
    "func.grad(T)",
    "own(OwnTensor, T((2, 3)))",
    "own(OwnParameter, T((2, 3)))",
    "nn.ParameterList([nn.Parameter(T((2,)))])",
    "T((3, 3)).max(0)",
    "fastbp.linalg.qr(T((3, 3)))",
]
# What pickles of fastbp call, and what else of it they could.
RECONSTRUCTORS = [
    "_core.rebuild",
    "_core.make_generator",
    "nn.Parameter",
    "OwnParameter",
    "fastbp.Size",
    "fastbp.Tensor",
    "fastbp.Generator",
    "fastbp.device",
    "fastbp.compiler.Compiled",
    "copyreg.__newobj__",
    "copyreg._reconstructor",
    "object.__new__",
    "fastbp.Tensor.__new__",
    "fastbp.tensor",
    "fastbp.from_numpy",
    "nn.Linear",
    "optim.Adam.__new__",
]
ARGUMENTS = [
    "A((2, 3))",
    "True",
    "False",
    "fastbp.get_rng_state()",
    "T((16,), 'uint8')",
    "T((15,), 'uint8')",
    "(2, 3)",
    "fastbp.Tensor",
    "object",
    "None",
    "tuple",
    "nn.Linear",
    "optim.Adam",
    "fastbp.Generator",
    "{'shape': (2**40,)}",
    "{'data': None}",
]
CLASSES = [
    "fastbp.Tensor",
    "nn.Parameter",
    "fastbp.Generator",
    "fastbp.Size",
    "fastbp.dtype",
    "fastbp.device",
    "optim.Adam",
    "optim.SGD",
    "nn.Linear",
    "OwnModule",
    "OwnTensor",
    "fastbp.compiler.Compiled",
    "data.DataLoader",
    "data.TensorDataset",
]


def pickle_program(every: list[Target], known: Known, random: Random) -> list[str]:
    """Lines that make a pickle, change it, read it, and use what was read."""
    lines = ["t = T((2, 3))", "l = [t]", "a = A((2, 3))", "import copyreg"]
    choice = random.random()
    if choice < 0.5:
        value = random.choice(OBJECTS)
        edits = [(random.randrange(4000), random.randrange(256)) for _ in range(random.choice([1, 1, 2, 4]))]
        lines.append(f"p = pickle.dumps({value}, {random.choice([0, 1, 2, 2, 3, 4, 5])})")
        if random.random() < 0.2:
            lines.append(f"r = loads(p[:{random.randrange(2000)}])")
        else:
            lines.append(f"r = loads(swap_bytes(p, {edits}))")
    else:
        if random.random() < 0.25:
            classes = [one for one in every if one.kind == "class"]
            function = random.choice(classes).path
        else:
            function = random.choice(RECONSTRUCTORS)
        args = [
            random.choice(ARGUMENTS) if random.random() < 0.6 else wrong(random)
            for _ in range(random.choice([0, 1, 2, 2, 3]))
        ]
        if "__new" in function or "_reconstructor" in function:
            args.insert(0, random.choice(CLASSES))
        state = (
            ""
            if random.random() < 0.6
            else ", " + (random.choice(ARGUMENTS) if random.random() < 0.5 else wrong(random))
        )
        given = ", ".join(args).replace("{t}", "t").replace("{l}", "l").replace("{a}", "a") + ("," if args else "")
        state = state.replace("{t}", "t").replace("{l}", "l").replace("{a}", "a")
        lines.append(f"r = {'rebuilt' if random.random() < 0.5 else 'called'}({function}, ({given}){state})")
    lines += [
        "consume(r)",
        random.choice(["copy.deepcopy(r)", "pickle.dumps(r)", "r()", "r(t)", "r + 1", "r.step()", "r.manual_seed(3)"]),
    ]
    return lines
