"""LeNet as it is widely taught: two convolutions, two max-pools, three fully connected layers.

After LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 86(11), in the form of PyTorch's training tutorial: ReLU, max-pooling, every map of the second
convolution seeing every map of the first. The network of the paper itself is `lenet5`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import check_images


class LeNet(nn.Module):
    """conv 5x5, pool, conv 5x5, pool, three fully connected layers.

    Args:
        num_classes: how many scores it gives.
        in_channels: 3 for RGB, 1 for grayscale.
        input_size: height and width of the images, or one number for both; at least 16.
        widths: channels of the two convolutions: 6 and 16 as LeCun's, 16 and 32 in the CIFAR-10 demo.
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
                "after two 5x5 convolutions and two pools nothing is left of them",
                "Use an input size of 16 or more (--imgsz 32)",
            )
        self.in_channels = in_channels
        self.input_size = (height, width)
        # Each convolution takes 4 pixels off a side, each pool halves it: 32 -> 28 -> 14 -> 10 -> 5.
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
