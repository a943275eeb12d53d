"""The end of a training run: calibrate the best bundle, and evaluate it on the images that are held out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from striate import bundle
from striate.data import DecodedImages, Images
from striate.inference.calibration import calibration_of, reference_size, unknown_inputs_of
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import Evaluation, evaluate, evaluate_probabilities
from striate.inference.multi_label_evaluation import MultiLabelEvaluation
from striate.metrics.multi_label import best_thresholds
from striate.tasks.classification.data import write_problems

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification
    from striate.training.run_folder import TrainingRun


def evaluate_held_out(task: Classification, run: TrainingRun) -> Evaluation | MultiLabelEvaluation:
    """Evaluate the best bundle on test, or on val if there is no test; its calibration comes from val.

    If images have several classes, the threshold of each comes from val instead, and is written into the
    bundle. The val images are read once for all of this.

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
    progress.begin("calibrating", _images_to_calibrate(task))
    if task.features is None:
        scores, features, which = classifier.scores_and_features(task.val, **options)
    else:
        scores, features, which = task.features.scores_and_features(classifier, config.batch)
    unknown = ""
    if run.is_main:  # which writes it into the bundle
        unknown = unknown_inputs_of(classifier, _training_images(task, classifier), features, **options)
    progress.end()
    labels = task.val.labels[which]
    if not task.dataset.is_multi_label:
        classifier = _described(classifier, calibration=calibration_of(scores, labels, "val"))
    elif len(which):
        # The same thresholds in every process.
        thresholds = tuple(best_thresholds(classifier.calibrated(scores), labels).tolist())
        classifier = _described(classifier, thresholds=thresholds)
        if run.is_main:
            bundle.set_thresholds(run.best, thresholds)
    dataset = dataclasses.replace(task.dataset, source=config.source)
    if "test" in dataset.splits:
        found = evaluate(classifier, dataset, split="test", cache=config.cache, **options)
    else:
        found = evaluate_probabilities(
            classifier, classifier.calibrated(scores), which, task.val, dataset, "val"
        )
    # Only now have the test images been read.
    task.problems = tuple({problem.path: problem for problem in (*task.problems, *found.problems)}.values())
    if run.is_main:
        write_problems(run.folder, task.problems)
    return dataclasses.replace(found, unknown=unknown)


def _described(classifier: Classifier, **values: Any) -> Classifier:
    description = dataclasses.replace(classifier.description, **values)
    return dataclasses.replace(classifier, description=description)


def images_after_training(task: Classification) -> int:
    """How many images `evaluate_held_out` passes through the network."""
    return _images_to_calibrate(task) + len(task.dataset.splits.get("test", ()))


def _images_to_calibrate(task: Classification) -> int:
    val = len(task.val) if task.features is None else 0
    return val + reference_size(task.preprocess, len(task.train))


def _training_images(task: Classification, classifier: Classifier) -> Images:
    """The training images at the network's input size; those of the run may be larger, for random crops."""
    preprocess = classifier.preprocess
    if task.train.shape == (*preprocess.size, preprocess.channels):
        return task.train
    dataset, config = task.dataset, task.config
    return DecodedImages(dataset.splits["train"], preprocess, cache=config.cache, root=dataset.root)
