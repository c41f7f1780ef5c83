"""default_collate: many samples into one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ... import _core
from ..._core import Tensor

if TYPE_CHECKING:
    from typing import Any


def default_collate(batch: list[Any]) -> Any:
    """Join samples of the same structure.

    Tensors and NumPy arrays are stacked along a new first dimension; numbers become a tensor (float64 for floats,
    int64 for ints); strings stay a list; mappings, named tuples, tuples and lists are joined entry by entry, tuples
    and lists into a list.

    Parameters
    ----------
    batch : list
        At least one sample.

    Raises
    ------
    TypeError
        For samples of another type.
    RuntimeError
        When sequences in the samples differ in length.

    Examples
    --------
    >>> default_collate([(fastbp.zeros(2), 0), (fastbp.ones(2), 1)])
    [tensor([[0., 0.],
            [1., 1.]]), tensor([0, 1])]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _core.stack(batch)
    if isinstance(first, float):  # Also numpy.float64.
        return _core.tensor(batch, dtype=_core.float64)
    if isinstance(first, (bool, int)):
        return _core.tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        joined: Any = {key: default_collate([sample[key] for sample in batch]) for key in first}
        make: Any = type(first)
        return joined if make is dict else make(joined)
    if isinstance(first, (tuple, list)):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        entries = [default_collate(list(entry)) for entry in zip(*batch, strict=True)]
        return type(first)(*entries) if hasattr(first, "_fields") else entries
    import numpy

    if isinstance(first, (numpy.ndarray, numpy.generic)):
        return _core.from_numpy(numpy.stack(batch))
    raise TypeError(
        f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}"
    )
