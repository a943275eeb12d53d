"""Export an image classifier to ONNX: from uint8 pixels to scores, in one file without Striate's code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from striate import strict_json
from striate.errors import WriteError
from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.features import add_features, last_input
from striate.exporters.onnx.file import Graph, Signature, encode, encode_metadata
from striate.exporters.onnx.maps import add_maps, linear_head
from striate.exporters.onnx.operators import OPERATORS, translate
from striate.exporters.onnx.recorder import BATCH, IMAGES, record
from striate.exporters.records import Exported, Request, Scores
from striate.exporters.verification import REPORT
from striate.inference.classifier import Classifier
from striate.inference.onnx_classifier import SCORES, one_line, open_session
from striate.transforms.decode import Uint8Array
from striate.transforms.preprocess import Preprocess
from striate.version import __version__

_FLOAT = 1  # TensorProto.DataType
PIXELS = "images"  # the input
COMPARISON = "comparison"  # the key of the comparison with the original in the file's metadata


def export(classifier: Classifier, path: Path, request: Request, *, floats: bool = False) -> Exported:
    """Write a classifier; arguments as `striate.exporters.Format.target`.

    Args:
        classifier: on the CPU.
        path: the file to write.
        request: not used.
        floats: whether the input is float32 `[batch, channels, height, width]`, as `Preprocess.normalize`
            returns it, instead of uint8 `[batch, height, width, channels]`, as `Preprocess.read` does.

    Raises:
        UnsupportedError: there is no rule for an operator of the network.
        WriteError: the file cannot be written, or ONNX Runtime cannot read it.
    """
    write(
        path,
        graph(classifier.network, classifier.preprocess, floats=floats, last=_last(classifier)),
        classifier,
    )
    return opened(path, classifier.preprocess if floats else None)


export_float = partial(export, floats=True)


def write(path: Path, made: Graph, classifier: Classifier) -> None:
    """Write a graph with the class names and the description of a classifier; raises WriteError.

    The path is a temporary one, so an interrupted write leaves no file.
    """
    metadata = {
        "classes": strict_json.dumps(list(classifier.classes)),
        **classifier.description.metadata(),
    }
    try:
        with path.open("wb") as file:
            file.writelines(encode(made, ("striate", __version__), metadata))
    except OverflowError as error:
        raise WriteError(f"cannot write {str(path)!r}", str(error), "Export to another format") from error


def opened(path: Path, normalize: Preprocess | None = None, **more: Any) -> Exported:
    """Open a file that was written, for the comparison.

    Args:
        path: of the file, from pixels to scores.
        normalize: how pixels become its input, if that is not pixels.
        more: further fields of the result.

    Raises:
        WriteError: ONNX Runtime cannot read it.
    """

    def store(comparison: str) -> None:
        with path.open("ab") as file:
            file.writelines(encode_metadata({COMPARISON: comparison}))

    try:
        session = open_session(path)
    except ImportError:
        return Exported(store=store, missing="`pip install onnxruntime` makes that possible", **more)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        why = f"ONNX Runtime cannot read it ({one_line(error)})"
        raise WriteError(f"cannot write {path.name!r}", why, REPORT) from error

    def scores(images: Uint8Array) -> Scores:
        given = images if normalize is None else normalize.normalize(torch.from_numpy(images)).numpy()
        found: Scores = session.run([SCORES], {"images": given})[0]
        return found

    return Exported(scores=scores, store=store, **more)


def _last(classifier: Classifier) -> nn.Module | None:
    """The last layer, if the classifier marks images unlike the training images, which needs its input."""
    if not (classifier.description.unknown and classifier.last_layer):
        return None
    return classifier.network.get_submodule(classifier.last_layer)


def graph(
    network: nn.Module,
    preprocess: Preprocess,
    *,
    floats: bool = False,
    maps: bool = True,
    last: nn.Module | None = None,
) -> Graph:
    """The graph of a network in evaluation mode on the CPU; arguments and errors as for `export`.

    From pixels it also has the output `maps`, if the network ends in a linear head (see `maps.py`), unless
    `maps` is False; and the output `features`, the input of the layer `last`, if one is given.
    """
    size, channels = preprocess.size, preprocess.channels
    steps, result = record(network, (channels, *size), OPERATORS)
    builder = Builder(steps, dict([*network.named_parameters(), *network.named_buffers()]))
    images = Signature(PIXELS, "uint8", ("batch", *size, channels))
    if floats:
        images = Signature(PIXELS, "float32", ("batch", channels, *size))
        builder.set(IMAGES, PIXELS)
    else:
        normalize(builder, preprocess, size[1])
    for step in steps:
        translate(builder, step)
    builder.finish(result, SCORES)
    shape = tuple("batch" if size == BATCH else size for size in result.shape)
    outputs = [Signature(SCORES, "float32", shape)]
    if maps and not floats and (head := linear_head(steps, result)) is not None:
        outputs.append(add_maps(builder, head))
    if last is not None and not floats and (value := last_input(steps, last)) is not None:
        outputs.append(add_features(builder, value))
    return Graph("network", builder.nodes, builder.constants, (images,), tuple(outputs))


def normalize(builder: Builder, preprocess: Preprocess, width: int | None = None) -> None:
    """What `Preprocess.normalize` does, in one multiplication and one addition.

    Args:
        builder: whose `IMAGES` become the result.
        preprocess: of the images.
        width: of all images; None if it varies. If it is known, the factors are repeated for each pixel of a
            row: ONNX Runtime may move the transposition behind the products, and is slow with few factors.
    """
    mean, std = (np.array(values, np.float64) for values in (preprocess.mean, preprocess.std))
    factors = [part.astype(np.float32) for part in (1 / (255 * std), -mean / std)]
    x, height, channels = builder.add("Cast", PIXELS, to=_FLOAT), preprocess.size[0], preprocess.channels
    if width is not None:
        factors = [np.tile(part, width) for part in factors]
        x = builder.reshape(x, (BATCH, height, width * channels))
    scale, shift = map(builder.constant, factors)
    x = builder.add("Add", builder.add("Mul", x, scale), shift)
    if width is not None:
        x = builder.reshape(x, (BATCH, height, width, channels))
    builder.set(IMAGES, builder.add("Transpose", x, perm=[0, 3, 1, 2]))
