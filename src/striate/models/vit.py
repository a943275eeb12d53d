"""The Vision Transformer: a Transformer encoder that reads an image as a sequence of patches.

Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit,
Houlsby 2021, "An Image is Worth 16x16 Words", ICLR, arXiv:2010.11929, section 3 and table 1; the tiny and
the small variant from Touvron et al. 2021, arXiv:2012.12877, table 1. State dicts have torchvision's keys and
shapes.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import LayoutError, UsageError
from striate.models.layers import check_images
from striate.models.recipe import MIXED, NO_RANDAUGMENT, Recipe
from striate.models.transformer import Encoder

Size = int | tuple[int, int]  # height and width in pixels, or one number for both


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, the encoder, a linear classifier on the class token.

    Args:
        patch: side of a patch in pixels.
        depth: number of encoder layers.
        width: of a token; the feed-forward layers are four times as wide inside.
        heads: number of attention heads.
        num_classes: number of scores.
        in_channels: 3 for RGB, 1 for grayscale.
        input_size: height and width of the images, or one number for both; multiples of `patch`.
        dropout: on the embedded patches and in the encoder's layers, but not on the attention weights.
    """

    stage_containers = ("encoder", "encoder.layers", "heads")
    no_weight_decay = ("class_token", "encoder.pos_embedding")  # as in the code of Touvron et al.
    final_norm = "encoder.ln"

    def __init__(
        self,
        patch: int,
        depth: int,
        width: int,
        heads: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        input_size: Size = 224,
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
        self.grid = (size[0] // patch, size[1] // patch)  # rows and columns of patches
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.conv_proj = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(depth, width, heads, 4 * width, dropout)
        # The encoder does not use the positions, but in torchvision's state dicts they have its prefix.
        positions = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], width))
        self.encoder.register_parameter("pos_embedding", positions)
        head = nn.Linear(width, num_classes)
        self.heads = nn.Sequential(OrderedDict(head=head))
        # As torchvision: patches normal with unit gain, positions normal 0.02, a classifier of zeros.
        nn.init.trunc_normal_(self.conv_proj.weight, std=self.conv_proj.weight[0].numel() ** -0.5)
        nn.init.normal_(positions, std=0.02)
        for parameter in (self.conv_proj.get_parameter("bias"), head.weight, head.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[batch, num_classes]` for images `[batch, channel, height, width]` of `input_size`."""
        return self.heads(self.tokens(x)[:, 0])

    def tokens(self, x: Tensor) -> Tensor:
        """Vectors `[batch, 1 + patches, width]` for the same images: the class token's, then row by row."""
        check_images(x, self.in_channels, self.input_size)
        x = self.conv_proj(x)  # [batch, width, rows, columns]
        x = x.flatten(2).transpose(1, 2)  # [batch, patches, width]
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        # mypy takes an attribute of a module for a module.
        x = self.dropout(x + self.encoder.pos_embedding)  # type: ignore[operator]
        return self.encoder(x)

    def adapt_weights(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Interpolate the positions of weights for square images of another size.

        Returns:
            The state dict, and a note if the positions changed.
        """
        key = "encoder.pos_embedding"
        if key not in state or state[key].shape == self.encoder.get_parameter("pos_embedding").shape:
            return dict(state), []
        rows, columns = self.grid
        positions = interpolate_positions(state[key], self.grid)
        return {**state, key: positions}, [f"{key}: interpolated for {rows}x{columns} patches"]


def interpolate_positions(
    positions: Tensor, grid: tuple[int, int], old_grid: tuple[int, int] | None = None
) -> Tensor:
    """Interpolate position embeddings for another image size (section 3.2), as if they were an image.

    Args:
        positions: `[1, 1 + patches, width]`, the class token's first; any floating dtype.
        grid: rows and columns of patches in the new images; `VisionTransformer.grid`.
        old_grid: the same for the images that the positions were trained on; a square if omitted.

    Returns:
        `[1, 1 + grid[0] * grid[1], width]` in the dtype of `positions`; bicubic, with fixed corners.

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
            "Pass the grid that they were trained on as old_grid",
        )
    class_token, picture = positions[:, :1], positions[:, 1:]
    picture = picture.transpose(1, 2).reshape(1, -1, rows, columns)
    picture = F.interpolate(picture.double(), size=grid, mode="bicubic", align_corners=True)
    picture = picture.flatten(2).transpose(1, 2).to(positions.dtype)
    return torch.cat([class_token, picture], dim=1)


def vit_b_16(num_classes: int = 1000, in_channels: int = 3, input_size: Size = 224) -> VisionTransformer:
    """ViT-Base, patches of 16 px: 86.6 M parameters, 17.6 G multiply-adds at 224."""
    return VisionTransformer(16, 12, 768, 12, num_classes, in_channels, input_size)


def vit_b_32(num_classes: int = 1000, in_channels: int = 3, input_size: Size = 224) -> VisionTransformer:
    """ViT-Base, patches of 32 px: 88.2 M parameters, 4.4 G multiply-adds at 224."""
    return VisionTransformer(32, 12, 768, 12, num_classes, in_channels, input_size)


def vit_l_16(num_classes: int = 1000, in_channels: int = 3, input_size: Size = 224) -> VisionTransformer:
    """ViT-Large, patches of 16 px: 304.3 M parameters, 61.6 G multiply-adds at 224."""
    return VisionTransformer(16, 24, 1024, 16, num_classes, in_channels, input_size)


def vit_ti_16(num_classes: int = 1000, in_channels: int = 3, input_size: Size = 224) -> VisionTransformer:
    """DeiT-Tiny, patches of 16 px: 5.7 M parameters, 1.3 G multiply-adds at 224."""
    return VisionTransformer(16, 12, 192, 3, num_classes, in_channels, input_size)


def vit_s_16(num_classes: int = 1000, in_channels: int = 3, input_size: Size = 224) -> VisionTransformer:
    """DeiT-Small, patches of 16 px: 22.1 M parameters, 4.6 G multiply-adds at 224."""
    return VisionTransformer(16, 12, 384, 6, num_classes, in_channels, input_size)


def arguments_from(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """The square image whose number of patches gives the number of positions."""
    positions, patches = state.get("encoder.pos_embedding"), state.get("conv_proj.weight")
    if positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return [{}]
    side = math.isqrt(positions.shape[1] - 1)
    return [{"input_size": [side * patches.shape[2]] * 2} if side else {}]


_TIMM_NAMES: tuple[tuple[str, str], ...] = (
    (r"^cls_token$", "class_token"),
    (r"^pos_embed$", "encoder.pos_embedding"),
    (r"^patch_embed\.proj\.", "conv_proj."),
    (r"^norm\.", "encoder.ln."),
    (r"^head\.", "heads.head."),
    (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
    (r"(_\d+)\.norm([12])\.", r"\1.ln_\2."),
    (r"(_\d+)\.attn\.qkv\.", r"\1.self_attention.in_proj_"),
    (r"(_\d+)\.attn\.proj\.", r"\1.self_attention.out_proj."),
    (r"(_\d+)\.mlp\.fc1\.", r"\1.mlp.0."),
    (r"(_\d+)\.mlp\.fc2\.", r"\1.mlp.3."),
)
# torchvision before 0.13 named the feed-forward layers; its loader also accepts both forms.
_OLD_NAMES = ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3."))
KNOWN_VARIANTS = {"dist_token": "This is a distilled DeiT, whose second head this network does not have"}


def translate_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]] | None:
    """Rename the tensors of timm's ViT and DeiT, or of torchvision's ViT before version 0.13."""
    if "patch_embed.proj.weight" in state:  # timm also stores queries, keys and values as one matrix
        patterns, notes = _TIMM_NAMES, ["names translated from timm's"]
    elif any(".mlp.linear_1." in name for name in state):
        patterns, notes = _OLD_NAMES, []
    else:
        return None
    renamed = {}
    for name, tensor in state.items():
        for theirs, ours in patterns:
            name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    return renamed, notes


_VIT = "Dosovitskiy et al. 2021, arXiv:2010.11929"
_DEIT = "Touvron et al. 2021, arXiv:2012.12877"
RECIPES = {
    "vit": {
        "paper": Recipe(
            f"{_VIT}, appendix B.1, table 3", "ImageNet",
            {
                "opt": "adamw", "batch": 4096, "epochs": 300, "lr": 3e-3, "sched": "cosine", "warmup": 0.107,
                "weight_decay": 0.3, "dropout": 0.1, "grad_clip": 1.0, "augment": "standard",
            },
            ("Dosovitskiy", "px, trained on ImageNet"),
            ("its results are after fine-tuning at 384 px", "10,000 warm-up steps are 0.107 of all steps"),
        ),
        "modern": Recipe(
            f"{_DEIT}, table 9", "ImageNet",
            {
                "opt": "adamw", "batch": 1024, "epochs": 300, "lr": 1e-3, "sched": "cosine",
                "warmup": 5 / 300, "weight_decay": 0.05, "drop_path": 0.1, **MIXED,
            },
            ("Touvron", "ImageNet validation"),
            (NO_RANDAUGMENT.format("four"), "without repeated augmentation"),
        ),
        "finetune": Recipe(
            "He et al. 2022, arXiv:2111.06377, and their code, FINETUNE.md, ViT-Base", "ImageNet",
            {
                "opt": "adamw", "weights": "imagenet", "batch": 1024, "epochs": 100, "lr": 2e-3,
                "layer_decay": 0.65, "sched": "cosine", "warmup": 5 / 100, "weight_decay": 0.05,
                "drop_path": 0.1, **MIXED,
            },
            notes=(
                "for weights pretrained without labels; weights pretrained with labels need a lower rate and "
                "fewer epochs",
                "ViT-Large: 50 epochs, a rate of 0.004, --layer-decay 0.75, --drop-path 0.2",
                NO_RANDAUGMENT.format("four"),
            ),
        ),
    },
}  # fmt: skip
