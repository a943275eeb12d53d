"""The end of a training run: calibrate the best bundle, and evaluate it on the images that are held out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from striate import bundle
from striate.data import DecodedImages, Images
from striate.inference.calibration import calibration_of, reference_size, unknown_inputs_of
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import Evaluation, evaluate
from striate.inference.multi_label_evaluation import MultiLabelEvaluation
from striate.metrics.multi_label import best_thresholds

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification
    from striate.training.run_folder import TrainingRun


def evaluate_held_out(task: Classification, run: TrainingRun) -> Evaluation | MultiLabelEvaluation:
    """Evaluate the best bundle on test, or on val if there is no test; its calibration comes from val.

    If images have several classes, the threshold of each comes from val instead, and is written into the
    bundle.

    Args:
        task: of the run.
        run: a finished run.
    """
    config, progress = task.config, task.context.progress
    classifier = load(run.folder, config.device, network=config.network, trust=config.trust)
    options: dict[str, Any] = {
        "batch": config.batch, "workers": task.context.distributed.workers(config.workers),
        "progress": progress,
    }  # fmt: skip
    progress.begin("calibrating", images_to_calibrate(task))
    scores, features, which = classifier.scores_and_features(task.val, **options)
    unknown = unknown_inputs_of(classifier, _training_images(task, classifier), features, **options)
    progress.end()
    if task.dataset.is_multi_label:
        return dataclasses.replace(_with_thresholds(task, run, classifier), unknown=unknown)
    calibration = calibration_of(scores, task.val.labels[which], "val")
    split = "test" if "test" in task.dataset.splits else "val"
    found = _evaluated(task, _described(classifier, calibration=calibration), split)
    return dataclasses.replace(found, unknown=unknown)


def _with_thresholds(
    task: Classification, run: TrainingRun, classifier: Classifier
) -> Evaluation | MultiLabelEvaluation:
    """Choose the thresholds with the largest F1 on val, the same ones in every process, and evaluate."""
    on_val = _evaluated(task, classifier, "val")
    thresholds = tuple(best_thresholds(on_val.probabilities, on_val.labels > 0).tolist())
    if run.is_main:
        bundle.set_thresholds(run.best, thresholds)
    split = "test" if "test" in task.dataset.splits else "val"
    return _evaluated(task, _described(classifier, thresholds=thresholds), split)


def _described(classifier: Classifier, **values: Any) -> Classifier:
    description = dataclasses.replace(classifier.description, **values)
    return dataclasses.replace(classifier, description=description)


def images_to_calibrate(task: Classification) -> int:
    """How many images are read after training besides those that are evaluated."""
    return len(task.val) + reference_size(task.preprocess, len(task.train))


def _training_images(task: Classification, classifier: Classifier) -> Images:
    """The training images at the network's input size; those of the run may be larger, for random crops."""
    preprocess = classifier.preprocess
    if task.train.shape == (*preprocess.size, preprocess.channels):
        return task.train
    dataset, config = task.dataset, task.config
    return DecodedImages(dataset.splits["train"], preprocess, cache=config.cache, root=dataset.root)


def _evaluated(task: Classification, classifier: Classifier, split: str) -> Evaluation | MultiLabelEvaluation:
    config = task.config
    return evaluate(
        classifier, dataclasses.replace(task.dataset, source=config.source), split=split,
        batch=config.batch, workers=config.workers, cache=config.cache, progress=task.context.progress,
    )  # fmt: skip
