"""VGG: 3x3 convolutions, 2x2 max-pools and three fully connected layers.

Simonyan, Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR,
arXiv:1409.1556, table 1. State dicts have torchvision's keys and shapes. The variants with BatchNorm are
torchvision's, whose convolutions keep a bias although BatchNorm makes it redundant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from striate.models.layers import check_images, initialize, rename_layers
from striate.models.recipe import EQUAL_DISTANCES, SGD, Recipe, torchvision_reference

# Table 1: the number of convolutions in each of the five stages. The columns differ in nothing else.
WIDTHS = (64, 128, 256, 512, 512)
A = (1, 1, 2, 2, 2)
B = (2, 2, 2, 2, 2)
D = (2, 2, 3, 3, 3)
E = (2, 2, 4, 4, 4)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each with a max-pool at the end, and three fully connected layers.

    Args:
        depths: convolutions in each stage, a column of the paper's table 1.
        batch_norm: whether there is a BatchNorm between each convolution and its ReLU.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
    """

    stage_containers = ("features", "classifier")

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
        self.avgpool = nn.AdaptiveAvgPool2d(7)  # no effect at 224; allows other sizes
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        )
        initialize(self)  # the paper starts the deeper networks with layers of the shallow one (section 3.1)

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


# timm computes the fully connected layers as convolutions, so that they read images of any size.
_TIMM_LAYERS = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}


def translate_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]] | None:
    """Rename the tensors of timm's VGG."""
    if "pre_logits.fc1.weight" not in state:
        return None
    return rename_layers(state, _TIMM_LAYERS, _TIMM_LAYERS), ["names translated from timm's"]


_SIMONYAN = "Simonyan, Zisserman 2015, arXiv:1409.1556"
_VGG = Recipe(
    f"{_SIMONYAN}, section 3.1", "ImageNet",
    {
        **SGD, "batch": 256, "epochs": 74, "lr": 0.01, "weight_decay": 5e-4, "augment": "light",
        "lighting": 0.1,
    },
    ("Simonyan", "ImageNet validation, one scale"),
    (
        f"{EQUAL_DISTANCES} (three times in 74 passes)",
        "the scale is 256; for some results the paper also draws it from 256 to 512",
        "the paper initializes the deeper networks with layers of vgg11, or as Glorot and Bengio 2010",
    ),
)  # fmt: skip
RECIPES = {
    "vgg": {
        "paper": _VGG,
        "modern": torchvision_reference(0.01),
    },
    "vgg_bn": {
        "paper": replace(
            _VGG, results=(), notes=(*_VGG.notes, "it has no result: the paper's networks have no BatchNorm")
        ),
        "modern": torchvision_reference(0.1),
    },
}  # fmt: skip
