"""Records of a data check: findings by severity, each with advice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from striate.csv_file import csv_bytes
from striate.data.images.samples import DataSet
from striate.sections import Phrase

_COLUMNS = ("path", "kind", "severity", "class", "split", "detail", "group")  # of problems.csv
SERIOUS, WARNING, NOTE = "serious", "warning", "note"


class Kind(NamedTuple):
    """A kind of problem.

    Attributes:
        severity: `serious`: a model or its metrics will be wrong, or files cannot be used; `warning`: worth a
            look; `note`: Striate handles it, other programs may not.
        title: what is wrong.
        advice: what to do.
        about: what its items are: images, other files or folders, classes, or the dataset.
    """

    severity: str
    title: str
    advice: str
    about: str = "images"


# In the order of the report: the most serious first.
KINDS = {
    "layout": Kind(SERIOUS, "The folder cannot be trained on",
        "Rearrange it as the message says; the images are checked anyway", "dataset"),
    "continuous-labels": Kind(SERIOUS, "Labels that look like measured values",
        "Striate learns classes, not values: give ranges of values names, such as small and large; write ids "
        "of classes as text, such as id-17", "dataset"),
    "conflicting-labels": Kind(SERIOUS, "The same image in two classes",
        "Decide which class is right and delete the other copy; if images have several classes, use a table "
        "with labels such as cat;dog"),
    "conflicting-label-sets": Kind(SERIOUS, "The same image with different classes",
        "Keep one copy, with all classes that it shows: each copy counts as lacking those of the others"),
    "leakage": Kind(SERIOUS, "Images that are in two splits (data leakage)",
        "Delete the copies from train: accuracy on training images is too optimistic"),
    "similar-classes": Kind(SERIOUS, "Classes whose names differ only by case, spaces or form",
        "Merge the folders: each is trained as a separate class", "classes"),
    "missing-class": Kind(SERIOUS, "Classes without images in train",
        "Add training images, or remove the class from val and test", "classes"),
    "scarce-class": Kind(SERIOUS, "Classes with fewer than three images",
        "Add images: such a class cannot be in train, val and test", "classes"),
    "denied": Kind(SERIOUS, "No permission to read",
        "Change the permissions (chmod), or move it out of the folder", "files"),
    "empty": Kind(SERIOUS, "Empty files (0 bytes)", "Download them again or delete them"),
    "truncated": Kind(SERIOUS, "Truncated files", "Download or copy them again"),
    "bomb": Kind(SERIOUS, "Images with too many pixels",
        "Resize them; delete files that may be decompression bombs"),
    "unreadable": Kind(SERIOUS, "Files that cannot be read as images",
        "Replace, convert or delete them; training skips them"),
    "odd-one-out": Kind(WARNING, "Outliers: nearly blank, or the only file of its format",
        "Check them: downloads may contain placeholders such as 'image not found'"),
    "duplicates": Kind(WARNING, "Duplicate files in one class",
        "Keep one of each: copies count twice, and a split may separate them"),
    "near-duplicates": Kind(WARNING, "Near duplicates: the image re-encoded, resized, rotated or flipped",
        "Keep one of each: a split may separate them"),
    "few-images": Kind(WARNING, "Classes with fewer than 20 training images",
        "Add images, or start from pretrained weights: --weights imagenet --transfer head", "classes"),
    "near-equal-classes": Kind(WARNING, "Classes whose names differ by one letter, one of them much rarer",
        "Correct the name if it is a typing error", "classes"),
    "empty-classes": Kind(WARNING, "Class folders without images",
        "Add images, or delete the folder: it is not used as a class", "classes"),
    "imbalance": Kind(WARNING, "Imbalanced classes",
        "Look at the recall of each class, not only at accuracy; add images to small classes", "classes"),
    "not-held-out": Kind(WARNING, "Classes of train without images in val or test",
        "Add some, or the accuracy on this class remains unknown", "classes"),
    "passed-over-images": Kind(WARNING, "Skipped images outside of class folders",
        "Move them into a class folder"),
    "hidden": Kind(WARNING, "Hidden folders and files with images, which are skipped",
        "Delete or rename them: other programs treat such a folder as a class", "files"),
    "loops": Kind(WARNING, "Broken links, and links to a parent folder",
        "Delete them; they are skipped", "files"),
    "tiny": Kind(WARNING, "Tiny images", "Check them: thumbnails are enlarged to the input size"),
    "blurred": Kind(WARNING, "Blurred images", "Check whether they are useful"),
    "dark": Kind(WARNING, "Dark images: 95 % of each is nearly black", "Check whether anything is visible"),
    "overexposed": Kind(WARNING, "Overexposed images: 90 % of each is nearly white",
        "Check whether anything is visible"),
    "odd-shape": Kind(WARNING, "Images with an aspect ratio above 3:1",
        "A center crop loses two thirds of them: crop them, or train with --resize letterbox"),
    "wrong-name": Kind(NOTE, "Files with the suffix of another format",
        "Rename them; Striate uses the content, other programs use the suffix"),
    "animated": Kind(NOTE, "Files with several images", "Only the first image is used"),
    "not-rgb": Kind(NOTE, "Images that are not 8-bit RGB: gray, palette, CMYK, with transparency",
        "They are converted, transparent pixels to white"),
    "deep": Kind(NOTE, "Images of 16 bits or more",
        "They are scaled to 8 bits by the range of their type, not of their values"),
    "turned": Kind(NOTE, "Images with an EXIF orientation",
        "They are rotated upright; programs that ignore EXIF show them rotated"),
    "no-class": Kind(NOTE, "Images without any class",
        "They are examples of what has none of the classes; add the classes that they show"),
    "style": Kind(NOTE, "Properties of many images, which are normal for this dataset",
        "Nothing, if this is intended", "dataset"),
    "other-files": Kind(NOTE, "Files that are not images", "They are skipped", "files"),
}  # fmt: skip


class Item(NamedTuple):
    """A file, folder or class of a finding.

    Attributes:
        path: path of the file, or name of the image, folder or class.
        label: class of the image, or empty.
        split: of the image; empty if the dataset has no splits.
        detail: details in a few words.
    """

    path: str
    label: str = ""
    split: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        rest = {"class": self.label or None, "split": self.split or None, "detail": self.detail}
        return {"path": self.path, **rest}


Found = dict[str, list[tuple[Item, ...]]]  # groups of items by kind


@dataclass(frozen=True)
class Finding:
    """All items with one kind of problem.

    Attributes:
        kind: a key of `KINDS`.
        groups: groups of items; images that belong together, such as copies, are one group.
    """

    kind: str
    groups: tuple[tuple[Item, ...], ...] = field(repr=False)

    @property
    def pictured(self) -> bool:
        """True if the items are images that can be shown."""
        return KINDS[self.kind].about == "images"

    @property
    def severity(self) -> str:
        """`serious`, `warning` or `note`."""
        return KINDS[self.kind].severity

    @property
    def title(self) -> str:
        """What is wrong."""
        return KINDS[self.kind].title

    @property
    def advice(self) -> str:
        """What to do."""
        return KINDS[self.kind].advice

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, group by group."""
        return tuple(item for group in self.groups for item in group)

    @property
    def count(self) -> int:
        """Number of items."""
        return sum(map(len, self.groups))

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values; each item has the number of its group."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "advice": self.advice,
            "count": self.count,
            "groups": len(self.groups),
            "items": [item.to_json() | {"group": g} for g, group in enumerate(self.groups) for item in group],
        }


@dataclass(frozen=True)
class LabelsPerImage:
    """How many classes images have, if they can have several.

    Attributes:
        mean: of all images.
        most: classes of one image.
        none: images without any.
    """

    mean: float
    most: int
    none: int

    @property
    def summary(self) -> Phrase:
        """The same in a line."""
        return Phrase(
            "{mean:.1f} classes for each image on average, at most {most}; {none} image has none"
            if self.none == 1
            else "{mean:.1f} classes for each image on average, at most {most}; {none:,} images have none",
            mean=self.mean, most=self.most, none=self.none,
        )  # fmt: skip


@dataclass(frozen=True)
class CheckReport:
    """Result of a data check.

    Attributes:
        source: the dataset, as the user named it.
        n: number of images.
        classes: number of images per class.
        splits: number of images per split.
        findings: most serious first.
        seconds: duration of the check.
        labels_per_image: None if each image has one class.
        data: the dataset; None for a folder with another layout.
    """

    source: str
    n: int
    classes: dict[str, int] = field(repr=False)
    splits: dict[str, int]
    findings: tuple[Finding, ...] = field(repr=False)
    seconds: float
    labels_per_image: LabelsPerImage | None = None
    data: DataSet | None = field(default=None, repr=False, compare=False)

    @property
    def serious(self) -> bool:
        """True if there are serious findings."""
        return any(finding.severity == SERIOUS for finding in self.findings)

    def to_csv(self) -> bytes:
        """Convert to a CSV file with a row for each item; `path` is empty for classes and the dataset.

        Images that belong together, such as copies, have the same number in `group`.
        """
        return csv_bytes(_COLUMNS, (row for finding in self.findings for row in self._rows(finding)))

    def _rows(self, finding: Finding) -> Iterator[tuple[str | int, ...]]:
        about = KINDS[finding.kind].about
        for number, group in enumerate(finding.groups, 1):
            for item in group:
                path, label = item.path, item.label
                if about == "classes":
                    path, label = "", item.path
                elif about == "dataset":
                    path = ""
                elif self.data is None or self.data.root:
                    path = str(Path(path).absolute())
                yield path, finding.kind, finding.severity, label, item.split, item.detail, number

    def to_json(self) -> dict[str, Any]:
        """Convert to the JSON that `striate check --json` prints."""
        return {
            "source": self.source,
            "n": self.n,
            "classes": self.classes,
            "splits": self.splits,
            "labels_per_image": None if self.labels_per_image is None else asdict(self.labels_per_image),
            "serious": self.serious,
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": self.seconds,
        }


def sort_findings(found: Found) -> tuple[Finding, ...]:
    """Convert groups of items by kind to findings, in the order of `KINDS`."""
    kinds = [kind for kind in KINDS if found.get(kind)]
    return tuple(Finding(kind, tuple(found[kind])) for kind in kinds)
