"""Predictions of image classifiers, whatever runs the network. This module does not load torch."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import numpy.typing as npt

from striate import memory
from striate.bundle import Calibration, Description, UnknownInputs, decode_unknown
from striate.bundle.calibration import require_calibration
from striate.device import USUAL_PIXELS
from striate.errors import DataError, DecodeError, translated_errors
from striate.inference.model_view import prediction_html, prediction_text
from striate.inference.tta import is_cropped, require
from striate.progress import AUTO, Progress
from striate.transforms.decode import ImageSource, Uint8Array, name_of
from striate.transforms.preprocess import Preprocess

if TYPE_CHECKING:
    from striate.explain import Explanation

_Prepared = Sequence[tuple[str, Uint8Array | DecodeError]]
M = TypeVar("M", bound="ImagePredictor")

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
        probabilities: float64 `[classes]`, summing to 1 unless images have several classes; empty if there is
            an error.
        error: why the image cannot be read or has no answer, in one line; None if it has one.
        calibration: of the model; None if it is not calibrated.
        unknown: whether the image is unlike the training images, so that no answer is worth much; None if the
            model does not know, or there is an error.
        thresholds: of a model for images with several classes, the probability from which on each class is
            predicted; None for others.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    error: str | None = None
    calibration: Calibration | None = field(default=None, repr=False)
    unknown: bool | None = None
    thresholds: tuple[float, ...] | None = None

    __repr__ = prediction_text
    _repr_html_ = prediction_html

    def set(self, coverage: float = 0.95) -> tuple[str, ...]:
        """The names of classes that include the right one with this probability, the most probable first.

        The guarantee holds for images like those that the model was calibrated on (`metrics.conformal`).
        Empty if there is an error, or if no class is likely enough.

        Raises:
            UsageError: the model is not calibrated, with too few images for this coverage, or for images with
                several classes.
        """
        calibration = require_calibration(self.calibration, has_thresholds=self.thresholds is not None)
        if self.error:
            return ()
        inside = calibration.sets(self.probabilities[None], coverage)[0]
        order = np.argsort(-self.probabilities, kind="stable")
        return tuple(self.classes[i] for i in order if inside[i])

    def top(self, k: int = 5) -> list[Score]:
        """The `k` most probable classes, most probable first; empty if there is an error."""
        best = np.argsort(-self.probabilities, kind="stable")[:k]
        return [Score(self.classes[i], float(self.probabilities[i])) for i in best]

    @property
    def label(self) -> str | None:
        """The name of the most probable class; None if there is an error, or none reaches its threshold."""
        labels = self.labels
        return labels[0].name if labels else None

    @property
    def labels(self) -> list[Score]:
        """The predicted classes, most probable first: those that reach their threshold, or the one class."""
        if self.error:
            return []
        if self.thresholds is None:
            return self.top(1)
        reached = dict(zip(self.classes, self.probabilities >= self.thresholds, strict=True))
        return [score for score in self.top(len(self.classes)) if reached[score.name]]


class ImagePredictor(ABC):
    """From images in any form to predictions: decoding in threads, in batches; subclasses compute the scores.

    Attributes:
        description: class names, preprocessing, metrics, provenance.
        path: the file that it was loaded from, or empty.
    """

    description: Description
    path: str

    def uncalibrated(self: M) -> M:
        """The same model without its calibration: the softmax of its scores as they are."""
        other = copy.copy(self)  # not `dataclasses.replace`: subclasses need not be dataclasses
        object.__setattr__(other, "description", replace(self.description, calibration=None))
        return other

    def calibrated(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Class probabilities, `[n, classes]`: the softmax of scores divided by the model's temperature.

        If images have several classes, they are the sigmoid of the scores.
        """
        if self.description.is_multi_label:
            return sigmoid(scores)
        calibration = self.description.calibration
        return softmax(scores, 1.0 if calibration is None else calibration.temperature)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the network's outputs."""
        return self.description.classes

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the network's input."""
        return self.description.image_preprocess

    def predict(self, source: ImageSource, *, tta: str | None = None) -> Prediction:
        """Predict one image.

        Args:
            source: a path, the bytes of a file, a file object, a Pillow image, or uint8 pixels
                `[height, width]` or `[height, width, 1 or 3]`, of any size; all give the same result. See
                `striate.transforms.decode.open_pixels`.
            tta: test-time augmentation: `flip` or `crops` (`striate.inference.tta`); None for none.

        Raises:
            DecodeError: the file cannot be read. (`predict_many` returns such errors instead.)
            DataError: the scores are not finite.
            LayoutError: the array is not laid out like that, or is no image at all.
        """
        prediction = next(self.predict_many([source], workers=1, tta=tta))
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
        tta: str | None = None,
        progress: Progress = AUTO,
    ) -> Iterator[Prediction]:
        """Predict images in batches, in their order; unreadable ones give a prediction with an error.

        Args:
            sources: images as for `predict`; any number, read lazily.
            batch: batch size.
            workers: threads that decode images.
            tta: as for `predict`; such predictions do not say whether an image is unlike the training images.
            progress: receives an update per batch; the caller begins and ends the stage.

        Raises:
            ResourceError: a batch cannot fit into memory.
            UsageError: the preprocessing leaves no room for this `tta`.
        """
        require(tta, self.preprocess)
        for prepared in self.read_batches(sources, batch, workers, crop=is_cropped(tta)):
            good = _readable(prepared)
            rows: Iterable[npt.NDArray[np.float64]] = ()
            far = None
            if good and tta is None:
                rows, far = self.answers(np.stack(good))
            elif good:
                rows = self.probabilities(np.stack(good), batch=len(good), tta=tta)
            yield from self._answers(prepared, rows, far)
            progress.advance(len(prepared))

    def read_batches(
        self, sources: Iterable[ImageSource], batch: int, workers: int, *, crop: bool = True
    ) -> Iterator[list[tuple[str, Uint8Array | DecodeError]]]:
        """The names of images and the network's inputs, or why they cannot be read, batch by batch."""
        remaining, read = iter(sources), partial(read_image, preprocess=self.preprocess, crop=crop)
        first = list(islice(remaining, batch))
        self._require_memory(len(first))
        threads = ThreadPoolExecutor(max(1, workers), thread_name_prefix="decode")
        with translated_errors(), threads as pool:
            pending = [pool.submit(read, source) for source in first]
            while pending:
                # The next batch is decoded while the network works on this one.
                following = [pool.submit(read, source) for source in islice(remaining, batch)]
                yield [task.result() for task in pending]
                pending = following

    @abstractmethod
    def probabilities(
        self,
        images: Uint8Array,
        *,
        batch: int = 64,
        tta: str | None = None,
        progress: Progress = AUTO,
    ) -> npt.NDArray[np.float64]:
        """Class probabilities for images that already have the network's input size.

        Args:
            images: uint8 `[n, height, width, channels]`, as `preprocess.fit` gives them; for `crops` of the
                size `preprocess.uncropped_size`.
            batch: batch size.
            tta: as for `predict`.
            progress: receives an update per batch; the caller begins and ends the stage.

        Returns:
            float64 `[n, classes]`.
        """

    def answers(self, images: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
        """Class probabilities, and whether each image is unlike the training images, or None if unclear.

        Args:
            images: as for `probabilities`; one batch, not empty.
        """
        return self.probabilities(images, batch=len(images)), None

    @cached_property
    def unknown_inputs(self) -> UnknownInputs | None:
        """What tells inputs unlike the training images; None if the model has no features of them.

        Raises:
            BundleError: the features are damaged.
        """
        text = self.description.unknown
        return decode_unknown(text, self.path) if text else None

    def unlike_training(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_] | None:
        """Whether images with these features, `[n, features]`, are unlike the training images."""
        known = self.unknown_inputs
        return None if known is None else known.distances(features) > known.threshold

    @abstractmethod
    def explained(self, images: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Class probabilities and Grad-CAM's map of the most probable class, from one pass.

        Args:
            images: as for `probabilities`; one batch, not empty.

        Returns:
            float64 `[n, classes]`, and float32 `[n, rows, columns]` of the last feature maps, at least 0.

        Raises:
            UsageError: the network has no feature maps, or the file no output for them.
        """

    def explain_many(
        self,
        sources: Iterable[ImageSource],
        *,
        batch: int = 64,
        workers: int = 2,
        progress: Progress = AUTO,
    ) -> Iterator[tuple[Prediction, Explanation | None]]:
        """As `predict_many`, with Grad-CAM's map of the most probable class, without a test of the map.

        The explanation is None where the prediction has an error.

        Raises:
            ResourceError: a batch cannot fit into memory.
            UsageError: as `explained`.
        """
        from striate.explain.result import Explanation

        for prepared in self.read_batches(sources, batch, workers):
            good = _readable(prepared)
            rows, maps = self.explained(np.stack(good)) if good else ((), ())
            pixels, heat = iter(good), iter(maps)
            for (_, image), prediction in zip(prepared, self._answers(prepared, rows), strict=True):
                seen = None if isinstance(image, DecodeError) else (next(pixels), next(heat))
                if seen is None or prediction.error is not None:
                    yield prediction, None
                    continue
                (best,) = prediction.top(1)
                yield (
                    prediction,
                    Explanation(
                        prediction.path,
                        "grad-cam",
                        best.name,
                        best.probability,
                        best.name,
                        None,
                        seen[1],
                        seen[0],
                    ),
                )
            progress.advance(len(prepared))

    def _require_memory(self, images: int) -> None:
        """Refuse a batch that cannot fit into memory; usual ones are not worth the estimate."""
        height, width = self.preprocess.size
        if images * height * width > USUAL_PIXELS:
            fix = "Use a smaller --batch" if images > 1 else "Use a model with a smaller input"
            memory.require(images * self._bytes_per_image, f"a batch of {images:,} images", fix)

    @cached_property
    def _bytes_per_image(self) -> int:
        """The memory that an image takes at least: its pixels, and the same as float32."""
        return 5 * self.preprocess.channels * self.preprocess.size[0] * self.preprocess.size[1]

    def _answers(
        self,
        prepared: _Prepared,
        rows: Iterable[npt.NDArray[np.float64]],
        unknown: Iterable[np.bool_] | None = None,
    ) -> Iterator[Prediction]:
        """Predictions from the answers for the images that can be read."""
        remaining, nothing = iter(rows), np.empty(0)
        marks = repeat(None) if unknown is None else map(bool, unknown)
        thresholds = self.description.thresholds
        for path, image in prepared:
            if isinstance(image, DecodeError):
                calibration = self.description.calibration
                yield Prediction(path, self.classes, nothing, image.why, calibration, thresholds=thresholds)
                continue
            row, mark = next(remaining), next(marks)
            finite = bool(np.isfinite(row).all())
            error = None if finite else NOT_FINITE
            answer, mark = (row, mark) if finite else (nothing, None)
            calibration = self.description.calibration
            yield Prediction(path, self.classes, answer, error, calibration, mark, thresholds)


def _readable(prepared: _Prepared) -> list[Uint8Array]:
    return [image for _, image in prepared if not isinstance(image, DecodeError)]


def read_image(
    source: ImageSource, preprocess: Preprocess, *, crop: bool = True
) -> tuple[str, Uint8Array | DecodeError]:
    """The name of an image (see `Prediction.path`), and the network's input or why it cannot be read."""
    name = name_of(source)
    try:
        return name, preprocess.read(source, crop=crop)
    except DecodeError as error:
        return name, error


def softmax(scores: npt.NDArray[np.floating], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """exp(x / t) / sum(exp(x / t)) along the last axis, in float64; NaN if a score is not finite."""
    with np.errstate(invalid="ignore"):
        relative = scores.astype(np.float64) - scores.max(axis=-1, keepdims=True)
        powers = np.exp(relative / temperature)
        shares = powers / powers.sum(axis=-1, keepdims=True)
    shares[~np.isfinite(scores).all(axis=-1)] = np.nan
    return cast(npt.NDArray[np.float64], shares)


def sigmoid(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)) of each score, in float64; NaN for images with a score that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        shares = 1 / (1 + np.exp(-scores.astype(np.float64)))
    shares[~np.isfinite(scores).all(axis=-1)] = np.nan
    return shares
