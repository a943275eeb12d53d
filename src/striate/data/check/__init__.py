"""The check-up: what is wrong with a data set, found before anything is trained on it."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from striate.data import open_data
from striate.data.check.duplicates import connected_components, find_copies
from striate.data.check.files import scan_folder
from striate.data.check.images import ImageStats, inspect_image
from striate.data.check.labels import Found, check_classes
from striate.data.check.records import (
    KINDS,
    SERIOUS,
    WARNING,
    CheckReport,
    Finding,
    Item,
    Kind,
    sort_findings,
)
from striate.data.images.samples import UNSPLIT, DataSet
from striate.device import cpu_count
from striate.errors import DataError, DecodeError
from striate.progress import SILENT, Progress
from striate.transforms.decode import Uint8Array

__all__ = ["KINDS", "SERIOUS", "WARNING", "CheckReport", "Finding", "Item", "Kind", "check", "quick_check"]

STYLE = 0.2  # share of the images from which on a trait is the nature of the data, and no defect
BLANKS = 0.01  # the same for nearly blank ones: handwriting leaves much of a page white
_TRAITS = ("tiny", "blurred", "dark", "overexposed", "odd-shape", "odd-one-out", "turned", "not-rgb", "deep")
_ABOUT_CLASSES = frozenset({
    "layout", "similar-classes", "missing-class", "scarce-class", "few-images", "imbalance", "not-held-out",
    "hidden", "loops", "denied", "style", "other-files",
})  # fmt: skip


@dataclass(frozen=True)
class _Image:
    """One image to look at: what to read, and what is known of it."""

    source: Callable[[], str | bytes | Uint8Array]
    name: str
    label: str
    split: str

    def inspect(self) -> ImageStats:
        """Look at it; what it cannot be taken from is reported as any other fault."""
        try:
            return inspect_image(self.source(), self.name)
        except DecodeError as error:
            return ImageStats(kind="unreadable", error=error.why)

    def item(self, detail: str = "") -> Item:
        return Item(self.name, self.label, self.split, detail)


def check(source: Any, *, workers: int | None = None, progress: Progress = SILENT) -> CheckReport:
    """Look at every image of a data set; reads only, and needs no network.

    Args:
        source: as for `striate.data.open_data`; a folder that cannot be trained on is looked at all the same.
        workers: threads; None for as many as there are processors.
        progress: is told of each image.

    Returns:
        What was found, most serious first.

    Raises:
        DataError: there is nothing there, or no image in it.
    """
    started = time.perf_counter()
    found: Found = defaultdict(list)
    data = _data(source, found)
    text = os.fspath(source) if data is None else data.source
    images = _strays(text, found) if data is None else _images(data, found)
    if not images:
        raise DataError(f"nothing to check in {text!r}", "there is no image in it", "Give a folder of images")
    progress.begin("checking", len(images))
    pool = ThreadPoolExecutor(workers or cpu_count(), thread_name_prefix="check")
    try:
        looks = []
        for seen in pool.map(_Image.inspect, images):
            looks.append(seen)
            progress.advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
        progress.end()
    _single(images, looks, found)
    _copies(images, looks, found)
    return CheckReport(
        text,
        len(images),
        dict(Counter(image.label for image in images if image.label)),
        dict(Counter(image.split for image in images if image.split)),
        sort_findings(found, _ABOUT_CLASSES),
        time.perf_counter() - started,
        data,
    )


def quick_check(data: DataSet) -> list[str]:
    """What names, labels and file sizes alone tell, in at most two lines; decodes nothing.

    Finds classes of like names, and files of equal content under two classes or in two splits.

    Args:
        data: divided or not; a division that puts copies on both sides is found too.
    """
    found: Found = defaultdict(list)
    check_classes(data, found)
    if all(samples.in_files for samples in data.splits.values()):
        _same_bytes(_listed(data), found)
    lines = []
    for finding in sort_findings(found, _ABOUT_CLASSES):
        if finding.kind not in ("similar-classes", "conflicting-labels", "leakage"):
            continue
        first = " and ".join(_short(item, data.root) for item in finding.groups[0])
        more = f", and {len(finding.groups) - 1} more" if len(finding.groups) > 1 else ""
        lines.append(f"{finding.title.lower()}: {first}{more}")
    if not lines:
        return []
    return [f"{'; '.join(lines[:2])}. `striate check {data.source}` tells all"]


def _data(source: Any, found: Found) -> DataSet | None:
    """The data set; None for a folder that is none, which is a finding."""
    try:
        return open_data(source)
    except DataError as error:
        if not isinstance(source, (str, os.PathLike)) or not Path(source).expanduser().is_dir():
            raise
        found["layout"].append((Item(os.fspath(source), detail=error.why),))
        return None


def _strays(text: str, found: Found) -> list[_Image]:
    """What images there are in a folder that is no data set."""
    paths = scan_folder(Path(text).expanduser(), frozenset(), found)
    del found["passed-over-images"][:]  # they are checked, and the layout is told
    return [_Image(partial(str, name), name, "", "") for name in paths if os.access(name, os.F_OK)]


def _images(data: DataSet, found: Found) -> list[_Image]:
    """The images of a data set."""
    images = _listed(data)
    check_classes(data, found)
    path = Path(data.source).expanduser()
    if path.is_dir() and all(samples.in_files for samples in data.splits.values()):
        scan_folder(path, frozenset(image.name for image in images), found)
    return images


def _listed(data: DataSet) -> list[_Image]:
    return [
        _Image(partial(samples.fetch, i), name, data.classes[label], "" if split == UNSPLIT else split)
        for split, samples in data.splits.items()
        for i, (name, label) in enumerate(zip(samples.names, samples.labels.tolist(), strict=True))
    ]


def _single(images: list[_Image], looks: list[ImageStats], found: Found) -> None:
    """What each image shows by itself; traits of many are told once."""
    traits: Found = defaultdict(list)
    sides = [min(seen.size) for seen in looks if seen.print is not None]
    small = min(32.0, median(sides) / 2) if sides else 0.0
    for image, seen in zip(images, looks, strict=True):
        if seen.kind:
            found[seen.kind].append((image.item(seen.error),))
        elif min(seen.size) < max(small, (median(sides) if sides else 0) / 8):
            traits["tiny"].append((image.item(f"{seen.size[0]}x{seen.size[1]} px"),))
        for kind, detail in seen.facts:
            (traits if kind in _TRAITS else found)[kind].append((image.item(detail),))
    for kind, items in traits.items():
        share = BLANKS if kind == "odd-one-out" else STYLE
        if KINDS[kind].severity == WARNING and len(items) > max(3, share * len(images)):
            detail = (
                f"{len(items):,} of {len(images):,}: {KINDS[kind].title[0].lower()}{KINDS[kind].title[1:]}"
            )
            found["style"].append((Item(items[0][0].path, detail=detail),))
        else:
            found[kind] += items
    _lone_formats(images, looks, found)


def _lone_formats(images: list[_Image], looks: list[ImageStats], found: Found) -> None:
    """Up to two files of a format in at least fifty of another; with what else is odd about them."""
    formats = Counter(seen.format for seen in looks if seen.format)
    if not formats:
        return
    main, most = formats.most_common(1)[0]
    blank = {items[0].path: items[0].detail for items in found["odd-one-out"]}
    for image, seen in zip(images, looks, strict=True):
        if seen.format and formats[seen.format] <= 2 and most >= 50:
            detail = f"{seen.format} among {most:,} {main}"
            blank[image.name] = f"{detail}; {blank[image.name]}" if image.name in blank else detail
    by_name = {image.name: image for image in images}
    # Both reasons together are the surest.
    order = sorted(blank, key=lambda name: (";" not in blank[name], name))
    found["odd-one-out"] = [(by_name[name].item(blank[name]),) for name in order]


def _copies(images: list[_Image], looks: list[ImageStats], found: Found) -> None:
    """Equal files, and the same picture in different ones, sorted by what they spoil."""
    by_digest = defaultdict(list)
    for i, seen in enumerate(looks):
        if seen.digest:
            by_digest[seen.digest].append(i)
    firsts = [members[0] for members in by_digest.values() if looks[members[0]].print is not None]
    prints = [p for i in firsts if (p := looks[i].print) is not None]
    alike = np.array(firsts, np.int64)[find_copies(prints)] if firsts else np.empty((0, 2), np.int64)
    chained = [(members[0], other) for members in by_digest.values() for other in members[1:]]
    pairs = np.concatenate([alike, np.array(chained, np.int64).reshape(-1, 2)])
    for members in connected_components(pairs):
        equal = len({looks[i].digest for i in members}) == 1
        _file_copies([images[i] for i in members], equal, found)


def _file_copies(members: list[_Image], equal: bool, found: Found) -> None:
    """One group of copies under the kinds of trouble that it makes."""
    detail = "equal to the byte" if equal else "the same picture"
    group = tuple(image.item(detail) for image in members)
    if len({image.label for image in members}) > 1:
        found["conflicting-labels"].append(group)
    if len({image.split for image in members}) > 1:
        found["leakage"].append(group)
    if len({(image.label, image.split) for image in members}) < len(members):
        found["duplicates" if equal else "near-duplicates"].append(group)


def _same_bytes(images: list[_Image], found: Found, budget: float = 1.0) -> None:
    """Equal files, by size and then content: reads only those of one size, for `budget` seconds at most."""
    until = time.monotonic() + budget
    by_size = defaultdict(list)
    for image in images:
        try:
            by_size[os.stat(image.name).st_size].append(image)  # noqa: PTH116 - half the time
        except OSError:
            continue  # the run will say so
        if time.monotonic() > until:
            break
    by_size.pop(0, None)  # empty files are named by the run
    for members in by_size.values():
        if len(members) < 2 or time.monotonic() > until:
            continue
        by_content = defaultdict(list)
        for image in members:
            if time.monotonic() > until:
                break
            try:
                by_content[Path(image.name).read_bytes()].append(image)
            except OSError:
                continue
        for equal in by_content.values():
            if len(equal) > 1:
                _file_copies(equal, True, found)


def _short(item: Item, root: str) -> str:
    """The path below the root, or the name of a class."""
    return repr(os.path.relpath(item.path, root) if root and item.label else item.path)
