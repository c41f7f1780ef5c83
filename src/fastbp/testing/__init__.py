"""Checks for programs written with fastbp, and for fastbp itself.

- :func:`assert_close` compares tensors, as ``torch.testing.assert_close``;
- :func:`check_grads` holds the derivatives of any function to finite differences, in both modes and to any order;
- :func:`check` runs a function and replays what it recorded in plain Python (``fastbp.reference``), op by op;
- :func:`check_compiled` runs a compiled function and replays the program that was captured of it, line by line.
"""

from __future__ import annotations

from .close import assert_close
from .compiled import check_compiled
from .gradients import check_grads
from .replay import check

__all__ = ["assert_close", "check", "check_compiled", "check_grads"]
