"""Convolutions, pooling and padding, in one, two and three dimensions alike.

A convolution is told by its taps: all triples (output, input, weight) of positions that are multiplied and added. It
is linear in each of the two factors, so both derivatives are the same taps read from another side, and the transposed
convolution is the convolution with output and input exchanged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import ieee
from .array import Array, Shape, accumulate, coordinates, position, zeros_like
from .reductions import best_index
from .registry import define

Sizes = int | Sequence[int]
Tap = tuple[int, int, int]


def _per_dimension(value: Sizes, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value) * (rank if len(value) == 1 else 1)


def _batched(x: Array, rank: int) -> Array:
    """``x`` with a batch dimension, if it came without."""
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(f"an input of {rank + 1} or {rank + 2} dimensions is needed, not of shape {x.shape}")
    return x if x.ndim == rank + 2 else Array(x.values, (1, *x.shape))


def _like_input(y: Array, x: Array, rank: int) -> Array:
    return y if x.ndim == rank + 2 else Array(y.values, y.shape[1:])


# --- convolution ----------------------------------------------------------------------------------------------------


def _taps(
    small: Shape, large: Shape, weight: Shape, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Iterator[Tap]:
    """Triples (position in ``small``, in ``large``, in ``weight``) of a convolution from ``large`` to ``small``.

    Shapes are [batch, channels, *space]; the weight is [channels of small, channels of large in a group, *kernel].
    """
    in_group, per_group = weight[1], weight[0] * weight[1] // large[1]
    for out in coordinates(small):
        group = out[1] // per_group
        for offset in coordinates(weight[1:]):
            place = [
                o * s - p + k * d for o, s, p, k, d in zip(out[2:], stride, padding, offset[1:], dilation, strict=True)
            ]
            if all(0 <= at < n for at, n in zip(place, large[2:], strict=True)):
                channel = group * in_group + offset[0]
                yield (
                    position(out, small),
                    position((out[0], channel, *place), large),
                    position((out[1], *offset), weight),
                )


def _multiplied(taps: Sequence[Tap], a: Array, b: Array, sides: tuple[int, int, int], shape: Shape) -> Array:
    """result[t[sides[0]]] += a[t[sides[1]]] * b[t[sides[2]]] over the taps t."""
    products = [a.values[t[sides[1]]] * b.values[t[sides[2]]] for t in taps]
    return accumulate(products, [t[sides[0]] for t in taps], shape)


def _with_bias(y: Array, bias: Array | None) -> Array:
    if bias is None:
        return y
    pairs = zip(y.values, coordinates(y.shape), strict=True)
    return Array([value + bias.values[at[1]] for value, at in pairs], y.shape)


def _bias_gradient(cotangent: Array, bias: Array | None) -> Array | None:
    if bias is None:
        return None
    return accumulate(cotangent.values, (at[1] for at in coordinates(cotangent.shape)), bias.shape)


def _define_convolution(rank: int) -> None:
    def plan(
        x: Array, weight: Array, stride: Sizes, padding: Sizes | str, dilation: Sizes, groups: int
    ) -> tuple[Shape, list[Tap]]:
        steps, spread = _per_dimension(stride, rank), _per_dimension(dilation, rank)
        reach = [d * (k - 1) for d, k in zip(spread, weight.shape[2:], strict=True)]
        if padding == "same":  # the odd one of an even kernel comes at the end
            before = tuple(r // 2 for r in reach)
            room = [n + r for n, r in zip(x.shape[2:], reach, strict=True)]
        else:
            before = (0,) * rank if isinstance(padding, str) else _per_dimension(padding, rank)
            room = [n + 2 * p for n, p in zip(x.shape[2:], before, strict=True)]
        if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
            raise ValueError(f"conv{rank}d: shapes {x.shape} and {weight.shape} do not fit with {groups} groups")
        space = [(n - r - 1) // s + 1 for n, r, s in zip(room, reach, steps, strict=True)]
        shape = (x.shape[0], weight.shape[0], *space)
        return shape, list(_taps(shape, x.shape, weight.shape, steps, before, spread))

    def forward(
        x: Array,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> Array:
        full = _batched(x, rank)
        shape, taps = plan(full, weight, stride, padding, dilation, groups)
        return _like_input(_with_bias(_multiplied(taps, full, weight, (0, 1, 2), shape), bias), x, rank)

    def vjp(
        cotangent: Array,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
    ) -> tuple[Array | None, ...]:
        full, pulled = _batched(x, rank), _batched(cotangent, rank)
        _, taps = plan(full, weight, stride, padding, dilation, groups)
        to_x = _multiplied(taps, pulled, weight, (1, 0, 2), full.shape)
        to_weight = _multiplied(taps, pulled, full, (2, 0, 1), weight.shape)
        return Array(to_x.values, x.shape), to_weight, _bias_gradient(pulled, bias)

    define(f"conv{rank}d", forward, vjp)


def _define_transposed_convolution(rank: int) -> None:
    def plan(
        x: Array, weight: Array, stride: Sizes, padding: Sizes, output_padding: Sizes, groups: int, dilation: Sizes
    ) -> tuple[Shape, list[Tap]]:
        steps, spread, before = (_per_dimension(value, rank) for value in (stride, dilation, padding))
        extra = _per_dimension(output_padding, rank)
        if x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
            raise ValueError(f"conv_transpose{rank}d: shapes {x.shape} and {weight.shape} do not fit")
        rows = zip(x.shape[2:], steps, before, spread, weight.shape[2:], extra, strict=True)
        space = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in rows]
        shape = (x.shape[0], weight.shape[1] * groups, *space)
        return shape, list(_taps(x.shape, shape, weight.shape, steps, before, spread))

    def forward(
        x: Array,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
    ) -> Array:
        full = _batched(x, rank)
        shape, taps = plan(full, weight, stride, padding, output_padding, groups, dilation)
        return _like_input(_with_bias(_multiplied(taps, full, weight, (1, 0, 2), shape), bias), x, rank)

    def vjp(
        cotangent: Array,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        dilation: Sizes = 1,
    ) -> tuple[Array | None, ...]:
        full, pulled = _batched(x, rank), _batched(cotangent, rank)
        _, taps = plan(full, weight, stride, padding, output_padding, groups, dilation)
        to_x = _multiplied(taps, pulled, weight, (0, 1, 2), full.shape)
        to_weight = _multiplied(taps, pulled, full, (2, 1, 0), weight.shape)
        return Array(to_x.values, x.shape), to_weight, _bias_gradient(pulled, bias)

    define(f"conv_transpose{rank}d", forward, vjp)


# --- pooling --------------------------------------------------------------------------------------------------------

Window = tuple[list[int], int]
"""Positions in one channel's space that a window covers, and its number of elements with the padding."""


def _windows(
    space: Shape, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes, ceil_mode: bool
) -> tuple[Shape, list[Window]]:
    rank = len(space)
    kernel, before, spread = (_per_dimension(value, rank) for value in (kernel_size, padding, dilation))
    steps = _per_dimension(kernel_size if stride is None else stride, rank)
    sizes = []
    for n, k, s, p, d in zip(space, kernel, steps, before, spread, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        size = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (size - 1) * s >= n + p:  # a window may not begin in the padding at the end
            size -= 1
        sizes.append(size)
    windows = []
    for at in coordinates(tuple(sizes)):
        starts = [o * s - p for o, s, p in zip(at, steps, before, strict=True)]
        covered = [range(b, b + k * d, d) for b, k, d in zip(starts, kernel, spread, strict=True)]
        inside = [[c for c in r if 0 <= c < n] for r, n in zip(covered, space, strict=True)]
        full = math.prod(sum(c < n + p for c in r) for r, n, p in zip(covered, space, before, strict=True))
        windows.append(([position(co, space) for co in itertools.product(*inside)], full))
    return tuple(sizes), windows


def _adaptive_windows(space: Shape, output_size: Sizes) -> tuple[Shape, list[Window]]:
    """Window i of m over n elements goes from floor(i n / m) to ceil((i + 1) n / m)."""
    sizes = _per_dimension(output_size, len(space))
    windows = []
    for at in coordinates(sizes):
        covered = [range(i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip(at, space, sizes, strict=True)]
        positions = [position(co, space) for co in itertools.product(*covered)]
        windows.append((positions, len(positions)))
    return sizes, windows


def _define_pooling(name: str, rank: int, plan: Callable[..., tuple[Shape, list[Window]]], largest: bool) -> None:
    """Enter a pooling: every channel of every sample is taken by itself."""

    def shares(values: Sequence[Any], window: Window, **attributes: Any) -> list[tuple[int, float]]:
        """The elements that the window's result is made of, with their factors."""
        inside, full = window
        if largest:
            return [(inside[best_index([values[p] for p in inside], 1)], 1.0)]
        count = attributes.get("divisor_override") or (
            full if attributes.get("count_include_pad", True) else len(inside)
        )
        return [(p, 1.0 / count) for p in inside]

    def split(x: Array, attributes: dict[str, Any]) -> tuple[Shape, list[Window], int]:
        if x.ndim not in (rank + 1, rank + 2):
            raise ValueError(f"{name}: an input of {rank + 1} or {rank + 2} dimensions is needed, not {x.shape}")
        known = {k: v for k, v in attributes.items() if k not in ("count_include_pad", "divisor_override")}
        space = x.shape[-rank:]
        return *plan(space, **known), math.prod(space)

    def forward(x: Array, **attributes: Any) -> Any:
        with_indices = attributes.pop("return_indices", False)
        sizes, windows, area = split(x, attributes)
        values, indices = [], []
        for start in range(0, x.size, area):
            channel = x.values[start : start + area]
            for window in windows:
                terms = shares(channel, window, **attributes)
                values.append(ieee.total([channel[p] * factor for p, factor in terms]))
                indices.append(terms[0][0])
        shape = (*x.shape[:-rank], *sizes)
        return (Array(values, shape), Array(indices, shape)) if with_indices else Array(values, shape)

    def vjp(cotangent: Any, x: Array, **attributes: Any) -> tuple[Array]:
        attributes.pop("return_indices", False)
        pulled = cotangent[0] if isinstance(cotangent, tuple) else cotangent
        _, windows, area = split(x, attributes)
        gradient = zeros_like(x)
        for channel, start in enumerate(range(0, x.size, area)):
            arriving = pulled.values[channel * len(windows) : (channel + 1) * len(windows)]
            for g, window in zip(arriving, windows, strict=True):
                for p, factor in shares(x.values[start : start + area], window, **attributes):
                    gradient.values[start + p] += g * factor
        return (gradient,)

    define(name, forward, vjp)


def _pool_plan(
    space: Shape,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> tuple[Shape, list[Window]]:
    return _windows(space, kernel_size, stride, padding, dilation, ceil_mode)


for _rank in (1, 2, 3):
    _define_convolution(_rank)
    _define_transposed_convolution(_rank)
    _define_pooling(f"max_pool{_rank}d", _rank, _pool_plan, largest=True)
    _define_pooling(f"avg_pool{_rank}d", _rank, _pool_plan, largest=False)
    _define_pooling(f"adaptive_max_pool{_rank}d", _rank, _adaptive_windows, largest=True)
    _define_pooling(f"adaptive_avg_pool{_rank}d", _rank, _adaptive_windows, largest=False)

# --- padding --------------------------------------------------------------------------------------------------------


def _padded_index(index: int, size: int, mode: str) -> int | None:
    """Which element stands at ``index`` of a line of ``size`` continued beyond its ends; None: the constant."""
    if 0 <= index < size:
        return index
    if mode == "constant":
        return None
    if mode == "replicate":
        return min(max(index, 0), size - 1)
    if mode == "circular":
        return index % size
    if mode != "reflect":
        raise ValueError(f"pad: unknown mode {mode!r}")
    return -index if index < 0 else 2 * (size - 1) - index


def _pad_sources(shape: Shape, pad: Sequence[int], mode: str) -> tuple[Shape, list[int | None]]:
    """``pad`` holds (before, after) from the last dimension on backwards; negative numbers cut off."""
    lines: list[list[int | None]] = [list(range(n)) for n in shape]
    for number in range(len(pad) // 2):
        axis, (before, after) = len(shape) - 1 - number, pad[2 * number : 2 * number + 2]
        lines[axis] = [_padded_index(i, shape[axis], mode) for i in range(-before, shape[axis] + after)]
    places = itertools.product(*lines)
    sources = [None if None in place else position([c for c in place if c is not None], shape) for place in places]
    return tuple(len(line) for line in lines), sources


def _pad(x: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    shape, sources = _pad_sources(x.shape, pad, mode)
    fill = 0.0 if value is None else value
    return Array([fill if p is None else x.values[p] for p in sources], shape)


def _pad_vjp(
    cotangent: Array, x: Array, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> tuple[Array]:
    _, sources = _pad_sources(x.shape, pad, mode)
    return (accumulate(cotangent.values, sources, x.shape),)


define("pad", _pad, _pad_vjp)
