"""The writer of a program's text: choices by name, which can be switched off, and lines in their places."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

# What programs are made of, by name: each must occur (tools/fuzz_programs.py), each can be switched off.
FEATURES = tuple(
    """
    float64 | leaf argument | leaf argument with grad | non-leaf argument | argument by name | static argument
    array argument
    lasting argument | container argument | batch sizes
    permuted | sliced | stepped | expanded | size-1 axis | reversed array | size-1 axis moved | more than two axes
    bare parameters | model | tied parameters | parameter with grad | parameter views of one memory
    Sequential | ModuleList | ModuleDict | Block | Centred | Dropout | LeakyReLU
    SGD | SGD momentum | Adam | AdamW | amsgrad | own optimizer | own optimizer with state | two groups
    two optimizers | shared by optimizers | two steps | three steps
    set_to_none | zeros | grad None | grad zeroed if there | accumulate | some gradients only
    linear loss | gradient in argument | product | many-axis product | random operations | cross entropy
    grad assigned argument | grad assigned constant | grad scaled in place | grad replaced | grad clipped
    grad dropped after
    argument grad None | argument grad zeroed | argument grad assigned
    returns grad | returns parameter | returns view of parameter | returns argument | returns view of argument
    returns constant | returns object | returns nothing | returns loss | returns intermediate | returns several
    argument written | array written | non-leaf argument written | parameter written | buffer written
    random fill of argument
    random numbers | closure number | global number | closure flag | closure text
    no_grad inside | enable_grad inside | no_grad outside | detach
    function with derivative | unused result | zero cotangent | gradient between results | backward twice
    plain function
    hook on parameter | hook on intermediate | hook on module | post-accumulate hook
    changes at each call | module compiled itself | returns mapping | module cast for good |
    parameter .data | module cast | parameter cast | load_state_dict | optimizer load_state_dict
    optimizer state cleared
    state entry cleared | state entry deleted | state entry assigned | step count changed | state tensor written
    lr changed | option changed | momentum switched | add_param_group | param_groups replaced
    child appended | key added | child deleted | child replaced | module parameter replaced
    child parameter replaced
    attribute number | attribute text | attribute flag | attribute tuple | attribute None | Dropout p
    negative slope
    hook registered | hook removed | module hook registered | module hook removed | requires_grad flipped
    train or eval
    closure number changed | global number changed | closure flag changed | closure text changed
    event grad None | event grad zeros | event grad tensor | event grad held | event grad written
    event argument grad
    manual_seed | default dtype | threads changed
    raises in function | raises in hook | raises in Function.backward | raises at capture | calls itself
    called from its own hook
    inner compiled function | kept from capture | made in another thread | epoch | memory budget
    backward by outer code
    parameter .data between forward and backward | eager call between | long sums
    """.replace("\n", "|").split("|")
)
FEATURES = tuple(dict.fromkeys(one.strip() for one in FEATURES if one.strip()))


@dataclass
class Name:
    """A tensor that the program's text may use: its name, shape, and what it is."""

    name: str
    shape: tuple[int, ...]
    grad: bool = False
    argument: bool = False
    optional: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Writer:
    """Draws choices from a seed and collects the lines of the program."""

    seed: int
    without: Collection[str] = ()
    used: set[str] = field(default_factory=set)
    setup: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    script: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._numbers = 0
        self._names = 0

    def allowed(self, feature: str) -> bool:
        assert feature in FEATURES, feature
        return feature not in self.without

    def use(self, feature: str) -> str:
        assert feature in FEATURES, feature
        self.used.add(feature)
        return feature

    def chance(self, feature: str, probability: float) -> bool:
        """Whether to use a feature. A draw is made in any case, so that switching one off leaves the rest as it was."""
        drawn = self.rng.random() < probability
        if drawn and self.allowed(feature):
            self.use(feature)
            return True
        return False

    def maybe(self, probability: float) -> bool:
        return self.rng.random() < probability

    def choose(self, options: dict[str, float]) -> str:
        """One feature of several, by weight; "" stands for none of them."""
        names = [one for one in options if one == "" or self.allowed(one)]
        if not names:
            return ""
        picked = self.rng.choices(names, [options[one] for one in names])[0]
        return self.use(picked) if picked else ""

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.rng.randrange(len(options))]

    def some(self, options: Iterable[Any], least: int = 1) -> list[Any]:
        """A part of the options, in their order."""
        options = list(options)
        chosen = [one for one in options if self.maybe(0.6)]
        return chosen if len(chosen) >= least else options[: max(least, 1)]

    def number(self) -> int:
        """The next seed for numbers."""
        self._numbers += 1
        return self._numbers

    def name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"

    def scalar(self) -> float:
        return self.pick([0.5, 0.25, 1.5, -0.75, 2.0, 0.1])

    # ---- numbers in memory ----

    def laid_out(self, shape: tuple[int, ...], array: bool = False, plain: float = 0.35) -> str:
        """An expression for numbers of this shape that lie in memory in some way."""
        maker = "array" if array else "numbers"
        if len(shape) > 2:
            self.use("more than two axes")
        if 1 in shape:
            self.use("size-1 axis")
        if not shape or self.maybe(plain):
            return f"{maker}({self.listed(shape)}seed={self.number()})"
        if 1 in shape and len(shape) > 1 and self.chance("size-1 axis moved", 0.4):
            return self.with_moved_axes(shape, maker)
        order = list(range(len(shape)))
        if len(shape) > 1 and self.chance("permuted", 0.6):
            self.rng.shuffle(order)
        base, cuts, expand = [], [], {}
        for axis in order:
            size = shape[axis]
            kind = self.rng.random()
            if kind < 0.2 and self.allowed("stepped"):
                self.use("stepped")
                base.append(size * 2)
                cuts.append("::2")
            elif kind < 0.4 and self.allowed("sliced"):
                self.use("sliced")
                base.append(size + 2)
                cuts.append(f"1:{size + 1}")
            elif kind < 0.5 and array and self.allowed("reversed array"):
                self.use("reversed array")
                base.append(size)
                cuts.append("::-1")
            elif kind < 0.56 and not array and self.allowed("expanded"):
                self.use("expanded")
                base.append(1)
                cuts.append(":")
                expand[axis] = size
            else:
                base.append(size)
                cuts.append(":")
        text = f"{maker}({self.listed(tuple(base))}seed={self.number()})"
        if any(one != ":" for one in cuts):
            text += f"[{', '.join(cuts)}]"
        if order != sorted(order):
            back = [order.index(axis) for axis in range(len(shape))]
            text += f".{'transpose' if array else 'permute'}({', '.join(map(str, back))})"
        if expand:
            text += f".expand({', '.join(str(one) for one in shape)})"
        return text

    def with_moved_axes(self, shape: tuple[int, ...], maker: str) -> str:
        """Contiguous but for the axes of size 1, which have the strides of other places."""
        order = [axis for axis, size in enumerate(shape) if size != 1]
        for axis in (axis for axis, size in enumerate(shape) if size == 1):
            order.insert(self.rng.randrange(len(order) + 1), axis)
        base = tuple(shape[axis] for axis in order)
        back = ", ".join(str(order.index(axis)) for axis in range(len(shape)))
        turn = "transpose" if maker == "array" else "permute"
        return f"{maker}({self.listed(base)}seed={self.number()}).{turn}({back})"

    @staticmethod
    def listed(shape: tuple[int, ...]) -> str:
        return "".join(f"{one}, " for one in shape)


def indented(lines: Iterable[str], by: int = 1) -> list[str]:
    return ["    " * by + one for one in lines]
