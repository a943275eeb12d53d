"""Progress bars in a terminal."""

from __future__ import annotations

from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from striate.printable import escaped
from striate.progress import Progress


class Bars(Progress):
    """Shows one progress bar with throughput and remaining time; messages scroll above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"), progress.BarColumn(bar_width=30),
            progress.MofNCompleteColumn(), _Rate(), progress.TextColumn("{task.fields[figures]}"),
            progress.TimeRemainingColumn(), console=self._console, transient=True,
        )  # fmt: skip
        self._task: progress.TaskID | None = None

    def __enter__(self) -> Bars:
        """Start the display."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the display, also after an error."""
        self._bars.stop()

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Show a new bar."""
        self.end()
        self._task = self._bars.add_task(escape(escaped(stage)), total=total, figures="", unit=unit)

    def advance(self, done: int, **figures: float) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, done)
            if figures:
                text = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
                self._bars.update(self._task, figures=text)

    def end(self) -> None:
        """Remove the bar."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def info(self, message: str) -> None:
        """Print a message above the bar."""
        self._console.print(escape(escaped(message)))

    def warn(self, message: str) -> None:
        """Print a warning above the bar."""
        self._console.print(f"[yellow]warning:[/yellow] {escape(escaped(message))}")


class _Rate(progress.ProgressColumn):
    """Column with units per second."""

    def render(self, task: progress.Task) -> Text:
        """Return the rate; empty before the first update."""
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")
