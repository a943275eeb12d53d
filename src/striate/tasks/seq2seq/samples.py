"""samples.csv: some translations of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from striate.csv_file import read_table, write_csv
from striate.data.text.pairs import Pairs
from striate.errors import DataError
from striate.files import probe

NAME = "samples.csv"
_COLUMNS = ("epoch", "source", "reference", "answer")
_DIGITS = 18  # of an epoch


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
    write_csv(folder / NAME, [*earlier, *rows], _COLUMNS)
    return [
        f"  {source!r} -> {answer!r}, {'correct' if answer == reference else f'reference {reference!r}'}"
        for _, source, reference, answer in rows
    ]


def read_samples(folder: Path) -> list[list[str]]:
    """The translations that a run has written: epoch, source, reference, answer.

    Raises:
        DataError: the file is damaged; the message names the line.
    """
    if probe(folder / NAME) is None:
        return []
    rows = read_table(folder / NAME, _COLUMNS)
    for line, row in rows:
        if not row[0].isdecimal() or len(row[0]) > _DIGITS:
            raise DataError(f"{folder / NAME}:{line}", f"{row[0]!r} is no epoch", "Remove the file")
    return [row for _, row in rows]
