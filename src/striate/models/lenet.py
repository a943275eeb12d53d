"""LeNet in its popular form: two convolutions, two max-pools, three fully connected layers.

After LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 86(11), in the form of PyTorch's training tutorial: ReLU, max-pooling, and a second
convolution that reads all maps of the first. `lenet5` is the network of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import check_images
from striate.models.recipe import SGD, Recipe


class LeNet(nn.Module):
    """conv 5x5, pool, conv 5x5, pool, three fully connected layers.

    Args:
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
        input_size: height and width of the images, or one number for both; at least 16.
        widths: channels of the two convolutions: 6 and 16 in the paper, 16 and 32 in the CIFAR-10 demo.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        input_size: int | tuple[int, int] = 32,
        widths: tuple[int, int] = (6, 16),
    ) -> None:
        super().__init__()
        height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
        if min(height, width) < 16:
            raise UsageError(
                f"lenet with images of {height}x{width}",
                "two 5x5 convolutions and two pools leave no pixel of them",
                "Use an input size of 16 or more (--imgsz 32)",
            )
        self.in_channels = in_channels
        self.input_size = (height, width)
        # Each convolution shortens a side by 4 pixels, each pool halves it: 32 -> 28 -> 14 -> 10 -> 5.
        out_h, out_w = (((side - 4) // 2 - 4) // 2 for side in (height, width))
        self.conv1 = nn.Conv2d(in_channels, widths[0], 5)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5)
        self.fc1 = nn.Linear(widths[1] * out_h * out_w, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]`."""
        check_images(x, self.in_channels, self.input_size)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


def lenet(
    num_classes: int = 10,
    in_channels: int = 3,
    input_size: int | tuple[int, int] = 32,
    widths: tuple[int, int] = (6, 16),
) -> LeNet:
    """The small network of PyTorch's tutorial (CIFAR-10: 62,006 parameters)."""
    return LeNet(num_classes, in_channels, input_size, widths)


def arguments_from(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The widths, and the smallest square input that gives `fc1` the number of inputs that it has."""
    shapes = [state[name].shape for name in ("conv1.weight", "conv2.weight", "fc1.weight") if name in state]
    if [len(shape) for shape in shapes] != [4, 4, 2]:
        return [{}]
    widths = [shapes[0][0], shapes[1][0]]
    side = math.isqrt(shapes[2][1] // widths[1])
    if side < 1 or side * side * widths[1] != shapes[2][1]:
        return [{"widths": widths}]
    return [{"widths": widths, "input_size": [4 * side + 12] * 2}]  # ((12 + 4s - 4) / 2 - 4) / 2 = s


_LECUN = "LeCun, Bottou, Bengio, Haffner 1998, Proc. IEEE 86(11)"
RECIPES = {
    "lenet": {
        "paper": Recipe(
            f"{_LECUN}, section III.B", "MNIST",
            {
                **SGD, "momentum": 0.0, "batch": 1, "epochs": 20, "lr": 0.016, "gamma": 0.376,
                "milestones": "0.1,0.25,0.4,0.6", "weight_decay": 0.0, "augment": "none",
            },
            (_LECUN, "MNIST test"),
            (
                "the paper computes a rate for each weight from second derivatives (0.00007 to 0.016 in the "
                "first pass); here all weights have the largest",
                "its rate falls to 0.4, 0.2, 0.1 and 0.02 after 2, 5, 8 and 12 of 20 passes; here it reaches "
                "the same end with one factor",
                "its loss is that of section II.C; here it is the cross-entropy",
            ),
        ),
        "modern": Recipe(
            "Loshchilov, Hutter 2017, arXiv:1608.03983, and 2019, arXiv:1711.05101", "MNIST",
            {
                "opt": "adamw", "batch": 128, "epochs": 20, "lr": 2e-3, "sched": "cosine", "warmup": 0.05,
                "weight_decay": 0.01, "augment": "shift",
            },
            notes=("optimizer and schedule are from the papers, the numbers are this project's",),
        ),
    },
}  # fmt: skip
