"""Batches on the device, made ahead by threads.

The caller says which samples each batch holds; `training.schedule.batches` makes that a function of the seed
and the epoch. So the batches are the same for any number of threads, a run that is resumed passes the rest of
its sequence, and one process of several passes its own share. Threads suffice, since decoding, resizing and
copying release Python's lock.
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

_PIECE = 16  # images that one thread reads at a time
_INLINE = 1 << 20  # bytes of a batch in memory, below which a copy is quicker than a word to another thread


@dataclass(frozen=True, eq=False)
class Batch:
    """What a step learns from.

    Attributes:
        pixels: uint8 `[batch, height, width, channels]`, on the device; or float32 `[batch, ...]`, what
            a frozen network gave for them.
        labels: int64 `[batch]`, on the device.
        samples: int64 `[batch]`, the position of each image in the source.
        asked: how many images the sequence named, those that cannot be read among them.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    samples: Indices
    requested: int

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def weight(self) -> int:
        """Over how many terms the mean loss is taken: one for each image."""
        return len(self.samples)


def stream(
    source: Images, order: Sequence[Indices], device: torch.device, *, workers: int = 2
) -> Generator[Batch, None, None]:
    """Read batch after batch, the next ones in the background.

    An image that cannot be read is left out of its batch; a batch of which none is left is still yielded, so
    that steps can be counted.

    Args:
        source: what to read from.
        order: the positions that each batch holds, int64.
        device: where the batches are to be.
        workers: threads that read; they do not change what is read.
    """
    with source.reading():
        largest = math.prod(source.shape) * max(map(len, order), default=0)
        if source.in_memory and largest <= _INLINE:
            for which in order:
                buffer = _Buffer(source, which, device)
                buffer.read(0, len(which))
                yield buffer.batch()
        else:
            yield from _threaded(source, order, device, max(1, workers))


def _threaded(
    source: Images, order: Sequence[Indices], device: torch.device, workers: int
) -> Iterator[Batch]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        remaining, waiting = deque(order), deque[tuple[_Buffer, list[Future[None]]]]()
        while remaining or waiting:
            # The next batch at least, and work for every thread, while the network has this one.
            while remaining and (len(waiting) < 2 or sum(len(parts) for _, parts in waiting) < 2 * workers):
                buffer = _Buffer(source, remaining.popleft(), device)
                waiting.append((buffer, buffer.submit(pool)))
            buffer, parts = waiting.popleft()
            for part in parts:
                part.result()
            yield buffer.batch()
    finally:
        pool.shutdown(cancel_futures=True)  # at once, also after Ctrl-C


class _Buffer:
    """The memory of one batch while it is being filled; pinned, where the batch goes to a GPU."""

    def __init__(self, source: Images, which: Indices, device: torch.device) -> None:
        self._source, self._which, self._device = source, which, device
        self._pinned = device.type == "cuda"
        shape = (len(which), *source.shape)
        self._pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
        self._readable = np.zeros(len(which), np.bool_)

    def submit(self, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Let the threads fill it, a piece each."""
        count = len(self._which)
        return [pool.submit(self.read, at, min(at + _PIECE, count)) for at in range(0, count, _PIECE)]

    def read(self, start: int, stop: int) -> None:
        """Fill one piece."""
        out = self._pixels.numpy()[start:stop]
        self._readable[start:stop] = self._source.read(self._which[start:stop], out)

    def batch(self) -> Batch:
        """What was read, on its way to the device."""
        pixels, samples = self._pixels, self._which
        if not self._readable.all():
            kept = np.flatnonzero(self._readable)
            pixels, samples = pixels[torch.from_numpy(kept)], samples[kept]
            pixels = pixels.pin_memory() if self._pinned else pixels
        labels = torch.from_numpy(self._source.labels[samples])
        labels = labels.pin_memory() if self._pinned else labels
        # From pinned memory the copies run beside the work of the GPU; elsewhere they are as usual.
        return Batch(
            pixels.to(self._device, non_blocking=True),
            labels.to(self._device, non_blocking=True),
            samples,
            len(self._which),
        )
