"""What a run on pairs reads, so that a resumed run can compare it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from striate.data.images.samples import Samples
from striate.data.text.pairs import PairSet
from striate.files import probe
from striate.tasks import data_table
from striate.tasks.data_table import Source
from striate.training.config_file import DATA_TABLE
from striate.validation import require


def changes(folder: Path, recorded: Mapping[str, Any], data: PairSet) -> list[str]:
    """Sentences that say how pairs differ from those of a run.

    Args:
        folder: of the run.
        recorded: what `digests` returned.
        data: the present pairs.

    Raises:
        DataError: what was recorded is damaged.
    """
    require(recorded, dict[str, tuple[int, str]], "facts.setup.data")
    new = digests(data)
    found = [
        f"{name} had {recorded.get(name, [0])[0]:,} pairs and has {new.get(name, [0])[0]:,}"
        for name in sorted(recorded.keys() | new.keys())
        if recorded.get(name) != new.get(name)
    ]
    if not found and probe(folder / DATA_TABLE) is not None:  # earlier versions wrote none
        found = data_table.changes(folder, _all_image_files(data))
    return found


def write(folder: Path, data: PairSet) -> None:
    """Write the table of all image files; for texts, the digests are of their content."""
    if data.kind == "images":
        data_table.write(folder, _all_image_files(data))


def digests(data: PairSet) -> dict[str, list[Any]]:
    """For each split its number of pairs and a digest; images count by name, size and time of their files."""
    found = {}
    for name, pairs in data.splits.items():
        if data.kind == "images":
            shown = (
                s.name if s.bytes < 0 else f"{s.name} {s.bytes} {s.mark}" for s in _image_files(data, name)
            )
            pairs = dataclasses.replace(pairs, sources=tuple(shown))
        found[name] = [len(pairs), pairs.digest]
    return found


def _all_image_files(data: PairSet) -> Iterator[Source]:
    for name in data.splits:
        yield from _image_files(data, name)


def _image_files(data: PairSet, split: str) -> Iterator[Source]:
    root = Path(data.source).parent
    paths = data.splits[split].sources
    samples = Samples(tuple(paths), np.zeros(len(paths), np.int64))
    for i, path in enumerate(paths):
        stamp = samples.stamp(i)
        name = path if stamp is None else os.path.relpath(path, root).replace(os.sep, "/")
        yield Source.of(split, name, "", stamp)
