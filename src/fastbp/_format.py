"""Printed form of tensors, the same text as PyTorch's.

One pass decides how every element of a tensor is written (`_Style`), one recursion lays the elements out.
The tensor's own class stays out of it: values come in as a NumPy array, facts such as the dtype's name as strings.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy

__all__ = ["format_tensor", "get_printoptions", "printoptions", "set_printoptions"]

# How dtypes are prefixed in `dtype=fastbp.float64`.
_MODULE_NAME = "fastbp"

# Dtypes which a reader infers from the digits alone, so that `dtype=` is left out beside the default one.
_SELF_EVIDENT_DTYPES = ("int64", "bool")

# Scientific notation starts where four decimals would hide digits or lines would grow wide.
_SCIENTIFIC_RATIO = 1000.0
_SCIENTIFIC_ABOVE = 1.0e8
_SCIENTIFIC_BELOW = 1.0e-4


@dataclass(frozen=True)
class _Options:
    """The printing options; `set_printoptions` documents each."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}

_options = _Options()


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors are printed.

    Parameters
    ----------
    precision : int, optional
        Digits after the point of floating-point elements. Initially 4.
    threshold : float, optional
        Tensors of more elements are summarised. Initially 1000.
    edgeitems : int, optional
        Elements shown at the beginning and the end of each dimension of a summarised tensor. Initially 3.
    linewidth : int, optional
        Characters per line. Initially 80.
    profile : {"default", "short", "full"}, optional
        A set of the four options above; each of them, if also given, overrides the profile.
    sci_mode : bool, optional
        Force scientific notation on (True) or off (False). None, also when left out, lets the values decide.

    Raises
    ------
    ValueError
        If `profile` is not one of the three names; nothing is changed then.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.set_printoptions(precision=2)
    >>> fastbp.tensor([1.12345])
    tensor([1.12])
    >>> fastbp.set_printoptions(profile="default")
    """
    global _options
    if profile is not None and profile not in _PROFILES:
        raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
    changes = dict(_PROFILES[profile]) if profile is not None else {}
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    changes.update((name, value) for name, value in given.items() if value is not None)
    _options = replace(_options, sci_mode=sci_mode, **changes)


def get_printoptions() -> dict[str, Any]:
    """Return the printing options as a dictionary that `set_printoptions` takes as keyword arguments.

    Examples
    --------
    >>> import fastbp
    >>> fastbp.get_printoptions()["precision"]
    4
    """
    return asdict(_options)


@contextlib.contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """Set the printing options inside a `with` block; arguments are those of `set_printoptions`.

    Examples
    --------
    >>> import fastbp
    >>> with fastbp.printoptions(precision=1):
    ...     print(fastbp.tensor([0.123]))
    tensor([0.1])
    """
    global _options
    before = _options
    set_printoptions(**options)
    try:
        yield
    finally:
        _options = before


@dataclass(frozen=True)
class _Style:
    """How one element becomes text.

    Attributes
    ----------
    template : str
        Argument of `format` for a value, for example ".4f"; empty for integers and booleans.
    suffix : str
        Written after finite values: "." for floating-point tensors whose values are all whole numbers.
    width : int
        Elements are padded on the left to this many characters.
    """

    template: str
    suffix: str
    width: int

    def write(self, value: Any) -> str:
        """Return the padded text of one Python number."""
        text = format(value, self.template) if self.template else str(value)
        if self.suffix and math.isfinite(value):
            text += self.suffix
        return text.rjust(self.width)


def _choose_style(values: numpy.ndarray) -> _Style:
    """Choose how to write the elements of an array of any shape.

    Only finite values other than zero count towards the notation and the width: 0, nan and inf fit anywhere.
    """
    import numpy

    if values.dtype.kind != "f":
        return _Style("", "", max((len(str(value)) for value in values.ravel().tolist()), default=1))
    counted = values[numpy.isfinite(values) & (values != 0)].astype(numpy.float64)
    if counted.size == 0:
        return _Style(".0f", ".", 1)
    magnitude = numpy.abs(counted)
    smallest, largest = float(magnitude.min()), float(magnitude.max())
    whole = bool((counted == numpy.ceil(counted)).all())
    scientific = _options.sci_mode
    if scientific is None:
        scientific = (
            largest / smallest > _SCIENTIFIC_RATIO or largest > _SCIENTIFIC_ABOVE or smallest < _SCIENTIFIC_BELOW
        )
    if scientific:
        template, suffix = f".{_options.precision}e", ""
    elif whole:
        template, suffix = ".0f", "."
    else:
        template, suffix = f".{_options.precision}f", ""
    width = max(len(format(value, template)) for value in counted.tolist()) + len(suffix)
    return _Style(template, suffix, width)


def _is_cut(size: int, summarize: bool) -> bool:
    """Tell whether a dimension of `size` is shown as its two edges only."""
    return summarize and size > 2 * _options.edgeitems


def _shown(values: numpy.ndarray, summarize: bool) -> numpy.ndarray:
    """Return the part of `values` that is printed: each cut dimension reduced to its edges."""
    if not summarize:
        return values
    import numpy

    edge = _options.edgeitems
    for axis, size in enumerate(values.shape):
        if _is_cut(size, summarize):
            values = values.take(numpy.r_[0:edge, size - edge : size], axis=axis)
    return values


def _layout(values: numpy.ndarray, sizes: Sequence[int], indent: int, summarize: bool, style: _Style) -> str:
    """Write the shown part of a tensor.

    Parameters
    ----------
    values : numpy.ndarray
        What `_shown` returned, or one slice of it along the leading dimensions.
    sizes : sequence of int
        The full sizes of the same dimensions, which tell where an ellipsis goes.
    indent : int
        Column of the opening bracket.
    """
    if values.ndim == 0:
        return style.write(values.item())
    cut = _is_cut(sizes[0], summarize)
    edge = _options.edgeitems
    if values.ndim == 1:
        items = [style.write(value) for value in values.tolist()]
        if cut:
            items[edge:edge] = [" ..."] if edge else ["..."]
        per_line = max(1, (_options.linewidth - indent) // (style.width + 2))
        rows = [", ".join(items[first : first + per_line]) for first in range(0, len(items), per_line)]
        line_feeds = 1
    else:
        rows = [_layout(row, sizes[1:], indent + 1, summarize, style) for row in values]
        if cut:
            rows[edge:edge] = ["..."]
        line_feeds = values.ndim - 1
    return "[" + ("," + "\n" * line_feeds + " " * (indent + 1)).join(rows) + "]"


def format_tensor(
    data: Any,
    shape: Sequence[int],
    dtype_name: str,
    requires_grad: bool = False,
    grad_fn_name: str | None = None,
    default_dtype: str = "float32",
    prefix: str = "tensor",
) -> str:
    """Return the `repr` of a tensor.

    Parameters
    ----------
    data : array_like
        The elements, best as a NumPy array of the tensor's dtype (no copy is made of what is not printed).
    shape : sequence of int
        The tensor's shape; `data` must have as many elements.
    dtype_name : str
        The dtype's name without its module: "float32", "float64", "int64", "int32", "uint8" or "bool".
    requires_grad : bool
        Whether a leaf tensor requires its gradient.
    grad_fn_name : str, optional
        Name of the node that produced the tensor, such as "MulBackward0"; it replaces `requires_grad`.
    default_dtype : str
        Name of the default floating-point dtype, which is not spelled out.
    prefix : str
        The word before the parenthesis.

    Returns
    -------
    str
        For example ``tensor([1., 2.], dtype=fastbp.float64, grad_fn=<MulBackward0>)``.

    Examples
    --------
    >>> format_tensor([0.5, 2.0], (2,), "float32", requires_grad=True)
    'tensor([0.5000, 2.0000], requires_grad=True)'
    """
    import numpy

    sizes = tuple(int(size) for size in shape)
    values = numpy.asarray(data).astype(dtype_name, copy=False).reshape(sizes)
    opening = prefix + "("
    notes: list[str] = []
    if values.size == 0:
        # There are no digits to tell the dtype by, and "[]" tells the shape (0,) only.
        body = "[]"
        show_size, show_dtype = values.ndim != 1, dtype_name != default_dtype
    else:
        summarize = values.size > _options.threshold
        shown = _shown(values, summarize)
        body = _layout(shown, sizes, len(opening), summarize, _choose_style(shown))
        show_size = _options.edgeitems == 0
        show_dtype = dtype_name != default_dtype and dtype_name not in _SELF_EVIDENT_DTYPES
    if show_size:
        notes.append(f"size={sizes}")
    if show_dtype:
        notes.append(f"dtype={_MODULE_NAME}.{dtype_name}")
    if grad_fn_name is not None:
        notes.append(f"grad_fn=<{grad_fn_name}>")
    elif requires_grad:
        notes.append("requires_grad=True")
    return _append_notes(opening + body, notes, len(opening))


def _append_notes(text: str, notes: Sequence[str], indent: int) -> str:
    """Append comma-separated notes and the closing parenthesis, each note on a new line where it would not fit."""
    # PyTorch counts one character more than the last line of the elements has (two where it is the only one);
    # kept, for this decides where lines break.
    used = len(text) - text.rfind("\n") + 1
    for note in notes:
        if used + len(note) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + note
            used = indent + len(note)
        else:
            text += ", " + note
            used += len(note) + 2
    return text + ")"
