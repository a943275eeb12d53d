"""What long work tells whoever watches it.

Libraries return records and do not print. Work that takes long is handed a `Progress`; this one says
nothing, the command line has one that draws bars and one that writes plain lines.
"""

from __future__ import annotations


class Progress:
    """A silent watcher, and the shape of all others."""

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """A stage of `total` units starts."""

    def advance(self, done: int, **figures: float) -> None:
        """`done` more units are finished; `figures` are worth showing beside the bar (a loss, a rate)."""

    def end(self) -> None:
        """The stage is over."""

    def info(self, message: str) -> None:
        """A fact worth a line."""

    def warn(self, message: str) -> None:
        """Something the user should know about, though the work goes on."""


SILENT = Progress()
