"""Layers and checks that several networks share."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import LayoutError, UsageError


class ResidualBlock(nn.Module):
    """A block with a shortcut and stochastic depth: training drops the other branch at random.

    Huang, Sun, Liu, Sedra, Weinberger 2016, ECCV, arXiv:1603.09382, section 3. As in today's
    dropout, the branch is dropped for each image separately and divided by the probability of keeping it. The
    paper drops it for the whole batch, and multiplies by that probability in evaluation.

    Attributes:
        drop_rate: probability of dropping the branch, from 0 to below 1; `set_drop_path` sets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drop_rate = 0.0

    def drop_path(self, branch: Tensor) -> Tensor:
        """`[batch, ...]` to the same shape; in training, zeros for the images whose branch is dropped."""
        if not self.training or self.drop_rate == 0.0:
            return branch
        kept = torch.rand([branch.shape[0]] + [1] * (branch.ndim - 1), device=branch.device) >= self.drop_rate
        return branch * kept / (1.0 - self.drop_rate)


class SamePadding(nn.Module):
    """TensorFlow's padding `SAME` with a stride: the output has ceil(size / stride) pixels.

    If the number of padded pixels is odd, the right and the bottom get one more than the left and the top.
    The usual symmetric padding places each window one pixel to the left of where the weights expect it.

    Args:
        kernel: of the convolution that follows, which has no padding of its own; at least the stride.
        stride: of that convolution.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def around(self, side: int) -> tuple[int, int]:
        """Number of pixels before and after a side of an image."""
        # (ceil(side / stride) - 1) stride + kernel - side, without a condition on the side
        total = self.kernel - self.stride + (-side) % self.stride
        return total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, h, w]` to the padded `[batch, channels, h', w']`."""
        top, bottom = self.around(x.shape[2])
        left, right = self.around(x.shape[3])
        return F.pad(x, (left, right, top, bottom))


class WeightedOutputs(Protocol):
    """Output in training of a network with auxiliary heads: a tuple of scores, the network's own first."""

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """The weight of each output's loss in their sum; 1 for the first."""

    def __iter__(self) -> Iterator[Tensor]:
        """The scores."""


def weighted_outputs(output: Tensor | WeightedOutputs) -> list[tuple[Tensor, float]]:
    """The scores that a training loss is computed from, each with the weight of its loss.

    Args:
        output: a network's output: scores `[batch, num_classes]`, or a tuple of them with `loss_weights`.

    Returns:
        Pairs of scores and weight. The first is the network's answer, with weight 1.
    """
    if isinstance(output, Tensor):
        return [(output, 1.0)]
    weights = getattr(output, "loss_weights", None)
    if weights is None:
        what = f"the network returns a {type(output).__name__} in training"
        raise UsageError(what, "the loss needs scores [batch, classes]", "Build it without auxiliary heads")
    return list(zip(output, weights, strict=True))


def no_weight_decay(network: nn.Module) -> set[str]:
    """Names of the matrices that networks exempt from weight decay, such as a ViT's positions."""
    found = set()
    for prefix, module in network.named_modules():
        own = getattr(module, "no_weight_decay", ())
        names = own() if callable(own) else own  # in timm it is a method
        found |= {f"{prefix}.{name}" if prefix else name for name in names}
    return found


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Set a network's stochastic depth: the drop rate rises linearly with depth (section 3, equation 4).

    Args:
        network: its block l of L gets the rate l / L * rate.
        rate: of the last block, from 0 to below 1.

    Raises:
        UsageError: the network has no residual blocks, and the rate is not 0.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    if rate and not blocks:
        raise UsageError(f"--drop-path {rate:g}", "this network has no residual blocks", "Omit the option")
    for place, block in enumerate(blocks, start=1):
        block.drop_rate = place / len(blocks) * rate


def set_dropout(network: nn.Module, rate: float) -> None:
    """Set the rate of all dropout layers of a network.

    Raises:
        UsageError: the network has none, and the rate is not 0.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    if rate and not layers:
        raise UsageError(f"--dropout {rate:g}", "this network has no dropout layers", "Omit the option")
    for layer in layers:
        layer.p = rate


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least 0.9 times the argument.

    Howard et al. 2019 and Tan, Le 2019, in the authors' code: how scaled numbers of channels are rounded.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def initialize(network: nn.Module) -> None:
    """Initialize as torchvision's VGG and MobileNetV3: He-normal convolutions, else normal 0.01, zero biases.

    He, Zhang, Ren, Sun 2015, ICCV, arXiv:1502.01852, with the fan-out.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def rename_layers(
    state: Mapping[str, Tensor], names: Mapping[str, str], flattened: Container[str] = ()
) -> dict[str, Tensor]:
    """Rename the layers of a state dict.

    Args:
        state: key -> tensor.
        names: name of a layer in the state dict -> its new name; other layers keep theirs.
        flattened: layers, by their name in the state dict, that are convolutions there and fully connected
            in the result: their weights lose the spatial axes.
    """
    renamed = {}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        flat = layer in flattened and kind == "weight"
        renamed[f"{names.get(layer, layer)}.{kind}"] = tensor.flatten(1) if flat else tensor
    return renamed


def check_images(x: Tensor, channels: int, size: tuple[int, int] | None = None, smallest: int = 1) -> None:
    """Check that a tensor is `[batch, channel, height, width]` and that a network can read its size.

    Args:
        x: input of the network.
        channels: number of channels that the network reads.
        size: height and width, for a network that reads one size only.
        smallest: least height and width that leave a pixel after the network's pools.

    Raises:
        LayoutError: the shape is wrong; the message shows both shapes.
    """
    if not torch.jit.is_scripting():
        _check(x, channels, size, smallest)


def _check(x: Tensor, channels: int, size: tuple[int, int] | None, smallest: int) -> None:
    """The check itself, in a separate function because TorchScript cannot compile our errors."""
    if x.ndim == 4 and x.shape[1] == channels and (size is None or tuple(x.shape[2:]) == size):
        if min(x.shape[2:]) >= smallest:
            return
        raise LayoutError(
            f"an input of shape {list(x.shape)}",
            f"this network's pools leave no pixel of images below {smallest} px",
            f"Resize them to {smallest} or more (it was designed for 224: --imgsz 224)",
        )
    height, width = size or ("height", "width")
    why = f"this network expects [batch, channel, height, width] = [N, {channels}, {height}, {width}]"
    if x.ndim == 4 and x.shape[3] == channels:
        fix = "The channels are last: x.permute(0, 3, 1, 2) moves them to the second axis"
    elif x.ndim == 3 and x.shape[0] == channels:
        fix = "A single image needs a batch axis: x.unsqueeze(0)"
    elif x.ndim == 4 and x.shape[1] == channels:
        fix = (
            f"Resize the images to {height}x{width}, or build the network with input_size={list(x.shape[2:])}"
        )
    else:
        fix = "Reshape the tensor, or build the network with another in_channels"
    raise LayoutError(f"an input of shape {list(x.shape)}", why, fix)
