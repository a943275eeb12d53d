"""`striate seq2seq translate`, and what `striate predict` does with a model that reads text in images."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from striate.inference.translator import Translation, Translations, Translator

_AT_ONCE = 256  # sources that are read from a file before their answers are printed


def translate(
    model: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Texts, or image files and folders; without any, lines of standard input.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[str | None, typer.Option("--file", help="A text file: its lines.")] = None,
    beam: Annotated[int, typer.Option("--beam", help="Answers followed at once; 1 for greedy.", min=1)] = 1,
    n_best: Annotated[int, typer.Option("--n-best", help="Answers for each, with scores.", min=1)] = 1,
    alpha: Annotated[float, typer.Option(help="Exponent of the length penalty.")] = 0.6,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Write what texts become, a line for each: of arguments, a file, standard input, or as you type.

    Python: striate.load_translator("runs/words").translate(["hello"], beams=5).results[0].text
    """
    from striate.cli.console import print_json
    from striate.data.images.folders import find_images
    from striate.errors import UsageError
    from striate.inference.translator import load_translator

    if texts and file:
        raise UsageError("texts and --file", "there is one source", "Give one of the two")
    translator = load_translator(model, device)
    options = {"beams": max(beam, n_best), "best": n_best, "alpha": alpha}
    if not texts and file is None and sys.stdin.isatty():
        return _converse(translator, options)
    sources: Iterable[str] = texts or _lines(file)
    if translator.reads_images:
        sources = [path for source in sources for path in find_images(source)]
    told: list[dict[str, Any]] = []
    written, seconds, failed, count = 0, 0.0, 0, 0
    for done in _in_pieces(translator, sources, options):
        written, seconds = written + done.tokens, seconds + done.seconds
        for result in done.results:
            count += 1
            failed += result.error is not None
            if as_json:
                told.append(_result(result))
            else:
                _print_answers(result, n_best, named=translator.reads_images)
    if not count:
        raise UsageError("nothing to translate", "there is no line", "Give texts, --file or standard input")
    rate = written / max(seconds, 1e-9)
    if as_json:
        print_json({"results": told, "tokens": written, "seconds": seconds, "tokens_per_second": rate})
    else:
        print(f"{written:,} tokens, {rate:,.0f} tok/s", file=sys.stderr)
    return 0 if failed < count else 3


def read_images(model: str, paths: list[str], device: str, *, as_json: bool, as_csv: bool) -> int:
    """What `striate predict` does with a model that reads text."""
    from striate.cli.console import print_json, watching
    from striate.errors import BundleError, DataError
    from striate.inference.translator import load_translator

    translator = load_translator(model, device)
    if not translator.reads_images:
        raise BundleError(
            f"{model!r} reads no images", "it was trained on text", "Use `striate seq2seq translate` with it"
        )
    with watching() as progress:
        progress.begin("reading", len(paths))
        done = translator.translate(paths, progress=progress)
        progress.end()
    if as_json:
        print_json(
            {
                "results": [
                    {"path": r.source, "error": r.error, "text": r.text if r.answers else None}
                    for r in done.results
                ],
                "tokens_per_second": done.tokens_per_second,
            }
        )
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "error", "text"])
        writer.writerows((r.source, r.error or "", r.text) for r in done.results)
    else:
        for result in done.results:
            _print_answers(result, 1, named=True)
    if all(result.error is not None for result in done.results):
        raise DataError(f"none of {len(paths)} images could be read")
    return 0


def _print_answers(result: Translation, n_best: int, *, named: bool) -> None:
    name = f"{result.source}  " if named else ""
    if result.error is not None:
        print(f"{name}cannot be read: {result.error}")
    elif n_best == 1:
        print(f"{name}{result.text}", flush=True)
    else:
        for answer in result.answers:
            print(f"{name}{answer.score:9.4f}  {answer.text}", flush=True)


def _result(result: Translation) -> dict[str, Any]:
    return {
        "source": result.source,
        "error": result.error,
        "answers": [{"text": a.text, "score": a.score, "ended": a.ended} for a in result.answers],
    }


def _lines(file: str | None) -> Iterator[str]:
    from striate.errors import DataError

    if file is None:
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    try:
        with Path(file).expanduser().open(encoding="utf-8") as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file!r}", str(error)) from error


def _in_pieces(
    translator: Translator, sources: Iterable[str], options: dict[str, Any]
) -> Iterator[Translations]:
    """Some sources after the other, so that the first answers come before the last source is read."""
    remaining = iter(sources)
    while piece := list(islice(remaining, _AT_ONCE)):
        yield translator.translate(piece, **options)


def _converse(translator: Translator, options: dict[str, Any]) -> int:
    """Answer each line as it is typed."""
    print("Type a line, Ctrl-D to end.", file=sys.stderr)
    while True:
        try:
            line = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return 0
        if line.strip():
            done = translator.translate([line], **options)
            _print_answers(done.results[0], options["best"], named=False)
            print(f"{done.tokens_per_second:,.0f} tok/s", file=sys.stderr)
