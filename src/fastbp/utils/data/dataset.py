"""Data sets: what has samples that can be counted and fetched by number, and ways to divide and join it."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from ... import _core

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, Sized
    from typing import Any

    from ..._core import Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Base class of data sets: a subclass defines ``__getitem__`` and, to be shuffled or split, ``__len__``.

    One that also defines ``__getitems__(indices)``, returning a list of samples, is asked for whole batches.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset[T_co]) -> ConcatDataset[T_co]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """Base class of data sets that are streams: a subclass defines ``__iter__``."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")


class TensorDataset(Dataset["tuple[Tensor, ...]"]):
    """Tensors whose first dimension counts the samples; sample i is the tuple of their i-th entries.

    A `DataLoader` fetches a whole batch from it with one operation per tensor.

    Parameters
    ----------
    *tensors : Tensor
        All of the same size in the first dimension.

    Raises
    ------
    AssertionError
        When the sizes differ, as in PyTorch.

    Examples
    --------
    >>> dataset = TensorDataset(fastbp.zeros(10, 3), fastbp.arange(10))
    >>> dataset[4]
    (tensor([0., 0., 0.]), tensor(4))
    """

    def __init__(self, *tensors: Tensor) -> None:
        if any(tensor.shape[0] != tensors[0].shape[0] for tensor in tensors):
            raise AssertionError("Size mismatch between tensors")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]


class Subset(Dataset[T_co]):
    """The samples of `dataset` whose numbers `indices` lists, in that order."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T_co]):
    """Several data sets one after the other.

    Parameters
    ----------
    datasets : iterable of Dataset
        At least one; none of them a stream.

    Attributes
    ----------
    cumulative_sizes : list of int
        The number of samples up to the end of each data set.
    """

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        self.cumulative_sizes: list[int] = []
        total = 0
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise AssertionError("ConcatDataset does not support IterableDataset")
            total += len(cast("Sized", dataset))
            self.cumulative_sizes.append(total)

    def __getitem__(self, index: int) -> T_co:
        size = len(self)
        if not -size <= index < size:
            raise ValueError("absolute value of index should not exceed dataset length")
        index %= size
        which = bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(dataset: Dataset[T_co], lengths: Sequence[int | float], generator: Any = None) -> list[Subset[T_co]]:
    """Divide a data set at random into parts without overlap.

    Parameters
    ----------
    dataset : Dataset
        With a length.
    lengths : sequence of int or of float
        The parts' sizes, which add up to the data set's; or fractions which add up to at most 1: then sizes are
        rounded down and, if the fractions add up to 1, what remains goes one by one to the first parts.
    generator : Generator, optional
        Default: the global one.

    Raises
    ------
    ValueError
        When the lengths do not add up.

    Examples
    --------
    >>> dataset = TensorDataset(fastbp.arange(10))
    >>> train, test = random_split(dataset, [0.8, 0.2], generator=fastbp.Generator().manual_seed(0))
    >>> len(train), len(test)
    (8, 2)
    """
    size = len(cast("Sized", dataset))
    total = math.fsum(lengths)
    sizes: list[Any] = list(lengths)
    if math.isclose(total, 1) and total <= 1:
        if any(not 0 <= fraction <= 1 for fraction in lengths):
            raise ValueError(f"each fraction in lengths must be between 0 and 1, but got {list(lengths)}")
        sizes = [math.floor(size * fraction) for fraction in lengths]
        for i in range(size - sum(sizes)):
            sizes[i % len(sizes)] += 1
    if sum(sizes) != size:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = _core.randperm(size, generator=generator).tolist()
    subsets, start = [], 0
    for length in sizes:
        subsets.append(Subset(dataset, order[start : start + length]))
        start += length
    return subsets
