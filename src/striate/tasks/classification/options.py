"""The groups of options of image classification: images, network, optimization; imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from striate import models
from striate.training.config import MAX_COUNT, MAX_RATE, MAX_SIDE, SCHEDULES, DataOptions, Optimization
from striate.training.options import Options, option, override
from striate.transforms.augmentations import AUGMENTATIONS

EPOCHS = 20
MONITORS = ("top1", "balanced-accuracy", "macro-f1", "loss", "map", "micro-f1")
IMAGE_SCHEDULES = tuple(kind for kind in SCHEDULES if kind != "noam")  # noam is for Transformers


@dataclass(frozen=True, kw_only=True)
class ImageOptions(DataOptions):
    """How images are found, become the network's input, and are augmented."""

    path_column: str | None = option(
        None, "Column of a CSV or TSV file with the paths of the images", unset="a usual name such as path"
    )
    label_column: str | None = option(None, "Column with the class names", unset="a usual name such as label")
    multi_label: bool | None = option(
        None, "Whether images have several classes: labels such as cat;dog, or links to an image in several "
        "class folders", flags=("--multi-label/--no-multi-label",), unset="decided by the data",
    )  # fmt: skip
    group_column: str | None = option(
        None, "Column with the groups of images that must stay in one split, such as the photographed object",
        unset="no groups",
    )  # fmt: skip
    group_pattern: str | None = option(
        None, "Regular expression that finds the group of an image in its path below DATA: the text of its "
        "parentheses, or all it matches", unset="no groups",
    )  # fmt: skip
    folds: int | None = option(
        None, "Cross-validation: train a run for each of N parts of the data, which it is tested on",
        minimum=2, maximum=100, unset="none",
    )  # fmt: skip
    fold: int | None = option(
        None, "Which fold a run of a cross-validation is tested on", minimum=1, maximum=100, in_cli=False
    )
    exclude: str | None = option(
        None, "Table of images to leave out, with the columns path and kind, such as that of `striate check "
        "--csv`", unset="none",
    )  # fmt: skip
    exclude_kinds: str = option(
        "", "Kinds in --exclude to leave out, separated by commas; without it, all that are not only notes"
    )
    imgsz: int | None = option(
        None,
        "Side of the square input in pixels",
        minimum=1,
        maximum=MAX_SIDE,
        unset="the network's own",
    )
    channels: int | None = option(
        None, "Input channels: 3 for RGB, 1 for grayscale; others for images of so many bands", minimum=1,
        maximum=models.MAX_CHANNELS, unset="from the network and the images",
    )  # fmt: skip
    resize: Literal["crop", "squash", "letterbox"] = option(
        "crop", "How images are resized to the shape of the input", choices=("crop", "squash", "letterbox")
    )
    reducing_gap: float = option(
        2.0, "Decode JPEG files at 1/2, 1/4 or 1/8 of their size, as long as both sides are at least this "
        "many times as long as after resizing; 0 for full size", minimum=0, maximum=MAX_SIDE,
    )  # fmt: skip
    normalize: str = option(
        "auto", "Normalization: auto (that of the weights), imagenet, half (mean 0.5 and standard deviation "
        "0.5), vgg (only subtract the mean, in 0 to 255)", choices=("auto", "imagenet", "half", "vgg"),
    )  # fmt: skip
    augment: str | Callable[..., Any] = option(
        "auto", "Data augmentation", choices="striate.tasks.classification.options:AUGMENT"
    )
    views: int = option(
        0, "Augmented versions of each image to cache; frozen layers run once for each. 0: new versions in "
        "every epoch (--transfer head and append use no augmentation by default)", minimum=0, maximum=10_000,
    )  # fmt: skip
    lighting: float = option(
        0.0, "PCA color augmentation (AlexNet): standard deviation; 0 for none", minimum=0, maximum=100
    )
    mixup: float = option(0.0, "MixUp: alpha; 0 for none", minimum=0, maximum=1000)
    cutmix: float = option(
        0.0, "CutMix: alpha; 0 for none; with MixUp, one of the two per batch", minimum=0, maximum=1000
    )


AUGMENT = ("auto", *AUGMENTATIONS)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """Which network, and which part of it is trained."""

    PANEL: ClassVar[str] = "Model"

    model: str | Callable[..., Any] = option(
        models.DEFAULT, "Network: a name, timm:NAME, torchvision:NAME or package.module:factory (in Python "
        "also an nn.Module or a function that returns one)", flags=("--model", "-m"),
        choices="striate.models:MODELS", more=":",
    )  # fmt: skip
    classifier: str | None = option(
        None, "Name of the last layer with weights, of a network that Striate does not define",
        unset="found automatically",
    )  # fmt: skip
    model_arguments: dict[str, Any] | None = option(
        None, "Keyword arguments of the factory of package.module:factory", in_cli=False
    )
    trust: str = option(
        "", "Packages whose code may be imported to build a network that a file names, separated by commas",
        saved=False,
    )  # fmt: skip
    network: Any = option(
        None, "A network that Striate does not define, as an object: set by model", in_cli=False, saved=False
    )
    weights: str = option(
        "none", "Initial weights: none, pretrained (published; the default if --transfer freezes layers), a "
        "name from `striate weights list`, a bundle or run folder, or a .pth or .safetensors file",
    )  # fmt: skip
    transfer: str = option(
        "all", "Layers to train: all; last (the last stages); head (a new classifier); append (a new layer "
        "after the classifier)", choices=("all", "last", "head", "append"),
    )  # fmt: skip
    last_layers: int = option(
        2, "Number of stages that --transfer last trains", minimum=1, maximum=1000,
        needs=("transfer", ("last",)),
    )  # fmt: skip
    unfreeze_every: int = option(
        0, "Gradual unfreezing: train only the last stage at first, and one more every N epochs; 0 to train "
        "all of --transfer at once", minimum=0, maximum=MAX_COUNT, needs=("transfer", ("all", "last")),
    )  # fmt: skip
    drop_path: float = option(
        0.0, "Stochastic depth: drop rate of the last block; rising linearly with depth", minimum=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class ClassifierOptimization(Optimization):
    """Optimization with the defaults of image classification."""

    epochs: int | None = override(Optimization, "epochs", None, unset=f"{EPOCHS}; no limit with --budget")
    batch: int = override(Optimization, "batch", 64)
    lr: float | None = override(
        Optimization, "lr", None,
        unset="adamw: 0.001 (0.002 up to 64 px, 0.003 for one new layer); sgd: 0.1 x batch/256; "
        "rmsprop: 0.016 x batch/256",
    )  # fmt: skip
    sched: str = override(Optimization, "sched", "cosine", choices=IMAGE_SCHEDULES)
    monitor: str = override(
        Optimization, "monitor", "top1", choices=MONITORS,
        help="Metric on val that selects the best epoch, also for --patience; of images with several classes "
        "map, micro-f1, macro-f1 or loss, by default map",
    )  # fmt: skip
    loss: str = option("cross-entropy", "Training loss", choices=("cross-entropy", "focal"))
    focal_gamma: float = option(
        2.0, "Focal loss: exponent that lowers the loss of images that are right already", above=0,
        maximum=100, needs=("loss", ("focal",)),
    )  # fmt: skip
    class_weights: str = option(
        "none", "Weights of the classes in the loss: balanced (inverse to the number of images) or effective "
        "(inverse to the effective number of images)", choices=("none", "balanced", "effective"),
    )  # fmt: skip
    class_weights_beta: float = option(
        0.999, "Beta of --class-weights effective: 0 for equal weights, near 1 for balanced ones", minimum=0,
        below=1, needs=("class_weights", ("effective",)),
    )  # fmt: skip
    sampler: str = option(
        "shuffle", "Images of an epoch: shuffle (each once) or balanced (as many of each class)",
        choices=("shuffle", "balanced"),
    )  # fmt: skip
    recipe: str | None = option(
        None, "Training recipe (`striate recipes`): paper (settings of the network's paper), modern (newer "
        "published settings), ...; explicit options override the recipe", unset="none",
    )  # fmt: skip
    backbone_lr: float | None = option(
        None, "Peak learning rate of pretrained layers", above=0, maximum=MAX_RATE, unset="a tenth of --lr",
        needs=("transfer", ("all", "last")),
    )  # fmt: skip
    layer_decay: float = option(
        1.0, "Layer-wise learning rate decay towards the input; 1 for none", above=0, maximum=1,
        needs=("transfer", ("all", "last")),
    )  # fmt: skip
