"""The division of a data set: complete, stratified, and a function of the seed and the names."""

import gc
import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.data import DataSet, Samples, SplitPlan, open_data, split
from striate.errors import DataError, UsageError


def dataset(counts, root="/data", order=None, splits=("all",)):
    classes = tuple(f"c{i}" for i in range(len(counts)))
    pairs = [(f"{root}/{c}/{i}.png", k) for k, c in enumerate(classes) for i in range(counts[k])]
    if order is not None:
        order.shuffle(pairs)
    samples = Samples(tuple(p for p, _ in pairs), np.array([k for _, k in pairs], np.int64))
    return DataSet(root, root, classes, dict.fromkeys(splits, samples))


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=5),
    st.sampled_from([0.0, 0.1, 0.2, 0.5]),
    st.sampled_from([0.1, 0.25]),
    st.integers(0, 5),
)
def test_every_image_is_in_one_part_and_every_class_in_all(counts, test, val, seed):
    data = dataset(counts)
    parts = split(data, SplitPlan(val, test, seed)).splits
    names = [name for part in parts.values() for name in part.names]
    assert sorted(names) == sorted(data.splits["all"].names)
    for label, count in enumerate(counts):
        in_part = {name: int((part.labels == label).sum()) for name, part in parts.items()}
        wanted = {"val": val, "test": test}
        shares = {k: 0 if count < 3 or not s else max(1, round(count * s)) for k, s in wanted.items()}
        assert in_part["train"] >= 1
        assert in_part.get("val", 0) == shares["val"]
        assert in_part.get("test", 0) == max(0, min(shares["test"], count - shares["val"] - 1))


def test_neither_order_nor_place_matters():
    plan = SplitPlan(seed=4)
    one = split(dataset([30, 40]), plan)
    other = split(dataset([30, 40], root="/else/where", order=np.random.default_rng(0)), plan)
    for name in one.splits:
        mine = {n.removeprefix("/data/") for n in one.splits[name].names}
        assert mine == {n.removeprefix("/else/where/") for n in other.splits[name].names}
    assert set(split(dataset([30, 40]), SplitPlan(seed=5)).splits["val"].names) != set(
        one.splits["val"].names
    )


def test_images_of_a_class_are_in_the_order_of_their_hashes():
    def key(name):
        return hashlib.sha256(b"3\0" + name.removeprefix("/data/").encode()).digest()

    data = dataset([7, 40], order=np.random.default_rng(0))
    parts = split(data, SplitPlan(0.1, 0.2, seed=3)).splits
    for label, (val, test) in enumerate([(1, 1), (4, 8)]):
        own = {
            name: sorted(np.array(part.names)[part.labels == label].tolist(), key=key)
            for name, part in parts.items()
        }
        in_order = own["val"] + own["test"] + own["train"]
        assert (len(own["val"]), len(own["test"])) == (val, test)
        assert in_order == sorted(in_order, key=key)


def test_given_splits_are_kept():
    data = dataset([20, 20], splits=("train", "test"))
    parts = split(data, SplitPlan(0.1, 0.1)).splits
    assert {name: len(part) for name, part in parts.items()} == {"train": 36, "test": 40, "val": 4}
    data = dataset([20, 20], splits=("train", "val"))
    assert split(data, SplitPlan()).splits["train"] is data.splits["train"]


def test_nothing_to_train_on():
    with pytest.raises(DataError, match="only test"):
        split(dataset([5, 5], splits=("test",)), SplitPlan())


@pytest.mark.parametrize("plan", [{"val": -0.1}, {"test": 0.6}, {"folds": 3, "fold": 4}])
def test_odd_shares_are_refused(plan):
    with pytest.raises(UsageError, match=r"from 0 to 0\.5|no such fold"):
        SplitPlan(**plan)


def test_memory_of_listing_and_splitting(tmp_path):
    count = 2000
    for i in range(count):
        place = tmp_path / f"class{i % 4}" / f"image_{i:07}.png"
        place.parent.mkdir(exist_ok=True)
        place.touch()
    gc.collect()
    tracemalloc.start()
    parts = split(open_data(tmp_path), SplitPlan()).splits
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    names = sum(len(name) + 57 for part in parts.values() for name in part.names)  # of a text, with its place
    assert sum(map(len, parts.values())) == count
    assert (peak - names) / count < 200
