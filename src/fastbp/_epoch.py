"""A whole pass over a DataLoader in C: what `Compiled.epoch` does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import _core
from .compiler import unflatten

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
    tensors = tuple(one.contiguous() for one in tensors)
    order = loader.epoch_order(indices)
    size, total = loader.batch_sampler.batch_size, order.shape[0]
    sequential = bool((order == _core.arange(total)).all())
    full, rest = divmod(total, size)
    bar = _progress_bar(full + (rest > 0 and not loader.drop_last)) if progress else None
    parts = []
    try:
        if full:
            parts.append(_run_batches(compiled, tensors, order[: full * size], sequential, size, bar))
        if rest and not loader.drop_last:
            parts.append(_run_batches(compiled, tensors, order[full * size :], False, rest, bar))
    finally:
        if bar is not None:
            bar.close()
    return _joined(parts)


def _run_batches(
    compiled: Compiled, tensors: tuple[Tensor, ...], order: Tensor, sequential: bool, size: int, bar: Any
) -> tuple[Any, list[Any]]:
    """Run on all batches of one size; returns the structure of the results, and each stacked over the batches."""
    count = order.shape[0] // size
    batches = [_core.empty((size, *one.shape[1:]), dtype=one.dtype) for one in tensors]
    entry, _ = compiled._find(tuple(batches), {})
    run = entry.plan.start_pass(list(tensors), batches, None if sequential else order.contiguous(), size, count)
    done, step = 0, 1
    while done < count:
        before = time.perf_counter()
        steps = min(step, count - done)
        run.advance(done, done + steps)
        done += steps
        if bar is not None:
            bar.update(steps)
        # As many steps at a time as fit a slice, so that signals are seen in time.
        elapsed = max(time.perf_counter() - before, 1e-7)
        step = max(1, min(2 * step, int(SLICE / elapsed * steps)))
    return entry.result, run.results()


def _joined(parts: list[tuple[Any, list[Any]]]) -> Any:
    """The results of the full batches and of the last, smaller one as one structure."""
    if not parts:
        return None
    structure, results = parts[0]
    if len(parts) > 1:
        joined: list[Any] = []
        for a, b in zip(results, parts[1][1], strict=True):
            if not isinstance(a, _core.Tensor):
                joined.append(a)
            elif a.shape[1:] == b.shape[1:]:
                joined.append(_core.cat([a, b]))
            else:
                joined.append([*a, *b])
        results = joined
    return unflatten(structure, iter(results))


def _progress_bar(total: int) -> Any:
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise ImportError("epoch(progress=True) needs tqdm: pip install fastbp[progress]") from None
    return tqdm(total=total, unit="step")
