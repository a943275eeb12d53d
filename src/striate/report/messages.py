"""Recognize messages of other modules, which are plain English texts, so that pages can show them in Chinese.

`chinese_messages.json` has a Chinese text for each template, such as `{count} images cannot be read`. A value
whose name ends in `_text` is a message itself.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files

from striate import strict_json
from striate.sections import Phrase

_LONGEST = 2000  # letters of a message that is compared with the templates
_NUMBERS = {"count", "n", "total", "steps", "width", "height", "first", "last"}
_WORDS = {"kind", "most", "suffix"}
_MESSAGE = "{head_text}"  # that a template adds to
_PLACE = re.compile(r"\{(\w+)\}")


@functools.cache
def templates() -> dict[str, str]:
    """The Chinese text for each template."""
    text = files("striate.report").joinpath("chinese_messages.json").read_text("utf-8")
    found: dict[str, str] = strict_json.loads(text)
    return found


@functools.cache
def _with_values() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The templates with values, and the texts between these.

    Those that add to a message come first, because the message's own template would match all of the text.
    Then those with the most text.
    """
    found = [(template, tuple(_PLACE.split(template)[::2])) for template in templates() if "{" in template]
    return tuple(sorted(found, key=lambda one: (not one[0].startswith(_MESSAGE), -sum(map(len, one[1])))))


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    seen: set[str] = set()
    pattern = ""
    for i, part in enumerate(_PLACE.split(template)):
        if i % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P={part})"
        else:
            kind = r"[0-9.,]+" if part in _NUMBERS else r"\S+" if part in _WORDS else ".+?"
            pattern += f"(?P<{part}>{kind})"
            seen.add(part)
    return re.compile(pattern, re.DOTALL)


def phrase_of(text: str) -> str:
    """A message as a phrase, if its template is known; other text as it is."""
    if isinstance(text, Phrase) or len(text) > _LONGEST:
        return text
    if text in templates() and "{" not in text:
        return Phrase(text)
    for template, parts in _with_values():
        if not all(part in text for part in parts):
            continue  # compiling all patterns would take longer than the rest of a page
        if (found := _pattern(template).fullmatch(text)) is not None:
            values = found.groupdict()
            return Phrase(
                template, **{k: phrase_of(v) if k.endswith("_text") else v for k, v in values.items()}
            )
    return text
