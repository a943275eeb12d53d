"""What the commands share: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from striate.progress import Progress

if TYPE_CHECKING:
    from striate.inference.evaluation import Evaluation

_EVERY = 10.0  # seconds between two plain lines of the same stage


class Lines(Progress):
    """Progress where nobody watches a terminal: a line now and then."""

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Note the stage; its first line comes after a while, short stages have none."""
        self._stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._started = self._spoke = time.monotonic()

    def advance(self, done: int, **figures: float) -> None:
        """Print a line if the last one is long past."""
        self._done += done
        now = time.monotonic()
        if now - self._spoke < _EVERY:
            return
        self._spoke = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate
        self.info(f"{self._stage}: {self._done}/{self._total}, {rate:,.0f} {self._unit}/s, {left:.0f} s left")

    def info(self, message: str) -> None:
        """Print the line."""
        print(message, file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Print the line, marked."""
        self.info(f"warning: {message}")


@contextmanager
def watching() -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from striate.cli.bars import Bars

    with Bars() as bars:
        yield bars


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object, the only thing on standard output."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        text = json.dumps(value, indent=2)  # a file name that is no UTF-8 is escaped: JSON has no other way
    print(text)


def percent(share: float) -> str:
    """A fraction of one as text."""
    return f"{100 * share:.2f} %"


def print_evaluation(evaluation: Evaluation, most: int = 30) -> None:
    """The figures of an evaluation as people read them; of many classes, those that fare worst."""
    from rich.console import Console
    from rich.table import Table

    out = Console(highlight=False)
    low, high = evaluation.top1_ci
    out.print(
        f"[bold]top-1 {percent(evaluation.top1)}[/bold] of {evaluation.n:,} {evaluation.what} "
        f"(95 % interval {percent(low)} to {percent(high)})"
    )
    if len(evaluation.classes) > 5:
        out.print(f"top-5 {percent(evaluation.top5)}")
    out.print(f"calibration error {evaluation.ece:.4f}")
    scores = sorted(evaluation.per_class, key=lambda s: s.f1)[:most]
    if len(scores) == len(evaluation.per_class):
        scores = list(evaluation.per_class)
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("class", overflow="fold")
    for title in ("images", "precision", "recall", "F1"):
        table.add_column(title, justify="right")
    called = dict(zip(evaluation.classes, evaluation.confusion.sum(axis=0).tolist(), strict=True))
    for s in scores:
        shares = [percent(share) for share in (s.precision, s.recall, s.f1)]
        if not called[s.name]:  # a precision of nothing
            shares[0] = "–"
        table.add_row(_plain(s.name), f"{s.support:,}", *shares)
    out.print(table)
    if len(scores) < len(evaluation.per_class):
        out.print(f"(the {len(scores)} of {len(evaluation.per_class)} classes with the lowest F1)")
    if evaluation.missing_classes:
        out.print(f"no images of: {_plain(', '.join(evaluation.missing_classes))}")
    for name, count in evaluation.extra_classes.items():
        out.print(f"unknown to the model, not measured: {_plain(name)} ({count} images)")
    for problem in evaluation.problems[:10]:
        out.print(f"unreadable, not measured: {_plain(problem.path)} ({_plain(problem.reason)})")
    if len(evaluation.problems) > 10:
        out.print(f"... and {len(evaluation.problems) - 10} more unreadable images")
    for note in evaluation.notes:
        out.print(f"note: {_plain(note)}")


def print_profile(profile: dict[str, float]) -> None:
    """Where the time of training went."""
    from rich.console import Console
    from rich.table import Table

    from striate.training.profile import shares

    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("where the time went")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for name, seconds, share in shares(profile):
        table.add_row(name, f"{seconds:,.1f}", percent(share))
    Console(highlight=False).print(table)


def _plain(text: str) -> str:
    """Text of the user's, in which square brackets are no markup."""
    from rich.markup import escape

    return escape(text)
