"""Every published number about the networks, with its source and how sure it is.

Two kinds. A `Count` follows from the architecture, so that anyone can recount it; a test does, for each of
them. Some printed counts are not what the network has: those say so in `differs`. A `Result` was measured
by training or timing and can only be quoted.

A multiply-add counts once throughout ("MACs"; torchvision calls them GFLOPS), in convolutions, fully
connected layers and attention; biases, normalisation, activations and pools are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Sure = Literal["exact", "read", "high", "medium"]


@dataclass(frozen=True)
class Count:
    """A printed number that follows from a network's definition.

    Attributes:
        network: a key of `models.MODELS`.
        quantity: what is counted.
        value: the number as printed.
        step: the worth of its last printed digit; 1 where the number is printed in full.
        source: paper and place, or package and version.
        sure: `exact`: re-derived by arithmetic; `read`: read in the source; `high`, `medium`: from memory,
            and how far to trust that.
        differs: what the network really has, where that does not round to `value`.
        note: why, or what else to know.
        arguments: of `models.build`, where the number is not that of the defaults.
    """

    network: str
    quantity: str
    value: float
    step: float
    source: str
    sure: Sure
    differs: float | None = None
    note: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A printed number that was measured.

    Attributes:
        network: a key of `models.MODELS`, or the source's name for what is not among them.
        measure: `top-1 accuracy`, `top-1 error`, `top-5 error` and so on, in percent.
        percent: the number as printed.
        on: the data, and how the network looked at it.
        source: paper and place, or package and version.
        sure: see `Count`.
    """

    network: str
    measure: str
    percent: float
    on: str
    source: str
    sure: Sure


# ---- torchvision: parameters, MACs / 1e9, and the accuracy (top-1, top-5) of each of its weights at 224 px

TORCHVISION_SOURCE = "torchvision 0.29.2, metadata of the weights"
V1, V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"

TORCHVISION: dict[str, tuple[int, float, dict[str, tuple[float, float]]]] = {
    "alexnet": (61_100_840, 0.714, {V1: (56.522, 79.066)}),
    "vgg11": (132_863_336, 7.609, {V1: (69.02, 88.628)}),
    "vgg13": (133_047_848, 11.308, {V1: (69.928, 89.246)}),
    "vgg16": (138_357_544, 15.47, {V1: (71.592, 90.382)}),
    "vgg19": (143_667_240, 19.632, {V1: (72.376, 90.876)}),
    "vgg11_bn": (132_868_840, 7.609, {V1: (70.37, 89.81)}),
    "vgg13_bn": (133_053_736, 11.308, {V1: (71.586, 90.374)}),
    "vgg16_bn": (138_365_992, 15.47, {V1: (73.36, 91.516)}),
    "vgg19_bn": (143_678_248, 19.632, {V1: (74.218, 91.842)}),
    "googlenet": (6_624_904, 1.498, {V1: (69.778, 89.53)}),
    "resnet18": (11_689_512, 1.814, {V1: (69.758, 89.078)}),
    "resnet34": (21_797_672, 3.664, {V1: (73.314, 91.42)}),
    "resnet50": (25_557_032, 4.089, {V1: (76.13, 92.862), V2: (80.858, 95.434)}),
    "resnet101": (44_549_160, 7.801, {V1: (77.374, 93.546), V2: (81.886, 95.78)}),
    "resnet152": (60_192_808, 11.514, {V1: (78.312, 94.046), V2: (82.284, 96.002)}),
    "mobilenet_v3_large": (5_483_032, 0.217, {V1: (74.042, 91.34), V2: (75.274, 92.566)}),
    "mobilenet_v3_small": (2_542_856, 0.057, {V1: (67.668, 87.402)}),
    "vit_b_16": (86_567_656, 17.564, {V1: (81.072, 95.318), "IMAGENET1K_SWAG_LINEAR_V1": (81.886, 96.18)}),
    "vit_b_32": (88_224_232, 4.409, {V1: (75.912, 92.466)}),
    "vit_l_16": (304_326_632, 61.555, {V1: (79.662, 94.638), "IMAGENET1K_SWAG_LINEAR_V1": (85.146, 97.422)}),
}
# Its published googlenet has no auxiliary heads.
_BARE: dict[str, Mapping[str, Any]] = {"googlenet": {"auxiliary": False}}

_TORCHVISION_COUNTS = (
    *(
        Count(name, quantity, value, step, TORCHVISION_SOURCE, "read", arguments=_BARE.get(name, {}))
        for name, (parameters, gmacs, _) in TORCHVISION.items()
        for quantity, value, step in (("parameters", parameters, 1), ("MACs", gmacs * 1e9, 1e6))
    ),
    Count("googlenet", "parameters", 13_004_888, 1, TORCHVISION_SOURCE, "read", note="with both heads"),
    *(
        Count(name, quantity, value, step, TORCHVISION_SOURCE, "read", arguments={"input_size": size})
        for name, size, quantity, value, step in (
            ("vit_b_16", 384, "parameters", 86_859_496, 1), ("vit_b_16", 384, "MACs", 55.484e9, 1e6),
            ("vit_l_16", 512, "parameters", 305_174_504, 1), ("vit_l_16", 512, "MACs", 361.986e9, 1e6),
        )
    ),
)  # fmt: skip
_TORCHVISION_RESULTS = tuple(
    Result(name, measure, percent, f"ImageNet validation, {weights}", TORCHVISION_SOURCE, "read")
    for name, (_, _, accuracies) in TORCHVISION.items()
    for weights, pair in accuracies.items()
    for measure, percent in zip(("top-1 accuracy", "top-5 accuracy"), pair, strict=True)
)

# ---- LeNet

_LECUN = "LeCun, Bottou, Bengio, Haffner 1998, Proc. IEEE 86(11)"

_LENET_COUNTS = (
    Count("lenet5", "parameters", 60_000, 1, f"{_LECUN}, section II.B", "exact"),
    Count("lenet5", "connections", 340_908, 1, f"{_LECUN}, section II.B", "exact"),
    *(
        Count("lenet5", f"parameters of {layer}", value, 1, f"{_LECUN}, section II.B", "exact")
        for layer, value in (
            ("C1", 156), ("S2", 12), ("C3", 1_516), ("S4", 32), ("C5", 48_120), ("F6", 10_164),
        )
    ),
    Count("lenet5", "fixed weights of the output", 840, 1, f"{_LECUN}, section II.B", "exact"),
    Count("lenet", "parameters", 62_006, 1, "PyTorch's training tutorial, by arithmetic", "exact"),
    Count(
        "lenet", "parameters", 61_706, 1, "folklore, by arithmetic", "exact",
        note="what is often called LeNet-5: every link of C3, no parameters in the pools, a linear output",
        arguments={"in_channels": 1},
    ),
)  # fmt: skip
_LENET_RESULTS = (
    Result("lenet5", "error", 0.95, "MNIST test", f"{_LECUN}, section III.B", "high"),
    Result(
        "lenet5", "error", 0.8, "MNIST test, trained with distortions", f"{_LECUN}, section III.B", "high"
    ),
)

# ---- AlexNet

_ALEX = "Krizhevsky, Sutskever, Hinton 2012, NIPS"

_ALEXNET_COUNTS = (
    Count("alexnet_2012", "parameters", 60e6, 1e7, f"{_ALEX}, abstract", "read"),
    Count("alexnet_2012", "parameters", 60_965_224, 1, "arithmetic from the paper's section 3.5", "exact"),
    Count(
        "alexnet_2012", "neurons", 650_000, 1e4, f"{_ALEX}, abstract", "read", differs=659_272,
        note="the eight layers of the caption of figure 2 add up to 622,312 as printed",
    ),
    Count(
        "alexnet_2012", "neurons of layer 1", 253_440, 1, f"{_ALEX}, figure 2", "high", differs=290_400,
        note="the figure draws 55 x 55 x 96 = 290,400",
    ),
    *(
        Count("alexnet_2012", f"neurons of layer {layer}", value, 1, f"{_ALEX}, figure 2", "high")
        for layer, value in (
            (2, 186_624), (3, 64_896), (4, 64_896), (5, 43_264), (6, 4_096), (7, 4_096), (8, 1_000),
        )
    ),
)  # fmt: skip
_ALEXNET_RESULTS = (
    Result("alexnet_2012", "top-1 error", 37.5, "ILSVRC-2010 test", f"{_ALEX}, abstract", "read"),
    Result("alexnet_2012", "top-5 error", 17.0, "ILSVRC-2010 test", f"{_ALEX}, abstract", "read"),
    Result("alexnet_2012", "top-1 error", 40.7, "ILSVRC-2012 validation", f"{_ALEX}, table 2", "high"),
    Result("alexnet_2012", "top-5 error", 18.2, "ILSVRC-2012 validation", f"{_ALEX}, table 2", "high"),
    Result("7 AlexNets", "top-5 error", 15.3, "ILSVRC-2012 test", f"{_ALEX}, table 2", "read"),
    Result("second best", "top-5 error", 26.2, "ILSVRC-2012 test", f"{_ALEX}, table 2", "read"),
)

# ---- VGG

_VGG = "Simonyan, Zisserman 2015, arXiv:1409.1556"

_VGG_COUNTS = (
    *(
        Count(name, "parameters", millions * 1e6, 1e6, f"{_VGG}, table 2", "high")
        for name, millions in (("vgg11", 133), ("vgg13", 133), ("vgg16", 138), ("vgg19", 144))
    ),
    *(
        Count(name, "layers in depth", layers, 1, f"{_VGG}, table 1", "exact")
        for name, layers in (("vgg11", 11), ("vgg13", 13), ("vgg16", 16), ("vgg19", 19))
    ),
    Count("vgg16", "weights of three 3x3 layers, over C^2", 27, 1, f"{_VGG}, section 2.3", "high"),
    Count("vgg16", "weights of one 7x7 layer, over C^2", 49, 1, f"{_VGG}, section 2.3", "high"),
    Count("vgg16", "percent more in the 7x7 layer", 81, 1, f"{_VGG}, section 2.3", "high"),
    Count(
        "vgg19", "MACs", 19.6e9, 1e8, "He, Zhang, Ren, Sun 2016, arXiv:1512.03385, section 3.3", "high",
    ),
)  # fmt: skip
_VGG_RESULTS = (
    *(
        Result(name, measure, percent, f"ImageNet validation, {scale}", f"{_VGG}, table 3", "high")
        for name, scale, pair in (
            ("vgg11", "one scale, 256", (29.6, 10.4)),
            ("vgg13", "one scale, 256", (28.7, 9.9)),
            ("vgg16", "one scale, 384, trained on 256-512", (25.6, 8.1)),
            ("vgg19", "one scale, 384, trained on 256-512", (25.5, 8.0)),
        )
        for measure, percent in zip(("top-1 error", "top-5 error"), pair, strict=True)
    ),
    Result("VGG D and E", "top-5 error", 6.8, "ImageNet test, many crops", f"{_VGG}, table 7", "high"),
)

# ---- GoogLeNet

_SZEGEDY = "Szegedy et al. 2015, arXiv:1409.4842"
_BARE_2014: Mapping[str, Any] = {"auxiliary": False}

# Table 1: block, printed parameters / 1000, weights by arithmetic, printed multiply-adds / 1e6.
_INCEPTION = (
    ("3a", 159, 163_328, 128), ("3b", 380, 388_096, 304),
    ("4a", 364, 375_552, 73), ("4b", 437, 448_512, 88), ("4c", 463, 509_440, 100),
    ("4d", 580, 604_672, 119), ("4e", 840, 867_328, 170),
    ("5a", 1072, 1_042_432, 54), ("5b", 1388, 1_442_816, 71),
)  # fmt: skip
_INCEPTION_MACS = {"4a": 73_608_192, "5a": 51_079_168}  # where they do not round to the printed number

_GOOGLENET_COUNTS = (
    Count(
        "googlenet_2014", "parameters", 6_998_552, 1, "arithmetic from the paper's table 1", "exact",
        arguments=_BARE_2014,
    ),
    Count(
        "googlenet_2014", "times fewer parameters than alexnet_2012", 12, 1, f"{_SZEGEDY}, section 1", "read",
        differs=60_965_224 / 6_998_552, note="the paper's own table 1 adds up to 6.8 M", arguments=_BARE_2014,
    ),
    Count(
        "googlenet_2014", "MACs", 1.5e9, 1e8, f"{_SZEGEDY}, section 1", "read",
        differs=1_582_671_872, note="a budget that the network was kept to", arguments=_BARE_2014,
    ),
    Count("googlenet_2014", "layers in depth", 22, 1, f"{_SZEGEDY}, section 5", "high", arguments=_BARE_2014),
    *(
        Count(
            "googlenet_2014", f"weights of inception {block}", thousands * 1000, 1000,
            f"{_SZEGEDY}, table 1", "high", differs=weights,
            note="no single meaning of K and no count of biases fits the printed column",
            arguments=_BARE_2014,
        )
        for block, thousands, weights, _ in _INCEPTION
    ),
    *(
        Count(
            "googlenet_2014", f"MACs of inception {block}", millions * 1e6, 1e6,
            f"{_SZEGEDY}, table 1", "high", differs=_INCEPTION_MACS.get(block), arguments=_BARE_2014,
        )
        for block, _, _, millions in _INCEPTION
    ),
)  # fmt: skip
_GOOGLENET_RESULTS = (
    Result(
        "googlenet_2014",
        "top-5 error",
        10.07,
        "ImageNet validation, one crop",
        f"{_SZEGEDY}, table 3",
        "high",
    ),
    Result("7 GoogLeNets", "top-5 error", 6.67, "ImageNet test, 144 crops", f"{_SZEGEDY}, table 2", "high"),
)

# ---- ResNet

_HE = "He, Zhang, Ren, Sun 2016, arXiv:1512.03385"
_V1_MACS = "MACs with the stride in the first 1x1"  # the paper's network; torchvision has it in the 3x3

_RESNET_COUNTS = (
    Count("resnet18", _V1_MACS, 1.8e9, 1e8, f"{_HE}, table 1", "high"),
    Count(
        "resnet34", _V1_MACS, 3.6e9, 1e8, f"{_HE}, table 1", "high", differs=3_663_761_408,
        note="3.64e9 without the three projections, as in the paper's option A",
    ),
    Count(
        "resnet50", _V1_MACS, 3.8e9, 1e8, f"{_HE}, table 1", "high", differs=3_857_973_248,
        note="cut off, not rounded, it seems",
    ),
    Count("resnet101", _V1_MACS, 7.6e9, 1e8, f"{_HE}, table 1", "high"),
    Count("resnet152", _V1_MACS, 11.3e9, 1e8, f"{_HE}, table 1", "high"),
    *(
        Count(f"resnet{layers}", "layers in depth", layers, 1, f"{_HE}, tables 1 and 6", "exact")
        for layers in (18, 34, 50, 101, 152, 20, 32, 44, 56, 110, 1202)
    ),
    *(
        Count(name, "parameters", millions * 1e6, step * 1e6, f"{_HE}, table 6", "high")
        for name, millions, step in (
            ("resnet20", 0.27, 0.01), ("resnet32", 0.46, 0.01), ("resnet44", 0.66, 0.01),
            ("resnet56", 0.85, 0.01), ("resnet110", 1.7, 0.1), ("resnet1202", 19.4, 0.1),
        )
    ),
)  # fmt: skip
_RESNET_RESULTS = (
    *(
        Result(name, measure, percent, "ImageNet validation, 10 crops", f"{_HE}, tables 2 and 3", "high")
        for name, errors in (
            ("plain-18", (27.94,)), ("plain-34", (28.54, 10.02)), ("resnet18", (27.88,)),
            ("resnet34", (24.52, 7.46)), ("resnet50", (22.85, 6.71)),
            ("resnet101", (21.75, 6.05)), ("resnet152", (21.43, 5.71)),
        )
        for measure, percent in zip(("top-1 error", "top-5 error"), errors, strict=False)
    ),
    *(
        Result(name, measure, percent, "ImageNet validation, many scales", f"{_HE}, table 4", "high")
        for name, pair in (
            ("resnet34", (21.84, 5.71)), ("resnet50", (20.74, 5.25)),
            ("resnet101", (19.87, 4.60)), ("resnet152", (19.38, 4.49)),
        )
        for measure, percent in zip(("top-1 error", "top-5 error"), pair, strict=True)
    ),
    Result("6 ResNets", "top-5 error", 3.57, "ImageNet test", f"{_HE}, abstract", "read"),
    *(
        Result(name, "error", percent, "CIFAR-10 test", f"{_HE}, table 6", "high")
        for name, percent in (
            ("resnet20", 8.75), ("resnet32", 7.51), ("resnet44", 7.17),
            ("resnet56", 6.97), ("resnet110", 6.43), ("resnet1202", 7.93),
        )
    ),
    Result(
        "resnet1202", "error", 4.91, "CIFAR-10 test, trained with stochastic depth",
        "Huang, Sun, Liu, Sedra, Weinberger 2016, arXiv:1603.09382, abstract", "read",
    ),
)  # fmt: skip

# ---- MobileNetV3

_HOWARD = "Howard et al. 2019, arXiv:1905.02244"
_SLIM = "TensorFlow's slim, page of the authors' MobileNetV3 checkpoints"
_NARROW: Mapping[str, Any] = {"width": 0.75}

_MOBILENET_COUNTS = (
    Count("mobilenet_v3_large", "MACs", 219e6, 1e6, f"{_HOWARD}, table 3", "high", differs=216_589_760),
    Count(
        "mobilenet_v3_large", "parameters", 5.4e6, 1e5, f"{_HOWARD}, table 3", "high", differs=5_483_032,
        note="cut off, not rounded, it seems",
    ),
    Count("mobilenet_v3_large", "MACs", 217e6, 1e6, _SLIM, "read"),
    Count("mobilenet_v3_large", "MACs", 155e6, 1e6, _SLIM, "read", arguments=_NARROW),
    Count("mobilenet_v3_large", "parameters", 4.0e6, 1e5, _SLIM, "read", arguments=_NARROW),
    Count(
        "mobilenet_v3_small", "MACs", 56e6, 1e6, f"{_HOWARD}, table 3", "medium", differs=56_510_400,
        note="earlier versions print 66 M, and 2.9 M parameters",
    ),
    Count("mobilenet_v3_small", "parameters", 2.5e6, 1e5, f"{_HOWARD}, table 3", "medium"),
    Count(
        "mobilenet_v3_small", "MACs", 44e6, 1e6, _SLIM, "read", differs=43_399_344, arguments=_NARROW,
    ),
    Count(
        "mobilenet_v3_small", "parameters", 2.0e6, 1e5, f"{_HOWARD}, table 3", "medium", arguments=_NARROW,
        note="2.4 M in earlier versions and on the authors' page",
    ),
)  # fmt: skip
_IMAGENET = "ImageNet validation"
_MOBILENET_RESULTS = (
    Result("mobilenet_v3_large", "top-1 accuracy", 75.2, _IMAGENET, f"{_HOWARD}, table 3", "read"),
    Result("mobilenet_v3_large, width 0.75", "top-1 accuracy", 73.3, _IMAGENET, _SLIM, "read"),
    Result("mobilenet_v3_small", "top-1 accuracy", 67.4, _IMAGENET, f"{_HOWARD}, table 3", "medium"),
    Result("mobilenet_v3_small, width 0.75", "top-1 accuracy", 65.4, _IMAGENET, _SLIM, "read"),
    Result(
        "mobilenet_v3_large",
        "top-1 accuracy",
        75.766,
        "ImageNet validation, trained with RandAugment",
        "timm, documentation, training scripts",
        "read",
    ),
)

# ---- Vision Transformer

_VIT = "Dosovitskiy et al. 2021, arXiv:2010.11929"
_DEIT = "Touvron et al. 2021, arXiv:2012.12877"
_HEADLESS = "parameters without the classifier"

_VIT_COUNTS = (
    Count("vit_b_16", _HEADLESS, 86e6, 1e6, f"{_VIT}, table 1", "high"),
    Count("vit_l_16", _HEADLESS, 307e6, 1e6, f"{_VIT}, table 1", "high", differs=303_301_632),
    *(
        Count(name, quantity, value, 1, f"{source}, table 1", "high")
        for source, name, layers, width, heads in (
            (_VIT, "vit_b_16", 12, 768, 12), (_VIT, "vit_l_16", 24, 1024, 16),
            (_DEIT, "vit_ti_16", 12, 192, 3), (_DEIT, "vit_s_16", 12, 384, 6),
        )
        for quantity, value in (("encoder layers", layers), ("width", width), ("heads", heads))
    ),
    Count(
        "vit_ti_16", "parameters", 5e6, 1e6, f"{_DEIT}, table 1", "high", differs=5_717_416,
        note="cut off, not rounded, it seems",
    ),
    Count("vit_s_16", "parameters", 22e6, 1e6, f"{_DEIT}, table 1", "high"),
)  # fmt: skip
_VIT_RESULTS = (
    *(
        Result(
            name,
            "top-1 accuracy",
            percent,
            f"ImageNet validation, 384 px, {before}",
            f"{_VIT}, table 5",
            "high",
        )
        for before, row in (
            ("trained on ImageNet", (77.91, 73.38, 76.53)),
            ("pretrained on ImageNet-21k", (83.97, 81.28, 85.15)),
            ("pretrained on JFT-300M", (84.15, 80.73, 87.12)),
        )
        for name, percent in zip(("vit_b_16", "vit_b_32", "vit_l_16"), row, strict=True)
    ),
    Result("vit_ti_16", "top-1 accuracy", 72.2, _IMAGENET, f"{_DEIT}, table 5", "high"),
    Result("vit_s_16", "top-1 accuracy", 79.8, _IMAGENET, f"{_DEIT}, table 5", "high"),
    Result("vit_b_16", "top-1 accuracy", 81.8, _IMAGENET, f"{_DEIT}, table 5", "high"),
)

COUNTS: tuple[Count, ...] = (
    _TORCHVISION_COUNTS + _LENET_COUNTS + _ALEXNET_COUNTS + _VGG_COUNTS + _GOOGLENET_COUNTS + _RESNET_COUNTS
    + _MOBILENET_COUNTS + _VIT_COUNTS
)  # fmt: skip
RESULTS: tuple[Result, ...] = (
    _TORCHVISION_RESULTS + _LENET_RESULTS + _ALEXNET_RESULTS + _VGG_RESULTS + _GOOGLENET_RESULTS
    + _RESNET_RESULTS + _MOBILENET_RESULTS + _VIT_RESULTS
)  # fmt: skip
