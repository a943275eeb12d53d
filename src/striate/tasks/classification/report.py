"""Report sections of image classification, as plain records."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import torch

from striate.charts import (
    Bin,
    ClassCurves,
    ConfusionMatrix,
    Curves,
    Gallery,
    ImageGrid,
    Line,
    Panel,
    Predictions,
    Reliability,
)
from striate.inference.evaluation import Evaluation
from striate.metrics.classification import wilson_interval
from striate.sections import Card, Column, Estimate, Phrase, Report, Section, Table, Text
from striate.tasks.classification.augmentation import augmented
from striate.tasks.classification.data_report import data_section
from striate.transforms.mixing import mix_batch
from striate.transforms.multiband import visible

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification
    from striate.training.run_folder import TrainingRun

_MAX_AUGMENTED, _MAX_MISTAKES, _MAX_PROBLEMS = 32, 24, 200


def report(evaluation: Evaluation, run: TrainingRun | None = None, *, model: str) -> Report:
    """Describe an evaluation, and the run that trained the model, as a report.

    Args:
        evaluation: on the held-out images.
        run: the training run; None for a report about the evaluation alone.
        model: path of the bundle, for the commands that the page shows.
    """
    return Report(
        title=Phrase("{model} on {data}", model=Path(model).name, data=evaluation.data),
        subtitle=_subtitle(run) if run else _evaluated_on(evaluation),
        sections=tuple(sections(evaluation, run)),
        cards=tuple(_cards(evaluation, run)),
        warnings=tuple(_warnings(evaluation)),
        commands=(
            f"striate predict {quote(model)} PHOTO.jpg",
            f"striate evaluate {quote(model)} --data {quote(evaluation.data)}",
            f"striate weights inspect {quote(model)}",
        ),
        predictions=Predictions(
            evaluation.classes, evaluation.names, evaluation.labels, evaluation.predicted,
            evaluation.probabilities, evaluation.images, are_files=os.path.isfile(evaluation.names[0]),  # noqa: PTH113 - raises no error
            maps=evaluation.maps,
        ),
    )  # fmt: skip


def sections(evaluation: Evaluation, run: TrainingRun | None = None) -> list[Section]:
    """Errors, classes, calibration, curves, augmented batch, data, unreadable images and network."""
    found = [
        _errors_section(evaluation),
        _classes_section(evaluation),
        Section(
            Phrase("Calibration"),
            (reliability(evaluation), _calibration_text(evaluation)),
            _temperature(evaluation),
        ),
    ]
    if run is not None:
        if run.epochs:
            found.append(Section(Phrase("Training curves"), (curves(run),)))
        found.append(_augmented_section(run))
    found.append(data_section(evaluation, None if run is None else run.task.data.findings()))
    if (problems := _problems_section(evaluation, run)) is not None:
        found.append(problems)
    if run is not None:
        found.append(_network_section(run))
    return found


def curves(run: TrainingRun) -> Curves:
    """Loss and accuracy on training and validation images, learning rate and speed over the epochs."""

    def lines(name: str) -> tuple[Line, ...]:
        return tuple(
            Line(Phrase(split), tuple(getattr(row, f"{split}_{name}") for row in run.epochs))
            for split in ("train", "val")
        )

    panels = (
        Panel(Phrase("Loss (cross-entropy, nats)"), lines("loss")),
        Panel(Phrase("Accuracy (top-1)"), lines("top1"), share=True, floor=None),
        Panel(Phrase("Learning rate"), (Line(Phrase("learning rate"), tuple(row.lr for row in run.epochs)),)),
        Panel(Phrase("Training speed (images/s)"), (Line(Phrase("images/s"), _speeds(run)),)),
    )
    return Curves(
        tuple(row.epoch for row in run.epochs), panels, run.best_epoch,
        alt="Loss and accuracy over the epochs", file="curves",
    )  # fmt: skip


def confusion_matrix(evaluation: Evaluation) -> ConfusionMatrix:
    """Counts of each predicted class for each true class."""
    return ConfusionMatrix(evaluation.classes, evaluation.confusion, alt="Confusion matrix", file="confusion")


def reliability(evaluation: Evaluation, bins: int = 10) -> Reliability:
    """Accuracy of the images in each range of confidence, the largest probability."""
    finite = evaluation.predicted >= 0
    confidence = evaluation.probabilities.max(axis=1)[finite]
    correct = (evaluation.predicted == evaluation.labels)[finite]
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins).tolist()
    hits = np.bincount(place, weights=correct, minlength=bins).tolist()
    found = tuple(
        Bin(i / bins, (i + 1) / bins, count, hit / count if count else None)
        for i, (count, hit) in enumerate(zip(counts, hits, strict=True))
    )
    return Reliability(
        found, evaluation.ece, Phrase("confidence"), Phrase("accuracy"), alt="Reliability diagram",
        file="calibration",
    )  # fmt: skip


def worst_mistakes(evaluation: Evaluation) -> ImageGrid | None:
    """The wrong predictions with the highest confidence, or None if every prediction is correct.

    Images whose scores are not finite come first.
    """
    predicted = evaluation.predicted
    confidence = np.where(predicted < 0, np.inf, evaluation.probabilities.max(axis=1))
    wrong = np.flatnonzero(predicted != evaluation.labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MAX_MISTAKES]
    if not len(wrong):
        return None
    classes = evaluation.classes
    return ImageGrid(
        tuple(visible(np.asarray(evaluation.images[i])) for i in wrong),
        tuple(
            (
                f"{classes[predicted[i]]} {confidence[i]:.0%}" if predicted[i] >= 0 else "scores not finite",
                f"is {classes[evaluation.labels[i]]}",
            )
            for i in wrong
        ),
        alt="The wrong predictions with the highest confidence",
        file="mistakes",
    )


def augmented_batch(task: Classification) -> ImageGrid:
    """Up to 32 images of the first batch of the first epoch, augmented and mixed as in training."""
    which, config = task.order(0)[0], task.config
    resized = np.empty((len(which), *task.train.shape), np.uint8)
    readable = task.train.read(which % len(task.train), resized)
    which = which[readable]
    pixels = augmented(config, task.preprocess, torch.from_numpy(resized[readable]), 0, which)
    mixed, _ = mix_batch(
        pixels.float().permute(0, 3, 1, 2), config.mixup, config.cutmix, seed=config.seed, step=0
    )
    shown = which[:_MAX_AUGMENTED] % len(task.train)
    images = mixed[:_MAX_AUGMENTED].round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return ImageGrid(
        tuple(map(visible, images)),
        tuple((task.dataset.classes[label],) for label in task.train.labels[shown]),
        columns=8,
        alt="Augmented training images",
        file="augmented",
    )


def _speeds(run: TrainingRun) -> tuple[float, ...]:
    return tuple(row.images_per_second for row in run.epochs)


def _augmented_section(run: TrainingRun) -> Section:
    config = run.config
    parts = [str(config.to_json()["augment"])]
    mixing = (("MixUp", config.mixup), ("CutMix", config.cutmix))
    parts += [f"{name} {alpha:g}" for name, alpha in mixing if alpha]
    note = Phrase(
        "The first batch as the network received it (augmentation: {augmentation}).",
        augmentation=", ".join(parts),
    )
    return Section(Phrase("Augmented training batch"), (augmented_batch(run.task),), note)


def _errors_section(evaluation: Evaluation) -> Section:
    grid = worst_mistakes(evaluation)
    note = Phrase("Wrong labels show up first among the errors with the highest confidence.")
    if grid is None:
        note = Phrase("None: all {n:,} {what} are right.", n=evaluation.n, what=_what(evaluation))
    gallery = Gallery(
        grid, alt="The wrong predictions with the highest confidence", file="mistakes" if grid else ""
    )
    return Section(Phrase("Errors"), (confusion_matrix(evaluation), gallery), note)


def _classes_section(evaluation: Evaluation) -> Section:
    columns = (
        Column(Phrase("class")), Column(Phrase("images"), ",d"), Column(Phrase("precision"), ".1%"),
        Column(Phrase("recall"), ".1%"), Column(Phrase("F1"), ".1%", bar_max=1.0),
    )  # fmt: skip
    called = evaluation.confusion.sum(axis=0).tolist()
    rows = tuple(
        (c.name, c.support, _estimate(c.precision, n), _estimate(c.recall, c.support), c.f1)
        for c, n in zip(evaluation.per_class, called, strict=True)
    )
    note = Phrase("Precision and recall with their 95 % intervals. Choose a class to see its curves.")
    curves = ClassCurves(alt="Precision-recall and ROC curves of a class")
    averages = tuple((Phrase(s.name), s.support, s.precision, s.recall, s.f1) for s in evaluation.averages)
    tables = Table(columns, rows, of_classes=True), Table((Column(Phrase("average")), *columns[1:]), averages)
    return Section(Phrase("Per-class metrics"), (*tables, curves), note)


def _estimate(share: float, n: int) -> Estimate | None:
    """A share with its Wilson interval; None of no images."""
    return Estimate(share, *wilson_interval(share, n)) if n else None


def _calibration_text(evaluation: Evaluation) -> Text:
    if not math.isfinite(evaluation.ece):
        return Text(Phrase("No prediction is finite, so there is nothing to measure."), secondary=True)
    return Text(
        Phrase(
            "A bar shows how often predictions of this confidence are correct; on the dashed line they are "
            "as often correct as the model says. Below it, the model is too confident."
        ),
        secondary=True,
    )


def _temperature(evaluation: Evaluation) -> Phrase:
    calibration = evaluation.calibration
    if calibration is None:
        return Phrase("The probabilities are not calibrated.")
    return Phrase(
        "The scores are divided by the temperature {temperature:.2f}, from {n:,} images ({source}): their "
        "calibration error was {before:.3f} before and {after:.3f} after.",
        temperature=calibration.temperature, n=calibration.images, source=Phrase(calibration.source),
        before=calibration.ece[0], after=calibration.ece[1],
    )  # fmt: skip


def _problems_section(evaluation: Evaluation, run: TrainingRun | None) -> Section | None:
    problems = [*(run.task.problems if run else ()), *evaluation.problems]
    if not problems:
        return None
    rows = tuple((problem.path, problem.reason) for problem in problems[:_MAX_PROBLEMS])
    blocks: tuple[Table | Text, ...] = (
        Table((Column(Phrase("file")), Column(Phrase("reason"), messages=True)), rows),
    )
    if len(problems) > _MAX_PROBLEMS:
        count = len(problems) - _MAX_PROBLEMS
        more = "and {count:,} more, listed in problems.csv" if run else "and {count:,} more"
        blocks += (Text(Phrase(more, count=count), secondary=True),)
    note = Phrase("They were left out. Nothing was changed in the data folder.")
    return Section(Phrase("Unreadable images ({count:,})", count=len(problems)), blocks, note)


def _network_section(run: TrainingRun) -> Section:
    """The parts of the network with their parameters; frozen ones are marked."""
    network = run.task.setup.network
    total = sum(p.numel() for p in network.parameters())
    rows = []
    for name, part in network.named_children():
        count = sum(p.numel() for p in part.parameters())
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        rows.append((name, _layers(part), count, count / max(1, total), trained / count if count else None))
    columns = (
        Column(Phrase("part")), Column(Phrase("layers")), Column(Phrase("parameters"), ",d"),
        Column(Phrase("share"), ".1%", bar_max=1.0), Column(Phrase("trained"), ".0%"),
    )  # fmt: skip
    preprocess = run.description.image_preprocess
    note = Phrase(
        "{architecture}, {total:,} parameters, input {channels}×{height}×{width}. `striate anatomy "
        "{architecture}` shows output size, receptive field and MACs of each layer.",
        architecture=run.description.architecture, total=total, channels=preprocess.channels,
        height=preprocess.size[0], width=preprocess.size[1],
    )  # fmt: skip
    return Section(Phrase("Network"), (Table(columns, tuple(rows)),), note)


def _layers(part: torch.nn.Module) -> str:
    """The most frequent kinds of layers of a part with their numbers: `4 Conv2d, 4 BatchNorm2d`."""
    kinds: dict[str, int] = {}
    for module in part.modules():
        if not list(module.children()):
            kinds[type(module).__name__] = kinds.get(type(module).__name__, 0) + 1
    most = sorted(kinds.items(), key=lambda pair: -pair[1])[:4]
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in most)


def _what(evaluation: Evaluation) -> Phrase:
    """The images in words, as `Evaluation.what`."""
    return Phrase(evaluation.what)


def _evaluated_on(evaluation: Evaluation) -> Phrase:
    return Phrase("Evaluated on {what} of {data}", what=_what(evaluation), data=evaluation.data)


def _subtitle(run: TrainingRun) -> Phrase:
    height, width = run.description.image_preprocess.size
    return Phrase(
        "{model} on {data}: {count:,} training images of {width}×{height} px, {classes} classes",
        model=run.config.model, data=run.description.provenance["data"], count=run.task.train_count,
        width=width, height=height, classes=len(run.task.dataset.classes),
    )  # fmt: skip


def _cards(evaluation: Evaluation, run: TrainingRun | None) -> list[Card]:
    cards = [
        Card(value, Phrase(m.label), m.format, interval=_finite(evaluation.intervals.get(m.name)))
        for m, value in evaluation.shown.items()
    ]
    label = Phrase("{metric} on {n:,} {what}", metric=cards[0].label, n=evaluation.n, what=_what(evaluation))
    cards[0] = replace(cards[0], label=label)
    baseline = Phrase("majority baseline: always {name}", name=evaluation.majority_class)
    cards.insert(1, Card(evaluation.majority_top1, baseline, cards[0].format))
    if run is not None:
        cards.append(Card(run.task.images_per_second(run), Phrase("training images per second"), ",.0f"))
    return cards


def _finite(ends: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ends is None or not math.isfinite(sum(ends)) else ends


def _warnings(evaluation: Evaluation) -> list[str]:
    warnings: list[str] = list(evaluation.notes)
    if evaluation.missing_classes:
        names = ", ".join(evaluation.missing_classes)
        warnings.append(Phrase("No {what} of: {names}", what=_what(evaluation), names=names))
    for name, count in evaluation.extra_classes.items():
        warnings.append(
            Phrase(
                "The model does not know the class {name}: its {count} images were not evaluated",
                name=repr(name), count=count,
            )
        )  # fmt: skip
    return warnings
