"""WebDataset shards: samples by key, classes by name, in whatever order they are asked for."""

import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from striate.data import DecodedImages, open_data
from striate.data.images import shards
from striate.data.images.loader import stream
from striate.errors import DataError
from striate.training.schedule import shuffled_batches
from striate.transforms.preprocess import Preprocess


def png(value):
    out = io.BytesIO()
    Image.new("L", (4, 4), value).save(out, "PNG")
    return out.getvalue()


def write(path, members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def shard(path, first, count, label=lambda i: [("cls", str(i % 3).encode())]):
    """Samples `first`, `first` + 1 ...: a picture of that gray each, with its label."""
    members = []
    for i in range(first, first + count):
        members += [(f"{i:04}.png", png(i)), *((f"{i:04}.{kind}", data) for kind, data in label(i))]
    write(path, members)


def gray(samples):
    return [np.asarray(Image.open(io.BytesIO(samples.fetch(i))))[0, 0] for i in range(len(samples))]


@pytest.mark.parametrize(
    "pattern",
    ["a-{000..010}.tar", "a-{8..11}.tar", "{train,val}-{0..2}.tar", "x{3..1}", "plain.tar", "{one}-{01..02}"],
)
def test_patterns_are_those_of_the_shell(pattern):
    expected = subprocess.run(["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True)
    assert shards.expand_braces(pattern) == expected.stdout.split()


@pytest.mark.parametrize("named", ["folder", "pattern", "file"])
def test_samples_in_any_order(tmp_path, named):
    for i in range(3):
        shard(tmp_path / "s" / f"part-{i:03}.tar", 40 * i, 40)
    source = {"folder": "s", "pattern": "s/part-{000..002}.tar", "file": "s/part-001.tar"}[named]
    data = open_data(tmp_path / source)
    samples = data.splits["all"]
    ids = list(range(40, 80) if named == "file" else range(120))
    assert gray(samples) == ids
    assert [data.classes[label] for label in samples.labels] == [str(i % 3) for i in ids]
    source = DecodedImages(samples, Preprocess.for_size(4, 1))
    order = shuffled_batches(len(samples), 16, seed=5, epoch=2)
    for which, batch in zip(order, stream(source, order, torch.device("cpu"), workers=4), strict=True):
        assert np.array_equal(batch.pixels[:, 0, 0, 0], np.array(ids)[which])


@pytest.mark.parametrize(
    ("label", "classes_file"),
    [
        (lambda i: [("json", json.dumps({"label": i % 3, "class_name": "abc"[i % 3]}).encode())], None),
        (lambda i: [("cls", str(i % 3).encode()), ("txt", "abc"[i % 3].encode())], None),
        (lambda i: [("cls", "abc"[i % 3].encode())], None),
        (lambda i: [("cls", f"{i % 3}\n".encode())], ("classes.txt", "a\nb\nc\n")),
        (lambda i: [("json", json.dumps({"label": i % 3}).encode())], ("classes.json", '["a", "b", "c"]')),
        (lambda i: [("json", str(i % 3).encode())], ("classes.json", '{"0": "a", "1": "b", "2": "c"}')),
        (lambda i: [("cls", str(i % 3).encode())], ("classes.json", '{"a": 0, "c": 2, "b": 1}')),
    ],
)
def test_class_names(tmp_path, label, classes_file):
    shard(tmp_path / "s" / "0.tar", 0, 9, label)
    if classes_file:
        (tmp_path / "s" / classes_file[0]).write_text(classes_file[1])
    data = open_data(tmp_path / "s")
    assert data.classes == ("a", "b", "c")
    assert data.splits["all"].labels.tolist() == [i % 3 for i in gray(data.splits["all"])]


def test_splits_by_the_names_of_shards(tmp_path):
    shard(tmp_path / "s" / "flowers-train-000000.tar", 0, 6)
    shard(tmp_path / "s" / "flowers-train-000001.tar", 6, 6)
    shard(tmp_path / "s" / "flowers_validation_0.tar", 12, 3)
    data = open_data(tmp_path / "s")
    assert {name: gray(samples) for name, samples in data.splits.items()} == {
        "train": list(range(12)), "val": [12, 13, 14]
    }  # fmt: skip
    shard(tmp_path / "s" / "more.tar", 15, 3)
    with pytest.raises(DataError, match="some shards have train"):
        open_data(tmp_path / "s")


def test_what_has_no_label_is_told(tmp_path):
    write(tmp_path / "s.tar", [("a.png", png(1)), ("a.cls", b"0"), ("b.png", png(2)), ("c.cls", b"1")])
    data = open_data(tmp_path / "s.tar")
    assert gray(data.splits["all"]) == [1]
    assert data.notes == (
        "skipped 1 samples that have a label but no image, in s.tar: 'c.cls'",
        "skipped 1 images without a label",
    )


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("a.png", png(1)), ("a.cls", b"3")], "its class is 3, but the file of class names has 2"),
        ([("a.png", png(1)), ("a.cls", b"")], "the label is empty"),
        ([("a.png", png(1)), ("a.json", b"{")], "it is not valid JSON"),
        ([("a.png", png(1)), ("a.json", b'{"caption": "x"}')], "no labeled image"),
        ([("a.mp4", b"x"), ("a.cls", b"1")], "no labeled image"),
    ],
)
def test_bad_samples_are_refused(tmp_path, members, reason):
    write(tmp_path / "s" / "0.tar", members)
    (tmp_path / "s" / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=reason):
        open_data(tmp_path / "s")


def test_missing_shards_and_wild_patterns(tmp_path):
    shard(tmp_path / "s" / "0.tar", 0, 3)
    with pytest.raises(DataError, match=r"2 of 3 shards are missing, the first is .*/1\.tar"):
        open_data(tmp_path / "s" / "{0..2}.tar")
    for wild in ("{0..999999999999}.tar", "{0..999}{0..999}.tar"):
        with pytest.raises(DataError, match="100,000"):
            open_data(tmp_path / "s" / wild)


def test_class_folders_in_a_tar_are_no_shard(tmp_path):
    write(tmp_path / "x.tar", [("a/1.png", png(1)), ("a/1.json", b"{}"), ("b/2.png", png(2))])
    assert open_data(tmp_path / "x.tar").classes == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.cls", b"9" * 5000, "the class number 9{40} is not below 2,147,483,648"),
        ("a.cls", b"2147483648", "is not below"), ("a.json", b"[" * 100_000, "it is not valid JSON"),
        ("a.json", b"9" * 5000, "it is not valid JSON"), ("a.json", b"2147483648", "is not below"),
        ("a.json", b'"\\ud800"', "is not valid text"),
    ],
)  # fmt: skip
def test_labels_without_bounds_are_refused(name, content, why, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for member, data in (("a.png", b""), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DataError, match=why):
        open_data(tmp_path / "x.tar")


@pytest.mark.parametrize("pattern", ["{0..9}{0..9999999}", "{1..9}" * 6, "{0..99999}" + "x" * 2000])
def test_patterns_have_a_limit(pattern):
    with pytest.raises(DataError, match=r"maximum is 100,000|very long paths"):
        shards.expand_braces(pattern)


def test_numbers_of_thousands_of_digits_are_no_range():
    assert shards.expand_braces("a{" + "1" * 5000 + "..2}") == ["a{" + "1" * 5000 + "..2}"]
