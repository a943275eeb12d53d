"""A classifier and its training images: top images of a channel, nearest images, prototypes."""

import csv

import numpy as np
import pytest
import torch

import striate
from striate.errors import DataError, DecodeError, UsageError
from striate.inference.exploration import Explorer


@pytest.fixture(scope="module")
def explorer(run, few_colors):
    return Explorer(striate.load(run.best, "cpu"), few_colors, batch=10)


def inputs(classifier, folder):
    """All images of a folder, as the network reads them, in the order of their paths."""
    paths = sorted(folder.rglob("*.png"))
    pixels = np.stack([classifier.preprocess.read(path) for path in paths])
    return paths, pixels, classifier.preprocess.normalize(torch.from_numpy(pixels))


def test_top_images_of_a_channel(explorer, few_colors):
    classifier = explorer.classifier
    paths, pixels, images = inputs(classifier, few_colors)
    with torch.no_grad():
        maps = classifier.network.conv1(images)[:, 2]
    best = maps.amax(dim=(1, 2)).argsort(descending=True, stable=True)[:5].tolist()
    found = explorer.top_images("conv1", 2, count=5)
    assert [example.path for example in found] == [str(paths[i]) for i in best]
    for example, i in zip(found, best, strict=True):
        assert example.label == paths[i].parent.name
        assert example.value == pytest.approx(float(maps[i].max()), rel=1e-5)
        row, column = example.activation.unit
        assert example.activation.box == (row, column, row + 5, column + 5)  # a 5x5 convolution, no padding
        np.testing.assert_array_equal(example.pixels, pixels[i, row : row + 5, column : column + 5])


def test_nearest_images(explorer, few_colors):
    classifier = explorer.classifier
    paths, _, images = inputs(classifier, few_colors)
    kept = []
    handle = classifier.network.fc3.register_forward_hook(lambda _, inputs, output: kept.append(inputs[0]))
    with torch.no_grad():
        classifier.network(images)
    handle.remove()
    features = torch.nn.functional.normalize(kept[0], dim=1)
    similar = (features @ features[3]).tolist()
    order = sorted(range(len(paths)), key=lambda i: -similar[i])
    found = explorer.nearest(paths[3], count=4)
    assert order[0] == 3
    assert [example.value for example in found] == pytest.approx([similar[i] for i in order[1:5]], abs=1e-5)
    found = explorer.nearest(paths[3].read_bytes(), count=1)  # whose file is not known
    assert (found[0].path, found[0].value) == (str(paths[3]), pytest.approx(1))


def test_the_training_images_of_the_run_are_the_default(run):
    own = Explorer(striate.load(run.best, "cpu"))
    assert len(own) == run.training.task.train_count
    with (run.training.folder / "split.csv").open(encoding="utf-8", newline="") as file:
        trained = {row["path"] for row in csv.DictReader(file) if row["split"] == "train"}
    good, bad = own.prototypes("red", 2)
    assert {example.path for example in (*good, *bad)} <= trained


def test_prototypes_and_criticisms_of_a_class(explorer):
    good, bad = explorer.prototypes("red", 3)
    assert len(good) == len(bad) == 3
    assert len({example.path for example in (*good, *bad)}) == 6
    assert {example.label for example in (*good, *bad)} == {"red"}
    assert set(good[0].to_json()) == {"path", "label"}


def test_the_training_images_are_explored_by_default(explorer, few_colors, tmp_path):
    for split, number in (("train", 0), ("train", 1), ("val", 2)):
        for name in ("red", "blue"):
            image = few_colors / name / f"{number:03}.png"
            target = tmp_path / split / name / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image.read_bytes())
    counts = {
        split: len(Explorer(explorer.classifier, tmp_path, split=split)) for split in ("auto", "val", "all")
    }
    assert counts == {"auto": 4, "val": 2, "all": 6}


def test_errors(explorer, few_colors, tmp_path):
    with pytest.raises(UsageError, match="unknown class 'pink'"):
        explorer.prototypes("pink")
    with pytest.raises(UsageError, match="no channel 6 in conv1: it has channels 0 to 5"):
        explorer.top_images("conv1", 6)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DecodeError, match="cannot decode"):
        explorer.nearest(tmp_path / "x.png")
    with pytest.raises(UsageError, match="no split 'val'"):
        Explorer(explorer.classifier, few_colors, split="val")
    with pytest.raises(UsageError, match="a dict is no classifier"):
        Explorer({}, few_colors)
    for name in ("a", "b"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="none of the 2 images"):
        Explorer(explorer.classifier, tmp_path / "broken").nearest(few_colors / "red" / "000.png")
