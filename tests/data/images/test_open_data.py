"""Folders, tables, idx files and digits: what is found, what is passed over, what is refused."""

import gzip
import json
import os
import struct

import numpy as np
import pytest
from conftest import make_images
from sklearn.datasets import load_digits

from striate.data import DataSet, Samples, images, open_data
from striate.data.images.folders import find_images
from striate.errors import DataError, UsageError

RED, BLUE = (200, 0, 0), (0, 0, 200)


def found(data, split="all"):
    """(relative path, class) pairs of a split."""
    samples = data.splits[split]
    return {
        (os.path.relpath(name, data.root).replace(os.sep, "/"), data.classes[label])
        for name, label in zip(samples.names, samples.labels, strict=True)
    }


def test_class_folders(tmp_path):
    make_images(tmp_path / "b", 2, RED)
    make_images(tmp_path / "a" / "deeper", 1, BLUE)
    for hidden in (".ipynb_checkpoints", "__MACOSX", "a/.thumbs"):
        make_images(tmp_path / hidden, 1, BLUE)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "._x.png").write_text("a Mac's shadow")
    (tmp_path / "empty").mkdir()
    make_images(tmp_path, 1, RED)
    data = open_data(tmp_path)
    assert data.classes == ("a", "b")
    assert found(data) == {("a/deeper/000.png", "a"), ("b/000.png", "b"), ("b/001.png", "b")}
    assert any("'empty'" in note for note in data.notes)
    assert any("outside of any class" in note for note in data.notes)


@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("valid", "Test"), ("validation", "testing")])
def test_split_folders_by_their_usual_names(tmp_path, val, test):
    for split in ("train", val, test):
        make_images(tmp_path / split / "x", 1, RED)
        make_images(tmp_path / split / "y", 1, BLUE)
    make_images(tmp_path / "extra", 1, RED)
    data = open_data(tmp_path)
    assert set(data.splits) == {"train", "val", "test"}
    assert found(data, "val") == {(f"{val}/x/000.png", "x"), (f"{val}/y/000.png", "y")}
    assert any("'extra'" in note for note in data.notes)


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus"):
        make_images(tmp_path / name, 1, RED)
    assert open_data(tmp_path).classes == ("bus", "train")


def test_classes_are_those_of_all_splits(tmp_path):
    make_images(tmp_path / "train" / "a", 1, RED)
    make_images(tmp_path / "val" / "b", 1, RED)
    data = open_data(tmp_path)
    assert data.classes == ("a", "b")
    kept, left_out = data.with_classes(("a",))
    assert left_out == {"b": 1}
    assert [len(kept.splits[s]) for s in ("train", "val")] == [1, 0]


def test_with_classes_goes_by_name(tmp_path):
    for name in "abc":
        make_images(tmp_path / name, 1, RED)
    data, left_out = open_data(tmp_path).with_classes(("c", "x", "a"))
    assert found(data) == {("a/000.png", "a"), ("c/000.png", "c")}
    assert left_out == {"b": 1}


def test_a_link_that_leads_back_up_ends(tmp_path):
    make_images(tmp_path / "a", 1, RED)
    make_images(tmp_path / "b", 1, RED)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    assert len(open_data(tmp_path).splits["all"]) == 2


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: None, "no class folders"),
        (lambda root: make_images(root, 3, RED), "3 images but no class folders"),
        (lambda root: (root / "a").mkdir(), "no class folders with images"),
    ],
)
def test_folders_without_classes_are_refused(tmp_path, make, reason):
    make(tmp_path)
    with pytest.raises(DataError, match=reason):
        open_data(tmp_path)


def test_missing_folders_and_odd_files(tmp_path):
    make_images(tmp_path / "flowers" / "a", 1, RED)
    with pytest.raises(DataError, match="did you mean 'flowers'"):
        open_data(tmp_path / "flowrs")
    with pytest.raises(DataError, match="did you mean 'digits'"):
        open_data("digitz")
    (tmp_path / "x.rar").write_bytes(b"Rar!")
    with pytest.raises(UsageError, match="neither a folder nor"):
        open_data(tmp_path / "x.rar")


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_tables(tmp_path, suffix, delimiter):
    table = tmp_path / f"t{suffix}"
    rows = [["Path", "label", "split"], ["a/1.png", "猫", "train"], ["/b/2.png", "dog", "val"]]
    table.write_text("\ufeff" + "\r\n".join(delimiter.join(row) for row in rows), "utf-8")
    data = open_data(table)
    assert data.classes == ("dog", "猫")
    assert data.splits["train"].names == (str(tmp_path / "a/1.png"),)
    assert data.splits["val"].names == ("/b/2.png",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,class\na,b\n", "its first line is 'file,class'"),
        ("", "its first line is ''"),
        ("path,label\n", "no rows"),
        ("path,label\nx.png,\n", ":2: the row has no label"),
        ("path,label,split\nx.png,a,train\ny.png,a,tset\n", ":3: unknown split 'tset'"),
        ("path,label,split\nx.png,a,train\ny.png,a,\n", "some rows have a split"),
    ],
)
def test_bad_tables_are_refused_by_line(tmp_path, text, reason):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=reason):
        open_data(tmp_path / "t.csv")


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dot", ["-", "."])
def test_idx_files(tmp_path, zipped, dot):
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for prefix in ("train", "t10k"):
        for kind, array in ((f"images{dot}idx3", images), (f"labels{dot}idx1", np.array([7, 3], np.uint8))):
            data = gzip.compress(idx(array)) if zipped else idx(array)
            (tmp_path / f"{prefix}-{kind}-ubyte{'.gz' if zipped else ''}").write_bytes(data)
    data = open_data(tmp_path)
    assert data.classes == ("3", "7")
    assert set(data.splits) == {"train", "test"}
    assert np.array_equal(data.splits["test"].pixels, images)
    assert data.splits["test"].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (
            idx(np.zeros((2, 3, 3), np.uint8))[:-1],
            idx(np.zeros(2, np.uint8)),
            "17 values, but its header says 18",
        ),
        (idx(np.zeros((2, 3, 3), np.uint8)), idx(np.zeros(3, np.uint8)), "one label per image"),
        (b"PNG!", idx(np.zeros(3, np.uint8)), "does not start like an idx file"),
        (gzip.compress(b"x" * 100, mtime=0)[:20], idx(np.zeros(3, np.uint8)), "ended before"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, images, labels, reason):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(DataError, match=reason):
        open_data(tmp_path)


def test_semicolons_of_a_spreadsheet(tmp_path):
    (tmp_path / "t.csv").write_text("path;label\na, b.png;cat\n")
    assert open_data(tmp_path / "t.csv").splits["all"].names == (str(tmp_path / "a, b.png"),)


def test_a_class_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_images(tmp_path / name, 1, RED)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)  # the superuser may read anything, so permissions are no test
    with pytest.raises(DataError, match=r"no permission for .*/b"):
        open_data(tmp_path)


def test_digits_are_scikit_learns():
    data = open_data("digits")
    bunch = load_digits()
    assert np.array_equal(data.splits["all"].labels, bunch.target)
    assert np.array_equal(data.splits["all"].pixels, np.rint(bunch.images / 16 * 255))


def test_find_images(tmp_path):
    make_images(tmp_path / "a" / "b", 2, RED)
    (tmp_path / "a" / "x.txt").write_text("no")
    assert len(find_images(str(tmp_path))) == 2
    assert find_images(str(tmp_path / "a" / "x.txt")) == [str(tmp_path / "a" / "x.txt")]
    assert find_images(str(tmp_path / "**" / "*0.png")) == [str(tmp_path / "a" / "b" / "000.png")]
    assert find_images("absent.png") == ["absent.png"]
    for nothing in (tmp_path / "a" / "*.jpg", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match="no images"):
            find_images(str(nothing))


def test_real_folders(shared):
    data = open_data(shared / "data" / "hymenoptera_data")
    assert {name: len(s) for name, s in data.splits.items()} == {"train": 245, "val": 153}  # 244 and a GIF
    labels = json.loads((shared / "data" / "imagenet_labels" / "imagenet_class_index.json").read_text())
    assert set(open_data(shared / "data" / "imagenette_224").classes) <= {v[0] for v in labels.values()}
    assert len(open_data(shared / "data" / "fashion_mnist_t10k").splits["all"]) == 10_000


def test_a_new_format_is_a_row_of_the_table(tmp_path, monkeypatch):
    def read(text, path):
        names = tuple(path.read_text().split())
        pixels = np.zeros((len(names), 8, 8), np.uint8)
        return DataSet(text, "", ("a",), {"all": Samples(names, np.zeros(len(names), np.int64), pixels)})

    row = images.Format("`x.list`", "names", lambda text, path: path.suffix == ".list", read)
    (tmp_path / "x.list").write_text("one two")
    with pytest.raises(UsageError, match="neither a folder"):
        open_data(tmp_path / "x.list")
    monkeypatch.setattr(images, "FORMATS", (*images.FORMATS, row))
    assert open_data(tmp_path / "x.list").splits["all"].names == ("one", "two")
