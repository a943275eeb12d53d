"""Calibrate an existing bundle."""

from __future__ import annotations

import os
from typing import Any

from striate.bundle import Calibration, add_metrics
from striate.data import DataSet, DecodedImages
from striate.data.images.samples import UNSPLIT
from striate.device import cpu_count
from striate.errors import DataError, UsageError, translated_errors
from striate.inference.calibration import calibration_of, reference_size, unknown_inputs_of
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import no_readable_image, open_split
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
    if classifier.description.is_multi_label:
        why = "its images have several classes, each with a threshold instead"
        raise UsageError(f"cannot calibrate {os.fspath(model)!r}", why, "Train again for other thresholds")
    found, _ = find_data(classifier, data, path_column, label_column)
    split = _val_or_all(found) if split == "auto" else split
    dataset, _, name, _ = open_split(classifier, found, (None, None), split)
    what = "images" if name == UNSPLIT else f"{name} images"
    options: dict[str, Any] = {"batch": batch, "workers": workers or cpu_count(), "progress": progress}
    images = _decoded(dataset, name, classifier, progress)
    train = _train_images(classifier, found, name, progress)
    progress.begin("calibrating", len(images) + reference_size(classifier.preprocess, len(train or ())))
    scores, features, which = classifier.scores_and_features(images, **options)
    if not len(which):
        raise no_readable_image(dataset.source, images.problems)
    source = split if data is None else f"{what} of {dataset.source}"
    calibration = calibration_of(scores, images.labels[which], source)
    if calibration is None:
        raise DataError(f"cannot calibrate {os.fspath(model)!r}", "none of its scores is finite")
    unknown = "" if train is None else unknown_inputs_of(classifier, train, features, **options)
    progress.end()
    add_metrics(classifier.path, {}, calibration, unknown)
    return calibration


def _val_or_all(found: DataSet) -> str:
    if "val" in found.splits or UNSPLIT in found.splits:
        return "val" if "val" in found.splits else UNSPLIT
    fix = "Choose one with --split, but none that the model was trained on"
    raise UsageError(f"no val split in {found.source!r}", f"it has {', '.join(found.splits)}", fix)


def _train_images(
    classifier: Classifier, found: DataSet, split: str, progress: Progress
) -> DecodedImages | None:
    """The train split, if the data have one besides that of the calibration."""
    if "train" not in found.splits or split in ("train", UNSPLIT):
        return None
    return _decoded(found.with_classes(classifier.classes)[0], "train", classifier, progress)


def _decoded(dataset: DataSet, split: str, classifier: Classifier, progress: Progress) -> DecodedImages:
    return DecodedImages(dataset.splits[split], classifier.preprocess, root=dataset.root, progress=progress)
