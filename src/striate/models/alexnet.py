"""AlexNet: the single tower in use today, and the network of 2012.

Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS.
Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997.
`alexnet` is the one tower of the second paper and has torchvision's keys; `alexnet_2012` is the first paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from striate.models.layers import check_images
from striate.models.recipe import EQUAL_DISTANCES, SGD, Recipe, torchvision_reference


class AlexNet(nn.Module):
    """Five convolutions, the last with 256 maps, and three fully connected layers.

    Args:
        features: the convolutions, from `[batch, in_channels, 224, 224]` to `[batch, 256, 6, 6]`.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
    """

    stage_containers = ("features", "classifier")

    def __init__(self, features: nn.Sequential, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(6)  # no effect at 224; allows other sizes
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]` of 63 px or more."""
        check_images(x, self.in_channels, smallest=63)
        x = self.features(x)
        x = self.avgpool(x).flatten(1)
        return self.classifier(x)


def single_tower(in_channels: int) -> nn.Sequential:
    """64, 192, 384, 256 and 256 maps, without response normalization (2014)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),  # 224 -> 55
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # 27
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # 13
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # 6
    )


def response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: n = 5, alpha = 1e-4, beta = 0.75, k = 2.

    The paper multiplies alpha by the sum over the n maps, PyTorch by their mean.
    """
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


def two_towers(in_channels: int) -> nn.Sequential:
    """96, 256, 384, 384 and 256 maps; the groups are the two GPUs of figure 2.

    Without padding, 224x224 images do not give the paper's 55x55 maps; a padding of 2 does.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 96, 11, stride=4, padding=2),  # 224 -> 55
        nn.ReLU(),
        response_norm(),
        nn.MaxPool2d(3, stride=2),  # 27; the windows overlap (section 3.4)
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(),
        response_norm(),
        nn.MaxPool2d(3, stride=2),  # 13
        nn.Conv2d(256, 384, 3, padding=1),  # the only layer in which the GPUs exchange maps
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),  # 6
    )


def alexnet(num_classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """One tower, 61.1 M parameters, 0.71 G multiply-adds at 224; PyTorch's default initial weights."""
    return AlexNet(single_tower(in_channels), num_classes, in_channels)


def alexnet_2012(num_classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """The paper's network; 60,965,224 parameters.

    Initial weights of section 5: normal with deviation 0.01; biases 1 in the second, fourth and fifth
    convolution and in the hidden fully connected layers, 0 in the others.
    """
    network = AlexNet(two_towers(in_channels), num_classes, in_channels)
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    for number, layer in enumerate(layers, start=1):
        nn.init.normal_(layer.weight, std=0.01)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, 1.0 if number in (2, 4, 5, 6, 7) else 0.0)
    return network


_KRIZHEVSKY = "Krizhevsky, Sutskever, Hinton 2012, NIPS"
RECIPES = {
    "alexnet": {
        "paper": Recipe(
            f"{_KRIZHEVSKY}, sections 4 and 5", "ImageNet",
            {
                **SGD, "batch": 128, "epochs": 90, "lr": 0.01, "weight_decay": 5e-4, "augment": "light",
                "lighting": 0.1,
            },
            ("Krizhevsky", "ILSVRC-2012 validation"),
            (f"{EQUAL_DISTANCES} (three times in about 90 passes)", "its results are for ten crops"),
        ),
        "modern": torchvision_reference(0.01),
    },
}  # fmt: skip
