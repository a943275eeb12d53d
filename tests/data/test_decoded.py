"""Images that are decoded when asked for: the contract's pixels, whatever the threads, bad files left out."""

import numpy as np
import pytest
import torch
from conftest import make_images
from PIL import Image

from striate.data import Decoded, decoded, open_data
from striate.data.decoded import View
from striate.data.loader import stream
from striate.training.schedule import batches
from striate.transforms.preprocess import Preprocess

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "_SETTLED", 0)  # the files of these tests are new


@pytest.fixture
def folder(tmp_path):
    make_images(tmp_path / "data" / "a", 12, (200, 0, 0))
    make_images(tmp_path / "data" / "b", 9, (0, 0, 200))
    return tmp_path / "data"


def everything(source, workers=2):
    """All images that can be read, and which they are."""
    order = batches(len(source), 4, seed=0, epoch=0)
    found = list(stream(source, order, CPU, workers=workers))
    which = np.concatenate([b.samples for b in found])
    pixels = np.concatenate([b.pixels.numpy() for b in found])
    return np.sort(which), pixels[np.argsort(which)]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("size", [32, 96])
def test_pixels_are_what_the_contract_gives(folder, size, workers, cache):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(size)
    expected = np.stack([pre.fit(pre.decode(name)) for name in samples.names])
    source = Decoded(samples, pre, cache=cache)
    for _ in range(2):  # decoding, and then from memory or the cache
        which, pixels = everything(source, workers)
        assert which.tolist() == list(range(21))
        assert np.array_equal(pixels, expected)
    assert np.array_equal(everything(Decoded(samples, pre, cache=cache))[1], expected)
    assert source.in_memory == (size == 32 or not cache)


def test_a_canvas_has_its_margin(folder):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(96)
    source = Decoded(samples, pre, canvas=True)
    assert source.shape == (110, 110, 3)
    assert np.array_equal(everything(source)[1][3], pre.canvas(pre.decode(samples.names[3])))


@pytest.mark.parametrize("canvas", [True, False])
def test_what_is_read_ahead_is_what_is_read(folder, canvas):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(96)
    expected = everything(Decoded(samples, pre, canvas=canvas, cache=False))[1]
    source = Decoded(samples, pre, canvas=canvas)
    for i in range(10):
        source.read_ahead(i)
    make_images(folder / "a", 10, (0, 0, 0))  # none of them is opened again
    assert np.array_equal(everything(source)[1], expected)


@pytest.mark.parametrize("size", [32, 96])
def test_unreadable_files_are_named_and_left_out(folder, size):
    (folder / "a" / "003.png").write_bytes(b"")
    (folder / "b" / "000.png").write_text("no image at all")
    source = Decoded(open_data(folder).splits["all"], Preprocess.for_size(size))
    assert source.problems == ()
    order = batches(21, 5, seed=1, epoch=0)
    for _ in range(2):
        got = list(stream(source, order, CPU))
        for which, batch in zip(order, got, strict=True):
            assert batch.samples.tolist() == [i for i in which if i not in (3, 12)]
        assert [(p.path, p.reason) for p in source.problems] == [
            (str(folder / "a" / "003.png"), "the file is empty (0 bytes)"),
            (str(folder / "b" / "000.png"), "it is text, not an image"),
        ]
    assert np.flatnonzero(~source.readable).tolist() == [3, 12]
    assert not source.any_readable(np.array([3, 12]))
    assert source.any_readable(np.array([3, 4]))


def test_what_does_not_fit_in_memory_is_decoded_each_time(folder, monkeypatch):
    samples = open_data(folder).splits["all"]
    monkeypatch.setattr(decoded, "IN_MEMORY", 1000)
    source = Decoded(samples, Preprocess.for_size(32), cache=False)
    first = everything(source)[1]
    assert not source.in_memory
    Image.new("RGB", (40, 36)).save(folder / "a" / "000.png")
    assert not np.array_equal(everything(source)[1][0], first[0])


def test_images_in_memory_of_the_right_size_are_not_touched(tmp_path):
    samples = open_data("digits").splits["all"]
    source = Decoded(samples, Preprocess.for_size(8, 1))
    assert source.in_memory
    assert np.array_equal(everything(source)[1][..., 0], samples.pixels)
    other = Decoded(samples, Preprocess.for_size(8, 3))
    assert np.array_equal(everything(other)[1], np.repeat(samples.pixels[..., None], 3, axis=3))
    assert not (tmp_path / "cache").exists()


def test_a_view_reads_what_is_looked_at(folder):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(96)
    view = View(Decoded(samples, pre), np.array([4, 2, 20]))
    expected = [pre.fit(pre.decode(samples.names[i])) for i in (4, 2, 20)]
    assert len(view) == 3
    assert np.array_equal(view[1], expected[1])
    assert np.array_equal(view[-1], expected[2])
    assert np.array_equal(view[:2], np.stack(expected[:2]))
