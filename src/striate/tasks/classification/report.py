"""Report sections of image classification, as plain records."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from striate.charts import (
    Bin,
    ClassCurves,
    ConfusionMatrix,
    Gallery,
    ImageGrid,
    Predictions,
    Reliability,
)
from striate.inference.evaluation import Evaluation
from striate.inference.multi_label_evaluation import MultiLabelEvaluation
from striate.metrics.classification import wilson_interval
from striate.sections import Card, Column, Estimate, Phrase, Report, Section, Table, Text
from striate.tasks.classification.multi_label_report import report_multi_label
from striate.tasks.classification.robustness_report import robustness_section
from striate.tasks.classification.run_sections import commands, run_sections, subtitle, warnings_of, what_of
from striate.transforms.multiband import visible

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

_MAX_MISTAKES = 24


def report(
    evaluation: Evaluation | MultiLabelEvaluation, run: TrainingRun | None = None, *, model: str
) -> Report:
    """Describe an evaluation, and the run that trained the model, as a report.

    Args:
        evaluation: on the held-out images.
        run: the training run; None for a report about the evaluation alone.
        model: path of the bundle, for the commands that the page shows.
    """
    if isinstance(evaluation, MultiLabelEvaluation):
        return report_multi_label(evaluation, run, model=model)
    return Report(
        title=Phrase("{model} on {data}", model=Path(model).name, data=evaluation.data),
        subtitle=subtitle(evaluation, run),
        sections=tuple(sections(evaluation, run)),
        cards=tuple(_cards(evaluation, run)),
        warnings=tuple(warnings_of(evaluation)),
        commands=commands(evaluation, model),
        predictions=Predictions(
            evaluation.classes, evaluation.names, evaluation.labels, evaluation.predicted,
            evaluation.probabilities, evaluation.images, are_files=os.path.isfile(evaluation.names[0]),  # noqa: PTH113 - raises no error
            maps=evaluation.maps,
        ),
    )  # fmt: skip


def sections(evaluation: Evaluation, run: TrainingRun | None = None) -> list[Section]:
    """Errors, classes, calibration, curves, augmented batch, data, unreadable images and network."""
    found = [
        _errors_section(evaluation),
        _classes_section(evaluation),
        Section(
            Phrase("Calibration"),
            (reliability(evaluation), _calibration_text(evaluation)),
            _temperature(evaluation),
        ),
    ]
    if evaluation.slices:
        found.append(_slices_section(evaluation))
    if evaluation.robustness is not None:
        found.append(robustness_section(evaluation, evaluation.robustness))
    return [*found, *run_sections(evaluation, run)]


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
    return Reliability(
        found, evaluation.ece, Phrase("confidence"), Phrase("accuracy"), alt="Reliability diagram",
        file="calibration",
    )  # fmt: skip


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


def _errors_section(evaluation: Evaluation) -> Section:
    grid = worst_mistakes(evaluation)
    note = Phrase("Wrong labels show up first among the errors with the highest confidence.")
    if grid is None:
        note = Phrase("None: all {n:,} {what} are right.", n=evaluation.n, what=what_of(evaluation))
    gallery = Gallery(
        grid, alt="The wrong predictions with the highest confidence", file="mistakes" if grid else ""
    )
    return Section(Phrase("Errors"), (confusion_matrix(evaluation), gallery), note)


def _classes_section(evaluation: Evaluation) -> Section:
    columns = (
        Column(Phrase("class")), Column(Phrase("images"), ",d"), Column(Phrase("precision"), ".1%"),
        Column(Phrase("recall"), ".1%"), Column(Phrase("F1"), ".1%", bar_max=1.0),
    )  # fmt: skip
    called = evaluation.confusion.sum(axis=0).tolist()
    rows = tuple(
        (c.name, c.support, _estimate(c.precision, n), _estimate(c.recall, c.support), c.f1)
        for c, n in zip(evaluation.per_class, called, strict=True)
    )
    note = Phrase("Precision and recall with their 95 % intervals. Choose a class to see its curves.")
    curves = ClassCurves(alt="Precision-recall and ROC curves of a class")
    averages = tuple((Phrase(s.name), s.support, s.precision, s.recall, s.f1) for s in evaluation.averages)
    tables = Table(columns, rows, of_classes=True), Table((Column(Phrase("average")), *columns[1:]), averages)
    return Section(Phrase("Per-class metrics"), (*tables, curves), note)


def _estimate(share: float, n: int) -> Estimate | None:
    """A share with its Wilson interval; None of no images."""
    return Estimate(share, *wilson_interval(share, n)) if n else None


def _calibration_text(evaluation: Evaluation) -> Text:
    if not math.isfinite(evaluation.ece):
        return Text(Phrase("No prediction is finite, so there is nothing to measure."), secondary=True)
    return Text(
        Phrase(
            "A bar shows how often predictions of this confidence are correct; on the dashed line they are "
            "as often correct as the model says. Below it, the model is too confident."
        ),
        secondary=True,
    )


def _slices_section(evaluation: Evaluation) -> Section:
    columns = (
        Column(Phrase("property")), Column(Phrase("value")), Column(Phrase("images"), ",d"),
        Column(Phrase("accuracy"), ".1%"), Column(Phrase("p (Holm)"), ".2g"),
    )  # fmt: skip
    rows = tuple((s.by, s.value, s.n, Estimate(s.top1, *s.top1_ci), s.p) for s in evaluation.slices)
    note = Phrase(
        "The lowest accuracy first. p: Fisher's exact test against all other images, with Holm's correction."
    )
    return Section(Phrase("Slices"), (Table(columns, rows),), note)


def _temperature(evaluation: Evaluation) -> Phrase:
    calibration = evaluation.calibration
    if calibration is None:
        return Phrase("The probabilities are not calibrated.")
    if not calibration.is_needed:
        return Phrase(
            "The probabilities are unchanged: {n:,} images ({source}), with a calibration error of "
            "{before:.3f}, show no need to calibrate.",
            n=calibration.images, source=Phrase(calibration.source), before=calibration.ece[0],
        )  # fmt: skip
    return Phrase(
        "The scores are divided by the temperature {temperature:.2f}, from {n:,} images ({source}): their "
        "calibration error was {before:.3f} before and {after:.3f} after.",
        temperature=calibration.temperature, n=calibration.images, source=Phrase(calibration.source),
        before=calibration.ece[0], after=calibration.ece[1],
    )  # fmt: skip


def _cards(evaluation: Evaluation, run: TrainingRun | None) -> list[Card]:
    cards = [
        Card(value, Phrase(m.label), m.format, interval=_finite(evaluation.intervals.get(m.name)))
        for m, value in evaluation.shown.items()
    ]
    label = Phrase(
        "{metric} on {n:,} {what}", metric=cards[0].label, n=evaluation.n, what=what_of(evaluation)
    )
    cards[0] = replace(cards[0], label=label)
    baseline = Phrase("majority baseline: always {name}", name=evaluation.majority_class)
    cards.insert(1, Card(evaluation.majority_top1, baseline, cards[0].format))
    if run is not None:
        cards.append(Card(run.task.images_per_second(run), Phrase("training images per second"), ",.0f"))
    return cards


def _finite(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ends is None or not math.isfinite(sum(ends)) else ends
