"""What a program has at hand: arrays, tensors, .npz files, torch's data sets and torchvision's."""

import sys
import types

import numpy as np
import pytest
import torch
from conftest import make_images
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset, random_split

import striate
from striate.data import DecodedImages, open_data
from striate.data.check import check
from striate.errors import DataError, UsageError
from striate.transforms.preprocess import Preprocess

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (30, 12, 10), np.uint8)
RGB = RNG.integers(0, 256, (30, 12, 10, 3), np.uint8)
LABELS = np.arange(30) % 3


class Pictures(Dataset):
    """A map-style data set as people write them: items are made when they are asked for."""

    def __init__(self, make=Image.fromarray):
        self.make, self.asked = make, []

    def __len__(self):
        return 30

    def __getitem__(self, i):
        self.asked.append(i)
        return self.make(RGB[i]), int(LABELS[i])


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GRAY, GRAY),
        (GRAY[..., None], GRAY),
        (RGB, RGB),
        (torch.from_numpy(RGB).permute(0, 3, 1, 2), RGB),
        (torch.from_numpy(GRAY)[:, None], GRAY),
    ],
)
@pytest.mark.parametrize("labels", [LABELS, torch.from_numpy(LABELS), LABELS.tolist(), LABELS[:, None]])
def test_pairs(images, labels, expected):
    data = open_data((images, labels))
    assert data.classes == ("0", "1", "2")
    assert np.array_equal(data.splits["all"].pixels, expected)
    assert data.splits["all"].labels.tolist() == LABELS.tolist()


def test_labels_may_be_names_or_sparse_numbers():
    data = open_data((GRAY, np.array(["cat", "ant", "bee"])[LABELS]))
    assert data.classes == ("ant", "bee", "cat")
    assert data.splits["all"].labels[:3].tolist() == [2, 0, 1]
    assert open_data((GRAY, LABELS * 5 + 2)).classes == ("2", "7", "12")


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (GRAY / 255, LABELS, "they are float64 .*Remove ToTensor"),
        (np.zeros((len(LABELS), 17, 20, 17), np.uint8), LABELS, "has 1 to 16 channels"),
        (GRAY[0], LABELS, "they are uint8"),
        (GRAY, LABELS[:-1], "one label per image"),
        (GRAY, np.eye(3)[LABELS], "one label per image"),
        (GRAY, LABELS + 0.5, "0.5 is not a label"),
    ],
)
def test_bad_pairs_are_refused(images, labels, reason):
    with pytest.raises(DataError, match=reason):
        open_data((images, labels))


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_train": RGB, "y_train": LABELS, "x_test": RGB[:3], "y_test": LABELS[:3]},  # Keras
        {
            "train_images": RGB,
            "train_labels": LABELS[:, None],
            "test_images": RGB[:3],
            "test_labels": LABELS[:3],
        },
    ],
)
def test_npz_with_splits(tmp_path, arrays):
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    data = open_data(tmp_path / "x.npz")
    assert {name: len(s) for name, s in data.splits.items()} == {"train": 30, "test": 3}
    assert np.array_equal(data.splits["test"].pixels, RGB[:3])
    names = [name for samples in data.splits.values() for name in samples.names]
    assert len(set(names)) == 33


def test_npz_with_class_names(tmp_path):
    np.savez(tmp_path / "x.npz", images=GRAY, labels=LABELS, classes=["c", "a", "b"])
    data = open_data(tmp_path / "x.npz")
    assert [data.classes[label] for label in data.splits["all"].labels[:3]] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": GRAY}, "its arrays are images"),
        ({"a": GRAY, "b": LABELS}, "its arrays are a, b"),
        ({"images": np.array([{}], object), "labels": LABELS}, "allow_pickle"),
        (
            {"images": GRAY, "labels": LABELS, "classes": ["a", "b"]},
            "label 2 is out of range for 2 classes",
        ),
    ],
)
def test_bad_npz_files_are_refused(tmp_path, arrays, reason):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=reason):
        open_data(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:200])
    with pytest.raises(DataError, match="cannot read"):
        open_data(tmp_path / "x.npz")


def read(data, split="all"):
    source = DecodedImages(data.splits[split], Preprocess(size=(12, 10), resize="squash"), root=data.root)
    out = np.empty((len(source), *source.shape), np.uint8)
    assert source.read(np.arange(len(source)), out).all()
    return out


@pytest.mark.parametrize(
    "make",
    [
        Image.fromarray,
        lambda pixels: pixels,
        lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
        lambda pixels: Image.fromarray(pixels).convert("RGBA"),
    ],
)
def test_a_dataset_of_ones_own(make):
    data = open_data(Pictures(make))
    assert data.source == "Pictures (in memory)"
    assert data.splits["all"].labels.tolist() == LABELS.tolist()
    assert np.array_equal(read(data), RGB)


def test_subsets_and_sums_and_tensors():
    train, held = random_split(Pictures(), [20, 10], torch.Generator().manual_seed(0))
    data = open_data({"train": train, "val": held})
    assert np.array_equal(read(data, "train"), RGB[train.indices])
    assert data.splits["val"].labels.tolist() == LABELS[held.indices].tolist()
    assert len({*data.splits["train"].names, *data.splits["val"].names}) == 30
    assert np.array_equal(read(open_data(Subset(Subset(Pictures(), range(10, 20)), [3, 1]))), RGB[[13, 11]])
    assert len(open_data(ConcatDataset([Pictures(), Pictures()])).splits["all"]) == 60
    tensors = TensorDataset(torch.from_numpy(RGB).permute(0, 3, 1, 2), torch.from_numpy(LABELS))
    assert np.array_equal(open_data(tensors).splits["all"].pixels, RGB)


class Cifar(Pictures):
    """Laid out as torchvision's CIFAR10: `data`, `targets`, `classes`."""

    def __init__(self, make=Image.fromarray, transform=None):
        super().__init__(make)
        self.data, self.targets, self.classes, self.transform = (
            RGB,
            LABELS.tolist(),
            ["x", "a", "m"],
            transform,
        )


def test_what_a_dataset_holds_is_taken_as_it_is():
    dataset = Cifar()
    data = open_data(dataset)
    assert data.splits["all"].pixels is not None
    assert len(dataset.asked) < 15  # none but the probes
    assert [data.classes[i] for i in data.splits["all"].labels[:3]] == ["x", "a", "m"]


def test_what_a_dataset_holds_is_not_taken_where_its_items_are_others():
    inverted = Cifar(lambda pixels: Image.fromarray(255 - pixels))
    data = open_data(inverted)
    assert data.splits["all"].pixels is None
    assert np.array_equal(read(data), 255 - RGB)
    wrong = Cifar()
    wrong.targets = wrong.targets[::-1]
    assert open_data(wrong).splits["all"].labels.tolist() == LABELS.tolist()


def test_an_image_folder_is_read_as_the_files_that_it_is_of(tmp_path, monkeypatch):
    make_images(tmp_path / "a", 3, (200, 0, 0))
    make_images(tmp_path / "b", 2, (0, 0, 200))
    folders = types.ModuleType("torchvision.datasets.folder")
    monkeypatch.setitem(sys.modules, folders.__name__, folders)

    class ImageFolder(Dataset):
        def __init__(self, root):
            self.root, self.classes = str(root), ["a", "b"]
            self.samples = [(str(p), i) for i, c in enumerate("ab") for p in sorted((root / c).iterdir())]
            self.targets = [label for _, label in self.samples]
            self.loader = lambda path: Image.open(path).convert("RGB")
            self.loader.__module__ = folders.__name__

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, i):
            return self.loader(self.samples[i][0]), self.samples[i][1]

    there, plain = open_data(ImageFolder(tmp_path)), open_data(tmp_path)
    assert there.splits["all"].names == plain.splits["all"].names
    assert there.splits["all"].in_files
    assert there.root == plain.root
    assert there.splits["all"].labels.tolist() == plain.splits["all"].labels.tolist()


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


class Dicts(Pictures):
    def __getitem__(self, i):
        return {"image": RGB[i], "label": 0}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (Endless(), "its own order.*map-style"),
        (Cifar(transform=len), "Cifar has its own transform.*augment="),
        (Dicts(), "an item of Dicts is 'dict'"),
        (Pictures(lambda pixels: pixels / 255), "they are float64"),
        (42, "neither a path"),
        ({"trian": (GRAY, LABELS)}, "repeated split 'trian'"),
    ],
)
def test_objects_that_cannot_be_used_are_refused(source, reason):
    with pytest.raises(UsageError, match=reason):
        open_data(source)


def test_an_item_that_fails_is_named_and_left_out():
    class Faulty(Cifar):
        def __getitem__(self, i):
            if i == 7:
                raise KeyError("no such image")
            return Image.fromarray(255 - RGB[i]), int(LABELS[i])

    source = DecodedImages(open_data(Faulty()).splits["all"], Preprocess.for_size(12))
    readable = source.read(np.arange(30), np.empty((30, 12, 12, 3), np.uint8))
    assert np.flatnonzero(~readable).tolist() == [7]
    assert source.problems[0].path == "Faulty/7"
    assert "KeyError" in source.problems[0].reason
    unlabelled = Faulty()
    unlabelled.targets = None
    with pytest.raises(DataError, match="cannot read Faulty/7"):
        open_data(unlabelled)


def test_train_resume_measure_and_check_what_is_in_memory(tmp_path):
    colors = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
    images = np.clip(RNG.normal(0, 30, (90, 28, 28, 3)) + colors[np.arange(90) % 3, None, None], 0, 255)
    pair = images.astype(np.uint8), np.array(["red", "green", "blue"])[np.arange(90) % 3]
    run = striate.train(pair, model="lenet", epochs=1, batch=4, out=str(tmp_path))
    assert run.evaluation.top1 > 0.5
    assert striate.evaluate(run.best, pair).n == 90
    with pytest.raises(DataError, match="it was a Python object"):
        striate.evaluate(run.training.folder)
    with pytest.raises(DataError, match="its data have changed: 90 changed"):
        striate.resume(run.training.folder, data=(255 - pair[0], pair[1]))
    assert len(striate.resume(run.training.folder, data=open_data(pair)).training.epochs) == 1
    pair[0][1], pair[0][5] = pair[0][0], pair[0][3]
    kinds = {finding.kind for finding in check(pair).findings}
    assert "conflicting-labels" in kinds
