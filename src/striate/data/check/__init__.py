"""Data check: find broken files, duplicates, leakage and label problems before training."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

import numpy as np

from striate.data import open_data
from striate.data.check.duplicates import connected_components, find_copies
from striate.data.check.equal_files import equal_files
from striate.data.check.files import scan_folder
from striate.data.check.images import ImageStats, inspect_image
from striate.data.check.labels import check_classes
from striate.data.check.records import (
    KINDS,
    WARNING,
    CheckReport,
    Finding,
    Found,
    Item,
    LabelsPerImage,
    sort_findings,
)
from striate.data.images.label_sets import file_identity, split_label
from striate.data.images.samples import UNSPLIT, DataSet
from striate.device import cpu_count
from striate.errors import DataError, DecodeError, translated_errors
from striate.files import expanded, is_folder
from striate.progress import AUTO, Progress
from striate.transforms.decode import Uint8Array

__all__ = ["KINDS", "CheckReport", "Finding", "Item", "check", "quick_check", "quick_summary"]

_NORMAL = 0.2  # a property of more than this fraction of the images is normal for the dataset
_NORMAL_BLANK = 0.01  # the same for nearly blank images: in handwriting much of the page is white
_COPIES = ("conflicting-labels", "conflicting-label-sets", "leakage", "duplicates", "near-duplicates")
_PROPERTIES = (
    "tiny", "blurred", "dark", "overexposed", "odd-shape", "odd-one-out", "turned", "not-rgb", "deep",
)  # fmt: skip


@dataclass(frozen=True)
class _Image:
    """An image to check."""

    source: Callable[[], str | bytes | Uint8Array]
    name: str
    label: str
    split: str
    is_multi_label: bool = False

    def inspect(self) -> ImageStats:
        """Check the image; an unreadable one is a result, not an error."""
        try:
            return inspect_image(self.source(), self.name)
        except DecodeError as error:
            return ImageStats(kind="unreadable", error=error.why)

    def item(self, detail: str = "") -> Item:
        return Item(self.name, self.label, self.split, detail)


@translated_errors()
def check(
    source: Any,
    *,
    workers: int | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    multi_label: bool | None = None,
    progress: Progress = AUTO,
) -> CheckReport:
    """Check every image of a dataset. Reads only.

    Args:
        source: as for `striate.data.open_data`; also a folder with another layout.
        workers: number of threads; None for the number of processors.
        path_column: column of the image paths, if the data are a table.
        label_column: column of the class names, if the data are a table.
        multi_label: whether images have several classes, as for `striate.data.open_data`.
        progress: receives one update per image.

    Returns:
        The findings, most serious first; within a finding, the worst images first.

    Raises:
        DataError: the path does not exist, or contains no image.
    """
    started = time.perf_counter()
    found: Found = defaultdict(list)
    data = _open(source, found, path_column, label_column, multi_label)
    name = os.fspath(source) if data is None else data.source
    images = _images_of_folder(name, found) if data is None else _images_of_dataset(data, found)
    if not images:
        layout = [item.detail for group in found["layout"] for item in group]
        why = "; ".join(["it contains no image", *layout])
        raise DataError(f"cannot check {name!r}", why, "Give a folder with images")
    stats = _inspect(images, workers or cpu_count(), progress)
    _find_properties(images, stats, found)
    _find_duplicates(images, stats, found)
    labels = _labels_per_image(data, images, found)
    classes = dict(Counter(name for image in images for name in _class_names(image, data)))
    splits = dict(Counter(image.split for image in images if image.split))
    findings, seconds = sort_findings(found), time.perf_counter() - started
    return CheckReport(name, len(images), classes, splits, findings, seconds, labels, data)


def quick_check(data: DataSet) -> tuple[Finding, ...]:
    """Check names and sizes of classes, and find equal files, without decoding, in about one second.

    Args:
        data: with or without splits; a split that separates copies is found too.
    """
    found: Found = defaultdict(list)
    check_classes(data, found)
    if all(samples.in_files for samples in data.splits.values()):
        images = _images(data)
        for members in equal_files([image.name for image in images], seconds=1.0):
            _add_copies([images[i] for i in members], True, found)
    return sort_findings(found)


def quick_summary(data: DataSet, findings: Sequence[Finding]) -> list[str]:
    """What is most serious among the findings of `quick_check`, in at most one line."""
    lines = []
    for finding in findings:
        if finding.kind in (
            "similar-classes",
            "near-equal-classes",
            "conflicting-labels",
            "conflicting-label-sets",
            "leakage",
        ):
            first = " and ".join(_relative(item, data.root) for item in finding.groups[0])
            more = f", and {len(finding.groups) - 1} more" if len(finding.groups) > 1 else ""
            lines.append(f"{finding.title.lower()}: {first}{more}")
    return [f"{'; '.join(lines[:2])}. Run `striate check {data.source}` for details"] if lines else []


def _open(
    source: Any, found: Found, path_column: str | None, label_column: str | None, multi_label: bool | None
) -> DataSet | None:
    """Open a dataset; None for a folder with another layout, which is a finding."""
    try:
        return open_data(source, path_column, label_column, multi_label=multi_label)
    except DataError as error:
        if not isinstance(source, (str, os.PathLike)) or not is_folder(expanded(source)):
            raise
        found["layout"].append((Item(os.fspath(source), detail=error.why),))
        return None


def _images_of_folder(folder: str, found: Found) -> list[_Image]:
    """List all images in a folder without the layout of a dataset."""
    paths = scan_folder(expanded(folder), frozenset(), found)
    found["passed-over-images"].clear()  # they are checked, and the layout is already a finding
    return [_Image(partial(str, name), name, "", "") for name in paths if os.access(name, os.F_OK)]


def _images_of_dataset(data: DataSet, found: Found) -> list[_Image]:
    """List the images of a dataset; check its classes and the other files in its folder."""
    images = _images(data)
    check_classes(data, found)
    path = expanded(data.source)
    if is_folder(path) and all(samples.in_files for samples in data.splits.values()):
        scan_folder(path, frozenset(image.name for image in images), found)
        if data.is_multi_label:
            _forgive_joined_links(images, found)
    return images


def _forgive_joined_links(images: list[_Image], found: Found) -> None:
    """Drop the finding that links were skipped which stand for classes of an image in the dataset."""
    joined = {file_identity(image.name) for image in images if os.access(image.name, os.F_OK)}
    skipped = found["passed-over-images"]  # all exist
    found["passed-over-images"] = [group for group in skipped if file_identity(group[0].path) not in joined]


def _images(data: DataSet) -> list[_Image]:
    return [
        _Image(partial(samples.fetch, i), name, label, "" if split == UNSPLIT else split, data.is_multi_label)
        for split, samples in data.splits.items()
        for i, (name, label) in enumerate(zip(samples.names, data.label_texts(samples), strict=True))
    ]


def _labels_per_image(data: DataSet | None, images: list[_Image], found: Found) -> LabelsPerImage | None:
    """How many classes images have; those without any are a finding. None if each image has one."""
    if data is None or not data.is_multi_label:
        return None
    found["no-class"] += [(image.item(),) for image in images if not image.label]
    counts = [len(split_label(image.label)) for image in images]
    return LabelsPerImage(fmean(counts), max(counts), counts.count(0))


def _class_names(image: _Image, data: DataSet | None) -> tuple[str, ...]:
    if data is not None and data.is_multi_label:
        return split_label(image.label)
    return (image.label,) if image.label else ()


def _inspect(images: list[_Image], workers: int, progress: Progress) -> list[ImageStats]:
    progress.begin("checking", len(images))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="check")
    try:
        stats = []
        for one in pool.map(_Image.inspect, images):
            stats.append(one)
            progress.advance(1)
        return stats
    finally:
        pool.shutdown(cancel_futures=True)
        progress.end()


def _find_properties(images: list[_Image], stats: list[ImageStats], found: Found) -> None:
    """Find problems of single images, the worst first; properties of many images become one finding."""
    properties: dict[str, list[tuple[float, Item]]] = defaultdict(list)
    sides = [min(one.size) for one in stats if one.print is not None]
    typical = median(sides) if sides else 0
    for image, one in zip(images, stats, strict=True):
        if one.kind:
            found[one.kind].append((image.item(one.error),))
        elif min(one.size) < max(min(32.0, typical / 2), typical / 8):
            detail = f"{one.size[0]}x{one.size[1]} px"
            properties["tiny"].append((-min(one.size), image.item(detail)))
        for fact in one.facts:
            properties[fact.kind].append((fact.badness, image.item(fact.detail)))
    for kind, items in properties.items():
        items.sort(key=lambda pair: -pair[0])  # stable: equal ones stay in the order of their names
        normal = _NORMAL_BLANK if kind == "odd-one-out" else _NORMAL
        many = kind in _PROPERTIES and len(items) > max(3, normal * len(images))
        if many and KINDS[kind].severity == WARNING:
            title = KINDS[kind].title
            detail = f"{len(items):,} of {len(images):,}: {title[0].lower()}{title[1:]}"
            found["style"].append((Item(items[0][1].path, detail=detail),))
        else:
            found[kind] += [(item,) for _, item in items]
    _find_lone_formats(images, stats, found)


def _find_lone_formats(images: list[_Image], stats: list[ImageStats], found: Found) -> None:
    """Find up to two files of one format among at least fifty of another; merge them with blank images."""
    formats = Counter(one.format for one in stats if one.format)
    if not formats:
        return
    main, most = formats.most_common(1)[0]
    details = {items[0].path: items[0].detail for items in found["odd-one-out"]}  # the worst first
    for image, one in zip(images, stats, strict=True):
        if one.format and formats[one.format] <= 2 and most >= 50:
            detail = f"{one.format} among {most:,} {main}"
            details[image.name] = f"{detail}; {details[image.name]}" if image.name in details else detail
    by_name = {image.name: image for image in images}
    # Images with both properties come first.
    order = sorted(details, key=lambda name: ";" not in details[name])
    found["odd-one-out"] = [(by_name[name].item(details[name]),) for name in order]


def _find_duplicates(images: list[_Image], stats: list[ImageStats], found: Found) -> None:
    """Find equal files and near duplicates."""
    by_digest = defaultdict(list)
    for i, one in enumerate(stats):
        if one.digest:
            by_digest[one.digest].append(i)
    firsts = (members[0] for members in by_digest.values())
    prints = {i: p for i in firsts if (p := stats[i].print) is not None}
    similar = np.array([*prints], np.int64)[find_copies([*prints.values()])]
    equal_pairs = [(members[0], other) for members in by_digest.values() for other in members[1:]]
    pairs = np.concatenate([similar, np.array(equal_pairs, np.int64).reshape(-1, 2)])
    for members in connected_components(pairs):
        equal = len({stats[i].digest for i in members}) == 1
        _add_copies([images[i] for i in members], equal, found)
    for kind in _COPIES:
        found[kind].sort(key=lambda group: -len(group))


def _add_copies(members: list[_Image], equal: bool, found: Found) -> None:
    """Add one group of copies under all kinds of problems that it causes."""
    group = tuple(image.item("equal files" if equal else "the same image") for image in members)
    if len({image.label for image in members}) > 1:
        several = any(image.is_multi_label for image in members)
        found["conflicting-label-sets" if several else "conflicting-labels"].append(group)
    if len({image.split for image in members}) > 1:
        found["leakage"].append(group)
    if len({(image.label, image.split) for image in members}) < len(members):
        found["duplicates" if equal else "near-duplicates"].append(group)


def _relative(item: Item, root: str) -> str:
    """Return the path below the root, or the name of a class."""
    return repr(os.path.relpath(item.path, root) if root and item.label else item.path)
