"""Report sections of image classification, as plain records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import torch

from striate.inference.evaluation import Evaluation
from striate.sections import (
    Bin,
    Card,
    Column,
    ConfusionMatrix,
    Curves,
    ImageGrid,
    Line,
    Panel,
    Reliability,
    Report,
    Section,
    Table,
    Text,
)
from striate.tasks.classification.augmentation import augmented
from striate.transforms.decode import Uint8Array
from striate.transforms.mixing import mix_batch

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification
    from striate.training.run_folder import TrainingRun

_MAX_AUGMENTED, _MAX_MISTAKES, _MAX_PROBLEMS = 32, 24, 200


def report(evaluation: Evaluation, run: TrainingRun | None = None, *, model: str) -> Report:
    """Describe an evaluation, and the run that trained the model, as a report.

    Args:
        evaluation: on the held-out images.
        run: the training run; None for a report about the evaluation alone.
        model: path of the bundle, for the commands that the page shows.
    """
    return Report(
        title=f"{Path(model).name} on {evaluation.data}",
        subtitle=_subtitle(run) if run else f"Evaluated on {evaluation.what} of {evaluation.data}",
        sections=tuple(sections(evaluation, run)),
        cards=tuple(_cards(evaluation, run)),
        warnings=tuple(_warnings(evaluation)),
        commands=(
            f"striate predict {quote(model)} PHOTO.jpg",
            f"striate evaluate {quote(model)} --data {quote(evaluation.data)}",
            f"striate weights inspect {quote(model)}",
        ),
    )


def sections(evaluation: Evaluation, run: TrainingRun | None = None) -> list[Section]:
    """Curves, augmented batch, confusion matrix, calibration, mistakes, classes and unreadable images."""
    found: list[Section] = []
    if run is not None:
        if run.epochs:
            found.append(Section("Training curves", (curves(run),)))
        found.append(_augmented_section(run))
    both = (confusion_matrix(evaluation), reliability(evaluation))
    found += [
        Section("Confusion matrix and calibration", both),
        _mistakes_section(evaluation),
        _classes_section(evaluation),
    ]
    problems = [*(run.task.problems if run else ()), *evaluation.problems]
    if problems:
        rows = tuple((problem.path, problem.reason) for problem in problems[:_MAX_PROBLEMS])
        blocks: tuple[Table | Text, ...] = (Table((Column("file"), Column("reason")), rows),)
        if len(problems) > _MAX_PROBLEMS:
            place = ", listed in problems.csv" if run else ""
            blocks += (Text(f"and {len(problems) - _MAX_PROBLEMS:,} more{place}", secondary=True),)
        note = "They were left out. Nothing was changed in the data folder."
        found.append(Section(f"Unreadable images ({len(problems):,})", blocks, note))
    return found


def curves(run: TrainingRun) -> Curves:
    """Loss and accuracy on training and validation images over the epochs."""

    def lines(name: str) -> tuple[Line, ...]:
        return tuple(
            Line(split, tuple(getattr(row, f"{split}_{name}") for row in run.epochs))
            for split in ("train", "val")
        )

    panels = (
        Panel("Loss (cross-entropy, nats)", lines("loss")),
        Panel("Accuracy (top-1)", lines("top1"), share=True),
    )
    return Curves(
        tuple(row.epoch for row in run.epochs), panels, run.best_epoch,
        alt="Loss and accuracy over the epochs", file="curves",
    )  # fmt: skip


def confusion_matrix(evaluation: Evaluation) -> ConfusionMatrix:
    """Counts of each predicted class for each true class."""
    return ConfusionMatrix(evaluation.classes, evaluation.confusion, alt="Confusion matrix", file="confusion")


def reliability(evaluation: Evaluation, bins: int = 10) -> Reliability:
    """Accuracy of the images in each range of confidence, the largest probability."""
    finite = evaluation.predicted >= 0
    confidence = evaluation.probabilities.max(axis=1)[finite]
    correct = (evaluation.predicted == evaluation.labels)[finite]
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins).tolist()
    hits = np.bincount(place, weights=correct, minlength=bins).tolist()
    found = tuple(
        Bin(i / bins, (i + 1) / bins, count, hit / count if count else None)
        for i, (count, hit) in enumerate(zip(counts, hits, strict=True))
    )
    return Reliability(found, evaluation.ece, alt="Reliability diagram", file="calibration")


def worst_mistakes(evaluation: Evaluation) -> ImageGrid | None:
    """The wrong predictions with the highest confidence, or None if every prediction is correct.

    Images whose scores are not finite come first.
    """
    predicted = evaluation.predicted
    confidence = np.where(predicted < 0, np.inf, evaluation.probabilities.max(axis=1))
    wrong = np.flatnonzero(predicted != evaluation.labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MAX_MISTAKES]
    if not len(wrong):
        return None
    classes = evaluation.classes
    return ImageGrid(
        tuple(visible(np.asarray(evaluation.images[i])) for i in wrong),
        tuple(
            (
                f"{classes[predicted[i]]} {confidence[i]:.0%}" if predicted[i] >= 0 else "scores not finite",
                f"is {classes[evaluation.labels[i]]}",
            )
            for i in wrong
        ),
        alt="The wrong predictions with the highest confidence",
        file="mistakes",
    )


def visible(image: Uint8Array) -> Uint8Array:
    """An image as RGB or grayscale, `[height, width, 3 or 1]`: of many bands, the first three."""
    return image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]


def augmented_batch(task: Classification) -> ImageGrid:
    """Up to 32 images of the first batch of the first epoch, augmented and mixed as in training."""
    which, config = task.order(0)[0], task.config
    resized = np.empty((len(which), *task.train.shape), np.uint8)
    readable = task.train.read(which, resized)
    which = which[readable]
    pixels = augmented(config, task.preprocess, torch.from_numpy(resized[readable]), 0, which)
    mixed, _ = mix_batch(
        pixels.float().permute(0, 3, 1, 2), config.mixup, config.cutmix, seed=config.seed, step=0
    )
    images = mixed[:_MAX_AUGMENTED].round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return ImageGrid(
        tuple(map(visible, images)),
        tuple((task.dataset.classes[label],) for label in task.train.labels[which[:_MAX_AUGMENTED]]),
        columns=8,
        alt="Augmented training images",
        file="augmented",
    )


def _augmented_section(run: TrainingRun) -> Section:
    config = run.config
    parts = [str(config.to_json()["augment"])]
    mixing = (("MixUp", config.mixup), ("CutMix", config.cutmix))
    parts += [f"{name} {alpha:g}" for name, alpha in mixing if alpha]
    note = f"The first batch as the network received it (augmentation: {', '.join(parts)})."
    return Section("Augmented training batch", (augmented_batch(run.task),), note)


def _mistakes_section(evaluation: Evaluation) -> Section:
    grid = worst_mistakes(evaluation)
    if grid is None:
        return Section("Worst mistakes", (Text(f"None: all {evaluation.n:,} {evaluation.what} are right."),))
    note = (
        "The wrong predictions with the highest confidence: prediction, confidence and true class. "
        "Wrong labels show up here first."
    )
    return Section("Worst mistakes", (grid,), note)


def _classes_section(evaluation: Evaluation) -> Section:
    columns = (
        Column("class"), Column("images", ",d"), Column("precision", ".1%"), Column("recall", ".1%"),
        Column("F1", ".1%", bar_max=1.0),
    )  # fmt: skip
    rows = tuple((c.name, c.support, c.precision, c.recall, c.f1) for c in evaluation.per_class)
    return Section("Per-class metrics", (Table(columns, rows),))


def _subtitle(run: TrainingRun) -> str:
    height, width = run.description.image_preprocess.size
    return (
        f"{run.config.model} on {run.description.provenance['data']}: {run.task.train_count:,} training "
        f"images of {width}×{height} px, {len(run.task.dataset.classes)} classes"
    )


def _cards(evaluation: Evaluation, run: TrainingRun | None) -> list[Card]:
    cards = [Card(value, metric.label, metric.format) for metric, value in evaluation.shown.items()]
    label = f"{cards[0].label} on {evaluation.n:,} {evaluation.what}"
    cards[0] = replace(cards[0], label=label, interval=evaluation.top1_ci)
    baseline = f"majority baseline: always {evaluation.majority_class}"
    cards.insert(1, Card(evaluation.majority_top1, baseline, cards[0].format))
    if run is not None:
        cards.append(Card(run.task.images_per_second(run), "training images per second", ",.0f"))
    return cards


def _warnings(evaluation: Evaluation) -> list[str]:
    warnings = list(evaluation.notes)
    if evaluation.missing_classes:
        warnings.append(f"No {evaluation.what} of: {', '.join(evaluation.missing_classes)}")
    for name, count in evaluation.extra_classes.items():
        warnings.append(f"The model does not know the class {name!r}: its {count} images were not evaluated")
    return warnings
