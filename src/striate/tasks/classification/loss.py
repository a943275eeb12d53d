"""The training loss of image classification: cross-entropy and focal loss, with weights of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from striate.models.layers import WeightedOutputs, weighted_outputs
from striate.tasks.classification.balance import class_weights, positive_weights
from striate.training.schedule import Indices

if TYPE_CHECKING:
    from striate.tasks.classification.config import ClassificationConfig

_SMALLEST = 1e-12  # of what a focal exponent below 1 is applied to, whose gradient at 0 is infinite


@dataclass(frozen=True, eq=False)
class Criterion:
    """Cross-entropy, or focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5).

    Its value is linear in the distribution of labels, so it holds for smoothed and for mixed labels, and each
    label has the weight of its own class. It is a mean over images, not over weights: the losses of
    micro-batches and of processes add up to that of the batch.

    Attributes:
        smoothing: label smoothing: fraction of each label that is spread over all classes.
        gamma: exponent of the focal loss; 0 for cross-entropy.
        weights: float32 `[classes]`, of the classes; None for equal ones.
    """

    smoothing: float = 0.0
    gamma: float = 0.0
    weights: Tensor | None = None

    @classmethod
    def of(cls, config: ClassificationConfig, labels: Indices, device: torch.device) -> Criterion:
        """The loss of a run; the weights of the classes follow from its training labels."""
        weigh = positive_weights if labels.ndim == 2 else class_weights
        counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels)
        weights = weigh(config.class_weights, counts, config.class_weights_beta, len(labels))
        return cls(
            config.label_smoothing,
            config.focal_gamma if config.loss == "focal" else 0.0,
            None if weights is None else torch.tensor(weights, dtype=torch.float32).to(device),
        )

    def __call__(
        self, output: Tensor | WeightedOutputs, labels: Tensor, share: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """The loss of a batch.

        Args:
            output: of the network: scores `[batch, classes]`, or also those of auxiliary heads.
            labels: int64 `[batch]`; or, if images have several classes, bool `[batch, classes]`: then each
                class is a question of its own, and the loss is the mean of their binary losses.
            share: of each image in itself; the rest is from the image before it (MixUp, CutMix).

        Returns:
            The mean loss with that of auxiliary heads, a scalar in nats; and the network's scores.
        """
        (answer, _), *auxiliary = weighted_outputs(output)
        loss = self._mixed(answer, labels, share)
        for scores, weight in auxiliary:
            loss = loss + weight * self._mixed(scores, labels, share)
        return loss, answer

    def _mixed(self, scores: Tensor, labels: Tensor, share: float) -> Tensor:
        loss = self._mean(scores, labels)
        if share < 1:
            loss = share * loss + (1 - share) * self._mean(scores, labels.roll(1, 0))
        return loss

    def _binary(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The mean over images and classes; `weights` are those of a class's images against all others."""
        scores, targets = scores.float(), labels.float()
        targets = targets * (1 - self.smoothing) + self.smoothing / 2
        if_present, if_absent = -F.logsigmoid(scores), -F.logsigmoid(-scores)
        if self.gamma:
            if_present = if_present * scores.neg().sigmoid().clamp_min(_SMALLEST) ** self.gamma
            if_absent = if_absent * scores.sigmoid().clamp_min(_SMALLEST) ** self.gamma
        if self.weights is not None:
            if_present = if_present * self.weights
        return (targets * if_present + (1 - targets) * if_absent).mean()

    def _mean(self, scores: Tensor, labels: Tensor) -> Tensor:
        if labels.ndim == 2:
            return self._binary(scores, labels)
        if self.weights is None and not self.gamma:
            return F.cross_entropy(scores, labels, label_smoothing=self.smoothing)
        log = scores.float().log_softmax(dim=1)
        losses = -log  # of each class, if it were the label
        if self.gamma:
            losses = losses * torch.expm1(log).neg().clamp_min(_SMALLEST) ** self.gamma
        if self.weights is not None:
            losses = losses * self.weights
        own = losses.gather(1, labels[:, None])[:, 0]
        return ((1 - self.smoothing) * own + self.smoothing * losses.mean(dim=1)).mean()
