"""Classify images with an exported ONNX file in ONNX Runtime. This module does not load torch."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from striate.bundle import DESCRIPTION, Description, UnknownInputs
from striate.errors import BundleError, StriateError, UsageError
from striate.files import expanded
from striate.inference.prediction import ImagePredictor
from striate.inference.tta import mean_scores
from striate.kernels import allocator
from striate.progress import AUTO, Progress
from striate.reading import open_file
from striate.transforms.decode import Uint8Array

# The outputs: the second one where the network has a linear head, the third one for `unknown` predictions.
SCORES, MAPS, FEATURES = "scores", "maps", "features"
FEW = 4  # images for which ONNX Runtime need not change the layout of a network's convolutions
_INPUT = "images"


class OnnxClassifier(ImagePredictor):
    """An image classifier that `striate export --to onnx` wrote: the original's answers, up to rounding.

    Attributes:
        description: class names, preprocessing, metrics, provenance.
        path: of the file.
        outputs: names of the outputs of the file.
    """

    def __init__(self, session: Any, description: Description, path: str) -> None:
        self.session, self.description, self.path = session, description, path
        self.outputs = [output.name for output in session.get_outputs()]

    def probabilities(
        self,
        images: Uint8Array,
        *,
        batch: int = 64,
        tta: str | None = None,
        progress: Progress = AUTO,
    ) -> npt.NDArray[np.float64]:
        """As `ImagePredictor.probabilities`."""
        parts = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            parts.append(self.calibrated(mean_scores(self._run, part, tta, self.preprocess.size, 1)))
            progress.advance(len(part))
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)))

    def _run(self, images: Uint8Array) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = self.session.run([SCORES], {_INPUT: images})[0]
        return scores

    @cached_property
    def unknown_inputs(self) -> UnknownInputs | None:
        """As `ImagePredictor.unknown_inputs`; None for a file without the output `features`, too."""
        return super().unknown_inputs if FEATURES in self.outputs else None

    def answers(self, images: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
        """As `ImagePredictor.answers`, from one pass through the network."""
        if self.unknown_inputs is None:
            return super().answers(images)
        scores, features = self.session.run([SCORES, FEATURES], {_INPUT: images})
        return self.calibrated(scores), self.unlike_training(features)

    def explained(self, images: Uint8Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """As `ImagePredictor.explained`."""
        if MAPS not in self.outputs:
            raise UsageError(
                f"cannot explain with {self.path!r}",
                "it has no output for maps: its network does not end in global pooling and one linear layer, "
                "or an earlier version wrote it",
                "Export it again, or use `striate explain` with the bundle",
            )
        scores, maps = self.session.run([SCORES, MAPS], {_INPUT: images})
        return self.calibrated(scores), maps


def load(path: str | os.PathLike[str], device: str = "auto", *, few: bool = False) -> OnnxClassifier:
    """Open an ONNX file that Striate exported, without loading torch.

    Args:
        path: the file.
        device: `auto` or `cpu`.
        few: as for `open_session`.

    Raises:
        UsageError: another device, or ONNX Runtime is not installed.
        BundleError: no such file, damaged, or not exported by Striate from pixels to scores.
    """
    what = f"cannot open {os.fspath(path)!r}"
    if device not in ("auto", "cpu"):
        raise UsageError(
            f"--device {device} with an ONNX file", "it runs on the CPU", "Use the bundle, or cpu"
        )
    path = expanded(path)
    open_file(path, BundleError, what).close()
    try:
        session = open_session(path, few=few)
    except ImportError as error:
        raise UsageError(what, "ONNX Runtime is not installed", "pip install 'striate[onnx]'") from error
    except Exception as error:  # onnxruntime's own exceptions share no base class
        why = f"ONNX Runtime cannot read it ({one_line(error)})"
        raise BundleError(what, why, "Export it again") from error
    return OnnxClassifier(session, _description(session, what), str(path))


def open_session(path: Path, *, few: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, which prints nothing.

    The process keeps freed memory from then on: reading the file again and again copies its weights.

    Args:
        path: the file.
        few: whether it will see at most `FEW` images. Then convolutions keep their layout, whose change takes
            longer than it saves.

    Raises:
        ImportError: ONNX Runtime is not installed.
        Exception: it cannot read the file; its exceptions share no base class.
    """
    import onnxruntime

    allocator.keep()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print is in the exception
    # Threads that wait by spinning take the processor from those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if few:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def one_line(error: Exception) -> str:
    """The message of ONNX Runtime's exception, in one line that is not too long."""
    return " ".join(str(error).split())[:200]


def _description(session: Any, what: str) -> Description:
    """The description in the metadata of a file, which must fit its input and output."""
    fix = "Give a file that `striate export --to onnx` wrote"
    metadata = session.get_modelmeta().custom_metadata_map
    if DESCRIPTION not in metadata:
        raise BundleError(what, "Striate did not write it: its metadata have no classes", fix)
    try:
        description = Description.from_metadata(metadata)
    except (StriateError, ValueError) as error:
        raise BundleError(what, f"its description is damaged: {error}", "Export it again") from error
    (image, *_), (scores, *_) = session.get_inputs(), session.get_outputs()
    preprocess = description.image_preprocess
    if image.type != "tensor(uint8)":
        raise BundleError(what, "it reads normalized images, not pixels", fix)
    expected = [[*preprocess.size, preprocess.channels], [len(description.classes)]]
    if [list(image.shape[1:]), list(scores.shape[1:])] != expected:
        raise BundleError(what, "its shapes are not those of its description", "Export it again")
    return description
