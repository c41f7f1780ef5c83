"""utils.data and datasets: sets, samplers, collation, the loader's ways of reading, and the bundled digits."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp import datasets
from fastbp.datasets import load_digits
from fastbp.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
    random_split,
)


class Squares(Dataset):
    """Sample i is (i, i squared)."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, index):
        return index, float(index**2)

    def __len__(self):
        return self.size


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def seeded(seed: int = 0):
    return fastbp.Generator().manual_seed(seed)


def lists(batches) -> list:
    return [[tensor.tolist() for tensor in batch] if isinstance(batch, list) else batch.tolist() for batch in batches]


# ----------------------------------------------------------------------------------------------- data sets


def test_tensor_dataset():
    dataset = TensorDataset(fastbp.arange(6).reshape(3, 2), fastbp.arange(3))
    x, y = dataset[1]
    assert len(dataset) == 3 and x.tolist() == [2, 3] and y.item() == 1
    with pytest.raises(AssertionError, match="Size mismatch"):
        TensorDataset(fastbp.zeros(2), fastbp.zeros(3))


def test_subset_and_concat():
    subset = Subset(Squares(10), [7, 3, 5])
    assert len(subset) == 3 and subset[1] == (3, 9.0) and Subset(subset, [2])[0] == (5, 25.0)
    joined = Squares(2) + subset
    assert isinstance(joined, ConcatDataset) and joined.cumulative_sizes == [2, 5]
    assert [joined[i][0] for i in range(5)] == [0, 1, 7, 3, 5] and joined[-1][0] == 5
    for wrong in (5, -6):
        with pytest.raises(ValueError, match="absolute value"):
            joined[wrong]
    with pytest.raises(AssertionError):
        ConcatDataset([])
    with pytest.raises(AssertionError):
        ConcatDataset([Stream()])


def test_base_classes_ask_for_methods():
    with pytest.raises(NotImplementedError):
        Dataset()[0]
    with pytest.raises(NotImplementedError):
        iter(IterableDataset())
    with pytest.raises(NotImplementedError):
        iter(Sampler())


def test_random_split():
    parts = random_split(Squares(10), [7, 3], generator=seeded())
    assert [len(part) for part in parts] == [7, 3]
    assert sorted(i for part in parts for i in part.indices) == list(range(10))
    again = random_split(Squares(10), [7, 3], generator=seeded())
    assert [part.indices for part in again] == [part.indices for part in parts]
    # 10 * 0.35 and 10 * 0.3 are rounded down; what remains goes to the first parts.
    assert [len(part) for part in random_split(Squares(10), [0.35, 0.35, 0.3])] == [4, 3, 3]
    assert [len(part) for part in random_split(Squares(10), [1.0])] == [10]
    for wrong in ([7, 4], [0.5, 0.2], [1.5, -0.5]):
        with pytest.raises(ValueError):
            random_split(Squares(10), wrong)


# ----------------------------------------------------------------------------------------------- samplers


def test_samplers():
    assert list(SequentialSampler(Squares(3))) == [0, 1, 2]
    sampler = RandomSampler(Squares(50), generator=seeded())
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second
    assert list(RandomSampler(Squares(50), generator=seeded())) == first
    longer = list(RandomSampler(Squares(4), num_samples=10))
    assert len(longer) == 10 and sorted(longer[:4]) == sorted(longer[4:8]) == [0, 1, 2, 3]
    drawn = list(RandomSampler(Squares(3), replacement=True, num_samples=100))
    assert len(drawn) == 100 and set(drawn) == {0, 1, 2}
    assert list(RandomSampler(Squares(0))) == []
    with pytest.raises(ValueError, match="num_samples"):
        RandomSampler(Squares(3), num_samples=0)
    with pytest.raises(TypeError, match="replacement"):
        RandomSampler(Squares(3), replacement=1)


def test_batch_sampler():
    assert list(BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    assert len(BatchSampler(range(5), 2, False)) == 3 and len(BatchSampler(range(5), 2, True)) == 2
    with pytest.raises(ValueError, match="batch_size"):
        BatchSampler(range(5), 0, False)
    with pytest.raises(ValueError, match="drop_last"):
        BatchSampler(range(5), 2, "no")


# ----------------------------------------------------------------------------------------------- collation


def test_default_collate():
    assert default_collate([1, 2]).dtype == fastbp.int64
    assert default_collate([1.0, 2.0]).dtype == fastbp.float64
    assert default_collate([True, False]).dtype == fastbp.bool
    assert default_collate(["a", "b"]) == ["a", "b"]
    stacked = default_collate([fastbp.zeros(2), fastbp.ones(2)])
    assert stacked.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    arrays = default_collate([np.zeros(2, np.float32), np.ones(2, np.float32)])
    assert arrays.dtype == fastbp.float32 and arrays.tolist() == stacked.tolist()
    assert default_collate([np.int32(3), np.int32(4)]).tolist() == [3, 4]
    pairs = default_collate([(1, "a"), (2, "b")])
    assert pairs[0].tolist() == [1, 2] and pairs[1] == ["a", "b"]
    named = default_collate([{"x": 1, "y": [1.0, 2.0]}, {"x": 2, "y": [3.0, 4.0]}])
    assert named["x"].tolist() == [1, 2] and lists([named["y"]]) == [[[1.0, 3.0], [2.0, 4.0]]]
    Point = namedtuple("Point", "x y")
    points = default_collate([Point(1, 2), Point(3, 4)])
    assert isinstance(points, Point) and points.y.tolist() == [2, 4]
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([[1, 2], [1]])
    with pytest.raises(TypeError, match="default_collate"):
        default_collate([object()])


# ----------------------------------------------------------------------------------------------- loader


def test_loader_over_samples():
    loader = DataLoader(Squares(5), batch_size=2)
    assert len(loader) == 3
    assert lists(loader) == [[[0, 1], [0.0, 1.0]], [[2, 3], [4.0, 9.0]], [[4], [16.0]]]
    assert lists(DataLoader(Squares(5), batch_size=2, drop_last=True)) == lists(loader)[:2]
    assert len(list(DataLoader(Squares(5)))) == 5
    assert list(DataLoader(Squares(3), batch_size=None)) == [(0, 0.0), (1, 1.0), (2, 4.0)]
    assert list(DataLoader(Squares(4), batch_size=3, collate_fn=len)) == [3, 1]
    assert lists(DataLoader([3, 4, 5], batch_size=2)) == [[3, 4], [5]]


def test_loader_shuffles_anew_each_pass():
    loader = DataLoader(Squares(40), batch_size=40, shuffle=True, generator=seeded())
    (first, squares), (second, _) = next(iter(loader)), next(iter(loader))
    assert first.tolist() != second.tolist() and sorted(first.tolist()) == sorted(second.tolist()) == list(range(40))
    assert squares.tolist() == [i**2 for i in first.tolist()]
    fastbp.manual_seed(3)
    a = lists(DataLoader(Squares(9), batch_size=4, shuffle=True))
    fastbp.manual_seed(3)
    assert lists(DataLoader(Squares(9), batch_size=4, shuffle=True)) == a


def test_loader_with_samplers():
    assert lists(DataLoader(Squares(9), batch_size=2, sampler=[3, 1, 2])) == [[[3, 1], [9.0, 1.0]], [[2], [4.0]]]
    loader = DataLoader(Squares(9), batch_sampler=[[3], [1, 2]])
    assert len(loader) == 2 and lists(loader) == [[[3], [9.0]], [[1, 2], [1.0, 4.0]]]


def test_loader_asks_for_whole_batches_where_it_can():
    class Batched(Squares):
        def __getitems__(self, indices):
            return [(i, -1.0) for i in indices]

    assert lists(DataLoader(Batched(3), batch_size=2)) == [[[0, 1], [-1.0, -1.0]], [[2], [-1.0]]]


def test_loader_over_a_stream():
    assert lists(DataLoader(Stream(), batch_size=2)) == [[0, 1], [2, 3], [4]]
    assert lists(DataLoader(Stream(), batch_size=2, drop_last=True)) == [[0, 1], [2, 3]]
    assert list(DataLoader(Stream(), batch_size=None)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="IterableDataset"):
        DataLoader(Stream(), shuffle=True)
    with pytest.raises(TypeError):
        len(DataLoader(Stream(), batch_size=2))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("part", [None, [5, 2, 9, 0, 7, 7, 1]])
def test_reading_whole_batches_gives_what_reading_samples_gives(shuffle, drop_last, part):
    dataset = TensorDataset(fastbp.randn(11, 3), fastbp.arange(11))
    if part is not None:
        dataset = Subset(Subset(dataset, list(range(10, -1, -1))), part)

    def batches(**options):
        loader = DataLoader(dataset, 4, shuffle, drop_last=drop_last, generator=seeded(), **options)
        return loader, lists(loader)

    fast, from_tensors = batches()
    slow, from_samples = batches(collate_fn=lambda samples: default_collate(samples))
    assert fast.tensor_source() is not None and slow.tensor_source() is None
    assert from_tensors == from_samples and len(from_tensors) == len(fast)


def test_batches_are_copies():
    x = fastbp.zeros(4)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=4):
        batch.fill_(1.0)
    assert x.tolist() == [0.0] * 4


def test_a_subclass_is_read_by_its_own_getitem():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * tensor for tensor in super().__getitem__(index))

    assert lists(DataLoader(Doubled(fastbp.arange(3)), batch_size=3)) == [[[0, 2, 4]]]


def test_loader_ignores_workers():
    options = {"num_workers": 4, "pin_memory": True, "persistent_workers": True, "prefetch_factor": 2}
    assert lists(DataLoader(Squares(2), batch_size=2, **options)) == [[[0, 1], [0.0, 1.0]]]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"num_workers": -1},
        {"shuffle": True, "sampler": [0]},
        {"batch_sampler": [[0]], "batch_size": 2},
        {"batch_sampler": [[0]], "shuffle": True},
        {"batch_size": None, "drop_last": True},
    ],
)
def test_loader_options_that_exclude_each_other(options):
    with pytest.raises(ValueError):
        DataLoader(Squares(3), **options)


# ----------------------------------------------------------------------------------------------- digits


def test_digits():
    digits = load_digits()
    assert digits.data.shape == (1797, 64) and digits.data.dtype == np.float32
    assert digits.images.shape == (1797, 8, 8) and np.shares_memory(digits.images, digits.data)
    assert digits.target.shape == (1797,) and digits.target.dtype == np.int64
    # The sums and counts are those of scikit-learn's copy.
    assert digits.data.min() == 0 and digits.data.max() == 16 and digits.data.sum() == 561718
    assert np.bincount(digits.target).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0] and digits.target[0] == 0
    assert "CC BY 4.0" in digits.DESCR and "Alpaydin" in digits.DESCR
    data, target = load_digits(return_X_y=True)
    assert (data == digits.data).all() and (target == digits.target).all()
    data[:] = 0
    assert load_digits().data.sum() == 561718


def test_the_digits_are_small_and_carry_their_licence():
    folder = Path(datasets.__file__).parent / "data"
    assert (folder / "digits.npz").stat().st_size <= 60_000
    assert "CC BY 4.0" in (folder / "README.md").read_text(encoding="utf-8")
