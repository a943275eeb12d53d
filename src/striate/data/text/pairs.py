"""Parallel data: pairs of source and target text, or of an image and its text."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from striate.data.images.samples import UNSPLIT
from striate.data.text.columns import Column, ColumnSelection, merged, unused_note
from striate.data.text.reader import clean_text, read_lines
from striate.data.text.tables import SPLITS, Row, read_csv, read_tsv
from striate.errors import DataError, UsageError
from striate.files import expanded, is_folder, probe, why_missing

MAX_HELD_OUT = 2000  # pairs in val, and in test
_FORMS = "Give a .tsv of source<TAB>target, two files of parallel lines, a folder of either, or a .csv"


@dataclass(frozen=True)
class Pairs:
    """Sources with their references.

    Attributes:
        sources: text, or paths of images.
        references: one or more target texts of each source; the first one is used if only one can be.
        places: location of each pair, for messages: `train.tsv:17`.
    """

    sources: tuple[str, ...] = field(repr=False)
    references: tuple[tuple[str, ...], ...] = field(repr=False)
    places: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, which: Sequence[int]) -> Pairs:
        """Return the pairs at these positions, in this order."""
        references = tuple(self.references[i] for i in which)
        return Pairs(tuple(self.sources[i] for i in which), references, tuple(self.places[i] for i in which))

    def joined(self, others: Sequence[Pairs]) -> Pairs:
        """Return these pairs and all others, in this order."""
        parts = (self, *others)
        return Pairs(
            tuple(source for part in parts for source in part.sources),
            tuple(references for part in parts for references in part.references),
            tuple(place for part in parts for place in part.places),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of sources and references, in order."""
        digest = hashlib.sha256()
        for source, these in zip(self.sources, self.references, strict=True):
            digest.update("\t".join((source, *these)).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class PairSet:
    """A dataset of pairs with its splits.

    Attributes:
        source: as the user named it.
        kind: `text`; or `images`, if sources are paths of images.
        splits: `train`, `val`, `test`; or only `all`.
        notes: what was skipped or chosen, one line each.
        columns: of a table, and what they are used for; empty for parallel files.
        skipped: number of pairs with an empty side that were left out.
    """

    source: str
    kind: str
    splits: Mapping[str, Pairs]
    notes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    skipped: int = 0


def open_pairs(
    *data: str | os.PathLike[str],
    languages: tuple[str, str] | None = None,
    columns: ColumnSelection | None = None,
) -> PairSet:
    """Open a dataset of pairs; writes nothing.

    Args:
        data: one of

            * a TSV file, `source<TAB>target` per line, or other columns as selected,
            * two parallel text files, such as `train.en train.de`; files named `val`, `valid`, `dev` or
              `test` instead of `train` in the same folder are the other splits,
            * a folder with such files for each split: `train.tsv`, or `train.en` and `train.de`,
            * a CSV file with the columns `path,text` or `source,text`, and optionally `split`, or other
              columns as selected.

            `striate.data.text.reader` says what a line is. Text is normalized to NFC, without blanks at its
            ends.
        languages: suffixes of source and target in a folder of parallel files; None for alphabetical order.
        columns: of tables that are used; None for the defaults.

    Raises:
        DataError: the data do not exist or have another layout; the message names the line.
        UsageError: more than two files, an unsupported format, or columns of parallel files.
    """
    selection = columns or ColumnSelection()
    paths = [expanded(place) for place in data]
    source = " ".join(map(str, paths))
    if len(paths) not in (1, 2):
        raise UsageError(f"{len(paths)} datasets", "one or two paths are expected", _FORMS)
    for path in paths:
        if probe(path) is None:
            raise DataError(f"cannot open {str(path)!r}", *why_missing(path, _FORMS))
    if len(paths) == 2:
        _refuse_columns(selection, source)
        return _clean(_parallel_splits(source, paths[0], paths[1]))
    if is_folder(paths[0]):
        return _clean(_folder(paths[0], languages, selection))
    ending = _without_gz(paths[0]).suffix.lower()
    if ending == ".csv":
        return _clean(_csv(paths[0], selection))
    if ending in (".tsv", ".txt"):
        return _clean(_tsv(source, {UNSPLIT: paths[0]}, selection))
    raise UsageError(f"cannot read pairs from {source!r}", "it is neither a .tsv nor a .csv file", _FORMS)


def split_pairs(data: PairSet, *, val: float = 0.1, test: float = 0.1, seed: int = 0) -> PairSet:
    """Split a dataset into `train` and `val`, and into `test` if it has no splits at all.

    Equal sources stay in one split, so that no source is in train and in val or test. The split is a function
    of the seed and the sources only. Val and test have at most `MAX_HELD_OUT` pairs each.

    Args:
        data: the dataset.
        val: fraction for validation.
        test: fraction for the final test.
        seed: of the split.

    Raises:
        DataError: train or val would be empty.
    """
    splits = dict(data.splits)
    if UNSPLIT in splits:
        splits |= _split_off(splits.pop(UNSPLIT), {"val": val, "test": test}, seed)
    elif "train" in splits and "val" not in splits:
        splits |= _split_off(splits["train"], {"val": val}, seed)
    splits = {name: pairs for name, pairs in splits.items() if len(pairs)}
    if not {"train", "val"} <= set(splits):
        counts = ", ".join(f"{len(pairs):,} in {name}" for name, pairs in data.splits.items())
        fix = "Train and val need at least one pair each"
        raise DataError(f"cannot train on {data.source!r}", f"it has {counts} pairs", fix)
    return replace(data, splits=splits)


def _split_off(pairs: Pairs, shares: Mapping[str, float], seed: int) -> dict[str, Pairs]:
    """Split off these fractions; the rest is `train`."""
    salted = (f"{seed}\0{source}".encode("utf-8", "surrogateescape") for source in pairs.sources)
    keys = [hashlib.sha256(text).digest() for text in salted]
    order = sorted(range(len(pairs)), key=keys.__getitem__)
    parts, at = {}, 0
    for name, share in shares.items():
        end = at + min(MAX_HELD_OUT, max(int(share > 0), round(share * len(pairs))))
        while at < end < len(order) and pairs.sources[order[end - 1]] == pairs.sources[order[end]]:
            end += 1
        parts[name], at = pairs.take(sorted(order[at:end])), min(end, len(order))
    return {"train": pairs.take(sorted(order[at:])), **parts}


def _folder(folder: Path, languages: tuple[str, str] | None, selection: ColumnSelection) -> PairSet:
    files: dict[str, dict[str, Path]] = {}  # by ending, then split
    for path in sorted(folder.iterdir()):
        plain = _without_gz(path)
        split = _split_of(plain.stem)
        if split is not None and path.is_file():
            files.setdefault(plain.suffix.lower()[1:], {}).setdefault(split, path)
    if "tsv" in files and languages is None:
        return _tsv(str(folder), files["tsv"], selection)
    _refuse_columns(selection, str(folder))
    found = [ending for ending in files if "train" in files[ending] or len(files[ending]) > 1]
    notes: tuple[str, ...] = ()
    if languages is None and len(found) == 2:
        languages = (found[0], found[1])
        notes = (f"from {found[0]} to {found[1]} (--from and --to change this)",)
    elif languages is None or not set(languages) <= set(files):
        wanted = " and ".join(languages) if languages else "two languages"
        suffixes = ", ".join(sorted(files)) or "none"
        why = f"it has no files for {wanted}; its files of splits have the suffixes {suffixes}"
        fix = "Name them train.tsv and val.tsv, or train.en and train.de; select two with --from en --to de"
        raise DataError(f"cannot find pairs in {str(folder)!r}", why, fix)
    left, right = (files[language] for language in languages)
    splits = {split: _parallel(left[split], right[split]) for split in left if split in right}
    return PairSet(str(folder), "text", splits, notes)


def _parallel_splits(source: str, left: Path, right: Path) -> PairSet:
    """Read two parallel files, and the files of the other splits next to them."""
    if _split_of(_without_gz(left).stem) != "train":
        return PairSet(source, "text", {UNSPLIT: _parallel(left, right)})
    splits = {"train": _parallel(left, right)}
    endings = [path.name.removeprefix(_without_gz(path).stem) for path in (left, right)]
    for path in sorted(left.parent.iterdir()):
        stem = path.name.removesuffix(endings[0])
        split, other = _split_of(stem), right.parent / (stem + endings[1])
        if stem != path.name and split is not None and split not in splits and other.exists():
            splits[split] = _parallel(path, other)
    return PairSet(source, "text", splits)


def _split_of(stem: str) -> str | None:
    """Return the split that a file name denotes: test2016 and test_2016_flickr are test."""
    return SPLITS.get(re.split(r"[\d._-]", stem.lower())[0])


def _without_gz(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _refuse_columns(selection: ColumnSelection, source: str) -> None:
    if selection and not selection.optional:
        what = f"columns of {source!r}"
        raise UsageError(
            what, "parallel files have no columns", "Leave them out, or give a .tsv or .csv file"
        )


def _tsv(source: str, files: Mapping[str, Path], selection: ColumnSelection) -> PairSet:
    """Read the TSV file of each split."""
    splits, columns = {}, []
    for split, path in files.items():
        rows, these = read_tsv(path, selection)
        splits[split] = _from_rows(rows)
        columns += these
    note = "" if selection else unused_note(merged(columns))
    return PairSet(source, "text", splits, (note,) if note else (), merged(columns))


def _parallel(left: Path, right: Path) -> Pairs:
    sources, targets = list(read_lines(left)), list(read_lines(right))
    if len(sources) != len(targets):
        why = f"they have {len(sources):,} and {len(targets):,} lines"
        fix = "Each line of one file must match the same line of the other"
        raise DataError(f"cannot pair {str(left)!r} with {str(right)!r}", why, fix)
    pairs = zip(map(clean_text, sources), map(clean_text, targets), strict=True)
    return _from_rows([Row(s, (t,), f"{left.name}:{i}") for i, (s, t) in enumerate(pairs, 1)])


def _csv(table: Path, selection: ColumnSelection) -> PairSet:
    rows, columns, images = read_csv(table, selection)
    splits = {split: _from_rows(these) for split, these in rows.items()}
    return PairSet(str(table), "images" if images else "text", splits, columns=tuple(columns))


def _from_rows(rows: Sequence[Row]) -> Pairs:
    """Convert rows of normalized text to pairs, without empty and repeated targets."""
    return Pairs(
        tuple(row.source for row in rows),
        tuple(tuple(dict.fromkeys(filter(None, row.targets))) for row in rows),
        tuple(row.place for row in rows),
    )


def _clean(data: PairSet) -> PairSet:
    """Drop pairs with an empty side, and note what was dropped and which sources are in train too."""
    notes, splits, skipped = list(data.notes), {}, 0
    for name, pairs in data.splits.items():
        whole = [all(sides) for sides in zip(pairs.sources, pairs.references, strict=True)]
        if empty := whole.count(False):
            which = f"{empty:,} pairs" if name == UNSPLIT else f"{empty:,} pairs of {name}"
            first = pairs.places[whole.index(False)]
            notes.append(f"skipped {which} with an empty side, the first at {first}")
            pairs = pairs.take([i for i, is_whole in enumerate(whole) if is_whole])
            skipped += empty
        splits[name] = pairs
    if not any(map(len, splits.values())):
        raise DataError(f"cannot use {data.source!r}", "it has no pairs", _FORMS)
    known = set(splits["train"].sources) if "train" in splits else set()
    for name in ("val", "test"):
        if name in splits and (seen := sum(source in known for source in splits[name].sources)):
            notes.append(f"{seen:,} of {len(splits[name]):,} sources of {name} are also in train")
    return replace(data, splits=splits, notes=tuple(notes), skipped=skipped)
