"""Loss and metrics of image classification: the training loss, and the row of an epoch."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from striate.data import Images
from striate.errors import StriateError, TrainingError, environment_error
from striate.inference.prediction import sigmoid
from striate.inference.scores import logits
from striate.metrics import multi_label
from striate.metrics.classification import balanced_accuracy, class_counts, macro_f1
from striate.models import is_foreign
from striate.training.distributed import SINGLE, Distributed
from striate.training.schedule import Indices
from striate.training.state import EpochMetrics
from striate.transforms.preprocess import Preprocess


@dataclass(frozen=True)
class ClassificationMetrics(EpochMetrics):
    """One row of results.csv.

    Attributes:
        train_top1: share of the augmented images that the network classified correctly, each
            before its step.
        val_loss: cross-entropy on the validation images, in nats.
        val_top1: top-1 accuracy on them.
        seconds: duration of the epoch, with validation.
        images_per_second: in training, without validation.
        val_macro_f1: mean F1 of the classes on the validation images; None in runs of earlier versions.
        val_balanced_accuracy: mean recall of the classes on the validation images; None as above.
    """

    MONITORS: ClassVar[Mapping[str, tuple[str, int]]] = {
        "top1": ("val_top1", 1), "balanced-accuracy": ("val_balanced_accuracy", 1),
        "macro-f1": ("val_macro_f1", 1), "loss": ("val_loss", -1),
    }  # fmt: skip

    train_top1: float
    val_loss: float
    val_top1: float
    seconds: float
    images_per_second: float
    val_macro_f1: float | None = None
    val_balanced_accuracy: float | None = None

    @property
    def log_line(self) -> tuple[str, str]:
        """Metrics and speed in words."""
        metrics = (
            f"loss {self.train_loss:.4f}  top1 {self.train_top1:.4f}  "
            f"val loss {self.val_loss:.4f}  val top1 {self.val_top1:.4f}"
        )
        return metrics, f"{self.images_per_second:,.0f} images/s"


@dataclass(frozen=True)
class MultiLabelMetrics(EpochMetrics):
    """One row of results.csv, of images with several classes.

    Attributes:
        train_exact: share of the augmented images whose classes the network predicted exactly, with the
            threshold 0.5, each before its step.
        val_loss: binary cross-entropy on the validation images, the mean over images and classes, in nats.
        val_map: mean average precision of the classes on them.
        val_micro_f1, val_macro_f1: with the threshold 0.5.
        seconds: duration of the epoch, with validation.
        images_per_second: in training, without validation.
    """

    MONITORS: ClassVar[Mapping[str, tuple[str, int]]] = {
        "map": ("val_map", 1), "micro-f1": ("val_micro_f1", 1), "macro-f1": ("val_macro_f1", 1),
        "loss": ("val_loss", -1),
    }  # fmt: skip

    train_exact: float
    val_loss: float
    val_map: float
    val_micro_f1: float
    val_macro_f1: float
    seconds: float
    images_per_second: float

    @property
    def log_line(self) -> tuple[str, str]:
        """Metrics and speed in words."""
        metrics = (
            f"loss {self.train_loss:.4f}  exact {self.train_exact:.4f}  "
            f"val loss {self.val_loss:.4f}  val mAP {self.val_map:.4f}"
        )
        return metrics, f"{self.images_per_second:,.0f} images/s"


@contextlib.contextmanager
def training_errors(architecture: str) -> Iterator[None]:
    """Around the forward pass in training: raises TrainingError if a network of the user fails there."""
    try:
        yield
    except StriateError:
        raise
    except Exception as error:  # a forward may do anything
        if not is_foreign(architecture) or environment_error(error) is not None:
            raise
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        fix = "If it is BatchNorm in a batch of one image: use another --batch"
        raise TrainingError(f"{architecture} failed in training", why, fix) from error


def validate(
    network: nn.Module,
    preprocess: Preprocess,
    val: Images,
    batch: int,
    device: torch.device,
    workers: int = 2,
    distributed: Distributed = SINGLE,
) -> dict[str, float]:
    """The validation columns of the row of an epoch, on the readable images of a split.

    Each process evaluates some of the batches, and all return the result.
    """
    network.eval()
    network = copy.copy(network)  # the same layers, without what torch.compile made for training
    order = np.split(np.arange(len(val)), range(batch, len(val), batch))[distributed.rank :: distributed.size]
    scores, which = logits(network, preprocess, val, device, batch, workers=workers, order=order)
    classes = distributed.maximum(scores.shape[1])  # a process without images has no scores
    return val_metrics(scores.reshape(-1, classes), val.labels[which], distributed)


def val_metrics(
    scores: npt.NDArray[np.float32], labels: Indices, distributed: Distributed = SINGLE
) -> dict[str, float]:
    """Loss and metrics of scores `[n, classes]`, over all processes.

    Args:
        scores: of the network.
        labels: int64 `[n]`; or bool `[n, classes]`, for the columns of `MultiLabelMetrics`.
        distributed: the processes; each has a part of the images.
    """
    if labels.ndim == 2:
        both = (torch.from_numpy(scores), torch.from_numpy(labels).float())
        return _multi_label_metrics(*map(distributed.gathered, both))
    losses = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels), reduction="none")
    sums = torch.tensor([losses.double().sum(), len(labels)], dtype=torch.float64)
    distributed.all_reduce(sums)
    loss, count = sums.tolist()
    counts = torch.from_numpy(class_counts(scores, labels))
    distributed.all_reduce(counts)
    table = counts.numpy()
    return {
        "val_loss": loss / count,
        "val_top1": int(table[0].sum()) / count,
        "val_macro_f1": macro_f1(table),
        "val_balanced_accuracy": balanced_accuracy(table),
    }


def _multi_label_metrics(scores: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """The validation columns of `MultiLabelMetrics`, with the threshold 0.5."""
    loss = F.binary_cross_entropy_with_logits(scores.double(), truth.double())
    found = multi_label.measure(
        sigmoid(scores.numpy()), truth.numpy() > 0, np.full(truth.shape[1], multi_label.DEFAULT_THRESHOLD)
    )
    return {
        "val_loss": loss.item(),
        **{f"val_{name}": found[name] for name in ("map", "micro_f1", "macro_f1")},
    }
