"""A network's scores for images: the one way from pixels to scores, in training too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from striate.data import Images
from striate.data.images.base import Indices
from striate.data.images.loader import stream
from striate.device import standard_settings
from striate.inference.tta import mean_scores
from striate.progress import AUTO, Progress
from striate.transforms.preprocess import Preprocess


@standard_settings()
@torch.inference_mode()
def logits(
    network: nn.Module,
    preprocess: Preprocess,
    source: Images,
    place: torch.device,
    batch: int,
    *,
    workers: int = 2,
    order: Sequence[Indices] | None = None,
    tta: str | None = None,
    progress: Progress = AUTO,
) -> tuple[npt.NDArray[np.float32], Indices]:
    """A network's scores for images of its size: the one way from pixels to scores, in training too.

    Args:
        network: in evaluation mode, on `place`.
        preprocess: its contract.
        source: the dataset.
        place: the device.
        batch: images at once.
        workers: threads that read images.
        order: which images each batch holds; None for all of them in their order.
        tta: test-time augmentation (`striate.inference.tta`); None for none.
        progress: receives an update per batch.

    Returns:
        float32 `[n, classes]`, and int64 `[n]`, which image of the source each row is of: all of those that
        can be read, in that order.
    """
    scores, which = [], []
    if order is None:
        order = np.split(np.arange(len(source)), range(batch, len(source), batch))
    for images in stream(source, order, place, workers=workers):
        if len(images):
            pixels = preprocess.normalize(images.pixels)
            found: torch.Tensor = mean_scores(network, pixels, tta, preprocess.size, first_axis=2)
            scores.append(found.float().cpu().numpy())
            which.append(images.samples)
        progress.advance(images.requested)
    if not scores:
        return np.empty((0, 0), np.float32), np.empty(0, np.int64)
    return np.concatenate(scores), np.concatenate(which)
