"""MobileNetV3: inverted residuals, squeeze-and-excitation, h-swish, and a cheap last stage.

Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam 2019, "Searching for MobileNetV3",
ICCV, arXiv:1905.02244, tables 1 and 2. State dicts have torchvision's keys and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import ResidualBlock, check_images, initialize, multiple_of_8, rename_layers
from striate.models.recipe import NO_RANDAUGMENT, Recipe


class HSwish(nn.Module):
    """x ReLU6(x + 3) / 6: similar to x sigmoid(x) without an exponential (section 5.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return F.hardswish(x)


class Row(NamedTuple):
    """A row of the paper's tables 1 and 2: one inverted residual block, at width 1."""

    kernel: int
    expanded: int  # channels inside
    out: int
    se: bool  # squeeze-and-excitation
    hs: bool  # h-swish; ReLU otherwise
    stride: int


LARGE = (
    Row(3, 16, 16, se=False, hs=False, stride=1),
    Row(3, 64, 24, se=False, hs=False, stride=2),
    Row(3, 72, 24, se=False, hs=False, stride=1),
    Row(5, 72, 40, se=True, hs=False, stride=2),
    Row(5, 120, 40, se=True, hs=False, stride=1),
    Row(5, 120, 40, se=True, hs=False, stride=1),
    Row(3, 240, 80, se=False, hs=True, stride=2),
    Row(3, 200, 80, se=False, hs=True, stride=1),
    Row(3, 184, 80, se=False, hs=True, stride=1),
    Row(3, 184, 80, se=False, hs=True, stride=1),
    Row(3, 480, 112, se=True, hs=True, stride=1),
    Row(3, 672, 112, se=True, hs=True, stride=1),
    Row(5, 672, 160, se=True, hs=True, stride=2),
    Row(5, 960, 160, se=True, hs=True, stride=1),
    Row(5, 960, 160, se=True, hs=True, stride=1),
)
SMALL = (
    Row(3, 16, 16, se=True, hs=False, stride=2),
    Row(3, 72, 24, se=False, hs=False, stride=2),
    Row(3, 88, 24, se=False, hs=False, stride=1),
    Row(5, 96, 40, se=True, hs=True, stride=2),
    Row(5, 240, 40, se=True, hs=True, stride=1),
    Row(5, 240, 40, se=True, hs=True, stride=1),
    Row(5, 120, 48, se=True, hs=True, stride=1),
    Row(5, 144, 48, se=True, hs=True, stride=1),
    Row(5, 288, 96, se=True, hs=True, stride=2),
    Row(5, 576, 96, se=True, hs=True, stride=1),
    Row(5, 576, 96, se=True, hs=True, stride=1),
)


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    activation: nn.Module | None,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, and an optional activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor in 0-1 computed from the means of all channels (Hu et al. 2018).

    The hidden layer has a quarter of the channels. The factor is a hard sigmoid, ReLU6(x + 3) / 6
    (section 5.3).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = multiple_of_8(channels / 4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, h, w]`, the shape unchanged."""
        scale = F.relu(self.fc1(self.avgpool(x)))
        scale = F.hardsigmoid(self.fc2(scale))
        return x * scale


class InvertedResidual(ResidualBlock):
    """1x1 expand, depthwise, squeeze-and-excitation, 1x1 project without activation (figure 4)."""

    def __init__(self, row: Row, in_channels: int, expanded: int, out: int) -> None:
        super().__init__()
        activation = HSwish() if row.hs else nn.ReLU()
        layers: list[nn.Module] = []
        if expanded != in_channels:
            layers.append(convolution(in_channels, expanded, 1, activation))
        layers.append(convolution(expanded, expanded, row.kernel, activation, row.stride, groups=expanded))
        if row.se:
            layers.append(SqueezeExcitation(expanded))
        layers.append(convolution(expanded, out, 1, activation=None))
        self.block = nn.Sequential(*layers)
        self.residual = row.stride == 1 and in_channels == out

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, out, h / stride, w / stride]`."""
        return x + self.drop_path(self.block(x)) if self.residual else self.block(x)


class MobileNetV3(nn.Module):
    """A 3x3 convolution of 16 maps, the rows, a 1x1 convolution, the pool, and two layers after it.

    The pool precedes the widest layer, which makes the last stage cheap (figure 5).

    Args:
        rows: table 1 or table 2.
        last: channels of the layer after the pool.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
        width: multiplies all channels; those of the layer after the pool only if it is above 1.
    """

    stage_containers = ("features", "classifier")

    def __init__(
        self,
        rows: tuple[Row, ...],
        last: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if width <= 0:
            raise UsageError(
                f"a width of {width}", "it multiplies all channels", "Use one above 0, such as 0.75"
            )
        self.in_channels = in_channels
        base, channels = 16, multiple_of_8(16 * width)
        layers: list[nn.Module] = [convolution(in_channels, channels, 3, HSwish(), stride=2)]
        for row in rows:
            # As in the authors' code, the expansion keeps its ratio to the block's actual input channels.
            expanded = multiple_of_8(channels * row.expanded / base)
            out = multiple_of_8(row.out * width)
            layers.append(InvertedResidual(row, channels, expanded, out))
            base, channels = row.out, out
        layers.append(convolution(channels, 6 * channels, 1, HSwish()))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        last = multiple_of_8(last * max(1.0, width))
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, last),
            HSwish(),
            nn.Dropout(0.2),
            nn.Linear(last, num_classes),
        )
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`, any size."""
        check_images(x, self.in_channels)
        x = self.features(x)  # 224 -> 7
        x = self.avgpool(x).flatten(1)
        return self.classifier(x)


def mobilenet_v3_large(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> MobileNetV3:
    """Table 1: 5.5 M parameters, 217 M multiply-adds at 224."""
    return MobileNetV3(LARGE, 1280, num_classes, in_channels, width)


def mobilenet_v3_small(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> MobileNetV3:
    """Table 2: 2.5 M parameters, 57 M multiply-adds at 224."""
    return MobileNetV3(SMALL, 1024, num_classes, in_channels, width)


def arguments_from(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The widths to try: several can have the same shapes in the first layers."""
    return [{}, *({"width": width} for width in (0.5, 0.75, 1.25, 1.5, 2.0))]


# timm trained with PyTorch's default epsilon in BatchNorm; torchvision and we use the paper's code's 0.001.
_TIMM_EPSILON, _EPSILON = 1e-5, 1e-3


def translate_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]] | None:
    """Rename the tensors of timm's MobileNetV3 and adapt its BatchNorm."""
    is_theirs = "conv_stem.weight" in state and any(name.startswith("blocks.") for name in state)
    if not is_theirs or "bn2.weight" in state:  # a norm after the head is EfficientNet's
        return None
    note = "timm's MobileNetV3: the gain of each BatchNorm is adapted from epsilon 1e-5 to 1e-3"
    return _adapt_epsilon(_rename_timm(state)), ["names translated from timm's", note]


# The layers of timm's blocks in the order in which ours are numbered; "se" is optional.
_SQUEEZE = ("se.conv_reduce", "se.conv_expand")
_DEPTHWISE = (("conv_dw", "bn1"), _SQUEEZE, ("conv_pw", "bn2"))
_INVERTED = (("conv_pw", "bn1"), ("conv_dw", "bn2"), _SQUEEZE, ("conv_pwl", "bn3"))


def _rename_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's tensors: timm numbers stages and the blocks within them, torchvision all blocks."""
    places = {"conv_stem": "features.0.0", "bn1": "features.0.1"}
    places |= {"conv_head": "classifier.0", "classifier": "classifier.3"}
    layers: dict[tuple[int, int], set[str]] = {}
    for name in state:
        if found := re.match(r"blocks\.(\d+)\.(\d+)\.(.+)\.\w+$", name):
            layers.setdefault((int(found[1]), int(found[2])), set()).add(found[3])
    for number, (stage, index) in enumerate(sorted(layers), start=1):
        theirs, ours, inside = f"blocks.{stage}.{index}", f"features.{number}", layers[stage, index]
        if "conv" in inside:  # the last one, a plain convolution
            places |= {f"{theirs}.conv": f"{ours}.0", f"{theirs}.bn1": f"{ours}.1"}
            continue
        rows = _INVERTED if "conv_pwl" in inside else _DEPTHWISE
        present = [row for row in rows if row != _SQUEEZE or "se.conv_reduce" in inside]
        for position, row in enumerate(present):
            inner = ("fc1", "fc2") if row == _SQUEEZE else ("0", "1")
            places |= {
                f"{theirs}.{name}": f"{ours}.block.{position}.{i}" for name, i in zip(row, inner, strict=True)
            }
    return rename_layers(state, places, ("conv_head",))


def _adapt_epsilon(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Change each BatchNorm's gain so that gain / sqrt(variance + epsilon) is the same with our epsilon."""
    changed = dict(state)
    for name, variance in state.items():
        layer = name.removesuffix(".running_var")
        if layer != name and f"{layer}.weight" in state:
            factor = torch.sqrt((variance.double() + _EPSILON) / (variance.double() + _TIMM_EPSILON))
            gain = state[f"{layer}.weight"]
            changed[f"{layer}.weight"] = (gain.double() * factor).to(gain.dtype)
    return changed


_HOWARD = "Howard et al. 2019, arXiv:1905.02244"
RECIPES = {
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
                "the rate falls by 1 % every 3 epochs; epsilon is MnasNet's; the paper's dropout of 0.8 is "
                "the share that is kept",
                "without the color distortions of Inception's preprocessing",
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
            (NO_RANDAUGMENT.format("five"), "without the noise on the rate"),
        ),
    },
}  # fmt: skip
