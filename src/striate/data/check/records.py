"""What a check-up finds: kinds ranked by seriousness, each with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from striate.data.images.samples import DataSet

SERIOUS, WARNING, NOTE = "serious", "warning", "note"


class Kind(NamedTuple):
    """One thing that can be wrong.

    Attributes:
        severity: `serious`: a model or its figures will be wrong, or files are lost; `warning`: worth a
            look; `note`: Striate copes with it, other programs may not.
        title: what it is.
        advice: what to do.
    """

    severity: str
    title: str
    advice: str


# In the order in which they are told: the most serious first.
KINDS = {
    "layout": Kind(
        SERIOUS,
        "The folder cannot be trained on",
        "Arrange it as said; the files are checked all the same",
    ),
    "conflicting-labels": Kind(
        SERIOUS,
        "The same image under two classes",
        "Decide which class is right and delete the other copy",
    ),
    "leakage": Kind(
        SERIOUS,
        "Images of one split in another",
        "Delete the copies from train: accuracy on images that were learnt is no measurement",
    ),
    "similar-classes": Kind(
        SERIOUS,
        "Classes whose names differ only by case, spaces or form",
        "Merge the folders: each is trained as a class of its own",
    ),
    "missing-class": Kind(
        SERIOUS,
        "Classes that train has no images of",
        "Add training images, or take the class out of val and test",
    ),
    "scarce-class": Kind(
        SERIOUS,
        "Classes with fewer than three images",
        "Add images: such a class cannot be trained, chosen by and measured at once",
    ),
    "denied": Kind(
        SERIOUS,
        "No permission to read",
        "Give yourself the right to read it (chmod), or move it out",
    ),
    "empty": Kind(
        SERIOUS,
        "Empty files (0 bytes)",
        "Fetch them again or delete them",
    ),
    "truncated": Kind(
        SERIOUS,
        "Files that are cut short",
        "Fetch them again: the copy or download stopped half-way",
    ),
    "bomb": Kind(
        SERIOUS,
        "Images with too many pixels",
        "Scale them down, or delete what may be an attack on decoders",
    ),
    "unreadable": Kind(
        SERIOUS,
        "Files that cannot be read as images",
        "Replace, convert or delete them; training leaves them out",
    ),
    "odd-one-out": Kind(
        WARNING,
        "Odd ones out: nearly blank, or the only file of its format",
        "Look at them: placeholders such as 'image not found' are downloaded with real images",
    ),
    "duplicates": Kind(
        WARNING,
        "Files with equal content in one class",
        "Keep one of each: copies count twice, and a division may put them on both sides",
    ),
    "near-duplicates": Kind(
        WARNING,
        "The same picture in other files: re-encoded, scaled, turned or mirrored",
        "Keep one of each: a division may put them on both sides",
    ),
    "few-images": Kind(
        WARNING,
        "Classes with fewer than 20 training images",
        "Add images, or start from trained weights: --weights imagenet --transfer head",
    ),
    "imbalance": Kind(
        WARNING,
        "Classes of very different size",
        "Read each class's recall, not accuracy alone; add images of the small ones",
    ),
    "not-held-out": Kind(
        WARNING,
        "Classes of train that val or test has no images of",
        "Add some, or nothing is known of how well the class is recognised",
    ),
    "passed-over-images": Kind(
        WARNING,
        "Images that no class folder or name claims, which are passed over",
        "Move them into a class folder, or give them the suffix of an image",
    ),
    "hidden": Kind(
        WARNING,
        "Hidden folders and files with images, which are passed over",
        "Delete them or rename them: other programs take such a folder for a class",
    ),
    "loops": Kind(
        WARNING,
        "Links that lead nowhere, or back to a folder above",
        "Delete them; they are passed over",
    ),
    "tiny": Kind(
        WARNING,
        "Tiny images",
        "Look at them: thumbnails are scaled up to the input's size",
    ),
    "blurred": Kind(
        WARNING,
        "Blurred images, even scaled down to 160 px",
        "Look at them: are they of use?",
    ),
    "dark": Kind(
        WARNING,
        "Dark images: 95 % of each is nearly black",
        "Look at them: is anything to be seen?",
    ),
    "overexposed": Kind(
        WARNING,
        "Overexposed images: 90 % of each is nearly white",
        "Look at them: is anything to be seen?",
    ),
    "odd-shape": Kind(
        WARNING,
        "Images more than three times as long as wide, or as wide as long",
        "A centre crop loses two thirds of them: cut them, or train with --resize letterbox",
    ),
    "wrong-name": Kind(
        NOTE,
        "Files whose suffix is not that of their format",
        "Rename them; Striate goes by content, other programs do not",
    ),
    "animated": Kind(
        NOTE,
        "Files with several pictures",
        "Only the first picture is used",
    ),
    "not-rgb": Kind(
        NOTE,
        "Images that are not 8-bit RGB: gray, palette, CMYK, with transparency",
        "They are converted, transparent pixels to white",
    ),
    "deep": Kind(
        NOTE,
        "Images of 16 bits or more",
        "They are scaled to 8 bits by the range of their type, not by content",
    ),
    "turned": Kind(
        NOTE,
        "Images that their EXIF block turns",
        "They are turned upright; programs that pass over EXIF see them lying",
    ),
    "style": Kind(
        NOTE,
        "What many of the images share, and so is their nature",
        "Nothing, if you meant it so",
    ),
    "other-files": Kind(
        NOTE,
        "Files that are no images",
        "They are passed over",
    ),
}


class Item(NamedTuple):
    """A file, folder or class that a finding names.

    Attributes:
        path: of the file, or the name of the image, folder or class.
        label: class of the image; empty where it has none.
        split: of the image; empty where the data are not divided.
        detail: what exactly, in a few words.
    """

    path: str
    label: str = ""
    split: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """One kind of trouble and all that have it.

    Attributes:
        kind: a key of `KINDS`.
        groups: those concerned; images that belong together, such as copies, are one group.
        pictured: whether the items are images that can be shown.
    """

    kind: str
    groups: tuple[tuple[Item, ...], ...] = field(repr=False)
    pictured: bool = True

    @property
    def severity(self) -> str:
        """`serious`, `warning` or `note`."""
        return KINDS[self.kind].severity

    @property
    def title(self) -> str:
        """What it is."""
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
        """How many items."""
        return sum(map(len, self.groups))

    def to_json(self) -> dict[str, Any]:
        """Plain values; every item has the number of its group."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "advice": self.advice,
            "count": self.count,
            "groups": len(self.groups),
            "items": [
                {
                    "path": i.path,
                    "class": i.label or None,
                    "split": i.split or None,
                    "detail": i.detail,
                    "group": g,
                }
                for g, group in enumerate(self.groups)
                for i in group
            ],
        }


@dataclass(frozen=True)
class CheckReport:
    """A data set, looked over.

    Attributes:
        source: what was checked.
        n: how many images.
        classes: images of each class, by name.
        splits: images of each split, by name.
        findings: most serious first.
        seconds: how long it took.
        data: what it was read from; None for a folder that is no data set.
    """

    source: str
    n: int
    classes: dict[str, int] = field(repr=False)
    splits: dict[str, int]
    findings: tuple[Finding, ...] = field(repr=False)
    seconds: float
    data: DataSet | None = field(default=None, repr=False, compare=False)

    @property
    def serious(self) -> bool:
        """Whether anything was found by which a model or its figures would be wrong."""
        return any(finding.severity == SERIOUS for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """What `striate check --json` prints."""
        return {
            "source": self.source,
            "n": self.n,
            "classes": self.classes,
            "splits": self.splits,
            "serious": self.serious,
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": self.seconds,
        }


def sort_findings(
    found: dict[str, list[tuple[Item, ...]]], unpictured: frozenset[str]
) -> tuple[Finding, ...]:
    """Findings in the order of `KINDS`, of the groups that each kind has."""
    return tuple(
        Finding(kind, tuple(found[kind]), kind not in unpictured) for kind in KINDS if found.get(kind)
    )
