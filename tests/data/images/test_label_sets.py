"""Images with several classes: how they are recognized, read, written, mapped and split."""

import os

import numpy as np
import pytest
from conftest import COLORS, make_images

from striate.data import SplitPlan, open_data, split
from striate.data.check import check
from striate.data.images.label_sets import are_sets, strata
from striate.data.images.tables import write_split
from striate.errors import DataError, UsageError


def table(folder, *lines, name="data.csv"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def sets(data, split_name="all"):
    samples = data.splits[split_name]
    return dict(zip(map(os.path.basename, samples.names), data.label_texts(samples), strict=True))


def test_labels_separated_by_semicolons(tmp_path):
    data = open_data(table(tmp_path, "path,label", "a.png,cat;dog", "b.png,dog", "c.png,cat ; bird"))
    assert data.classes == ("bird", "cat", "dog")
    assert data.is_multi_label
    assert sets(data) == {"a.png": "cat;dog", "b.png": "dog", "c.png": "bird;cat"}
    assert data.class_counts(data.splits["all"]).tolist() == [1, 2, 2]
    assert "labels separated by ';'): 5 labels of 3 classes for 3 images" in data.notes[-1]


def test_a_column_for_each_class(tmp_path):
    lines = ("split,path,cat,dog", "train,a.png,1,1", "train,b.png,0,1", "val,c.png,0,0")
    data = open_data(table(tmp_path, *lines))
    assert data.classes == ("cat", "dog")
    assert sets(data, "train") == {"a.png": "cat;dog", "b.png": "dog"}
    assert sets(data, "val") == {"c.png": ""}
    semicolons = table(tmp_path, *(line.replace(",", ";") for line in lines), name="other.csv")
    assert sets(open_data(semicolons), "train") == sets(data, "train")


@pytest.mark.parametrize(
    "lines",
    [
        ("path,age", "a.png,1", "b.png,0"),  # one column may be anything
        ("path,x,y", "a.png,1,0", "b.png,0,2"),
        ("path,x,y", "a.png,1,0", "b.png,0,"),
        ("path,x,x", "a.png,1,0", "b.png,0,1"),
    ],
)
def test_other_tables_without_labels_are_still_refused(tmp_path, lines):
    with pytest.raises(DataError, match="must name the columns"):
        open_data(table(tmp_path, *lines))


def test_one_name_may_contain_a_semicolon(tmp_path):
    """If no part of it ever occurs alone; the user can say otherwise."""
    path = table(tmp_path, "path,label", "a.png,salt;pepper", "b.png,oil", "c.png,salt;pepper")
    assert open_data(path).classes == ("oil", "salt;pepper")
    assert open_data(path, multi_label=True).classes == ("oil", "pepper", "salt")
    both = table(tmp_path, "path,label", "a.png,cat;dog", "b.png,dog", name="both.csv")
    assert open_data(both, multi_label=False).classes == ("cat;dog", "dog")
    assert are_sets(["a;b", "b;c"])
    assert not are_sets(["a;b", "c"])


def test_rows_of_one_image_are_joined_and_an_image_may_have_no_class(tmp_path):
    path = table(tmp_path, "path,label", "a.png,cat", "a.png,dog", "b.png,", "c.png,cat;dog")
    assert sets(open_data(path, multi_label=True)) == {"a.png": "cat;dog", "b.png": "", "c.png": "cat;dog"}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_several_class_folders_are_one_image(tmp_path, link):
    for name in ("red", "blue"):
        make_images(tmp_path / "data" / name, 3, COLORS[name])
    link(tmp_path / "data" / "red" / "000.png", tmp_path / "data" / "blue" / "other.png")
    data = open_data(tmp_path / "data")
    assert not data.is_multi_label  # another name: the user must say it
    assert sets(open_data(tmp_path / "data", multi_label=True))["other.png"] == "blue;red"
    (tmp_path / "data" / "blue" / "001.png").unlink()
    link(tmp_path / "data" / "red" / "001.png", tmp_path / "data" / "blue" / "001.png")
    data = open_data(tmp_path / "data")
    found = data.label_texts(data.splits["all"])
    assert sorted(found) == ["blue", "blue", "blue;red", "blue;red", "red"]
    assert len(open_data(tmp_path / "data", multi_label=False).splits["all"]) == 7


def test_one_stray_link_changes_nothing_but_is_noted(tmp_path):
    for name in ("red", "blue"):
        make_images(tmp_path / name, 12, COLORS[name])
    (tmp_path / "blue" / "001.png").unlink()
    (tmp_path / "blue" / "001.png").symlink_to(tmp_path / "red" / "001.png")
    data = open_data(tmp_path)
    assert not data.is_multi_label
    assert data.notes[-1].startswith("1 images are links in several class folders")
    assert open_data(tmp_path, multi_label=True).is_multi_label


def test_images_with_one_class_can_be_read_as_sets():
    images = np.zeros((4, 8, 8), np.uint8)
    data = open_data((images, np.array([0, 1, 1, 0])), multi_label=True)
    assert data.splits["all"].labels.tolist() == [[True, False], [False, True], [False, True], [True, False]]


def test_unknown_classes_lose_their_labels_only(tmp_path):
    data = open_data(table(tmp_path, "path,label", "a.png,cat;dog", "b.png,bird;cat"))
    mapped, left_out = data.with_classes(("dog", "wolf", "cat"))
    assert sets(mapped) == {"a.png": "dog;cat", "b.png": "cat"}
    assert left_out == {"bird": 1}


def test_a_split_has_rare_classes_everywhere_and_is_written_and_read(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        f"{i}.png,{'rare;' if i % 10 == 0 else ''}{'b;' if rng.random() < 0.5 else ''}a" for i in range(90)
    ]
    data = open_data(table(tmp_path, "path,label", *lines))
    parts = split(data, SplitPlan(seed=1))
    assert sorted(map(len, parts.splits.values())) == [9, 9, 72]
    for samples in parts.splits.values():
        assert parts.class_counts(samples).min() >= 1
    write_split(tmp_path / "split.csv", parts)
    again = open_data(tmp_path / "split.csv")
    assert {name: sets(again, name) for name in again.splits} == {n: sets(parts, n) for n in parts.splits}
    assert strata(parts.splits["val"].labels).tolist().count(parts.classes.index("rare")) == 1


def test_separators_in_class_names_and_tables_without_labels(tmp_path):
    with pytest.raises(DataError, match="contains ';'"):
        open_data(table(tmp_path, 'path,"a;b",c', "a.png,1,0", "b.png,1,1"))
    with pytest.raises(DataError, match="no image has a label"):
        open_data(table(tmp_path, "path,a,b", "a.png,0,0", "b.png,0,0"))
    with pytest.raises(UsageError):
        open_data(table(tmp_path, "path,a,b", "a.png,0,1", "b.png,1,0"), label_column="c")


def test_check_counts_each_class(tmp_path):
    make_images(tmp_path, 4, COLORS["red"])
    path = table(tmp_path, "path,label", "000.png,a;b", "001.png,a", "002.png,a", "003.png,b")
    report = check(path)
    assert report.classes == {"a": 3, "b": 2}
