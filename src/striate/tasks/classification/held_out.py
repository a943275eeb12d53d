"""The end of a training run: calibrate the best bundle, and evaluate it on the images that are held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.data import DecodedImages, Images
from striate.inference.calibration import calibration_of, logarithms, reference_size, unknown_inputs_of
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import Evaluation, evaluate

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification


def evaluate_held_out(task: Classification, folder: Path) -> Evaluation:
    """Evaluate the best bundle on test, or on val if there is no test; its calibration comes from val.

    Args:
        task: of the run.
        folder: of the run.
    """
    config, progress = task.config, task.context.progress
    classifier = load(folder, config.device, network=config.network, trust=config.trust)
    options: dict[str, Any] = {
        "batch": config.batch, "workers": task.context.distributed.workers(config.workers),
        "progress": progress,
    }  # fmt: skip
    progress.begin("calibrating", len(task.val))
    unknown = unknown_inputs_of(classifier, _training_images(task, classifier), task.val, **options)
    progress.end()
    if "test" not in task.dataset.splits:
        found = _evaluated(task, classifier.uncalibrated(), "val")
        found = found.calibrated(calibration_of(logarithms(found.probabilities), found.labels, "val"))
        return dataclasses.replace(found, unknown=unknown)
    scores, which = classifier.scores(task.val, **options)
    calibration = calibration_of(scores, task.val.labels[which], "val")
    description = dataclasses.replace(classifier.description, calibration=calibration)
    found = _evaluated(task, dataclasses.replace(classifier, description=description), "test")
    return dataclasses.replace(found, unknown=unknown)


def images_to_calibrate(task: Classification) -> int:
    """How many images are read after training besides those that are evaluated."""
    return len(task.val) + min(len(task.train), reference_size(task.preprocess))


def _training_images(task: Classification, classifier: Classifier) -> Images:
    """The training images at the network's input size; those of the run may be larger, for random crops."""
    preprocess = classifier.preprocess
    if task.train.shape == (*preprocess.size, preprocess.channels):
        return task.train
    dataset, config = task.dataset, task.config
    return DecodedImages(dataset.splits["train"], preprocess, cache=config.cache, root=dataset.root)


def _evaluated(task: Classification, classifier: Classifier, split: str) -> Evaluation:
    config = task.config
    return evaluate(
        classifier, dataclasses.replace(task.dataset, source=config.source), split=split,
        batch=config.batch, workers=config.workers, cache=config.cache, progress=task.context.progress,
    )  # fmt: skip
