"""Records that a report is made of: what a page shows, not how it looks.

Tasks return them and `striate.report` draws them. Numbers stay numbers and images stay arrays, so another
renderer can draw the same report. `striate.charts` has the figures. Neither loads matplotlib or torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import Any

from striate.charts import Answers, Figure, LabelPredictions, Predictions

Value = str | int | float | None


class Phrase(str):
    """A text with values in it that a page can show in other languages, too; otherwise its English text.

    `Phrase("{n:,} images of {split}", n=5, split="val")` equals `"5 images of val"`.

    Attributes:
        template: the text with the names of its values in braces, without their formats.
        values: the formatted values by name. A `Phrase` among them is translated as well.
    """

    template: str
    values: dict[str, str]
    _source: tuple[str, dict[str, Any]]

    def __new__(cls, template: str, **values: Any) -> Phrase:
        """Format the template as `str.format` does."""
        shown, plain = {}, ""
        for text, name, spec, _ in Formatter().parse(template):
            plain += text
            if name is not None:
                value = values[name]
                shown[name] = value if isinstance(value, Phrase) else format(value, spec or "")
                plain += f"{{{name}}}"
        phrase = super().__new__(cls, template.format(**values))
        phrase.template, phrase.values, phrase._source = plain, shown, (template, values)
        return phrase

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        """What a copy is made from."""
        template, values = self._source
        return (template,), values


class Remark(str):
    """A message that only informs, among the notes of a run or an evaluation; the others are warnings."""

    __slots__ = ()


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: plain text, without markup.
        secondary: whether it only explains what the reader sees elsewhere.
    """

    text: str
    secondary: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        format: Python format of its numbers, such as `.1%`; empty for text.
        bar_max: value of a full bar next to each number; 0 for no bars.
        messages: whether its texts are messages, such as reasons of errors, not names.
    """

    title: str
    format: str = ""
    bar_max: float = 0.0
    messages: bool = False


@dataclass(frozen=True)
class Estimate:
    """A share of some trials with its 95 % interval, in a table."""

    value: float
    low: float
    high: float


Cell = Value | Estimate


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        columns: one for each value of a row.
        rows: the values; None where there is nothing to measure.
        of_classes: whether there is a row for each class of the report's predictions, in their order.
        picks: what a click on a row chooses in the page by the text of its first cell: `image`; empty for
            nothing.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    of_classes: bool = False
    picks: str = ""


@dataclass(frozen=True)
class Listing:
    """Names and values, such as versions; `code` for what a terminal takes.

    Attributes:
        items: what it is, and its value; a value is never translated.
        code: a command line to copy; empty for none.
    """

    items: tuple[tuple[str, str], ...]
    code: str = ""


Block = Text | Table | Figure | Listing


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        heading: the thing that it shows.
        blocks: from top to bottom; figures that follow one another stand side by side where there is room.
        note: what the reader must know to understand it.
    """

    heading: str
    blocks: tuple[Block, ...]
    note: str = ""


@dataclass(frozen=True)
class Card:
    """A key figure at the top of a report.

    Attributes:
        value: the figure.
        label: what it measures.
        format: Python format of a number, such as `.1%`.
        unit: stands after the number.
        interval: 95 % confidence interval, in the same format.
    """

    value: Value
    label: str
    format: str = ""
    unit: str = ""
    interval: tuple[float, float] | None = None

    @property
    def is_share(self) -> bool:
        """Whether the figure is a fraction of one, shown as a percentage."""
        return self.format.endswith("%")


@dataclass(frozen=True)
class Report:
    """A page.

    Attributes:
        title: its heading.
        subtitle: what the report is about, in one line.
        sections: from top to bottom.
        cards: key figures, the most important one first.
        warnings: what a reader of the figures must know; duplicates are shown once. A `Remark` among them
            follows in the color of plain text.
        commands: command lines that use the model.
        config: configuration of the run as YAML; empty for none.
        predictions: what figures such as the gallery show; None if there are none.
        answers: of a model of sequences; None if there are none.
        label_predictions: of a model for images with several classes; None if there are none.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    cards: tuple[Card, ...] = ()
    warnings: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    config: str = ""
    predictions: Predictions | None = None
    answers: Answers | None = None
    label_predictions: LabelPredictions | None = None
