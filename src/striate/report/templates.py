"""The HTML pages' templates: one environment for all of them."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@functools.cache
def _environment() -> Environment:
    """Text is escaped, and a name that a page uses and was not given is an error."""
    loader = PackageLoader("striate", "report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def template(name: str) -> Template:
    """The template in that file of this folder."""
    return _environment().get_template(name)
