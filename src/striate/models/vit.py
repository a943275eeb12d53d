"""The Vision Transformer: an image is a sequence of patches, read by a Transformer's encoder.

Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit,
Houlsby 2021, "An Image is Worth 16x16 Words", ICLR, arXiv:2010.11929, section 3 and table 1; the tiny and
the small one from Touvron et al. 2021, arXiv:2012.12877, table 1. State dicts have torchvision's keys and
shapes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import LayoutError, UsageError
from striate.models.layers import check_images
from striate.models.transformer import Encoder


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, the encoder, a linear classifier on the class token.

    Args:
        patch: side of a patch in pixels.
        depth: layers of the encoder.
        width: of a token; four times as wide between the feed-forward layers.
        heads: of the attention.
        num_classes: how many scores it gives.
        in_channels: 3 for RGB, 1 for grayscale.
        input_size: height and width of the images, or one number for both; multiples of `patch`.
        dropout: on the embedded patches and in the encoder's layers; the attention weights have none.
    """

    def __init__(
        self,
        patch: int,
        depth: int,
        width: int,
        heads: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: int | tuple[int, int] = 224,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        size = (input_size, input_size) if isinstance(input_size, int) else (input_size[0], input_size[1])
        if min(size) < patch or size[0] % patch or size[1] % patch:
            raise UsageError(
                f"images of {size[0]}x{size[1]} for patches of {patch}x{patch}",
                "the patches must tile the image",
                f"Use an input size in multiples of {patch} (--imgsz {max(1, size[0] // patch) * patch})",
            )
        self.in_channels = in_channels
        self.input_size = size
        self.grid = (size[0] // patch, size[1] // patch)  # patches in a column and in a row
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.conv_proj = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(depth, width, heads, 4 * width, dropout)
        # The encoder knows of no positions; they bear its name in state dicts, as torchvision has it.
        positions = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], width))
        self.encoder.register_parameter("pos_embedding", positions)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, num_classes)))
        self._initialise()

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]` of `input_size`."""
        return self.heads(self.tokens(x)[:, 0])

    def tokens(self, x: Tensor) -> Tensor:
        """Vectors `[batch, 1 + patches, width]` for the same images: the class token's, then row by row."""
        check_images(x, self.in_channels, self.input_size)
        x = self.conv_proj(x)  # [batch, width, rows, columns]
        x = x.flatten(2).transpose(1, 2)  # [batch, patches, width]
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        # For all that mypy knows, a module's attribute may be a module.
        x = self.dropout(x + self.encoder.pos_embedding)  # type: ignore[operator]
        return self.encoder(x)

    def _initialise(self) -> None:
        """As torchvision: patches normal with unit gain, positions normal 0.02, a classifier of zeros."""
        fan_in = self.conv_proj.weight[0].numel()
        nn.init.trunc_normal_(self.conv_proj.weight, std=fan_in**-0.5)
        nn.init.normal_(self.encoder.get_parameter("pos_embedding"), std=0.02)
        for layer in (self.conv_proj, self.heads.get_submodule("head")):
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.zeros_(self.heads.get_submodule("head").get_parameter("weight"))


def interpolate_positions(
    positions: Tensor, grid: tuple[int, int], old_grid: tuple[int, int] | None = None
) -> Tensor:
    """Positions for images of another size (section 3.2): those of the patches as a picture, resized.

    Args:
        positions: `[1, 1 + patches, width]`, the class token's first; any floating dtype.
        grid: patches in a column and in a row of the new images; `VisionTransformer.grid`.
        old_grid: the same of the images that the positions were made for; a square where left out.

    Returns:
        `[1, 1 + grid[0] * grid[1], width]` in the dtype of `positions`; bicubic, the corners in place.

    Raises:
        LayoutError: the positions do not fill `old_grid`.
    """
    patches = positions.shape[1] - 1
    side = round(patches**0.5)
    rows, columns = old_grid or (side, side)
    if positions.ndim != 3 or rows * columns != patches:
        raise LayoutError(
            f"positions of shape {list(positions.shape)}",
            f"a class token and {rows}x{columns} patches were expected",
            "Name the grid that they were made for as old_grid",
        )
    class_token, picture = positions[:, :1], positions[:, 1:]
    picture = picture.transpose(1, 2).reshape(1, -1, rows, columns)
    picture = F.interpolate(picture.double(), size=grid, mode="bicubic", align_corners=True)
    picture = picture.flatten(2).transpose(1, 2).to(positions.dtype)
    return torch.cat([class_token, picture], dim=1)


def vit_b_16(
    num_classes: int = 1000, in_channels: int = 3, input_size: int | tuple[int, int] = 224
) -> VisionTransformer:
    """ViT-Base, patches of 16 px: 86.6 M parameters, 17.6 G multiply-adds at 224."""
    return VisionTransformer(16, 12, 768, 12, num_classes, in_channels, input_size)


def vit_b_32(
    num_classes: int = 1000, in_channels: int = 3, input_size: int | tuple[int, int] = 224
) -> VisionTransformer:
    """ViT-Base, patches of 32 px: 88.2 M parameters, 4.4 G multiply-adds at 224."""
    return VisionTransformer(32, 12, 768, 12, num_classes, in_channels, input_size)


def vit_l_16(
    num_classes: int = 1000, in_channels: int = 3, input_size: int | tuple[int, int] = 224
) -> VisionTransformer:
    """ViT-Large, patches of 16 px: 304.3 M parameters, 61.6 G multiply-adds at 224."""
    return VisionTransformer(16, 24, 1024, 16, num_classes, in_channels, input_size)


def vit_ti_16(
    num_classes: int = 1000, in_channels: int = 3, input_size: int | tuple[int, int] = 224
) -> VisionTransformer:
    """DeiT's tiny one, patches of 16 px: 5.7 M parameters, 1.3 G multiply-adds at 224."""
    return VisionTransformer(16, 12, 192, 3, num_classes, in_channels, input_size)


def vit_s_16(
    num_classes: int = 1000, in_channels: int = 3, input_size: int | tuple[int, int] = 224
) -> VisionTransformer:
    """DeiT's small one, patches of 16 px: 22.1 M parameters, 4.6 G multiply-adds at 224."""
    return VisionTransformer(16, 12, 384, 6, num_classes, in_channels, input_size)
