"""`striate seq2seq translate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.evaluate import MAX_BEAM, SourceColumns
from striate.cli.options import Device, Json, Model, number
from striate.printable import escaped

if TYPE_CHECKING:
    from striate.inference.translator import Translation, Translator

_TEXTS = "Texts, or image files and folders."
_FILE = "File of sources: the lines of a text file, or the source columns of a .tsv or .csv file."
_CUT = " [cut]"  # after an answer that reached the maximum length
_CHUNK = 256  # sources: their translations are printed before the next ones are read
_LARGE_CHUNK = 2048  # sources of a file, whose lines are there already
_ENGINES = ["auto", "torch", "ctranslate2", "ctranslate2-int8"]
_ENGINE = (
    "What runs the network: torch; ctranslate2 or, with int8 weights, ctranslate2-int8; or auto: for many "
    "lines ctranslate2, if it writes the texts of a sample as torch does and in less time."
)


def translate(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help=_TEXTS, show_default="standard input")
    ] = None,
    file: Annotated[str | None, typer.Option(help=_FILE)] = None,
    source_columns: SourceColumns = None,
    beam: Annotated[int, number("Beam size; 1 for greedy search.", low=1, high=MAX_BEAM)] = 1,
    n_best: Annotated[int, number("Translations per source, with scores.", low=1, high=MAX_BEAM)] = 1,
    alpha: Annotated[float, number("Exponent of the length penalty.", low=-100, high=100)] = 0.6,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help=_ENGINE, autocompletion=lambda: _ENGINES)] = "auto",
    as_json: Json = False,
) -> int:
    """Translate texts given as arguments, in a file, on standard input, or typed one by one.

    A model that was trained on images recognizes the text in image files.

    Python: striate.load_translator("runs/words-small").translate(["hello"], beams=5).results[0].text
    """
    from striate.cli.console import print_json
    from striate.data.images.folders import find_images
    from striate.errors import UsageError
    from striate.exporters.translation import load
    from striate.inference.translator import warnings_of

    _require_sources(texts, file, source_columns)
    translator = load(model, device, engine=engine)
    options: dict[str, Any] = {"beams": max(beam, n_best), "best": n_best, "alpha": alpha}
    if not texts and file is None and sys.stdin.isatty():
        return _interactive(translator, options)
    sources: Iterable[str] = texts or _sources(file, source_columns, translator)
    if translator.reads_images:
        sources = [path for source in sources for path in find_images(source)]
    results: list[Translation] = []  # all for JSON, otherwise only those with a warning
    written, seconds, failed, count = 0, 0.0, 0, 0
    remaining = iter(sources)
    while chunk := list(islice(remaining, _CHUNK if file is None else _LARGE_CHUNK)):
        done = translator.translate(chunk, **options)
        written, seconds = written + done.tokens, seconds + done.seconds
        for result in done.results:
            count += 1
            failed += result.error is not None
            if as_json or result.unknown or result.empty or result.cut:
                results.append(result)
            if not as_json:
                _print_answers(result, n_best, named=translator.reads_images)
    if not count:
        raise UsageError("nothing to translate", "the input is empty", "Give texts, --file or standard input")
    rate = written / max(seconds, 1e-9)
    _warn(warnings := warnings_of(results, count))
    if as_json:
        print_json({
            "results": [_result(result) for result in results], "notes": warnings, "tokens": written,
            "seconds": seconds, "tokens_per_second": rate,
        })  # fmt: skip
    else:
        print(f"{written:,} tokens, {rate:,.0f} tok/s", file=sys.stderr)
    return 0 if failed < count else 3


def _require_sources(texts: list[str] | None, file: str | None, columns: str | None) -> None:
    """Refuse two sources of text, and columns without a file."""
    from striate.errors import UsageError

    if texts and file:
        raise UsageError("texts and --file", "only one source of text is allowed", "Use one of the two")
    if columns and file is None:
        raise UsageError("--source-columns", "only a file has columns", "Give it with --file")


def _print_answers(result: Translation, n_best: int, *, named: bool) -> None:
    from striate.cli.console import no_answer

    name = f"{escaped(result.source)}  " if named else ""
    if result.error is not None:
        print(f"{name}{escaped(no_answer(result.error))}")
    elif n_best == 1:
        print(f"{name}{escaped(result.text)}{_CUT if result.cut else ''}", flush=True)
    else:
        for answer in result.answers:
            print(
                f"{name}{answer.score:9.4f}  {escaped(answer.text)}{'' if answer.ended else _CUT}", flush=True
            )


def _result(result: Translation) -> dict[str, Any]:
    return {
        "source": result.source,
        "error": result.error,
        "unknown": list(result.unknown),
        "empty": result.empty,
        "answers": [{"text": a.text, "score": a.score, "ended": a.ended} for a in result.answers],
    }


def _sources(file: str | None, columns: str | None, translator: Translator) -> Iterator[str]:
    """The sources in a file, or the lines of standard input as they arrive."""
    from striate.data.text.columns import ColumnSelection
    from striate.data.text.reader import lines_of, read_lines
    from striate.data.text.tables import read_sources
    from striate.files import expanded

    if file is None:
        return lines_of(sys.stdin.buffer, "standard input")
    path = expanded(file)
    if translator.reads_images:
        return read_lines(path)
    trained = ColumnSelection.of_training(translator.description.text)
    return read_sources(path, ColumnSelection.of(columns) or trained)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {escaped(warning)}", file=sys.stderr)


def _interactive(translator: Translator, options: dict[str, Any]) -> int:
    """Translate each line that the user types."""
    from striate.inference.translator import warnings_of

    print("Type a line to translate it; Ctrl-D ends.", file=sys.stderr)
    while True:
        try:
            line = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return 0
        if line.strip():
            done = translator.translate([line], **options)
            _print_answers(done.results[0], options["best"], named=False)
            _warn(warnings_of(done.results))
            print(f"{done.tokens_per_second:,.0f} tok/s", file=sys.stderr)
