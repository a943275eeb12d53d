"""A second output of the ONNX file: Grad-CAM's map of the most probable class, where the head is linear.

For maps A, their mean over the units and one linear layer w, the gradient of the score of class c is w_c / Z
in each of the Z units of a map. So L = ReLU(sum_k w_ck A^k) / Z (Selvaraju et al. 2017, arXiv:1610.02391,
section 3.1): a product that costs next to nothing, without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.file import Signature
from striate.exporters.onnx.recorder import Step, Value
from striate.inference.onnx_classifier import MAPS, SCORES

# Steps that change no value in evaluation mode, or only the shape.
_SAME = {
    "_unsafe_view", "alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "flatten",
    "reshape", "squeeze", "unsqueeze", "view",
}  # fmt: skip


@dataclass(frozen=True)
class LinearHead:
    """The end of a network: the mean of its last feature maps, then one linear layer.

    Attributes:
        maps: `[batch, channels, rows, columns]`.
        weight: `[classes, channels]`.
    """

    maps: Value
    weight: Tensor


def linear_head(steps: Sequence[Step], result: Value) -> LinearHead | None:
    """The linear head of a recorded network; None if it ends in another way."""
    makers = {value.number: step for step in steps for value in step.results}

    def source(value: object) -> Step | None:
        """The step that computed a value, before those that only pass it on."""
        step = makers.get(value.number) if isinstance(value, Value) else None
        if step is not None and step.name in _SAME:
            return source(next(iter(step.arguments.values())))
        return step

    linear = source(result)
    if linear is None or linear.name != "linear" or not isinstance(linear.arguments["weight"], Tensor):
        return None
    weight, pool = linear.arguments["weight"], source(linear.arguments["input"])
    maps = None if pool is None else _pooled(pool)
    if maps is None or weight.ndim != 2 or maps.shape[1] != weight.shape[1]:
        return None
    return LinearHead(maps, weight) if math.prod(maps.shape[2:]) > 1 else None


def _pooled(step: Step) -> Value | None:
    """What a step reads, if its result is the mean over all rows and columns of maps."""
    maps, (mean, *_) = step.arguments.get("self"), step.results
    if not isinstance(maps, Value) or len(maps.shape) != 4:
        return None
    if step.name == "mean":
        dims = {int(axis) % 4 for axis in step.arguments["dim"] or ()}
        return maps if dims == {2, 3} else None
    is_global = step.name == "adaptive_avg_pool2d" and mean.shape[2:] == (1, 1)
    return maps if is_global else None


def add_maps(builder: Builder, head: LinearHead) -> Signature:
    """Append the nodes of the second output, after those of the scores."""
    chosen = builder.add("ArgMax", SCORES, axis=1, keepdims=0)
    rows = builder.add("Gather", head.weight, chosen, axis=0)
    axes = builder.constant(np.array([2, 3], np.int64))
    weighted = builder.add("Mul", head.maps, builder.add("Unsqueeze", rows, axes))
    total = builder.add("ReduceSum", weighted, builder.constant(np.array([1], np.int64)), keepdims=0)
    units = builder.constant(np.array(1 / math.prod(head.maps.shape[2:]), np.float32))
    builder.finish(builder.add("Relu", builder.add("Mul", total, units)), MAPS)
    return Signature(MAPS, "float32", ("batch", *head.maps.shape[2:]))
