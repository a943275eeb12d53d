"""Check of class names and class sizes."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

from striate.data.check.records import KINDS, Found, Item
from striate.data.images.samples import UNSPLIT, DataSet
from striate.data.images.tables import SUFFIXES
from striate.sections import Phrase

FEW_IMAGES = 20  # training images of a class; fewer are reported
MANY_VALUES = 20  # different numbers as labels; fewer may be the names of classes
REGRESSION = "regression and ordinal targets are not supported"
ADVICE = KINDS["continuous-labels"].advice
MAX_IMBALANCE = 10.0  # images in the largest class over the smallest
RARER = 10  # times the images of a class whose name is perhaps a wrong spelling
_SHORTEST, _LONGEST = 4, 100  # letters of names that are compared: cat and bat are two animals


def continuous_labels(data: DataSet) -> str:
    """Say why the labels look like measured values (regression, ordinal) rather than classes; "" if not.

    They do if all of them are numbers, and there are fewer than three images for each value, or more than 20
    values that are not all whole numbers. The column of a table may mean anything, so there also any three
    values with fractions do, and more than 20 whole numbers that are not 0 or 1 to the number of values.
    """
    values = _numbers(data.classes)
    if values is None or data.is_multi_label:  # values do not come as sets
        return ""
    images = sum(map(len, data.splits.values()))
    fractions = any(not value.is_integer() for value in values)
    many = len(values) > MANY_VALUES
    of_table = Path(data.source).suffix.lower() in SUFFIXES
    if many and (images < 3 * len(values) or fractions or (of_table and not _are_ids(values))):
        return _measured(data, images)
    return _measured(data, images) if of_table and fractions and len(values) > 2 else ""


def numeric_note(data: DataSet) -> list[str]:
    """A note that the numbers of a table are used as names of classes; none for other labels."""
    of_table = Path(data.source).suffix.lower() in SUFFIXES
    if not of_table or data.is_multi_label or len(data.classes) < 3 or _numbers(data.classes) is None:
        return []
    first, last = (sorted(data.classes, key=_number)[i] for i in (0, -1))
    return [
        f"the labels are the numbers {first} to {last}: each is the name of a class, and their order has no "
        f"meaning ({REGRESSION})"
    ]


def _measured(data: DataSet, images: int) -> str:
    shown = ", ".join(sorted(data.classes, key=_number)[:3])
    return f"its {len(data.classes):,} labels are numbers such as {shown}, for {images:,} images"


def _number(name: str) -> float:
    return float(name.replace(",", "."))


def _numbers(names: tuple[str, ...]) -> list[float] | None:
    """The names as numbers, also with a comma as in 1,5; None if one is no number."""
    try:
        return [_number(name) for name in names]
    except ValueError:
        return None


def _are_ids(values: list[float]) -> bool:
    """Whether numbers count the classes: 0 or 1 to their number."""
    return sorted(values) in ([*range(len(values))], [*range(1, len(values) + 1)])


def check_classes(data: DataSet, found: Found) -> None:
    """Find similar class names, classes that are missing in a split or too small, and imbalance."""
    counts = {
        split: +Counter(dict(zip(data.classes, data.class_counts(samples).tolist(), strict=True)))
        for split, samples in data.splits.items()
    }
    if why := continuous_labels(data):
        found["continuous-labels"].append((Item(data.source, detail=why),))
    total = sum(counts.values(), Counter[str]())
    found["empty-classes"] += [(Item(name),) for name in data.empty_folders]
    pairs = [("near-equal-classes", list(names)) for names in _misspelt_names(total)]
    for kind, names in [*(("similar-classes", names) for names in _similar_names(data.classes)), *pairs]:
        items = tuple(Item(name, detail=_with_count(name, total[name])) for name in names)
        found[kind].append(items)
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


def _with_count(name: str, count: int) -> Phrase:
    return Phrase(
        "{name}, {count} image" if count == 1 else "{name}, {count} images", name=repr(name), count=count
    )


def _similar_names(classes: tuple[str, ...]) -> list[list[str]]:
    """Group names that differ only in case, spaces, `-`, `_` or Unicode normalization."""
    by_form = defaultdict(list)
    for name in classes:
        by_form[_form(name)].append(name)
    return [names for names in by_form.values() if len(names) > 1]


def _form(name: str) -> str:
    """A name without what is easily written in two ways."""
    form = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in form if not c.isspace() and c not in "-_")


def _misspelt_names(counts: Counter[str]) -> list[tuple[str, str]]:
    """Pairs of a rare and a frequent class whose names differ by one letter, or by two swapped ones.

    Two such names have in common what one of them is without one letter, so not all pairs are compared.
    """
    least = RARER * min(counts.values(), default=0)
    sharing = defaultdict(list)  # only of frequent names, because captions of images may be the classes
    for name, count in counts.items():
        for part in _parts(name) if count >= least else ():
            sharing[part].append(name)
    found = {
        (rare, frequent)
        for rare in counts
        for part in (_parts(rare) if sharing else ())
        for frequent in sharing.get(part, ())
        if RARER * counts[rare] <= counts[frequent] and _is_one_slip(_form(rare), _form(frequent))
    }
    return sorted(found)


def _parts(name: str) -> set[str]:
    """A name as it is compared, and without each of its letters; nothing for a short or a very long one."""
    form = _form(name)
    if not _SHORTEST <= len(form) <= _LONGEST:
        return set()
    return {form, *(form[:i] + form[i + 1 :] for i in range(len(form)))}


def _is_one_slip(one: str, other: str) -> bool:
    """Whether two texts differ by one letter that is left out, added or replaced, or by two swapped ones.

    Digits are no letters: a7 and a8 are two things.
    """
    start = _shared(one, other)
    one, other = one[start:], other[start:]
    end = _shared(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    swapped = len(one) == 2 and one == other[::-1]
    return (swapped or max(len(one), len(other)) == 1) and not any(c.isdigit() for c in one + other)


def _shared(one: str, other: str) -> int:
    """The number of letters at the start that are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
