"""What a run on images starts with: preprocessing, images, network, and the bundle's header."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate import models
from striate.anatomy import trace
from striate.bundle import Description
from striate.data import DataSet, absolute_source
from striate.device import USUAL_PIXELS, require_activations, require_weights, seed_everything
from striate.kernels import prepare as prepare_network
from striate.metrics.multi_label import DEFAULT_THRESHOLD
from striate.models.layers import set_drop_path, set_dropout
from striate.tasks.classification import network
from striate.tasks.classification.budget import choose_image_size
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.data import choose_preprocess, require_enough
from striate.training.task import Context, Setup, provenance
from striate.transforms.preprocess import Preprocess
from striate.validation import require

if TYPE_CHECKING:
    from striate.tasks.classification.task import Classification


def prepare(task: Classification, resumed: Mapping[str, Any] | None) -> Setup:
    """Choose the preprocessing, open the images, and build the network; writes nothing.

    Args:
        task: receives its preprocessing and images.
        resumed: the facts of the checkpoint that the run resumes from.

    Raises:
        DataError: too little can be read.
        UsageError: weights that do not fit.
    """
    config, data, context = task.config, task.data, task.context
    notes, dataset, pretrained = [*data.notes], data.dataset, None
    if resumed is None:
        notes += data.warnings()
        if config.budget:
            config = _with_image_size(config, dataset, context)
        pretrained = network.open_pretrained(config, context.progress)
        theirs = None if pretrained is None else pretrained[0].image_preprocess
        preprocess, remarks = choose_preprocess(config, dataset, theirs)
        notes += remarks
    else:
        description = Description.from_json(resumed["description"])
        preprocess = description.image_preprocess
    context.announce(notes)
    task.preprocess, (task.train, task.val) = preprocess, data.images(preprocess, config)
    data.stop()
    config.require_colours(preprocess.channels)
    require_enough(dataset, task.train, task.val)

    _require_memory(config, preprocess, len(task.train), context)
    seed_everything(config.seed, context.device)
    if resumed is None:
        net, arguments, remarks, head = network.build(config, preprocess, dataset.classes, pretrained)
        description = _describe(config, arguments, dataset, preprocess, len(task.train))
        notes += context.inform(*remarks)
    else:
        head = resumed["setup"].get("head")
        require(head, str | None, "facts.setup.head")
        net = network.rebuild(config, description, head)
    set_drop_path(net, config.drop_path)
    if config.dropout is not None:
        set_dropout(net, config.dropout)
    net = prepare_network(net, context.device, training=True)
    net = context.distributed.sync_batchnorm(net, config.sync_bn)
    config = _filled_in(config, preprocess, len(task.train), dataset.is_multi_label)
    return Setup(config, description, net, {"head": head}, notes)


def _require_memory(
    config: ClassificationConfig, preprocess: Preprocess, images: int, context: Context
) -> None:
    """Refuse a size or a batch for which memory cannot suffice; usual ones are not worth the estimate."""
    count = min(config.batch, images)
    pixels = preprocess.size[0] * preprocess.size[1]
    if context.device.type != "cpu" or config.transfer != "all" or count * pixels <= USUAL_PIXELS:
        return
    if models.is_foreign(config.architecture):
        return
    fix = f"Use a smaller --batch or --imgsz, or --micro-batches {2 * config.micro_batches}"
    if models.MODELS[config.architecture].sizes == "argument":
        arguments: dict[str, Any] = {
            "in_channels": preprocess.channels, "input_size": list(preprocess.size)
        }  # fmt: skip
        require_weights(lambda: models.build(config.architecture, **arguments), "Use a smaller --imgsz")
    images = -(-count // config.micro_batches)
    size = images * trace(config.architecture, size=preprocess.size).activation
    require_activations(size, f"a batch of {images:,} images", fix)


def _with_image_size(
    config: ClassificationConfig, dataset: DataSet, context: Context
) -> ClassificationConfig:
    """The configuration with the image size that the budget allows, if the user has not chosen one."""
    size, message = choose_image_size(config, dataset, context)
    if message:
        context.progress.info(message)
    return dataclasses.replace(config, imgsz=context.distributed.broadcast_object(size))


def _filled_in(
    config: ClassificationConfig, preprocess: Preprocess, images: int, multi_label: bool
) -> ClassificationConfig:
    """The configuration with its defaults filled in, for config.yaml."""
    return dataclasses.replace(
        config, data=absolute_source(config.source), imgsz=max(preprocess.size), channels=preprocess.channels,
        reducing_gap=preprocess.reducing_gap,
        epochs=config.epoch_limit, lr=config.peak_lr, weight_decay=config.decay,
        augment=config.augmentation(preprocess, images)[0],
        monitor="map" if multi_label and config.monitor == "top1" else config.monitor,
    )  # fmt: skip


def _describe(
    config: ClassificationConfig,
    arguments: dict[str, Any],
    dataset: DataSet,
    preprocess: Preprocess,
    images: int,
) -> Description:
    """The header of the run's bundles."""
    return Description(
        task="classification",
        architecture=config.architecture,
        arguments=arguments,
        classes=dataset.classes,
        preprocess=preprocess,
        provenance=provenance(
            data=Path(absolute_source(config.source)).name, training_images=images, seed=config.seed,
            weights=Path(config.weights).name,
        ),
        thresholds=(DEFAULT_THRESHOLD,) * len(dataset.classes) if dataset.is_multi_label else None,
    )  # fmt: skip
