"""EfficientNet-Lite: EfficientNet for phones, without squeeze-and-excitation and with ReLU6.

Tan, Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML,
arXiv:1905.11946, table 1, changed as the authors' page of EfficientNet-Lite says (TensorFlow's repository
tpu, models/official/efficientnet/lite): no squeeze-and-excitation, ReLU6 in place of swish, and a stem and a
head that do not grow with the network. The weights come from TensorFlow, so the padding is TensorFlow's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from striate.device import on_meta
from striate.models.layers import ResidualBlock, SamePadding, check_images, multiple_of_8
from striate.models.recipe import NO_RANDAUGMENT, Recipe


class Stage(NamedTuple):
    """A row of the paper's table 1, stages 2 to 8: MBConv blocks at width 1 and depth 1."""

    expansion: int  # channels inside a block, as a multiple of those of its input
    kernel: int
    stride: int  # of the first block; 1 in the others
    out: int
    blocks: int


STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
STEM, HEAD = 32, 1280  # channels at every width


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    activation: bool = True,
) -> nn.Sequential:
    """Convolution with padding `SAME` and without bias, BatchNorm, and optionally ReLU6."""
    layers: dict[str, nn.Module] = {}
    if stride > 1:
        layers["pad"] = SamePadding(kernel, stride)
    padding = kernel // 2 if stride == 1 else 0  # without a stride, SAME is symmetric
    layers["conv"] = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    layers["norm"] = nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.01)  # TensorFlow's momentum is 0.99
    if activation:
        layers["relu"] = nn.ReLU6()
    return nn.Sequential(OrderedDict(layers))


class MBConv(ResidualBlock):
    """1x1 expand, depthwise, 1x1 project without activation (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, in_channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inside = in_channels * expansion
        layers: dict[str, nn.Module] = {}
        if expansion != 1:
            layers["expand"] = convolution(in_channels, inside, 1)
        layers["depthwise"] = convolution(inside, inside, kernel, stride, groups=inside)
        layers["project"] = convolution(inside, out, 1, activation=False)
        self.block = nn.Sequential(OrderedDict(layers))
        self.residual = stride == 1 and in_channels == out

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, h, w]` to `[batch, out, ceil(h / stride), ceil(w / stride)]`."""
        return x + self.drop_path(self.block(x)) if self.residual else self.block(x)


class EfficientNetLite(nn.Module):
    """A 3x3 convolution of 32 maps, the seven stages, a 1x1 convolution of 1280 maps, the pool, one layer.

    Args:
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
        width: multiplies the channels of the stages, not those of the stem and of the head.
        depth: multiplies the numbers of blocks, rounded up, except those of the first and the last stage.
        dropout: rate before the classifier.
    """

    stage_containers = ("features", "classifier")

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        depth: float = 1.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        stages: list[nn.Module] = [convolution(in_channels, STEM, 3, stride=2)]
        channels = STEM
        for stage in STAGES:
            blocks: list[nn.Module] = []
            fixed = stage in (STAGES[0], STAGES[-1])
            for i in range(stage.blocks if fixed else math.ceil(stage.blocks * depth)):
                out, stride = multiple_of_8(stage.out * width), stage.stride if i == 0 else 1
                blocks.append(MBConv(channels, out, stage.expansion, stage.kernel, stride))
                channels = out
            stages.append(nn.Sequential(*blocks))
        stages.append(convolution(channels, HEAD, 1))
        self.features = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(HEAD, num_classes))
        self._initialize()

    def _initialize(self) -> None:
        """As the authors' code: He-normal by the outputs of each filter.

        Their classifier is uniform up to 1 / sqrt(classes), which for two classes is far too much to learn a
        head from; it starts as that of the other networks here.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                fan_out = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`, any size."""
        check_images(x, self.in_channels)
        x = self.features(x)  # 224 -> 7
        x = self.avgpool(x).flatten(1)
        return self.classifier(x)


def efficientnet_lite0(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """Width 1, depth 1, for 224 px: 4.65 M parameters, 385 M multiply-adds."""
    return EfficientNetLite(num_classes, in_channels)


def efficientnet_lite1(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """Width 1, depth 1.1, for 240 px: 5.42 M parameters, 600 M multiply-adds."""
    return EfficientNetLite(num_classes, in_channels, depth=1.1)


def efficientnet_lite2(num_classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """Width 1.1, depth 1.2, for 260 px: 6.09 M parameters, 860 M multiply-adds."""
    return EfficientNetLite(num_classes, in_channels, width=1.1, depth=1.2, dropout=0.3)


_STEMS = {"_conv_stem.weight": "EfficientNet-PyTorch", "conv_stem.weight": "timm"}  # the first tensor's names
_COUNTER, _CLASSIFIER = ".num_batches_tracked", 2  # the end of a name; number of tensors
_TIMM = (
    "timm's names: taken for its tf_efficientnet_lite, with TensorFlow's padding; weights of its "
    "efficientnet_lite, without it, would answer wrongly"
)


def translate_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]] | None:
    """Rename the tensors of EfficientNet-PyTorch's and of timm's EfficientNet-Lite by their positions.

    Both list the layers in the order of the network, as we do. The classifier may be missing.
    """
    library = next((name for stem, name in _STEMS.items() if stem in state), None)
    if library is None or any("_se_" in name or ".se." in name for name in state):
        return None
    counted = any(name.endswith(_COUNTER) for name in state)
    for build in (efficientnet_lite0, efficientnet_lite1, efficientnet_lite2):
        with on_meta():
            own = build().state_dict()
        names = [name for name in own if counted or not name.endswith(_COUNTER)]
        pairs = list(zip(names, state.items(), strict=False))
        if len(state) in (len(names), len(names) - _CLASSIFIER) and all(
            our.rpartition(".")[2] == their.rpartition(".")[2]
            and (own[our].shape == value.shape or our.startswith(("classifier.", "features.0.conv.")))
            for our, (their, value) in pairs
        ):
            renamed = {our: value for our, (_, value) in pairs}
            return renamed, [_TIMM if library == "timm" else f"names translated from {library}'s"]
    return None


_TAN = "Tan, Le 2019, arXiv:1905.11946"
RECIPES = {
    "efficientnet_lite": {
        "paper": Recipe(
            f"{_TAN}, section 5.2", "ImageNet",
            {
                "opt": "rmsprop", "momentum": 0.9, "batch": 4096, "epochs": 350, "lr": 0.256, "sched": "step",
                "milestones": "1/146", "gamma": 0.97, "warmup": 5 / 350, "weight_decay": 1e-5,
                "label_smoothing": 0.1, "drop_path": 0.2, "augment": "standard", "ema": 0.9999,
            },
            ("TensorFlow", "ImageNet validation"),
            (
                "the recipe of EfficientNet; that of EfficientNet-Lite is not published",
                "the paper does not name epochs, batch, warm-up, label smoothing and the average of the "
                "weights; the batch follows from the rate of the authors' code, which has the others",
                "the rate falls by 3 % every 2.4 epochs; without AutoAugment",
            ),
        ),
        "modern": Recipe(
            "timm, documentation, training scripts: EfficientNet-B0 with RandAugment", "ImageNet",
            {
                "opt": "rmsprop", "momentum": 0.9, "batch": 768, "epochs": 450, "lr": 0.048, "sched": "step",
                "milestones": "1/187", "gamma": 0.97, "warmup": 3 / 450, "weight_decay": 1e-5,
                "dropout": 0.2, "drop_path": 0.2, "augment": "strong", "ema": 0.9999,
            },
            ("timm", "RandAugment"),
            (
                "the recipe of EfficientNet-B0; timm's result is for a network with symmetric padding",
                NO_RANDAUGMENT.format("five"),
            ),
        ),
    },
}  # fmt: skip
