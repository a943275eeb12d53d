"""Images that are decoded when asked for: the contract's pixels, whatever the threads, bad files left out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_images
from PIL import Image

from striate.data import DecodedImages, open_data
from striate.data.images import decoded
from striate.data.images.decoded import ImageSubset
from striate.data.images.loader import stream
from striate.training.schedule import shuffled_batches
from striate.transforms import many_files
from striate.transforms.preprocess import Preprocess

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "_CLOCK_NS", 0)  # the files of these tests are new


@pytest.fixture
def folder(tmp_path):
    make_images(tmp_path / "data" / "a", 12, (200, 0, 0))
    make_images(tmp_path / "data" / "b", 9, (0, 0, 200))
    return tmp_path / "data"


def everything(source, workers=2):
    """All images that can be read, and which they are."""
    order = shuffled_batches(len(source), 4, seed=0, epoch=0)
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
    source = DecodedImages(samples, pre, cache=cache)
    for _ in range(2):  # decoding, and then from memory or the cache
        which, pixels = everything(source, workers)
        assert which.tolist() == list(range(21))
        assert np.array_equal(pixels, expected)
    assert np.array_equal(everything(DecodedImages(samples, pre, cache=cache))[1], expected)
    assert source.in_memory == (size == 32 or not cache)


def test_uncropped_images_have_a_margin(folder):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(96)
    source = DecodedImages(samples, pre, crop=False)
    assert source.shape == (110, 110, 3)
    assert np.array_equal(everything(source)[1][3], pre.resize_uncropped(pre.decode(samples.names[3])))


SHARE = """
import sys
import numpy as np, torch
from striate.data import DecodedImages, open_data
from striate.data.images import decoded
from striate.data.images.loader import stream
from striate.training.schedule import shuffled_batches
from striate.transforms.augment import augment
from striate.transforms.preprocess import Preprocess

decoded._CLOCK_NS = 0  # the files are new, and are to be cached all the same
folder, rank, size, threads, out = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
data, pre = open_data(folder), Preprocess.for_size(96)
source = DecodedImages(data.splits["all"], pre, crop=False, root=data.root)
for epoch in range(2):  # decoding, and from the cache
    whole = shuffled_batches(len(source), 8, seed=3, epoch=epoch)
    order = [np.array_split(which, size)[rank] for which in whole]
    shown = [
        augment(b.pixels, pre.size, "strong", seed=3, epoch=epoch, samples=b.samples).numpy()
        for b in stream(source, order, torch.device("cpu"), workers=threads)
    ]
    np.savez(f"{out}-{epoch}-{rank}", *shown)
"""


def test_batches_are_alike_for_any_threads_and_for_two_processes(folder, tmp_path, monkeypatch):
    def command(name, rank, size, threads):
        return ["-c", *map(str, (folder, rank, size, threads, tmp_path / name))]

    def batches_of(name, size):
        parts = [[np.load(tmp_path / f"{name}-{e}-{r}.npz") for r in range(size)] for e in range(2)]
        return [np.concatenate([part[file] for part in epoch]) for epoch in parts for file in epoch[0].files]

    # At the same time, on one cache.
    runs = [subprocess.Popen([sys.executable, "-c", SHARE, *command("two", i, 2, 2)[1:]]) for i in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    for name, threads in (("one", 1), ("eight", 8)):
        monkeypatch.setattr(sys, "argv", command(name, 0, 1, threads))
        exec(SHARE, {})
    alone = batches_of("one", 1)
    assert [len(batch) for batch in alone] == [8, 8, 5] * 2
    for other in (batches_of("eight", 1), batches_of("two", 2)):
        assert all(np.array_equal(a, b) for a, b in zip(alone, other, strict=True))


@pytest.mark.parametrize("crop", [False, True])
def test_prefetched_images_are_the_images_that_are_read(folder, crop):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(96)
    expected = everything(DecodedImages(samples, pre, crop=crop, cache=False))[1]
    source = DecodedImages(samples, pre, crop=crop)
    for i in range(10):
        source.prefetch(i)
    make_images(folder / "a", 10, (0, 0, 0))  # none of them is opened again
    assert np.array_equal(everything(source)[1], expected)


@pytest.mark.skipif(many_files.native() is None, reason="the native module was not built here")
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize(
    ("how", "is_read"),  # with the crop: images of another size are resized
    [
        (Preprocess.for_size(32), True), (Preprocess.for_size(32, 1), True),
        (Preprocess((32, 40), "squash"), True), (Preprocess((40, 32), "letterbox"), True),
        (Preprocess((32, 32), shorter_side=36), False), (Preprocess((32, 40), shorter_side=40), False),
    ],
)  # fmt: skip
def test_files_that_are_read_together_have_the_pixels_of_those_read_alone(
    tmp_path, monkeypatch, how, is_read, crop
):
    root = tmp_path / "data"
    for number, size in enumerate([(32, 32), (40, 32), (32, 40), (36, 36)]):
        make_images(root / f"c{number}", 3, (90, 0, 0), size=size)
        for kind, mode in enumerate(("L", "P", "RGBA")):
            path = root / f"c{number}" / f"{kind}.png"
            Image.open(root / f"c{number}" / "000.png").convert(mode).save(path)
        Image.open(root / f"c{number}" / "000.png").save(root / f"c{number}" / "9.jpg")
    (root / "c0" / "cut.png").write_bytes((root / "c0" / "000.png").read_bytes()[:900])
    samples = open_data(root).splits["all"]
    together = DecodedImages(samples, how, crop=crop)
    together.read_plain(np.arange(len(samples)))
    monkeypatch.setattr(many_files, "native", lambda: None)
    alone = DecodedImages(samples, how, crop=crop)
    assert (together.reads_plain, alone.reads_plain) == (is_read or not crop, False)
    for found, expected in zip(everything(together), everything(alone), strict=True):
        assert np.array_equal(found, expected)
    assert together.problems == alone.problems
    assert len(alone.problems) == 1


@pytest.mark.skipif(many_files.native() is None, reason="the native module was not built here")
@pytest.mark.parametrize("crop", [False, True])
def test_plain_files_that_were_prefetched_are_in_memory(tmp_path, crop):
    make_images(tmp_path / "data" / "a", 3, (200, 0, 0), size=(32, 32))
    samples = open_data(tmp_path / "data").splits["all"]
    source = DecodedImages(samples, Preprocess.for_size(32), crop=crop, cache=False)
    for i in range(3):
        source.prefetch(i)
    assert source.in_memory


@pytest.mark.skipif(many_files.native() is None, reason="the native module was not built here")
def test_files_that_were_read_together_are_not_opened_again(tmp_path):
    make_images(tmp_path / "data" / "a", 12, (200, 0, 0), size=(32, 32))
    samples = open_data(tmp_path / "data").splits["all"]
    source = DecodedImages(samples, Preprocess.for_size(32), cache=False)
    source.read_plain(np.arange(10))
    assert not source.in_memory
    source.read_plain(np.arange(12))
    assert source.in_memory
    expected = everything(source)[1]
    for path in (tmp_path / "data" / "a").iterdir():
        path.write_bytes(b"")
    assert np.array_equal(everything(source)[1], expected)
    assert source.rewritten() == list(samples.names)


@pytest.mark.parametrize("size", [32, 96])
def test_unreadable_files_are_named_and_left_out(folder, size):
    (folder / "a" / "003.png").write_bytes(b"")
    (folder / "b" / "000.png").write_text("no image at all")
    source = DecodedImages(open_data(folder).splits["all"], Preprocess.for_size(size))
    assert source.problems == ()
    order = shuffled_batches(21, 5, seed=1, epoch=0)
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


def test_what_does_not_fit_in_memory_is_decoded_each_time(folder):
    samples = open_data(folder).splits["all"]
    source = DecodedImages(samples, Preprocess.for_size(32), cache=False, memory=1000)
    first = everything(source)[1]
    assert not source.in_memory
    Image.new("RGB", (40, 36)).save(folder / "a" / "000.png")
    assert not np.array_equal(everything(source)[1][0], first[0])


def test_files_that_are_rewritten_are_named_once(folder):
    source = DecodedImages(open_data(folder).splits["all"], Preprocess.for_size(96), cache=False, memory=0)
    everything(source)
    assert source.rewritten() == []
    everything(source)
    name = source.names[3]
    Image.new("RGB", (40, 40), "white").save(name)
    assert source.rewritten() == [name]
    everything(source)  # decodes all of them again
    assert source.rewritten() == []


def test_images_in_memory_of_the_right_size_are_not_touched(tmp_path):
    samples = open_data("digits").splits["all"]
    source = DecodedImages(samples, Preprocess.for_size(8, 1))
    assert source.in_memory
    assert np.array_equal(everything(source)[1][..., 0], samples.pixels)
    other = DecodedImages(samples, Preprocess.for_size(8, 3))
    assert np.array_equal(everything(other)[1], np.repeat(samples.pixels[..., None], 3, axis=3))
    assert not (tmp_path / "cache").exists()


def test_a_view_reads_what_is_looked_at(folder):
    samples = open_data(folder).splits["all"]
    pre = Preprocess.for_size(96)
    view = ImageSubset(DecodedImages(samples, pre), np.array([4, 2, 20]))
    expected = [pre.fit(pre.decode(samples.names[i])) for i in (4, 2, 20)]
    assert len(view) == 3
    assert np.array_equal(view[1], expected[1])
    assert np.array_equal(view[-1], expected[2])
    assert np.array_equal(view[:2], np.stack(expected[:2]))
