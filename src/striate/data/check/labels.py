"""Check of class names and class sizes."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

from striate.data.check.records import Found, Item
from striate.data.images.samples import UNSPLIT, DataSet

FEW_IMAGES = 20  # training images of a class; fewer are reported
MAX_IMBALANCE = 10.0  # images in the largest class over the smallest


def check_classes(data: DataSet, found: Found) -> None:
    """Find similar class names, classes that are missing in a split or too small, and imbalance."""
    counts = {
        split: Counter(data.classes[i] for i in samples.labels.tolist())
        for split, samples in data.splits.items()
    }
    for names in _similar_names(data.classes):
        total = sum(counts.values(), Counter[str]())
        items = tuple(Item(name, detail=f"{name!r}, {total[name]} images") for name in names)
        found["similar-classes"].append(items)
    train = counts.get(UNSPLIT, counts.get("train"))
    if train is None:
        return
    for split, other in counts.items():
        for name in sorted(set(other) - set(train)):
            item = Item(name, split=split, detail=f"{other[name]} images in {split}")
            found["missing-class"].append((item,))
        for name in sorted(set(train) - set(other)):
            found["not-held-out"].append((Item(name, split=split, detail=f"none in {split}"),))
    for name, count in sorted(train.items(), key=lambda pair: pair[1]):
        if count < FEW_IMAGES:
            kind = "scarce-class" if count < 3 else "few-images"
            found[kind].append((Item(name, detail=f"{count} image{'s' if count > 1 else ''}"),))
    ordered = sorted(train, key=lambda name: train[name])
    if ordered and train[ordered[-1]] > MAX_IMBALANCE * train[ordered[0]]:
        ends = (ordered[-1], ordered[0])
        found["imbalance"].append(tuple(Item(name, detail=f"{train[name]:,} images") for name in ends))


def _similar_names(classes: tuple[str, ...]) -> list[list[str]]:
    """Group names that differ only in case, spaces, `-`, `_` or Unicode normalisation."""
    by_form = defaultdict(list)
    for name in classes:
        form = unicodedata.normalize("NFKC", name).casefold()
        by_form["".join(c for c in form if not c.isspace() and c not in "-_")].append(name)
    return [names for names in by_form.values() if len(names) > 1]
