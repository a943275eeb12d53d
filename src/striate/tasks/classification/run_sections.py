"""Parts of the reports of image classification that do not depend on the number of classes of an image."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import torch

from striate.charts import Curves, ImageGrid, Line, Panel
from striate.data.images.label_sets import split_label
from striate.inference.evaluation import Evaluation
from striate.inference.multi_label_evaluation import MultiLabelEvaluation
from striate.sections import Column, Phrase, Section, Table, Text
from striate.tasks.classification.augmentation import augmented
from striate.tasks.classification.data_report import data_section
from striate.transforms.mixing import mix_batch
from striate.transforms.multiband import visible

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification
    from striate.training.run_folder import TrainingRun

AnyEvaluation = Evaluation | MultiLabelEvaluation

_MAX_AUGMENTED, _MAX_PROBLEMS = 32, 200


def run_sections(evaluation: AnyEvaluation, run: TrainingRun | None) -> list[Section]:
    """Training curves, augmented batch, data, unreadable images and network; only the data without a run."""
    found = []
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


def commands(evaluation: AnyEvaluation, model: str) -> tuple[str, ...]:
    """Command lines that use a bundle."""
    return (
        f"striate predict {quote(model)} PHOTO.jpg",
        f"striate evaluate {quote(model)} --data {quote(evaluation.data)}",
        f"striate weights inspect {quote(model)}",
    )


def curves(run: TrainingRun) -> Curves:
    """Loss and accuracy on training and validation images, learning rate and speed over the epochs."""
    loss = (
        Line(Phrase(split), tuple(getattr(row, f"{split}_loss") for row in run.epochs))
        for split in ("train", "val")
    )
    panels = (
        Panel(_loss_name(run), tuple(loss)),
        _accuracy(run),
        Panel(Phrase("Learning rate"), (Line(Phrase("learning rate"), tuple(row.lr for row in run.epochs)),)),
        Panel(Phrase("Training speed (images/s)"), (Line(Phrase("images/s"), _speeds(run)),)),
    )
    return Curves(
        tuple(row.epoch for row in run.epochs), panels, run.best_epoch,
        alt="Loss and accuracy over the epochs", file="curves",
    )  # fmt: skip


def _loss_name(run: TrainingRun) -> Phrase:
    if run.config.loss == "focal":
        return Phrase("Loss (nats)")  # focal in training, cross-entropy in validation
    several = run.task.dataset.is_multi_label
    return Phrase("Loss (binary cross-entropy, nats)" if several else "Loss (cross-entropy, nats)")


def _accuracy(run: TrainingRun) -> Panel:
    if hasattr(run.epochs[0], "val_map"):
        values = tuple(row.val_map for row in run.epochs)
        return Panel(Phrase("mAP"), (Line(Phrase("val"), values),), share=True, floor=None)
    both = (
        Line(Phrase(split), tuple(getattr(row, f"{split}_top1") for row in run.epochs))
        for split in ("train", "val")
    )
    return Panel(Phrase("Accuracy (top-1)"), tuple(both), share=True, floor=None)


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
    labels = task.dataset.label_texts(task.dataset.splits["train"].take(shown))
    return ImageGrid(
        tuple(map(visible, images)),
        tuple(split_label(text) if task.dataset.is_multi_label else (text,) for text in labels),
        columns=8,
        alt="Augmented training images",
        file="augmented",
    )


def what_of(evaluation: AnyEvaluation) -> Phrase:
    """The images in words, as `Evaluation.what`."""
    return Phrase(evaluation.what)


def subtitle(evaluation: AnyEvaluation, run: TrainingRun | None) -> Phrase:
    """What was trained on what, or what was evaluated."""
    if run is None:
        return Phrase("Evaluated on {what} of {data}", what=what_of(evaluation), data=evaluation.data)
    height, width = run.description.image_preprocess.size
    return Phrase(
        "{model} on {data}: {count:,} training images of {width}×{height} px, {classes} classes",
        model=run.config.model, data=run.description.provenance["data"], count=run.task.train_count,
        width=width, height=height, classes=len(run.task.dataset.classes),
    )  # fmt: skip


def warnings_of(evaluation: AnyEvaluation) -> list[str]:
    """The notes, and classes that the data or the model do not have."""
    warnings: list[str] = list(evaluation.notes)
    if evaluation.missing_classes:
        names = ", ".join(evaluation.missing_classes)
        warnings.append(Phrase("No {what} of: {names}", what=what_of(evaluation), names=names))
    for name, count in evaluation.extra_classes.items():
        warnings.append(
            Phrase(
                "The model does not know the class {name}: its {count} images were not evaluated",
                name=repr(name), count=count,
            )
        )  # fmt: skip
    return warnings


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


def _problems_section(evaluation: AnyEvaluation, run: TrainingRun | None) -> Section | None:
    problems = run.task.problems if run else evaluation.problems  # those of a run include its evaluation's
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
