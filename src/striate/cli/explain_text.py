"""`striate explain` for sequence-to-sequence models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.errors import UsageError

if TYPE_CHECKING:
    from striate.inference.text_explanation import SequenceExplanation

LONGEST_STEM = 55  # letters of an image's name in the names of its files; 255 bytes are the limit


def require_no_choices(given: dict[str, bool]) -> None:
    """Raise a UsageError for the first option that was given: they are of image classifiers."""
    for flag, is_given in given.items():
        if is_given:
            why = "a sequence-to-sequence model is explained by attention and gradients"
            raise UsageError(f"{flag} with a seq2seq model", why, f"Leave {flag} out")


def results(
    model: str, sources: list[str], device: str, test: bool, out: Path, numpy: bool
) -> Iterator[dict[str, Any]]:
    """Explain each text or image and write its files; yields the JSON values of each."""
    from striate.cli.console import watching
    from striate.data.images.folders import find_images
    from striate.errors import DataError
    from striate.inference.text_explanation import explain_seq2seq
    from striate.inference.translator import load_translator

    translator = load_translator(model, device)
    if translator.reads_images:
        sources = [path for source in sources for path in find_images(source)]
    with watching() as progress:
        progress.begin("explaining", len(sources), "images" if translator.reads_images else "texts")
        for number, source in enumerate(sources, start=1):
            try:
                found = explain_seq2seq(translator, source, test=test)
            except DataError as error:
                result: dict[str, Any] = {"source": source, "error": error.why}
            else:
                stem = Path(source).stem[:LONGEST_STEM] if translator.reads_images else "text"
                result = {**found.to_json(), "files": _write(found, out / f"{stem}-{number}", numpy)}
            progress.advance(1)
            yield result
        progress.end()


def _write(found: SequenceExplanation, path: Path, numpy: bool) -> dict[str, str | None]:
    from striate.explain.drawing import png
    from striate.files import write_atomic

    figure, arrays = path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.npz")
    write_atomic(figure, png(found.figure()))
    if numpy:
        write_atomic(arrays, found.arrays())
    return {"figure": str(figure), "map": str(arrays) if numpy else None}


def print_result(result: dict[str, Any]) -> None:
    """Print the answer, which source token each token depends on most, and the verdict."""
    from striate.cli.console import say

    if result["error"] is not None:
        say(f"{result['source']}  cannot be explained: {result['error']}")
        return
    say(f"{result['source']}  ->  {result['text']}")
    pairs = [
        f"{token} <- {result['source_tokens'][place]}"
        for token, place in zip(result["tokens"], result["alignment"], strict=False)
    ]
    for line in pairs:
        say(f"  {line}")
    if result["faithfulness"] is not None:
        say(f"  map     {result['faithfulness']['verdict']}")
    for path in filter(None, result["files"].values()):
        say(f"  file    {path}")
