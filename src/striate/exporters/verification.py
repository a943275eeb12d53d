"""Compare an exported image classifier with the original: one way for every format."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from striate.errors import StriateError, WriteError
from striate.exporters.inputs import Inputs
from striate.exporters.records import Exported, Parity, Scores
from striate.inference.classifier import Classifier
from striate.kernels.folding import fold
from striate.transforms.decode import Uint8Array

TOLERANCE = 1e-4  # of the largest score; rounding alone causes about 1e-6
BATCH = 16  # images at once; a last, smaller batch shows that the export takes any number
ALONE = 8  # images that are also run one by one, which gives the latency
REPORT = "Please report this network; torch.onnx.export may be able to write it"


@torch.inference_mode()
def compare_images(classifier: Classifier, exported: Exported, inputs: Inputs, out: Path) -> Parity:
    """Compare the scores of a classifier and of its export, in batches and each image alone.

    Args:
        classifier: the original, on the CPU; it runs as `predict` does.
        exported: with `scores`.
        inputs: the images.
        out: what the user called the export, for errors.

    Raises:
        WriteError: the export cannot run, its scores differ or are not finite, or it loses more than
            `max_loss`.
    """
    assert exported.scores is not None
    what = f"cannot write {str(out)!r}"
    network, preprocess = copy.deepcopy(classifier.network), classifier.preprocess
    network = fold(network, (preprocess.channels, *preprocess.size))

    def original(images: Uint8Array) -> Scores:
        scores: Scores = network(preprocess.normalize(torch.from_numpy(images))).float().numpy()
        return scores

    expected = in_batches(original, inputs.images)
    if not np.isfinite(expected).all():
        raise WriteError(what, "the original has scores that are NaN or infinite", "Train it again")
    alone = inputs.images[:ALONE]
    with _run_errors(what):
        together = in_batches(exported.scores, inputs.images)
        one_by_one = np.concatenate([exported.scores(image[None]) for image in alone])
    if together.shape != expected.shape or one_by_one.shape != expected[:ALONE].shape:
        raise WriteError(what, f"its scores have the shape {together.shape}, not {expected.shape}", REPORT)
    largest = float(np.abs(expected).max()) or 1.0  # all are 0 in a ViT that was not trained
    both = (np.abs(together - expected).max(), np.abs(one_by_one - expected[:ALONE]).max())
    difference = float(np.max(both)) / largest
    equal = together.argmax(1) == expected.argmax(1)
    equal[:ALONE] &= one_by_one.argmax(1) == expected[:ALONE].argmax(1)
    parity = Parity(
        len(equal), int(equal.sum()), difference, "most probable classes", "of the largest score",
        inputs.source, _accuracy(inputs, expected, together),
        latencies(original, exported.scores, alone), exported.notes,
    )  # fmt: skip
    _require(parity, exported.max_loss, what)
    return parity


def _require(parity: Parity, max_loss: float | None, what: str) -> None:
    """Refuse an export that differs too much from the original; raises WriteError."""
    if max_loss is None:
        if not parity.max_difference <= TOLERANCE:
            why = f"its scores differ by {parity.max_difference:.1e} of the largest one"
            raise WriteError(what, why, REPORT)
        return
    if not np.isfinite(parity.max_difference):
        raise WriteError(what, "its scores are NaN or infinite", "Use --to onnx")
    if parity.accuracy is not None:
        lost, kind = 100 * (parity.accuracy[0] - parity.accuracy[1]), "of accuracy"
    else:
        lost, kind = 100 * (1 - parity.equal / parity.n), "of its answers"
    if lost > max_loss:
        figures = f". {' '.join(parity.notes)}".rstrip(". ")
        why = f"it loses {lost:.1f} points {kind} on {parity.inputs}, more than {max_loss:g}{figures}"
        raise WriteError(what, why, "Use --to onnx, or allow more with --max-loss")


def in_batches(run: Callable[[Uint8Array], Scores], images: Uint8Array) -> Scores:
    """The scores of images, from batches of `BATCH`."""
    return np.concatenate([run(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])


def _accuracy(inputs: Inputs, expected: Scores, scores: Scores) -> tuple[float, float] | None:
    if inputs.labels is None:
        return None
    original, exported = (float((part.argmax(1) == inputs.labels).mean()) for part in (expected, scores))
    return original, exported


def latencies(
    one: Callable[[Uint8Array], Scores], other: Callable[[Uint8Array], Scores], images: Uint8Array
) -> tuple[float, float]:
    """Median milliseconds for one image, of two models that have already run, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for image in images:
        for run, found in zip((one, other), times, strict=True):
            started = time.perf_counter()
            run(image[None])
            found.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[0]), statistics.median(times[1])


@contextlib.contextmanager
def _run_errors(what: str) -> Iterator[None]:
    """A context in which exceptions of the tool that runs an export become WriteErrors."""
    try:
        yield
    except StriateError:
        raise
    except Exception as error:  # each tool has its own exceptions
        message = " ".join(str(error).split())[:200]
        raise WriteError(what, f"it cannot be run ({message})", REPORT) from error
