"""MobileNetV3: inverted residuals, squeeze-and-excitation, h-swish, and a cheap last stage.

Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam 2019, "Searching for MobileNetV3",
ICCV, arXiv:1905.02244, tables 1 and 2. State dicts have torchvision's keys and shapes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import ResidualBlock, check_images


def swish(x: Tensor) -> Tensor:
    """The gated x sigmoid(x) (section 5.2; Ramachandran et al. 2017, arXiv:1710.05941)."""
    return F.silu(x)


def h_swish(x: Tensor) -> Tensor:
    """The piecewise x ReLU6(x + 3) / 6: the form of `swish`, and no exponential (section 5.2)."""
    return F.hardswish(x)


class HSwish(nn.Module):
    """`h_swish` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, unchanged."""
        return h_swish(x)


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


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never less than 0.9 of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    activation: nn.Module | None,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, and the activation if there is one."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers) if activation is None else nn.Sequential(*layers, activation)


class SqueezeExcitation(nn.Module):
    """Each channel times a factor in 0-1 that the means of all channels decide (Hu et al. 2018).

    A quarter of the channels in between, and a hard sigmoid, ReLU6(x + 3) / 6 (section 5.3).
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

    That the pool comes before the widest layer is the cheap last stage of figure 5.

    Args:
        rows: table 1 or table 2.
        last: channels of the layer after the pool.
        num_classes: how many scores it gives.
        in_channels: 3 for RGB, 1 for grayscale.
        width: multiplies all channels; those of the layer after the pool only where it is above 1.
    """

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
            raise UsageError(f"a width of {width}", "it multiplies all channels", "Use one above 0, as 0.75")
        self.in_channels = in_channels
        base, channels = 16, multiple_of_8(16 * width)
        layers: list[nn.Module] = [convolution(in_channels, channels, 3, HSwish(), stride=2)]
        for row in rows:
            # As the authors' code has it, the expansion keeps its ratio to what the block really reads.
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
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`, any size."""
        check_images(x, self.in_channels)
        x = self.features(x)  # 224 -> 7
        x = self.avgpool(x).flatten(1)
        return self.classifier(x)


def initialise(network: nn.Module) -> None:
    """He-normal convolutions (He et al. 2015, fan-out), the rest normal 0.01, zero biases, as torchvision."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def mobilenet_v3_large(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> MobileNetV3:
    """Table 1: 5.5 M parameters, 217 M multiply-adds at 224."""
    return MobileNetV3(LARGE, 1280, num_classes, in_channels, width)


def mobilenet_v3_small(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> MobileNetV3:
    """Table 2: 2.5 M parameters, 57 M multiply-adds at 224."""
    return MobileNetV3(SMALL, 1024, num_classes, in_channels, width)
