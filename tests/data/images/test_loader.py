"""Batches: what was asked for, whatever the threads, without the images that cannot be read."""

import contextlib
import threading
import time

import numpy as np
import pytest
import torch

from striate.data import InMemoryImages
from striate.data.images import loader
from striate.data.images.loader import stream
from striate.training.schedule import shuffled_batches

CPU = torch.device("cpu")


class Slow:
    """A source whose images take different times to read and tell who they are; some cannot be read."""

    shape = (2, 3, 1)
    in_memory = False

    def __init__(self, n, bad=()):
        self.labels = np.arange(n) * 7
        self.bad = np.array(sorted(bad), np.int64)
        self.threads = set()

    def __len__(self):
        return len(self.labels)

    def reading(self):
        return contextlib.nullcontext()

    def read(self, which, out):
        self.threads.add(threading.get_ident())
        time.sleep(int(which[0]) % 3 / 1000)
        out[:] = which[:, None, None, None]
        out[np.isin(which, self.bad)] = 255
        return ~np.isin(which, self.bad)


def flat(batch):
    return batch.samples.tolist(), batch.pixels.numpy().tobytes(), batch.labels.tolist()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_batches_hold_what_the_order_says(workers):
    source = Slow(200)
    order = shuffled_batches(200, 33, seed=3, epoch=1)
    got = list(stream(source, order, CPU, workers=workers))
    for which, batch in zip(order, got, strict=True):
        assert np.array_equal(batch.samples, which)
        assert np.array_equal(batch.labels.numpy(), which * 7)
        assert batch.pixels.dtype == torch.uint8
        assert (batch.pixels.numpy() == which[:, None, None, None]).all()
    assert len(source.threads) <= workers


def test_the_rest_of_an_epoch_is_the_rest_of_its_batches():
    order = shuffled_batches(100, 8, seed=0, epoch=0)
    bad = (5, 17, 60)
    whole = [flat(b) for b in stream(Slow(100, bad), order, CPU, workers=2)]
    assert [flat(b) for b in stream(Slow(100, bad), order[7:], CPU, workers=5)] == whole[7:]


def test_an_image_that_cannot_be_read_is_left_out_of_its_batch():
    order = [np.array(a) for a in ([0, 1, 2, 3], [4, 5], [6, 7, 8], [9])]
    got = list(stream(Slow(10, {1, 4, 6, 7, 8}), order, CPU))
    assert [b.samples.tolist() for b in got] == [[0, 2, 3], [5], [], [9]]
    assert [b.requested for b in got] == [4, 2, 3, 1]
    assert got[0].labels.tolist() == [0, 14, 21]
    assert (got[0].pixels[:, 0, 0, 0] == torch.tensor([0, 2, 3])).all()
    assert got[2].pixels.shape == (0, 2, 3, 1)


def test_arrays_in_memory_are_copied(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    source = InMemoryImages(images, np.arange(50), ("x",) * 50, ())
    order = shuffled_batches(50, 7, seed=0, epoch=0)
    inline = [flat(b) for b in stream(source, order, CPU)]
    for which, (samples, pixels, labels) in zip(order, inline, strict=True):
        assert samples == labels == which.tolist()
        assert pixels == images[which].tobytes()
    monkeypatch.setattr(loader, "_INLINE", 0)
    assert [flat(b) for b in stream(source, order, CPU)] == inline


def test_an_error_of_a_thread_reaches_the_caller_and_leaves_no_threads():
    class Broken(Slow):
        def read(self, which, out):
            if 20 in which:
                raise ValueError("image 20")
            return super().read(which, out)

    before = threading.active_count()
    with pytest.raises(ValueError, match="image 20"):
        list(stream(Broken(40), [np.arange(i, i + 10) for i in range(0, 40, 10)], CPU))
    for _ in stream(Slow(40), [np.arange(i, i + 10) for i in range(0, 40, 10)], CPU):
        break
    assert threading.active_count() == before


def test_nothing_is_read_far_ahead():
    source = Slow(1000)
    asked = []
    read = source.read
    source.read = lambda which, out: asked.append(len(which)) or read(which, out)
    next(stream(source, [np.arange(i, i + 10) for i in range(0, 1000, 10)], CPU, workers=2))
    assert sum(asked) <= 60


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_reach_the_gpu():
    order = shuffled_batches(500, 64, seed=0, epoch=0)
    bad = (3, 77)
    here = [flat(b) for b in stream(Slow(500, bad), order, CPU)]
    there = list(stream(Slow(500, bad), order, torch.device("cuda"), workers=4))
    assert all(b.pixels.is_cuda and b.labels.is_cuda for b in there)
    moved = [(b.samples.tolist(), b.pixels.cpu().numpy().tobytes(), b.labels.tolist()) for b in there]
    assert moved == here
