"""Evaluation: classes are matched by name, whatever class folders there are."""

import dataclasses
import shutil

import numpy as np
import pytest
from conftest import COLORS, make_images
from PIL import Image
from torch import nn

import striate
from striate.cli.console import print_evaluation
from striate.data import DataSet, Samples
from striate.errors import DataError, UsageError
from striate.inference.evaluation import measure
from striate.inference.evaluation_data import split_as
from striate.tasks.classification.report import report


@pytest.fixture(scope="module")
def model(run):
    return striate.load(run.best, device="cpu")


@pytest.fixture
def folder(tmp_path):
    for name, color in COLORS.items():
        make_images(tmp_path / "test" / name, 6, color, seed=9)
    return tmp_path / "test"


def answers(evaluation):
    return dict(
        zip(("/".join(n.split("/")[-2:]) for n in evaluation.names), evaluation.probabilities, strict=True)
    )


def test_metrics_are_those_of_the_predictions(model, folder):
    evaluation = striate.evaluate(model, folder)
    assert (evaluation.split, evaluation.n) == ("all", 18)
    right = [model.predict(n).label == n.split("/")[-2] for n in evaluation.names]
    assert evaluation.top1 == np.mean(right)
    assert evaluation.top5 == 1.0
    assert evaluation.confusion.sum() == 18
    assert "including any used for training" in evaluation.notes[0]


def constant(which, counts):
    """The evaluation of a model that always predicts one class, on classes with these numbers of images."""
    labels = np.repeat(np.arange(len(counts)), counts)
    probabilities = np.full((len(labels), len(counts)), 0.1)
    probabilities[:, which] = 1 - 0.1 * (len(counts) - 1)
    names = tuple(f"{i}.png" for i in range(len(labels)))
    classes = ("cat", "dog", "fox")[: len(counts)]
    pixels = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return measure(names, labels, probabilities, classes, images=pixels, data="animals", split="test")


def test_maps_are_those_of_the_explanations(model, folder):
    evaluation = striate.evaluate(model, folder)
    for i, values in zip((16, 3), evaluation.maps([16, 3]), strict=True):
        expected = model.explain(evaluation.names[i], test=False).map
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5 * expected.max())
    # A network without feature maps has none.
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    assert striate.evaluate(dataclasses.replace(model, network=flat), folder).maps([0]) is None


def test_a_model_that_predicts_one_class_for_everything_says_so(capsys):
    evaluation = constant(1, [5, 3, 2])
    result = evaluation.to_json()
    assert (result["only_class"], result["top1"]) == ("dog", 0.3)
    assert (result["majority_class"], result["majority_top1"]) == ("cat", 0.5)
    assert result["notes"][0].startswith(
        "the model predicts 'dog' for all 10 images, so it tells no classes apart"
    )
    print_evaluation(evaluation)
    printed = " ".join(capsys.readouterr().out.split())
    assert "top-1 accuracy 30.00 % of 10 test images" in printed
    assert "majority baseline 50.00 % (always cat)" in printed
    assert "note: the model predicts 'dog' for all 10 images" in printed
    page = report(evaluation, model="best.safetensors")
    assert page.warnings[0] == evaluation.notes[0]
    assert [(card.value, card.label) for card in page.cards[1:2]] == [(0.5, "majority baseline: always cat")]


def test_one_predicted_class_is_right_if_there_are_only_its_images():
    assert constant(0, [6, 0]).only_class is None
    evaluation = constant(0, [6, 0])
    assert (evaluation.top1, evaluation.majority_top1, evaluation.notes) == (1.0, 1.0, ())


def test_scores_that_are_not_finite_are_not_one_class():
    labels, scores = np.array([0, 1]), np.full((2, 2), np.nan)
    evaluation = measure(
        ("a", "b"), labels, scores, ("x", "y"), images=np.zeros((2, 1, 1, 3), np.uint8), data="d", split="val"
    )
    assert evaluation.only_class is None
    assert "not finite" in evaluation.notes[0]


def test_predictions_do_not_depend_on_the_other_class_folders(model, folder):
    before = answers(striate.evaluate(model, folder))
    make_images(folder / "aaa", 4, (0, 0, 0))  # sorts first, the model does not know it
    make_images(folder / "zebra", 3, (9, 9, 9))
    shutil.rmtree(folder / "green")
    (folder / "red").rename(folder / "red-")
    (folder / "red-").rename(folder / "red")
    evaluation = striate.evaluate(model, folder)
    assert evaluation.extra_classes == {"aaa": 4, "zebra": 3}
    assert evaluation.missing_classes == ("green",)
    after = answers(evaluation)
    assert set(after) == {k for k in before if not k.startswith("green")}
    for key, probabilities in after.items():
        assert probabilities == pytest.approx(before[key], abs=1e-6)
        assert probabilities.argmax() == before[key].argmax()


def test_unreadable_images_are_listed_and_not_scored(model, folder):
    (folder / "red" / "000.png").write_bytes(b"")
    evaluation = striate.evaluate(model, folder)
    assert evaluation.n == 17
    assert [p.path for p in evaluation.problems] == [str(folder / "red" / "000.png")]


def test_the_data_of_a_run_are_split_as_in_training(run, colors):
    own = striate.evaluate(run.training.folder)
    assert own.split == "test"
    assert own.n == 12
    assert set(own.names) == set(run.training.task.dataset.splits["test"].names)
    assert not set(own.names) & set(run.training.task.dataset.splits["train"].names)
    assert own.top1 == run.evaluation.top1
    again = striate.evaluate(run.best, colors)
    assert again.names == own.names
    assert "split as in training" in again.notes[0]
    assert striate.evaluate(run.best, colors, split="train").n == run.training.task.train_count


def test_all_splits_together_however_they_are_stored(model, folder, tmp_path):
    paths = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    labels = [path.parent.name for path in paths]
    small = np.stack([np.asarray(Image.open(path).resize((20, 20))) for path in paths])
    data = {"train": (pixels, labels), "test": (small, labels)}
    parts = [striate.evaluate(model, data, split=name) for name in data]
    together = striate.evaluate(model, data, split="all")
    assert (together.split, together.n) == ("all", 2 * len(paths))
    assert together.names == (*parts[0].names, *parts[1].names)
    assert together.labels.tolist() == [*parts[0].labels, *parts[1].labels]
    expected = np.concatenate([part.probabilities for part in parts])
    assert together.probabilities == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(together.images[len(paths)], parts[1].images[0])


def test_validation_images_that_come_from_an_own_train_folder(tmp_path):
    for split, count in (("train", 12), ("test", 4)):
        for name, color in COLORS.items():
            make_images(tmp_path / "data" / split / name, count, color, seed=count)
    run = striate.train(tmp_path / "data", model="lenet", epochs=1, out=str(tmp_path / "runs"))
    splits = run.training.task.dataset.splits
    for data in (None, tmp_path / "data"):
        for split in ("train", "val", "test"):
            assert striate.evaluate(run.best, data, split=split).names == splits[split].names
        assert striate.evaluate(run.best, data).split == "test"
    assert striate.calibrate(run.best).images == len(splits["val"])
    (run.training.folder / "split.csv").unlink()
    assert striate.evaluate(run.best).n == 12  # the own test folder needs no split.csv


def test_an_image_with_two_labels_is_split_as_in_training():
    names = ("/data/x.png", "/data/x.png", "/data/y.png")
    samples = Samples(names, np.array([0, 1, 1], np.int64))
    data = DataSet("/data/t.csv", "/data", ("a", "b"), {"all": samples})
    written = {"train": [("/data/x.png", "b")], "test": [("/data/y.png", "b"), ("/data/x.png", "a")]}
    divided = split_as(data, written).splits
    assert divided["train"].labels.tolist() == [1]
    assert list(zip(divided["test"].names, divided["test"].labels, strict=True)) == [
        (names[2], 1),
        (names[0], 0),
    ]


def test_one_level_too_many_says_which_folder_to_give(model, folder):
    folder.rename(folder.with_name("images"))
    with pytest.raises(DataError, match=r"the model knows blue, green, red\. .* give '.*/images'"):
        striate.evaluate(model, folder.parent)


def test_missing_held_out_images_are_noted(tmp_path):
    for name, color in COLORS.items():
        make_images(tmp_path / "data" / name, 10, color)
    run = striate.train(tmp_path / "data", model="lenet", epochs=1, out=str(tmp_path / "runs"))
    (tmp_path / run.evaluation.names[0]).unlink()
    evaluation = striate.evaluate(run.training.folder)
    assert evaluation.n == run.evaluation.n - 1
    assert any(note.startswith("1 of 3 test images") for note in evaluation.notes)


def test_data_by_name_are_split_as_in_training(tmp_path):
    run = striate.train("digits", model="lenet", epochs=1, out=str(tmp_path))
    evaluation = striate.evaluate(run.training.folder)
    assert evaluation.names == run.evaluation.names
    assert evaluation.n == 179


def test_nothing_to_evaluate(model, folder, tmp_path):
    with pytest.raises(UsageError, match="no split 'test'"):
        striate.evaluate(model, folder, split="test")
    make_images(tmp_path / "other" / "cat", 2, (1, 1, 1))
    with pytest.raises(DataError, match="its classes are cat; the model knows blue, green, red"):
        striate.evaluate(model, tmp_path / "other")
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of its 18 images can be read"):
        striate.evaluate(model, folder)
    shutil.copy(model.path, tmp_path / "alone.safetensors")
    with pytest.raises(UsageError, match="Give the data"):
        striate.evaluate(tmp_path / "alone.safetensors")
