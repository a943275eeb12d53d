"""The help of `striate` itself, as Typer prints it, without loading the renderer: that takes 0.1 s."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Sequence

NARROWEST = 64  # columns from which the options look like this
# Variables that change how Typer and Rich print.
UNUSUAL = (
    "FORCE_COLOR", "GITHUB_ACTIONS", "NO_COLOR", "PY_COLORS", "TERMINAL_WIDTH", "TTY_COMPATIBLE",
    "TYPER_USE_RICH", "_TYPER_FORCE_DISABLE_TERMINAL",
)  # fmt: skip
_OPTIONS = {
    "--version": "Print the version and exit.",
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it or customize the installation.",
    "--help": "Show this message and exit.",
}
_OPTION_WIDTH = 28
_BOLD, _DIM, _NAME, _USAGE = "1", "2", "1;36", "1;33"  # of the terminal's codes


def usual_width() -> int | None:
    """Return the number of columns of the output; None if Typer must print because something is unusual."""
    if os.name != "posix" or any(name in os.environ for name in UNUSUAL):
        return None
    if (sys.stdout.encoding or "").lower().replace("_", "-") != "utf-8":
        return None  # other characters for the lines
    if sys.stdout.isatty() and os.environ.get("TERM", "").lower() in ("", "dumb", "unknown"):
        return None
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else _terminal_width()
    return width if width >= NARROWEST else None


def _terminal_width() -> int:
    for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
        try:
            return os.get_terminal_size(stream.fileno()).columns or 80  # type: ignore[union-attr]
        except (AttributeError, ValueError, OSError):
            continue
    return 80


def text(summary: str, commands: Sequence[tuple[str, str]], width: int, *, color: bool) -> str:
    """Return the help.

    Args:
        summary: what the program does.
        commands: name and summary of each, in order.
        width: number of columns.
        color: with the terminal's codes.
    """

    def paint(style: str, *parts: str) -> str:
        return "".join(f"\x1b[{style}m{part}\x1b[0m" if color and part else part for part in parts)

    def panel(title: str, rows: Iterable[str]) -> Iterable[str]:
        yield paint(_DIM, "╭─", f" {title} ", "─" * (width - 6 - len(title)), "─╮")
        for row in rows:
            yield f"{paint(_DIM, '│')} {row} {paint(_DIM, '│')}"
        yield paint(_DIM, f"╰{'─' * (width - 2)}╯")

    def options() -> Iterable[str]:
        wide = width - _OPTION_WIDTH - 12
        kind = paint("1;2;33", "<") + paint(_USAGE, "bool") + paint("1;2;33", ">")
        for name, description in _OPTIONS.items():
            words = [f"-{word}" for word in name[1:].split("-")]
            start = paint(_NAME, *words) + " " * (_OPTION_WIDTH - len(name)) + f"{kind}  "
            for line in textwrap.wrap(description, wide, break_on_hyphens=False):
                yield start + line.ljust(wide)
                start = " " * (_OPTION_WIDTH + 8)

    def rows() -> Iterable[str]:
        wide = max(len(name) for name, _ in commands)
        for name, description in commands:
            start = paint(_NAME, name.ljust(wide), " ")
            for line in textwrap.wrap(description, width - wide - 6, break_on_hyphens=False):
                yield f"{start} {line.ljust(width - wide - 6)}"
                start = paint(_NAME, " " * (wide + 1))

    usage = "striate [OPTIONS] COMMAND [ARGS]..."
    lines = [
        paint(_BOLD, " " * width),
        paint(_BOLD, " ") + paint(_USAGE, "Usage: ")
        + paint(_BOLD, usage, " " * (width - len(usage) - 9), " "),
        paint(_BOLD, " " * width),
        *(f" {line}".ljust(width) for line in textwrap.wrap(summary, width - 2, break_on_hyphens=False)),
        " " * width, *panel("Options", options()), *panel("Commands", rows()), "", "",
    ]  # fmt: skip
    return "\n".join(lines)
