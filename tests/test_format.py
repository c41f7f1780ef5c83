"""Printed form of tensors: the text that PyTorch 2.13 prints for the same values, with its module's name replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastbp import _format

# Name, values, dtype, arguments of format_tensor, options, text.
CASES: list[tuple[str, Any, str, dict[str, Any], dict[str, Any], str]] = [
    ("scalar", 3.5, "float32", {}, {}, "tensor(3.5000)"),
    ("scalar_whole", 2.0, "float32", {"requires_grad": True}, {}, "tensor(2., requires_grad=True)"),
    ("scalar_int", 7, "int64", {}, {}, "tensor(7)"),
    ("scalar_bool", True, "bool", {}, {}, "tensor(True)"),
    ("scalar_small", 1e-5, "float32", {}, {}, "tensor(1.0000e-05)"),
    ("scalar_nan", float("nan"), "float32", {}, {}, "tensor(nan)"),
    ("whole_floats", [1.0, -2.0, 30.0], "float32", {}, {}, "tensor([ 1., -2., 30.])"),
    ("fractions", [0.5, -12.25, 3.0], "float32", {}, {}, "tensor([  0.5000, -12.2500,   3.0000])"),
    ("negative_zero", [-0.0, 0.0], "float32", {}, {}, "tensor([-0., 0.])"),
    ("zeros", np.zeros((2, 3)), "float32", {}, {}, ("tensor([[0., 0., 0.],\n        [0., 0., 0.]])")),
    (
        "nan_and_inf",
        [float("nan"), float("inf"), -float("inf"), 1.5],
        "float32",
        {},
        {},
        "tensor([   nan,    inf,   -inf, 1.5000])",
    ),
    (
        "nan_and_inf_whole",
        [float("nan"), float("inf"), -float("inf"), 15.0],
        "float32",
        {},
        {},
        "tensor([nan, inf, -inf, 15.])",
    ),
    ("only_nonfinite", [float("nan"), -float("inf")], "float32", {}, {}, "tensor([nan, -inf])"),
    ("ratio_at_limit", [1.5, 1500.0], "float32", {}, {}, "tensor([   1.5000, 1500.0000])"),
    ("ratio_above_limit", [1.5, 1501.0], "float32", {}, {}, "tensor([1.5000e+00, 1.5010e+03])"),
    ("large_at_limit", [1e8, 9e7], "float64", {}, {}, "tensor([100000000.,  90000000.], dtype=fastbp.float64)"),
    ("large_above_limit", [1.5e8, 9e7], "float64", {}, {}, "tensor([1.5000e+08, 9.0000e+07], dtype=fastbp.float64)"),
    ("small_below_limit", [9.9e-5, 5e-4], "float64", {}, {}, "tensor([9.9000e-05, 5.0000e-04], dtype=fastbp.float64)"),
    ("whole_scientific", [1.0, 123456.0, 0.0], "float32", {}, {}, "tensor([1.0000e+00, 1.2346e+05, 0.0000e+00])"),
    (
        "scientific_with_nan",
        [1e-6, float("nan"), -2.0],
        "float32",
        {},
        {},
        "tensor([ 1.0000e-06,         nan, -2.0000e+00])",
    ),
    ("denormal", [5e-324, 1e308], "float64", {}, {}, "tensor([4.9407e-324, 1.0000e+308], dtype=fastbp.float64)"),
    ("float64", [0.1, 0.2], "float64", {}, {}, "tensor([0.1000, 0.2000], dtype=fastbp.float64)"),
    ("float64_default", [0.1, 0.2], "float64", {"default_dtype": "float64"}, {}, "tensor([0.1000, 0.2000])"),
    (
        "float32_not_default",
        [0.1, 0.2],
        "float32",
        {"default_dtype": "float64"},
        {},
        "tensor([0.1000, 0.2000], dtype=fastbp.float32)",
    ),
    ("int64", [[1, -20], [300, 4]], "int64", {}, {}, ("tensor([[  1, -20],\n        [300,   4]])")),
    ("int32", [1, 2, 3], "int32", {}, {}, "tensor([1, 2, 3], dtype=fastbp.int32)"),
    ("uint8", [0, 255], "uint8", {}, {}, "tensor([  0, 255], dtype=fastbp.uint8)"),
    ("bool", [[True, False], [False, True]], "bool", {}, {}, ("tensor([[ True, False],\n        [False,  True]])")),
    ("empty", np.zeros((0,)), "float32", {}, {}, "tensor([])"),
    ("empty_2d", np.zeros((0, 3)), "float32", {}, {}, "tensor([], size=(0, 3))"),
    ("empty_int64", np.zeros((2, 0)), "int64", {}, {}, "tensor([], size=(2, 0), dtype=fastbp.int64)"),
    ("empty_bool", np.zeros((0,)), "bool", {}, {}, "tensor([], dtype=fastbp.bool)"),
    (
        "grad_fn",
        [1.0, 2.0],
        "float32",
        {"requires_grad": True, "grad_fn_name": "MulBackward0"},
        {},
        "tensor([1., 2.], grad_fn=<MulBackward0>)",
    ),
    (
        "requires_grad",
        [1.0, 2.0],
        "float64",
        {"requires_grad": True},
        {},
        "tensor([1., 2.], dtype=fastbp.float64, requires_grad=True)",
    ),
    (
        "matrix",
        np.arange(6.0).reshape(2, 3) / 4,
        "float32",
        {},
        {},
        ("tensor([[0.0000, 0.2500, 0.5000],\n        [0.7500, 1.0000, 1.2500]])"),
    ),
    (
        "three_dimensions",
        np.arange(8).reshape(2, 2, 2),
        "int64",
        {},
        {},
        ("tensor([[[0, 1],\n         [2, 3]],\n\n        [[4, 5],\n         [6, 7]]])"),
    ),
    (
        "four_dimensions",
        np.arange(8.0).reshape(2, 1, 2, 2),
        "float32",
        {"requires_grad": True},
        {},
        (
            "tensor([[[[0., 1.],\n"
            "          [2., 3.]]],\n"
            "\n"
            "\n"
            "        [[[4., 5.],\n"
            "          [6., 7.]]]], requires_grad=True)"
        ),
    ),
    (
        "wrapped_vector",
        np.arange(30) * 1000,
        "int64",
        {},
        {},
        (
            "tensor([    0,  1000,  2000,  3000,  4000,  5000,  6000,  7000,  8000,  9000,\n"
            "        10000, 11000, 12000, 13000, 14000, 15000, 16000, 17000, 18000, 19000,\n"
            "        20000, 21000, 22000, 23000, 24000, 25000, 26000, 27000, 28000, 29000])"
        ),
    ),
    (
        "wrapped_floats",
        np.arange(24) / 8,
        "float32",
        {},
        {},
        (
            "tensor([0.0000, 0.1250, 0.2500, 0.3750, 0.5000, 0.6250, 0.7500, 0.8750, 1.0000,\n"
            "        1.1250, 1.2500, 1.3750, 1.5000, 1.6250, 1.7500, 1.8750, 2.0000, 2.1250,\n"
            "        2.2500, 2.3750, 2.5000, 2.6250, 2.7500, 2.8750])"
        ),
    ),
    (
        "wrapped_notes",
        np.arange(7) / 8 - 0.5,
        "float64",
        {"requires_grad": True, "grad_fn_name": "DivBackward0"},
        {},
        (
            "tensor([-0.5000, -0.3750, -0.2500, -0.1250,  0.0000,  0.1250,  0.2500],\n"
            "       dtype=fastbp.float64, grad_fn=<DivBackward0>)"
        ),
    ),
    (
        "notes_on_two_lines",
        np.arange(7) / 8 + 10,
        "float32",
        {"requires_grad": True, "grad_fn_name": "DivBackward0"},
        {},
        ("tensor([10.0000, 10.1250, 10.2500, 10.3750, 10.5000, 10.6250, 10.7500],\n       grad_fn=<DivBackward0>)"),
    ),
    ("summarized_vector", np.arange(1001), "int64", {}, {}, "tensor([   0,    1,    2,  ...,  998,  999, 1000])"),
    (
        "summarized_floats",
        np.arange(2000) / 2,
        "float32",
        {"requires_grad": True},
        {},
        (
            "tensor([0.0000e+00, 5.0000e-01, 1.0000e+00,  ..., 9.9850e+02, 9.9900e+02,\n"
            "        9.9950e+02], requires_grad=True)"
        ),
    ),
    (
        "summarized_matrix",
        np.arange(10000.0).reshape(100, 100),
        "float32",
        {},
        {},
        (
            "tensor([[0.0000e+00, 1.0000e+00, 2.0000e+00,  ..., 9.7000e+01, 9.8000e+01,\n"
            "         9.9000e+01],\n"
            "        [1.0000e+02, 1.0100e+02, 1.0200e+02,  ..., 1.9700e+02, 1.9800e+02,\n"
            "         1.9900e+02],\n"
            "        [2.0000e+02, 2.0100e+02, 2.0200e+02,  ..., 2.9700e+02, 2.9800e+02,\n"
            "         2.9900e+02],\n"
            "        ...,\n"
            "        [9.7000e+03, 9.7010e+03, 9.7020e+03,  ..., 9.7970e+03, 9.7980e+03,\n"
            "         9.7990e+03],\n"
            "        [9.8000e+03, 9.8010e+03, 9.8020e+03,  ..., 9.8970e+03, 9.8980e+03,\n"
            "         9.8990e+03],\n"
            "        [9.9000e+03, 9.9010e+03, 9.9020e+03,  ..., 9.9970e+03, 9.9980e+03,\n"
            "         9.9990e+03]])"
        ),
    ),
    (
        "summarized_thin",
        np.arange(1200).reshape(400, 3),
        "int64",
        {},
        {},
        (
            "tensor([[   0,    1,    2],\n"
            "        [   3,    4,    5],\n"
            "        [   6,    7,    8],\n"
            "        ...,\n"
            "        [1191, 1192, 1193],\n"
            "        [1194, 1195, 1196],\n"
            "        [1197, 1198, 1199]])"
        ),
    ),
    (
        "hidden_values_do_not_count",
        np.r_[np.ones(500), 0.123456, np.ones(500)],
        "float32",
        {},
        {},
        "tensor([1., 1., 1.,  ..., 1., 1., 1.])",
    ),
    (
        "precision",
        [0.123456789, 1.0],
        "float64",
        {},
        {"precision": 8},
        "tensor([0.12345679, 1.00000000], dtype=fastbp.float64)",
    ),
    ("precision_zero", [0.6, 1.0], "float32", {}, {"precision": 0}, "tensor([1, 1])"),
    ("threshold_and_edges", np.arange(10), "int64", {}, {"threshold": 5, "edgeitems": 1}, "tensor([0,  ..., 9])"),
    ("no_edges", np.arange(10), "int64", {}, {"threshold": 5, "edgeitems": 0}, "tensor([...], size=(10,))"),
    (
        "linewidth",
        np.arange(12),
        "int64",
        {},
        {"linewidth": 20},
        ("tensor([ 0,  1,  2,\n         3,  4,  5,\n         6,  7,  8,\n         9, 10, 11])"),
    ),
    ("short_profile", [1.23456, 2.0], "float32", {}, {"profile": "short"}, "tensor([1.23, 2.00])"),
    ("scientific_forced", [1.0, 2.0], "float32", {}, {"sci_mode": True}, "tensor([1.0000e+00, 2.0000e+00])"),
    ("scientific_forbidden", [1e-6, 2.0], "float32", {}, {"sci_mode": False}, "tensor([0.0000, 2.0000])"),
]


@pytest.fixture(autouse=True)
def _default_options() -> Iterator[None]:
    """Every test starts from the default options and leaves them behind."""
    _format.set_printoptions(profile="default")
    yield
    _format.set_printoptions(profile="default")


def render(values: Any, dtype: str, **arguments: Any) -> str:
    """Print values as a tensor of the dtype."""
    array = np.asarray(values).astype(dtype)
    return _format.format_tensor(array, array.shape, dtype, **arguments)


@pytest.mark.parametrize(
    ("values", "dtype", "arguments", "options", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_same_text_as_pytorch(
    values: Any, dtype: str, arguments: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    _format.set_printoptions(**options)
    assert render(values, dtype, **arguments) == expected


def test_case_names_are_unique() -> None:
    assert len({case[0] for case in CASES}) == len(CASES)


def test_summary_starts_above_the_threshold() -> None:
    assert "..." not in render(np.zeros(1000), "float32")
    assert "..." in render(np.zeros(1001), "float32")


def test_full_profile_never_summarizes() -> None:
    _format.set_printoptions(profile="full")
    assert render(np.zeros(1001), "bool").count("False") == 1001


def test_nested_lists_are_accepted() -> None:
    assert _format.format_tensor([[1, 2], [3, 4]], (2, 2), "int64") == "tensor([[1, 2],\n        [3, 4]])"


def test_prefix_moves_the_indent() -> None:
    text = _format.format_tensor([[1, 2], [3, 4]], (2, 2), "int64", prefix="Buffer")
    assert text == "Buffer([[1, 2],\n        [3, 4]])"


def test_noncontiguous_values() -> None:
    assert render(np.arange(6).reshape(2, 3).T, "int64") == "tensor([[0, 3],\n        [1, 4],\n        [2, 5]])"


def test_values_are_left_unchanged() -> None:
    values = np.array([1.5, -0.0, np.nan])
    before = values.copy()
    render(values, "float64")
    np.testing.assert_array_equal(values, before)


def test_options_survive_an_unknown_profile() -> None:
    before = _format.get_printoptions()
    with pytest.raises(ValueError, match="profile must be one of default, short, full, got 'tiny'"):
        _format.set_printoptions(precision=1, profile="tiny")
    assert _format.get_printoptions() == before


def test_an_option_overrides_the_profile() -> None:
    _format.set_printoptions(profile="short", precision=6)
    assert _format.get_printoptions()["precision"] == 6
    assert _format.get_printoptions()["edgeitems"] == 2


def test_sci_mode_is_reset_by_the_next_call() -> None:
    _format.set_printoptions(sci_mode=True)
    assert render([1.0], "float32") == "tensor([1.0000e+00])"
    _format.set_printoptions(precision=2)
    assert render([1.0], "float32") == "tensor([1.])"


def test_printoptions_restores_on_error() -> None:
    with pytest.raises(RuntimeError), _format.printoptions(precision=1, sci_mode=False):
        assert render([1e-6, 0.123], "float32") == "tensor([0.0, 0.1])"
        raise RuntimeError
    assert _format.get_printoptions()["precision"] == 4
    assert _format.get_printoptions()["sci_mode"] is None
