"""Pairs of a source and what it becomes: text and text, or an image and the text in it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from striate.data.images.folders import SPLIT_NAMES
from striate.data.images.samples import UNSPLIT
from striate.data.text.tokens import normalize_text
from striate.errors import DataError, UsageError

MAX_HELD_OUT = 2000  # pairs that are cut off for val, and as many for test
_NAMES = {**SPLIT_NAMES, "dev": "val", "development": "val"}
_FORMS = "Give a .tsv of source<TAB>target, two files of parallel lines, a folder of either, or a .csv"


@dataclass(frozen=True)
class Pairs:
    """Sources with what each of them may become.

    Attributes:
        sources: text, or paths of images.
        references: for each source, at least one text; the first is the one that counts where one must.
        places: where each pair stands, for messages: `train.tsv:17`.
    """

    sources: tuple[str, ...] = field(repr=False)
    references: tuple[tuple[str, ...], ...] = field(repr=False)
    places: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, which: Iterable[int]) -> Pairs:
        """The pairs at these positions, in this order."""
        rows = [(self.sources[i], self.references[i], self.places[i]) for i in which]
        sources, references, places = zip(*rows, strict=True) if rows else ((), (), ())
        return Pairs(tuple(sources), tuple(references), tuple(places))

    @property
    def digest(self) -> str:
        """SHA-256 of sources and references in their order."""
        digest = hashlib.sha256()
        for source, these in zip(self.sources, self.references, strict=True):
            digest.update("\t".join((source, *these)).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class PairSet:
    """All splits of one data set of pairs.

    Attributes:
        source: what the user gave.
        kind: `text`, or `images` where sources are paths.
        splits: `train`, `val`, `test`, or the one split `all`.
        notes: what was passed over or chosen, a line each.
    """

    source: str
    kind: str
    splits: Mapping[str, Pairs]
    notes: tuple[str, ...] = ()


def open_pairs(*data: str | os.PathLike[str], languages: tuple[str, str] | None = None) -> PairSet:
    """Find pairs; writes nothing.

    Args:
        data: one of

            * a TSV file, `source<TAB>target` in each line; further columns are other right answers,
            * two files whose lines belong together, as `train.en train.de`; files of the same names with
              `val`, `valid`, `dev` or `test` in place of `train` are found beside them,
            * a folder with such files for each split: `train.tsv`, or `train.en` and `train.de`,
            * a CSV file with the columns `path,text`, or `source,text`, and, if wanted, `split`.

            Text files may be gzipped.
        languages: the endings of source and target in a folder of parallel files; None for the order of
            the alphabet.

    Raises:
        DataError: there is nothing of that kind, or a line is not as it should be; the message has its place.
        UsageError: more than two files.
    """
    paths = [Path(os.fspath(place)).expanduser() for place in data]
    shown = " ".join(map(str, paths))
    if len(paths) not in (1, 2):
        raise UsageError(f"{len(paths)} data sets", "", _FORMS)
    for path in paths:
        if not path.exists():
            raise DataError(f"cannot open {str(path)!r}", "no such file or folder", _FORMS)
    if len(paths) == 2:
        return _noted(_beside(shown, paths[0], paths[1]))
    if paths[0].is_dir():
        return _noted(_folder(paths[0], languages))
    ending = _plain(paths[0]).suffix.lower()
    if ending == ".csv":
        return _table(paths[0])
    if ending in (".tsv", ".txt"):
        return _noted(PairSet(shown, "text", {UNSPLIT: _tsv(paths[0])}))
    raise UsageError(f"cannot read pairs from {shown!r}", "it is no .tsv and no .csv", _FORMS)


def split_pairs(data: PairSet, *, val: float = 0.1, test: float = 0.1, seed: int = 0) -> PairSet:
    """Give a data set the splits `train` and `val`, and `test` where it came in one piece.

    Equal sources stay together, so that none that measures has trained; the division is a function of the
    seed and the sources alone. No more than `MOST_HELD_OUT` pairs are held out for each purpose.

    Args:
        data: as found.
        val: share that chooses the best epoch.
        test: share for the last measurement.
        seed: another seed, another division.

    Raises:
        DataError: too little to train on and to measure by.
    """
    splits = dict(data.splits)
    if UNSPLIT in splits:
        splits |= _cut(splits.pop(UNSPLIT), {"val": val, "test": test}, seed)
    elif "train" in splits and "val" not in splits:
        splits |= _cut(splits["train"], {"val": val}, seed)
    splits = {name: pairs for name, pairs in splits.items() if len(pairs)}
    if not {"train", "val"} <= set(splits):
        counts = ", ".join(f"{len(pairs):,} in {name}" for name, pairs in data.splits.items())
        raise DataError(
            f"cannot train on {data.source!r}", f"it has {counts} pairs", "Training and val need one each"
        )
    return replace(data, splits=splits)


def _cut(pairs: Pairs, shares: Mapping[str, float], seed: int) -> dict[str, Pairs]:
    """Cut shares off, the rest is `train`."""
    keys = {
        source: hashlib.sha256(f"{seed}\0{source}".encode("utf-8", "surrogateescape")).digest()
        for source in pairs.sources
    }
    order = sorted(range(len(pairs)), key=lambda i: keys[pairs.sources[i]])
    parts, at = {}, 0
    for name, share in shares.items():
        end = at + min(MAX_HELD_OUT, max(int(share > 0), round(share * len(pairs))))
        while at < end < len(order) and pairs.sources[order[end - 1]] == pairs.sources[order[end]]:
            end += 1
        parts[name], at = pairs.take(sorted(order[at:end])), min(end, len(order))
    return {"train": pairs.take(sorted(order[at:])), **parts}


def _folder(folder: Path, languages: tuple[str, str] | None) -> PairSet:
    files: dict[str, dict[str, Path]] = {}  # by ending, then split
    for path in sorted(folder.iterdir()):
        plain = _plain(path)
        split = _split_of(plain.stem)
        if split is not None and path.is_file():
            files.setdefault(plain.suffix.lower()[1:], {}).setdefault(split, path)
    if "tsv" in files and languages is None:
        return PairSet(str(folder), "text", {split: _tsv(path) for split, path in files["tsv"].items()})
    found = [ending for ending in files if "train" in files[ending] or len(files[ending]) > 1]
    if languages is None and len(found) == 2:
        languages = (found[0], found[1])
        note = f"from {found[0]} to {found[1]} (--from and --to say otherwise)"
    elif languages is None or not set(languages) <= set(files):
        wanted = " and ".join(languages) if languages else "two languages"
        raise DataError(
            f"cannot find pairs in {str(folder)!r}",
            f"it has no files of {wanted}; of its names, {', '.join(sorted(files)) or 'none'} end a split's",
            "Name them train.tsv and val.tsv, or train.en and train.de; --from en --to de chooses of several",
        )
    else:
        note = ""
    left, right = (files[language] for language in languages)
    splits = {split: _parallel(left[split], right[split]) for split in left if split in right}
    return PairSet(str(folder), "text", splits, (note,) if note else ())


def _beside(shown: str, left: Path, right: Path) -> PairSet:
    """Two parallel files, and those of the other splits that lie beside them."""
    if _split_of(_plain(left).stem) != "train":
        return PairSet(shown, "text", {UNSPLIT: _parallel(left, right)})
    splits = {"train": _parallel(left, right)}
    endings = [path.name.removeprefix(_plain(path).stem) for path in (left, right)]
    for path in sorted(left.parent.iterdir()):
        stem = path.name.removesuffix(endings[0])
        split, other = _split_of(stem), right.parent / (stem + endings[1])
        if stem != path.name and split is not None and split not in splits and other.exists():
            splits[split] = _parallel(path, other)
    return PairSet(shown, "text", splits)


def _split_of(stem: str) -> str | None:
    """The split that a file's name stands for: test2016 and test_2016_flickr are test."""
    return _NAMES.get(re.split(r"[\d._-]", stem.lower())[0])


def _plain(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def _lines(path: Path) -> list[str]:
    """The lines of a text file, gzipped or not."""
    try:
        raw = path.read_bytes()
        if path.suffix.lower() == ".gz":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}", "the line is no UTF-8", "Save the file as UTF-8 text") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {str(path)!r}", str(error)) from error
    # Not splitlines(): a form feed or a line separator within a sentence ends no line.
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _tsv(path: Path) -> Pairs:
    rows = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        source, *targets = (part.strip() for part in line.split("\t"))
        if not targets:
            raise DataError(
                f"{path}:{number}",
                f"the line has no tab: {line[:60]!r}",
                "Each line is a source, a tab, a target, and maybe further tabs and right answers",
            )
        rows.append((source, tuple(dict.fromkeys(t for t in targets if t)), f"{path.name}:{number}"))
    return _of_rows(rows)


def _parallel(left: Path, right: Path) -> Pairs:
    sources, targets = _lines(left), _lines(right)
    if len(sources) != len(targets):
        raise DataError(
            f"cannot pair {str(left)!r} with {str(right)!r}",
            f"they have {len(sources):,} and {len(targets):,} lines",
            "Line 17 of the one must say what line 17 of the other says",
        )
    return _of_rows(
        [
            (source.strip(), (target.strip(),) if target.strip() else (), f"{left.name}:{number}")
            for number, (source, target) in enumerate(zip(sources, targets, strict=True), 1)
        ]
    )


def _table(table: Path) -> PairSet:
    text = "\n".join(_lines(table))
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name.strip().lower() for name in rows.fieldnames or []]
    if "text" not in columns or not {"path", "source"} & set(columns):
        raise DataError(
            f"cannot use {str(table)!r}",
            f"its first line is {text.split(chr(10), 1)[0][:80]!r}",
            "The first line must name the columns: path,text for images or source,text, and split if wanted",
        )
    rows.fieldnames = columns
    images = "path" in columns
    found: dict[str, list[tuple[str, tuple[str, ...], str]]] = {}
    for row in rows:
        place = f"{table.name}:{rows.line_num}"
        source, answer = ((row.get(c) or "").strip() for c in ("path" if images else "source", "text"))
        given = (row.get("split") or "").strip().lower()
        if given and given not in _NAMES:
            raise DataError(place, f"the split is {given!r}", "Use train, val or test")
        source = str(table.parent / source) if images and source else source
        found.setdefault(_NAMES[given] if given else UNSPLIT, []).append(
            (source, (answer,) if answer else (), place)
        )
    if UNSPLIT in found and len(found) > 1:
        raise DataError(
            f"cannot use {str(table)!r}",
            "some rows have a split and some have none",
            "Fill the column or drop it",
        )
    splits = {split: _of_rows(these, images=images) for split, these in found.items()}
    return _noted(PairSet(str(table), "images" if images else "text", splits))


def _of_rows(rows: Sequence[tuple[str, tuple[str, ...], str]], *, images: bool = False) -> Pairs:
    """Pairs of rows; text in Unicode's composed form, paths as they are."""
    sources, references, places = zip(*rows, strict=True) if rows else ((), (), ())
    return Pairs(
        tuple(sources if images else map(normalize_text, sources)),
        tuple(tuple(map(normalize_text, these)) for these in references),
        tuple(places),
    )


def _noted(data: PairSet) -> PairSet:
    """The same without pairs of which one side is empty, and with what is to be said of it."""
    notes, splits = list(data.notes), {}
    for name, pairs in data.splits.items():
        whole = [i for i in range(len(pairs)) if pairs.sources[i] and pairs.references[i]]
        splits[name] = pairs.take(whole) if len(whole) < len(pairs) else pairs
        if empty := len(pairs) - len(whole):
            first = next(i for i in range(len(pairs)) if not (pairs.sources[i] and pairs.references[i]))
            of = "" if name == UNSPLIT else f" of {name}"
            notes.append(f"{empty:,} pairs{of} have an empty side and are left out: {pairs.places[first]}")
    if not any(map(len, splits.values())):
        raise DataError(f"cannot use {data.source!r}", "it has no pairs", _FORMS)
    known = set(splits["train"].sources) if "train" in splits else set()
    for name in ("val", "test"):
        if name in splits and (seen := sum(source in known for source in splits[name].sources)):
            notes.append(f"{seen:,} of {len(splits[name]):,} sources of {name} are in train, too")
    return replace(data, splits=splits, notes=tuple(notes))
