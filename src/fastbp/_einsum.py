"""Einstein summation: `fastbp.einsum`.

An equation is planned once for the operands' shapes, and the plan is kept. Repeated subscripts of an operand become
diagonals, subscripts that nothing else has become sums, and every pair of operands becomes one batched matrix product:
subscripts of both that the result keeps are the batch, those that it drops are multiplied out, the others are rows and
columns. With more than two operands the order is the cheapest of all up to six, and greedy beyond.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ._core import Tensor

Labels = tuple[int, ...]
Shape = tuple[int, ...]

LETTERS = 52  # subscripts; the axes of the ellipsis are numbered behind them
OPTIMAL_UP_TO = 6  # operands: 2**6 sets of them are quickly gone through

USAGE = (
    "einsum(): must specify the equation string and at least one operand, or at least one operand and its "
    "subscripts list"
)


def einsum(*args: Any) -> Tensor:
    """Sums of products of tensors' elements, by Einstein's convention.

    Parameters
    ----------
    *args
        An equation and operands, ``einsum("ij,jk->ik", a, b)`` (the operands may be one list), or operands each with
        a list of subscripts, numbers from 0 to 51 or ``...``, and optionally the result's list:
        ``einsum(a, [0, 1], b, [1, 2], [0, 2])``. Operands have one dtype: float32, float64 or a whole-number one.

        Each letter names an axis; axes of one name have one size, or size 1, which is repeated. Letters that the
        result lacks are summed over. Without ``->`` the result has the letters that appear once, in alphabetical order
        with capitals first. ``...`` stands for the axes without a letter, which are broadcast.

    Returns
    -------
    Tensor
        Maybe a view, where nothing is to be computed.

    Raises
    ------
    ValueError
        Without operands, or for numbers outside of 0 to 51.
    RuntimeError
        For equations that are not well formed, or that do not fit the operands.

    Examples
    --------
    >>> a, b = fastbp.ones(2, 3), fastbp.ones(3, 4)
    >>> fastbp.einsum("ij,jk->k", a, b)
    tensor([6., 6., 6., 6.])

    Notes
    -----
    Semantics are those of torch.einsum. The greedy order is that of Smith and Gray 2018 (opt_einsum).
    """
    if args and isinstance(args[0], Tensor):
        subscripts, output, operands = _from_lists(args)
        _check_operands(operands)
        return _plan(subscripts, output, tuple(x.shape for x in operands)).run(operands)
    if len(args) < 2 or not isinstance(args[0], str):
        raise ValueError(USAGE)
    operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    _check_operands(operands)
    return _planned(args[0], tuple([x.shape for x in operands])).run(operands)


def _check_operands(operands: Sequence[Tensor]) -> None:
    for x in operands:
        if not isinstance(x, Tensor):
            raise TypeError(f"einsum(): operands must be Tensors, got {type(x).__name__}")
        if x.dtype is not operands[0].dtype:
            raise RuntimeError(
                f"einsum(): expected operands of one dtype, but got {operands[0].dtype} and {x.dtype}; cast one with "
                f".to()"
            )


# ---- reading -------------------------------------------------------------------------------------------------------

Pattern = tuple[int | None, ...]  # None: the ellipsis


def _letter(character: str) -> int:
    return ord(character) - (65 if character.isupper() else 71)


def _symbol(label: int) -> str:
    return chr(label + (65 if label < 26 else 71)) if label < LETTERS else "..."


def _read(text: str, start: int, what: str) -> Pattern:
    """The subscripts of one operand or of the result, `start` characters into the equation."""
    found: list[int | None] = []
    at = 0
    while at < len(text):
        if text[at] == ".":
            if None in found:
                raise RuntimeError(f"einsum(): found '.' for {what} for which an ellipsis was already found")
            if text[at : at + 3] != "...":
                raise RuntimeError(f"einsum(): found '.' for {what} that is not part of any ellipsis")
            found.append(None)
            at += 3
            continue
        if text[at] != " ":
            if not (text[at].isascii() and text[at].isalpha()):
                raise RuntimeError(
                    f"einsum(): invalid subscript given at index {start + at} in the equation string, subscripts must "
                    f"be in [a-zA-Z]"
                )
            found.append(_letter(text[at]))
        at += 1
    return tuple(found)


@functools.lru_cache(maxsize=512)
def _planned(equation: str, shapes: tuple[Shape, ...]) -> _Plan:
    """The plan of an equation, read and made once."""
    subscripts, output = _from_equation(equation, len(shapes))
    return _plan(subscripts, output, shapes)


def _from_equation(equation: str, count: int) -> tuple[tuple[Pattern, ...], Pattern | None]:
    left, arrow, right = equation.partition("->")
    subscripts, start = [], 0
    for number, part in enumerate(left.split(",")):
        subscripts.append(_read(part, start, f"operand {number}"))
        start += len(part) + 1
    if len(subscripts) != count:
        which = "fewer" if count < len(subscripts) else "more"
        raise RuntimeError(
            f"einsum(): {which} operands were provided than specified in the equation {equation!r}: {count} for "
            f"{len(subscripts)}"
        )
    return tuple(subscripts), _read(right, len(left) + 2, "the output") if arrow else None


def _from_list(given: Any) -> Pattern:
    found: list[int | None] = []
    for one in given:
        if one is Ellipsis:
            found.append(None)
        elif isinstance(one, int) and 0 <= one < LETTERS:
            found.append(int(one))
        else:
            raise ValueError(f"einsum(): subscript in subscript list is not within the valid range [0, 52): {one!r}")
    return tuple(found)


def _from_lists(args: tuple[Any, ...]) -> tuple[tuple[Pattern, ...], Pattern | None, Sequence[Tensor]]:
    if len(args) < 2:
        raise ValueError(USAGE)
    output = _from_list(args[-1]) if len(args) % 2 else None
    pairs = args[: len(args) - len(args) % 2]
    return tuple(_from_list(s) for s in pairs[1::2]), output, pairs[::2]


# ---- planning ------------------------------------------------------------------------------------------------------


class _Pair(NamedTuple):
    """Two operands to one: permuted, as matrices, multiplied. `shapes` None: an elementwise product."""

    places: tuple[int, int]
    sums: tuple[Labels, Labels]  # axes that only one of them has
    orders: tuple[Labels, Labels]
    shapes: tuple[Shape, Shape]
    is_product: bool
    result: Shape


class _Plan(NamedTuple):
    diagonals: tuple[tuple[tuple[int, int], ...], ...]  # of each operand, in turn
    squeezed: tuple[Labels, ...]  # axes of size 1 where others have more
    pairs: tuple[_Pair, ...]
    sums: Labels
    order: Labels

    def run(self, operands: Sequence[Tensor]) -> Tensor:
        waiting = []
        for x, pairs, squeezed in zip(operands, self.diagonals, self.squeezed, strict=True):
            for first, second in pairs:
                x = x.diagonal(0, first, second)
            waiting.append(x.sum(squeezed) if squeezed else x)
        for pair in self.pairs:
            i, j = pair.places
            right, left = waiting.pop(j), waiting.pop(i)
            waiting.append(_multiply(left, right, pair))
        (result,) = waiting
        if self.sums:
            result = result.sum(self.sums)
        return result if self.order == tuple(range(len(self.order))) else result.permute(self.order)


def _arranged(x: Tensor, sums: Labels, order: Labels, shape: Shape) -> Tensor:
    if sums:
        x = x.sum(sums)
    if order != tuple(range(len(order))):
        x = x.permute(order)
    return x if x.shape == shape else x.reshape(shape)


def _multiply(left: Tensor, right: Tensor, pair: _Pair) -> Tensor:
    a = _arranged(left, pair.sums[0], pair.orders[0], pair.shapes[0])
    b = _arranged(right, pair.sums[1], pair.orders[1], pair.shapes[1])
    result = a @ b if pair.is_product else a * b
    return result if result.shape == pair.result else result.reshape(pair.result)


@functools.lru_cache(maxsize=512)
def _plan(subscripts: tuple[Pattern, ...], output: Pattern | None, shapes: tuple[Shape, ...]) -> _Plan:
    covered = [_covered(n, s, shape) for n, (s, shape) in enumerate(zip(subscripts, shapes, strict=True))]
    most = max(covered)
    labels = [_spelled(s, count, most) for s, count in zip(subscripts, covered, strict=True)]
    wanted = _result_labels(output, labels, most)
    sizes = _sizes(labels, shapes)
    diagonals, squeezed, single = [], [], []
    for own, shape in zip(labels, shapes, strict=True):
        pairs, left, left_shape = _diagonals(own, shape)
        dropped = tuple(at for at, label in enumerate(left) if left_shape[at] == 1 and sizes[label] != 1)
        diagonals.append(tuple(pairs))
        squeezed.append(dropped)
        single.append(tuple(label for at, label in enumerate(left) if at not in dropped))
    pairs_made: list[_Pair] = []
    for i, j in _order(single, wanted, sizes):
        right, left_operand = single.pop(j), single.pop(i)
        needed = {*wanted, *itertools.chain.from_iterable(single)}
        pair, made = _pair((i, j), left_operand, right, needed, sizes)
        pairs_made.append(pair)
        single.append(made)
    (last,) = single
    kept = [label for label in last if label in wanted]
    return _Plan(
        tuple(diagonals),
        tuple(squeezed),
        tuple(pairs_made),
        tuple(at for at, label in enumerate(last) if label not in wanted),
        tuple(kept.index(label) for label in wanted),
    )


def _covered(number: int, subscripts: Pattern, shape: Shape) -> int:
    """How many axes an operand's ellipsis stands for."""
    named = len(subscripts) - subscripts.count(None)
    if named == len(shape) or (None in subscripts and named < len(shape)):
        return len(shape) - named
    more = "" if None in subscripts else " and no ellipsis was given"
    raise RuntimeError(
        f"einsum(): the number of subscripts in the equation ({named}) {'does not match' if more else 'is more than'} "
        f"the number of dimensions ({len(shape)}) for operand {number}{more}"
    )


def _spelled(subscripts: Pattern, covered: int, most: int) -> Labels:
    """Subscripts with the ellipsis written out; broadcasting aligns it on the right."""
    ellipsis = tuple(range(LETTERS + most - covered, LETTERS + most))
    return tuple(itertools.chain.from_iterable(ellipsis if s is None else (s,) for s in subscripts))


def _result_labels(output: Pattern | None, labels: Sequence[Labels], most: int) -> Labels:
    counts: dict[int, int] = {}
    for label in itertools.chain.from_iterable(labels):
        counts[label] = counts.get(label, 0) + 1
    if output is None:
        once = sorted(label for label, count in counts.items() if count == 1 and label < LETTERS)
        return (*range(LETTERS, LETTERS + most), *once)
    for s in output:
        if output.count(s) > 1:
            raise RuntimeError(f"einsum(): output subscript {_symbol(LETTERS if s is None else s)} appears more than "
                               f"once in the output")  # fmt: skip
        if s is not None and s not in counts:
            raise RuntimeError(
                f"einsum(): output subscript {_symbol(s)} does not appear in the equation for any input operand"
            )
    return _spelled(output, most, most)


def _sizes(labels: Sequence[Labels], shapes: Sequence[Shape]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for number, (own, shape) in enumerate(zip(labels, shapes, strict=True)):
        here: dict[int, int] = {}
        for label, size in zip(own, shape, strict=True):
            if here.setdefault(label, size) != size:
                raise RuntimeError(
                    f"einsum(): subscript {_symbol(label)} is repeated for operand {number} but the sizes don't "
                    f"match, {size} != {here[label]}"
                )
            before = sizes.get(label, 1)
            if size != 1 and before not in (1, size):
                raise RuntimeError(
                    f"einsum(): subscript {_symbol(label)} has size {size} for operand {number} which does not "
                    f"broadcast with previously seen size {before}"
                )
            sizes[label] = before if size == 1 else size
    return sizes


def _diagonals(labels: Labels, shape: Shape) -> tuple[list[tuple[int, int]], Labels, Shape]:
    """Pairs of axes to take diagonals of, one after the other; what is left. A diagonal is a new last axis."""
    pairs: list[tuple[int, int]] = []
    left, sizes = list(labels), list(shape)
    while True:
        repeated = next(((i, j) for i, j in itertools.combinations(range(len(left)), 2) if left[i] == left[j]), None)
        if repeated is None:
            return pairs, tuple(left), tuple(sizes)
        pairs.append(repeated)
        label, size = left[repeated[0]], sizes[repeated[0]]
        for at in reversed(repeated):
            del left[at], sizes[at]
        left.append(label)
        sizes.append(size)


def _pair(
    places: tuple[int, int], left: Labels, right: Labels, needed: set[int], sizes: dict[int, int]
) -> tuple[_Pair, Labels]:
    """How to multiply two operands, and the subscripts of the result."""

    def extent(labels: Labels) -> int:
        return math.prod(sizes[label] for label in labels)

    alone = [
        tuple(at for at, label in enumerate(own) if label not in needed and label not in other)
        for own, other in ((left, right), (right, left))
    ]
    a = tuple(label for at, label in enumerate(left) if at not in alone[0])
    b = tuple(label for at, label in enumerate(right) if at not in alone[1])
    batch = tuple(label for label in a if label in b and label in needed)
    inner = tuple(label for label in a if label in b and label not in needed)
    rows, columns = (tuple(label for label in own if label not in batch + inner) for own in (a, b))
    result = (*batch, *rows, *columns)
    orders = (
        tuple(a.index(label) for label in (*batch, *rows, *inner)),
        tuple(b.index(label) for label in (*batch, *inner, *columns)),
    )
    lead = (extent(batch),) if batch else ()
    if inner:
        shapes = (
            (*lead, *((extent(rows),) if rows or batch else ()), extent(inner)),
            (*lead, extent(inner), *((extent(columns),) if columns or batch else ())),
        )
    else:  # nothing to sum over: rows stand against columns
        shapes = (
            tuple(sizes[label] for label in (*batch, *rows)) + (1,) * len(columns),
            tuple(sizes[label] for label in batch) + (1,) * len(rows) + tuple(sizes[label] for label in columns),
        )
    extents = tuple(sizes[label] for label in result)
    return _Pair(places, (alone[0], alone[1]), orders, shapes, bool(inner), extents), result


# ---- the order -----------------------------------------------------------------------------------------------------


def _order(operands: Sequence[Labels], wanted: Labels, sizes: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Places of the next two, the first before the second; their product goes to the end of the list."""
    if len(operands) <= 2:
        return iter([(0, 1)] if len(operands) == 2 else [])
    path = _best if len(operands) <= OPTIMAL_UP_TO else _greedy
    return iter(path([frozenset(labels) for labels in operands], frozenset(wanted), sizes))


def _extent(labels: frozenset[int], sizes: dict[int, int]) -> int:
    return math.prod(sizes[label] for label in labels)


def _best(operands: list[frozenset[int]], wanted: frozenset[int], sizes: dict[int, int]) -> list[tuple[int, int]]:
    """The order with the fewest multiplications: the best way to each set of operands from those to its halves."""
    count = len(operands)
    everything = (1 << count) - 1

    def labels_of(chosen: int) -> frozenset[int]:
        inside = frozenset().union(*(operands[i] for i in range(count) if chosen >> i & 1))
        outside = wanted.union(*(operands[i] for i in range(count) if not chosen >> i & 1))
        return inside & outside

    kept = {chosen: labels_of(chosen) for chosen in range(1, everything + 1)}
    cost = {1 << i: 0 for i in range(count)}
    halves: dict[int, tuple[int, int]] = {}
    for chosen in range(1, everything + 1):
        if chosen in cost:
            continue
        part = (chosen - 1) & chosen
        while part:
            other = chosen ^ part
            if part > other:  # each split once
                total = cost[part] + cost[other] + _extent(kept[part] | kept[other], sizes)
                if total < cost.get(chosen, total + 1):
                    cost[chosen], halves[chosen] = total, (part, other)
            part = (part - 1) & chosen
    return _places(halves, everything, count)


def _places(halves: dict[int, tuple[int, int]], everything: int, count: int) -> list[tuple[int, int]]:
    """A tree of splits as places in the list of what is left."""
    waiting = [1 << i for i in range(count)]
    found: list[tuple[int, int]] = []

    def make(chosen: int) -> None:
        if chosen not in halves:
            return
        for half in halves[chosen]:
            make(half)
        i, j = sorted(waiting.index(half) for half in halves[chosen])
        del waiting[j], waiting[i]
        waiting.append(chosen)
        found.append((i, j))

    make(everything)
    return found


def _greedy(operands: list[frozenset[int]], wanted: frozenset[int], sizes: dict[int, int]) -> list[tuple[int, int]]:
    """Each time the pair whose product takes least room beyond what its factors took; then the least work."""
    waiting, found = list(operands), []
    while len(waiting) > 1:

        def judged(pair: tuple[int, int]) -> tuple[int, int]:
            i, j = pair
            others = wanted.union(*(labels for at, labels in enumerate(waiting) if at not in pair))
            both = waiting[i] | waiting[j]
            room = _extent(both & others, sizes) - _extent(waiting[i], sizes) - _extent(waiting[j], sizes)
            return room, _extent(both, sizes)

        i, j = min(itertools.combinations(range(len(waiting)), 2), key=judged)
        others = wanted.union(*(labels for at, labels in enumerate(waiting) if at not in (i, j)))
        made = (waiting[i] | waiting[j]) & others
        del waiting[j], waiting[i]
        waiting.append(made)
        found.append((i, j))
    return found
