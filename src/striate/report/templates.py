"""Render the HTML templates of reports. All of them extend base.html; the only stylesheet is style.css."""

from __future__ import annotations

import functools
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import striate
from striate import strict_json
from striate.report import chart_data, messages
from striate.sections import Card, Phrase, Value
from striate.transforms.thumbnails import thumbnail

_WIDE = (
    "Curves", "ConfusionMatrix", "Gallery", "ClassCurves", "ImageAttention", "Answers", "EpochSamples",
    "DetectionImages",
)  # fmt: skip


def render(name: str, *, title: str, **values: Any) -> str:
    """Render a template of this folder to a page that refers to nothing outside itself.

    Args:
        name: file name of the template.
        title: heading of the page.
        values: whatever else the template needs, and any of these: `subtitle`, one line below the heading;
            `cards`, key figures, records of `striate.sections.Card`; `footer`, a sentence after the version;
            `full_width`, True to use up to 1500 pixels instead of 1160; `scripts`, file names in `script/`
            besides the one of all pages.
    """
    scripts = ("core.js", *values.pop("scripts", ("tables.js", "plain.js")))
    return _environment().get_template(name).render(title=title, scripts=scripts, **values)


@functools.cache
def translations() -> dict[str, str]:
    """The Chinese text for each English one that pages contain."""
    text = files("striate.report").joinpath("chinese.json").read_text("utf-8")
    found: dict[str, str] = strict_json.loads(text)
    return {**messages.templates(), **found}


@functools.cache
def _environment() -> Environment:
    """Return the environment, which escapes all text and rejects undefined names."""
    environment = Environment(
        loader=PackageLoader("striate", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "t": translated,
        "words": _words,
        "message": lambda text: translated(messages.phrase_of(text)),
        "packed": lambda text: strict_json.dumps(chart_data.phrase_json(messages.phrase_of(text))),
        "phrase": lambda text, **values: translated(Phrase(text, **values)),
    }
    environment.policies |= {"json.dumps_function": strict_json.dumps, "json.dumps_kwargs": {}}
    environment.globals |= {
        "zip": zip, "version": striate.__version__, "script": _scripts, "translations": translations(),
        "interval": _interval, "percent": _percent, "thumbnail": thumbnail, "wide_figures": _WIDE,
        "values_of": chart_data.table,
    }  # fmt: skip
    environment.globals |= {"subtitle": "", "cards": (), "footer": "", "full_width": False}
    return environment


def number(value: Value, spec: str = "") -> str:
    """Format a value for readers.

    Args:
        value: a number; text stays unchanged, and None and NaN become a dash.
        spec: a Python format, such as `.1%` or `,d`.
    """
    if value is None or value != value:
        return "\N{EN DASH}"
    return value if isinstance(value, str) else format(value, spec).replace("%", "\N{NO-BREAK SPACE}%")


def translated(text: str) -> str:
    """HTML of a phrase, which a script can show in another language; other text, such as a name, stays."""
    if not isinstance(text, Phrase):
        return text
    source = strict_json.dumps(chart_data.phrase_json(text))
    return Markup('<span data-t="{}">{}</span>').format(source, _coded(str(text)))


def _coded(text: str) -> Markup:
    """HTML of a text in which what is in backticks is code."""
    parts = re.split("`([^`]+)`", text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _words(command: str) -> Markup:
    """HTML of a command line that breaks between its words only, as long as they fit."""
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in command.split(" "))


def _scripts(*names: str) -> Markup:
    """The content of files in `script/`, which contain no end of a script."""
    folder = files("striate.report").joinpath("script")
    return Markup("\n".join(folder.joinpath(name).read_text("utf-8") for name in names))


def _interval(card: Card) -> Phrase:
    assert card.interval is not None
    low, high = (number(end, card.format) for end in card.interval)
    return Phrase("95\N{NO-BREAK SPACE}% interval {low} to {high}", low=low, high=high)


def _percent(share: float) -> str:
    """A share as CSS length."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
