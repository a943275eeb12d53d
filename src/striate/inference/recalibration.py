"""Calibrate an existing bundle."""

from __future__ import annotations

import os
from typing import Any

from striate.bundle import Calibration, add_metrics
from striate.data import DataSet, DecodedImages
from striate.data.images.samples import UNSPLIT
from striate.device import cpu_count
from striate.errors import DataError, UsageError, translated_errors
from striate.inference.calibration import calibration_of, logarithms, reference_size, unknown_inputs_of
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import Evaluation, evaluate
from striate.inference.evaluation_data import find_data
from striate.progress import AUTO, Progress


@translated_errors()
def calibrate(
    model: str | os.PathLike[str],
    data: Any = None,
    *,
    split: str = "auto",
    batch: int = 64,
    device: str = "auto",
    workers: int | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    network: Any = None,
    trust: str = "",
    progress: Progress = AUTO,
) -> Calibration:
    """Calibrate a classifier's bundle on labelled images that it was not trained on; stores the result in it.

    If the data have a train split, too, features of it go into the bundle, which tell unknown inputs.

    Args:
        model: a bundle, or a run folder, whose `best.safetensors` is changed.
        data: as for `striate.data.open_data`; None for the data of the bundle's run.
        split: which of their splits; `auto` is val if there is one, else all of data without splits.
        batch: batch size.
        device: where to run.
        workers: threads that decode images; None for one per CPU core.
        path_column: column of the image paths, if the data are a table.
        label_column: column of the class names, if the data are a table.
        network: as for `striate.load`.
        trust: as for `striate.load`.
        progress: receives updates.

    Raises:
        DataError: there is nothing to calibrate on, or the bundle cannot be written.
        UsageError: no such split or device.
    """
    classifier = load(model, device, network=network, trust=trust).uncalibrated()
    found, _ = find_data(classifier, data, path_column, label_column)
    if split == "auto":
        split = "val" if "val" in found.splits else UNSPLIT
        if split not in found.splits:
            fix = "Choose one with --split, but none that the model was trained on"
            raise UsageError(f"no val split in {found.source!r}", f"it has {', '.join(found.splits)}", fix)
    evaluation = evaluate(classifier, found, split=split, batch=batch, workers=workers, progress=progress)
    source = split if data is None else f"{evaluation.what} of {evaluation.data}"
    if not isinstance(evaluation, Evaluation):
        why = "its images have several classes, each with a threshold instead"
        raise UsageError(f"cannot calibrate {os.fspath(model)!r}", why, "Train again for other thresholds")
    calibration = calibration_of(logarithms(evaluation.probabilities), evaluation.labels, source)
    if calibration is None:
        raise DataError(f"cannot calibrate {os.fspath(model)!r}", "none of its scores is finite")
    options: dict[str, Any] = {"batch": batch, "workers": workers or cpu_count(), "progress": progress}
    add_metrics(classifier.path, {}, calibration, _unknown(classifier, found, split, options))
    return calibration


def _unknown(classifier: Classifier, found: DataSet, split: str, options: dict[str, Any]) -> str:
    """Features of the train split, if the data have one besides that of the calibration."""
    if "train" not in found.splits or split in ("train", UNSPLIT):
        return ""
    dataset, _ = found.with_classes(classifier.classes)
    progress = options["progress"]
    parts = (dataset.splits["train"], dataset.splits[split])
    train, held_out = (
        DecodedImages(part, classifier.preprocess, root=dataset.root, progress=progress) for part in parts
    )
    progress.begin("features", len(held_out) + reference_size(classifier.preprocess, len(train)))
    _, features, _ = classifier.scores_and_features(held_out, **options)
    unknown = unknown_inputs_of(classifier, train, features, **options)
    progress.end()
    return unknown
