"""predictions.csv and predictions.parquet: what a model says about each image or text."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.charts import Answers, Array, LabelPredictions, Predictions
from striate.csv_file import csv_line, write_csv
from striate.errors import UsageError
from striate.files import write_atomic

COLUMNS = ("path", "truth", "prediction", "correct", "loss")  # then p_CLASS for each class
ANSWER_COLUMNS = ("source", "truth", "prediction", "correct", "cer")
_ROWS = 1024  # that are written at once


def write_predictions(
    folder: Path,
    predictions: Predictions,
    *,
    parquet: bool = False,
    more: Mapping[str, Sequence[int]] | None = None,
) -> list[Path]:
    """Write `predictions.csv`: path, true and predicted class, loss, and the probability of each class.

    The prediction is empty where the scores are not finite. Probabilities are rounded to six decimals, which
    keeps the file small with many classes; the loss is the cross-entropy in nats before that.

    Args:
        folder: created if it does not exist.
        predictions: of any number of images.
        parquet: whether to write `predictions.parquet`, too, with all digits; needs pyarrow.
        more: further columns of whole numbers, before the probabilities.

    Returns:
        The paths of the files.

    Raises:
        DataError: the folder cannot be written to.
        UsageError: pyarrow is not installed.
    """
    files = [folder / "predictions.csv"]
    write_atomic(files[0], _csv(predictions, more or {}))
    if parquet:
        files.append(folder / "predictions.parquet")
        write_atomic(files[1], _parquet(predictions, more or {}))
    return files


def write_label_predictions(
    folder: Path, predictions: LabelPredictions, *, parquet: bool = False
) -> list[Path]:
    """Write `predictions.csv` of images with several classes: path, truth, prediction, probabilities.

    The classes of an image are separated by `;`. Arguments, files and errors as for `write_predictions`.
    """
    p = predictions
    truth, guess = (
        [";".join(p.classes[k] for k in np.flatnonzero(row)) for row in part]
        for part in (p.labels, p.predicted)
    )
    finite = np.isfinite(p.probabilities).all(axis=1)
    correct = ((p.labels == p.predicted).all(axis=1) & finite).astype(int).tolist()
    names = ["path", "truth", "prediction", "correct", *(f"p_{name}" for name in p.classes)]
    files = [folder / "predictions.csv"]
    chances = np.round(p.probabilities, 6).tolist()
    rows = [
        (*row, *(f"{chance:g}" for chance in own))
        for *row, own in zip(p.paths, truth, guess, correct, chances, strict=True)
    ]
    write_csv(files[0], rows, names)
    if parquet:
        files.append(folder / "predictions.parquet")
        columns = [*map(_unicode, (p.paths, truth, guess)), correct, *np.ascontiguousarray(p.probabilities.T)]
        write_atomic(files[1], _parquet_bytes(columns, names))
    return files


def write_answers(folder: Path, answers: Answers, *, parquet: bool = False) -> list[Path]:
    """Write `predictions.csv` of a model of sequences: source, reference, answer, and its error rate.

    Several references of a source are separated by ` | `.

    Args:
        folder: created if it does not exist.
        answers: of any number of sources.
        parquet: whether to write `predictions.parquet`, too; needs pyarrow.

    Returns:
        The paths of the files.

    Raises:
        DataError: the folder cannot be written to.
        UsageError: pyarrow is not installed.
    """
    truths = [" | ".join(texts) for texts in answers.references]
    correct = (answers.rates == 0).astype(int).tolist()
    texts: list[Sequence[str]] = [answers.sources, truths, answers.answers]
    files = [folder / "predictions.csv"]
    rows = list(zip(*texts, correct, answers.rates.tolist(), strict=True))
    write_csv(files[0], rows, ANSWER_COLUMNS)
    if parquet:
        files.append(folder / "predictions.parquet")
        columns = [*map(_unicode, texts), correct, answers.rates]
        write_atomic(files[1], _parquet_bytes(columns, list(ANSWER_COLUMNS)))
    return files


def require_parquet() -> None:
    """Refuse `--parquet` before anything is computed; raises UsageError if pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError("--parquet", "it needs pyarrow, which is not installed", "Run: pip install pyarrow")


def losses(predictions: Predictions) -> Array:
    """Cross-entropy of each image in nats; infinite where the true class has probability 0."""
    own = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    with np.errstate(divide="ignore"):
        found: Array = -np.log(own) + 0.0  # not -0
    return found


def _columns(predictions: Predictions, more: Mapping[str, Sequence[int]]) -> list[str]:
    return [*COLUMNS, *more, *(f"p_{name}" for name in predictions.classes)]


def _csv(p: Predictions, more: Mapping[str, Sequence[int]]) -> Iterator[bytes]:
    yield _encoded(csv_line(_columns(p, more)))
    numbers = ",%g" * len(p.classes)  # numbers need no quotes, and formatting all of them at once is fast
    every = losses(p).tolist()
    for start in range(0, len(p.labels), _ROWS):
        chances = np.round(p.probabilities[start : start + _ROWS], 6).tolist()
        lines = []
        for i, row in enumerate(chances, start):
            truth, guess = int(p.labels[i]), int(p.predicted[i])
            named = (p.paths[i], p.classes[truth], p.classes[guess] if guess >= 0 else "")
            others = (values[i] for values in more.values())
            cells = (*named, int(truth == guess), f"{every[i]:.6g}", *others)
            lines.append(csv_line(cells) + numbers % tuple(row))
        yield _encoded("\n".join(lines))


def _encoded(lines: str) -> bytes:
    return f"{lines}\n".encode("utf-8", "surrogateescape")


def _parquet(p: Predictions, more: Mapping[str, Sequence[int]]) -> bytes:
    names = np.array([*p.classes, None], object)
    columns: list[Any] = [
        _unicode(p.paths), names[p.labels].tolist(), names[p.predicted].tolist(),
        (p.labels == p.predicted).tolist(), losses(p), *more.values(),
        *np.ascontiguousarray(p.probabilities.T),
    ]  # fmt: skip
    return _parquet_bytes(columns, _columns(p, more))


def _parquet_bytes(columns: list[Any], names: list[str]) -> bytes:
    require_parquet()
    import pyarrow
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, names=names), out)
    return out.getvalue()


def _unicode(texts: Iterable[str]) -> list[str]:
    """Texts without the bytes of file names that are not UTF-8, which Parquet cannot hold."""
    return [text.encode("utf-8", "backslashreplace").decode() for text in texts]
