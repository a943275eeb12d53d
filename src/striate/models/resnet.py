"""Residual networks for ImageNet: ResNet-18, 34, 50, 101 and 152.

He, Zhang, Ren, Sun 2016, "Deep Residual Learning for Image Recognition", CVPR, arXiv:1512.03385, table 1.
State dicts have torchvision's keys and shapes. As there, the 3x3 convolution of a bottleneck has
the stride (in the paper, the first 1x1), which gains about 0.5 % ("ResNet v1.5").
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from striate import facts
from striate.models.layers import ResidualBlock, check_images
from striate.models.recipe import EQUAL_DISTANCES, MIXED, SGD, Recipe


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3, padding 1, no bias, because the next BatchNorm has one."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """1x1, no bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut of a block that changes the shape (option B of section 3.3); None for other blocks."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, width, h / stride, w / stride]`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(self.drop_path(x) + shortcut)


class Bottleneck(ResidualBlock):
    """1x1 reduce, 3x3, 1x1 restore, and a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, 4 * width, h / stride, w / stride]`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return F.relu(self.drop_path(x) + shortcut)


class ResNet(nn.Module):
    """A 7x7 convolution, a max-pool, four stages of residual blocks, and a linear classifier.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: blocks in each of the four stages.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        expansion = block.expansion
        self.layer1 = stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = stage(block, 64 * expansion, 128, depths[1], stride=2)
        self.layer3 = stage(block, 128 * expansion, 256, depths[2], stride=2)
        self.layer4 = stage(block, 256 * expansion, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * expansion, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # He et al. 2015
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`, any size."""
        check_images(x, self.in_channels)
        x = F.relu(self.bn1(self.conv1(x)))  # 224 -> 112
        x = self.maxpool(x)  # 56
        x = self.layer1(x)  # 56
        x = self.layer2(x)  # 28
        x = self.layer3(x)  # 14
        x = self.layer4(x)  # 7
        x = self.avgpool(x).flatten(1)
        return self.fc(x)


def stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    """`depth` blocks; the first one changes the width and the size."""
    first = block(in_channels, width, stride)
    rest = [block(width * block.expansion, width) for _ in range(depth - 1)]
    return nn.Sequential(first, *rest)


def resnet18(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """18 layers, 11.7 M parameters, 1.8 G multiply-adds at 224."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels)


def resnet34(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """34 layers, 21.8 M parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels)


def resnet50(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """50 layers, 25.6 M parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels)


def resnet101(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """101 layers, 44.5 M parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels)


def resnet152(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """152 layers, 60.2 M parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, in_channels)


_RESNET = "He, Zhang, Ren, Sun 2016, arXiv:1512.03385"
RECIPES = {
    "resnet": {
        "paper": Recipe(
            f"{_RESNET}, section 3.4", "ImageNet",
            {
                **SGD, "batch": 256, "epochs": 120, "lr": 0.1, "weight_decay": 1e-4, "augment": "scale",
                "lighting": 0.1,
            },
            ("He, Zhang", "10 crops"),
            (f"{EQUAL_DISTANCES}, in 120 passes (600,000 steps)", "its results are for ten crops"),
        ),
        "modern": Recipe(
            "Vryniotis 2021, PyTorch's blog, How to train state-of-the-art models using TorchVision's latest "
            "primitives", "ImageNet",
            {
                "opt": "sgd", "momentum": 0.9, "batch": 1024, "epochs": 600, "lr": 0.5, "sched": "cosine",
                "warmup": 5 / 600, "weight_decay": 2e-5, **MIXED, "mixup": 0.2, "ema": 0.999966,
            },
            ("torchvision", facts.V2),
            (
                "without repeated augmentation (each image four times in an epoch)",
                "it trains on images of 176 px and evaluates at 224 px, after resizing to 232",
                "it updates its average every 32 steps, by 0.0011; here every step, with the same total",
            ),
        ),
    },
}  # fmt: skip
