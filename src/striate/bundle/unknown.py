"""Inputs unlike the training images: the distance to their features, stored in a bundle's header.

k nearest neighbors on normalized features (Sun et al. 2022, arXiv:2204.06507): the features of an image, the
input of the network's last layer, are scaled to length 1 and compared with those of training images. An
image whose k-th nearest training image is further away than that of nearly all held-out images is unknown:
another kind of image than the network has learned, whatever its probabilities say.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from striate import strict_json
from striate.errors import BundleError, UsageError
from striate.metrics.conformal import quantile_rank
from striate.tensor_file import DAMAGED
from striate.validation import InvalidValueError, require_fields

K = 10
MOST_IMAGES, MOST_AXES = 2000, 128  # of the training images, and of the space that their features span
FEWEST = 20  # training images, and held-out images
REJECTED = 0.03  # of held-out images, by the threshold
_MOST_NUMBERS = 500_000  # of the axes: 1 MB
_ITERATIONS = 4

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class UnknownInputs:
    """Compressed features of training images, and the threshold of unknown inputs.

    Attributes:
        axes: float16 `[features, axes]`, orthonormal; the space of the largest part of the training features.
        reference: int8 `[images, axes]`, normalized features of training images, in units of `step`.
        step: the distance between two values of `reference`.
        threshold: of distances; an image further away is unknown.
        rejected: share of held-out images that a threshold rejects which comes from other held-out images.
        held_out: number of held-out images.
    """

    axes: npt.NDArray[np.float16] = field(repr=False)
    reference: npt.NDArray[np.int8] = field(repr=False)
    step: float
    threshold: float
    rejected: float
    held_out: int

    def distances(self, features: Floats) -> npt.NDArray[np.float64]:
        """1 - the cosine of the angle to the k-th nearest training image, `[n]`: 0 to 2.

        Args:
            features: `[n, features]`.
        """
        return distances(features, *self._floats)

    @cached_property
    def _floats(self) -> tuple[Floats, Floats]:
        """Axes and reference as float32: converted once, not for each image."""
        return self.axes.astype(np.float32), self.reference.astype(np.float32) * np.float32(self.step)

    def summary(self) -> dict[str, Any]:
        """Plain JSON values without the features."""
        return {
            "k": K, "images": len(self.reference), "threshold": self.threshold,
            "held_out": self.held_out, "rejected": self.rejected,
        }  # fmt: skip

    def encode(self) -> str:
        """As text, at most 2 MB: JSON with compressed arrays."""
        values = {
            "step": self.step, "threshold": self.threshold, "rejected": self.rejected,
            "held_out": self.held_out, "shape": [*self.axes.shape, len(self.reference)],
            "axes": _packed(self.axes.astype("<f2")), "reference": _packed(self.reference),
        }  # fmt: skip
        return strict_json.dumps(values)

    @classmethod
    def decode(cls, text: str) -> UnknownInputs:
        """The inverse of `encode`; raises ValueError or InvalidValueError if the text is damaged."""
        values = strict_json.loads(text)
        require_fields(values, _Encoded, "unknown")
        features, axes, images = values["shape"]
        if not (0 < axes <= MOST_AXES and 0 < images <= MOST_IMAGES and 0 < features * axes <= _MOST_NUMBERS):
            raise InvalidValueError("unknown.shape", values["shape"], "a size of its features")
        arrays = (
            _unpacked(values["axes"], np.dtype("<f2"), (features, axes)),
            _unpacked(values["reference"], np.dtype(np.int8), (images, axes)),
        )
        numbers = (values[name] for name in ("step", "threshold", "rejected", "held_out"))
        return cls(*arrays, *numbers)


def decode_unknown(text: str, path: str) -> UnknownInputs:
    """The record of a bundle; raises BundleError if it is damaged."""
    try:
        return UnknownInputs.decode(text)
    except (ValueError, UsageError) as error:
        why = f"its features of training images: {' '.join(str(error).split())}"
        raise BundleError(f"{path!r} is damaged", why, DAMAGED) from error


@dataclass(frozen=True)
class _Encoded:
    """The types of an encoded record."""

    step: float
    threshold: float
    rejected: float
    held_out: int
    shape: tuple[int, int, int]
    axes: str
    reference: str


def of_features(reference: Floats, held_out: Floats) -> UnknownInputs | None:
    """Compress the features of training images, and choose the threshold.

    Args:
        reference: `[n, features]`, of training images.
        held_out: `[m, features]`, of images of the same kind that the network was not trained on.

    Returns:
        None with fewer than 20 of either, or features that are not finite.
    """
    reference, held_out = (x[np.isfinite(x).all(axis=1)] for x in (reference, held_out))
    if min(len(reference), len(held_out)) < FEWEST:
        return None
    unit = _unit(reference[:MOST_IMAGES])
    width = min(MOST_AXES, unit.shape[1], _MOST_NUMBERS // unit.shape[1])
    if width < 1:
        return None
    axes = _main_axes(unit, width).astype(np.float16)
    projected = unit @ axes.astype(np.float32)
    step = float(max(np.abs(projected).max(), 1e-6) / 127)
    compressed = np.round(projected / step).astype(np.int8)
    far = distances(held_out, axes.astype(np.float32), compressed.astype(np.float32) * step)
    return UnknownInputs(axes, compressed, step, _limit(far), _cross_checked(far), len(far))


def distances(features: Floats, axes: Floats, reference: Floats) -> npt.NDArray[np.float64]:
    """1 - the cosine of the angle to the k-th nearest training image, `[n]`: 0 to 2.

    Args:
        features: `[n, features]`; the distance of a row that is not finite is infinite.
        axes: `[features, axes]`, of the space of the reference.
        reference: `[images, axes]`, normalized features of training images in this space.
    """
    finite = np.asarray(np.isfinite(features).all(axis=1))
    similar = (_unit(np.where(finite[:, None], features, 0)) @ axes) @ reference.T
    k = min(K, len(reference))
    found = 1 - np.partition(similar, len(reference) - k, axis=1)[:, len(reference) - k]
    return np.where(finite, found.astype(np.float64), np.inf)


def _main_axes(unit: Floats, width: int) -> Floats:
    """Orthonormal axes of the largest part of some vectors, `[features, width]`, by subspace iteration."""
    features = unit.shape[1]
    if features <= width:
        return np.eye(features, dtype=np.float32)
    more = min(features, width + 10)
    axes = np.random.default_rng(0).normal(size=(features, more)).astype(np.float32)
    for _ in range(_ITERATIONS):
        axes, _ = np.linalg.qr(unit.T @ (unit @ axes))
    _, turned = np.linalg.eigh((unit @ axes).T @ (unit @ axes))
    return np.asarray((axes @ turned)[:, ::-1][:, :width])


def _unit(features: Floats) -> Floats:
    return np.asarray(
        features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12), np.float32
    )


def _limit(far: npt.NDArray[np.float64]) -> float:
    """The distance that a new image of the same kind exceeds with a probability of 3 % or a little less.

    Of fewer than 33 images it is the largest, which a new one exceeds with a probability of 1 / (n + 1).
    """
    return float(np.sort(far)[min(quantile_rank(len(far), 1 - REJECTED), len(far)) - 1])


def _cross_checked(far: npt.NDArray[np.float64]) -> float:
    """The share of images that thresholds reject which come from the other half of the images."""
    halves = ((far[::2], far[1::2]), (far[1::2], far[::2]))
    rejected = sum(int(np.count_nonzero(these > _limit(others))) for these, others in halves)
    return rejected / len(far)


def _packed(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()


def _unpacked(text: str, kind: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    size = int(np.prod(shape)) * kind.itemsize
    try:
        unzip = zlib.decompressobj()
        data = unzip.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(str(error)) from error
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes in place of {size}")
    found = np.frombuffer(data, kind).reshape(shape)
    if not np.isfinite(found).all():
        raise ValueError("its numbers are not finite")
    return found
