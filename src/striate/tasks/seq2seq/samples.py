"""samples.csv: some translations of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from striate.csv_file import read_csv, write_csv
from striate.data.text.pairs import Pairs

NAME = "samples.csv"


def write_samples(folder: Path, epoch: int, pairs: Pairs, answers: Sequence[str]) -> list[str]:
    """Write the translations of an epoch, replacing those of later ones; returns a line to show for each.

    Args:
        folder: of the run.
        epoch: from 1.
        pairs: as many as there are answers, or more.
        answers: the translations of the first pairs.
    """
    rows = [
        (str(epoch), pairs.sources[i], pairs.references[i][0], answer) for i, answer in enumerate(answers)
    ]
    earlier = [row for row in read_samples(folder) if int(row[0]) < epoch]
    write_csv(folder / NAME, [*earlier, *rows], ("epoch", "source", "reference", "answer"))
    return [
        f"  {source!r} -> {answer!r}, {'correct' if answer == reference else f'reference {reference!r}'}"
        for _, source, reference, answer in rows
    ]


def read_samples(folder: Path) -> list[list[str]]:
    """The translations that a run has written: epoch, source, reference, answer."""
    return read_csv(folder / NAME)[1:]
