"""Finding the operation that first made a NaN or an infinity (torch.autograd.anomaly_mode)."""

from __future__ import annotations

from .. import _core

__all__ = ["detect_anomaly", "is_anomaly_enabled", "set_detect_anomaly"]


class set_detect_anomaly:
    """Look for anomalies or not, from now on; as a context manager, until its end.

    While it is on, the first operation, forward or backward, that makes a NaN or an infinity out of finite inputs
    raises RuntimeError with its name, the shapes and dtypes of its inputs, and your line; for one in backward, the line
    where the operation ran forward. Operations whose inputs are not finite already are not reported, and neither are
    sources (``full(..., inf)``), infinite bounds and fill values, and views. Every number is looked at: expect a slower
    program. A compiled function runs eagerly meanwhile. The mode belongs to the calling thread.

    Parameters
    ----------
    mode : bool
        On or off.
    check_nan : bool, optional
        Look at numbers. False: only note the lines where operations are recorded, for a backward() under a later
        ``check_nan=True``. Default: True.

    Examples
    --------
    >>> with fastbp.autograd.set_detect_anomaly(True):
    ...     fastbp.tensor(1.0).log()
    tensor(0.)
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        if not isinstance(mode, bool) or not isinstance(check_nan, bool):
            raise TypeError(f"set_detect_anomaly: mode and check_nan must be bool, got {mode!r} and {check_nan!r}")
        self.prev = _core.anomaly_level()
        _core.set_anomaly((2 if check_nan else 1) if mode else 0)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        _core.set_anomaly(self.prev)


class detect_anomaly:
    """Context manager: within it anomalies are looked for, see `set_detect_anomaly`.

    Parameters
    ----------
    check_nan : bool, optional
        As there. Default: True.

    Raises
    ------
    RuntimeError
        In the operation that made the first NaN or infinity.

    Examples
    --------
    >>> x = fastbp.tensor([0.0, 1.0], requires_grad=True)
    >>> with fastbp.autograd.detect_anomaly():
    ...     x.sqrt().sum().backward()
    Traceback (most recent call last):
        ...
    RuntimeError: anomaly: the derivative of Sqrt, Function 'SqrtBackward0', returned inf values ...
    """

    def __init__(self, check_nan: bool = True) -> None:
        if not isinstance(check_nan, bool):
            raise TypeError(f"detect_anomaly: check_nan must be a bool, got {check_nan!r}")
        self.check_nan = check_nan
        self.prev = 0

    def __enter__(self) -> None:
        self.prev = _core.anomaly_level()
        _core.set_anomaly(2 if self.check_nan else 1)

    def __exit__(self, *error: object) -> None:
        _core.set_anomaly(self.prev)


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on, on this thread."""
    return _core.anomaly_level() > 0
