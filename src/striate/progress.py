"""Interface for progress reports of long operations.

Libraries do not print. Long operations report to a `Progress`: this base class ignores the reports; the
command line has subclasses that show progress bars or plain lines.
"""

from __future__ import annotations


class Progress:
    """Receives progress reports and ignores them; base class of all others."""

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Start a stage of `total` units."""

    def advance(self, done: int, **figures: float) -> None:
        """Report `done` more units; `figures` are shown next to the progress bar (a loss, a rate)."""

    def end(self) -> None:
        """End the stage."""

    def info(self, message: str) -> None:
        """Report a message, such as a line of a log."""

    def warn(self, message: str) -> None:
        """Report a warning; the operation continues."""


SILENT = Progress()
