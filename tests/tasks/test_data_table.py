"""state/data.csv: what has changed about the files of a run, also with the old size and modification time."""

import os
import time

import pytest

from striate.data.images.samples import Samples
from striate.errors import DataError
from striate.tasks import data_table
from striate.tasks.data_table import Source


@pytest.fixture
def files(tmp_path):
    (tmp_path / "state").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(name.encode() * 10)
    return tmp_path


def sources(folder, split="train"):
    paths = sorted(folder.glob("*.png"))
    samples = Samples(tuple(map(str, paths)), [0] * len(paths))
    return [Source.of(split, path.name, "cat", samples.stamp(i)) for i, path in enumerate(paths)]


def rewrite(path, content):
    """Other content under the old size and modification time, as a careless tool or an attacker leaves it."""
    before = path.stat()
    time.sleep(0.02)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_has_changed(files):
    data_table.write(files, sources(files))
    assert data_table.changes(files, sources(files)) == []


def test_content_under_an_old_modification_time(files):
    data_table.write(files, sources(files))
    rewrite(files / "b.png", b"other" * 10)
    (change,) = data_table.changes(files, sources(files))
    assert change.startswith("1 changed: b.png (written to or replaced since, with its old size")


def test_a_copy_has_another_inode(files):
    """A restored backup has other change times, which say nothing."""
    data_table.write(files, sources(files))
    path = files / "b.png"
    before = path.stat()
    copy = files / "copy"
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.replace(path)
    assert data_table.changes(files, sources(files)) == []


def test_kinds_of_changes(files):
    data_table.write(files, sources(files))
    (files / "a.png").unlink()
    (files / "b.png").write_bytes(b"longer than before" * 10)
    (files / "d.png").write_bytes(b"new")
    assert data_table.changes(files, sources(files)) == [
        "1 missing: a.png", "1 changed: b.png (50 bytes, now 180)", "1 new: d.png",
    ]  # fmt: skip
    data_table.write(files, sources(files))
    assert data_table.changes(files, sources(files, "val")) == ["3 in another split: b.png, c.png, d.png"]


def test_a_table_of_an_earlier_version(files):
    rows = "".join(f"train,{s.name},cat,{s.bytes},{s.mark}\n" for s in sources(files))
    (files / "state" / "data.csv").write_text(f"split,name,class,bytes,mark\n{rows}")
    rewrite(files / "b.png", b"other" * 10)  # not noticed: the change time was not recorded
    assert data_table.changes(files, sources(files)) == []


@pytest.mark.parametrize("number", ["x", "1.5", "9" * 30, "", "--1"])
def test_a_damaged_number_is_refused_with_its_line(files, number):
    data_table.write(files, sources(files))
    path = files / "state" / "data.csv"
    lines = path.read_text().splitlines()
    lines[2] = f"train,b.png,cat,{number},1,1,1"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"data\.csv:3: .* must be whole numbers"):
        data_table.changes(files, [])
