"""What `striate check --csv` found is left out: by kind, and never the last copy of an image."""

import os
import shutil

import numpy as np
import pytest
from conftest import COLORS, Messages, make_images
from exact_resume import outcome, start, start_and_crash

from striate.api import resume_training
from striate.csv_file import write_csv
from striate.data import DataSet, Samples, open_data
from striate.data.check import check
from striate.data.check.exclusion import exclude
from striate.errors import DataError, UsageError
from striate.files import write_atomic
from striate.inference.evaluation import evaluate


@pytest.fixture
def root(tmp_path):
    """Three classes of twelve images, with a copy, the same image in two classes, and an empty file."""
    root = tmp_path / "data"
    for name, color in COLORS.items():
        make_images(root / name, 12, color)
    shutil.copy(root / "red" / "003.png", root / "red" / "copy.png")
    shutil.copy(root / "red" / "004.png", root / "blue" / "red.png")
    (root / "green" / "empty.png").write_bytes(b"")
    return root


@pytest.fixture
def problems(root, tmp_path):
    """The table that `striate check --csv` writes."""
    write_atomic(tmp_path / "problems.csv", check(root).to_csv())
    return tmp_path / "problems.csv"


def left_out(root, table, kinds=""):
    found = exclude(open_data(root), table, kinds)
    return {os.path.relpath(path, root): kind for path, kind in found.rows}


def test_what_the_check_found_is_left_out_by_kind(root, problems):
    conflicting = {"red/004.png": "conflicting-labels", "blue/red.png": "conflicting-labels"}
    every = {**conflicting, "red/copy.png": "duplicates", "green/empty.png": "empty"}
    assert left_out(root, problems) == every
    assert left_out(root, problems, "duplicate, empty") == {
        "red/copy.png": "duplicates", "green/empty.png": "empty",
    }  # fmt: skip
    found = exclude(open_data(root), problems)
    assert len(found.data.splits["all"]) == 39 - 4
    text, _, counts = found.notes[0].partition(": ")
    assert text == f"4 images are left out, as {problems} says"
    assert sorted(counts.split(", ")) == ["1 duplicates", "1 empty", "2 conflicting-labels"]


@pytest.mark.parametrize("kinds", ["duplicat", "imbalance", "nonsense"])
def test_unknown_kinds_are_refused_with_the_list(root, problems, kinds):
    listed = r"Known: conflicting-labels, conflicting-label-sets, leakage, denied, .*turned"
    with pytest.raises(UsageError, match=listed):
        exclude(open_data(root), problems, kinds)
    with pytest.raises(UsageError, match="it names no kind"):
        exclude(open_data(root), problems, ",")


def splits_of(names):
    samples = {
        split: Samples(tuple(f"/d/{split}/a/{n}" for n in these), np.zeros(len(these), int))
        for split, these in names.items()
    }
    return DataSet("/d", "/d", ("a",), samples)


def remaining(data):
    return sorted(name.removeprefix("/d/") for part in data.splits.values() for name in part.names)


def test_of_copies_one_stays_and_it_is_the_one_that_is_held_out(tmp_path):
    data = splits_of({"train": "12", "val": "3", "test": "456"})
    rows = [
        *[(f"/d/train/a/{n}", "duplicates", "a", "train", 1) for n in "12"],
        *[(f"/d/test/a/{n}", "duplicates", "a", "test", 1) for n in "45"],
        *[(f"/d/train/a/{n}", "leakage", "a", "train", 1) for n in "12"],
        ("/d/val/a/3", "leakage", "a", "val", 1),
        *[(f"/d/test/a/{n}", "leakage", "a", "test", 1) for n in "45"],
        ("/d/test/a/6", "turned", "a", "test", 1),
    ]
    columns = ("path", "kind", "class", "split", "group")
    order = np.random.default_rng(0).permutation(len(rows))
    for these in (rows, sorted(rows, key=lambda row: row[0]), [rows[i] for i in order]):
        write_csv(tmp_path / "t.csv", these, columns)
        left = remaining(exclude(data, tmp_path / "t.csv", "").data)
        assert "test/a/6" in left  # a note
        assert len(set(left) & {"test/a/4", "test/a/5"}) == 1
        assert len(left) == 2
    only = exclude(data, tmp_path / "t.csv", "leakage")
    assert remaining(only.data) == ["test/a/4", "test/a/5", "test/a/6"]
    write_csv(tmp_path / "t.csv", rows[1:2], columns)  # the user has chosen which copy goes
    assert "train/a/2" not in remaining(exclude(data, tmp_path / "t.csv", "").data)


def test_a_table_of_other_programs_needs_two_columns(root, tmp_path):
    """Label errors, a spreadsheet's dialect, relative paths, links, kinds that Striate does not know."""
    table = root.parent / "labels.csv"
    table.write_text("Kind;Path\nlabel-error;data/red/000.png\nlabel-error;blue/001.png\n")
    assert left_out(root, table) == {"red/000.png": "label-error", "blue/001.png": "label-error"}
    assert left_out(root, table, "label-error") == left_out(root, table)
    link = tmp_path / "link"
    link.symlink_to(root)
    table.write_text(f"path,kind\n{root}/red/000.png,x\n{link}/red/001.png,x\n{root}/gone.png,x\n")
    assert sorted(left_out(link, table)) == ["red/000.png", "red/001.png"]
    assert sorted(left_out(root, table)) == ["red/000.png", "red/001.png"]
    table.write_text("path,kind\n/elsewhere/a.png,x\n")
    with pytest.raises(DataError, match="none of the 1 images that it names is in"):
        exclude(open_data(root), table)
    table.write_text("path,label\na.png,x\n")
    with pytest.raises(DataError, match="The first line must name path and kind"):
        exclude(open_data(root), table)
    table.write_text("path,kind\n")
    assert exclude(open_data(root), table).notes == (f"{table} names no image to leave out",)
    table.write_text("path,kind\ndigits/3,odd\n")
    assert len(exclude(open_data("digits"), table).data.splits["all"]) == 1796


def test_a_run_keeps_what_it_left_out(root, problems, tmp_path):
    messages = Messages()
    options = {"exclude": str(problems), "exclude_kinds": "conflicting-labels,duplicates"}
    whole = start(root, tmp_path / "whole", messages, **options)
    assert any(w.startswith("3 images are left out") for w in messages.warnings)
    assert sum(map(len, whole.task.dataset.splits.values())) == 36
    folder = start_and_crash(root, tmp_path, 2, **options)
    problems.unlink()  # the run has its own copy
    resume_training(folder)
    assert outcome(folder) == outcome(whole.folder)
    assert (folder / "excluded.csv").read_text() == (whole.folder / "excluded.csv").read_text()
    with pytest.raises(UsageError, match="Give --exclude"):
        start(root, tmp_path, exclude_kinds="duplicates")


@pytest.mark.slow
def test_evaluation_leaves_the_same_out_of_splits_that_the_data_have(tmp_path):
    for split in ("train", "val", "test"):
        for name in ("red", "blue"):
            make_images(tmp_path / "data" / split / name, 5, COLORS[name])
    table = tmp_path / "t.csv"
    table.write_text("path,kind\ndata/test/red/000.png,turned\ndata/train/red/001.png,turned\n")
    run = start(tmp_path / "data", tmp_path / "out", exclude=str(table), exclude_kinds="turned")
    assert (run.task.evaluate_held_out(run).n, evaluate(run.folder).n) == (9, 9)
    assert evaluate(run.folder, split="train").n == 9
