"""What the class names and their numbers of images tell."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping

from striate.data.check.records import Item
from striate.data.images.samples import UNSPLIT, DataSet

Found = dict[str, list[tuple[Item, ...]]]

FEW = 20  # images of a class below which little can be learnt from nothing
LOPSIDED = 10.0  # times as many images in the largest class as in the smallest


def check_classes(data: DataSet, found: Found) -> None:
    """Note classes of like names, classes that are missing somewhere or scarce, and imbalance."""
    counts = {
        split: Counter(data.classes[i] for i in samples.labels.tolist())
        for split, samples in data.splits.items()
    }
    for names in _alike(data.classes):
        total = sum(counts.values(), Counter[str]())
        found["similar-classes"].append(
            tuple(Item(name, detail=f"{name!r}, {total[name]} images") for name in names)
        )
    trained = counts.get(UNSPLIT, counts.get("train"))
    if trained is None:
        return
    for split, held in counts.items():
        if split in (UNSPLIT, "train"):
            continue
        for name in sorted(set(held) - set(trained)):
            found["missing-class"].append(
                (Item(name, split=split, detail=f"{held[name]} images in {split}"),)
            )
        for name in sorted(set(trained) - set(held)):
            found["not-held-out"].append((Item(name, split=split, detail=f"none in {split}"),))
    _sizes(trained, found)


def _sizes(trained: Mapping[str, int], found: Found) -> None:
    for name, count in sorted(trained.items(), key=lambda pair: pair[1]):
        if count < FEW:
            kind = "scarce-class" if count < 3 else "few-images"
            found[kind].append((Item(name, detail=f"{count} image{'s' if count > 1 else ''}"),))
    ordered = sorted(trained, key=lambda name: trained[name])
    if ordered and trained[ordered[-1]] > LOPSIDED * trained[ordered[0]]:
        ends = (ordered[-1], ordered[0])
        found["imbalance"].append(tuple(Item(name, detail=f"{trained[name]:,} images") for name in ends))


def _alike(classes: tuple[str, ...]) -> list[list[str]]:
    """Names that are one name but for case, spaces, `-`, `_`, and the forms that Unicode has for one text."""
    by_form = defaultdict(list)
    for name in classes:
        form = unicodedata.normalize("NFKC", name).casefold()
        by_form["".join(c for c in form if not c.isspace() and c not in "-_")].append(name)
    return [names for names in by_form.values() if len(names) > 1]
