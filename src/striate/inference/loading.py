"""Open an image classifier: a bundle with torch, or an exported ONNX file without it."""

from __future__ import annotations

import os
from typing import Any

from striate import bundle
from striate.inference import onnx_classifier
from striate.inference.prediction import ImagePredictor


def load(path: str | os.PathLike[str], device: str = "auto", **more: Any) -> ImagePredictor:
    """Open a bundle, a run folder or an ONNX file; only the first two load torch.

    Args:
        path: the suffix `.onnx` decides.
        device: where it will run.
        more: further arguments of `striate.inference.classifier.load`; a bundle's network may need them.

    Raises:
        BundleError, UsageError: as `striate.inference.classifier.load` or
            `striate.inference.onnx_classifier.load`.
    """
    if bundle.is_onnx(path):
        return onnx_classifier.load(path, device)
    from striate.inference import classifier

    return classifier.load(path, device, **more)
