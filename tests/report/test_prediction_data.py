"""What a page contains about each prediction is what the classifier said."""

import base64
import dataclasses

import numpy as np
import pytest
from random_evaluation import random_evaluation

from striate.report import prediction_data
from striate.report.prediction_data import front_coded, pack
from striate.tasks.classification.report import report


def predictions_of(record, **changes):
    return dataclasses.replace(report(record, model="m").predictions, **changes)


def decoded(packed):
    kinds = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "f32": "<f4"}
    found = np.frombuffer(base64.b64decode(packed["data"]), kinds[packed["type"]])
    return found if packed["type"] == "f32" else found.astype(np.int64)


def names(coded):
    found, before = [], ""
    for shared, rest in zip(coded["shared"], coded["rest"], strict=True):
        units = before.encode("utf-16-le", "surrogatepass")[: 2 * shared]
        before = units.decode("utf-16-le", "surrogatepass") + rest
        found.append(before)
    return found


@pytest.mark.parametrize(("largest", "scale", "precision"), [(720, 1, 3e-8), (719, 65535, 1e-5)])
def test_five_best_classes_of_each_image(largest, scale, precision, monkeypatch):
    monkeypatch.setattr(prediction_data, "_EXACT", largest)
    record = random_evaluation("abcdefgh", n=90)
    packed = pack(predictions_of(record))
    place = [record.names.index(name) for name in names(packed["names"])]
    assert sorted(place) == list(range(90))
    best = np.argsort(-record.probabilities[place], axis=1)[:, :5]
    assert (decoded(packed["top"]).reshape(90, 5) == best).all()
    chances = decoded(packed["chances"]).reshape(90, 5) / scale
    assert np.abs(chances - np.take_along_axis(record.probabilities[place], best, 1)).max() < precision
    own = decoded(packed["own"]) / scale
    assert np.abs(own - record.probabilities[place, record.labels[place]]).max() < precision
    assert (packed["exact"] is None) == (scale > 1)
    assert (decoded(packed["labels"]) == record.labels[place]).all()
    monkeypatch.setattr(prediction_data, "_EXACT_IMAGES", 89)
    assert pack(predictions_of(record))["exact"] is None


def test_scores_that_are_not_finite_have_no_best_class():
    record = random_evaluation("abc", n=9)
    chances = record.probabilities.copy()
    chances[4] = np.nan
    packed = pack(predictions_of(dataclasses.replace(record, probabilities=chances)))
    at = names(packed["names"]).index(record.names[4])
    assert (decoded(packed["top"]).reshape(9, 3)[at] == 65535).all()
    assert decoded(packed["bins"]["counts"]).sum() == 8 * 3  # of eight images, for three classes


def test_equal_probabilities_stand_by_their_index():
    """Also among so many classes that a partition keeps any of the equal ones."""
    record = random_evaluation(tuple(f"c{k}" for k in range(60)), n=4)
    chances = np.full((4, 60), 1 / 60)
    chances[1] = np.where(np.arange(60) % 7 == 3, 1 / 9, 0)
    chances[2, [50, 59]] = 0.5, 0.4
    record = dataclasses.replace(record, probabilities=chances)
    packed = pack(predictions_of(record))
    place = [record.names.index(name) for name in names(packed["names"])]
    top = decoded(packed["top"]).reshape(4, 5)[np.argsort(place)]
    assert top.tolist() == np.argsort(-chances, axis=1, kind="stable")[:, :5].tolist()
    assert (top[:, 0] == record.predicted).all()


def test_binned_counts_agree_with_the_probabilities():
    record = random_evaluation("abcd", n=300)
    packed = pack(predictions_of(record))["bins"]
    counts, n = decoded(packed["counts"]).reshape(4, 2, -1), packed["n"]
    for k, threshold in ((0, 10), (2, 37), (3, 90)):
        called = record.probabilities[:, k] >= threshold / n
        assert counts[k, 1, threshold:].sum() == (called & (record.labels == k)).sum()
        assert counts[k, 0, threshold:].sum() == (called & (record.labels != k)).sum()


@pytest.mark.parametrize(
    "found", [["a/b/1.png", "a/b/12.png", "a/c", "", "猫/😀1", "猫/😀2", "猫/😃", "\udcff"]]
)
def test_front_coding_is_undone(found):
    assert names(front_coded(found)) == found


def test_errors_come_first_where_not_all_images_fit(monkeypatch):
    record = random_evaluation("abc", n=80)
    wrong = int((record.predicted != record.labels).sum())
    monkeypatch.setattr(prediction_data, "MAX_IMAGES", wrong)
    packed = pack(predictions_of(record))
    kept = [record.names.index(name) for name in names(packed["names"])]
    assert packed["count"] == 80
    assert all(record.predicted[i] != record.labels[i] for i in kept)
    assert len(kept) == wrong


def test_long_paths_do_not_make_a_large_page(monkeypatch):
    record = random_evaluation("ab", n=60)
    monkeypatch.setattr(prediction_data, "PATH_BYTES", 3000)
    paths = tuple(f"{i:03}{'x' * 200}" for i in range(60))
    packed = pack(predictions_of(record, paths=paths))
    assert 5 < len(packed["names"]["rest"]) <= 15


def test_thumbnails_show_every_kind_of_error_first(monkeypatch):
    record = random_evaluation("abcd", n=200)
    monkeypatch.setattr(prediction_data, "THUMBNAILS", 24)
    packed = pack(predictions_of(record))
    place = [record.names.index(name) for name in names(packed["names"])]
    shown = [place[i] for i in packed["thumbnails"]["of"]]
    cells = {
        (record.labels[i], record.predicted[i]) for i in shown if record.labels[i] != record.predicted[i]
    }
    assert len(cells) == 12  # all pairs of different classes
    assert len(shown) == 24
    everything = pack(predictions_of(record), full=True)["thumbnails"]
    assert len(everything["jpeg"]) == 200
    assert base64.b64decode(everything["jpeg"][0]).startswith(b"\xff\xd8")


def test_pages_have_a_limit_of_bytes_for_thumbnails(monkeypatch):
    record = random_evaluation("ab", n=60)
    monkeypatch.setattr(prediction_data, "THUMBNAIL_BYTES", 4000)
    assert sum(map(len, pack(predictions_of(record))["thumbnails"]["jpeg"])) <= 4000


def test_heat_maps_of_the_errors_and_uncertain_images_that_are_shown_first():
    record = random_evaluation("abc", n=90)
    asked = []

    def maps(which):
        asked.extend(which)
        return np.stack([np.full((2, 3), i) * [0.0, 0.5, 1.0] for i in which]).astype(np.float32)

    packed = pack(predictions_of(record, maps=maps))
    found = packed["maps"]
    wrong = [i for i in range(90) if record.predicted[i] != record.labels[i]]
    errors = sorted(wrong, key=lambda i: -record.probabilities[i].max())[:24]
    gaps = np.diff(np.sort(record.probabilities, axis=1)[:, -2:], axis=1)[:, 0]
    assert set(asked) == {*errors, *np.argsort(gaps)[:12].tolist()}
    place = [record.names.index(name) for name in names(packed["names"])]
    assert [place[i] for i in found["of"]] == asked
    assert (found["rows"], found["columns"], found["ratio"]) == (2, 3, 1.0)
    values = decoded(found["values"]).reshape(-1, 2, 3)
    assert values[asked.index(errors[0])].tolist() == [[0, 128, 255]] * 2


def test_heat_maps_of_any_kind():
    """Without a network or feature maps there are none; large ones are reduced; empty ones stay empty."""
    record = random_evaluation("abc", n=4)
    assert pack(predictions_of(record))["maps"] is None
    assert pack(predictions_of(record, maps=lambda which: None))["maps"] is None
    large = lambda which: np.zeros((len(which), 224, 112), np.float32)
    found = pack(predictions_of(record, maps=large))["maps"]
    assert (found["rows"], found["columns"]) == (28, 14)
    assert not decoded(found["values"]).any()
    lost = np.full_like(record.probabilities, np.nan)
    nothing = dataclasses.replace(record, probabilities=lost)
    assert pack(predictions_of(nothing, maps=large))["maps"] is None
