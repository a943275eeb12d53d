"""`striate seq2seq translate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Device, Json, Model

if TYPE_CHECKING:
    from striate.inference.translator import Translation, Translator

_TEXTS = "Texts, or image files and folders."
_CHUNK = 256  # sources: their translations are printed before the next ones are read


def translate(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help=_TEXTS, show_default="standard input")
    ] = None,
    file: Annotated[str | None, typer.Option(help="Text file; each line is translated.")] = None,
    beam: Annotated[int, typer.Option(help="Beam size; 1 for greedy search.", min=1)] = 1,
    n_best: Annotated[int, typer.Option(help="Translations per source, with scores.", min=1)] = 1,
    alpha: Annotated[float, typer.Option(help="Exponent of the length penalty.")] = 0.6,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Translate texts given as arguments, in a file, on standard input, or typed one by one.

    A model that was trained on images recognizes the text in image files.

    Python: striate.load_translator("runs/words-small").translate(["hello"], beams=5).results[0].text
    """
    from striate.cli.console import print_json
    from striate.data.images.folders import find_images
    from striate.errors import UsageError
    from striate.inference.translator import load_translator

    if texts and file:
        raise UsageError("texts and --file", "only one source of text is allowed", "Use one of the two")
    translator = load_translator(model, device)
    options: dict[str, Any] = {"beams": max(beam, n_best), "best": n_best, "alpha": alpha}
    if not texts and file is None and sys.stdin.isatty():
        return _interactive(translator, options)
    sources: Iterable[str] = texts or _lines(file)
    if translator.reads_images:
        sources = [path for source in sources for path in find_images(source)]
    results: list[dict[str, Any]] = []
    written, seconds, failed, count = 0, 0.0, 0, 0
    remaining = iter(sources)
    while chunk := list(islice(remaining, _CHUNK)):
        done = translator.translate(chunk, **options)
        written, seconds = written + done.tokens, seconds + done.seconds
        for result in done.results:
            count += 1
            failed += result.error is not None
            if as_json:
                results.append(_result(result))
            else:
                _print_answers(result, n_best, named=translator.reads_images)
    if not count:
        raise UsageError("nothing to translate", "the input is empty", "Give texts, --file or standard input")
    rate = written / max(seconds, 1e-9)
    if as_json:
        print_json({"results": results, "tokens": written, "seconds": seconds, "tokens_per_second": rate})
    else:
        print(f"{written:,} tokens, {rate:,.0f} tok/s", file=sys.stderr)
    return 0 if failed < count else 3


def _print_answers(result: Translation, n_best: int, *, named: bool) -> None:
    from striate.cli.console import no_answer

    name = f"{result.source}  " if named else ""
    if result.error is not None:
        print(f"{name}{no_answer(result.error)}")
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

    try:
        with Path(file).expanduser().open(encoding="utf-8") if file else nullcontext(sys.stdin) as lines:
            yield from (line.rstrip("\r\n") for line in lines)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {(file or 'standard input')!r}", str(error)) from error


def _interactive(translator: Translator, options: dict[str, Any]) -> int:
    """Translate each line that the user types."""
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
            print(f"{done.tokens_per_second:,.0f} tok/s", file=sys.stderr)
