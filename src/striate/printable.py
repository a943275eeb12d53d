"""Text that is safe to print in one line: names of files and classes may hold any characters.

Control characters could clear a terminal, change its title, or fake lines of output; those that change the
direction of text could hide what a name says (Unicode Technical Report 36, section 2.10).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BACKSLASH_NAMES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# C1 controls, line and paragraph separators, and marks that change the direction of text.
BEYOND_C0 = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
UNSAFE = re.compile(f"[\x00-\x1f{BEYOND_C0}]")


def escaped(text: object) -> str:
    r"""Text in one line: control characters as escapes, such as `\n` or `\x1b`; others are unchanged."""
    return UNSAFE.sub(lambda found: escape(found[0]), str(text))


def escape(char: str) -> str:
    r"""The escape of one character, as in Python and in a shell's `$'...'`: `\n`, `\x1b`, `\u2028`."""
    code = ord(char)
    return _BACKSLASH_NAMES.get(char) or (f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}")


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: `1 image`, `2,000 images`; `plural` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def first_few(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first names, and the number of others: `a, b, c and 7 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
