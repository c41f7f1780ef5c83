"""Comparison of tensors with a message that says where they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._core import Tensor

# torch.testing's tolerances (relative, absolute) by the least precise of the two dtypes; whole numbers must be equal.
TOLERANCES = {"float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raise unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere, as ``torch.testing.assert_close``.

    Parameters
    ----------
    actual, expected : Tensor, array, number, or sequence or mapping of them
        Of equal structure, shapes and (unless ``check_dtype=False``) dtypes.
    allow_subclasses : bool, optional
        Compare tensors of different classes, such as a Parameter with a Tensor. Default: True.
    rtol, atol : float, optional
        Given both or neither. Default: 1.3e-6 and 1e-5 for float32, 1e-7 and 1e-7 for float64, 0 for whole numbers;
        of two dtypes the looser.
    equal_nan : bool, optional
        Take NaN for equal to NaN. Default: False.
    check_dtype, check_stride : bool, optional
        Also demand equal dtypes (default: True) and strides (default: False).
    check_device, check_layout : bool, optional
        For PyTorch's scripts: there is one device and one layout.
    msg : str or callable, optional
        The message on failure, or a function that makes it of the default one.

    Raises
    ------
    AssertionError
        If something differs.
    ValueError
        If only one of ``rtol`` and ``atol`` is given.

    Examples
    --------
    >>> fastbp.testing.assert_close(fastbp.tensor([1.0, 2.0]), fastbp.tensor([1.0, 2.0]))
    """
    if (rtol is None) != (atol is None):
        raise ValueError("assert_close: give both rtol and atol, or neither")
    found = _difference(actual, expected, "", (rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses))
    if found is not None:
        raise AssertionError(found if msg is None else msg if isinstance(msg, str) else msg(found))


def _difference(actual: Any, expected: Any, place: str, options: tuple[Any, ...]) -> str | None:
    """What differs, in words; None where nothing does."""
    if isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or set(actual) != set(expected):
            return f"The keys of the mappings do not match{place}: {_keys(actual)} and {_keys(expected)}"
        return _first(_difference(actual[key], expected[key], f"{place}[{key!r}]", options) for key in expected)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if not isinstance(actual, Sequence) or len(actual) != len(expected):
            return f"The lengths of the sequences do not match{place}: {_length(actual)} and {len(expected)}"
        pairs = enumerate(zip(actual, expected, strict=True))
        return _first(_difference(a, b, f"{place}[{i}]", options) for i, (a, b) in pairs)
    return _leaf_difference(actual, expected, f" at {place}" if place else "", options)


def _first(differences: Any) -> str | None:
    return next((found for found in differences if found is not None), None)


def _keys(value: Any) -> str:
    return str(sorted(value, key=repr)) if isinstance(value, Mapping) else type(value).__name__


def _length(value: Any) -> str:
    return str(len(value)) if isinstance(value, Sequence) else type(value).__name__


def _array(value: Any) -> np.ndarray[Any, Any]:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _leaf_difference(actual: Any, expected: Any, place: str, options: tuple[Any, ...]) -> str | None:
    rtol, atol, equal_nan, check_dtype, check_stride, allow_subclasses = options
    if not allow_subclasses and type(actual) is not type(expected):
        return f"The types do not match{place}: {type(actual).__name__} and {type(expected).__name__}"
    if isinstance(actual, Tensor) != isinstance(expected, Tensor):
        return f"Not both are tensors{place}: {type(actual).__name__} and {type(expected).__name__}"
    a, b = _array(actual), _array(expected)
    if a.shape != b.shape:
        return f"The values for attribute 'shape' do not match{place}: {a.shape} != {b.shape}."
    if check_dtype and a.dtype != b.dtype:
        return f"The values for attribute 'dtype' do not match{place}: {a.dtype} != {b.dtype}."
    if check_stride and isinstance(actual, Tensor) and actual.stride() != expected.stride():
        return f"The values for attribute 'stride()' do not match{place}: {actual.stride()} != {expected.stride()}."
    if rtol is None:
        limits = [TOLERANCES.get(x.dtype.name, (0.0, 0.0)) for x in (a, b)]
        rtol, atol = max(limit[0] for limit in limits), max(limit[1] for limit in limits)
    return _value_difference(a, b, place, rtol, atol, equal_nan)


def _value_difference(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], place: str, rtol: float, atol: float, equal_nan: bool
) -> str | None:
    if rtol == 0 and atol == 0 and a.dtype.kind != "f" and b.dtype.kind != "f":
        wrong = a != b  # exact, where float64 would round large whole numbers
    else:
        wrong = ~np.isclose(a.astype(np.float64), b.astype(np.float64), rtol, atol, equal_nan)
    if not wrong.any():
        return None
    with np.errstate(all="ignore"):
        distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
        relative = distance / np.abs(b.astype(np.float64))
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    lines = [
        f"Tensor-likes are not close{place}!",
        "",
        f"Mismatched elements: {int(wrong.sum())} / {wrong.size} ({100 * wrong.mean():.1f}%)",
        f"Greatest absolute difference: {np.max(distance[wrong], initial=0.0)} (up to {atol} allowed)",
        f"Greatest relative difference: {np.max(relative[wrong], initial=0.0)} (up to {rtol} allowed)",
        f"First mismatch at index {where}: {a[where]!r} and {b[where]!r}",
    ]
    return "\n".join(lines)
