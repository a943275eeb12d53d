"""Write a report as one self-contained HTML page, which draws its figures itself."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml
from PIL import Image

from striate.charts import Figure, ImageGrid, Picture
from striate.files import write_atomic
from striate.report import chart_data, reproduce, templates
from striate.report.answer_data import pack as pack_answers
from striate.report.prediction_data import pack
from striate.report.prediction_table import require_parquet as require_parquet
from striate.report.prediction_table import (
    write_answers,
    write_label_predictions,
    write_predictions,
)
from striate.sections import Block, Card, Column, Listing, Phrase, Remark, Report, Section, Table, Text

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

# The files in script/ that draw each kind of figure.
_SCRIPTS = {
    "curves": ("lines.js",),
    "matrix": ("matrix.js",),
    "reliability": ("reliability.js",),
    "gallery": ("predictions.js", "viewer.js", "heat.js", "gallery.js"),
    "classes": ("lines.js", "predictions.js", "classes.js"),
    "precision_recall": ("lines.js", "precision_recall.js"),
    "attention": ("attention.js",),
    "image_attention": ("heat.js", "attention.js"),
    "answers": ("differences.js", "answers.js"),
    "samples": ("differences.js", "answers.js"),
    "bars": ("bars.js",),
    "thresholds": ("thresholds.js",),
    "detections": ("boxes.js", "viewer.js", "detections.js"),
}
_ORDER = (
    "tables.js", "lines.js", "predictions.js", "viewer.js", "matrix.js", "reliability.js", "heat.js",
    "gallery.js", "classes.js", "precision_recall.js", "attention.js", "differences.js", "answers.js",
    "bars.js", "thresholds.js", "boxes.js", "detections.js", "start.js",
)  # fmt: skip


def write_report(
    report: Report,
    folder: Path,
    run: TrainingRun | None = None,
    *,
    figures: bool = False,
    full: bool = False,
    parquet: bool = False,
) -> Path:
    """Write `report.html` into a folder, and `predictions.csv` if the report has predictions or answers.

    Args:
        report: what the page shows.
        folder: created if it does not exist.
        run: adds what every training run has: its name, warnings, epochs, time, profile and configuration.
        figures: whether to write the figures as PNG files, too, which needs matplotlib.
        full: whether the page contains a small copy of each image, instead of some within 5 MB.
        parquet: whether to write the predictions as `predictions.parquet`, too, which needs pyarrow.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder cannot be written to.
    """
    report = report if run is None else with_run(report, run)
    for name, image in png_files(report).items() if figures else ():
        write_atomic(folder / f"{name}.png", image)
    if report.predictions is not None:
        write_predictions(folder, report.predictions, parquet=parquet)
    if report.label_predictions is not None:
        write_label_predictions(folder, report.label_predictions, parquet=parquet)
    if report.answers is not None:
        write_answers(folder, report.answers, parquet=parquet)
    page = folder / "report.html"
    write_atomic(page, render(report, full=full, folder=folder).encode("utf-8", "replace"))
    return page


def with_run(report: Report, run: TrainingRun) -> Report:
    """Add to a task's report what every training run has."""
    cards = (
        Card(run.last_epoch, _epochs(run), ",d"),
        Card(run.seconds, Phrase("total time"), ",.0f", unit="s"),
    )
    sections = report.sections
    if run.profile:
        from striate.training.profile import shares  # loads torch, which other reports do not need

        columns = (
            Column(Phrase("phase")), Column(Phrase("seconds"), ",.1f"),
            Column(Phrase("share"), ".1%", bar_max=1.0),
        )  # fmt: skip
        sections += (Section(Phrase("Training time"), (Table(columns, tuple(shares(run.profile))),)),)
    sections += (reproduce.section(run),)
    return dataclasses.replace(
        report,
        title=run.folder.name,
        sections=sections,
        cards=report.cards + cards,
        warnings=(*run.notes, *report.warnings),
        config=yaml.safe_dump(run.config.to_json(), sort_keys=False, allow_unicode=True),
    )


def _epochs(run: TrainingRun) -> Phrase:
    """What the number of epochs counts; within a budget, not every epoch is evaluated."""
    best = {"best": run.best_epoch, "monitor": run.config.monitor}
    if run.averaged:
        return Phrase(
            "epochs; the best model averages the last {count}; the best epoch is {best} (by {monitor})",
            count=run.averaged,
            **best,
        )
    if len(run.epochs) < run.last_epoch:
        return Phrase(
            "epochs, {count} of them evaluated, the best is {best} (by {monitor})",
            count=len(run.epochs),
            **best,
        )
    return Phrase("epochs, the best is {best} (by {monitor})", **best)


def render(report: Report, *, full: bool = False, folder: Path | None = None) -> str:
    """Render a report as HTML that refers to nothing outside itself, except by links.

    Args:
        report: what the page shows.
        full: whether the page contains a small copy of each image, instead of some within 5 MB.
        folder: in which the page will be, for links to files with relative paths.
    """
    figures = [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]
    drawn = [block for block in figures if not isinstance(block, (ImageGrid, Picture))]
    places = {id(block): place for place, block in enumerate(drawn)}
    payload: dict[str, Any] = {"blocks": [chart_data.data(block) for block in drawn]}
    if report.predictions is not None:
        payload["predictions"] = pack(report.predictions, full=full, base=_base(folder))
    if report.answers is not None:
        payload["answers"] = pack_answers(report.answers, full=full, base=_base(folder))
    needed = {file for block in payload["blocks"] for file in _SCRIPTS[block["kind"]]}
    notes = list(dict.fromkeys(report.warnings))
    return templates.render(
        "page.html", title=report.title, subtitle=report.subtitle, cards=report.cards, report=report,
        warnings=[note for note in notes if not isinstance(note, Remark)],
        remarks=[note for note in notes if isinstance(note, Remark)], grouped=_grouped, payload=payload,
        numbers=lambda block: places[id(block)],
        scripts=[name for name in _ORDER if name in needed or name in ("tables.js", "start.js")],
    )  # fmt: skip


def png_files(report: Report) -> dict[str, bytes]:
    """The PNG files of the figures that name one."""
    blocks = [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]
    return {block.file: _png(block) for block in blocks if block.file}


def _png(block: Figure) -> bytes:
    if not isinstance(block, Picture):
        from striate.report import figures  # loads matplotlib

        return figures.png(figures.draw(block))
    content = io.BytesIO()
    Image.fromarray(block.image.squeeze()).save(content, "PNG")
    return content.getvalue()


def _base(folder: Path | None) -> str:
    """URL of the working folder as seen from the page, with a slash at its end."""
    if folder is None:
        return ""
    path = os.path.relpath(Path.cwd(), folder.absolute()).replace(os.sep, "/")
    return quote(path, errors="replace") + "/"


def _grouped(blocks: Iterable[Block]) -> list[tuple[str, list[Block]]]:
    """Split blocks into runs of the same kind: `text`, `table`, `listing` or `figure`."""
    kinds: dict[type, str] = {Text: "text", Table: "table", Listing: "listing"}
    return [
        (name, list(group)) for name, group in groupby(blocks, lambda block: kinds.get(type(block), "figure"))
    ]
