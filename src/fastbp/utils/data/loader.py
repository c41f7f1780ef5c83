"""DataLoader: a data set in batches."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, cast

from ... import _core
from .collate import default_collate
from .dataset import IterableDataset, Subset, TensorDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sized
    from typing import Any

    from ..._core import Tensor
    from .dataset import Dataset


class DataLoader:
    """Iterates over a data set in batches; each ``iter()`` is a new pass, newly shuffled if so asked.

    A `TensorDataset`, also a `Subset` of one, with the default `collate_fn` is read by whole batches: one operation
    per tensor and batch.

    Parameters
    ----------
    dataset : Dataset
        Anything with ``__getitem__`` and ``__len__``, or an `IterableDataset`.
    batch_size : int or None, optional
        Samples per batch; None yields single samples. Default: 1.
    shuffle : bool, optional
        Whether each pass has a new random order. Default: False.
    sampler : iterable of int, optional
        The order; excludes `shuffle`.
    batch_sampler : iterable of list of int, optional
        The batches; excludes `batch_size`, `shuffle`, `sampler` and `drop_last`.
    num_workers : int, optional
        Accepted and ignored, as are `pin_memory`, `timeout`, `worker_init_fn`, `multiprocessing_context`,
        `prefetch_factor`, `persistent_workers`, `pin_memory_device` and `in_order`: samples are fetched in the
        calling thread, when they are asked for.
    collate_fn : callable, optional
        Makes a batch from a list of samples. Default: `default_collate`.
    drop_last : bool, optional
        Whether a last, smaller batch is left out. Default: False.
    generator : Generator, optional
        Where the random order comes from. Default: the global one.

    Raises
    ------
    ValueError
        When options exclude each other or the batch size is not a positive int.

    Examples
    --------
    >>> from fastbp.utils.data import TensorDataset
    >>> loader = DataLoader(TensorDataset(fastbp.zeros(80, 3), fastbp.zeros(80)), batch_size=32, shuffle=True)
    >>> for inputs, targets in loader:
    ...     print(inputs.shape, targets.shape)
    fastbp.Size([32, 3]) fastbp.Size([32])
    fastbp.Size([32, 3]) fastbp.Size([32])
    fastbp.Size([16, 3]) fastbp.Size([16])
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
        is_stream = isinstance(dataset, IterableDataset)
        if is_stream and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader with IterableDataset: expected unspecified shuffle, sampler and batch_sampler options"
            )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size, drop_last = None, False
        elif batch_size is None:
            if drop_last:
                raise ValueError(
                    "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
                )
        elif not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if sampler is None and not is_stream:
            sized = cast("Sized", dataset)
            sampler = RandomSampler(sized, generator=generator) if shuffle else SequentialSampler(sized)
        if batch_sampler is None and batch_size is not None and not is_stream:
            batch_sampler = BatchSampler(cast("Iterable[int]", sampler), batch_size, drop_last)

        # Any: what a pass needs of them, such as a length, is not asked before.
        self.dataset: Any = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler: Any = sampler
        self.batch_sampler: Any = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.generator = generator
        # With no batches to make, a sample is passed on as it is.
        self.collate_fn = collate_fn or (default_collate if batch_sampler is not None or is_stream else _unchanged)
        if collate_fn is None and is_stream and batch_size is None:
            self.collate_fn = _unchanged

    def __len__(self) -> int:
        """The number of batches in a pass; raises TypeError where the data set or a sampler has no length."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        if self.sampler is not None:
            return len(self.sampler)
        size = len(self.dataset)
        if self.batch_size is None:
            return size
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        whole = self.tensor_source()
        if whole is not None:
            return self._iterate_tensors(*whole)
        if isinstance(self.dataset, IterableDataset):
            return self._iterate_stream()
        if self.batch_sampler is None:
            return (self.collate_fn(self.dataset[index]) for index in self.sampler)
        return self._iterate_batches()

    def tensor_source(self) -> tuple[tuple[Tensor, ...], Tensor | None] | None:
        """What a whole pass can be read from without touching single samples, or None where it cannot.

        Returns
        -------
        (tensors, indices) or None
            The tensors, first dimension the samples; and which of their rows, int64, make up the data set, None for
            all. Given for a `TensorDataset`, or a `Subset` of one, with the default collation and batches made by
            `BatchSampler` from an order of this module's own samplers.
        """
        batches = self.batch_sampler
        if self.collate_fn is not default_collate or type(batches) is not BatchSampler:
            return None
        sampler: Any = batches.sampler
        dataset, indices = self.dataset, None
        if type(sampler) not in (SequentialSampler, RandomSampler) or sampler.data_source is not dataset:
            return None
        while type(dataset) is Subset:
            own = _core.tensor(list(dataset.indices), dtype=_core.int64)
            indices = own if indices is None else own.index_select(0, indices)
            dataset = dataset.dataset
        return (dataset.tensors, indices) if type(dataset) is TensorDataset else None

    def epoch_order(self, indices: Tensor | None) -> Tensor:
        """Draw the next pass's order: the rows of `tensor_source`'s tensors, int64, one after the other."""
        sampler = self.batch_sampler.sampler
        if type(sampler) is SequentialSampler:
            return _core.arange(len(self.dataset)) if indices is None else indices
        order = sampler.order()
        return order if indices is None else indices.index_select(0, order)

    def _iterate_tensors(self, tensors: tuple[Tensor, ...], indices: Tensor | None) -> Iterator[list[Tensor]]:
        order = self.epoch_order(indices)
        size, total = self.batch_sampler.batch_size, order.shape[0]
        if self.batch_sampler.drop_last:
            total -= total % size
        for start in range(0, total, size):
            rows = order[start : min(start + size, total)]
            yield [tensor.index_select(0, rows) for tensor in tensors]

    def _iterate_batches(self) -> Iterator[Any]:
        dataset, collate = self.dataset, self.collate_fn
        fetch_many = getattr(dataset, "__getitems__", None)
        for batch in self.batch_sampler:
            yield collate(fetch_many(batch) if fetch_many else [dataset[index] for index in batch])

    def _iterate_stream(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, samples)
            return
        while batch := list(islice(samples, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield self.collate_fn(batch)


def _unchanged(sample: Any) -> Any:
    return sample
