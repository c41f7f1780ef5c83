"""Checks for programs written with fastbp, and for fastbp itself.

- :func:`assert_close` compares tensors, as ``torch.testing.assert_close``;
- :func:`check_grads` holds the derivatives of any function to finite differences, in both modes and to any order;
- :func:`check` runs a function and replays what it recorded in plain Python (``fastbp.reference``), op by op.
"""

from __future__ import annotations

from .close import assert_close
from .gradients import check_grads
from .replay import check

__all__ = ["assert_close", "check", "check_grads"]
