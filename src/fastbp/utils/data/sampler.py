"""Samplers: the order in which a data set's samples are visited, and its division into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from ... import _core

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sized
    from typing import Any

    from ..._core import Tensor

T_co = TypeVar("T_co", covariant=True)


class Sampler(Generic[T_co]):
    """Base class of samplers: a subclass defines ``__iter__``, which yields sample numbers (or lists of them)."""

    def __init__(self, data_source: Sized | None = None) -> None:
        pass

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


class SequentialSampler(Sampler[int]):
    """Visits the samples in order."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Visits the samples in a new random order each time.

    Parameters
    ----------
    data_source : Sized
        The data set.
    replacement : bool, optional
        Whether each sample is drawn independently. Default: False.
    num_samples : int, optional
        How many to draw. Default: as many as there are. Without `replacement` more than that means several orders
        one after the other.
    generator : Generator, optional
        Default: the global one.

    Raises
    ------
    TypeError, ValueError
        When `replacement` is not a bool or `num_samples` not a positive int.
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        if num_samples is not None and (not isinstance(num_samples, int) or num_samples <= 0):
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator

    @property
    def num_samples(self) -> int:
        """How many samples one pass draws; the data set's length may change between passes."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self) -> Tensor:
        """Draw one pass's order, an int64 tensor of shape (num_samples,)."""
        size, wanted = len(self.data_source), self.num_samples
        if self.replacement:
            return _core.randint(0, size, (wanted,), dtype=_core.int64, generator=self.generator)
        # The last draw is made even if only part of it is needed, and none where it would not be.
        orders = [_core.randperm(size, generator=self.generator) for _ in range(-(-wanted // size) if size else 0)]
        if len(orders) == 1:
            return orders[0][:wanted]
        return _core.cat(orders)[:wanted] if orders else _core.arange(0)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Groups the numbers that another sampler yields into lists.

    Parameters
    ----------
    sampler : iterable of int
        What is grouped.
    batch_size : int
        The length of each list.
    drop_last : bool
        Whether a last, shorter list is left out.

    Raises
    ------
    ValueError
        When `batch_size` is not a positive int or `drop_last` not a bool.

    Examples
    --------
    >>> list(BatchSampler(range(5), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        size = len(cast("Sized", self.sampler))
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)
