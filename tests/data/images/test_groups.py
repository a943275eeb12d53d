"""Groups of images: none is ever separated, and classes are spread as evenly as the groups allow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from striate.data import DataSet, Samples, SplitPlan, open_data, split
from striate.data.images import groups
from striate.errors import DataError, UsageError

IMAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 11)), min_size=4, max_size=80)


def dataset(images, names=("a", "b", "c", "d")):
    paths = tuple(f"/data/{names[label]}/{i}.png" for i, (label, _) in enumerate(images))
    labels = np.array([label for label, _ in images], np.int64)
    samples = Samples(paths, labels, groups=tuple(f"g{group}" for _, group in images))
    return DataSet("/data", "/data", names, {"all": samples})


def by_split(data):
    return {name: set(samples.groups) for name, samples in data.splits.items()}


@settings(max_examples=40)
@given(IMAGES, st.integers(0, 3), st.sampled_from([0.1, 0.3]), st.sampled_from([0.0, 0.2]))
def test_a_group_is_in_one_split(images, seed, val, test):
    data = dataset(images)
    parts = split(data, SplitPlan(val, test, seed))
    found = [group for these in by_split(parts).values() for group in these]
    assert len(found) == len(set(found))
    assert sorted(n for part in parts.splits.values() for n in part.names) == sorted(data.splits["all"].names)
    for part in parts.splits.values():  # `take` keeps the group of each image
        assert [f"g{images[int(n.split('/')[-1][:-4])][1]}" for n in part.names] == list(part.groups)


@settings(max_examples=20)
@given(st.lists(st.integers(3, 40), min_size=2, max_size=4), st.integers(0, 3))
def test_groups_of_one_image_are_spread_like_images_without_groups(counts, seed):
    images = [(label, label * 100 + i) for label, count in enumerate(counts) for i in range(count)]
    data = dataset(images)
    plan = SplitPlan(0.2, 0.1, seed)
    plain = {n: Samples(s.names, s.labels) for n, s in data.splits.items()}
    expected = split(DataSet("/data", "/data", data.classes, plain), plan)
    found = split(data, plan)
    for name, samples in expected.splits.items():
        assert np.bincount(found.splits[name].labels).tolist() == np.bincount(samples.labels).tolist()


def imbalance(labels, parts):
    """Sum over parts and classes of the squared difference from equal fractions."""
    shares = np.array([np.bincount(labels[parts == p], minlength=4) for p in range(4)]) / np.bincount(labels)
    return ((shares - 1 / 4) ** 2).sum()


def test_classes_are_spread_at_least_as_evenly_as_by_scikit_learn():
    ours, theirs = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        names = [f"g{i}" for i in rng.geometric(0.05, 400)]
        labels = rng.integers(0, 4, 400)
        ours.append(imbalance(labels, groups.assign(labels, names, np.full((4, 4), 1 / 4), seed)))
        parts = np.empty(400, int)
        folds = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(labels, labels, names)
        for part, (_, held_out) in enumerate(folds):
            parts[held_out] = part
        theirs.append(imbalance(labels, parts))
    assert np.mean(ours) < np.mean(theirs)


def test_neither_order_nor_other_seeds_keep_a_group_from_being_split_alike():
    images = [(i % 2, i // 4) for i in range(80)]
    data = dataset(images, ("a", "b"))
    reverse = {"all": data.splits["all"].take(np.arange(80)[::-1])}
    other = DataSet("/data", "/data", data.classes, reverse)
    assert by_split(split(data, SplitPlan())) == by_split(split(other, SplitPlan()))
    assert by_split(split(data, SplitPlan(seed=1))) != by_split(split(data, SplitPlan()))


def test_only_val_is_split_off_and_splits_of_the_data_that_cross_are_refused():
    one = dataset([(i % 2, i // 4) for i in range(80)], ("a", "b")).splits["all"]
    first, second = one.take(np.arange(48)), one.take(np.arange(48, 80))
    data = DataSet("/data", "/data", ("a", "b"), {"train": first, "test": second})
    parts = by_split(split(data, SplitPlan()))
    assert parts["test"] == set(second.groups)
    assert not parts["train"] & parts["val"]
    crossing = DataSet("d", "/data", ("a", "b"), {"train": first, "test": one.take(np.arange(46, 80))})
    with pytest.raises(DataError, match="own splits separate them: 'g11' is in train and in test"):
        split(crossing, SplitPlan())


def test_the_pattern_is_that_of_the_user():
    paths = ("/data/cat/tom_1.jpg", "/data/cat/tom_2.jpg", "/data/dog/rex_1.jpg", "/data/dog/x.jpg")
    data = DataSet("d", "/data", ("cat", "dog"), {"all": Samples(paths, np.array([0, 0, 1, 1]))})
    found = groups.by_pattern(data, r"(\w+)_\d+\.jpg")
    assert found.splits["all"].groups[:3] == ("tom", "tom", "rex")
    assert len(set(found.splits["all"].groups)) == 3
    note = "--group-pattern does not match 1 of 4 paths, such as dog/x.jpg: each is a group of its own"
    assert found.notes == (note,)
    assert groups.by_pattern(data, r"^\w+/").splits["all"].groups == ("cat/", "cat/", "dog/", "dog/")
    assert groups.by_pattern(data, r"(\w+)/(t?)").splits["all"].groups[0] == "cat/t"
    with pytest.raises(UsageError, match=r"it matches none of the 4 paths, which look like cat/tom_1\.jpg"):
        groups.by_pattern(data, r"patient-\d+")
    with pytest.raises(UsageError, match="it is not valid: missing"):
        groups.by_pattern(data, "(")


def test_the_column_with_groups(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("path,label,tree\na.png,oak,1\nb.png,oak,1\nc.png,elm,2\nd.png,elm,\n")
    with pytest.raises(DataError, match=r"t\.csv:5: the row has no group"):
        open_data(table, group_column="tree")
    table.write_text(table.read_text() + "3\n")
    with pytest.raises(UsageError, match=r"no column 'trees'.*did you mean 'tree'"):
        open_data(table, group_column="trees")
    with pytest.raises(UsageError, match="--group-column with"):
        open_data(tmp_path, group_column="tree")
    table.write_text("path,label,tree\na.png,oak,1\nb.png,oak,1\nc.png,elm,2\nd.png,elm,3\n")
    data = open_data(table, group_column="Tree")
    assert data.splits["all"].groups == ("1", "1", "2", "3")
    assert open_data(table).splits["all"].groups is None
