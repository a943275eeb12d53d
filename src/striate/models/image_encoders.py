"""What turns an image into a grid of vectors, for a decoder to read.

Each is a module with `channels`, the length of its vectors. It turns images `[batch, channel, height,
width]`, and maybe their widths before padding, into vectors `[batch, rows, columns, channels]` and a mask
`[batch, columns]`, True for a column of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from striate import models
from striate.errors import UsageError, unknown_name
from striate.models.layers import check_images
from striate.models.vit import VisionTransformer

Size = tuple[int, int | None]


class Columns(nn.Module):
    """Convolutions that leave one vector for each four columns of pixels.

    As in CRNN (Shi, Bai, Yao 2015, arXiv:1507.05717, section 2.1) the pools become low and wide, so that a
    narrow letter keeps columns of its own. What is right of an image is set to zero after each step, so that
    padding changes nothing.

    Args:
        in_channels: of the images.
        input_size: their height, a multiple of 16, and width, None for any.
        channels: of the four convolutions.
    """

    def __init__(
        self, in_channels: int, input_size: Size, channels: Sequence[int] = (32, 64, 128, 256)
    ) -> None:
        super().__init__()
        height = input_size[0]
        if height % 16:
            raise UsageError(
                f"images of height {height}", "four pools halve it", "Use a multiple of 16 (--imgsz 32)"
            )
        if len(channels) != 4:
            raise UsageError(f"channels={list(channels)}", "there are four convolutions", "Give four numbers")
        self.in_channels, self.height = in_channels, height
        widths = zip((in_channels, *channels), channels, strict=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in channels)
        self.pools = ((2, 2), (2, 2), (2, 1), (2, 1))
        self.channels = channels[-1] * height // 16
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.get_parameter("weight"), mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images `[batch, channel, height, width]` to `[batch, 1, width / 4, channels]` and the mask."""
        check_images(x, self.in_channels, (self.height, x.shape[-1]))
        x, widths = padded(x, widths, 4)
        x = x * mask_of(x, widths)
        for convolution, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x = F.max_pool2d(F.relu(norm(convolution(x))), pool)
            widths = (widths + pool[1] - 1) // pool[1]
            x = x * mask_of(x, widths)
        return x.flatten(1, 2).transpose(1, 2)[:, None], mask_of(x, widths)[:, 0, 0] > 0


class Patches(nn.Module):
    """One vector for each square of pixels, as in ViT.

    Args:
        in_channels: of the images.
        input_size: their height, a multiple of `patch`, and width, None for any.
        patch: side of a square in pixels.
        channels: of a vector.
    """

    def __init__(self, in_channels: int, input_size: Size, patch: int = 8, channels: int = 256) -> None:
        super().__init__()
        if input_size[0] % patch:
            raise UsageError(
                f"images of height {input_size[0]} for patches of {patch}x{patch}",
                "the patches must tile the image",
                f"Use a height in multiples of {patch}",
            )
        self.in_channels, self.height, self.patch, self.channels = in_channels, input_size[0], patch, channels
        self.conv_proj = nn.Conv2d(in_channels, channels, patch, stride=patch)
        nn.init.trunc_normal_(self.conv_proj.weight, std=self.conv_proj.weight[0].numel() ** -0.5)

    def forward(self, x: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images `[batch, channel, height, width]` to `[batch, rows, columns, channels]` and the mask."""
        check_images(x, self.in_channels, (self.height, x.shape[-1]))
        x, widths = padded(x, widths, self.patch)
        x = self.conv_proj(x * mask_of(x, widths))
        widths = (widths + self.patch - 1) // self.patch
        return x.permute(0, 2, 3, 1), mask_of(x, widths)[:, 0, 0] > 0


class Network(nn.Module):
    """A network of the zoo, cut before its classifier: the last maps that still have places.

    Its state dict has the network's own keys under `network.`, so that a trained classifier's weights fit.

    Args:
        name: a key of `striate.models.MODELS`.
        in_channels: of the images.
        input_size: their height and width.
        arguments: of the network.
    """

    def __init__(self, name: str, in_channels: int, input_size: Size, **arguments: Any) -> None:
        super().__init__()
        height, width = input_size
        if width is None:
            raise UsageError(
                f"{name} for images of any width", "it is trained for one size", "Give height and width"
            )
        if models.describe(name).sizes == "argument":
            arguments["input_size"] = [height, width]
        network = models.build(name, in_channels=in_channels, **arguments)
        self.size = (height, width)
        images = torch.zeros(1, in_channels, height, width)
        if isinstance(network, VisionTransformer):
            network.heads = nn.Sequential()
            self.network: nn.Module = network
        else:
            self.network = cut(network, images)
        with torch.no_grad():
            self.channels = self.network.eval()(images).shape[1]
        self.network.train()

    def forward(self, x: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images `[batch, channel, *size]` to `[batch, rows, columns, channels]` and a mask, all True."""
        check_images(x, x.shape[1], self.size)
        if widths is not None and (widths != self.size[1]).any():
            raise UsageError(
                "images padded to one width", "a network of the zoo sees the padding", "Resize them instead"
            )
        x = self._maps(x).permute(0, 2, 3, 1)
        return x, torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)

    def _maps(self, x: Tensor) -> Tensor:
        """`[batch, channels, rows, columns]`."""
        if isinstance(self.network, VisionTransformer):
            tokens = self.network.tokens(x)[:, 1:].transpose(1, 2)
            return tokens.reshape(x.shape[0], self.channels, *self.network.grid)
        return self.network(x)


class _Tracer(fx.Tracer):
    """Follows a network's forward with a stand-in for the images; the check of their shape stays a step."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(check_images,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """A layer without layers is one step, ours as well as torch's."""
        return not any(True for _ in m.children())


def cut(network: nn.Module, images: Tensor) -> fx.GraphModule:
    """The part of a network that ends with the last maps of more than one place.

    Args:
        network: of the zoo; its layers are shared, under their names.
        images: some that it reads.

    Returns:
        A module that gives `[batch, channels, rows, columns]`.
    """
    network.eval()
    module = fx.GraphModule(network, _Tracer().trace(network))
    places = _Places(module)
    with torch.no_grad():
        places.run(images)
    assert places.last is not None, "a network of the zoo has maps"
    output = next(node for node in module.graph.nodes if node.op == "output")
    output.args = (places.last,)
    for node in reversed(module.graph.nodes):
        if node is not output and node.op != "placeholder" and not node.users and node.target != check_images:
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    return module


class _Places(fx.Interpreter):
    """Runs a network and notes the last step that gave maps of more than one place."""

    last: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """The step's answer."""
        answer = super().run_node(n)
        if (
            n.op != "placeholder"
            and isinstance(answer, Tensor)
            and answer.ndim == 4
            and answer[0, 0].numel() > 1
        ):
            self.last = n
        return answer


def padded(x: Tensor, widths: Tensor | None, multiple: int) -> tuple[Tensor, Tensor]:
    """Images padded with zeros to a multiple of columns, and their widths, int64 `[batch]`."""
    if widths is None:
        widths = torch.full((x.shape[0],), x.shape[3], device=x.device)
    return F.pad(x, (0, -x.shape[3] % multiple)), widths


def mask_of(x: Tensor, widths: Tensor) -> Tensor:
    """1 for the columns of an image, 0 for those of its padding: `[batch, 1, 1, columns]`, typed as `x`."""
    columns = torch.arange(x.shape[3], device=x.device)
    return (columns < widths[:, None, None, None]).to(x.dtype)


def image_front(
    name: str, in_channels: int, input_size: Size, **arguments: Any
) -> Columns | Patches | Network:
    """What turns images into vectors, by name: `columns`, `patches`, or a network of the zoo.

    Raises:
        UsageError: there is none of that name, or the arguments do not fit.
    """
    if name in models.MODELS:
        return Network(name, in_channels, input_size, **arguments)
    fronts = {"columns": Columns, "patches": Patches}
    if name not in fronts:
        raise unknown_name("image encoder", name, [*fronts, *models.MODELS])
    try:
        return fronts[name](in_channels, input_size, **arguments)
    except TypeError as error:
        raise UsageError(f"cannot build {name} with {arguments}", str(error)) from error
