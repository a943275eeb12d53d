"""Classify images with a trained model."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from striate import bundle, models
from striate.bundle import Description
from striate.data import Images, InMemoryImages
from striate.device import allow_forks, standard_settings
from striate.device import choose as choose_device
from striate.errors import BundleError, DecodeError, UsageError, translated_errors
from striate.inference.model_view import model_html, model_text
from striate.inference.penultimate import Penultimate
from striate.inference.prediction import ImagePredictor, read_image
from striate.inference.scores import logits
from striate.kernels import prepare
from striate.kernels.folding import fold
from striate.models import Permission
from striate.progress import AUTO, Progress
from striate.transforms.decode import ImageSource, Uint8Array

if TYPE_CHECKING:
    from striate.data.images.base import Indices
    from striate.explain import Explainer, Explanation


@dataclass(frozen=True)
class Classifier(ImagePredictor):
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

    __repr__ = model_text
    _repr_html_ = model_html

    @translated_errors()
    def explain(
        self,
        source: ImageSource,
        method: str = "grad-cam",
        *,
        target: str | None = None,
        versus: Sequence[str] = (),
        samples: int | None = None,
        test: bool = True,
        check: bool = False,
        progress: Progress = AUTO,
    ) -> Explanation:
        """Explain the prediction for one image: which parts of it speak for the class.

        Args:
            source: as for `predict`.
            method: a key of `striate.explain.METHODS`.
            target: name of the class to explain; the most probable one by default.
            versus: names of classes to compare with, for `finer-cam`; by default those with near scores.
            samples: passes of a method that has this choice.
            test: test the map: hide and show its parts, in 33 passes.
            check: also test whether the map depends on the weights (model randomization test).
            progress: receives a stage of a slow method.

        Raises:
            DecodeError, DataError, LayoutError: as `predict`.
            UsageError: an unknown method or class, or one that does not suit the network.
        """
        from striate.explain import explain

        path, pixels, image = self._input(source)
        return explain(
            self.explainer, image, pixels, self.classes, path=path, method=method, target=target,
            versus=versus, samples=samples, test=test, check=check, progress=progress,
        )  # fmt: skip

    @standard_settings()
    @translated_errors()
    def explained(self, images: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """As `ImagePredictor.explained`."""
        self._require_memory(len(images))
        pixels = self.preprocess.normalize(torch.from_numpy(images).to(self.device))
        scores, maps = self.explainer.scores_and_maps(pixels)
        return self.calibrated(scores.float().cpu().numpy()), maps.cpu().numpy()

    @standard_settings()
    @translated_errors()
    def feature_maps(self, source: ImageSource, layer: str) -> npt.NDArray[np.float32]:
        """The feature maps of a layer for one image, `[channels, rows, columns]`.

        Args:
            source: as for `predict`.
            layer: name of a module of the network.

        Raises:
            DecodeError, LayoutError: as `predict`.
            UsageError: there is no such layer, or it has no feature maps.
        """
        from striate.explain import Explainer, feature_maps

        _, _, image = self._input(source)
        shape = (self.preprocess.channels, *self.preprocess.size)
        return feature_maps(Explainer(self.network, shape), image, layer)

    def _input(self, source: ImageSource) -> tuple[str, Uint8Array, torch.Tensor]:
        """The name of an image, its pixels and the network's input; raises DecodeError, LayoutError."""
        path, pixels = read_image(source, self.preprocess)
        if isinstance(pixels, DecodeError):
            raise DecodeError(f"cannot decode {path!r}", pixels.why)
        return path, pixels, self.preprocess.normalize(torch.from_numpy(pixels[None])).to(self.device)

    @translated_errors()
    def embed(
        self,
        sources: Iterable[ImageSource],
        *,
        batch: int = 64,
        workers: int = 2,
        progress: Progress = AUTO,
    ) -> npt.NDArray[np.float32]:
        """The features of images: the input of the network's last layer (see `Penultimate`).

        Args:
            sources: images as for `predict`.
            batch: batch size.
            workers: threads that decode images.
            progress: receives an update per batch; the caller begins and ends the stage.

        Returns:
            float32 `[n, features]`, in the order of the images.

        Raises:
            DecodeError: an image cannot be read.
            UsageError: the network's last layer is not known.
        """
        found: list[npt.NDArray[np.float32]] = []
        for prepared in self.read_batches(sources, batch, workers):
            images: list[Uint8Array] = []
            for _, image in prepared:
                if isinstance(image, DecodeError):
                    raise image
                images.append(image)
            found.append(self.features(_unlabelled(np.stack(images)), batch=batch)[0])
            progress.advance(len(images))
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    @translated_errors()
    def features(
        self,
        source: Images,
        *,
        batch: int = 64,
        workers: int = 2,
        order: Sequence[Indices] | None = None,
        progress: Progress = AUTO,
    ) -> tuple[npt.NDArray[np.float32], Indices]:
        """As `embed`, for a dataset of images that have the network's input size.

        Args:
            source: the dataset.
            batch: batch size.
            workers: threads that read images.
            order: which images each batch holds; None for all of them in their order.
            progress: receives an update per batch; the caller begins and ends the stage.

        Returns:
            float32 `[n, features]`, and int64 `[n]`, the position of each row's image: of those that can be
            read.

        Raises:
            ResourceError: a batch cannot fit into memory.
        """
        self._require_memory(min(batch, len(source)))
        return logits(
            self._with_features, self.preprocess, source, self.device, batch,
            workers=workers, order=order, progress=progress,
        )  # fmt: skip

    def probabilities(
        self,
        images: Uint8Array,
        *,
        batch: int = 64,
        tta: str | None = None,
        progress: Progress = AUTO,
    ) -> npt.NDArray[np.float64]:
        """As `ImagePredictor.probabilities`."""
        return self.measure(_unlabelled(images), batch=batch, tta=tta, progress=progress)[0]

    @standard_settings()
    @torch.inference_mode()
    @translated_errors()
    def answers(self, images: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
        """As `ImagePredictor.answers`, from one pass through the network."""
        if self.unknown_inputs is None:
            return super().answers(images)
        self._require_memory(len(images))
        x = self.preprocess.normalize(torch.from_numpy(images).to(self.device))
        scores, features = (part.float().cpu().numpy() for part in self._with_features.with_scores(x))
        return self.calibrated(scores), self.unlike_training(features)

    @cached_property
    def _with_features(self) -> Penultimate:
        """The folded network with the input of its last layer; the original if folding has changed that."""
        with contextlib.suppress(AttributeError, UsageError):
            found = Penultimate(self._folded, self.last_layer)
            size = (1, self.preprocess.channels, *self.preprocess.size)
            with standard_settings(), torch.inference_mode():
                found(torch.zeros(size, device=self.device))
            return found
        return self._penultimate

    @translated_errors()
    def measure(
        self,
        source: Images,
        *,
        batch: int = 64,
        workers: int = 2,
        tta: str | None = None,
        progress: Progress = AUTO,
    ) -> tuple[npt.NDArray[np.float64], Indices]:
        """Class probabilities for a dataset of images that have the network's input size.

        Args:
            source: the dataset; for `crops` with images of the size `preprocess.uncropped_size`.
            batch: batch size.
            workers: threads that read images.
            tta: as for `predict`.
            progress: receives an update per batch; the caller begins and ends the stage.

        Returns:
            float64 `[n, classes]`, and int64 `[n]`, the position of each row's image.

        Raises:
            ResourceError: a batch cannot fit into memory.
        """
        self._require_memory(min(batch, len(source)))
        scores, which = logits(
            self._folded, self.preprocess, source, self.device, batch,
            workers=workers, tta=tta, progress=progress,
        )  # fmt: skip
        return self.calibrated(scores) if len(scores) else scores.astype(np.float64), which

    @translated_errors()
    def scores_and_features(
        self, source: Images, *, batch: int = 64, workers: int = 2, progress: Progress = AUTO
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Indices]:
        """The scores of the network and the results of `features` from one pass.

        Returns:
            Scores, float32 `[n, classes]`; features, `[n, 0]` if the network's last layer is not known; and
            the position of each row's image.

        Raises:
            ResourceError: a batch cannot fit into memory.
        """
        self._require_memory(min(batch, len(source)))
        network = self._folded
        with contextlib.suppress(UsageError):  # the network's last layer is not known
            network = self._with_features.joined()
        found, which = logits(
            network, self.preprocess, source, self.device, batch, workers=workers, progress=progress
        )
        return found[:, : len(self.classes)], found[:, len(self.classes) :], which

    @cached_property
    def _bytes_per_image(self) -> int:
        """On a CPU with the largest result of a layer, which comes on top of the input."""
        size, architecture = self.preprocess.size, self.description.architecture
        if self.device.type != "cpu" or models.is_foreign(architecture):
            return super()._bytes_per_image
        from striate.anatomy import trace  # usual batches need no estimate

        layers = trace(architecture, size=size).layers
        return super()._bytes_per_image + max(layer.activation for layer in layers)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the copies of the network: no other process can read folded weights."""
        copies = ("_folded", "explainer", "_penultimate", "_with_features")
        return {name: value for name, value in vars(self).items() if name not in copies}

    @cached_property
    def _folded(self) -> nn.Module:
        """A copy of the network, with convolutions, norms and activations fused for this input size."""
        allow_forks()
        with standard_settings():
            return fold(copy.deepcopy(self.network), (self.preprocess.channels, *self.preprocess.size))

    @cached_property
    def _penultimate(self) -> Penultimate:
        """A copy of the network that returns the input of its last layer."""
        with standard_settings():
            return Penultimate(copy.deepcopy(self.network), self.last_layer)

    @property
    def last_layer(self) -> str:
        """The name of the last layer with weights; empty if it is not known."""
        arguments = self.description.arguments
        known = arguments.get("classifier") or models.describe(self.description.architecture).classifier
        return "head" if "append" in arguments else known

    @cached_property
    def explainer(self) -> Explainer:
        """Explains a folded copy of the network."""
        from striate.explain import Explainer

        allow_forks()
        with standard_settings():
            shape = (self.preprocess.channels, *self.preprocess.size)
            calibration = self.description.calibration
            temperature = 1.0 if calibration is None else calibration.temperature
            several = self.description.is_multi_label
            return Explainer(self.network, shape, folded=True, temperature=temperature, multi_label=several)


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


def _unlabelled(images: Uint8Array) -> InMemoryImages:
    """Images `[n, height, width, channels]` without labels as a dataset."""
    return InMemoryImages(images, np.zeros(len(images), np.int64), ("array",) * len(images), ())
