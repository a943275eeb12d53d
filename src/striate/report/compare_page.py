"""The page of `striate compare`: accuracy, cost, changes of classes and images, and the training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from striate import bundle
from striate.charts import Curves, ImageGrid, Line, Panel
from striate.inference.comparison import ModelComparison, Pair
from striate.report.leaderboard import Place
from striate.report.run_table import RunTable
from striate.sections import Card, Column, Estimate, Phrase, Report, Section, Table
from striate.transforms.multiband import visible

_MOST_CHANGED, _MOST_CLASSES, _MOST_CURVES = 200, 50, 12
_PANELS = {"val_loss": "Loss", "val_top1": "Accuracy (top-1)"}


def comparison_report(comparison: ModelComparison) -> Report:
    """The page of models that were compared on the same images."""
    columns = (
        Column(Phrase("model")), Column(Phrase("accuracy"), ".1%"), Column(Phrase("macro F1"), ".1%"),
        Column(Phrase("expected calibration error"), ".3f"), Column(Phrase("parameters"), ",d"),
        Column(Phrase("MACs"), ",d"), Column(Phrase("ms per image"), ".2f"),
    )  # fmt: skip
    rows = tuple(
        (m.name, Estimate(m.top1, *m.top1_ci), m.macro_f1, m.ece, m.params, m.macs, m.ms)
        for m in comparison.models
    )
    sections = [Section(Phrase("Models"), (Table(columns, rows),))]
    for pair in comparison.pairs:
        sections += _pair_sections(pair)
    if (curves := overlaid({model.name: Path(model.name) for model in comparison.models})) is not None:
        sections.append(Section(Phrase("Training curves"), (curves,)))
    cards = [Card(m.top1, m.name, ".1%", interval=m.top1_ci) for m in comparison.models]
    return Report(
        title=Phrase("Comparison of models"),
        subtitle=Phrase("{n:,} images of {data}", n=comparison.n, data=comparison.data),
        sections=tuple(sections), cards=tuple(cards), warnings=comparison.notes,
    )  # fmt: skip


def _pair_sections(pair: Pair) -> list[Section]:
    low, high = (f"{100 * end:+.2f}" for end in pair.difference_ci)
    note = Phrase(
        "Difference {difference} points (95 % interval {low} to {high}); it gets {gained} images right that "
        "the first model gets wrong, and {lost} the other way round: p = {p} (McNemar's exact test).",
        difference=f"{100 * pair.difference:+.2f}", low=low, high=high, gained=pair.only_second,
        lost=pair.only_first, p=f"{pair.p:.3g}",
    )  # fmt: skip
    classes = Table(
        (
            Column(Phrase("class")), Column(Phrase("images"), ",d"), Column(Phrase("recall"), ".1%"),
            Column(Phrase("new recall"), ".1%"), Column(Phrase("p (Holm)"), ".2g"),
        ),
        tuple((c.name, c.images, c.first, c.second, c.p) for c in pair.per_class[:_MOST_CLASSES]),
    )  # fmt: skip
    changed = Table(
        (
            Column(Phrase("file")), Column(Phrase("class")), Column(Phrase("prediction")),
            Column(Phrase("new prediction")),
        ),
        tuple((c.path, c.label, c.first, c.second) for c in pair.changed[:_MOST_CHANGED]),
    )  # fmt: skip
    images = Phrase("Images with another prediction ({count:,})", count=len(pair.changed))
    shown = Phrase(
        "Below an image: its class, the predictions of the first model and of this one, and its file."
    )
    blocks = (_pictures(pair), changed) if pair.pictures else (changed,)
    return [Section(pair.second, (classes,), note), Section(images, blocks, shown if pair.pictures else "")]


def _pictures(pair: Pair) -> ImageGrid:
    captions = tuple(
        (c.label, f"{c.first or '–'} → {c.second or '–'}", Path(c.path).name) for c in pair.changed
    )
    pictures = tuple(map(visible, pair.pictures))
    return ImageGrid(pictures, captions[: len(pictures)], alt="Images with another prediction")


def overlaid(models: Mapping[str, Path]) -> Curves | None:
    """The validation curves of the runs that the models come from, by name; None if none has any."""
    names = {bundle.path_of(path).absolute().parent: name for name, path in models.items()}
    rows = {name: RunTable(run.parent).row(run) for run, name in names.items()}
    runs = {
        name: row["epochs"] for name, row in rows.items() if row is not None and row["epochs"].get("epoch")
    }
    if not runs:
        return None
    last = int(max(max(e or 0 for e in epochs["epoch"]) for epochs in runs.values()))
    panels = tuple(
        Panel(
            Phrase(title),
            tuple(
                Line(name, _values(epochs, column, last)) for name, epochs in runs.items() if column in epochs
            ),
            share=column != "val_loss",
            floor=None,
        )
        for column, title in _PANELS.items()
        if any(column in epochs for epochs in runs.values())
    )
    return Curves(tuple(range(1, last + 1)), panels, None, alt="Validation curves of the runs")


def _values(epochs: dict[str, list[float | None]], column: str, last: int) -> tuple[float, ...]:
    """A value for each epoch; NaN where the run has none."""
    known = dict(zip(epochs["epoch"], epochs[column], strict=True))
    found: list[Any] = [known.get(float(epoch)) for epoch in range(1, last + 1)]
    return tuple(float("nan") if value is None else value for value in found)


def leaderboard_report(folders: Sequence[Path], places: list[Place], notes: Sequence[str] = ()) -> Report:
    """The page of the runs of some folders, as `leaderboard` returns them."""
    columns = (
        Column(Phrase("data")), Column(Phrase("metric")), Column(Phrase("mean"), ".1%", bar_max=1.0),
        Column(Phrase("standard deviation"), ".2%"), Column(Phrase("runs")), Column(Phrase("model")),
        Column(Phrase("seeds"), ",d"), Column(Phrase("number of runs"), ",d"),
    )  # fmt: skip
    rows = tuple(
        (
            p.dataset, p.label, p.mean if p.interval is None else Estimate(p.mean, *p.interval), p.sd,
            p.title, p.model, len(set(p.seeds)), len(p.runs),
        )
        for p in places
    )  # fmt: skip
    note = Phrase(
        "Only runs on the same data, with the same metric and split, are ranked against each other. Runs "
        "that differ only in the seed are one row; runs with the same seed count once."
    )
    sections = [Section(Phrase("Leaderboard"), (Table(columns, rows),), note)]
    paths = {run: Path(path) for p in places for run, path in zip(p.runs, p.folders, strict=True)}
    if (curves := overlaid(dict(islice(paths.items(), _MOST_CURVES)))) is not None:
        sections.append(Section(Phrase("Training curves"), (curves,)))
    subtitle = ", ".join(map(str, folders))
    return Report(Phrase("Comparison of models"), subtitle, tuple(sections), warnings=tuple(notes))
