"""Ways to train from the literature, by name: for each family of networks the paper's own, and a modern one.

A recipe is a set of fields of `TrainConfig`. What else the source says and this project does not do, or does
otherwise, is said beside it, and so is what the source leaves open. Some of it holds for all: biases and
norms are not decayed here, the rate follows the steps and not the epochs, a milestone that the source sets
at sight of the curve is at a fixed share of the run, images are read through a canvas of 8/7 of the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from striate import facts, models
from striate.errors import unknown_name

IMAGES = {"ImageNet": 1_281_167, "CIFAR-10, 45,000 images of it": 45_000, "MNIST": 60_000}


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        source: paper and section, or where else it is written down.
        on: what the source trains on, a key of `IMAGES`.
        settings: fields of `TrainConfig`.
        results: how the sources of its published results in `facts.RESULTS` begin, and a part of what they
            were measured on; empty where there are none.
        notes: what differs from the source, and what the source does not say.
    """

    source: str
    on: str
    settings: Mapping[str, Any]
    results: tuple[str, str] | tuple[()] = ()
    notes: tuple[str, ...] = ()


_LECUN = "LeCun, Bottou, Bengio, Haffner 1998, Proc. IEEE 86(11)"
_KRIZHEVSKY = "Krizhevsky, Sutskever, Hinton 2012, NIPS"
_SIMONYAN = "Simonyan, Zisserman 2015, arXiv:1409.1556"
_SZEGEDY = "Szegedy et al. 2015, arXiv:1409.4842"
_RESNET = "He, Zhang, Ren, Sun 2016, arXiv:1512.03385"
_HOWARD = "Howard et al. 2019, arXiv:1905.02244"
_VIT = "Dosovitskiy et al. 2021, arXiv:2010.11929"
_DEIT = "Touvron et al. 2021, arXiv:2012.12877"
_REFERENCE = "torchvision, references/classification/README.md"
_BY_HAND = "the paper divides the rate by 10 when the error stops falling; here at equal distances"
_NOT_RAND = "TrivialAugment and erasing of one image in ten in place of RandAugment and of one in {}"

_SGD = {"opt": "sgd", "momentum": 0.9, "warmup": 0.0, "sched": "step", "milestones": "1/4", "gamma": 0.1}
_PLAIN = {
    **_SGD,
    "batch": 256,
    "epochs": 90,
    "milestones": "1/3",
    "weight_decay": 1e-4,
    "augment": "standard",
}
_MIXED = {"label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "augment": "strong"}
_VGG = Recipe(
    f"{_SIMONYAN}, section 3.1", "ImageNet",
    {
        **_SGD, "batch": 256, "epochs": 74, "lr": 0.01, "weight_decay": 5e-4, "augment": "light",
        "lighting": 0.1,
    },
    ("Simonyan", "ImageNet validation, one scale"),
    (
        f"{_BY_HAND} (three times in 74 passes)",
        "the scale is 256; the paper's is also drawn from 256 to 512 where the result says so",
        "the paper starts the deeper networks from the layers of vgg11, or as Glorot and Bengio 2010",
    ),
)  # fmt: skip

# By the family of `family()`, then by name.
RECIPES: dict[str, dict[str, Recipe]] = {
    "lenet": {
        "paper": Recipe(
            f"{_LECUN}, section III.B", "MNIST",
            {
                **_SGD, "momentum": 0.0, "batch": 1, "epochs": 20, "lr": 0.016, "gamma": 0.376,
                "milestones": "0.1,0.25,0.4,0.6", "weight_decay": 0.0, "augment": "none",
            },
            (_LECUN, "MNIST test"),
            (
                "the paper gives each weight a rate of its own from second derivatives (0.00007 to 0.016 in "
                "the first pass); here all have the largest",
                "its rate falls to 0.4, 0.2, 0.1 and 0.02 after 2, 5, 8 and 12 of 20 passes; here to the "
                "same end by one factor",
                "its loss is that of section II.C, here the cross-entropy",
            ),
        ),
        "modern": Recipe(
            "Loshchilov, Hutter 2017, arXiv:1608.03983, and 2019, arXiv:1711.05101", "MNIST",
            {
                "opt": "adamw", "batch": 128, "epochs": 20, "lr": 2e-3, "sched": "cosine", "warmup": 0.05,
                "weight_decay": 0.01, "augment": "shift",
            },
            notes=("optimizer and schedule are those of the papers, the numbers are this project's",),
        ),
    },
    "alexnet": {
        "paper": Recipe(
            f"{_KRIZHEVSKY}, sections 4 and 5", "ImageNet",
            {
                **_SGD, "batch": 128, "epochs": 90, "lr": 0.01, "weight_decay": 5e-4, "augment": "light",
                "lighting": 0.1,
            },
            ("Krizhevsky", "ILSVRC-2012 validation"),
            (f"{_BY_HAND} (three times in about 90 passes)", "its results are of ten crops"),
        ),
        "modern": Recipe(_REFERENCE, "ImageNet", {**_PLAIN, "lr": 0.01}, ("torchvision", facts.V1)),
    },
    "vgg": {
        "paper": _VGG,
        "modern": Recipe(_REFERENCE, "ImageNet", {**_PLAIN, "lr": 0.01}, ("torchvision", facts.V1)),
    },
    "vgg_bn": {
        "paper": replace(
            _VGG, results=(), notes=(*_VGG.notes, "the paper's networks have no BatchNorm: no result of it")
        ),
        "modern": Recipe(_REFERENCE, "ImageNet", {**_PLAIN, "lr": 0.1}, ("torchvision", facts.V1)),
    },
    "googlenet": {
        "paper": Recipe(
            f"{_SZEGEDY}, section 6", "ImageNet",
            {
                **_SGD, "batch": 32, "epochs": 248, "lr": 0.01, "milestones": "1/31", "gamma": 0.96,
                "weight_decay": 2e-4, "augment": "standard", "ema": 0.9999,
            },
            ("Szegedy", "one crop"),
            (
                "the paper says 4 % less every 8 epochs, momentum 0.9 and Polyak averaging; rate, batch, "
                "epochs and decay are BVLC's (Caffe, models/bvlc_googlenet/solver.prototxt), the averaging's "
                "decay this project's",
                "without the photometric distortions of Howard 2013; synchronous",
            ),
        ),
        "modern": Recipe(
            "He et al. 2019, arXiv:1812.01187, sections 3.1 and 5", "ImageNet",
            {
                **_PLAIN, "epochs": 200, "lr": 0.1, "nesterov": True, "sched": "cosine", "warmup": 5 / 200,
                "label_smoothing": 0.1, "mixup": 0.2,
            },
            notes=(
                "the paper trains with batches of 1024 and the rate for them",
                "it has no result for GoogLeNet; torchvision's weights were ported, not trained",
            ),
        ),
    },
    "resnet": {
        "paper": Recipe(
            f"{_RESNET}, section 3.4", "ImageNet",
            {
                **_SGD, "batch": 256, "epochs": 120, "lr": 0.1, "weight_decay": 1e-4, "augment": "scale",
                "lighting": 0.1,
            },
            ("He, Zhang", "10 crops"),
            (f"{_BY_HAND}, in 120 passes (600,000 steps)", "its results are of ten crops"),
        ),
        "modern": Recipe(
            "Vryniotis 2021, PyTorch's blog, How to train state-of-the-art models using TorchVision's latest "
            "primitives", "ImageNet",
            {
                "opt": "sgd", "momentum": 0.9, "batch": 1024, "epochs": 600, "lr": 0.5, "sched": "cosine",
                "warmup": 5 / 600, "weight_decay": 2e-5, **_MIXED, "mixup": 0.2, "ema": 0.999966,
            },
            ("torchvision", facts.V2),
            (
                "without repeated augmentation (each image four times in an epoch)",
                "there images of 176 px train and of 224 are measured, after a scale of 232",
                "the average there takes in each 32nd step, with 0.0011; here each, with as much in all",
            ),
        ),
    },
    "resnet_cifar": {
        "paper": Recipe(
            f"{_RESNET}, section 4.2", "CIFAR-10, 45,000 images of it",
            {
                **_SGD, "batch": 128, "epochs": 182, "lr": 0.1, "milestones": "0.5,0.75",
                "weight_decay": 1e-4, "warmup": 400 / 64_000, "augment": "light",
            },
            ("He, Zhang", "CIFAR-10 test"),
            ("182 passes are 64,000 steps", "the paper warms up resnet110 only, by 400 steps at 0.01"),
        ),
        "modern": Recipe(
            "Huang et al. 2016, arXiv:1603.09382, section 4, and their code", "CIFAR-10, 45,000 images of it",
            {
                **_SGD, "batch": 128, "epochs": 500, "lr": 0.1, "nesterov": True, "milestones": "0.5,0.75",
                "weight_decay": 1e-4, "augment": "light", "drop_path": 0.5,
            },
            ("Huang", "CIFAR-10 test"),
            (
                "0.5 is for resnet110 and resnet1202; a shallow network wants less",
                "there a batch draws for all its images",
            ),
        ),
    },
    "mobilenet_v3": {
        "paper": Recipe(
            f"{_HOWARD}, section 6.1.1", "ImageNet",
            {
                "opt": "rmsprop", "momentum": 0.9, "batch": 4096, "epochs": 600, "lr": 0.1, "sched": "step",
                "milestones": "1/200", "gamma": 0.99, "warmup": 0.0, "weight_decay": 1e-5, "dropout": 0.2,
                "augment": "standard", "ema": 0.9999,
            },
            ("Howard", "ImageNet validation"),
            (
                "the paper does not say how many epochs; 600 are torchvision's and timm's",
                "1 % less every 3 epochs; epsilon is MnasNet's; the paper's dropout of 0.8 is what stays",
                "without the colour distortions of Inception's preprocessing",
            ),
        ),
        "modern": Recipe(
            "timm, documentation, training scripts: MobileNetV3-Large-100", "ImageNet",
            {
                "opt": "rmsprop", "momentum": 0.9, "batch": 1024, "epochs": 600, "lr": 0.064, "sched": "step",
                "milestones": "1/250", "gamma": 0.973, "warmup": 3 / 600, "weight_decay": 1e-5,
                "dropout": 0.2, "drop_path": 0.2, "augment": "strong", "ema": 0.9999,
            },
            ("timm", "RandAugment"),
            (_NOT_RAND.format("five"), "without the noise on the rate"),
        ),
    },
    "vit": {
        "paper": Recipe(
            f"{_VIT}, appendix B.1, table 3", "ImageNet",
            {
                "opt": "adamw", "batch": 4096, "epochs": 300, "lr": 3e-3, "sched": "cosine", "warmup": 0.107,
                "weight_decay": 0.3, "dropout": 0.1, "grad_clip": 1.0, "augment": "standard",
            },
            ("Dosovitskiy", "px, trained on ImageNet"),
            ("its results are after fine-tuning at 384 px", "10,000 steps of warm-up are 0.107 of all"),
        ),
        "modern": Recipe(
            f"{_DEIT}, table 9", "ImageNet",
            {
                "opt": "adamw", "batch": 1024, "epochs": 300, "lr": 1e-3, "sched": "cosine",
                "warmup": 5 / 300, "weight_decay": 0.05, "drop_path": 0.1, **_MIXED,
            },
            ("Touvron", "ImageNet validation"),
            (_NOT_RAND.format("four"), "without repeated augmentation"),
        ),
        "finetune": Recipe(
            "He et al. 2022, arXiv:2111.06377, and their code, FINETUNE.md, ViT-Base", "ImageNet",
            {
                "opt": "adamw", "weights": "imagenet", "batch": 1024, "epochs": 100, "lr": 2e-3,
                "layer_decay": 0.65, "sched": "cosine", "warmup": 5 / 100, "weight_decay": 0.05,
                "drop_path": 0.1, **_MIXED,
            },
            notes=(
                "made for weights that were trained without labels; for labelled ones a lower rate and fewer "
                "epochs do",
                "ViT-Large: 50 epochs, a rate of 0.004, --layer-decay 0.75, --drop-path 0.2",
                _NOT_RAND.format("four"),
            ),
        ),
    },
}  # fmt: skip


def family(model: str) -> str:
    """The key of `RECIPES` for a network; raises UsageError for an unknown one."""
    file = models.describe(model).file
    return {"lenet5": "lenet"}.get(file, f"{file}_bn" if model.endswith("_bn") else file)


def find(model: str, name: str) -> Recipe:
    """The recipe of that name for a network.

    Raises:
        UsageError: there is none.
    """
    known = RECIPES[family(model)]
    if name not in known:
        raise unknown_name(f"recipe for {model}", name, known, f"`striate recipes {model}` shows them")
    return known[name]


def apply(name: str, model: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The settings of a run by a recipe.

    Args:
        name: of the recipe.
        model: key of `models.MODELS`.
        given: the fields of `TrainConfig` that the user names, which go before those of the recipe. With
            another batch and no rate of the user's, the rate is scaled with the batch (Goyal et al. 2017).

    Returns:
        The fields, those of `given` included, and a sentence that says what is the recipe's and what is not.

    Raises:
        UsageError: there is no such recipe.
    """
    recipe = find(model, name)
    settings = {**recipe.settings, **given}
    changed = [
        f"{_flag(field)} {given[field]} (the recipe has {value})"
        for field, value in recipe.settings.items()
        if field in given and given[field] != value
    ]
    batch = recipe.settings["batch"]
    if settings["batch"] != batch and "lr" not in given and isinstance(settings["batch"], int):
        settings["lr"] = recipe.settings["lr"] * settings["batch"] / batch
        changed.append(
            f"so the learning rate is {settings['lr']:.3g} (the recipe has {recipe.settings['lr']:g} for "
            f"{batch})"
        )
    said = f"recipe {name} for {model}: {recipe.source}"
    if changed:
        said += f"; given instead: {', '.join(changed)}"
    return {**settings, "recipe": name, "model": model}, said


def expected(model: str, recipe: Recipe) -> tuple[facts.Result, ...]:
    """The results that are published for a network trained so; none where nobody has."""
    if not recipe.results:
        return ()
    source, on = recipe.results
    return tuple(
        result
        for result in facts.RESULTS
        if result.network == model and result.source.startswith(source) and on in result.on
    )


def passes(recipe: Recipe) -> int:
    """How many times an image goes through the network in training, as the source trains it."""
    return int(recipe.settings["epochs"]) * IMAGES[recipe.on]


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"
