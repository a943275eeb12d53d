"""What several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from striate.errors import LayoutError, UsageError


class ResidualBlock(nn.Module):
    """A block with a shortcut, whose other branch may be left out in training: stochastic depth.

    Huang, Sun, Liu, Sedra, Weinberger 2016, ECCV, arXiv:1603.09382, section 3. As dropout is done today, each
    image of a batch draws for itself, and a branch that stays is divided by its chance to stay; the paper
    draws once for a batch, and multiplies by that chance in evaluation.

    Attributes:
        drop_rate: chance of the branch to be left out, from 0 to under 1; `set_drop_path` sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drop_rate = 0.0

    def drop_path(self, branch: Tensor) -> Tensor:
        """`[batch, ...]`, the shape unchanged; in training, zeros for the images that are without it."""
        if not self.training or self.drop_rate == 0.0:
            return branch
        kept = torch.rand([branch.shape[0]] + [1] * (branch.ndim - 1), device=branch.device) >= self.drop_rate
        return branch * kept / (1.0 - self.drop_rate)


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Let the chance of a block to be left out rise linearly with its depth (section 3, equation 4).

    Args:
        network: its block l of L gets the chance l / L * rate.
        rate: of the last block, from 0 to under 1.

    Raises:
        UsageError: it has no residual blocks, and the rate is not 0.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    if rate and not blocks:
        raise UsageError(
            f"--drop-path {rate:g}", "this network has no shortcuts beside its blocks", "Leave it out"
        )
    for place, block in enumerate(blocks, start=1):
        block.drop_rate = place / len(blocks) * rate


def set_dropout(network: nn.Module, rate: float) -> None:
    """Give all dropout layers of a network one rate.

    Raises:
        UsageError: it has none, and the rate is not 0.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if rate and not layers:
        raise UsageError(f"--dropout {rate:g}", "this network has no dropout layers", "Leave it out")
    for layer in layers:
        layer.p = rate


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
