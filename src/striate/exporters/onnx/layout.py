"""Rules for operators that move, join, cut or sum up elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.exporters.onnx.builder import Arguments, Builder, Rule, ints
from striate.exporters.onnx.recorder import BATCH, Step, UnsupportedError

_MAX = np.iinfo(np.int64).max


def reshape(builder: Builder, step: Step, a: Arguments) -> None:
    """Operators that keep the values and their order."""
    builder.set(step.results[0], builder.reshape(next(iter(a.values())), step.results[0].shape))


def reduction(op: str) -> Rule:
    """A mean, maximum or minimum over some axes."""

    def translate(builder: Builder, step: Step, a: Arguments) -> None:
        axes = ints(a["dim"], 1) or [*range(len(a["self"].shape))]
        builder.set(step.results[0], builder.add(op, a["self"], axes=axes, keepdims=int(a["keepdim"])))

    return translate


def norm(builder: Builder, step: Step, a: Arguments) -> None:
    """The length of vectors."""
    if a["ord"] != 2 or a["dim"] is None:
        raise UnsupportedError("a norm that is not the length of vectors")
    axes = ints(a["dim"], 1)
    name = builder.add("ReduceL2", a["self"], axes=axes, keepdims=int(a["keepdim"]))
    builder.set(step.results[0], name)


def total(builder: Builder, step: Step, a: Arguments) -> None:
    """The sum over some axes."""
    axes = builder.constant(np.array(ints(a["dim"], 1), np.int64))
    builder.set(step.results[0], builder.add("ReduceSum", a["self"], axes, keepdims=int(a["keepdim"])))


def concatenate(builder: Builder, step: Step, a: Arguments) -> None:
    """Join tensors along an axis."""
    builder.set(step.results[0], builder.add("Concat", *a["tensors"], axis=int(a["dim"])))


def permute(builder: Builder, step: Step, a: Arguments) -> None:
    """Exchange axes."""
    rank = len(a["self"].shape)
    axes = list(range(rank))
    if "dims" in a:
        axes = [axis % rank for axis in a["dims"]]
    else:  # `transpose`, and `t` for a matrix
        one, other = a.get("dim0", 0) % rank, a.get("dim1", 1) % rank
        axes[one], axes[other] = axes[other], axes[one]
    builder.set(step.results[0], builder.add("Transpose", a["self"], perm=axes))


def expand(builder: Builder, step: Step, a: Arguments) -> None:
    """Repeat along axes of size 1."""
    x, shape = a["self"], step.results[0].shape
    if shape.count(BATCH) > x.shape.count(BATCH):
        raise UnsupportedError("a tensor is repeated for each image")
    ones = [1 if size == BATCH else size for size in shape]
    builder.set(step.results[0], builder.add("Expand", x, builder.constant(np.array(ones, np.int64))))


def select(builder: Builder, step: Step, a: Arguments) -> None:
    """One index of an axis."""
    index = builder.constant(np.array(a["index"], np.int64))
    builder.set(step.results[0], builder.add("Gather", a["self"], index, axis=int(a["dim"])))


def unbind(builder: Builder, step: Step, a: Arguments) -> None:
    """Each index of an axis."""
    for i, result in enumerate(step.results):
        index = builder.constant(np.array(i, np.int64))
        builder.set(result, builder.add("Gather", a["self"], index, axis=int(a["dim"])))


def part(builder: Builder, step: Step, a: Arguments) -> None:
    """A slice of one axis."""
    start, end, stride = a["start"] or 0, _MAX if a["end"] is None else a["end"], a["step"]
    numbers = [builder.constant(np.array([n], np.int64)) for n in (start, end, a["dim"], stride)]
    builder.set(step.results[0], builder.add("Slice", a["self"], *numbers))


def split(builder: Builder, step: Step, a: Arguments) -> None:
    """Parts of an axis, one after the other."""
    axis, start = int(a["dim"]), 0
    if a["self"].shape[axis] == BATCH:
        raise UnsupportedError("the images of a batch are split")
    for result in step.results:
        end = start + result.shape[axis]
        numbers = [builder.constant(np.array([n], np.int64)) for n in (start, end, axis)]
        builder.set(result, builder.add("Slice", a["self"], *numbers))
        start = end


def pad(builder: Builder, step: Step, a: Arguments) -> None:
    """Add constant values around a tensor; torch lists the last axis first."""
    if a.get("mode", "constant") != "constant":
        raise UnsupportedError(f"padding with mode {a['mode']}")
    amounts = [int(n) for n in a["pad"]]
    rank = len(a["self"].shape)
    amounts += [0] * (2 * rank - len(amounts))
    pads = builder.constant(np.array([*amounts[-2::-2], *amounts[::-2]], np.int64))
    builder.set(step.results[0], builder.add("Pad", a["self"], pads, float(a.get("value") or 0)))


def stack(builder: Builder, step: Step, a: Arguments) -> None:
    """Join tensors along a new axis."""
    axis = int(a["dim"]) % len(step.results[0].shape)
    place = builder.constant(np.array([axis], np.int64))
    names = [builder.add("Unsqueeze", tensor, place) for tensor in a["tensors"]]
    builder.set(step.results[0], builder.add("Concat", *names, axis=axis))


def repeat(builder: Builder, step: Step, a: Arguments) -> None:
    """Copies along each axis; axes that are new come first."""
    x, times = a["self"], [int(n) for n in a["repeats"]]
    name = builder.name(x)
    if len(times) > len(x.shape):
        name = builder.reshape(name, (*[1] * (len(times) - len(x.shape)), *x.shape))
    builder.set(step.results[0], builder.add("Tile", name, builder.constant(np.array(times, np.int64))))


def flip(builder: Builder, step: Step, a: Arguments) -> None:
    """Reverse axes."""
    axes = [int(axis) for axis in a["dims"]]
    numbers = ([-1] * len(axes), [-_MAX] * len(axes), axes, [-1] * len(axes))
    inputs = [builder.constant(np.array(values, np.int64)) for values in numbers]
    builder.set(step.results[0], builder.add("Slice", a["self"], *inputs))


def roll(builder: Builder, step: Step, a: Arguments) -> None:
    """Shift along axes; what leaves at one end comes back at the other."""
    x = a["self"]
    name = builder.name(x)
    if not a["dims"]:
        raise UnsupportedError("a roll of all axes at once")
    for shift, axis in zip(a["shifts"], a["dims"], strict=True):
        size = x.shape[axis]
        if size == BATCH:
            raise UnsupportedError("the images of a batch are shifted")
        cut = -int(shift) % size
        if cut:
            ends = [_slice(builder, name, first, last, axis) for first, last in ((cut, size), (0, cut))]
            name = builder.add("Concat", *ends, axis=int(axis))
    builder.set(step.results[0], name)


def _slice(builder: Builder, name: str, start: int, end: int, axis: int) -> str:
    numbers = [builder.constant(np.array([n], np.int64)) for n in (start, end, axis)]
    return builder.add("Slice", name, *numbers)


def index_select(builder: Builder, step: Step, a: Arguments) -> None:
    """Constant indices of one axis."""
    builder.set(step.results[0], _gather(builder, a["self"], a["index"], int(a["dim"])))


def index(builder: Builder, step: Step, a: Arguments) -> None:
    """Constant indices of one axis, in brackets."""
    axes = [i for i, item in enumerate(a["indices"]) if item is not None]
    if len(axes) != 1:
        raise UnsupportedError("indices of several axes")
    builder.set(step.results[0], _gather(builder, a["self"], a["indices"][axes[0]], axes[0]))


def _gather(builder: Builder, x: Any, indices: Any, axis: int) -> str:
    if not isinstance(indices, Tensor) or indices.dtype == torch.bool:
        raise UnsupportedError("indices that depend on the images, or a mask as an index")
    return builder.add("Gather", x, builder.constant(indices.long().numpy()), axis=axis)
