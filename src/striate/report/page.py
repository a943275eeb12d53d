"""Write a report as one self-contained HTML page with its figures as PNG files next to it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from PIL import Image

from striate.files import write_atomic
from striate.report import figures, templates
from striate.sections import Block, Card, Column, Figure, Picture, Report, Section, Table, Text

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun


def write_report(report: Report, folder: Path, run: TrainingRun | None = None) -> Path:
    """Write `report.html` and its figures as PNG files into a folder.

    Args:
        report: what the page shows.
        folder: created if it does not exist.
        run: adds what every training run has: its name, warnings, epochs, time, profile and configuration.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder cannot be written to.
    """
    text, images = render(report if run is None else with_run(report, run))
    for name, image in images.items():
        write_atomic(folder / f"{name}.png", image)
    page = folder / "report.html"
    write_atomic(page, text.encode("utf-8", "replace"))
    return page


def with_run(report: Report, run: TrainingRun) -> Report:
    """Add to a task's report what every training run has."""
    few = len(run.epochs) < run.last_epoch  # within a budget, not every epoch is evaluated
    evaluated = f", {len(run.epochs)} of them evaluated" if few else ""
    best = f"the best is {run.best_epoch} (by {run.config.monitor})"
    cards = (
        Card(run.last_epoch, f"epochs{evaluated}, {best}", ",d"),
        Card(run.seconds, "total time", ",.0f", unit="s"),
    )
    sections = report.sections
    if run.profile:
        from striate.training.profile import shares  # loads torch, which other reports do not need

        columns = (Column("phase"), Column("seconds", ",.1f"), Column("share", ".1%", bar_max=1.0))
        sections += (Section("Training time", (Table(columns, tuple(shares(run.profile))),)),)
    return dataclasses.replace(
        report,
        title=run.folder.name,
        sections=sections,
        cards=report.cards + cards,
        warnings=(*run.notes, *report.warnings),
        config=yaml.safe_dump(run.config.to_json(), sort_keys=False, allow_unicode=True),
    )


def render(report: Report) -> tuple[str, dict[str, bytes]]:
    """Render a report.

    Returns:
        The HTML, which refers to nothing outside itself, and the PNG files of figures that name one.
    """
    blocks = [block for section in report.sections for block in section.blocks if isinstance(block, Figure)]
    images = {id(block): _png(block) for block in blocks}
    text = templates.render(
        "page.html", title=report.title, subtitle=report.subtitle, cards=report.cards, report=report,
        warnings=list(dict.fromkeys(report.warnings)), grouped=_grouped,
        url=lambda block: templates.data_url(images[id(block)], "png"),
    )  # fmt: skip
    return text, {block.file: images[id(block)] for block in blocks if block.file}


def _png(block: Figure) -> bytes:
    if not isinstance(block, Picture):
        return figures.png(figures.draw(block))
    content = io.BytesIO()
    Image.fromarray(block.image.squeeze()).save(content, "PNG")
    return content.getvalue()


def _grouped(blocks: Iterable[Block]) -> list[tuple[str, list[Block]]]:
    """Split blocks into runs of the same kind: `text`, `table` or `figure`."""

    def kind(block: Block) -> str:
        return "text" if isinstance(block, Text) else "table" if isinstance(block, Table) else "figure"

    return [(name, list(group)) for name, group in groupby(blocks, kind)]
