"""Archives: what a folder says, read where it lies, whatever hostile names and sizes its members have."""

import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import torch
from conftest import make_images

import striate
from striate.data import DecodedImages, SplitPlan, open_data, split
from striate.data.check import check
from striate.data.images import archives, decoded
from striate.data.images.loader import stream
from striate.errors import DataError, DecodeError
from striate.tasks.classification.data import data_changes, write_inputs
from striate.training.config_file import CHECKPOINTS
from striate.training.schedule import shuffled_batches
from striate.transforms.preprocess import Preprocess

KINDS = ("zip", "tar", "tar.gz", "tgz")


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "_CLOCK_NS", 0)  # the files of these tests are new


@pytest.fixture
def folder(tmp_path):
    """Classes with folders below them, names that need care, and what is to be passed over."""
    root = tmp_path / "flowers"
    make_images(root / "rose", 9, (200, 0, 0))
    make_images(root / "rose" / "more" / "still", 3, (200, 0, 0), seed=1)
    make_images(root / "猫 & co", 8, (0, 0, 200))
    make_images(root / ".hidden", 1, (0, 0, 0))
    make_images(root / "rose" / ".thumbs", 1, (0, 0, 0))
    (root / "rose" / "notes.txt").write_text("no image")
    return root


def pack(folder, kind, top=""):
    """The folder in an archive made by a program of its own: Python's command lines, or tar."""
    path = folder.parent / f"packed.{kind}"
    inside = f"{top}/" if top else ""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for place in sorted(folder.rglob("*")):
                file.write(place, inside + place.relative_to(folder).as_posix())
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            tar.add(folder, top or ".")
    return path


def pairs(data, samples):
    return [
        (os.path.relpath(name, data.root), data.classes[label])
        for name, label in zip(samples.names, samples.labels, strict=True)
    ]


@pytest.mark.parametrize("top", ["", "flowers"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_divided_and_read_as_its_folder(folder, kind, top):
    plain = split(open_data(folder), SplitPlan(0.2, 0.2, seed=3))
    packed = split(open_data(pack(folder, kind, top)), SplitPlan(0.2, 0.2, seed=3))
    assert packed.classes == plain.classes == ("rose", "猫 & co")
    pre = Preprocess.for_size(32)
    for name, samples in plain.splits.items():
        assert pairs(packed, packed.splits[name]) == pairs(plain, samples)
        order = shuffled_batches(len(samples), 4, seed=0, epoch=0)
        sources = [DecodedImages(s, pre, cache=False) for s in (samples, packed.splits[name])]
        for one, other in zip(
            *(stream(s, order, torch.device("cpu"), workers=4) for s in sources), strict=True
        ):
            assert torch.equal(one.pixels, other.pixels)
            assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_split_folders_within(tmp_path, kind):
    root = tmp_path / "data"
    for name in ("train", "val"):
        make_images(root / name / "a", 2, (200, 0, 0))
        make_images(root / name / "b", 1, (0, 0, 200))
    data = open_data(pack(root, kind, "some-name"))
    assert {name: len(s) for name, s in data.splits.items()} == {"train": 3, "val": 3}
    shutil.rmtree(root / "val")
    assert set(open_data(pack(root, kind)).splits) == {"train"}  # a lone `train` is no folder around it all


def test_tar_of_another_program(folder):
    path = folder.parent / "gnu.tar"
    subprocess.run(["tar", "-C", folder.parent, "-cf", path, "flowers"], check=True)
    assert len(open_data(path).splits["all"]) == 20


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_cache_knows_the_members_of_an_archive(folder, kind):
    path = pack(folder, kind)
    pre = Preprocess.for_size(96)

    def pixels(data):
        source = DecodedImages(data.splits["all"], pre, root=data.root)
        order = [np.arange(len(source))]
        found = next(iter(stream(source, order, torch.device("cpu"))))
        return found.pixels, source

    first, _ = pixels(open_data(path))
    data = open_data(path)
    broken = type("Broken", (), {"stamp": data.splits["all"].store.stamp, "fetch": None})()
    object.__setattr__(data.splits["all"], "store", broken)
    assert torch.equal(pixels(data)[0], first)  # from the cache: nothing can be fetched
    make_images(folder / "rose", 1, (0, 250, 0), seed=9)  # another 000.png
    changed, _ = pixels(open_data(pack(folder, kind)))
    assert not torch.equal(changed[0], first[0])
    assert torch.equal(changed[1:], first[1:])


def test_an_archive_that_changes_under_a_run_is_not_read_on(folder):
    path = pack(folder, "tar")
    samples = open_data(path).splits["all"]
    whole = samples.fetch(0)
    assert whole.startswith(b"\x89PNG")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(DecodeError, match="changed after it was opened"):
        samples.fetch(0)


def add(tar, name, data=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(data))


def test_odd_members_of_a_tar(folder):
    image = (folder / "rose" / "000.png").read_bytes()
    path = folder.parent / "odd.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "/rose/1.png", b"an older one of that name")
        add(tar, "./rose//./1.png", image)
        add(tar, "rose/2.png", type=tarfile.LNKTYPE, linkname="rose/1.png")
        add(tar, "tulip/" + "x" * 300 + ".png", image)
        add(tar, "../../etc/evil.png", image)
        add(tar, "rose/link.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "rose/pipe.png", type=tarfile.FIFOTYPE)
        add(tar, "a/" * 2000 + "deep.png", image)
        add(tar, "tulip/none.png", b"")
    data = open_data(path)
    samples = data.splits["all"]
    assert data.classes == ("a", "rose", "tulip")
    assert [n.rpartition("/")[2][:8] for n in samples.names] == [
        "deep.png",
        "1.png",
        "2.png",
        "none.png",
        "xxxxxxxx",
    ]
    assert [samples.fetch(i) for i in range(5)] == [image, image, image, b"", image]
    assert [note.split(" ", 2)[1:] for note in data.notes] == [
        ["1", "members whose names lead out of the archive"],
        ["1", "members that have the name of a later one"],
        ["2", "members that are not regular files (links, devices)"],
    ]


def test_odd_members_of_a_zip(folder):
    image = (folder / "rose" / "000.png").read_bytes()
    path = folder.parent / "odd.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in (
            "/rose/1.png",
            "tulip\\1.png",
            "../evil.png",
            "rose/../../evil.png",
            "__MACOSX/rose/._1.png",
        ):
            file.writestr(name, image)
    data = open_data(path)
    assert pairs(data, data.splits["all"]) == [("rose/1.png", "rose"), ("tulip/1.png", "tulip")]
    assert data.notes[0].startswith("skipped 2 members whose names lead out")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_is_too_large_is_refused_before_it_is_unpacked(folder, kind, monkeypatch):
    path = pack(folder, kind)
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 100)
    samples = open_data(path).splits["all"]
    with pytest.raises(DecodeError, match="more than the largest image"):
        samples.fetch(0)


def test_a_zip_that_unpacks_to_more_than_it_says_is_cut_and_refused(folder):
    path = folder.parent / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("rose/1.bmp", b"\0" * 10_000_000)
        file.writestr("tulip/1.png", (folder / "rose" / "000.png").read_bytes())
    raw = path.read_bytes().replace((10_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(raw)
    with pytest.raises(DecodeError, match="its archive is damaged"):
        open_data(path).splits["all"].fetch(0)


def test_a_gzip_bomb_ends_at_the_limit(folder, monkeypatch):
    path = pack(folder, "tar.gz")
    monkeypatch.setattr(archives, "MAX_TAR_GZ_BYTES", 10_000)
    with pytest.raises(DataError, match=r"no random access.*gunzip"):
        open_data(path)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damaged_archives_are_refused(folder, kind):
    path = pack(folder, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match="cannot read"):
        open_data(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot read"):
        open_data(path)


def test_a_damaged_member_is_named_and_left_out(folder):
    path = pack(folder, "zip")
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("rose/003.png")
    raw = bytearray(path.read_bytes())
    at = info.header_offset + 100
    raw[at : at + 20] = bytes(20)
    path.write_bytes(raw)
    source = DecodedImages(open_data(path).splits["all"], Preprocess.for_size(32))
    readable = source.read(np.arange(len(source)), np.empty((len(source), 32, 32, 3), np.uint8))
    assert np.flatnonzero(~readable).tolist() == [3]
    assert source.problems[0].path == f"{path}/rose/003.png"
    assert "its archive is damaged" in source.problems[0].reason


def test_members_are_read_by_many_threads_at_once(folder):
    samples = open_data(pack(folder, "zip")).splits["all"]
    expected = [samples.fetch(i) for i in range(len(samples))]
    wrong = []

    def read():
        for _ in range(20):
            wrong.extend(i for i in range(len(samples)) if samples.fetch(i) != expected[i])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_resume_sees_what_has_changed_in_an_archive(folder, tmp_path):
    path = pack(folder, "tar")
    (tmp_path / CHECKPOINTS).mkdir()
    write_inputs(tmp_path, open_data(path))
    assert data_changes(tmp_path, open_data(path)) == []
    (folder / "rose" / "000.png").unlink()
    (found, *_) = data_changes(tmp_path, open_data(pack(folder, "tar")))
    assert found == "1 missing: rose/000.png"


def test_the_check_up_looks_into_archives(folder):
    shutil.copy(folder / "rose" / "001.png", folder / "猫 & co" / "stray.png")
    (folder / "rose" / "002.png").write_bytes(b"")
    path = pack(folder, "zip")
    checkup = check(path)
    kinds = {finding.kind: [i.path for g in finding.groups for i in g] for finding in checkup.findings}
    assert kinds["empty"] == [f"{path}/rose/002.png"]
    assert set(kinds["conflicting-labels"]) == {f"{path}/rose/001.png", f"{path}/猫 & co/stray.png"}
    from striate.report.check_page import render

    assert render(checkup).count("data:image/jpeg") >= 2


def test_train_and_measure_from_a_zip(colors, tmp_path):
    root = tmp_path / "colors"
    shutil.copytree(colors, root)
    path = pack(root, "zip", "colors")
    options = {"model": "lenet", "epochs": 1, "batch": 8, "test": 0.2, "out": str(tmp_path / "runs")}
    packed, plain = (striate.train(str(data), **options).training for data in (path, root))
    assert packed.folder.name == "packed-lenet"
    states = [striate.load(run.last).network.state_dict() for run in (packed, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    measured = striate.evaluate(packed.folder)  # by config.yaml and split.csv
    assert measured.split == "test"
    assert measured.names == packed.task.dataset.splits["test"].names
