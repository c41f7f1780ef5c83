"""A whole pass over a DataLoader in C: what `Compiled.epoch` does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import _core
from ._tree import flatten, unflatten

if TYPE_CHECKING:
    from typing import Any

    from ._core import Tensor
    from .compiler import Compiled
    from .utils.data import DataLoader

# Seconds between two looks at signals and at the progress bar.
SLICE = 0.1


def run_epoch(compiled: Compiled, loader: DataLoader, progress: bool) -> Any:
    """Run `compiled` once on each batch of a pass; see `Compiled.epoch`."""
    source = loader.tensor_source() if hasattr(loader, "tensor_source") else None
    if source is None:
        raise TypeError(
            "epoch: needs a DataLoader over a TensorDataset (or a Subset) with the default collate_fn and sampler; "
            "iterate other loaders and call the compiled function with each batch"
        )
    tensors, indices = source
    order = loader.epoch_order(indices)
    _check_order(order, min(len(one) for one in tensors))
    size, total = loader.batch_sampler.batch_size, order.shape[0]
    sequential = bool((order == _core.arange(total)).all())
    full, rest = divmod(total, size)
    bar = _progress_bar(full + (rest > 0 and not loader.drop_last)) if progress else None
    parts: list[tuple[Any, list[Any]]] = []
    try:
        if full:
            _run_batches(compiled, tensors, order[: full * size], sequential, size, bar, parts)
        if rest and not loader.drop_last:
            # The last batch is one run: its rows are picked by their numbers.
            _run_batches(compiled, tensors, order[full * size :], False, rest, bar, parts)
    finally:
        if bar is not None:
            bar.close()
    return _joined(parts)


def _check_order(order: Tensor, count: int) -> None:
    """Raise IndexError where a number in `order` is not that of one of `count` samples."""
    wrong = order[(order < 0) | (order >= count)]
    if len(wrong):
        raise IndexError(f"epoch: sample number {wrong[0].item()} is out of bounds for a data set of {count} samples")


def _run_batches(
    compiled: Compiled,
    tensors: tuple[Tensor, ...],
    order: Tensor,
    sequential: bool,
    size: int,
    bar: Any,
    parts: list[tuple[Any, list[Any]]],
) -> None:
    """Run on all batches of one size; appends the results of each stretch that one plan ran, with their structure."""
    count = order.shape[0] // size
    packed = [one.detach().contiguous() for one in tensors]
    batches = [_core.empty((size, *one.shape[1:]), dtype=one.dtype) for one in tensors]
    collects = any(one.requires_grad for one in tensors)  # whose gradients go on to the data set
    first, step = 0, 1
    while first < count:
        # A step may change what the next one finds (gradients that were None): then another plan goes on.
        found = None if collects else compiled._find(tuple(batches), {})
        if found is None or not found[0].plan.may_pass or not found[0].plan.reads_apart(list(tensors)):
            batch = [_batch_of(one, order, sequential, size, first) for one in tensors]
            runs_eagerly = found is None and not collects
            parts.append(_run_batch(compiled._run_eagerly(tuple(batch), {}) if runs_eagerly else compiled(*batch)))
            first += 1
            if bar is not None:
                bar.update(1)
            continue
        entry = found[0]
        rows = [one[first * size :] for one in packed] if sequential else packed
        run = entry.plan.start_pass(rows, batches, None if sequential else order[first * size :], size, count - first)
        done = 0
        while first + done < count:
            before = time.perf_counter()
            steps = min(step, count - first - done)
            steps = run.advance(done, done + steps)
            if not steps:
                break
            done += steps
            if bar is not None:
                bar.update(steps)
            # As many steps at a time as fit a slice, so that signals are seen in time.
            elapsed = max(time.perf_counter() - before, 1e-7)
            step = max(1, min(2 * step, int(SLICE / elapsed * steps)))
        if not done:
            raise RuntimeError("epoch: modules, optimizers or gradients change while a plan is made for them")
        parts.append((entry.result, run.results(done)))
        first += done


def _batch_of(tensor: Tensor, order: Tensor, sequential: bool, size: int, number: int) -> Tensor:
    """The rows of one batch, as a tensor of their own."""
    here = slice(number * size, (number + 1) * size)
    return tensor[here].clone() if sequential else tensor[order[here]]


def _run_batch(result: Any) -> tuple[Any, list[Any]]:
    """The structure of what a call for one batch has returned, and each tensor as a stack of one."""
    results: list[Any] = []
    structure = flatten(result, results)
    stacked = [one.detach().clone().unsqueeze(0) if isinstance(one, _core.Tensor) else one for one in results]
    return structure, stacked


def _joined(parts: list[tuple[Any, list[Any]]]) -> Any:
    """The results of all stretches as one structure."""
    if not parts:
        return None
    joined: list[Any] = []
    for results in zip(*(part[1] for part in parts), strict=True):
        if not isinstance(results[0], _core.Tensor) or len(results) == 1:
            joined.append(results[0])
        elif all(one.shape[1:] == results[0].shape[1:] for one in results):
            joined.append(_core.cat(list(results)))
        else:
            joined.append([row for one in results for row in one])
    return unflatten(parts[0][0], iter(joined))


def _progress_bar(total: int) -> Any:
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise ImportError("epoch(progress=True) needs tqdm: pip install fastbp[progress]") from None
    return tqdm(total=total, unit="step")
