"""`EXPORT.md`: how each exported file of a folder compares with the original, a section per file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from striate.errors import DataError
from striate.exporters.records import Parity
from striate.files import probe, write_atomic
from striate.printable import escaped
from striate.reading import MAX_LIST_BYTES, read_bytes

NAME = "EXPORT.md"
_OURS = "<!-- striate export -->"  # the first line


def write(out: Path, format: str, parity: Parity) -> Path | None:
    """Add the section of an exported file to `EXPORT.md` next to it; sections of other files stay.

    Args:
        out: what was exported.
        format: a key of `striate.exporters.FORMATS`.
        parity: the comparison with the original.

    Returns:
        The path; None if there is a file of that name that Striate did not write, or a folder.

    Raises:
        WriteError: it cannot be written.
    """
    path = out.parent / NAME
    sections: dict[str, str] = {}
    try:
        if probe(path) is not None:
            text = read_bytes(path, MAX_LIST_BYTES).decode("utf-8", "replace")
            first, *parts = text.split("\n## ")
            if first.partition("\n")[0] != _OURS:
                return None
            sections = {part.partition("\n")[0]: part for part in parts}
    except DataError:  # a folder, or a file that may not be read
        return None
    title = escaped(out.name)
    sections[title] = "\n\n".join([title, f"Format: {format}.", *_paragraphs(parity)]) + "\n"
    head = f"{_OURS}\n# Exported files, compared with their originals\n"
    write_atomic(path, "\n## ".join([head, *sections.values()]).encode("utf-8", "replace"))
    return path


def lines(parity: Parity) -> Iterator[str]:
    """The result in short lines, for a terminal."""
    on = f", on {parity.inputs}" if parity.inputs else ""
    yield f"{parity.equal} of {parity.n} {parity.outputs} equal{on}"
    yield f"largest difference: {parity.max_difference:.1e} {parity.unit}".rstrip()
    if parity.accuracy is not None:
        original, exported = (f"{100 * value:.1f} %" for value in parity.accuracy)
        yield f"accuracy: {exported} (original {original})"
    if parity.milliseconds is not None:
        original, exported = (f"{value:.1f} ms" for value in parity.milliseconds)
        yield f"latency of one: {exported} (original {original})"
    yield from parity.notes


def _paragraphs(parity: Parity) -> Iterator[str]:
    if not parity.n:
        yield "It was not compared with the original."
        yield from parity.notes
        return
    yield f"Compared on {escaped(parity.inputs)}:" if parity.inputs else "Compared with the original:"
    rows: list[tuple[str, ...]] = [
        (f"{parity.outputs}, equal", f"{parity.equal} of {parity.n}", ""),
        ("largest difference", f"{parity.max_difference:.1e} {parity.unit}".rstrip(), ""),
    ]
    if parity.accuracy is not None:
        rows.append(("top-1 accuracy", *(f"{value:.4f}" for value in reversed(parity.accuracy))))
    if parity.milliseconds is not None:
        rows.append(("latency of one, ms", *(f"{value:.2f}" for value in reversed(parity.milliseconds))))
    table = ["| | exported | original |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    yield "\n".join(table)
    yield from parity.notes
