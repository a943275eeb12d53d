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
_PLACE = re.compile(r"\{(\w+)\}")


@functools.cache
def templates() -> dict[str, str]:
    """The Chinese text for each template."""
    text = files("striate.report").joinpath("chinese_messages.json").read_text("utf-8")
    found: dict[str, str] = strict_json.loads(text)
    return found


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """A pattern for each template; those with the most text of their own come first."""
    order = sorted(templates(), key=lambda template: -len(_PLACE.sub("", template)))
    return tuple((re.compile(_pattern(template), re.DOTALL), template) for template in order)


def _pattern(template: str) -> str:
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
    return pattern


def phrase_of(text: str) -> str:
    """A message as a phrase, if its template is known; other text as it is."""
    if isinstance(text, Phrase) or len(text) > _LONGEST:
        return text
    for pattern, template in _patterns():
        if (found := pattern.fullmatch(text)) is not None:
            values = found.groupdict()
            return Phrase(
                template, **{k: phrase_of(v) if k.endswith("_text") else v for k, v in values.items()}
            )
    return text
