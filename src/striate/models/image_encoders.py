"""Image encoders: an image becomes a grid of vectors, for a text decoder to read.

Each is a module with `channels`, the length of its vectors. It takes images `[batch, channel, height, width]`
and optionally their widths before padding; it returns vectors `[batch, rows, columns, channels]` and a mask
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
    """Convolutions that leave one vector per four columns of pixels.

    As in CRNN (Shi, Bai, Yao 2015, arXiv:1507.05717, section 2.1), the last pooling layers halve only the
    height, so a narrow letter still spans several columns. Each step sets the padding on the right of an
    image to zero, so padding does not change the result.

    Args:
        in_channels: of the images.
        input_size: height of the images, a multiple of 16, and width, None for any.
        channels: of the four convolutions.
    """

    def __init__(
        self, in_channels: int, input_size: Size, channels: Sequence[int] = (32, 64, 128, 256)
    ) -> None:
        super().__init__()
        height = input_size[0]
        if height % 16:
            raise UsageError(
                f"images of height {height}", "four poolings halve it", "Use a multiple of 16 (--imgsz 32)"
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
        """`[batch, channel, height, width]` -> `[batch, 1, width / 4, channels]` and the mask."""
        check_images(x, self.in_channels, (self.height, x.shape[-1]))
        x, widths = padded(x, widths, 4)
        x = x * mask_of(x, widths)
        for convolution, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            x = F.max_pool2d(F.relu(norm(convolution(x))), pool)
            widths = (widths + pool[1] - 1) // pool[1]
            x = x * mask_of(x, widths)
        return x.flatten(1, 2).transpose(1, 2)[:, None], mask_of(x, widths)[:, 0, 0] > 0


class Patches(nn.Module):
    """One vector per patch, as in ViT.

    Args:
        in_channels: of the images.
        input_size: height of the images, a multiple of `patch`, and width, None for any.
        patch: side of a patch in pixels.
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
        """`[batch, channel, height, width]` -> `[batch, rows, columns, channels]` and the mask."""
        check_images(x, self.in_channels, (self.height, x.shape[-1]))
        x, widths = padded(x, widths, self.patch)
        x = self.conv_proj(x * mask_of(x, widths))
        widths = (widths + self.patch - 1) // self.patch
        return x.permute(0, 2, 3, 1), mask_of(x, widths)[:, 0, 0] > 0


class Network(nn.Module):
    """A network of `MODELS` cut before its classifier, at its last feature maps larger than 1x1.

    State-dict keys are those of the network under `network.`, so the weights of a trained classifier fit.

    Args:
        name: a key of `striate.models.MODELS`.
        in_channels: of the images.
        input_size: height and width of the images.
        arguments: of the network.
    """

    def __init__(self, name: str, in_channels: int, input_size: Size, **arguments: Any) -> None:
        super().__init__()
        height, width = input_size
        if width is None:
            raise UsageError(
                f"{name} for images of any width", "it takes images of one size", "Give height and width"
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
            self.network = cut(network, images, models.describe(name).classifier)
        with torch.no_grad():
            self.channels = self.network.eval()(images).shape[1]
        self.network.train()

    def forward(self, x: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, channel, *size]` -> `[batch, rows, columns, channels]` and a mask, all True."""
        check_images(x, x.shape[1], self.size)
        if widths is not None and (widths != self.size[1]).any():
            raise UsageError(
                "images padded to one width", "this network does not mask the padding", "Resize them instead"
            )
        x = self._feature_maps(x).permute(0, 2, 3, 1)
        return x, torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)

    def _feature_maps(self, x: Tensor) -> Tensor:
        """`[batch, channels, rows, columns]`."""
        if isinstance(self.network, VisionTransformer):
            tokens = self.network.tokens(x)[:, 1:].transpose(1, 2)
            return tokens.reshape(x.shape[0], self.channels, *self.network.grid)
        return self.network(x)


class _Tracer(fx.Tracer):
    """Traces a network symbolically; the check of the images' shape stays one step."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(check_images,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one step: any module without children."""
        return not any(True for _ in m.children())


def cut(network: nn.Module, images: Tensor, classifier: str) -> fx.GraphModule:
    """Cut a network after the last feature maps larger than 1x1 before its classifier.

    Args:
        network: of `MODELS`; the result shares its layers, under their names.
        images: an example input.
        classifier: name of the layer, which can be a 1x1 convolution.

    Returns:
        A module that returns `[batch, channels, rows, columns]`.
    """
    network.eval()
    module = fx.GraphModule(network, _Tracer().trace(network))
    finder = _FeatureMaps(module, classifier)
    with torch.no_grad():
        finder.run(images)
    assert finder.last is not None, "each network of MODELS has feature maps"
    output = next(node for node in module.graph.nodes if node.op == "output")
    output.args = (finder.last,)
    for node in reversed(module.graph.nodes):
        if node is not output and node.op != "placeholder" and not node.users and node.target != check_images:
            module.graph.erase_node(node)
    module.delete_all_unused_submodules()
    module.recompile()
    return module


class _FeatureMaps(fx.Interpreter):
    """Runs a network and finds the last feature maps larger than 1x1 before its classifier."""

    def __init__(self, module: fx.GraphModule, classifier: str) -> None:
        super().__init__(module)
        self.classifier, self.past_classifier = classifier, False
        self.last: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Run one step."""
        result = super().run_node(n)
        is_maps = n.op != "placeholder" and isinstance(result, Tensor) and result.ndim == 4
        self.past_classifier |= n.target == self.classifier
        if is_maps and result[0, 0].numel() > 1 and not self.past_classifier:
            self.last = n
        return result


def padded(x: Tensor, widths: Tensor | None, multiple: int) -> tuple[Tensor, Tensor]:
    """Pad images with zeros to a multiple of columns; also return their widths, int64 `[batch]`."""
    if widths is None:
        widths = torch.full((x.shape[0],), x.shape[3], device=x.device)
    width = (x.shape[3] + multiple - 1) // multiple * multiple  # torch.compile has no % of a size
    return F.pad(x, (0, width - x.shape[3])), widths


def mask_of(x: Tensor, widths: Tensor) -> Tensor:
    """1 for the columns of an image, 0 for its padding: `[batch, 1, 1, columns]` in the dtype of `x`."""
    columns = torch.arange(x.shape[3], device=x.device)
    return (columns < widths[:, None, None, None]).to(x.dtype)


def image_front(
    name: str, in_channels: int, input_size: Size, **arguments: Any
) -> Columns | Patches | Network:
    """Build an image encoder: `columns`, `patches`, or a network of `MODELS`.

    Raises:
        UsageError: unknown name or argument.
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
