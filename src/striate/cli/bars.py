"""Progress bars for a terminal."""

from __future__ import annotations

from types import TracebackType

from rich import progress
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from striate.progress import Progress


class Bars(Progress):
    """One bar at a time, with throughput and time left; facts scroll above it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=30),
            progress.MofNCompleteColumn(),
            _Rate(),
            progress.TextColumn("{task.fields[figures]}"),
            progress.TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task: progress.TaskID | None = None

    def __enter__(self) -> Bars:
        """Take over the terminal's last line."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the line back, also after an error."""
        self._bars.stop()

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Show a bar."""
        self.end()
        self._task = self._bars.add_task(escape(stage), total=total, figures="", unit=unit)

    def advance(self, done: int, **figures: float) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, done)
            if figures:
                text = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
                self._bars.update(self._task, figures=text)

    def end(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def info(self, message: str) -> None:
        """Print the line above the bar."""
        self._console.print(escape(message))

    def warn(self, message: str) -> None:
        """Print the line above the bar, marked."""
        self._console.print(f"[yellow]warning:[/yellow] {escape(message)}")


class _Rate(progress.ProgressColumn):
    """Units a second."""

    def render(self, task: progress.Task) -> Text:
        """The rate, empty before there is one."""
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")
