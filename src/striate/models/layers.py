"""What several networks share."""

from __future__ import annotations

import torch
from torch import Tensor

from striate.errors import LayoutError


def check_images(x: Tensor, channels: int, size: tuple[int, int] | None = None, smallest: int = 1) -> None:
    """Refuse a tensor whose axes are not `[batch, channel, height, width]`.

    Args:
        x: what a network was given.
        channels: how many the network reads.
        size: height and width, for a network that reads one size only.
        smallest: the least height and width of which its pools leave anything, for one that reads many.

    Raises:
        LayoutError: the shape is another one; the message shows both.
    """
    if not torch.jit.is_scripting():
        _check(x, channels, size, smallest)


def _check(x: Tensor, channels: int, size: tuple[int, int] | None, smallest: int) -> None:
    """The check itself, apart since TorchScript compiles no errors of our own."""
    if x.ndim == 4 and x.shape[1] == channels and (size is None or tuple(x.shape[2:]) == size):
        if min(x.shape[2:]) >= smallest:
            return
        raise LayoutError(
            f"an input of shape {list(x.shape)}",
            f"of images below {smallest} px nothing is left after this network's pools",
            f"Resize them to {smallest} or more (--imgsz 224 is what it was made for)",
        )
    height, width = size or ("height", "width")
    why = f"this network reads [batch, channel, height, width] = [N, {channels}, {height}, {width}]"
    if x.ndim == 4 and x.shape[3] == channels:
        fix = "The channels stand last: x.permute(0, 3, 1, 2) puts them second"
    elif x.ndim == 3 and x.shape[0] == channels:
        fix = "A single image needs a batch axis: x.unsqueeze(0)"
    elif x.ndim == 4 and x.shape[1] == channels:
        fix = (
            f"Resize the images to {height}x{width}, or build the network with input_size={list(x.shape[2:])}"
        )
    else:
        fix = "Bring the tensor to that shape, or build the network with another in_channels"
    raise LayoutError(f"an input of shape {list(x.shape)}", why, fix)
