"""Classify images with a trained model."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from striate import bundle, models
from striate.bundle import Description
from striate.data import Images, InMemoryImages
from striate.data.images.base import Indices
from striate.data.images.loader import stream
from striate.device import allow_forks, standard_settings
from striate.device import choose as choose_device
from striate.errors import BundleError, DataError, DecodeError
from striate.kernels import prepare
from striate.kernels.folding import fold
from striate.models import Permission
from striate.progress import SILENT, Progress
from striate.transforms.decode import ImageSource, Uint8Array, name_of
from striate.transforms.preprocess import Preprocess

NOT_FINITE = "its scores are not finite (NaN or infinite)"  # the error of a prediction without an answer


@dataclass(frozen=True)
class Score:
    """A class and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        path: of the image, or the name of a file object; `array` for an array or a Pillow image; `image
            bytes`.
        classes: the model's class names.
        probabilities: float64 `[classes]`, summing to 1; empty if there is an error.
        error: why the image cannot be read or has no answer, in one line; None if it has one.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    error: str | None = None

    def top(self, k: int = 5) -> list[Score]:
        """The `k` most probable classes, most probable first; empty if there is an error."""
        best = np.argsort(-self.probabilities, kind="stable")[:k]
        return [Score(self.classes[i], float(self.probabilities[i])) for i in best]

    @property
    def label(self) -> str | None:
        """The name of the most probable class; None if there is an error."""
        return None if self.error else self.top(1)[0].name


@dataclass(frozen=True)
class Classifier:
    """An image classifier: a network with its class names and preprocessing.

    Attributes:
        network: in evaluation mode, on `device`. Predictions use a folded copy, made for the first one, that
            shares nothing with it: later changes of the network have no effect. For predictions with changed
            weights, make a new classifier: `dataclasses.replace(classifier)`.
        description: class names, preprocessing, metrics, provenance.
        device: where it runs.
        path: the file that it was loaded from, or empty.
    """

    network: nn.Module = field(repr=False)
    description: Description
    device: torch.device
    path: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs."""
        return self.description.classes

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the network's input."""
        return self.description.image_preprocess

    def predict(self, source: ImageSource) -> Prediction:
        """Predict one image.

        Args:
            source: a path, the bytes of a file, a file object, a Pillow image, or uint8 pixels
                `[height, width]` or `[height, width, 1 or 3]`, of any size; all give the same result. See
                `striate.transforms.decode.open_pixels`.

        Raises:
            DecodeError: the file cannot be read. (`predict_many` returns such errors instead.)
            DataError: the scores are not finite.
            LayoutError: the array is not laid out like that, or is no image at all.
        """
        prediction = next(self.predict_many([source], workers=1))
        if prediction.error == NOT_FINITE:
            raise DataError(
                f"cannot classify {prediction.path!r}", NOT_FINITE, "Use another model: this one is damaged"
            )
        if prediction.error is not None:
            raise DecodeError(f"cannot decode {prediction.path!r}", prediction.error)
        return prediction

    def predict_many(
        self,
        sources: Iterable[ImageSource],
        *,
        batch: int = 64,
        workers: int = 2,
        progress: Progress = SILENT,
    ) -> Iterator[Prediction]:
        """Predict images in batches, in their order; unreadable ones give a prediction with an error.

        Args:
            sources: images as for `predict`; any number, read lazily.
            batch: batch size.
            workers: threads that decode images.
            progress: receives an update per batch; the caller begins and ends the stage.
        """
        remaining, read = iter(sources), partial(read_image, preprocess=self.preprocess)
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode") as pool:
            pending = [pool.submit(read, source) for source in islice(remaining, batch)]
            while pending:
                # The next batch is decoded while the network works on this one.
                following = [pool.submit(read, source) for source in islice(remaining, batch)]
                yield from self._answers([task.result() for task in pending])
                progress.advance(len(pending))
                pending = following

    def probabilities(
        self, images: Uint8Array, *, batch: int = 64, progress: Progress = SILENT
    ) -> npt.NDArray[np.float64]:
        """Class probabilities for images that already have the network's input size.

        Args:
            images: uint8 `[n, height, width, channels]`, as `preprocess.fit` gives them.
            batch: batch size.
            progress: receives an update per batch; the caller begins and ends the stage.

        Returns:
            float64 `[n, classes]`.
        """
        source = InMemoryImages(images, np.zeros(len(images), np.int64), ("array",) * len(images), ())
        return self.measure(source, batch=batch, progress=progress)[0]

    def measure(
        self, source: Images, *, batch: int = 64, workers: int = 2, progress: Progress = SILENT
    ) -> tuple[npt.NDArray[np.float64], Indices]:
        """Class probabilities for a dataset of images that have the network's input size.

        Args:
            source: the dataset.
            batch: batch size.
            workers: threads that read images.
            progress: receives an update per batch; the caller begins and ends the stage.

        Returns:
            float64 `[n, classes]`, and int64 `[n]`, the position of each row's image.
        """
        scores, which = logits(
            self._folded, self.preprocess, source, self.device, batch, workers=workers, progress=progress
        )
        return softmax(scores) if len(scores) else scores.astype(np.float64), which

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the folded copy, whose weights no copy or other process can read; it is made again."""
        return {name: value for name, value in vars(self).items() if name != "_folded"}

    @cached_property
    def _folded(self) -> nn.Module:
        """A copy of the network, with convolutions, norms and activations fused for this input size."""
        allow_forks()
        with standard_settings():
            return fold(copy.deepcopy(self.network), (self.preprocess.channels, *self.preprocess.size))

    def _answers(self, prepared: Sequence[tuple[str, Uint8Array | DecodeError]]) -> Iterator[Prediction]:
        good = [image for _, image in prepared if not isinstance(image, DecodeError)]
        rows = iter(self.probabilities(np.stack(good), batch=len(good)) if good else ())
        nothing = np.empty(0)
        for path, image in prepared:
            if isinstance(image, DecodeError):
                yield Prediction(path, self.classes, nothing, image.why)
                continue
            row: npt.NDArray[np.float64] = next(rows)
            finite = bool(np.isfinite(row).all())
            yield Prediction(path, self.classes, row if finite else nothing, None if finite else NOT_FINITE)


def read_image(source: ImageSource, preprocess: Preprocess) -> tuple[str, Uint8Array | DecodeError]:
    """The name of an image (see `Prediction.path`), and the network's input or why it cannot be read."""
    name = name_of(source)
    try:
        return name, preprocess.read(source)
    except DecodeError as error:
        return name, error


@standard_settings()
def load(
    path: str | os.PathLike[str], device: str = "auto", *, network: Any = None, trust: str = ""
) -> Classifier:
    """Open a classifier's bundle on any device; executes no code from the file.

    Args:
        path: a bundle, or a run folder, whose `best.safetensors` is opened.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        network: for a network that Striate does not define: an `nn.Module` of its layers, which is copied, or
            a function that returns one, as it was given for training.
        trust: packages whose code may be imported to build the network, separated by commas.

    Raises:
        BundleError: no such file, damaged, not a bundle, or a model of another task.
        TrustError: its network needs `network` or `trust`.
        UsageError: the device is not available.
    """
    path = bundle.path_of(path)
    place, permission = choose_device(device), Permission(network, trust)
    description, built = bundle.load(path, place, partial(_network, str(path), permission))
    return Classifier(prepare(built, place, training=False).eval(), description, place, str(path))


def _network(path: str, permission: Permission, description: Description) -> nn.Module:
    """The network of a bundle, which must classify images of the size and into the classes that it says."""
    if description.task != "classification":
        raise BundleError(
            f"{path!r} cannot classify images",
            f"it was trained for {description.task}",
            f"Use `striate {description.task}` with it, or give a classifier",
        )
    scores, channels, size = models.interface(description.architecture, description.arguments)
    preprocess = description.image_preprocess
    for name, given, own in (
        ("classes", len(description.classes), scores),
        ("preprocess.channels", preprocess.channels, channels),
        ("preprocess.size", preprocess.size, size or preprocess.size),
    ):
        if given != own:
            raise bundle.damaged(path, f"{name}: {given}, but its network has {own}")
    return models.build(description.architecture, permission=permission, **description.arguments)


@standard_settings()
@torch.inference_mode()
def logits(
    network: nn.Module,
    preprocess: Preprocess,
    source: Images,
    place: torch.device,
    batch: int,
    *,
    workers: int = 2,
    order: Sequence[Indices] | None = None,
    progress: Progress = SILENT,
) -> tuple[npt.NDArray[np.float32], Indices]:
    """A network's scores for images of its size: the one way from pixels to scores, in training too.

    Args:
        network: in evaluation mode, on `place`.
        preprocess: its contract.
        source: the dataset.
        place: the device.
        batch: images at once.
        workers: threads that read images.
        order: which images each batch holds; None for all of them in their order.
        progress: receives an update per batch.

    Returns:
        float32 `[n, classes]`, and int64 `[n]`, which image of the source each row is of: all of those that
        can be read, in that order.
    """
    scores, which = [], []
    if order is None:
        order = np.split(np.arange(len(source)), range(batch, len(source), batch))
    for images in stream(source, order, place, workers=workers):
        if len(images):
            scores.append(network(preprocess.normalize(images.pixels)).float().cpu().numpy())
            which.append(images.samples)
        progress.advance(images.requested)
    if not scores:
        return np.empty((0, 0), np.float32), np.empty(0, np.int64)
    return np.concatenate(scores), np.concatenate(which)


def softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """exp(x) / sum(exp(x)) along the last axis, in float64; NaN if a score is not finite."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
    shares[~np.isfinite(scores).all(axis=-1)] = np.nan
    return cast(npt.NDArray[np.float64], shares)
