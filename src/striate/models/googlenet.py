"""GoogLeNet: Inception blocks, and two auxiliary classifiers that are used only in training.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich 2015, "Going Deeper with
Convolutions", CVPR, arXiv:1409.4842, table 1 and figures 2 and 3.
`googlenet` has torchvision's keys, shapes and numbers: BatchNorm after each convolution instead of response
normalization, a 3x3 kernel instead of 5x5, a 2x2 last max-pool. `googlenet_2014` is the network of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.models.layers import check_images
from striate.models.recipe import REFERENCE_SGD, SGD, Recipe

AUXILIARY_WEIGHT = 0.3  # of each auxiliary loss in the sum (section 5)


class GoogLeNetOutput(NamedTuple):
    """Output in training: scores `[batch, num_classes]` of the network and of its two auxiliary heads."""

    logits: Tensor
    aux1: Tensor
    aux2: Tensor

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weights of the three losses in their sum (section 5)."""
        return 1.0, AUXILIARY_WEIGHT, AUXILIARY_WEIGHT


class Convolution(nn.Module):
    """Convolution, optional BatchNorm, ReLU."""

    def __init__(
        self, batch_norm: bool, in_channels: int, out_channels: int, kernel: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not batch_norm
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, out_channels, h / stride, w / stride]`."""
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Parallel branches (1x1, 3x3, 5x5, pooling), concatenated over the channels (figure 2b).

    Args:
        style: `kernel5` and `batch_norm` of the network.
        in_channels: number of input maps.
        widths: a row of table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
    """

    def __init__(
        self, style: tuple[int, bool], in_channels: int, widths: tuple[int, int, int, int, int, int]
    ) -> None:
        super().__init__()
        kernel5, bn = style
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch1 = Convolution(bn, in_channels, one, 1)
        self.branch2 = nn.Sequential(
            Convolution(bn, in_channels, reduce3, 1), Convolution(bn, reduce3, three, 3)
        )
        self.branch3 = nn.Sequential(
            Convolution(bn, in_channels, reduce5, 1), Convolution(bn, reduce5, five, kernel5)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), Convolution(bn, in_channels, pooled, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, one + three + five + pooled, h, w]`."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    """A small classifier on an intermediate map, which adds a gradient there (section 5)."""

    def __init__(self, batch_norm: bool, in_channels: int, num_classes: int) -> None:
        super().__init__()
        # At 224 px the paper's 5x5 windows with stride 3 turn 14x14 into 4x4; torchvision's pool adapts.
        self.pool = nn.Identity() if batch_norm else nn.AvgPool2d(5, stride=3)
        self.to4x4 = nn.AdaptiveAvgPool2d(4)
        self.conv = Convolution(batch_norm, in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to scores `[batch, num_classes]`."""
        x = self.to4x4(self.pool(x))
        x = self.conv(x).flatten(1)
        x = self.dropout(F.relu(self.fc1(x)))
        return self.fc2(x)


class GoogLeNet(nn.Module):
    """Three convolutions, nine Inception blocks, global average pooling, a linear classifier.

    Args:
        kernel5: size of the kernel that is 5x5 in the paper.
        batch_norm: whether a BatchNorm follows each convolution; else biases and response normalization.
        last_pool: size of the max-pool between 4e and 5a.
        dropout: before the classifier.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
        auxiliary: whether to build the two heads; in evaluation they do not run.
    """

    def __init__(
        self,
        kernel5: int,
        batch_norm: bool,
        last_pool: int,
        dropout: float,
        num_classes: int = 1000,
        in_channels: int = 3,
        auxiliary: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        style = (kernel5, batch_norm)
        # Figure 3 normalizes responses around the first convolutions without constants; these are Caffe's.
        self.norm1 = nn.Identity() if batch_norm else nn.LocalResponseNorm(5)
        self.norm2 = nn.Identity() if batch_norm else nn.LocalResponseNorm(5)
        self.conv1 = Convolution(batch_norm, in_channels, 64, 7, stride=2)  # 224 -> 112
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # 56
        self.conv2 = Convolution(batch_norm, 64, 64, 1)
        self.conv3 = Convolution(batch_norm, 64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # 28
        self.inception3a = Inception(style, 192, (64, 96, 128, 16, 32, 32))
        self.inception3b = Inception(style, 256, (128, 128, 192, 32, 96, 64))
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)  # 14
        self.inception4a = Inception(style, 480, (192, 96, 208, 16, 48, 64))
        self.inception4b = Inception(style, 512, (160, 112, 224, 24, 64, 64))
        self.inception4c = Inception(style, 512, (128, 128, 256, 24, 64, 64))
        self.inception4d = Inception(style, 512, (112, 144, 288, 32, 64, 64))
        self.inception4e = Inception(style, 528, (256, 160, 320, 32, 128, 128))
        self.maxpool4 = nn.MaxPool2d(last_pool, stride=2, ceil_mode=True)  # 7
        self.inception5a = Inception(style, 832, (256, 160, 320, 32, 128, 128))
        self.inception5b = Inception(style, 832, (384, 192, 384, 48, 128, 128))
        self.smallest_for_heads = 15 if batch_norm else 79  # the least size with room for a 5x5 window on 4a
        self.aux1 = Auxiliary(batch_norm, 512, num_classes) if auxiliary else None
        self.aux2 = Auxiliary(batch_norm, 528, num_classes) if auxiliary else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutput:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]` of 15 px or more.

        In training, if the network has auxiliary heads, also their scores.
        """
        heads = self.training and self.aux1 is not None
        check_images(x, self.in_channels, smallest=self.smallest_for_heads if heads else 15)
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.norm2(self.conv3(self.conv2(x)))
        x = self.maxpool2(x)
        x = self.inception3b(self.inception3a(x))
        x = self.inception4a(self.maxpool3(x))
        after_4a = x
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        after_4d = x
        x = self.maxpool4(self.inception4e(x))
        x = self.inception5b(self.inception5a(x))
        x = self.avgpool(x).flatten(1)
        x = self.fc(self.dropout(x))
        if self.training and self.aux1 is not None and self.aux2 is not None:
            return GoogLeNetOutput(x, self.aux1(after_4a), self.aux2(after_4d))
        return x


def match_auxiliary(network: GoogLeNet, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Add or remove the auxiliary heads in a state dict, so that it fits a network.

    Args:
        network: with or without heads.
        state: weights with or without them; keys of heads start with `aux1.` and `aux2.`.

    Returns:
        The state dict, and a sentence about the heads. Heads that the weights lack keep their current values.
    """
    own = {key: value for key, value in network.state_dict().items() if key.startswith(("aux1.", "aux2."))}
    given = {key for key in state if key.startswith(("aux1.", "aux2."))}
    if own and not given:
        return {**state, **own}, "auxiliary heads: not in the weights, so they stay untrained"
    if given and not own:
        kept = {key: value for key, value in state.items() if key not in given}
        return kept, "auxiliary heads: removed, the network has none"
    return dict(state), "auxiliary heads: loaded" if own else "auxiliary heads: in neither"


def googlenet(num_classes: int = 1000, in_channels: int = 3, auxiliary: bool = True) -> GoogLeNet:
    """torchvision's: 6.6 M parameters (13.0 M with the heads), 1.5 G multiply-adds at 224.

    Initial weights as torchvision: normal with deviation 0.01 (it truncates at 200 deviations, which has no
    effect). Its trained weights expect images normalized with mean 0.5 and deviation 0.5; torchvision
    normalizes inside its network, this one does not.
    """
    network = GoogLeNet(3, True, 2, 0.2, num_classes, in_channels, auxiliary)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
    return network


def googlenet_2014(num_classes: int = 1000, in_channels: int = 3, auxiliary: bool = True) -> GoogLeNet:
    """The paper's network; 6,998,552 parameters without the auxiliary heads.

    The paper does not specify initial weights. These follow Caffe's reproduction: Glorot-uniform, biases 0.2
    in the convolutions and 0 in the fully connected layers.
    """
    network = GoogLeNet(5, False, 3, 0.4, num_classes, in_channels, auxiliary)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.2 if isinstance(layer, nn.Conv2d) else 0.0)
    return network


def arguments_from(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Whether the weights have auxiliary heads."""
    return [{"auxiliary": any(name.startswith(("aux1.", "aux2.")) for name in state)}]


_SZEGEDY = "Szegedy et al. 2015, arXiv:1409.4842"
RECIPES = {
    "googlenet": {
        "paper": Recipe(
            f"{_SZEGEDY}, section 6", "ImageNet",
            {
                **SGD, "batch": 32, "epochs": 248, "lr": 0.01, "milestones": "1/31", "gamma": 0.96,
                "weight_decay": 2e-4, "augment": "standard", "ema": 0.9999,
            },
            ("Szegedy", "one crop"),
            (
                "the paper gives a rate 4 % lower every 8 epochs, momentum 0.9 and Polyak averaging; rate, "
                "batch, epochs and weight decay are BVLC's (Caffe, models/bvlc_googlenet/solver.prototxt), "
                "and the decay of the averaging is this project's",
                "without the photometric distortions of Howard 2013; synchronous",
            ),
        ),
        "modern": Recipe(
            "He et al. 2019, arXiv:1812.01187, sections 3.1 and 5", "ImageNet",
            {
                **REFERENCE_SGD, "epochs": 200, "lr": 0.1, "nesterov": True, "sched": "cosine",
                "warmup": 5 / 200, "label_smoothing": 0.1, "mixup": 0.2,
            },
            notes=(
                "the paper trains with batches of 1024 and a higher rate",
                "it has no result for GoogLeNet; torchvision's weights were ported, not trained",
            ),
        ),
    },
}  # fmt: skip
