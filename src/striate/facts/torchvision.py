"""What torchvision publishes about its networks: sizes, files of weights, and their accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from striate.facts.records import Count, Result, WeightsFile

_SOURCE = "torchvision 0.29.2, metadata of the weights"
V1, V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"

_SWAG: Mapping[str, Any] = {"default": False, "interpolation": "bicubic", "license": "CC-BY-NC-4.0"}
# From torchvision's weight enums. vgg16's features-only file is left out because it has no classifier.
# GoogLeNet was trained on images scaled to -1 to 1 (torchvision converts inside its network), and the
# auxiliary heads in its file are untrained.
WEIGHTS: tuple[WeightsFile, ...] = (
    WeightsFile("alexnet.v1", "alexnet-owt-7be5be79.pth", 224, 256, 56.522, 79.066, 233.087),
    WeightsFile("vgg11.v1", "vgg11-8a719046.pth", 224, 256, 69.02, 88.628, 506.84),
    WeightsFile("vgg13.v1", "vgg13-19584684.pth", 224, 256, 69.928, 89.246, 507.545),
    WeightsFile("vgg16.v1", "vgg16-397923af.pth", 224, 256, 71.592, 90.382, 527.796),
    WeightsFile("vgg19.v1", "vgg19-dcbb9e9d.pth", 224, 256, 72.376, 90.876, 548.051),
    WeightsFile("vgg11_bn.v1", "vgg11_bn-6002323d.pth", 224, 256, 70.37, 89.81, 506.881),
    WeightsFile("vgg13_bn.v1", "vgg13_bn-abd245e5.pth", 224, 256, 71.586, 90.374, 507.59),
    WeightsFile("vgg16_bn.v1", "vgg16_bn-6c64b313.pth", 224, 256, 73.36, 91.516, 527.866),
    WeightsFile("vgg19_bn.v1", "vgg19_bn-c79401a0.pth", 224, 256, 74.218, 91.842, 548.143),
    WeightsFile(
        "googlenet.v1", "googlenet-1378be20.pth", 224, 256, 69.778, 89.53, 49.731, normalization="half"
    ),
    WeightsFile("resnet18.v1", "resnet18-f37072fd.pth", 224, 256, 69.758, 89.078, 44.661),
    WeightsFile("resnet34.v1", "resnet34-b627a593.pth", 224, 256, 73.314, 91.42, 83.275),
    WeightsFile("resnet50.v1", "resnet50-0676ba61.pth", 224, 256, 76.13, 92.862, 97.781, default=False),
    WeightsFile("resnet50.v2", "resnet50-11ad3fa6.pth", 224, 232, 80.858, 95.434, 97.79),
    WeightsFile("resnet101.v1", "resnet101-63fe2227.pth", 224, 256, 77.374, 93.546, 170.511, default=False),
    WeightsFile("resnet101.v2", "resnet101-cd907fc2.pth", 224, 232, 81.886, 95.78, 170.53),
    WeightsFile("resnet152.v1", "resnet152-394f9c45.pth", 224, 256, 78.312, 94.046, 230.434, default=False),
    WeightsFile("resnet152.v2", "resnet152-f82ba261.pth", 224, 232, 82.284, 96.002, 230.474),
    WeightsFile("mobilenet_v3_small.v1", "mobilenet_v3_small-047dcff4.pth", 224, 256, 67.668, 87.402, 9.829),
    WeightsFile(
        "mobilenet_v3_large.v1", "mobilenet_v3_large-8738ca79.pth", 224, 256, 74.042, 91.34, 21.114,
        default=False,
    ),
    WeightsFile("mobilenet_v3_large.v2", "mobilenet_v3_large-5c1a4163.pth", 224, 232, 75.274, 92.566, 21.107),
    WeightsFile("vit_b_16.v1", "vit_b_16-c867db91.pth", 224, 256, 81.072, 95.318, 330.285),
    WeightsFile("vit_b_16.swag_e2e", "vit_b_16_swag-9ac1b537.pth", 384, 384, 85.304, 97.65, 331.398, **_SWAG),
    WeightsFile(
        "vit_b_16.swag_linear", "vit_b_16_lc_swag-4e70ced5.pth", 224, 224, 81.886, 96.18, 330.285, **_SWAG
    ),
    WeightsFile("vit_b_32.v1", "vit_b_32-d86f8d99.pth", 224, 256, 75.912, 92.466, 336.604),
    WeightsFile("vit_l_16.v1", "vit_l_16-852ce7e3.pth", 224, 242, 79.662, 94.638, 1161.023),
    WeightsFile(
        "vit_l_16.swag_e2e", "vit_l_16_swag-4f3808c9.pth", 512, 512, 88.064, 98.512, 1164.258, **_SWAG
    ),
    WeightsFile(
        "vit_l_16.swag_linear", "vit_l_16_lc_swag-4d563306.pth", 224, 224, 85.146, 97.422, 1161.023, **_SWAG
    ),
)  # fmt: skip

# Parameters, and MACs / 1e9 at 224 px. The published googlenet has no auxiliary heads.
_SIZES = {
    "alexnet": (61_100_840, 0.714),
    "vgg11": (132_863_336, 7.609),
    "vgg13": (133_047_848, 11.308),
    "vgg16": (138_357_544, 15.47),
    "vgg19": (143_667_240, 19.632),
    "vgg11_bn": (132_868_840, 7.609),
    "vgg13_bn": (133_053_736, 11.308),
    "vgg16_bn": (138_365_992, 15.47),
    "vgg19_bn": (143_678_248, 19.632),
    "googlenet": (6_624_904, 1.498),
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "mobilenet_v3_large": (5_483_032, 0.217),
    "mobilenet_v3_small": (2_542_856, 0.057),
    "vit_b_16": (86_567_656, 17.564),
    "vit_b_32": (88_224_232, 4.409),
    "vit_l_16": (304_326_632, 61.555),
}
_ARGUMENTS: dict[str, Mapping[str, Any]] = {"googlenet": {"auxiliary": False}}


def _enum_name(weights: WeightsFile) -> str:
    """The name in torchvision's enum: `IMAGENET1K_V2` for `resnet50.v2`."""
    kind = weights.name.split(".")[1].upper()
    return f"IMAGENET1K_{kind}" + ("_V1" if kind.startswith("SWAG") else "")


# Parameters, MACs / 1e9, and the accuracies (top-1, top-5) of each file of weights for 224 px.
TORCHVISION: dict[str, tuple[int, float, dict[str, tuple[float, float]]]] = {
    name: (parameters, gmacs, {}) for name, (parameters, gmacs) in _SIZES.items()
}
for _weights in WEIGHTS:
    if _weights.crop == 224:
        TORCHVISION[_weights.architecture][2][_enum_name(_weights)] = (_weights.top1, _weights.top5)

COUNTS: tuple[Count, ...] = (
    *(
        Count(name, quantity, value, step, _SOURCE, "read", arguments=_ARGUMENTS.get(name, {}))
        for name, (parameters, gmacs) in _SIZES.items()
        for quantity, value, step in (("parameters", parameters, 1), ("MACs", gmacs * 1e9, 1e6))
    ),
    Count("googlenet", "parameters", 13_004_888, 1, _SOURCE, "read", note="with both heads"),
    *(
        Count(name, quantity, value, step, _SOURCE, "read", arguments={"input_size": size})
        for name, size, quantity, value, step in (
            ("vit_b_16", 384, "parameters", 86_859_496, 1), ("vit_b_16", 384, "MACs", 55.484e9, 1e6),
            ("vit_l_16", 512, "parameters", 305_174_504, 1), ("vit_l_16", 512, "MACs", 361.986e9, 1e6),
        )
    ),
)  # fmt: skip
RESULTS: tuple[Result, ...] = tuple(
    Result(name, measure, percent, f"ImageNet validation, {weights}", _SOURCE, "read")
    for name, (_, _, accuracies) in TORCHVISION.items()
    for weights, pair in accuracies.items()
    for measure, percent in zip(("top-1 accuracy", "top-5 accuracy"), pair, strict=True)
)
