"""Data sets that a program has at hand: arrays, tensors, `.npz` files, and torch's map-style `Dataset`."""

from __future__ import annotations

import contextlib
import threading
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.data.images.folders import SPLIT_NAMES
from striate.data.images.samples import UNSPLIT, DataSet, Samples, Stamp
from striate.errors import DataError, DecodeError, UsageError
from striate.transforms.decode import Uint8Array, to_array

IN_MEMORY_SUFFIX = "(in memory)"  # ends the name of a data set that no path leads back to

_IMAGES, _LABELS = ("images", "image", "x", "data"), ("labels", "label", "y", "targets")  # in .npz files
_TRANSFORMS = ("transform", "transforms", "target_transform")  # where torchvision's data sets have them
_PROBED = 3  # samples by which a shortcut is proven


def read(source: Any) -> DataSet:
    """A data set from objects.

    Args:
        source: one of

            * a pair of images and labels: uint8 of 0-255, `[n, height, width]`, `[n, height, width, 1 or 3]`
              or, as tensors have them, `[n, 1 or 3, height, width]`; labels `[n]`, whole numbers or names,
            * a map-style `torch.utils.data.Dataset` whose items are an image (Pillow's, or uint8 as above)
              and a label,
            * a mapping of `train`, `val` or `test` to such.

    Raises:
        UsageError: it is neither; or it has a transform of its own.
        DataError: images and labels are not laid out like that.
    """
    if isinstance(source, Mapping):
        return _divided(source)
    if isinstance(source, tuple) and len(source) == 2:
        return arrays(*source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, (str, bytes)):
        return _Given(source).data_set()
    if hasattr(source, "__iter__") and "Iterable" in "".join(kind.__name__ for kind in type(source).__mro__):
        raise UsageError(
            f"cannot train or measure on {type(source).__name__}", "its samples come in an order of its own",
            "Give a map-style Dataset, or WebDataset shards by name: shards/train-{000..009}.tar",
        )  # fmt: skip
    raise UsageError(
        f"cannot train or measure on {type(source).__name__!r}",
        "it is no path, no pair (images, labels), no torch Dataset and no mapping of splits to such",
    )


def npz(path: Path) -> DataSet:
    """Read a NumPy archive: `images` and `labels`, or `x_train`, `y_train`, ...; `classes`, if wanted.

    Raises:
        DataError: it is damaged, holds Python objects, or has no such arrays.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, TypeError) as error:
        raise DataError(f"cannot read {str(path)!r}", str(error), "Write it with numpy.savez") from error
    names = held.pop("classes", held.pop("class_names", None))
    found: dict[str, dict[str, Any]] = {}
    for name, array in held.items():
        words = name.lower().split("_")
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), UNSPLIT)
        kind = next((kind for kind in (_IMAGES, _LABELS) if set(kind) & set(words)), None)
        if kind is not None:
            found.setdefault(split, {})["labels" if kind is _LABELS else "images"] = array
    if not found or any(len(pair) < 2 for pair in found.values()) or (UNSPLIT in found and len(found) > 1):
        raise DataError(
            f"cannot use {str(path)!r}", f"its arrays are {', '.join(held) or 'none'}",
            "Call them images and labels, or x_train, y_train, x_test, y_test and so on",
        )  # fmt: skip
    parts = {
        split: arrays(pair["images"], pair["labels"], names, prefix=f"{path.name}/{split}")
        for split, pair in found.items()
    }
    return replace(_merged(parts), source=str(path))


def arrays(images: Any, labels: Any, classes: Iterable[Any] | None = None, prefix: str = "array") -> DataSet:
    """A data set from one array of images and one of labels; as `read` has it.

    Args:
        images: NumPy's, or a tensor on any device.
        labels: the same, or a list.
        classes: the names that numbers stand for; None for the numbers themselves.
        prefix: what the names of the images begin with.
    """
    pixels, numbers = _pixels(_array(images)), _array(labels)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1 or len(numbers) != len(pixels):
        raise DataError(
            "cannot use these arrays",
            f"the images are {list(pixels.shape)} and the labels {list(numbers.shape)}",
            "There must be one label for each image",
        )
    names, own = _named([_plain(number) for number in numbers.tolist()], classes)
    samples = Samples(tuple(f"{prefix}/{i}" for i in range(len(pixels))), own, pixels)
    return DataSet(f"{len(pixels):,} images {IN_MEMORY_SUFFIX}", "", names, {UNSPLIT: samples})


class _Given:
    """A `Dataset` of torch's: what it holds is taken as it is where it can be seen, else item by item."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._name = type(dataset).__name__
        # Torch asks of a Dataset to serve several processes, not several threads.
        opened_each_time = type(dataset).__module__.startswith("torchvision.datasets")
        self._lock: Any = contextlib.nullcontext() if opened_each_time else threading.Lock()

    def data_set(self) -> DataSet:
        """All of it, undivided."""
        dataset = self._dataset
        if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # torch's Subset, as of random_split
            whole = _Given(dataset.dataset).data_set()
            part = whole.splits[UNSPLIT].take(np.asarray(dataset.indices, np.int64))
            return replace(whole, splits={UNSPLIT: part})
        if tensors := getattr(dataset, "tensors", None):  # its TensorDataset
            return replace(arrays(*tensors[:2]), source=f"{self._name} {IN_MEMORY_SUFFIX}")
        self._refuse_transforms()
        if not len(dataset):
            raise DataError(f"cannot use {self._name}", "it is empty")
        labels = self._labels()
        classes, numbers = _named(labels, self._classes())
        if (paths := self._paths()) is not None:
            folder = str(Path(getattr(dataset, "root", "")).absolute())
            return DataSet(folder, folder, classes, {UNSPLIT: Samples(paths, numbers)})
        self.fetch(0)  # what is no image is refused now
        names = tuple(f"{self._name}/{i}" for i in range(len(dataset)))
        pixels = self._held()
        if pixels is not None:
            samples = Samples(names, numbers, pixels)
        else:
            samples = Samples(names, numbers, None, self, np.arange(len(names)))
        return DataSet(f"{self._name} {IN_MEMORY_SUFFIX}", "", classes, {UNSPLIT: samples})

    def fetch(self, key: int) -> Uint8Array:
        """The pixels of an item; raises DecodeError if it cannot be read, UsageError if it is no image."""
        with self._lock:
            image = self._item(key)[0]
        try:
            if isinstance(image, Image.Image):
                return to_array(image, 1 if image.mode in ("1", "L") else 3)
        except Exception as error:  # Pillow opens files without reading them
            raise self._fault(key, error) from error
        return _one(image)

    def stamp(self, key: int) -> Stamp | None:
        """Nothing tells whether an item is what it was."""
        return None

    def _fault(self, key: int, error: Exception) -> DecodeError:
        return DecodeError(f"cannot read {self._name}/{key}", f"{type(error).__name__}: {error}")

    def _item(self, key: int) -> Sequence[Any]:
        try:
            item = self._dataset[key]
        except Exception as error:  # a user's code may raise anything
            raise self._fault(key, error) from error
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise UsageError(
                f"an item of {self._name} is {type(item).__name__!r}", "it must be an image and a label"
            )
        return item

    def _refuse_transforms(self) -> None:
        for name in _TRANSFORMS:
            own = getattr(self._dataset, name, None)
            if own is not None:
                raise UsageError(
                    f"{self._name} has a {name} of its own, {type(own).__name__}",
                    "Striate decodes, resizes and normalises by the contract that is stored with the weights",
                    "Make the Dataset without it; augment= takes random changes, torchvision's too",
                )

    def _labels(self) -> list[Any]:
        """The label of each item: a list that the Dataset keeps, where it has the items' own; else theirs."""
        n = len(self._dataset)
        probes = {i: _plain(self._item(i)[1]) for i in {0, n // 2, n - 1}}
        for name in ("targets", "labels", "_labels"):
            kept = getattr(self._dataset, name, None)
            if kept is None or not hasattr(kept, "__len__") or len(kept) != n:
                continue
            labels = [_plain(label) for label in (kept.tolist() if hasattr(kept, "tolist") else kept)]
            if all(labels[i] == label for i, label in probes.items()):
                return labels
        return [_plain(self._item(i)[1]) for i in range(n)]

    def _classes(self) -> Sequence[Any] | None:
        if (names := getattr(self._dataset, "classes", None)) is not None:
            return [", ".join(map(str, n)) if isinstance(n, (tuple, list)) else n for n in names]
        numbers = getattr(self._dataset, "class_to_idx", None)
        return sorted(numbers, key=numbers.get) if numbers else None

    def _paths(self) -> tuple[str, ...] | None:
        """The files of torchvision's ImageFolder and its like: read as any files are, and cached."""
        samples = getattr(self._dataset, "samples", None)
        loader = getattr(self._dataset, "loader", None)
        if not samples or getattr(loader, "__module__", "") != "torchvision.datasets.folder":
            return None
        return tuple(str(Path(path).absolute()) for path, _ in samples)

    def _held(self) -> Uint8Array | None:
        """The array that a Dataset such as CIFAR10 keeps, where it is what the items are made of."""
        kept = getattr(self._dataset, "data", None)
        n = len(self._dataset)
        if kept is None or not hasattr(kept, "shape") or len(kept) != n:
            return None
        try:
            pixels = _pixels(_array(kept))
        except DataError:
            return None
        probes = np.linspace(0, n - 1, _PROBED).astype(int).tolist()
        same = all(np.array_equal(np.atleast_3d(self.fetch(i)), np.atleast_3d(pixels[i])) for i in probes)
        return pixels if same else None


def _divided(source: Mapping[Any, Any]) -> DataSet:
    """A data set from a mapping of splits."""
    parts: dict[str, DataSet] = {}
    for name, part in source.items():
        if name not in SPLIT_NAMES or SPLIT_NAMES[name] in parts:
            raise UsageError(f"a split {name!r}", "splits are train, val and test", "Name each once")
        data = read(part)
        samples = data.splits.get(UNSPLIT)
        if samples is None:
            raise UsageError(f"split {name!r} is divided itself", "give pairs or Datasets")
        if not data.root:  # names of files are different in any case
            named = tuple(f"{SPLIT_NAMES[name]}/{one}" for one in samples.names)
            samples = replace(samples, names=named)
        parts[SPLIT_NAMES[name]] = replace(data, splits={UNSPLIT: samples})
    if not parts:
        raise DataError("cannot use this mapping", "it is empty", "Give train, and val or test if wanted")
    return _merged(parts)


def _merged(parts: Mapping[str, DataSet]) -> DataSet:
    """Undivided data sets as the splits of one; classes go by name."""
    classes = tuple(sorted({name for data in parts.values() for name in data.classes}, key=_number_first))
    splits = {split: data.with_classes(classes)[0].splits[UNSPLIT] for split, data in parts.items()}
    first = next(iter(parts.values()))
    roots = {data.root for data in parts.values()}
    return DataSet(first.source, roots.pop() if len(roots) == 1 else "", classes, splits)


def _named(
    labels: Sequence[Any], classes: Iterable[Any] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Class names, and the label of each image as an index into them."""
    if classes is None:
        values = sorted(set(labels), key=lambda value: _number_first(str(value)))
        names = [str(value) for value in values]
        index = {value: i for i, value in enumerate(values)}
        return tuple(names), np.array([index[label] for label in labels], np.int64)
    names = [str(name) for name in classes]
    if len(set(names)) < len(names):  # ImageNet has two cranes
        names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
    if all(isinstance(label, str) for label in labels):
        labels = [names.index(label) if label in names else -1 for label in labels]
    numbers = np.asarray(labels, np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(names):
        odd = int(numbers.min() if numbers.min() < 0 else numbers.max())
        raise DataError("cannot use these labels", f"{odd} is among them, and there are {len(names)} classes")
    return tuple(names), numbers


def _number_first(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 62, name)


def _plain(label: Any) -> Any:
    """A label as a whole number or text."""
    value = label.item() if hasattr(label, "item") else label
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError(
            "cannot use these labels", f"{value!r} is among them", "A label is a whole number or a name"
        )
    return value


def _array(values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor; torch need not be imported to see that
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _pixels(images: npt.NDArray[Any]) -> Uint8Array:
    """Images as `Samples` have them; raises DataError where they are something else."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            "cannot use these images",
            f"they are {images.dtype} {list(images.shape)}, not uint8 of 0 to 255 [n, height, width(, 3)]",
            "Leave ToTensor() out, or scale them back: (images * 255).round().astype('uint8')",
        )
    if images.ndim == 3:
        return images
    if images.shape[3] not in (1, 3):
        if images.shape[1] not in (1, 3):
            raise DataError("cannot use these images", f"{list(images.shape)} has no axis of 1 or 3 channels")
        images = images.transpose(0, 2, 3, 1)
    return images[..., 0] if images.shape[3] == 1 else images


def _one(image: Any) -> Uint8Array:
    """One image, Pillow's or as `_pixels`; raises UsageError where it is something else."""
    try:
        pixels: Uint8Array = _pixels(_array(image)[None])[0]
        return pixels
    except DataError as error:
        raise UsageError(error.what, error.why, error.fix) from error
