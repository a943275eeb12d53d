"""Look into a classifier with a dataset: what activates a channel, similar images, prototypes of a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from striate.data import DecodedImages, open_data
from striate.data.images.base import Indices
from striate.data.images.loader import stream
from striate.device import cpu_count, standard_settings
from striate.errors import DataError, UsageError, unknown_name
from striate.explain import channels, prototypes
from striate.explain.channels import Activation
from striate.inference.classifier import Classifier
from striate.inference.evaluation_data import choose_split, find_data
from striate.progress import AUTO, Progress
from striate.transforms.decode import ImageSource, Uint8Array

_LARGEST_CLASS = 3000  # images of a class from which prototypes are chosen; their similarities take 72 MB


@dataclass(frozen=True)
class Example:
    """One image of the dataset.

    Attributes:
        path: of the image.
        label: its class in the dataset.
        value: activation of a channel, or cosine similarity; None for prototypes and criticisms.
        activation: the unit and what it sees, if a channel was asked for.
        pixels: uint8 `[height, width, channels]`, as the network reads it; of a channel, the patch it sees.
    """

    path: str
    label: str
    value: float | None
    activation: Activation | None
    pixels: Uint8Array

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {"path": self.path, "label": self.label}
        if self.value is None:
            return found
        if self.activation is None:
            return {**found, "similarity": self.value}
        return {
            **found, "activation": self.value, "unit": list(self.activation.unit),
            "box": list(self.activation.box),
        }  # fmt: skip


class Explorer:
    """A classifier and the images that it is looked into with.

    Args:
        classifier: of images.
        data: as for `striate.data.open_data`; None for those of the classifier's run, split as there.
        split: of the data; `auto` is train if there is one, else all images.
        batch: images at once.
        progress: receives a stage for each pass over the images.

    Raises:
        DataError: the data cannot be read, or have no images.
        UsageError: there is no such split; or no data, and the classifier is not in its run folder.
    """

    def __init__(
        self, classifier: Classifier, data: Any = None, *, split: str = "auto", batch: int = 64,
        progress: Progress = AUTO,
    ) -> None:  # fmt: skip
        if not isinstance(classifier, Classifier):
            what = f"a {type(classifier).__name__} is no classifier of Striate"
            raise UsageError(what, "", "Give what `striate.load` returns")
        self.classifier, self._batch, self._progress = classifier, batch, progress
        dataset = find_data(classifier, None, None, None)[0] if data is None else open_data(data)
        wanted = ("train" if "train" in dataset.splits else "all") if split == "auto" else split
        _, samples = choose_split(dataset.splits, wanted, dataset.source)
        self.classes = dataset.classes
        self._source, self._label_texts = dataset.source, dataset.label_texts(samples)
        self._images = DecodedImages(samples, classifier.preprocess, root=dataset.root, progress=progress)
        if not len(self._images):
            raise DataError(
                f"no images in {dataset.source!r}", "it is empty", "Give a folder of class folders"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    @standard_settings()
    def top_images(self, layer: str, channel: int, count: int = 16) -> list[Example]:
        """The images that activate a channel most, each with the patch that its strongest unit sees.

        Args:
            layer: name of a module whose output is feature maps.
            channel: of that layer.
            count: number of images.

        Raises:
            UsageError: there is no such layer or channel.
            DataError: no image can be read.
        """
        explainer = self.classifier.explainer
        where = channels.receptive_field(explainer, layer)
        found: list[tuple[float, int, int, int]] = []
        for images, samples in self._passes(f"channel {channel} of {layer}"):
            rows = channels.strongest(explainer, images, layer, channel)
            found += [(*row, int(sample)) for row, sample in zip(rows, samples, strict=True)]
            found = sorted(found, key=lambda row: (-row[0], row[3]))[:count]
        examples = []
        for value, row, column, sample in found:
            pixels = self._read(sample)
            box = channels.box_of(where, (row, column), (pixels.shape[0], pixels.shape[1]))
            top, left, bottom, right = box
            patch = np.ascontiguousarray(pixels[top:bottom, left:right])
            examples.append(self._example(sample, value, Activation(value, (row, column), box), patch))
        return examples

    @standard_settings()
    def nearest(self, source: ImageSource, count: int = 8) -> list[Example]:
        """The other images whose features are most similar to those of an image: what its answer rests on.

        The features are what the network's last layer reads; similarity is the cosine of the angle between
        them, -1 to 1.

        Args:
            source: an image, as for `Classifier.predict`; its own file is not among the images.
            count: number of images.

        Raises:
            DecodeError: the image cannot be read.
            DataError: no image of the dataset can be read.
        """
        own = _unit(self.classifier.embed([source]))
        features, samples = self._features
        similar = features @ own[0]
        order = np.argsort(-similar, kind="stable")
        itself = os.path.realpath(source) if isinstance(source, (str, os.PathLike)) else None
        others = (i for i in order if os.path.realpath(self._images.names[samples[i]]) != itself)
        return [self._example(int(samples[i]), float(similar[i])) for i in islice(others, count)]

    @standard_settings()
    def prototypes(self, name: str, count: int = 5) -> tuple[list[Example], list[Example]]:
        """The images that stand for a class, and as many that these do not stand for (criticisms).

        Args:
            name: of a class of the dataset.
            count: number of each.

        Raises:
            UsageError: there is no such class.
            DataError: it has no readable images.
        """
        if name not in self.classes:
            raise unknown_name("class", name, self.classes)
        features, samples = self._features
        labels, number = self._images.labels[samples], self.classes.index(name)
        own = np.flatnonzero(labels[:, number] if labels.ndim == 2 else labels == number)
        if not len(own):
            raise DataError(f"no prototypes of {name!r}", "none of its images can be read")
        if len(own) > _LARGEST_CLASS:
            own = np.sort(np.random.default_rng(0).permutation(own)[:_LARGEST_CLASS])
        similar = prototypes.kernel(features[own])
        chosen = prototypes.prototypes(similar, count)
        critical = prototypes.criticisms(similar, chosen, count)
        both = ([self._example(int(samples[own[i]])) for i in part] for part in (chosen, critical))
        first, second = both
        return first, second

    @cached_property
    def _features(self) -> tuple[npt.NDArray[np.float64], Indices]:
        """Features of unit length `[n, features]` of all readable images, and their positions."""
        self._progress.begin("features", len(self._images))
        found, which = self.classifier.features(
            self._images, batch=self._batch, workers=cpu_count(), progress=self._progress
        )
        self._progress.end()
        self._require_readable(len(which))
        return _unit(found), which

    def _passes(self, stage: str) -> Iterator[tuple[Tensor, Indices]]:
        """The readable images in batches, as the network reads them, and their positions.

        Raises:
            DataError: none can be read.
        """
        count = len(self._images)
        order = np.split(np.arange(count), range(self._batch, count, self._batch))
        self._progress.begin(stage, count)
        readable = 0
        for part in stream(self._images, order, self.classifier.device, workers=cpu_count()):
            if len(part):
                readable += len(part)
                yield self.classifier.preprocess.normalize(part.pixels), part.samples
            self._progress.advance(part.requested)
        self._progress.end()
        self._require_readable(readable)

    def _require_readable(self, count: int) -> None:
        """Raise a DataError if none of the images can be read."""
        if not count:
            what = f"none of the {len(self._images)} images of {self._source!r} can be read"
            raise DataError(what, f"the first since {self._images.problems[0].reason}")

    def _read(self, sample: int) -> Uint8Array:
        pixels: Uint8Array = np.empty((1, *self._images.shape), np.uint8)
        self._images.read(np.array([sample]), pixels)
        return pixels.reshape(self._images.shape)

    def _example(
        self, sample: int, value: float | None = None, activation: Activation | None = None,
        pixels: Uint8Array | None = None,
    ) -> Example:  # fmt: skip
        label = self._label_texts[sample]
        path = os.fspath(self._images.names[sample])
        return Example(path, label, value, activation, self._read(sample) if pixels is None else pixels)


def _unit(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Features `[n, features]` scaled to length 1."""
    values = features.astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(values, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float64] = values / lengths.clip(min=1e-30)
    return scaled
