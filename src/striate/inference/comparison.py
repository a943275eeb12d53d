"""Compare classifiers on the same images."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from striate import anatomy
from striate.errors import DataError, StriateError, UsageError, translated_errors
from striate.inference.classifier import Classifier, load
from striate.inference.evaluation import Evaluation, evaluate
from striate.inference.evaluation_data import find_data
from striate.metrics.classification import wilson_interval
from striate.metrics.comparison import difference_interval, holm, mcnemar
from striate.progress import AUTO, Progress
from striate.transforms.decode import Uint8Array

_PASSES = 15  # of one image, for the time of a prediction
_PICTURES = 24


@dataclass(frozen=True)
class Model:
    """One of the compared models.

    Attributes:
        name: its path as given.
        top1: accuracy on the common images.
        top1_ci: its 95 % Wilson interval.
        macro_f1: of all its images.
        ece: expected calibration error of all its images.
        params: number of parameters.
        macs: multiply-accumulates of an image; None if the network cannot be traced.
        ms: median time of a prediction for one decoded image, in milliseconds.
    """

    name: str
    top1: float
    top1_ci: tuple[float, float]
    macro_f1: float
    ece: float
    params: int
    macs: int | None
    ms: float


@dataclass(frozen=True)
class ClassChange:
    """The recall of a class with both models, and McNemar's p-value after Holm's correction."""

    name: str
    images: int
    first: float
    second: float
    p: float


@dataclass(frozen=True)
class Changed:
    """An image with another prediction."""

    path: str
    label: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """A model compared with the first one.

    Attributes:
        second: its name.
        difference: its accuracy minus that of the first.
        difference_ci: 95 % interval, paired BCa bootstrap over images.
        only_first: images that only the first gets right.
        only_second: images that only this one gets right.
        p: of McNemar's exact test.
        per_class: changes of each class, the largest first.
        changed: images with another prediction, those that one of the models gets right first.
        pictures: the first of them, uint8 `[height, width, channels]`, as the first network
            receives them.
    """

    second: str
    difference: float
    difference_ci: tuple[float, float]
    only_first: int
    only_second: int
    p: float
    per_class: tuple[ClassChange, ...] = field(repr=False)
    changed: tuple[Changed, ...] = field(repr=False)
    pictures: tuple[Uint8Array, ...] = field(repr=False, compare=False)


@dataclass(frozen=True)
class ModelComparison:
    """Models on the same images.

    Attributes:
        data: name of the dataset.
        split: of it.
        n: images that all models were evaluated on.
        models: in the order as given.
        pairs: the second model and further ones against the first.
        notes: warnings.
    """

    data: str
    split: str
    n: int
    models: tuple[Model, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The images, and the accuracy of each model."""
        models = ", ".join(f"{model.name} top-1 {100 * model.top1:.2f} %" for model in self.models)
        return f"ModelComparison({models}; {self.n:,} {self.split} images of {self.data!r})"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the pictures."""
        bare = replace(self, pairs=tuple(replace(pair, pictures=()) for pair in self.pairs))
        found = dataclasses.asdict(bare)
        for pair in found["pairs"]:
            del pair["pictures"]
        return found


@translated_errors()
def compare(
    *models: str | os.PathLike[str],
    data: Any = None,
    split: str = "auto",
    batch: int = 64,
    device: str = "auto",
    workers: int | None = None,
    calibration: bool = True,
    trust: str = "",
    progress: Progress = AUTO,
) -> ModelComparison:
    """Compare classifiers on the same labeled images; classes and images are matched by name.

    Args:
        models: at least two bundles or run folders; the others are compared with the first.
        data: as for `striate.data.open_data`; None for what the run of the first held out.
        split: as for `evaluate`.
        batch: batch size.
        device: where to run.
        workers: threads that decode images; None for one per CPU core.
        calibration: whether to use the models' calibrations.
        trust: as for `striate.load`.
        progress: receives updates.

    Raises:
        UsageError: fewer than two models, no data, no such split.
        DataError: no image that all models can be evaluated on.
    """
    if len(models) < 2:
        raise UsageError("one model", "there is nothing to compare it with", "Give two or more")
    opened = [load(model, device, trust=trust) for model in models]
    dataset, _ = find_data(opened[0], data, None, None)
    options: dict[str, Any] = {
        "split": split, "batch": batch, "workers": workers, "calibration": calibration, "progress": progress
    }  # fmt: skip
    found = [_evaluated(name, model, dataset, options) for name, model in zip(models, opened, strict=True)]
    rows = _common(found)
    names = [os.fspath(model) for model in models]
    right = [e.predicted[at] == e.labels[at] for e, at in zip(found, rows, strict=True)]
    records = tuple(
        _model(name, model, e, r) for name, model, e, r in zip(names, opened, found, right, strict=True)
    )
    pairs = tuple(
        _pair(names[i], (found[0], rows[0], right[0]), (found[i], rows[i], right[i]))
        for i in range(1, len(found))
    )
    notes = dict.fromkeys(note for e in found for note in e.notes)
    return ModelComparison(found[0].data, found[0].split, len(rows[0]), records, pairs, tuple(notes))


def _evaluated(
    name: str | os.PathLike[str], model: Classifier, dataset: Any, options: dict[str, Any]
) -> Evaluation:
    found = evaluate(model, dataset, **options)
    if not isinstance(found, Evaluation):
        why = "its images have several classes each"
        raise UsageError(f"cannot compare {os.fspath(name)!r}", why, "Use `striate evaluate` for each model")
    return found


def _common(found: Sequence[Evaluation]) -> list[npt.NDArray[np.int64]]:
    """The rows of each evaluation for the images that all have, in the order of the first.

    Images of equal names (a table may name one twice) are told apart by their order.
    """
    places = []
    for e in found:
        seen: dict[str, int] = {}
        place = {}
        for i, name in enumerate(e.names):
            seen[name] = seen.get(name, -1) + 1
            place[name, seen[name]] = i
        places.append(place)
    keys = [key for key in places[0] if all(key in place for place in places[1:])]
    if not keys:
        why = "the models have no class in common with each other and with the data"
        raise DataError("cannot compare the models", why, "Compare models of the same classes")
    return [np.array([place[key] for key in keys], np.int64) for place in places]


_Side = tuple[Evaluation, npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def _pair(name: str, first: _Side, second: _Side) -> Pair:
    (a, at_a, right_a), (b, at_b, right_b) = first, second
    labels = a.labels[at_a]
    gained, lost = right_b & ~right_a, right_a & ~right_b
    classes = [c for c in range(len(a.classes)) if (labels == c).any()]
    p = [mcnemar(int((lost & (labels == c)).sum()), int((gained & (labels == c)).sum())) for c in classes]
    per_class = [
        ClassChange(
            a.classes[c], int((labels == c).sum()), float(right_a[labels == c].mean()),
            float(right_b[labels == c].mean()), float(adjusted),
        )
        for c, adjusted in zip(classes, holm(np.array(p)), strict=True)
    ]  # fmt: skip
    answers = [_names(a, at_a), _names(b, at_b)]
    changed = [i for i in range(len(labels)) if answers[0][i] != answers[1][i]]
    changed.sort(key=lambda i: not (gained[i] or lost[i]))
    return Pair(
        name, float(right_b.mean() - right_a.mean()), difference_interval(right_a, right_b),
        int(lost.sum()), int(gained.sum()), mcnemar(int(lost.sum()), int(gained.sum())),
        tuple(sorted(per_class, key=lambda c: -abs(c.second - c.first))),
        tuple(
            Changed(a.names[at_a[i]], a.classes[labels[i]], answers[0][i], answers[1][i]) for i in changed
        ),
        tuple(np.asarray(a.images[int(at_a[i])]) for i in changed[:_PICTURES]),
    )  # fmt: skip


def _names(e: Evaluation, rows: npt.NDArray[np.int64]) -> list[str]:
    """The predicted class of some images; empty without an answer."""
    return [e.classes[c] if c >= 0 else "" for c in e.predicted[rows]]


def _model(name: str, model: Classifier, e: Evaluation, right: npt.NDArray[np.bool_]) -> Model:
    try:
        macs: int | None = anatomy.trace(model.network, size=model.preprocess.size).macs
    except StriateError:  # its steps depend on its input
        macs = None
    top1 = float(right.mean())
    return Model(
        name, top1, wilson_interval(top1, len(right)), e.metrics["macro_f1"], e.ece,
        sum(p.numel() for p in model.network.parameters()), macs,
        _milliseconds(model, np.asarray(e.images[:1])),
    )  # fmt: skip


def _milliseconds(model: Classifier, image: npt.NDArray[np.uint8]) -> float:
    times = []
    for _ in range(_PASSES):
        start = time.perf_counter()
        model.probabilities(image)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[_PASSES // 3 :]))
