"""Check of class names and class sizes."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

from striate.data.check.records import Found, Item
from striate.data.images.samples import UNSPLIT, DataSet
from striate.sections import Phrase

FEW_IMAGES = 20  # training images of a class; fewer are reported
MANY_VALUES = 20  # different numbers as labels; fewer may be the names of classes
MAX_IMBALANCE = 10.0  # images in the largest class over the smallest


def continuous_labels(data: DataSet) -> str:
    """Say why the labels look like measured values rather than classes; "" if they do not.

    They do if all of them are numbers, and there are fewer than three images for each value, or more than 20
    values that are not all whole numbers.
    """
    values = []
    for name in data.classes:
        try:
            values.append(float(name))
        except ValueError:
            return ""
    images = sum(map(len, data.splits.values()))
    fractions = sum(not value.is_integer() for value in values)
    if len(values) > MANY_VALUES and (images < 3 * len(values) or fractions):
        shown = ", ".join(sorted(data.classes, key=float)[:3])
        return f"its {len(values):,} labels are numbers such as {shown}, for {images:,} images"
    return ""


def check_classes(data: DataSet, found: Found) -> None:
    """Find similar class names, classes that are missing in a split or too small, and imbalance."""
    counts = {
        split: Counter(data.classes[i] for i in samples.labels.tolist())
        for split, samples in data.splits.items()
    }
    if why := continuous_labels(data):
        found["continuous-labels"].append((Item(data.source, detail=why),))
    for names in _similar_names(data.classes):
        total = sum(counts.values(), Counter[str]())
        items = tuple(
            Item(name, detail=Phrase("{name}, {count} images", name=repr(name), count=total[name]))
            for name in names
        )
        found["similar-classes"].append(items)
    train = counts.get(UNSPLIT, counts.get("train"))
    if train is None:
        return
    for split, other in counts.items():
        for name in sorted(set(other) - set(train), key=lambda name: (-other[name], name)):
            detail = Phrase("{count} images in {split}", count=other[name], split=split)
            item = Item(name, split=split, detail=detail)
            found["missing-class"].append((item,))
        for name in sorted(set(train) - set(other)):
            found["not-held-out"].append(
                (Item(name, split=split, detail=Phrase("none in {split}", split=split)),)
            )
    for name, count in sorted(train.items(), key=lambda pair: pair[1]):
        if count < FEW_IMAGES:
            kind = "scarce-class" if count < 3 else "few-images"
            template = "{count} images" if count > 1 else "{count} image"
            found[kind].append((Item(name, detail=Phrase(template, count=count)),))
    ordered = sorted(train, key=lambda name: train[name])
    if ordered and train[ordered[-1]] > MAX_IMBALANCE * train[ordered[0]]:
        ends = (ordered[-1], ordered[0])
        found["imbalance"].append(
            tuple(Item(name, detail=Phrase("{count:,} images", count=train[name])) for name in ends)
        )


def _similar_names(classes: tuple[str, ...]) -> list[list[str]]:
    """Group names that differ only in case, spaces, `-`, `_` or Unicode normalisation."""
    by_form = defaultdict(list)
    for name in classes:
        form = unicodedata.normalize("NFKC", name).casefold()
        by_form["".join(c for c in form if not c.isspace() and c not in "-_")].append(name)
    return [names for names in by_form.values() if len(names) > 1]
