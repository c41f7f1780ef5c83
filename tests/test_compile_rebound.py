"""State that compiled functions replace rather than write: buffers, data, attributes; what they keep of a capture."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
from twins import assert_same, drawn, snapshot

import fastbp
from fastbp import nn


class Averaging(nn.Module):
    """Rebinds its buffer in forward, as much PyTorch code does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", fastbp.zeros(2))

    def forward(self, x: Any) -> Any:
        self.mean = 0.5 * self.mean + x.mean(0)
        return x - self.mean


def test_a_buffer_that_is_rebound_is_updated() -> None:
    """By the function itself: a plan would renew nothing."""
    found, wanted = Averaging(), Averaging()
    compiled = fastbp.compile(found)
    for k in range(5):
        x = drawn(3, 2, seed=k)
        with pytest.warns(UserWarning, match="mean of Averaging") if k == 2 else contextlib.nullcontext():
            y = compiled(x)
        assert_same(snapshot([y, found]), snapshot([wanted(x), wanted]), f"call {k}")
        assert compiled.plan is None


def test_a_tensor_that_is_kept_outside_is_warned_of() -> None:
    """Also where garbage of an earlier capture is collected meanwhile."""
    kept: list[Any] = []

    @fastbp.compile
    def garbage(x: Any) -> Any:
        cycle: list[Any] = [x * 2, x * 3, x * 4]
        cycle.append(cycle)
        raise KeyError("none")

    with contextlib.suppress(KeyError):
        garbage(fastbp.ones(3))

    @fastbp.compile
    def step(x: Any) -> Any:
        kept.append(x * 2)
        return kept[-1].sum()

    with pytest.warns(UserWarning, match="step keeps a tensor outside"):
        assert step(fastbp.ones(3)).item() == 6
    assert step(fastbp.zeros(3)).item() == 0 and len(kept) == 1
    for use in (
        lambda: kept[0] + 1,
        lambda: kept[0].tolist(),
    ):
        with pytest.raises(RuntimeError, match="compile"):
            use()


def test_a_tensor_of_an_ended_capture_in_another_is_refused() -> None:
    kept: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastbp.compile(lambda x: kept.append(x * 2))(fastbp.ones(3))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="compile"):
            fastbp.compile(lambda x: x * kept[0])(fastbp.ones(3))
    assert fastbp.compile(lambda x: x * 3)(fastbp.ones(1)).item() == 3


def test_data_that_is_assigned_inside_is_written_or_refused() -> None:
    w = fastbp.ones(3, requires_grad=True)

    def step(x: Any) -> None:
        w.data = w.data - 0.5 * x

    compiled = fastbp.compile(step)
    for k in range(2):
        try:
            compiled(fastbp.ones(3))
        except RuntimeError as error:
            assert "copy_" in str(error)
            assert w.tolist() == [1, 1, 1] and w.requires_grad
            return
        assert w.tolist() == [0.5 - 0.5 * k] * 3
