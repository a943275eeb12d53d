"""Decoding a split: same pixels whatever the threads, unreadable files named, large splits on disk."""

import numpy as np
import pytest
from conftest import make_images

from striate.data import load, open_data, store
from striate.progress import Progress
from striate.transforms.preprocess import Preprocess


class Counter(Progress):
    def __init__(self):
        self.done = 0

    def advance(self, done, **figures):
        self.done += done


@pytest.fixture
def folder(tmp_path):
    make_images(tmp_path / "data" / "a", 12, (200, 0, 0))
    make_images(tmp_path / "data" / "b", 9, (0, 0, 200))
    return tmp_path / "data"


def test_pixels_are_what_the_contract_gives(folder):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(32)
    counter = Counter()
    loaded = load(samples, pre, workers=1, progress=counter)
    assert counter.done == len(samples) == len(loaded)
    for name, image in zip(loaded.names, loaded.images, strict=True):
        assert np.array_equal(image, pre.fit(pre.decode(name)))
    for workers in (2, 8):
        assert np.array_equal(load(samples, pre, workers=workers).images, loaded.images)
    assert load(samples, Preprocess.for_size(96), canvas=True).images.shape[1:3] == (110, 110)


def test_unreadable_files_are_named_and_left_out(folder):
    (folder / "a" / "003.png").write_bytes(b"")
    (folder / "b" / "000.png").write_text("no image at all")
    loaded = load(open_data(folder).splits["all"], Preprocess.for_size(32))
    assert [(p.path, p.reason) for p in loaded.problems] == [
        (str(folder / "a" / "003.png"), "the file is empty (0 bytes)"),
        (str(folder / "b" / "000.png"), "it is text, not an image"),
    ]
    assert len(loaded) == 19
    assert np.bincount(loaded.labels).tolist() == [11, 8]
    pre = Preprocess.for_size(32)
    for name, image in zip(loaded.names, loaded.images, strict=True):
        assert np.array_equal(image, pre.fit(pre.decode(name)))


def test_what_does_not_fit_in_memory_lies_in_the_cache_folder(folder, tmp_path, monkeypatch):
    samples = open_data(folder).splits["all"]
    expected = load(samples, Preprocess.for_size(32)).images
    monkeypatch.setattr(store, "IN_MEMORY", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = load(samples, Preprocess.for_size(32)).images
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, expected)
    assert not list((tmp_path / "cache" / "striate").iterdir())  # the file has no name


def test_images_in_memory_of_the_right_size_are_not_touched():
    samples = open_data("digits").splits["all"]
    loaded = load(samples, Preprocess.for_size(8, 1))
    assert np.shares_memory(loaded.images, samples.pixels)
    assert load(samples, Preprocess.for_size(8, 3)).images.shape == (1797, 8, 8, 3)
