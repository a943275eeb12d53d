"""The thin residual networks for CIFAR-10: ResNet-20, 32, 44, 56, 110 and 1202.

He, Zhang, Ren, Sun 2016, "Deep Residual Learning for Image Recognition", CVPR, arXiv:1512.03385,
section 4.2: a 3x3 convolution, then three stages of n blocks with 16, 32 and 64 channels; 6n + 2 layers.
No shortcut has parameters (option A): to halve the size, it takes every other pixel and fills the new
channels with zeros.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from striate.models.layers import ResidualBlock, check_images
from striate.models.recipe import SGD, Recipe


class Block(ResidualBlock):
    """Two 3x3 convolutions and a parameter-free shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.new_channels = width - in_channels
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, width, h / stride, w / stride]`."""
        shortcut = x
        if self.stride != 1 or self.new_channels != 0:
            # Half of the zero channels before and half after, as in the widely used ports.
            before = self.new_channels // 2
            after = self.new_channels - before
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(self.drop_path(x) + shortcut)


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of `n` blocks, global average pooling, a linear classifier.

    Args:
        n: blocks in a stage; the network has 6n + 2 layers.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
    """

    def __init__(self, n: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16) for _ in range(n)))
        self.layer2 = nn.Sequential(Block(16, 32, stride=2), *(Block(32, 32) for _ in range(n - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, stride=2), *(Block(64, 64) for _ in range(n - 1)))
        self.linear = nn.Linear(64, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)  # He et al. 2015, as the paper says

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`, 32 px in the paper."""
        check_images(x, self.in_channels)
        x = F.relu(self.bn1(self.conv1(x)))  # 16 @ 32x32
        x = self.layer1(x)  # 16 @ 32x32
        x = self.layer2(x)  # 32 @ 16x16
        x = self.layer3(x)  # 64 @ 8x8
        x = x.mean(dim=(2, 3))
        return self.linear(x)


def resnet20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """20 layers, 0.27 M parameters; 8.75 % error on CIFAR-10 in the paper."""
    return CifarResNet(3, num_classes, in_channels)


def resnet32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """32 layers, 0.46 M parameters; 7.51 % error."""
    return CifarResNet(5, num_classes, in_channels)


def resnet44(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """44 layers, 0.66 M parameters; 7.17 % error."""
    return CifarResNet(7, num_classes, in_channels)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """56 layers, 0.85 M parameters; 6.97 % error."""
    return CifarResNet(9, num_classes, in_channels)


def resnet110(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """110 layers, 1.7 M parameters; 6.43 % error."""
    return CifarResNet(18, num_classes, in_channels)


def resnet1202(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """1202 layers, 19.4 M parameters; 7.93 % error, because it overfits."""
    return CifarResNet(200, num_classes, in_channels)


_RESNET = "He, Zhang, Ren, Sun 2016, arXiv:1512.03385"
RECIPES = {
    "resnet_cifar": {
        "paper": Recipe(
            f"{_RESNET}, section 4.2", "CIFAR-10, 45,000 images of it",
            {
                **SGD, "batch": 128, "epochs": 182, "lr": 0.1, "milestones": "0.5,0.75",
                "weight_decay": 1e-4, "warmup": 400 / 64_000, "augment": "light",
            },
            ("He, Zhang", "CIFAR-10 test"),
            ("182 passes are 64,000 steps", "the paper warms up resnet110 only, by 400 steps at 0.01"),
        ),
        "modern": Recipe(
            "Huang et al. 2016, arXiv:1603.09382, section 4, and their code", "CIFAR-10, 45,000 images of it",
            {
                **SGD, "batch": 128, "epochs": 500, "lr": 0.1, "nesterov": True, "milestones": "0.5,0.75",
                "weight_decay": 1e-4, "augment": "light", "drop_path": 0.5,
            },
            ("Huang", "CIFAR-10 test"),
            (
                "0.5 is for resnet110 and resnet1202; a shallow network needs less",
                "the source drops a block for all images of a batch at once",
            ),
        ),
    },
}  # fmt: skip
