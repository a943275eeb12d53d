"""Export an image classifier to ONNX: from uint8 pixels to scores, in one file without Striate's code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from striate import strict_json
from striate.errors import StriateWarning, WriteError
from striate.exporters import Parity
from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.file import Graph, Signature, encode
from striate.exporters.onnx.operators import translate
from striate.exporters.onnx.recorder import BATCH, IMAGES, record
from striate.files import probe, write_atomic
from striate.inference.classifier import Classifier
from striate.inference.onnx_classifier import DESCRIPTION, one_line, open_session
from striate.transforms.preprocess import Preprocess
from striate.version import __version__

TOLERANCE = 1e-4  # of the largest score; rounding alone causes about 1e-6
SAMPLES = 32  # random images for the comparison, if none are given
_FLOAT = 1  # TensorProto.DataType
_REPORT = "Please report this network; torch.onnx.export may be able to write it"


def export(classifier: Classifier, out: Path, samples: Sequence[str] = (), *, floats: bool = False) -> Parity:
    """Write a classifier, run the file next to the original, and compare their scores.

    Args:
        classifier: on the CPU.
        out: the file to write; it must not exist.
        samples: image files for the comparison; random images if empty.
        floats: whether the input is float32 `[batch, channels, height, width]`, as `Preprocess.normalize`
            returns it, instead of uint8 `[batch, height, width, channels]`, as `Preprocess.read` does.

    Returns:
        The comparison; of no images if onnxruntime is not installed.

    Raises:
        UnsupportedError: there is no rule for an operator of the network.
        WriteError: `out` exists or cannot be written, or as `compare`.
    """
    what = f"cannot write {str(out)!r}"
    if probe(out) is not None:
        raise WriteError(what, "it exists", "Remove it or choose another path")
    network, preprocess = classifier.network, classifier.preprocess
    metadata = {
        "classes": strict_json.dumps(list(classifier.classes)),
        DESCRIPTION: strict_json.dumps(classifier.description.to_json()),
    }
    made = graph(network, preprocess, floats=floats)
    try:
        write_atomic(out, encode(made, ("striate", __version__), metadata))
    except OverflowError as error:
        raise WriteError(what, str(error), "Export to another format") from error
    try:
        return compare(classifier, out, samples, floats=floats)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


export_float = partial(export, floats=True)


def graph(network: nn.Module, preprocess: Preprocess, *, floats: bool = False) -> Graph:
    """The graph of a network in evaluation mode on the CPU; arguments and errors as for `export`."""
    size, channels = preprocess.size, preprocess.channels
    steps, result = record(network, (channels, *size))
    builder = Builder(steps, dict([*network.named_parameters(), *network.named_buffers()]))
    images = Signature("images", "uint8", ("batch", *size, channels))
    if floats:
        images = Signature("images", "float32", ("batch", channels, *size))
        builder.set(IMAGES, "images")
    else:
        _normalize(builder, preprocess)
    for step in steps:
        translate(builder, step)
    builder.finish(result, "scores")
    shape = tuple("batch" if size == BATCH else size for size in result.shape)
    scores = Signature("scores", "float32", shape)
    return Graph("network", builder.nodes, builder.constants, (images,), (scores,))


def _normalize(builder: Builder, preprocess: Preprocess) -> None:
    """What `Preprocess.normalize` does, in one multiplication and one addition."""
    mean, std = (np.array(values, np.float64)[:, None, None] for values in (preprocess.mean, preprocess.std))
    scale, shift = (builder.constant(part.astype(np.float32)) for part in (1 / (255 * std), -mean / std))
    pixels = builder.add("Transpose", builder.add("Cast", "images", to=_FLOAT), perm=[0, 3, 1, 2])
    builder.set(IMAGES, builder.add("Add", builder.add("Mul", pixels, scale), shift))


@torch.inference_mode()
def compare(
    classifier: Classifier, file: Path, samples: Sequence[str] = (), *, floats: bool = False
) -> Parity:
    """Compare the scores of a classifier and of an exported file, each image alone and all at once.

    Args:
        classifier: the original.
        file: what `export` wrote.
        samples: as for `export`.
        floats: as for `export`.

    Raises:
        WriteError: ONNX Runtime cannot run the file, or the scores differ or are not finite.
    """
    outputs, unit = "most probable classes", "of the largest score"
    what = f"cannot write {str(file)!r}"
    try:
        session = open_session(file)
    except ImportError:
        message = (
            f"{str(file)!r} was not compared with the original: `pip install onnxruntime` makes that possible"
        )
        warnings.warn(message, StriateWarning, stacklevel=2)
        return Parity(0, 0, 0.0, outputs, unit)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise WriteError(what, f"ONNX Runtime cannot read it ({one_line(error)})", _REPORT) from error
    preprocess = classifier.preprocess
    pixels = [preprocess.read(sample) for sample in samples] or _random_images(preprocess)
    batch = np.stack(pixels)
    images = preprocess.normalize(torch.from_numpy(batch))
    expected = classifier.network(images).numpy()
    if not np.isfinite(expected).all():
        raise WriteError(what, "the original has scores that are NaN or infinite", "Train it again")
    inputs: npt.NDArray[Any] = images.numpy() if floats else batch
    try:
        together = session.run(None, {"images": inputs})[0]
        alone = np.concatenate([session.run(None, {"images": one[None]})[0] for one in inputs])
    except Exception as error:  # as above
        raise WriteError(what, f"ONNX Runtime cannot run it ({one_line(error)})", _REPORT) from error
    if not together.shape == alone.shape == expected.shape:
        raise WriteError(what, f"its scores have the shape {together.shape}, not {expected.shape}", _REPORT)
    largest = float(np.abs(expected).max()) or 1.0  # all are 0 in a ViT that was not trained
    difference = float(np.abs([together - expected, alone - expected]).max()) / largest
    if not difference <= TOLERANCE:
        raise WriteError(what, f"its scores differ by {difference:.1e} of the largest one", _REPORT)
    equal = (together.argmax(1) == expected.argmax(1)) & (alone.argmax(1) == expected.argmax(1))
    return Parity(len(batch), int(equal.sum()), difference, outputs, unit)


def _random_images(preprocess: Preprocess) -> list[npt.NDArray[np.uint8]]:
    """Noise of several scales, so that it has the contrasts of photographs."""
    random = np.random.default_rng(0)
    sides = [1 << (i % 6 + 1) for i in range(SAMPLES)]
    noise = [random.integers(0, 256, (side, side, preprocess.channels), np.uint8) for side in sides]
    return [preprocess.fit(image) for image in noise]
