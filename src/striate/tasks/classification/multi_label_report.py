"""Report of a model for images with several classes, as plain records."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from striate.charts import ImageGrid, LabelPredictions, PrecisionRecall
from striate.inference.multi_label_evaluation import MultiLabelEvaluation
from striate.metrics.classification import all_finite
from striate.metrics.multi_label import METRICS, precision_recall
from striate.sections import Card, Column, Phrase, Report, Section, Table
from striate.tasks.classification.run_sections import commands, run_sections, subtitle, warnings_of, what_of
from striate.transforms.multiband import visible

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

_MAX_MISTAKES, _MAX_LINES = 24, 3


def report_multi_label(
    evaluation: MultiLabelEvaluation, run: TrainingRun | None = None, *, model: str
) -> Report:
    """Describe an evaluation, and the run that trained the model, as a report; arguments as of `report`."""
    return Report(
        title=Phrase("{model} on {data}", model=Path(model).name, data=evaluation.data),
        subtitle=subtitle(evaluation, run),
        sections=(
            _errors_section(evaluation), _classes_section(evaluation), *run_sections(evaluation, run)
        ),
        cards=tuple(_cards(evaluation, run)),
        warnings=tuple(warnings_of(evaluation)),
        commands=commands(evaluation, model),
        label_predictions=LabelPredictions(
            evaluation.classes, evaluation.names, evaluation.labels, evaluation.predicted,
            evaluation.probabilities,
        ),
    )  # fmt: skip


def worst_label_errors(evaluation: MultiLabelEvaluation) -> ImageGrid | None:
    """The images with the surest wrong answers: classes far above their threshold, or far below it.

    Images whose scores are not finite come first. None if every label of every image is right.
    """
    distance = np.where(_wrong(evaluation), np.abs(evaluation.probabilities - evaluation.thresholds), -1.0)
    worst = np.nan_to_num(distance, nan=np.inf).max(axis=1)
    chosen = np.argsort(-worst, kind="stable")[:_MAX_MISTAKES]
    chosen = chosen[worst[chosen] >= 0]
    if not len(chosen):
        return None
    return ImageGrid(
        tuple(visible(np.asarray(evaluation.images[int(i)])) for i in chosen),
        tuple(_caption(evaluation, int(i)) for i in chosen),
        alt="The images with the surest wrong answers",
        file="mistakes",
    )


def _wrong(evaluation: MultiLabelEvaluation) -> npt.NDArray[np.bool_]:
    """Which answers are wrong, `[n, classes]`: all of an image whose scores are not finite."""
    finite = all_finite(evaluation.probabilities)[:, None]
    return np.asarray((evaluation.predicted != evaluation.labels) | ~finite)


def _caption(evaluation: MultiLabelEvaluation, i: int) -> tuple[str, ...]:
    """The classes that an image wrongly has and wrongly lacks, with their probabilities, and its name."""
    chances, classes = evaluation.probabilities[i], evaluation.classes
    name = os.path.basename(evaluation.names[i])  # noqa: PTH119 - a name
    if not np.isfinite(chances).all():
        return "scores not finite", name
    added = np.flatnonzero(evaluation.predicted[i] & ~evaluation.labels[i])
    missed = np.flatnonzero(~evaluation.predicted[i] & evaluation.labels[i])
    lines = [f"+ {chances[k]:.0%} {classes[k]}" for k in added[np.argsort(-chances[added])][:_MAX_LINES]]
    lines += [f"- {chances[k]:.0%} {classes[k]}" for k in missed[np.argsort(chances[missed])][:_MAX_LINES]]
    return (*lines, name)


def _errors_section(evaluation: MultiLabelEvaluation) -> Section:
    grid = worst_label_errors(evaluation)
    if grid is None:
        note = Phrase("None: all labels of {n:,} {what} are right.", n=evaluation.n, what=what_of(evaluation))
        return Section(Phrase("Errors"), (), note)
    note = Phrase(
        "{count:,} of {n:,} {what} have a wrong prediction; the surest errors come first, often because the "
        "data lack a label. + is a class that the model predicts wrongly, - one that it misses, with its "
        "probability.",
        count=int(_wrong(evaluation).any(axis=1).sum()), n=evaluation.n, what=what_of(evaluation),
    )  # fmt: skip
    return Section(Phrase("Errors"), (grid,), note)


def _classes_section(evaluation: MultiLabelEvaluation) -> Section:
    columns = (
        Column(Phrase("class")), Column(Phrase("images"), ",d"),
        Column(Phrase("average precision"), ".1%", bar_max=1.0), Column(Phrase("threshold"), ".3f"),
        Column(Phrase("precision"), ".1%"), Column(Phrase("recall"), ".1%"), Column(Phrase("F1"), ".1%"),
    )  # fmt: skip
    rows = tuple(
        (
            s.name,
            s.support,
            s.average_precision if s.support else None,
            s.threshold,
            s.precision,
            s.recall,
            s.f1,
        )
        for s in evaluation.per_class
    )
    note = Phrase(
        "A class is predicted from its threshold on, which was chosen on validation images for the largest "
        "F1. Choose a class to see its curve."
    )
    return Section(
        Phrase("Per-class metrics"), (Table(columns, rows, of_classes=True), _curves(evaluation)), note
    )


def _curves(evaluation: MultiLabelEvaluation) -> PrecisionRecall:
    shown = [k for k, score in enumerate(evaluation.per_class) if score.support]
    finite = all_finite(evaluation.probabilities)
    points = [
        precision_recall(evaluation.probabilities[finite, k], evaluation.labels[finite, k]) for k in shown
    ]
    return PrecisionRecall(
        tuple(
            (evaluation.classes[k], recall, precision)
            for k, (recall, precision, _) in zip(shown, points, strict=True)
        ),
        tuple(scores for _, _, scores in points), tuple(shown), alt="Precision-recall curves",
        file="pr_curves",
    )  # fmt: skip


def _cards(evaluation: MultiLabelEvaluation, run: TrainingRun | None) -> list[Card]:
    cards = [
        Card(evaluation.metrics[name], Phrase(label), ".1%", interval=evaluation.intervals.get(name))
        for name, label in METRICS.items()
    ]
    label = Phrase(
        "{metric} on {n:,} {what}", metric=cards[0].label, n=evaluation.n, what=what_of(evaluation)
    )
    cards[0] = replace(cards[0], label=label)
    if run is not None:
        cards.append(Card(run.task.images_per_second(run), Phrase("training images per second"), ",.0f"))
    return cards
