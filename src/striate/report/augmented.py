"""A picture of the first batch that a run learnt from, as the network was shown it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from striate.data import DecodedImages
from striate.training.folder import TrainedRun
from striate.training.schedule import batches
from striate.transforms.augment import augment, pca_color
from striate.transforms.mixing import mix_batch

_COLUMNS, _MOST = 8, 32


def augmented(run: TrainedRun) -> Figure:
    """Up to 32 images of the first batch of the first epoch, augmented and mixed as in training."""
    config, preprocess = run.config, run.description.contract
    samples = run.dataset.splits["train"]
    which = batches(len(samples), config.batch, seed=config.seed, epoch=0)[0]
    recipe = config.augmentation(preprocess, len(samples))
    source = DecodedImages(
        samples, preprocess, crop=recipe == "none", cache=config.cache, root=run.dataset.root
    )
    canvases = np.empty((len(which), *source.shape), np.uint8)
    readable = source.read(which, canvases)
    which, canvases = which[readable], canvases[readable]
    drawn: dict[str, Any] = {"seed": config.seed, "epoch": 0, "samples": which}
    pixels = augment(torch.from_numpy(canvases), preprocess.size, recipe, **drawn)
    pixels = pca_color(pixels, config.lighting, **drawn)
    mixed, _ = mix_batch(
        pixels.float().permute(0, 3, 1, 2), config.mixup, config.cutmix, seed=config.seed, step=0
    )
    shown = mixed[:_MOST].round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()

    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(9, 1.2 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for place in axes:
        place.set_axis_off()
    for place, image, label in zip(axes, shown, samples.labels[which], strict=False):
        place.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        name = run.dataset.classes[label]
        place.set_title(name if len(name) <= 14 else f"{name[:13]}…", fontsize=7, pad=2)
    return figure
