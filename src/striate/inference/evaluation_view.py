"""How evaluations look in notebooks: HTML, and one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from striate import markup
from striate.errors import StriateError
from striate.transforms.thumbnails import thumbnail

if TYPE_CHECKING:
    from striate.inference.evaluation_record import Evaluation
    from striate.inference.multi_label_evaluation import MultiLabelEvaluation
    from striate.inference.text_evaluation import TextEvaluation

_CLASSES = 20  # in the table and the confusion matrix
_MISTAKES = 8
_ANSWERS = 5


def _percent(share: float) -> str:
    return "undefined" if share != share else f"{100 * share:.2f} %"


def _interval(ends: tuple[float, float] | None, is_share: bool = True) -> str:
    if ends is None or ends[0] != ends[0]:
        return ""
    low, high = (_percent(end) if is_share else f"{end:.4f}" for end in ends)
    return f"{low} to {high}"


def text(evaluation: Evaluation) -> str:
    """The accuracy in one line."""
    interval = _interval(evaluation.intervals.get("top1"))
    accuracy = f"top-1 accuracy {_percent(evaluation.top1)}" + (f" ({interval})" if interval else "")
    return f"Evaluation({accuracy}, {evaluation.n:,} {evaluation.what} of {evaluation.data!r})"


def html(evaluation: Evaluation) -> str:
    """Metrics, classes, the confusion matrix and the most confident mistakes."""
    rows = []
    for metric, value in evaluation.shown.items():
        is_share = metric.format.endswith("%")
        number = _percent(value) if is_share else f"{value:.4f}"
        rows.append((metric.label, number, _interval(evaluation.intervals.get(metric.name), is_share)))
    baseline = f"majority baseline (always {evaluation.majority_class})"
    rows.insert(1, (baseline, _percent(evaluation.majority_top1), ""))
    scores = sorted(evaluation.per_class, key=lambda score: score.f1)[:_CLASSES]
    per_class = markup.table(
        ("class", "images", "precision", "recall", "F1", ""),
        [
            (s.name, f"{s.support:,}", _percent(s.precision), _percent(s.recall), _percent(s.f1),
             markup.bar(s.f1, 60)) for s in scores
        ],
    )  # fmt: skip
    tables: list[str] = [per_class]
    if len(evaluation.classes) <= _CLASSES:
        heading = markup.note("confusion matrix: rows are the true classes, columns the predicted ones")
        tables.append(heading + markup.heat_map(evaluation.classes, evaluation.confusion.tolist()))
    return markup.panel(
        markup.title(f"{evaluation.n:,} {evaluation.what} of {evaluation.data}"),
        markup.table(("metric", "value", "95 % interval"), rows),
        _slices(evaluation),
        _rest(len(scores), len(evaluation.classes), "F1"),
        markup.side_by_side(*tables),
        _mistakes(evaluation),
        *(markup.note(f"note: {words}") for words in evaluation.notes),
    )


def _slices(evaluation: Evaluation) -> str:
    """The parts of the images with the lowest accuracy; empty if there are none."""
    rows = [
        (f"{s.by} {s.value}", f"{s.n:,}", _percent(s.top1), _interval(s.top1_ci), f"{s.p:.3f}")
        for s in evaluation.slices[:_CLASSES]
    ]
    return markup.table(("part", "images", "accuracy", "95 % interval", "p"), rows) if rows else ""


def _rest(shown: int, count: int, lowest: str) -> str:
    return markup.note(f"the {shown} of {count:,} classes with the lowest {lowest}") if shown < count else ""


def _mistakes(evaluation: Evaluation) -> str:
    """The mistakes with the highest probabilities, as pictures."""
    predicted = evaluation.predicted
    wrong = np.flatnonzero((predicted != evaluation.labels) & (predicted >= 0))
    if not len(wrong):
        return ""
    sure = evaluation.probabilities[wrong, predicted[wrong]]
    pictures = []
    for i in wrong[np.argsort(-sure, kind="stable")[:_MISTAKES]]:
        true, answer = evaluation.classes[evaluation.labels[i]], evaluation.classes[predicted[i]]
        caption = f"{answer} {evaluation.probabilities[i, predicted[i]]:.0%}, is {true}"
        try:
            pictures.append(markup.picture(thumbnail(evaluation.images[int(i)]), caption))
        except (OSError, StriateError):  # the file is gone: the other results are still worth showing
            continue
    heading = f"{len(wrong):,} mistakes" if len(wrong) > 1 else "1 mistake"
    most = f", the {len(pictures)} most confident ones" if len(wrong) > len(pictures) else ""
    return markup.title(heading + most) + markup.side_by_side(*pictures)


def multi_label_text(evaluation: MultiLabelEvaluation) -> str:
    """The mean average precision in one line."""
    score = f"mAP {_percent(evaluation.metrics['map'])}"
    return f"MultiLabelEvaluation({score}, {evaluation.n:,} {evaluation.what} of {evaluation.data!r})"


def multi_label_html(evaluation: MultiLabelEvaluation) -> str:
    """Metrics and classes."""
    from striate.metrics.multi_label import METRICS

    rows = [
        (label, _percent(evaluation.metrics[name]), _interval(evaluation.intervals.get(name)))
        for name, label in METRICS.items()
    ]
    scores = sorted(evaluation.per_class, key=lambda score: score.average_precision)[:_CLASSES]
    per_class = [
        (s.name, f"{s.support:,}", _percent(s.average_precision) if s.support else "–", f"{s.threshold:.3f}",
         _percent(s.precision), _percent(s.recall), _percent(s.f1)) for s in scores
    ]  # fmt: skip
    titles = ("class", "images", "average precision", "threshold", "precision", "recall", "F1")
    return markup.panel(
        markup.title(f"{evaluation.n:,} {evaluation.what} of {evaluation.data}"),
        markup.table(("metric", "value", "95 % interval"), rows),
        _rest(len(scores), len(evaluation.classes), "average precision"),
        markup.table(titles, per_class),
        *(markup.note(f"note: {words}") for words in evaluation.notes),
    )


def answers_text(evaluation: TextEvaluation) -> str:
    """The share of exact answers in one line."""
    scores = evaluation.scores
    figures = f"exact match {_percent(scores.exact)}, character error rate {_percent(scores.cer)}"
    return f"TextEvaluation({figures}, {scores.n:,} {evaluation.split} pairs of {evaluation.data!r})"


def answers_html(evaluation: TextEvaluation) -> str:
    """Metrics, and the first wrong answers."""
    scores = evaluation.scores
    figures = {"exact": ("exact match", scores.exact), "cer": ("character error rate", scores.cer),
               "wer": ("word error rate", scores.wer), "bleu": ("BLEU", scores.bleu),
               "chrf": ("chrF", scores.chrf)}  # fmt: skip
    rows = [
        (label, _percent(value), _interval(scores.intervals.get(name)))
        for name, (label, value) in figures.items()
        if value is not None
    ]
    triples = zip(evaluation.sources, evaluation.answers, evaluation.references, strict=True)
    wrong = [(source, answer, right[0]) for source, answer, right in triples if answer not in right]
    return markup.panel(
        markup.title(f"{scores.n:,} {evaluation.split} pairs of {evaluation.data}"),
        markup.table(("metric", "value", "95 % interval"), rows),
        markup.table(("source", "wrong answer", "right answer"), wrong[:_ANSWERS], left=3) if wrong else "",
        *(markup.note(f"note: {words}") for words in evaluation.notes),
    )
