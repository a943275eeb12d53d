"""Datasets from Python objects: arrays, tensors, `.npz` files and map-style torch `Dataset`s."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from striate.data.images.npz import read_arrays
from striate.data.images.samples import SPLIT_NAMES, UNSPLIT, DataSet, Samples, Stamp
from striate.errors import DataError, DecodeError, UsageError
from striate.transforms.decode import Uint8Array, to_array
from striate.transforms.preprocess import MAX_CHANNELS
from striate.validation import is_text

IN_MEMORY_SUFFIX = "(in memory)"  # ends the name of a dataset without a path

# Array names in .npz files.
_ARRAYS = {"images": {"images", "image", "x", "data"}, "labels": {"labels", "label", "y", "targets"}}
_TRANSFORMS = ("transform", "transforms", "target_transform")  # attributes of torchvision's datasets
_BANDS = range(1, MAX_CHANNELS + 1)  # numbers of channels
_PROBES = 3  # samples that are compared before a shortcut is used


def read(source: Any) -> DataSet:
    """Build a dataset from Python objects.

    Args:
        source: one of

            * a pair (images, labels): uint8 in 0-255, `[n, height, width]`, `[n, height, width, channels]` or
              `[n, channels, height, width]` of 1 to 16 channels (1 or 3 if both axes could be meant); labels
              `[n]`, integers or names,
            * a map-style `torch.utils.data.Dataset` whose items are an image (Pillow, or uint8 as above)
              and a label,
            * a mapping of `train`, `val` or `test` to one of these.

    Raises:
        UsageError: the type is not supported, or the `Dataset` has a transform.
        DataError: images or labels have another layout.
    """
    if isinstance(source, Mapping):
        return _from_splits(source)
    if isinstance(source, tuple) and len(source) == 2:
        return arrays(*source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, (str, bytes)):
        return _TorchDataset(source).data_set()
    if hasattr(source, "__iter__") and "Iterable" in "".join(kind.__name__ for kind in type(source).__mro__):
        why = "an iterable Dataset defines its own order"
        fix = "Give a map-style Dataset, or WebDataset shards by name: shards/train-{000..009}.tar"
        raise UsageError(f"cannot use {type(source).__name__} as data", why, fix)
    why = "it is neither a path, a pair (images, labels), a torch Dataset nor a mapping of splits to those"
    raise UsageError(f"cannot use {type(source).__name__!r} as data", why)


def npz(path: Path) -> DataSet:
    """Read a NumPy archive with `images` and `labels`, or `x_train`, `y_train`, ...; optionally `classes`.

    Raises:
        DataError: the file is damaged, contains Python objects, or lacks these arrays.
    """
    held = read_arrays(path)
    classes = held.pop("classes", held.pop("class_names", None))
    found: dict[str, dict[str, Any]] = {}
    unused = []
    for name, array in held.items():
        words = name.lower().split("_")
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), UNSPLIT)
        kind = next((kind for kind, names in _ARRAYS.items() if names & set(words)), None)
        if kind is None:
            unused.append(name)
        elif kind in found.setdefault(split, {}):
            fix = "Remove one, or give them different splits: train, val or test"
            raise DataError(
                f"cannot use {str(path)!r}", f"it has two arrays of {split} {kind}: {', '.join(held)}", fix
            )
        else:
            found[split][kind] = array
    if not found or any(len(pair) < 2 for pair in found.values()) or (UNSPLIT in found and len(found) > 1):
        why = f"its arrays are {', '.join(held) or 'none'}"
        fix = "Call them images and labels, or x_train, y_train, x_test, y_test and so on"
        raise DataError(f"cannot use {str(path)!r}", why, fix)
    parts = {s: arrays(**pair, classes=classes, prefix=f"{path.name}/{s}") for s, pair in found.items()}
    notes = (f"skipped the arrays {', '.join(unused)}",) if unused else ()
    return replace(_merged(parts), source=str(path), notes=notes)


def arrays(images: Any, labels: Any, classes: Iterable[Any] | None = None, prefix: str = "array") -> DataSet:
    """Build an unsplit dataset from one array of images and one of labels, as described in `read`.

    Args:
        images: a NumPy array, or a tensor on any device.
        labels: the same, or a list.
        classes: class names; None for the labels themselves.
        prefix: of the image names.
    """
    pixels, numbers = pixels_of(_array(images)), _array(labels)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1 or len(numbers) != len(pixels):
        why = f"the images are {list(pixels.shape)} and the labels {list(numbers.shape)}"
        raise DataError("cannot use these arrays", why, "Provide one label per image")
    names, own = _classes_and_labels([_label(number) for number in numbers.tolist()], classes)
    samples = Samples(tuple(f"{prefix}/{i}" for i in range(len(pixels))), own, pixels)
    return DataSet(f"{len(pixels):,} images {IN_MEMORY_SUFFIX}", "", names, {UNSPLIT: samples})


class _TorchDataset:
    """Read a torch `Dataset`: through its files or its array if it has one, else item by item."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._name = type(dataset).__name__
        # A torch Dataset need not be thread-safe: DataLoader uses processes.
        opened_each_time = type(dataset).__module__.startswith("torchvision.datasets")
        self._lock: Any = contextlib.nullcontext() if opened_each_time else threading.Lock()

    def data_set(self) -> DataSet:
        """Return all items as one split."""
        dataset = self._dataset
        if hasattr(dataset, "dataset") and hasattr(dataset, "indices"):  # torch's Subset
            whole = _TorchDataset(dataset.dataset).data_set()
            part = whole.splits[UNSPLIT].take(np.asarray(dataset.indices, np.int64))
            return replace(whole, splits={UNSPLIT: part})
        if tensors := getattr(dataset, "tensors", None):  # torch's TensorDataset
            return replace(arrays(*tensors[:2]), source=f"{self._name} {IN_MEMORY_SUFFIX}")
        self._refuse_transforms()
        if not len(dataset):
            raise DataError(f"cannot use {self._name}", "it is empty")
        labels = self._labels()
        classes, numbers = _classes_and_labels(labels, self._classes())
        if (paths := self._paths()) is not None:
            folder = str(Path(getattr(dataset, "root", "")).absolute())
            return DataSet(folder, folder, classes, {UNSPLIT: Samples(paths, numbers)})
        self.fetch(0)  # reports items that are not images now
        names = tuple(f"{self._name}/{i}" for i in range(len(dataset)))
        samples = Samples(names, numbers, self._array_of_pixels())
        if samples.pixels is None:
            samples = replace(samples, store=self, keys=np.arange(len(names)))
        return DataSet(f"{self._name} {IN_MEMORY_SUFFIX}", "", classes, {UNSPLIT: samples})

    def fetch(self, key: int) -> Uint8Array:
        """Return the pixels of an item; raises DecodeError, or UsageError if it is not an image."""
        with self._lock:
            image = self._item(key)[0]
        try:
            if isinstance(image, Image.Image):
                return to_array(image, 1 if image.mode in ("1", "L") else 3)
        except Exception as error:  # Pillow opens files lazily
            raise self._decode_error(key, error) from error
        return _one_image(image)

    def stamp(self, key: int) -> Stamp | None:
        """Return None: changes of an item cannot be detected."""
        return None

    def _decode_error(self, key: int, error: Exception) -> DecodeError:
        return DecodeError(f"cannot read {self._name}/{key}", f"{type(error).__name__}: {error}")

    def _item(self, key: int) -> Sequence[Any]:
        try:
            item = self._dataset[key]
        except Exception as error:  # user code may raise anything
            raise self._decode_error(key, error) from error
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            what = f"an item of {self._name} is {type(item).__name__!r}"
            raise UsageError(what, "it must be an image and a label")
        return item

    def _refuse_transforms(self) -> None:
        for name in _TRANSFORMS:
            own = getattr(self._dataset, name, None)
            if own is not None:
                why = "Striate applies the preprocessing that is stored with the weights"
                fix = "Create the Dataset without it; pass random transforms as augment="
                raise UsageError(f"{self._name} has its own {name}, {type(own).__name__}", why, fix)

    def _labels(self) -> list[Any]:
        """Return all labels: from a list of the Dataset if it agrees with the items, else item by item."""
        n = len(self._dataset)
        probes = {i: _label(self._item(i)[1]) for i in {0, n // 2, n - 1}}
        for name in ("targets", "labels", "_labels"):
            kept: Any = getattr(self._dataset, name, None)
            if hasattr(kept, "__len__") and len(kept) == n:
                labels = [_label(label) for label in (kept.tolist() if hasattr(kept, "tolist") else kept)]
                if all(labels[i] == label for i, label in probes.items()):
                    return labels
        return [_label(self._item(i)[1]) for i in range(n)]

    def _classes(self) -> Sequence[Any] | None:
        if (names := getattr(self._dataset, "classes", None)) is not None:
            return [", ".join(map(str, n)) if isinstance(n, (tuple, list)) else n for n in names]
        numbers = getattr(self._dataset, "class_to_idx", None)
        return sorted(numbers, key=numbers.get) if numbers else None

    def _paths(self) -> tuple[str, ...] | None:
        """Return the files of an ImageFolder of torchvision, which then are read and cached as usual."""
        samples = getattr(self._dataset, "samples", None)
        loader = getattr(self._dataset, "loader", None)
        if not samples or getattr(loader, "__module__", "") != "torchvision.datasets.folder":
            return None
        return tuple(str(Path(path).absolute()) for path, _ in samples)

    def _array_of_pixels(self) -> Uint8Array | None:
        """Return the array of a Dataset such as CIFAR10, if it agrees with the items."""
        kept: Any = getattr(self._dataset, "data", None)
        n = len(self._dataset)
        if not hasattr(kept, "shape") or len(kept) != n:
            return None
        try:
            pixels = pixels_of(_array(kept))
        except DataError:
            return None
        probes = np.linspace(0, n - 1, _PROBES).astype(int).tolist()
        same = all(np.array_equal(np.atleast_3d(self.fetch(i)), np.atleast_3d(pixels[i])) for i in probes)
        return pixels if same else None


def _from_splits(source: Mapping[Any, Any]) -> DataSet:
    """Build a dataset from a mapping of splits."""
    parts: dict[str, DataSet] = {}
    for name, part in source.items():
        if name not in SPLIT_NAMES or SPLIT_NAMES[name] in parts:
            why = "splits are train, val and test"
            raise UsageError(f"unknown or repeated split {name!r}", why, "Use each name once")
        data = read(part)
        samples = data.splits.get(UNSPLIT)
        if samples is None:
            why = "each split must be a pair (images, labels) or a Dataset"
            raise UsageError(f"split {name!r} has splits itself", why)
        if not data.root:  # file names are already different
            samples = replace(samples, names=tuple(f"{SPLIT_NAMES[name]}/{one}" for one in samples.names))
        parts[SPLIT_NAMES[name]] = replace(data, splits={UNSPLIT: samples})
    if not parts:
        raise DataError("cannot use this mapping", "it is empty", "Give train, and optionally val and test")
    return _merged(parts)


def _merged(parts: Mapping[str, DataSet]) -> DataSet:
    """Combine unsplit datasets as the splits of one; classes are matched by name."""
    classes = tuple(sorted({name for data in parts.values() for name in data.classes}, key=_number_first))
    splits = {split: data.with_classes(classes)[0].splits[UNSPLIT] for split, data in parts.items()}
    first = next(iter(parts.values()))
    roots = {data.root for data in parts.values()}
    return DataSet(first.source, roots.pop() if len(roots) == 1 else "", classes, splits)


def _classes_and_labels(
    labels: Sequence[Any], classes: Iterable[Any] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return class names, and labels as indices into them."""
    if classes is None:
        values = sorted(set(labels), key=lambda value: _number_first(str(value)))
        names = [str(value) for value in values]
        index = {value: i for i, value in enumerate(values)}
        return tuple(names), np.array([index[label] for label in labels], np.int64)
    names = [str(name) for name in classes]
    if len(set(names)) < len(names):  # ImageNet has two classes named crane
        names = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
    if all(isinstance(label, str) for label in labels):
        labels = [names.index(label) if label in names else -1 for label in labels]
    numbers = np.asarray(labels, np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(names):
        odd = int(numbers.min() if numbers.min() < 0 else numbers.max())
        raise DataError("cannot use these labels", f"label {odd} is out of range for {len(names)} classes")
    return tuple(names), numbers


def _number_first(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 62, name)


def _label(label: Any) -> Any:
    """Convert a label to int or str; raises DataError."""
    value = label.item() if hasattr(label, "item") else label
    if isinstance(value, str) and ("\0" in value or not is_text(value)):
        raise DataError("cannot use these labels", f"{value!r} is not valid text")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise DataError("cannot use these labels", f"{value!r} is not a label", "Use integers or names")
    return value


def _array(values: Any) -> npt.NDArray[Any]:
    if hasattr(values, "detach"):  # a tensor, without importing torch
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def pixels_of(images: npt.NDArray[Any]) -> Uint8Array:
    """Convert uint8 images to the layout of `Samples.pixels`; raises DataError if they are none."""
    if images.ndim in (3, 4) and 0 in images.shape[1:]:
        raise DataError(
            "cannot use these images", f"they have no pixels: their shape is {list(images.shape)}"
        )
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        why = f"they are {images.dtype} {list(images.shape)}, not uint8 in 0-255 [n, height, width(, 3)]"
        fix = "Remove ToTensor(), or scale them back: (images * 255).round().astype('uint8')"
        raise DataError("cannot use these images", why, fix)
    if images.ndim == 3:
        return images
    axis = next((a for few in ((1, 3), _BANDS) for a in (3, 1) if images.shape[a] in few), None)
    if axis is None:
        why = f"no axis of {list(images.shape)} has 1 to {_BANDS[-1]} channels"
        raise DataError("cannot use these images", why)
    images = images if axis == 3 else images.transpose(0, 2, 3, 1)
    return images[..., 0] if images.shape[3] == 1 else images


def _one_image(image: Any) -> Uint8Array:
    """Convert one image as `pixels_of` does; raises UsageError."""
    try:
        pixels: Uint8Array = pixels_of(_array(image)[None])[0]
        return pixels
    except DataError as error:
        raise UsageError(error.what, error.why, error.fix) from error
