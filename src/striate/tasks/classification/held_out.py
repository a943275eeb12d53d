"""The end of a training run: calibrate the best bundle, and evaluate it on the images that are held out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from striate.inference.calibration import calibration_of, logarithms
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
    config = task.config
    classifier = load(folder, config.device, network=config.network, trust=config.trust)
    if "test" not in task.dataset.splits:
        found = _evaluated(task, classifier.uncalibrated(), "val")
        return found.calibrated(calibration_of(logarithms(found.probabilities), found.labels, "val"))
    task.context.progress.begin("calibrating", len(task.val))
    scores, which = classifier.scores(
        task.val, batch=config.batch, workers=task.context.distributed.workers(config.workers),
        progress=task.context.progress,
    )  # fmt: skip
    task.context.progress.end()
    calibration = calibration_of(scores, task.val.labels[which], "val")
    description = dataclasses.replace(classifier.description, calibration=calibration)
    return _evaluated(task, dataclasses.replace(classifier, description=description), "test")


def _evaluated(task: Classification, classifier: Classifier, split: str) -> Evaluation:
    config = task.config
    return evaluate(
        classifier, dataclasses.replace(task.dataset, source=config.source), split=split,
        batch=config.batch, workers=config.workers, cache=config.cache, progress=task.context.progress,
    )  # fmt: skip
