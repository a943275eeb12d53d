"""What commands print: progress on standard error, results on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from striate import strict_json
from striate.errors import DataError
from striate.printable import counted, escaped
from striate.progress import Progress

if TYPE_CHECKING:
    from striate.bundle import Calibration
    from striate.inference.evaluation import Evaluation
    from striate.inference.multi_label_evaluation import MultiLabelEvaluation
    from striate.inference.recalibration import Recalibration
    from striate.inference.robustness import Robustness
    from striate.inference.text_evaluation import TextEvaluation

_SLICES = 10  # with the lowest accuracy
_EVERY = 10.0  # seconds between two lines of the same stage


class Lines(Progress):
    """Progress without a terminal: a line now and then."""

    def begin(self, stage: str, total: int, unit: str = "images") -> None:
        """Remember the stage; its first line comes after an interval, so short stages have none."""
        self._stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._started = self._printed = time.monotonic()

    def advance(self, done: int, **figures: float) -> None:
        """Print a line if the last one is older than the interval."""
        self._done += done
        now = time.monotonic()
        if now - self._printed < _EVERY:
            return
        self._printed = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate
        self.info(f"{self._stage}: {self._done}/{self._total}, {rate:,.0f} {self._unit}/s, {left:.0f} s left")

    def info(self, message: str) -> None:
        """Print the message on standard error."""
        print(escaped(message), file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Print the message as a warning."""
        self.info(f"warning: {message}")


@contextmanager
def watching() -> Iterator[Progress]:
    """Show progress bars on a terminal, and print plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from striate.cli.bars import Bars

    with Bars() as bars:
        yield bars


def say(text: object) -> None:
    """Print one line on standard output; control characters in names are escaped."""
    print(escaped(text))


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object, the only thing on standard output."""
    text = strict_json.dumps(value, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # letters outside the encoding of standard output
        text = strict_json.dumps(value, indent=2, ascii_only=True)
    print(text)


def no_answer(error: str) -> str:
    """Why a source has no answer, in the place of the answer."""
    from striate.inference.prediction import NOT_FINITE

    return f"no answer: {error}" if error == NOT_FINITE else f"cannot be read: {error}"


def exit_code(succeeded: bool, failure: str, as_json: bool) -> int:
    """The exit code of a command that has printed the results of its sources.

    Args:
        succeeded: whether a source has a result.
        failure: the error if none has one; printed on standard error, as the results are the one JSON object.
        as_json: whether the results are JSON; otherwise the error is raised.

    Raises:
        DataError: the error.
    """
    if succeeded:
        return 0
    error = DataError(failure)
    if not as_json:
        raise error
    print(f"striate: {escaped(error)}", file=sys.stderr)
    return error.exit_code


def percent(share: float) -> str:
    """Format a fraction of one: 12.34 %."""
    return f"{100 * share:.2f} %"


def _points(share: float) -> str:
    """Format a fraction of one as scores of translations are given: 12.34."""
    return f"{100 * share:.2f}"


def interval(ends: tuple[float, float] | None, show: Callable[[float], str] = percent) -> str:
    """A 95 % interval in brackets, with a space before; empty if there is none."""
    if ends is None or ends[0] != ends[0]:
        return ""
    return f" (95 % interval {show(ends[0])} to {show(ends[1])})"


def print_evaluation(evaluation: Evaluation | MultiLabelEvaluation | TextEvaluation) -> None:
    """Print the metrics of an evaluation of any task."""
    if evaluation.task == "seq2seq":
        _print_text_scores(evaluation)
    elif evaluation.task == "multi-label":
        _print_multi_label(evaluation)
    else:
        _print_classification(evaluation)


def _print_text_scores(evaluation: TextEvaluation) -> None:
    scores = evaluation.scores
    ends = scores.intervals
    exact = f"exact match {percent(scores.exact)} of {scores.n:,} {evaluation.split} pairs"
    print(exact + interval(ends.get("exact")))
    print(f"character error rate {percent(scores.cer)}{interval(ends.get('cer'))}")
    print(f"word error rate {percent(scores.wer)}{interval(ends.get('wer'))}")
    for name, label, value in (("bleu", "BLEU", scores.bleu), ("chrf", "chrF", scores.chrf)):
        if value is not None:
            signature = scores.signatures[name]
            print(f"{label} {_points(value)}{interval(ends.get(name), _points)}  ({signature})")
    print(f"{evaluation.tokens_per_second:,.0f} tokens/s")
    if evaluation.columns:
        say(f"columns: {', '.join(map(str, evaluation.columns))}")
    for note in evaluation.notes:
        say(f"note: {note}")


def _print_classification(evaluation: Evaluation, most: int = 30) -> None:
    """Print accuracy, calibration and the classes; of many classes, those with the lowest F1."""
    from rich.console import Console
    from rich.markup import escape

    out = Console(highlight=False, soft_wrap=True)
    for metric, value in evaluation.shown.items():
        show = percent if metric.format.endswith("%") else "{:.4f}".format
        text = f"{metric.label} {'undefined' if value != value else show(value)}"
        ends = evaluation.intervals.get(metric.name)
        if metric.name != "top1":
            out.print(text + interval(ends, show))
            continue
        out.print(f"[bold]{text}[/bold] of {evaluation.n:,} {evaluation.what}{interval(ends)}")
        baseline = f"majority baseline {percent(evaluation.majority_top1)}"
        out.print(f"{baseline} (always {escape(escaped(evaluation.majority_class))})")
    for one in evaluation.slices[:_SLICES]:
        share = f"top-1 {percent(one.top1)} of {one.n:,}{interval(one.top1_ci)}"
        out.print(escape(escaped(f"{one.by} {one.value}: {share}, p = {one.p:.3g} (Holm)")))
    if evaluation.calibration is not None:
        out.print(escape(escaped(_temperature(evaluation.calibration))))
    scores = list(evaluation.per_class)
    if len(scores) > most:
        scores = sorted(scores, key=lambda s: s.f1)[:most]
    predictions = dict(zip(evaluation.classes, evaluation.confusion.sum(axis=0).tolist(), strict=True))
    rows = []
    for s in scores:
        precision = percent(s.precision) if predictions[s.name] else "–"  # undefined without predictions
        rows.append((escape(escaped(s.name)), f"{s.support:,}", precision, percent(s.recall), percent(s.f1)))
    for s in evaluation.averages:
        precision, recall, f1 = map(percent, (s.precision, s.recall, s.f1))
        rows.append((f"[dim]{s.name}[/dim]", f"{s.support:,}", precision, recall, f1))
    _print_table(("class", "images", "precision", "recall", "F1"), rows)
    if evaluation.robustness is not None:
        _print_robustness(evaluation.robustness)
    _print_remarks(evaluation, len(scores))


def _temperature(calibration: Calibration) -> str:
    """Whether the probabilities are calibrated."""
    if calibration.is_needed:
        return f"probabilities calibrated, temperature {calibration.temperature:.2f}"
    images = f"{calibration.images:,} images ({calibration.source})"
    return f"probabilities unchanged: {images} show no need to calibrate"


def _print_robustness(found: Robustness) -> None:
    """Print the accuracy under each corruption, and the mean."""
    from striate.transforms.corruptions import CORRUPTIONS

    rows = []
    for name, corruption in CORRUPTIONS.items():
        shares = [result.top1 for result in found.of(name)]
        mean = [sum(shares) / len(shares)] if len(shares) > 1 else []
        rows.append((corruption.label, *map(percent, [*shares, *mean])))
    means = ["mean"] if len(found.severities) > 1 else []
    titles = (f"top-1 of {found.n:,} images", *(f"severity {s}" for s in found.severities), *means)
    print()
    _print_table(titles, rows)
    print(f"without corruptions {percent(found.clean_top1)}{interval(found.clean_top1_ci)}")
    print(f"mean under corruptions {percent(found.mean_top1)}{interval(found.mean_top1_ci)}")
    if found.relative_drop is not None:
        print(f"relative drop {percent(found.relative_drop)}{interval(found.relative_drop_ci)}")


def _print_multi_label(evaluation: MultiLabelEvaluation, most: int = 30) -> None:
    """Print the metrics and the classes; of many classes, those with the lowest average precision."""
    from rich.console import Console
    from rich.markup import escape

    from striate.metrics.multi_label import METRICS

    out = Console(highlight=False, soft_wrap=True)
    for name, label in METRICS.items():
        text = f"{label} {percent(evaluation.metrics[name])}"
        of = f" of {evaluation.n:,} {evaluation.what}"
        first = f"[bold]{text}[/bold]{of}" if name == "map" else text
        out.print(first + interval(evaluation.intervals.get(name)))
    scores = list(evaluation.per_class)
    if len(scores) > most:
        scores = sorted(scores, key=lambda s: s.average_precision)[:most]
    rows = [
        (
            escape(escaped(s.name)), f"{s.support:,}", percent(s.average_precision) if s.support else "–",
            f"{s.threshold:.3f}", percent(s.precision), percent(s.recall), percent(s.f1),
        )
        for s in scores
    ]  # fmt: skip
    titles = ("class", "images", "average precision", "threshold", "precision", "recall", "F1")
    _print_table(titles, rows)
    _print_remarks(evaluation, len(scores), "average precision")


def _print_remarks(evaluation: Evaluation | MultiLabelEvaluation, shown: int, lowest: str = "F1") -> None:
    """Print what the figures leave out, and the notes."""
    lines = []
    if shown < len(evaluation.per_class):
        lines.append(f"(the {shown} of {len(evaluation.per_class)} classes with the lowest {lowest})")
    if evaluation.missing_classes:
        lines.append(f"no images of: {', '.join(evaluation.missing_classes)}")
    print_left_out(evaluation, lines)


def print_left_out(
    found: Evaluation | MultiLabelEvaluation | Recalibration, lines: Sequence[str] = ()
) -> None:
    """Print these lines, which images were left out, and the notes."""
    lines = list(lines)
    for name, count in found.extra_classes.items():
        lines.append(f"class unknown to the model, left out: {name} ({counted(count, 'image')})")
    lines += [f"unreadable, left out: {p.path} ({p.reason})" for p in found.problems[:10]]
    if len(found.problems) > 10:
        lines.append(f"... and {len(found.problems) - 10} more unreadable images")
    lines += [f"note: {note}" for note in found.notes]
    for line in lines:
        say(line)


def print_profile(profile: dict[str, float]) -> None:
    """Print where the training time went."""
    from striate.training.profile import shares

    rows = [(name, f"{seconds:,.1f}", percent(share)) for name, seconds, share in shares(profile)]
    _print_table(("phase", "seconds", "share"), rows)


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; all columns but the first hold numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(titles[0], overflow="fold")
    for title in titles[1:]:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)
