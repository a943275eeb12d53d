"""Another output of the ONNX file: the features of an image, the input of the network's last layer.

They tell images unlike the training images (`striate.bundle.unknown`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.file import Signature
from striate.exporters.onnx.recorder import BATCH, Step, Value
from striate.inference.onnx_classifier import FEATURES


def last_input(steps: Sequence[Step], layer: nn.Module) -> Value | None:
    """What a layer reads in a recorded network; None if that is not one tensor of each image."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    readers = [step for step in steps if any(item is weight for item in step.arguments.values())]
    values = [item for step in readers for item in step.arguments.values() if isinstance(item, Value)]
    if len(readers) != 1 or len(values) != 1 or values[0].shape[0] != BATCH:
        return None
    return values[0] if BATCH not in values[0].shape[1:] else None


def add_features(builder: Builder, value: Value) -> Signature:
    """Append the nodes of the output, which has what `striate.inference.penultimate.Penultimate` returns."""
    shape = value.shape
    if len(shape) == 4:
        found, width = builder.add("ReduceMean", value, axes=[2, 3], keepdims=0), shape[1]
    elif len(shape) == 3:
        found, width = builder.add("ReduceMean", value, axes=[1], keepdims=0), shape[2]
    else:
        width = math.prod(shape[1:])
        found = builder.reshape(value, (BATCH, width))
    builder.finish(found, FEATURES)
    return Signature(FEATURES, "float32", ("batch", width))
