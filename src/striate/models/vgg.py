"""VGG: nothing but 3x3 convolutions, 2x2 pools and three fully connected layers.

Simonyan, Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR,
arXiv:1409.1556, table 1. State dicts have torchvision's keys and shapes. The variants with BatchNorm are
torchvision's; as there, their convolutions keep the bias that BatchNorm makes redundant.
"""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.layers import check_images

# Table 1: how many convolutions each of the five stages has; the rest is the same in all columns.
WIDTHS = (64, 128, 256, 512, 512)
A = (1, 1, 2, 2, 2)
B = (2, 2, 2, 2, 2)
D = (2, 2, 3, 3, 3)
E = (2, 2, 4, 4, 4)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each ended by a pool, and three fully connected layers.

    Args:
        depths: convolutions in each stage, a column of the paper's table 1.
        batch_norm: whether a BatchNorm stands between each convolution and its ReLU.
        num_classes: how many scores it gives.
        in_channels: 3 for RGB, 1 for grayscale.
    """

    def __init__(
        self,
        depths: tuple[int, int, int, int, int],
        batch_norm: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.features = convolutions(depths, batch_norm, in_channels)
        self.avgpool = nn.AdaptiveAvgPool2d(7)  # changes nothing at 224; lets other sizes in
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]` of 32 px or more."""
        check_images(x, self.in_channels, smallest=32)
        x = self.features(x)  # 224 -> 112 -> 56 -> 28 -> 14 -> 7
        x = self.avgpool(x).flatten(1)
        return self.classifier(x)


def convolutions(depths: tuple[int, int, int, int, int], batch_norm: bool, in_channels: int) -> nn.Sequential:
    """The five stages, from `[batch, in_channels, h, w]` to `[batch, 512, h / 32, w / 32]`."""
    layers: list[nn.Module] = []
    for width, depth in zip(WIDTHS, depths, strict=True):
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            in_channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def initialise(network: nn.Module) -> None:
    """He-normal convolutions (He et al. 2015, fan-out), normal 0.01 elsewhere, zero biases, as torchvision.

    The paper starts the deeper networks from the trained shallow one (section 3.1).
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def vgg11(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """Column A: 11 layers, 132.9 M parameters, 7.6 G multiply-adds at 224."""
    return VGG(A, False, num_classes, in_channels)


def vgg13(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """Column B: 13 layers, 133.0 M parameters, 11.3 G multiply-adds at 224."""
    return VGG(B, False, num_classes, in_channels)


def vgg16(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """Column D: 16 layers, 138.4 M parameters, 15.5 G multiply-adds at 224."""
    return VGG(D, False, num_classes, in_channels)


def vgg19(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """Column E: 19 layers, 143.7 M parameters, 19.6 G multiply-adds at 224."""
    return VGG(E, False, num_classes, in_channels)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """`vgg11` with BatchNorm."""
    return VGG(A, True, num_classes, in_channels)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """`vgg13` with BatchNorm."""
    return VGG(B, True, num_classes, in_channels)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """`vgg16` with BatchNorm."""
    return VGG(D, True, num_classes, in_channels)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3) -> VGG:
    """`vgg19` with BatchNorm."""
    return VGG(E, True, num_classes, in_channels)
