"""What every test starts from and leaves behind: the best kernels, the default threads, dtype and random state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fastbp
from fastbp import _core


@pytest.fixture(autouse=True)
def engine_state() -> Iterator[None]:
    """Restore the engine's settings after each test, and make random numbers start anew in each."""
    isa, threads, dtype = _core.get_isa(), fastbp.get_num_threads(), fastbp.get_default_dtype()
    fastbp.manual_seed(0)
    yield
    _core.set_isa(isa)
    fastbp.set_num_threads(threads)
    fastbp.set_default_dtype(dtype)


@pytest.fixture(params=_core.available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    """Run the test on every instruction set that this machine has."""
    name: str = request.param
    _core.set_isa(name)
    return name
