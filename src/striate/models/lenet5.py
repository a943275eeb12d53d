"""LeNet-5 as in the paper, with its connection table and its trainable subsampling.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 86(11), section II.B; exactly 60,000 trainable parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import UsageError
from striate.models.layers import check_images
from striate.models.lenet import RECIPES as RECIPES

# Table I: for each map of S2, the maps of C3 that read it: 60 of the 96 possible links.
C3_TABLE = (
    (0, 4, 5, 6, 9, 10, 11, 12, 14, 15),
    (0, 1, 5, 6, 7, 10, 11, 12, 13, 15),
    (0, 1, 2, 6, 7, 8, 11, 13, 14, 15),
    (1, 2, 3, 6, 7, 8, 9, 12, 14, 15),
    (2, 3, 4, 7, 8, 9, 10, 12, 13, 15),
    (3, 4, 5, 8, 9, 10, 11, 13, 14, 15),
)

# The output units compare F6 with stylised 7x12 bitmaps of the characters, drawn here after figure 3.
DIGITS = """
..###.. ...#... ..####. .#####. ....##. ####### ..####. ####### ..###.. ..###..
.#...#. ..##... .#....# #.....# ...#.#. #...... .#....# #.....# .#...#. .#...#.
#.....# .#.#... ......# ......# ...#.#. #...... #...... ......# #.....# #.....#
#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...#... ......# .....#. ..#..#. #.####. #.###.. .....#. .#...#. #.....#
#.....# ...#... .....#. ..###.. .#...#. ##....# ##...#. ....#.. ..###.. .#...##
#.....# ...#... ....#.. .....#. .#...#. ......# #.....# ....#.. .#...#. ..###.#
#.....# ...#... ...#... ......# #....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... ..#.... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...#... .#..... ......# .....#. ......# #.....# ..#.... #.....# ......#
.#...#. ...#... #...... #.....# .....#. #....#. .#...#. ..#.... .#...#. #....#.
..###.. .#####. ####### .#####. .....#. .####.. ..###.. ..#.... ..###.. .####..
"""


def squash(x: Tensor) -> Tensor:
    """1.7159 tanh(2/3 x), which maps 1 to 1 and -1 to -1 (equation 6 and appendix A)."""
    return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of 2x2 neighbors times a trainable coefficient plus a trainable bias, one pair per map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, height, width]` to half the height and width."""
        total = 4 * F.avg_pool2d(x, 2)
        return total * self.weight[:, None, None] + self.bias[:, None, None]


class TableConv2d(nn.Module):
    """A 5x5 convolution in which an output map reads only the input maps that the table links to it."""

    def __init__(self, table: tuple[tuple[int, ...], ...], out_channels: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = len(table), out_channels
        self.pairs = [(out, inp) for inp, row in enumerate(table) for out in row]
        self.links = nn.Buffer(self.constants()["links"], persistent=False)
        self.weight = nn.Parameter(torch.empty(len(self.pairs), 5, 5))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def constants(self) -> dict[str, Tensor]:
        """Buffers that are not saved: the output and the input map of each link, int64 `[2, links]`."""
        return {"links": torch.tensor(self.pairs).T.contiguous()}

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, len(table), height, width]` to `[batch, out_channels, height - 4, width - 4]`."""
        dense = self.weight.new_zeros(self.out_channels, self.in_channels, 5, 5)
        dense = dense.index_put((self.links[0], self.links[1]), self.weight)
        return F.conv2d(x, dense, self.bias)


class RadialBasis(nn.Module):
    """Minus the squared distance of F6 to each class's fixed code of -1 and +1 (equation 7).

    A score is a negative distance, so that the cross-entropy equals the paper's criterion (equation 9). The
    codes are buffers and do not train.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        rows = [line.split() for line in DIGITS.split("\n") if line]
        drawn = ["".join(row[digit] for row in rows) for digit in range(10)]
        codes = torch.tensor([[1.0 if dot == "#" else -1.0 for dot in code] for code in drawn])
        self.codes = nn.Buffer(codes[:num_classes])

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, 84]` to scores `[batch, num_classes]`, at most 0."""
        return -(x[:, None, :] - self.codes).square().sum(dim=2)


class LeNet5(nn.Module):
    """C1, S2, C3, S4, C5, F6 and the output, with the names of the paper's figure 2.

    Args:
        num_classes: up to 10, one for each digit's code.
        in_channels: 1 in the paper.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        if not 2 <= num_classes <= 10:
            raise UsageError(
                f"lenet5 with {num_classes} classes",
                "its output compares F6 with fixed codes for the ten digits",
                "Use lenet, which takes any number of classes",
            )
        self.in_channels = in_channels
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = TableConv2d(C3_TABLE, 16)
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)
        self.f6 = nn.Linear(120, 84)
        self.output = RadialBasis(num_classes)
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, 32, 32]`."""
        check_images(x, self.in_channels, (32, 32))
        x = squash(self.c1(x))  # 6 @ 28x28
        x = squash(self.s2(x))  # 6 @ 14x14
        x = squash(self.c3(x))  # 16 @ 10x10
        x = squash(self.s4(x))  # 16 @ 5x5
        x = squash(self.c5(x))  # 120 @ 1x1
        x = squash(self.f6(x.flatten(1)))  # 84
        return self.output(x)

    def _initialize(self) -> None:
        """Uniform in +-2.4 / fan-in (section II.B, appendix A)."""
        inputs = [sum(out in row for row in C3_TABLE) for out in range(16)]  # S2 maps that a C3 map reads
        c3_bound = torch.tensor([2.4 / (25 * inputs[out]) for row in C3_TABLE for out in row])
        with torch.no_grad():
            for layer in (self.c1, self.c5, self.f6):
                bound = 2.4 / math.prod(layer.weight.shape[1:])
                nn.init.uniform_(layer.weight, -bound, bound)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
            self.c3.weight.uniform_(-1, 1).mul_(c3_bound[:, None, None])


def lenet5(num_classes: int = 10, in_channels: int = 1) -> LeNet5:
    """LeNet-5 of 1998; 60,000 parameters."""
    return LeNet5(num_classes, in_channels)


def arguments_from(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The number of classes, from the output's codes: the classifier F6 has 84 outputs for any number."""
    codes = state.get("output.codes")
    return [{"num_classes": len(codes) if codes is not None and 2 <= len(codes) <= 10 else 10}]
