"""Losses and chains of operations: text that computes something from the tensors at hand."""

from __future__ import annotations

from programs.writing import Name, Writer

UNARY = (
    "{}.tanh()",
    "{}.sin()",
    "{}.sigmoid()",
    "-{}",
    "{} * 0.7 + 0.1",
    "{} * {} * 0.3",
    "{} * 1",
    "{} / ({} * {} + 1)",
    "F.leaky_relu({}, 0.1)",
    "F.softplus({})",
    "{}.clone()",
    "{}.square()",
    "{}.abs().add(1).log()",
)
BINARY = (
    "{} + {}",
    "{} - {}",
    "{} * {}",
    "{} * {}.tanh()",
    "fastbp.where({} > 0, {}, 0.5 * {})",
    "{} / (2 + {}.tanh())",
)


def fits(inner: tuple[int, ...], outer: tuple[int, ...]) -> bool:
    """Whether a shape broadcasts to another."""
    return len(inner) <= len(outer) and all(m in (1, n) for m, n in zip(inner[::-1], outer[::-1], strict=False))


def unary(w: Writer, a: str) -> str:
    text = w.pick(UNARY)
    a = a if a.isidentifier() else f"({a})"
    return text.replace("{}", a)


def binary(w: Writer, a: str, b: str) -> str:
    text = w.pick(BINARY)
    for one in (a, b, b)[: text.count("{}")]:
        text = text.replace("{}", one, 1)
    return text


def viewed(w: Writer, a: Name) -> tuple[str, tuple[int, ...]]:
    """A view of a tensor, and its shape."""
    shape = a.shape
    ways = []
    if len(shape) >= 2:
        i, j = w.rng.sample(range(len(shape)), 2)
        if 1 in shape and w.maybe(0.5):
            i = shape.index(1)
            j = w.pick([axis for axis in range(len(shape)) if axis != i])
        turned = list(shape)
        turned[i], turned[j] = turned[j], turned[i]
        ways += [(f"{a}.transpose({i}, {j})", tuple(turned))] * 3
        ways.append((f"{a}[..., :{max(shape[-1] - 1, 1)}]", (*shape[:-1], max(shape[-1] - 1, 1))))
        ways.append((f"{a}[..., ::2]", (*shape[:-1], (shape[-1] + 1) // 2)))
    if shape:
        ways.append((f"{a}[0]", shape[1:]))
        ways.append((f"{a}[:1]", (1, *shape[1:])))
        if shape[0] > 1:
            ways.append((f"{a}[1:]", (shape[0] - 1, *shape[1:])))
        ways.append((f"{a}.unsqueeze(0)", (1, *shape)))
        k = w.rng.randrange(len(shape) + 1)
        ways.append((f"{a}.unsqueeze({k})", (*shape[:k], 1, *shape[k:])))
        if shape[0] == 1:
            ways.append((f"{a}.expand(3, {w.listed(shape[1:])})", (3, *shape[1:])))
    count = 1
    for one in shape:
        count *= one
    ways.append((f"{a}.reshape(-1)", (count,)))
    return w.pick(ways)


def turned(w: Writer, a: Name) -> Name:
    """An operand as it is, or with an axis of size 1 at another place before the last."""
    ones = [axis for axis, size in enumerate(a.shape[:-1]) if size == 1]
    if not ones or len(a.shape) < 3 or w.maybe(0.4):
        return a
    i = w.pick(ones)
    j = w.pick([axis for axis in range(len(a.shape) - 1) if axis != i])
    shape = list(a.shape)
    shape[i], shape[j] = shape[j], shape[i]
    return Name(f"{a}.transpose({i}, {j})", tuple(shape))


def product(w: Writer, a: Name, weights: list[Name]) -> tuple[str, tuple[int, ...]] | None:
    """A product of a tensor with one of the weights, or with itself turned."""
    if not a.shape:
        return None
    a, k = turned(w, a), a.shape[-1]
    ways: list[tuple[str, tuple[int, ...]]] = []
    for b in weights:
        if len(b.shape) == 1 and b.shape[0] == k:
            ways.append((f"({a} @ {b})", a.shape[:-1]))
        if len(b.shape) == 2 and b.shape[1] == k:
            ways += [(f"F.linear({a}, {b})", (*a.shape[:-1], b.shape[0]))] * 2
            ways.append((f"({a} @ {b}.t())", (*a.shape[:-1], b.shape[0])))
        if len(b.shape) == 2 and b.shape[0] == k:
            ways.append((f"({a} @ {b})", (*a.shape[:-1], b.shape[1])))
    if len(a.shape) >= 2:
        ways.append((f"({a} @ {a}.transpose(-1, -2) * 0.3)", (*a.shape[:-1], a.shape[-2])))
    if not ways:
        return None
    w.use("product")
    if len(a.shape) > 2:
        w.use("many-axis product")
    return w.pick(ways)


def grow(w: Writer, values: list[Name], lines: list[str], count: int, first: Name | None = None) -> Name:
    """Append `count` lines of operations; each makes a value that later ones may use. Returns the last."""
    last = first or w.pick(values)
    for _ in range(count):
        a = last if w.maybe(0.6) else w.pick(values)
        kind = w.rng.random()
        made: tuple[str, tuple[int, ...]] | None = None
        if kind < 0.3:
            made = unary(w, a.name), a.shape
        elif kind < 0.5:
            others = [b for b in values if fits(b.shape, a.shape)]
            made = (binary(w, a.name, w.pick(others).name), a.shape) if others else None
        elif kind < 0.68:
            made = viewed(w, a)
        elif kind < 0.92 or (len(a.shape) > 2 and w.maybe(0.3)):
            made = product(w, a, [one for one in values if one is not a])
        elif a.shape:
            axis = w.rng.randrange(len(a.shape))
            made = f"{a}.{w.pick(['sum', 'mean'])}({axis}) * 0.5", (*a.shape[:axis], *a.shape[axis + 1 :])
        size = 1
        for one in made[1] if made else ():
            size *= one
        if made is None or size > 600 or len(made[1]) > 4:
            continue
        last = Name(w.name("h"), made[1])
        lines.append(f"{last} = {made[0]}")
        values.append(last)
    return last


def term(w: Writer, p: Name, values: list[Name], constants: bool = True) -> str:
    """A number that depends on a parameter: linear in it, through a product, or through operations on both."""
    data = [one for one in values if one is not p]
    same = [one for one in data if one.shape == p.shape and one.argument]
    broad = [one for one in data if fits(p.shape, one.shape)]
    weighted = [one for one in data if one.shape and p.shape and one.shape[-1] == p.shape[-1] and len(p.shape) <= 2]
    ways: list[str] = [f"{p}.square().mean()", f"({p} * {p}).sum()", f"({unary(w, p.name)}).sum()"]
    if w.allowed("linear loss"):
        ways += [f"({p} * {w.scalar()}).sum()", f"{p}.sum()"]
    if same and w.allowed("gradient in argument"):
        ways += [f"({p} * {w.pick(same)}).sum()"] * 4
    if broad and w.allowed("linear loss"):
        ways += [f"({w.pick(broad)} * {p}).sum()", f"({p} * {w.pick(broad)}).mean()"]
        ways += [f"({p} * {w.pick(broad)}).square().mean()", f"({w.pick(broad)} * {p} - 1).square().mean()"]
    if weighted:
        one = turned(w, w.pick(weighted))
        if len(p.shape) == 1:
            ways += [f"({one} @ {p}).sum()", f"({one} @ {p}).square().mean()"]
        else:
            ways += [f"F.linear({one}, {p}).square().mean()", f"({one} @ {p}.t()).tanh().sum()"] * 2
            ways += [f"F.linear({one}, {p}).sum()"]
    text: str = w.pick(ways)
    if text in (f"{p}.sum()",) or (" * " in text and "square" not in text and "tanh" not in text):
        w.use("linear loss")
        if any(f"({p} * {one})" in text for one in same):
            w.use("gradient in argument")
    if "@" in text or "linear(" in text:
        w.use("product")
        if any(len(one.shape) > 2 and f"{one}" in text for one in weighted):
            w.use("many-axis product")
    return text
