"""Render the HTML templates of reports. All of them extend base.html, which has the only stylesheet."""

from __future__ import annotations

import base64
import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import striate
from striate import strict_json
from striate.sections import Value


def render(name: str, *, title: str, **values: Any) -> str:
    """Render a template of this folder to a page that refers to nothing outside itself.

    Args:
        name: file name of the template.
        title: heading of the page.
        values: whatever else the template needs, and any of these: `subtitle`, one line below the heading;
            `cards`, key figures, records of `striate.sections.Card`; `footer`, a sentence after the version;
            `full_width`, True to use up to 1500 pixels instead of 1000.
    """
    return _environment().get_template(name).render(title=title, **values)


@functools.cache
def _environment() -> Environment:
    """Return the environment, which escapes all text and rejects undefined names."""
    environment = Environment(
        loader=PackageLoader("striate", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["number"] = number
    environment.policies |= {"json.dumps_function": strict_json.dumps, "json.dumps_kwargs": {}}
    environment.globals |= {"zip": zip, "version": striate.__version__}
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


def data_url(content: bytes, kind: str) -> str:
    """Return the URL that holds an image file, of the kind `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
