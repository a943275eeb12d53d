"""Image classification, as the training engine sees it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from striate.data import DataSet, DecodedImages, Problem, left_out
from striate.device import autocast
from striate.tasks.classification.augmentation import training_input
from striate.tasks.classification.balance import epoch_batches, epoch_order
from striate.tasks.classification.budget import read_seconds
from striate.tasks.classification.data import (
    SPLIT,
    ImageData,
    data_changes,
    identity,
    read_problems,
    write_inputs,
    write_problems,
)
from striate.tasks.classification.loss import Criterion
from striate.tasks.classification.metrics import (
    ClassificationMetrics,
    MultiLabelMetrics,
    training_errors,
    validate,
)
from striate.tasks.classification.network import freeze_gradually, parameter_groups
from striate.tasks.classification.preparation import prepare
from striate.training.schedule import EvaluationCost, Indices, LRSchedule
from striate.training.task import Loss, Setup, Task

if TYPE_CHECKING:
    from striate.data.images.loader import Batch
    from striate.tasks.classification.config import ClassificationConfig
    from striate.tasks.classification.features import FrozenFeatures
    from striate.training.state import EpochMetrics, TrainState
    from striate.transforms.preprocess import Preprocess


class Classification(Task):
    """Image classification.

    Attributes:
        dataset: with train, val and possibly test.
        preprocess: of the run.
        train: training images, uncropped if augmentation crops them.
        val: validation images.
        features: of the frozen layers, if they are computed once.
        problems: images that could not be read so far.
        train_count: number of readable training images, as far as is known.
        trained: the modules that are trained in this epoch, with gradual unfreezing.
    """

    unit = "images"
    inputs = (SPLIT,)
    row: type[EpochMetrics] = ClassificationMetrics  # type: ignore[misc]  # that of an instance may differ
    memory_hint = "Use a smaller --imgsz or --model, or free memory that other programs use"

    config: ClassificationConfig
    data: ImageData
    preprocess: Preprocess
    train: DecodedImages
    val: DecodedImages
    features: FrozenFeatures | None = None
    problems: tuple[Problem, ...] = ()
    train_count: int = 0
    trained: Sequence[str] = ()

    @property
    def dataset(self) -> DataSet:
        """The images in their splits."""
        return self.data.dataset

    # Before the first step

    def prepare(self, resumed: Mapping[str, Any] | None) -> Setup:
        """Choose the preprocessing, open the images, and build the network."""
        setup = prepare(self, resumed)
        if self.config.transfer in ("head", "append"):
            self.few_steps = 10  # one layer on good features learns in few
        self.given, self.config, self.head = self.config, setup.config, setup.facts["head"]
        self.train_count = len(self.train)
        if self.dataset.is_multi_label:
            self.row = MultiLabelMetrics
        return setup

    def fingerprint(self) -> str:
        """Classes, splits, file names and labels."""
        return identity(self.dataset)

    def changes(self, folder: Path, facts: Mapping[str, Any]) -> list[str]:
        """How the files differ from those of a run that is being resumed."""
        self.problems = read_problems(folder)
        return data_changes(folder, self.dataset)

    def write_inputs(self, folder: Path) -> None:
        """Write split.csv, problems.csv, the table of all files, and what was left out."""
        write_inputs(folder, self.dataset)
        if self.data.exclusion is not None:
            self.data.exclusion.write(folder)

    def introduce(self) -> list[str]:
        """Numbers of images, the network, and the settings that matter most."""
        config, description = self.config, self.setup.description
        parameters = sum(p.numel() for p in self.setup.network.parameters())
        height, width = self.preprocess.size
        splits = self.dataset.splits
        test = f", {len(splits['test']):,} for testing" if "test" in splits else ""
        _, reason = self.given.augmentation(self.preprocess, self.train_count)
        augmentation = config.to_json()["augment"] + (f" ({reason})" if reason else "")
        return [
            f"{self.train_count:,} images for training, {len(self.val):,} for validation{test}; "
            f"{len(self.dataset.classes)} classes",
            f"{description.architecture}: {parameters:,} parameters, input "
            f"{self.preprocess.channels}x{height}x{width}, {config.opt}, learning rate {config.lr:g}, "
            f"augmentation {augmentation}, on {self.context.device}",
        ]

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Pretrained layers learn at a lower rate; layer decay lowers it further towards the input."""
        return parameter_groups(self.config, network, self.head)

    def lr_schedule(self, steps: int | None) -> LRSchedule:
        """The schedule as configured; a warm-up in steps becomes a share of all steps."""
        config = self.config
        warmup = config.warmup if config.warmup < 1 or steps is None else min(1.0, config.warmup / steps)
        return LRSchedule(config.peak_lr, config.sched, warmup, config.milestone_shares, config.gamma)

    def evaluation_cost(self) -> EvaluationCost:
        """Numbers of images, and the time to read one."""
        from striate.tasks.classification.held_out import images_after_training

        held_out = self.dataset.splits.get("test", self.dataset.splits["val"])
        workers = self.context.distributed.workers(self.config.workers)
        reading = read_seconds(held_out, self.preprocess, workers)
        frozen = 0.0 if self.features is None else self.features.image_seconds
        return EvaluationCost(len(self.val), images_after_training(self), reading, frozen)

    def precompute(self, state: TrainState, seconds_left: float) -> None:
        """Compute the features of frozen layers once, where every epoch would compute the same."""
        if self.config.transfer == "all":
            return
        from striate.tasks.classification.features import compute_features

        self.features, note = compute_features(self, state.network, seconds_left)
        if note:
            self.setup.notes += self.context.inform(note)

    # In every epoch

    @cached_property
    def criterion(self) -> Criterion:
        """The training loss."""
        return Criterion.of(self.config, self.train.labels, self.context.device)

    def start_epoch(self, network: nn.Module, epoch: int) -> bool:
        """With gradual unfreezing, train one more stage every few epochs."""
        config, before = self.config, self.trained
        if not config.unfreeze_every:
            return False
        count = 1 + epoch // config.unfreeze_every
        self.trained = freeze_gradually(config, network, self.head, count)
        added = [name for name in self.trained if name not in before]
        if before and added:
            self.context.progress.info(f"from epoch {epoch + 1} on, training {', '.join(added)}, too")
        return self.trained != before

    def names_of(self, samples: Indices) -> list[str]:
        """Paths of these samples."""
        names = self.dataset.splits["train"].names
        return [names[i] for i in (samples % len(names)).tolist()]

    def order(self, epoch: int) -> list[Indices]:
        """The images of each step of an epoch; with a balanced sampler see `balanced_batches`."""
        return epoch_order(self.config, self.train.labels, epoch)

    def batches(self, epoch: int, order: Sequence[Indices]) -> Iterator[Batch]:
        """Pixels (or features) and labels."""
        device, workers = self.context.device, self.context.distributed.workers(self.config.workers)
        if self.features is not None:
            view = self.config.augmentation_epoch(epoch)
            return self.features.train.batches([which % len(self.train) for which in order], device, view)
        return epoch_batches(self.config, self.train, order, device, workers)

    def training_module(self, network: nn.Module) -> nn.Module:
        """The network, or the layers after its frozen ones if their features are known."""
        return network if self.features is None else self.features.module(network)

    def loss(self, module: nn.Module, batch: Batch, state: TrainState, index: int) -> Loss:
        """Augment, mix, and compute the loss."""
        with self.context.stopwatch.phase("augmentation"):
            inputs, share = batch.pixels, 1.0
            if self.features is None:
                inputs, share = training_input(
                    self.config, self.preprocess, batch, state.epoch, state.step, index
                )
        with self.context.stopwatch.phase("forward"), autocast(self.context.device, self.precision):
            with training_errors(self.config.architecture):
                output = module(inputs)
            loss, scores = self.criterion(output, batch.labels, share)
        answers = scores.detach()
        if batch.labels.ndim == 2:
            correct = ((answers > 0) == batch.labels).all(dim=1).sum()
        else:
            correct = (answers.argmax(dim=1) == batch.labels).sum()
        return Loss(loss, correct, len(batch.labels))

    def evaluate(self, network: nn.Module) -> dict[str, Any]:
        """Loss, accuracy and macro F1 on the validation images."""
        batch, distributed = self.config.batch, self.context.distributed
        if self.features is not None:
            return self.features.evaluate(network, batch, self.context.device)
        workers = distributed.workers(self.config.workers)
        return validate(network, self.preprocess, self.val, batch, self.context.device, workers, distributed)

    def rewritten(self) -> list[str]:
        """The images that have changed while the run was reading them."""
        return [*self.train.rewritten(), *self.val.rewritten()]

    def make_row(self, state: TrainState, metrics: Mapping[str, Any], per_second: float) -> EpochMetrics:
        """The row of results.csv."""
        totals = state.totals
        accuracy = "train_exact" if self.row is MultiLabelMetrics else "train_top1"
        values: dict[str, Any] = {
            "epoch": state.epoch + 1, "step": state.step, "lr": state.lr, "train_loss": totals.loss,
            accuracy: totals.accuracy, **metrics, "seconds": totals.seconds, "images_per_second": per_second,
        }  # fmt: skip
        return self.row(**values)

    def after_epoch(self, row: Any) -> None:
        """List the files that turned out to be unreadable; most do in the first epoch."""
        known = {problem.path: problem for problem in self.problems}
        found = (*self.train.problems, *self.val.problems)
        gathered = self.context.distributed.all_gather_object([[p.path, p.reason] for p in found])
        problems = known | {path: Problem(path, why) for listed in gathered for path, why in listed}
        if len(problems) == len(known):
            return
        self.problems = tuple(problems.values())
        warn = self.context.progress.warn
        warn(left_out(self.problems))
        readable = np.array([name not in problems for name in self.dataset.splits["train"].names])
        self.train_count = int(readable.sum())
        self.setup.description.provenance["training_images"] = self.train_count
        if self.context.distributed.is_main:
            write_problems(self.folder, self.problems)
        left = self.dataset.class_counts(self.dataset.splits["train"].take(np.flatnonzero(readable)))
        for label in np.flatnonzero(left == 0):
            note = f"class {self.dataset.classes[label]!r} has no readable training image"
            if note not in self.setup.notes:
                self.setup.notes.append(note)
                warn(note)

    # After training

    def evaluate_held_out(self, run: Any) -> Any:
        """Calibrate the best bundle on val, or choose thresholds, and evaluate it on test, or on val."""
        from striate.tasks.classification.held_out import evaluate_held_out

        return evaluate_held_out(self, run)

    def report(self, run: Any, evaluation: Any) -> Any:
        """The report's content."""
        from striate.tasks.classification.report import report

        return report(evaluation, run, model=str(run.best))

    def summary(self, run: Any, evaluation: Any) -> dict[str, Any]:
        """What `striate train --json` prints, besides the paths."""
        if self.dataset.is_multi_label:
            own = {"val_map": run.best_row.val_map if run.best_row else None, **evaluation.metrics}
        else:
            own = {
                "val_top1": run.best_row.val_top1 if run.best_row else None,
                "top1": evaluation.top1,
                "top1_ci": list(evaluation.top1_ci),
                **{name: evaluation.metrics[name] for name in ("balanced_accuracy", "macro_f1", "mcc")},
                "majority_top1": evaluation.majority_top1,
                "only_class": evaluation.only_class,
            }
        return {
            **own,
            "split": evaluation.split,
            "n": evaluation.n,
            "unreadable": [problem.path for problem in self.problems],
            "seconds": run.seconds,
            "images_per_second": self.images_per_second(run),
        }

    @staticmethod
    def images_per_second(run: Any) -> float:
        """Training speed, the median over the epochs; 0 before the first one."""
        return float(statistics.median([row.images_per_second for row in run.epochs] or [0.0]))
