"""Folders, tables, idx files and digits: what is found, what is passed over, what is refused."""

import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import make_images
from PIL import Image
from sklearn.datasets import load_digits

from striate.data import DataSet, Samples, images, open_data
from striate.data.images.folders import find_images, inner_class_folder, refuse_output_inside
from striate.errors import DataError, UsageError
from striate.transforms.decode import SUFFIXES, is_image_name

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
        ("where,what\na,b\n", "its first line is 'where,what'"),
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
        (idx(np.zeros((3, 0, 3), np.uint8)), idx(np.zeros(3, np.uint8)), "its images have no pixels"),
        (
            b"\0\0\x08\x03" + b"\xff" * 12,
            idx(np.zeros(3, np.uint8)),
            "has 0 values, but its header says",
        ),
        (
            gzip.compress(b"\0\0\x08\x03" + b"\xff" * 12, mtime=0),
            idx(np.zeros(3, np.uint8)),
            "at most .* says 79,",
        ),
        (
            gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)) + b"x", mtime=0),
            idx(np.zeros(2, np.uint8)),
            "more values",
        ),
        (b"\0\0\x08\xff" + bytes(1020), idx(np.zeros(3, np.uint8)), "does not start like an idx file"),
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
    with pytest.raises(DataError, match=r"b': permission denied"):
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


def encoded(kind):
    out = io.BytesIO()
    Image.new("RGB", (8, 8), RED).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_images_are_known_by_name_or_content(tmp_path, packed):
    root = tmp_path / "data"
    make_images(root / "__background__", 1, RED)
    (root / "_a" / "deeper").mkdir(parents=True)
    images = {
        "a.jpg_large": "JPEG", "b": "PNG", "c.jpg:orig": "JPEG", "deeper/d.tmp": "GIF", "e.img": "TIFF",
        "f.bitmap": "BMP", "g.txt": "WEBP", "h.jp2!": "JPEG2000",
    }  # fmt: skip
    for name, kind in images.items():
        (root / "_a" / name).write_bytes(encoded(kind))
    others = {
        "BM.dat": b"BM, a text", "photo.cr2": b"II*\0\x10\0\0\0CR", "film.mp4": b"\0\0\0\x20ftypisom",
        "x.svg": b"<svg/>",
    }  # fmt: skip
    for name, content in {
        **others,
        "notes.txt": b"",
        "Thumbs.db": b"",
        "._a.jpg": b"",
        ".nomedia": b"",
    }.items():
        (root / "_a" / name).write_bytes(content)
    (root / "_a" / ".hidden.png").write_bytes(encoded("PNG"))
    make_images(root / "_a" / "@eaDir" / "x", 1, RED)
    make_images(root / "_a" / ".old", 1, RED)
    source = root
    if packed:
        source = tmp_path / "data.zip"
        with zipfile.ZipFile(source, "w") as file:
            for path in root.rglob("*"):
                file.write(path, path.relative_to(root))
    data = open_data(source)
    expected = {(f"_a/{name}", "_a") for name in images} | {("__background__/000.png", "__background__")}
    assert found(data) == expected
    notes = "\n".join(data.notes)
    assert "skipped 2 hidden images or folders with images" in notes
    assert ".hidden.png" in notes
    assert ".old" in notes
    assert "skipped 4 files that are not images" in notes
    assert len(data.notes) == 2
    if not packed:
        assert len(find_images(str(root))) == len(expected)


def test_folders_that_striate_wrote_are_skipped(colors, run, tmp_path, monkeypatch):
    root = tmp_path / "data"
    for name in ("red", "blue"):
        shutil.copytree(colors / name, root / name)
    before = found(open_data(root))
    shutil.copytree(run.training.folder, root / "runs" / "colors")  # `striate train .` in the folder
    shutil.copytree(run.training.folder, root / "red" / "mine")
    picture = next((colors / "red").iterdir())
    (root / "runs" / "colors-lr").mkdir()
    (root / "page").mkdir()  # `striate evaluate --out page --figures`
    shutil.copy(run.training.folder / "report.html", root / "page")
    for name in ("colors/confusion.png", "colors-lr/lr.csv", "colors-lr/lr.png", "../page/confusion.png"):
        shutil.copy(picture, root / "runs" / name)
    (root / "runs" / "check-data.html").write_text("<html>")
    for source in (root, tmp_path / "data.zip"):
        if source != root:
            shutil.make_archive(str(root), "zip", root)
        data = open_data(source)
        assert found(data) == before
        assert [note.split(":")[0] for note in data.notes] == ["skipped 4 folders that Striate wrote"]
    monkeypatch.chdir(root)
    assert len(open_data(".").splits["all"]) == len(before)
    assert len(find_images(".")) == len(before)
    assert len(find_images(str(root / "page"))) == 1  # what is asked for by name


def test_a_folder_of_runs_that_have_not_begun_is_no_class(tmp_path):
    make_images(tmp_path / "a", 1, RED)
    make_images(tmp_path / "runs" / "x" / "samples", 1, RED)
    (tmp_path / "runs" / "x" / "state").mkdir()
    assert open_data(tmp_path).classes == ("a", "runs")
    (tmp_path / "runs" / "x" / "config.yaml").write_text("format: 2")
    assert open_data(tmp_path).classes == ("a",)


@pytest.mark.parametrize(
    ("folders", "fix"),
    [
        (["top/a", "top/b"], "give '{root}/top'"),
        (["top/inner/a", "top/inner/b"], "give '{root}/top/inner'"),
        (["top/train/a", "top/val/a"], "give '{root}/top'"),
        (["train/top/a", "train/top/b", "val/top/a"], "move them up: train/a/"),
    ],
)
def test_folders_one_level_too_many(tmp_path, folders, fix):
    for folder in folders:
        make_images(tmp_path / folder, 1, RED)
    inner = inner_class_folder(open_data(tmp_path))
    assert inner.why.startswith("its only class folder 'top' contains the folders ")
    assert fix.format(root=tmp_path) in inner.fix


def test_one_class_is_one_class(tmp_path):
    make_images(tmp_path / "a" / "2023", 1, RED)
    make_images(tmp_path / "a", 1, RED)
    assert inner_class_folder(open_data(tmp_path)) is None
    (tmp_path / "t.csv").write_text("path,label\na/x/1.png,cat\na/y/1.png,cat\n")
    assert inner_class_folder(open_data(tmp_path / "t.csv")) is None


def test_the_same_folders_in_every_class(tmp_path):
    for name in ("part1", "part2"):
        for inner in ("cat", "dog"):
            make_images(tmp_path / name / inner, 1, RED)
    make_images(tmp_path / "part2" / "bird", 1, RED)
    assert "contain the same folders, 'cat', 'dog': if these are the classes" in open_data(tmp_path).notes[0]
    shutil.rmtree(tmp_path / "part2" / "bird")
    for name in ("part1", "part2"):
        (tmp_path / name / "cat").rename(tmp_path / name / "train")
        (tmp_path / name / "dog").rename(tmp_path / name / "test")
    with pytest.raises(DataError, match="Splits come first: root/test/part1/"):
        open_data(tmp_path)


def test_one_level_too_few(tmp_path):
    for name in "ab":
        make_images(tmp_path / "data" / name, 1, RED)
    with pytest.raises(DataError, match="If 'a' is a class, give the folder above it"):
        open_data(tmp_path / "data" / "a")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "flowers.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"If 'flowers\.zip' holds the data, give '.*/only/flowers\.zip'"):
        open_data(tmp_path / "only")


def test_output_inside_of_a_class_is_refused(tmp_path, monkeypatch):
    for name in ("train/a", "train/b", "Valid/a"):
        make_images(tmp_path / "data" / name, 1, RED)
    (tmp_path / "link").symlink_to(tmp_path / "data" / "train" / "a")
    data = open_data(tmp_path / "data")
    for out in ("data/train/a", "data/Valid/a/runs", "link/runs"):
        with pytest.raises(UsageError, match="whose images are the class 'a'"):
            refuse_output_inside(data, str(tmp_path / out))
    for out in ("data", "data/runs", "data/train/runs", "elsewhere"):
        refuse_output_inside(data, str(tmp_path / out))
    monkeypatch.chdir(tmp_path / "data" / "train" / "b")
    with pytest.raises(UsageError, match="--out 'runs': it is inside of"):
        refuse_output_inside(open_data("../.."), "runs")


def test_what_is_next_to_idx_files_is_noted(tmp_path):
    for name, array in (
        ("images-idx3", np.zeros((2, 3, 4), np.uint8)),
        ("labels-idx1", np.zeros(2, np.uint8)),
    ):
        (tmp_path / f"train-{name}-ubyte").write_bytes(idx(array))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((1, 3, 4), np.uint8)))
    make_images(tmp_path / "more", 1, RED)
    notes = open_data(tmp_path).notes
    assert notes[0].startswith("skipped 't10k-images-idx3-ubyte'")
    assert notes[1] == "only the idx files are read; skipped folders: 'more'"


def test_the_shared_folders(shared, tmp_path):
    for name in ("folder_background", "folder_jpg_large"):
        with tarfile.open(shared / "cases" / f"{name}.tgz") as tar:
            tar.extractall(tmp_path, filter="data")
        assert not open_data(shared / "cases" / f"{name}.tgz").notes
    assert open_data(tmp_path / "d_under").classes == ("__background__", "cat", "dog")
    assert len(open_data(tmp_path / "e_half").splits["all"]) == len(list(tmp_path.glob("e_half/*/*")))


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


ROOTS = ("/data", "/", "data", ".", "../up", "/a/../b", "/data/", "//data")
NAMES = ("a.png", "b/a.png", "./a.png", "../a.png", "b//a.png", "b/../a.png", "..a.png", ".", "b/.", "")


@pytest.mark.parametrize("root", ROOTS)
def test_names_below_the_root_and_absolute_ones(root):
    data = DataSet(root, root, (), {})
    for below in NAMES:
        for name in (f"{root}/{below}", below or "x", f"/else/{below}"):
            assert data.relative_name(name) == os.path.relpath(name, root)
            assert data.absolute_name(name) == str(Path(name).absolute())
    assert DataSet("digits", "", (), {}).absolute_name("digits/1") == "digits/1"


def test_names_of_images():
    for name in ("a.png", "a.PNG", "a.b.jpeg", "png", ".png", "a.", "a.png.", "a.txt", "..png", "a.é.webp"):
        assert is_image_name(name) == (not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES)


@pytest.mark.parametrize("given", [".", "./digits/..", "{}", "{}/", "{}//", "{}/./."])
def test_paths_of_files_are_normal(tmp_path, monkeypatch, given):
    make_images(tmp_path / "a" / "deep", 2, (0, 0, 0), size=(2, 2))
    make_images(tmp_path / "b", 1, (0, 0, 0), size=(2, 2))
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    root = given.format(tmp_path)
    names = open_data(root).splits["all"].names
    expected = ("a/deep/000.png", "a/deep/001.png", "b/000.png")
    assert names == tuple(str(Path(root) / name) for name in expected)
