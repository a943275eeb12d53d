"""Progress reports of long operations, and their display in notebooks.

Libraries do not print. Long operations report to a `Progress`: this base class ignores the reports; the
command line has subclasses that show progress bars or plain lines. `AUTO`, which functions use unless the
caller gives another one, shows a bar and the messages in a Jupyter notebook, and nothing elsewhere.
"""

from __future__ import annotations

import html
import importlib
import sys
import time
from typing import Any

from striate.printable import escaped

_APPEARS = 0.5  # seconds that a stage must last to get a bar: shorter ones would only flicker
_EVERY = 0.2  # seconds between two updates of the display
_LINES = 200  # messages that the display keeps, the last ones


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


class NotebookProgress(Progress):
    """One display below the running cell of a notebook: the messages, and a bar while a stage lasts.

    Outside a Jupyter kernel it ignores the reports, as its base class does. It never loads IPython: a kernel
    has done that.
    """

    def __init__(self) -> None:
        self._shell: Any = None  # of the cell that the display belongs to
        self._forget()

    def __reduce__(self) -> str:
        """What copies and other processes get: their own `AUTO`."""
        return "AUTO"

    def __repr__(self) -> str:
        """Its name, for signatures."""
        return "AUTO"

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Start a stage; its bar appears if it lasts."""
        if self._attach():
            self._stage, self._total, self._unit = stage, total, unit
            self._done, self._figures = 0, ""
            self._started = time.monotonic()

    def advance(self, done: int, **figures: float) -> None:
        """Move the bar."""
        if not self._stage:
            return
        self._done += done
        if figures:
            self._figures = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
        if time.monotonic() - self._started >= _APPEARS:
            self._draw()

    def end(self) -> None:
        """Remove the bar, at the latest when the cell ends: the next stage often begins at once."""
        self._stage = ""

    def info(self, message: str) -> None:
        """Add a line."""
        if self._attach():
            self._messages.append(message)
            self._draw()

    def warn(self, message: str) -> None:
        """Add a line that starts with `warning:`."""
        self.info(f"warning: {message}")

    def _forget(self) -> None:
        self._stage = self._figures = self._unit = ""
        self._total = self._done = 0
        self._started = self._drawn = 0.0
        self._messages: list[str] = []
        self._display_id: str | None = None

    def _attach(self) -> bool:
        """Whether there is a display; the kernel calls `_finish` after the cell, also after errors."""
        shell = _kernel_shell()
        if shell is not None and shell is not self._shell:
            shell.events.register("post_run_cell", self._finish)
        self._shell = shell
        return shell is not None

    def _finish(self, *_: object) -> None:
        """Show what is missing, without a bar; the next cell gets another display."""
        self._stage, self._drawn = "", 0.0
        if self._messages or self._display_id:
            self._draw()
        self._forget()

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn < _EVERY:
            return  # `_finish` shows the last state
        self._drawn = now
        display = importlib.import_module("IPython.display")
        lines = [escaped(message) for message in self._messages[-_LINES:]]
        content = {"text/plain": "\n".join(lines), "text/html": self._html(lines, now)}
        if self._display_id is None:
            self._display_id = display.display(content, raw=True, display_id=True).display_id
        else:
            display.update_display(content, raw=True, display_id=self._display_id)

    def _html(self, lines: list[str], now: float) -> str:
        """The messages and the bar, in the colors of the page, dark or light."""
        parts = []
        if lines:
            text = html.escape("\n".join(lines))
            parts.append(f'<pre style="margin:0;white-space:pre-wrap;font-size:12px">{text}</pre>')
        if self._stage:
            rate = self._done / max(now - self._started, 1e-9)
            left = f", {max(0, self._total - self._done) / rate:,.0f} s left" if rate else ""
            counts = f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.0f} {self._unit}/s{left}"
            parts.append(
                '<div style="font-size:12px;white-space:pre-wrap">'
                f'<progress value="{self._done}" max="{max(1, self._total)}"></progress> '
                f"{html.escape(escaped(f'{self._stage}: {counts}  {self._figures}'))}</div>"
            )
        return "".join(parts)


def _kernel_shell() -> Any:
    """The shell of the Jupyter kernel that runs this process; None in terminals and scripts."""
    find = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = find() if find else None
    return shell if hasattr(shell, "kernel") else None


SILENT = Progress()
AUTO = NotebookProgress()
