"""One flipped bit, anywhere in a file that Striate wrote: detected, or without effect on what is read."""

import random
import tarfile

import numpy as np
import pytest
import torch
from conftest import make_images
from exact_resume import start_and_crash
from test_fuzz_data import tar
from test_fuzz_models import classifier_bundle

from striate import bundle, models
from striate.data import DecodedImages, open_data
from striate.data.images import cache, decoded
from striate.errors import StriateError
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.data import data_changes
from striate.training import checkpoint
from striate.training.distributed import init_distributed
from striate.training.resume import open_run
from striate.transforms.preprocess import Preprocess
from striate.weights.foreign import read_foreign

COUNTS = pytest.mark.parametrize("count", [pytest.param(2000, marks=pytest.mark.slow), 25])


def flips(path, count, where=None):
    """Flip one bit of a file after another, each time in its original content; yields how often so far."""
    content, rng = path.read_bytes(), random.Random(0)
    where = where or range(len(content))
    for number in range(count):
        data = bytearray(content)
        data[rng.choice(where)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        yield number
    path.write_bytes(content)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def detected(path, count, read, unchanged, where=None):
    """Flip bits; returns how many were detected. What is read in spite of one must be `unchanged`."""
    errors = []
    for _ in flips(path, count, where):
        try:
            value = read()
        except StriateError as error:
            errors.append(str(error))
        else:
            assert unchanged(value)
    assert not [error for error in errors if "\n" in error]
    return len(errors)


@COUNTS
def test_bundles(tmp_path, count):
    path = tmp_path / "x.safetensors"
    classifier_bundle(path)
    description, state = bundle.read(path)

    def unchanged(value):
        return value[0] == description and same(value[1], state)

    assert detected(path, count, lambda: bundle.read(path), unchanged) > 0.99 * count - 1
    assert detected(path, count, lambda: bundle.inspect(path), lambda _: False) > 0.99 * count - 1


@COUNTS
def test_checkpoints(few_colors, tmp_path, count):
    run = start_and_crash(few_colors, tmp_path, 3)
    path = sorted(run.glob("state/0*.safetensors"))[-1]
    saved = checkpoint.read(path)

    def unchanged(value):
        return (value.values, value.facts) == (saved.values, saved.facts) and same(
            value.tensors, saved.tensors
        )

    assert detected(path, count, lambda: checkpoint.read(path), unchanged) > 0.99 * count - 1


@COUNTS
@pytest.mark.parametrize("name", ["config.yaml", "split.csv", "state/data.csv"])
def test_files_of_a_run(few_colors, tmp_path, count, name):
    run = start_and_crash(few_colors, tmp_path, 3)
    with init_distributed("cpu") as distributed:

        def read():
            resumed = open_run(run, ClassificationConfig, {}, distributed)
            with resumed.config.open_data() as data:
                assert not data_changes(run, data.dataset)
            return resumed

        config, noted = read().config, []

        def unchanged(resumed):
            noted.append(any("was edited since" in note for note in resumed.notes))
            return noted[-1] or resumed.config == config

        assert detected(run / name, count, read, unchanged) + sum(noted) == count


@COUNTS
def test_foreign_checkpoints(tmp_path, count):
    path = tmp_path / "x.pth"
    torch.manual_seed(0)
    torch.save(models.build("lenet", num_classes=3).state_dict(), path)
    state = read_foreign(path, None)[1]
    found = detected(path, count, lambda: read_foreign(path, None)[1], lambda value: same(value, state))
    assert found > 0.9 * count  # most of the file are weights; some bytes of a zip archive mean nothing


@COUNTS
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_of_tar_archives(tmp_path, count, form):
    path = tmp_path / "x.tar"
    path.write_bytes(tar(form))
    content = path.read_bytes()
    starts = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    headers = [byte for start in starts for byte in range(start, start + 512)]

    def read():
        data = open_data(path)
        return data.classes, {
            name: [(samples.names[i], samples.labels[i], samples.fetch(i)) for i in range(len(samples))]
            for name, samples in data.splits.items()
        }

    expected = read()
    assert detected(path, count, read, lambda value: value == expected, headers) > 0.9 * count


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A function that opens a folder of images, and the files of its cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "_CLOCK_NS", 0)  # the files are new
    make_images(tmp_path / "data" / "a", 3, (200, 0, 0), size=(80, 80))
    data = open_data(tmp_path / "data")
    preprocess = Preprocess(size=(72, 72), shorter_side=72)

    def read(whole=True):
        source = DecodedImages(data.splits["all"], preprocess, root=data.root)
        out = np.zeros((3, *source.shape), np.uint8)
        if not whole:
            return source
        with source.reading():
            assert source.read(np.arange(3), out).all()
        return out

    read()
    (segment,) = cache.segments()
    return read, segment.path.with_suffix(".pixels"), segment.path.with_suffix(".index")


def forget_others(kept):
    for path in kept.parent.iterdir():
        if path.stem != kept.stem:
            path.unlink()


@COUNTS
@pytest.mark.parametrize("kind", ["pixels", "index"])
def test_cached_images(cached, count, kind, monkeypatch):
    read, pixels, index = cached
    expected, path = read(), pixels if kind == "pixels" else index
    decodes = []
    original = Preprocess.read
    monkeypatch.setattr(Preprocess, "read", lambda *a, **k: decodes.append(a) or original(*a, **k))
    for number in flips(path, count):
        assert np.array_equal(read(), expected)
        assert len(decodes) == number + 1  # the damaged image only
        forget_others(path)


@pytest.mark.parametrize("swapped", ["entries", "keys"])
def test_swapped_entries_of_an_index(cached, swapped):
    read, _, index = cached
    expected, content = read(), bytearray(index.read_bytes())
    size = 20 if swapped == "entries" else 16
    content[:size], content[20 : 20 + size] = content[20 : 20 + size], content[:size]
    index.write_bytes(content)
    assert np.array_equal(read(), expected)


def test_pixels_are_compared_once_per_process(cached, monkeypatch):
    source, sums, original = cached[0](whole=False), [], cache.zlib.crc32
    monkeypatch.setattr(cache.zlib, "crc32", lambda *a: sums.append(memoryview(a[0]).nbytes) or original(*a))
    out = np.zeros((3, *source.shape), np.uint8)
    for _ in range(3):
        assert source.read(np.arange(3), out).all()
    assert sums.count(72 * 72 * 3) == 3
