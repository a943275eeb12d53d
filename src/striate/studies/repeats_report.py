"""The page of several runs: their metrics, the mean with its interval, and out-of-fold predictions."""

from __future__ import annotations

import dataclasses
import math
import os
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from striate.charts import Predictions
from striate.inference.evaluation import pool
from striate.metrics import multi_label
from striate.sections import Card, Column, Estimate, Phrase, Report, Section, Table
from striate.studies.repeats import Repeats
from striate.tasks import entry

_IN_TABLE = 3  # metrics of each run; its own report has all


def describe(found: Repeats, config: Any) -> Report:
    """Describe several runs as a report.

    Args:
        found: the runs.
        config: of all of them.
    """
    cards, sections = tuple(_cards(found)), (_means(found), _runs(found))
    title, subtitle = found.folder.name, _subtitle(found, config)
    command = f"striate predict {quote(str(found.runs[0].best))} PHOTO.jpg"
    if found.pooled is None:
        return Report(title, subtitle, sections, cards)
    page: Report = entry(config.task).find("report")(found.pooled, model=str(found.runs[0].best))
    return dataclasses.replace(
        page, title=title, subtitle=subtitle, cards=cards + page.cards, sections=(*sections, *page.sections),
        commands=(command,),
    )  # fmt: skip


def predictions(found: Repeats) -> tuple[Predictions, dict[str, list[int]]] | None:
    """The out-of-fold predictions of all seeds, with the seed and fold of each; None without folds."""
    if found.pooled is None:
        return None
    every = pool([run.evaluation for run in found.runs], "out-of-fold")
    table = Predictions(
        every.classes, every.names, every.labels, every.predicted, every.probabilities, every.images,
        are_files=os.path.isfile(every.names[0]),  # noqa: PTH113 - raises no error
    )  # fmt: skip
    counts = [run.n for run in found.runs]
    columns = {
        "seed": np.repeat([run.seed for run in found.runs], counts).tolist(),
        "fold": np.repeat([run.fold or 0 for run in found.runs], counts).tolist(),
    }
    return table, columns


def labels(found: Repeats) -> dict[str, tuple[str, str]]:
    """Label and format of each metric that is worth showing, the main one first."""
    evaluation = found.runs[0].evaluation
    if evaluation.task == "classification":
        return {metric.name: (Phrase(metric.label), metric.format) for metric in evaluation.shown}
    if evaluation.task == "multi-label":
        return {name: (Phrase(label), ".1%") for name, label in multi_label.METRICS.items()}
    return {name: (name.replace("_", " "), ".4f") for name in found.runs[0].metrics}


def _cards(found: Repeats) -> list[Card]:
    name, (label, spec) = next(iter(labels(found).items()))
    one = found.spreads[name]
    interval = None if math.isnan(one.low) else (one.low, one.high)
    text = Phrase("{metric}, mean of {count} runs", metric=label, count=len(found.runs))
    return [Card(one.mean, text, spec, interval=interval)]


def _means(found: Repeats) -> Section:
    columns = (
        Column(Phrase("metric")), Column(Phrase("mean"), ".4f"), Column(Phrase("standard deviation"), ".4f"),
        Column(Phrase("lowest"), ".4f"), Column(Phrase("highest"), ".4f"),
    )  # fmt: skip
    rows = []
    for name, (label, _) in labels(found).items():
        one = found.spreads[name]
        known = not math.isnan(one.low)
        mean = Estimate(one.mean, one.low, one.high) if known else one.mean
        rows.append((label, mean, None if math.isnan(one.std) else one.std, min(one.values), max(one.values)))
    note = Phrase("95 % intervals of the means: Student's t over {count} runs.", count=len(found.runs))
    if found.test_to_train:
        note = Phrase(
            "95 % intervals of the means: Student's t over {count} runs, corrected for training images that "
            "they share (Nadeau and Bengio 2003).",
            count=len(found.runs),
        )
    return Section(Phrase("Mean of all runs"), (Table(columns, tuple(rows)),), note)


def _runs(found: Repeats) -> Section:
    shown = dict(islice(labels(found).items(), _IN_TABLE))
    fold = (Column(Phrase("fold"), "d"),) if found.folds else ()
    columns = (
        Column(Phrase("run")), Column(Phrase("seed"), "d"), *fold, Column(_what(found), ",d"),
        *(Column(label, spec) for label, spec in shown.values()), Column(Phrase("best epoch"), "d"),
        Column(Phrase("seconds"), ",.0f"),
    )  # fmt: skip
    rows = tuple(
        (
            run.folder.name, run.seed, *((run.fold,) if found.folds else ()), run.n,
            *(run.metrics[name] for name in shown), run.best_epoch, run.seconds,
        )
        for run in found.runs
    )  # fmt: skip
    note = Phrase("Each run has its own folder with its own report.")
    return Section(Phrase("Runs"), (Table(columns, rows),), note)


def _what(found: Repeats) -> str:
    """What the runs were tested on."""
    evaluation = found.runs[0].evaluation
    return Phrase("test pairs") if evaluation.task == "seq2seq" else Phrase(evaluation.what)


def _subtitle(found: Repeats, config: Any) -> Phrase:
    data, seeds = Path(config.source).name, len({run.seed for run in found.runs})
    if not found.folds:
        return Phrase("{model} on {data}: {seeds} seeds", model=config.model, data=data, seeds=seeds)
    if seeds == 1:
        return Phrase(
            "{model} on {data}: cross-validation with {folds} folds", model=config.model, data=data,
            folds=found.folds,
        )  # fmt: skip
    return Phrase(
        "{model} on {data}: cross-validation with {folds} folds, {seeds} seeds", model=config.model,
        data=data, folds=found.folds, seeds=seeds,
    )  # fmt: skip
