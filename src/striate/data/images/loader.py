"""Data loader: threads that prefetch batches to the device.

The caller passes the order, the indices of each batch; `training.schedule.batches` computes it from seed and
epoch. So batches do not depend on the number of threads, a resumed run passes the rest of its order, and each
process of a distributed run passes its share. Threads are enough because decoding, resizing and copying
release the GIL.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from striate.data.images.base import Images, Indices

_PIECE = 16  # images per task of a thread
_INLINE = 1 << 20  # bytes of a batch below which copying is faster than starting a thread task


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of labeled images on the device.

    Attributes:
        pixels: uint8 `[batch, height, width, channels]`; or float32 `[batch, ...]`, features of a frozen
            network.
        labels: int64 `[batch]`.
        samples: int64 `[batch]`, the index of each image in its `Images`.
        requested: number of images in the order, including unreadable ones.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    samples: Indices
    requested: int

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def terms(self) -> int:
        """Number of terms in the mean loss: one per image."""
        return len(self.samples)

    def part(self, rows: slice) -> Batch:
        """Some of its images."""
        return Batch(self.pixels[rows], self.labels[rows], self.samples[rows], self.requested)


def stream(
    source: Images, order: Sequence[Indices], device: torch.device, *, workers: int = 2
) -> Generator[Batch, None, None]:
    """Yield batches in the given order while threads read the next ones.

    Unreadable images are left out of their batch. Empty batches are yielded, so that steps can be counted.

    Args:
        source: images to read.
        order: int64 indices of each batch.
        device: of the batches.
        workers: number of threads; it does not change the batches.
    """
    with source.reading():
        largest = math.prod(source.shape) * max(map(len, order), default=0)
        if source.in_memory and largest <= _INLINE:
            for which in order:
                buffer = _Buffer(source, which, device)
                buffer.read(slice(None))
                yield buffer.batch()
        else:
            yield from _pooled(source, order, device, max(1, workers))


def _pooled(source: Images, order: Sequence[Indices], device: torch.device, workers: int) -> Iterator[Batch]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        remaining, waiting = deque(order), deque[tuple[_Buffer, list[Future[None]]]]()
        while remaining or waiting:
            # Prefetch at least one batch, and enough tasks for all threads.
            while remaining and (len(waiting) < 2 or sum(len(parts) for _, parts in waiting) < 2 * workers):
                buffer = _Buffer(source, remaining.popleft(), device)
                waiting.append((buffer, buffer.submit(pool)))
            buffer, parts = waiting.popleft()
            for part in parts:
                part.result()
            yield buffer.batch()
    finally:
        pool.shutdown(cancel_futures=True)  # immediately, also after Ctrl-C


class _Buffer:
    """Memory of one batch while threads fill it; pinned if the batch goes to a GPU."""

    def __init__(self, source: Images, which: Indices, device: torch.device) -> None:
        self._source, self._which, self._device = source, which, device
        self._pinned = device.type == "cuda"
        shape = (len(which), *source.shape)
        self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        self._readable = np.zeros(len(which), np.bool_)

    def submit(self, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Submit the reading of all pieces to the threads."""
        starts = range(0, len(self._which), _PIECE)
        return [pool.submit(self.read, slice(start, start + _PIECE)) for start in starts]

    def read(self, rows: slice) -> None:
        """Fill some rows."""
        self._readable[rows] = self._source.read(self._which[rows], self._pixels.numpy()[rows])

    def batch(self) -> Batch:
        """Return the readable images as a batch; the copy to a GPU is asynchronous."""
        pixels, samples = self._pixels, self._which
        if not self._readable.all():
            kept = np.flatnonzero(self._readable)
            pixels, samples = pixels[torch.from_numpy(kept)], samples[kept]
        tensors = pixels, torch.from_numpy(self._source.labels[samples])
        if self._pinned:  # copies from pinned memory overlap with the work of the GPU
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        pixels, labels = (tensor.to(self._device, non_blocking=True) for tensor in tensors)
        return Batch(pixels, labels, samples, len(self._which))
