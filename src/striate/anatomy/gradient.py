"""Receptive fields measured with gradients.

`check` compares them with the closed form; `effective_field` shows how much each pixel contributes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from striate.anatomy.layers import result_of, to_anatomy
from striate.anatomy.receptive_fields import Interval
from striate.anatomy.recorder import Recorder
from striate.anatomy.records import Anatomy, Layer
from striate.anatomy.shape_inference import replace_tensors
from striate.anatomy.tracing import prepare, record, require_memory, restored
from striate.device import standard_settings
from striate.errors import UsageError
from striate.progress import AUTO, Progress

# Elementwise functions and norms: their gradient may be zero inside the receptive field.
STRAIGHT_THROUGH: set[Callable[..., Any]] = {
    F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.sigmoid,
    F.tanh, F.mish, F.batch_norm, F.layer_norm, torch.relu, torch.sigmoid, torch.tanh, Tensor.relu,
    Tensor.sigmoid, Tensor.tanh,
}  # fmt: skip
POOLS: dict[Callable[..., Any], int] = {
    F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3,
    torch.max_pool1d: 1, torch.max_pool2d: 2, torch.max_pool3d: 3,
}  # fmt: skip

POOL_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation")


@dataclass(frozen=True)
class Check:
    """Closed form and measurement for one unit of one layer, along one image axis.

    Attributes:
        layer: its name.
        axis: 0 for rows, 1 for columns.
        unit: index of the unit along that axis.
        expected: first and last pixel by the closed form, clipped to the image; None if it lies outside.
        measured: first and last pixel with a gradient; None if there is none.
        cut: whether the receptive field extends beyond the image, which makes the check weaker.
    """

    layer: str
    axis: int
    unit: int
    expected: Interval | None
    measured: Interval | None
    cut: bool

    @property
    def agrees(self) -> bool:
        """Whether closed form and measurement are equal."""
        return self.expected == self.measured


class _StraightThrough(torch.autograd.Function):
    """The value of a function, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _WholeWindow(torch.autograd.Function):
    """The value of a max-pool, with a gradient for all pixels of each window, not only for the maximum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], window: Any) -> Tensor:
        ctx.shape, ctx.window = x.shape, window
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        kernel, stride, padding, dilation = ctx.window
        (grad,), count, shape = grads, len(kernel), ctx.shape
        conv_transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[count - 1]
        flat = grad.reshape(-1, 1, *grad.shape[2:])
        ones = torch.ones(1, 1, *kernel, dtype=grad.dtype)
        full = conv_transpose(flat, ones, stride=stride, dilation=dilation)
        for axis in range(count):
            missing = padding[axis] + shape[2 + axis] - full.shape[2 + axis]
            if missing > 0:
                full = F.pad(full, [0, 0] * (count - 1 - axis) + [0, missing])
            full = full.narrow(2 + axis, padding[axis], shape[2 + axis])
        return full.reshape(shape), None, None


class _DenseGradients(TorchFunctionMode):
    """Replaces functions so that the gradient is nonzero in the whole receptive field."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in STRAIGHT_THROUGH:
            kwargs.pop("inplace", None)
            x = args[0] if args else kwargs.pop("input")
            if func in (F.relu, F.hardtanh, F.leaky_relu, F.elu):
                args = args[: 1 if func is F.relu else 3]  # drop `inplace`
            return _StraightThrough.apply(x, lambda value: func(value, *args[1:], **kwargs))  # type: ignore[no-untyped-call]
        if func in POOLS and not kwargs.get("return_indices"):
            bound = dict(zip(POOL_ARGUMENTS, args, strict=False)) | kwargs
            size = bound["kernel_size"]
            values = (size, bound.get("stride") or size, bound.get("padding", 0), bound.get("dilation", 1))
            window = [(v,) * POOLS[func] if isinstance(v, int) else tuple(v) for v in values]
            run = lambda value: func(value, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
            return _WholeWindow.apply(args[0], run, window)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


@standard_settings()
def check(
    model: str | nn.Module,
    example: Any = None,
    *,
    size: int | Sequence[int] | None = None,
    progress: Progress = AUTO,
) -> list[Check]:
    """Check the closed form of every distinct receptive field against gradients.

    The network runs in float64 with positive weights; max-pools pass the gradient to their whole window, and
    activations and norms pass it unchanged. So the gradient is zero only outside the receptive field. For
    each layer with a new receptive field, the first, the middle and the last unit are checked.

    Args:
        model: a name of `striate.models.MODELS`, or any module on the CPU.
        example: an image batch `[1, channels, height, width]`, of which only the shape matters; by default
            one that suits the network.
        size: height and width of that image, or one number for both. A larger image clips fewer fields.
        progress: receives one update per layer.

    Returns:
        For each checked layer, three units on each axis.

    Raises:
        UsageError: as for `trace`; also if the network does not read images.
        ResourceError: the results of all layers cannot fit into memory.
    """
    module, name, arguments = prepare(model, example, size, 1)
    image = arguments[0]
    if not isinstance(image, Tensor) or image.ndim != 4:
        raise UsageError(
            f"cannot check the receptive fields of {name}",
            "its input is not an image",
            "Choose a network that reads images",
        )
    # Three images, in double precision.
    require_memory(module, arguments, 3 * 8 / (len(image) * image.element_size()))
    if isinstance(model, str):
        module = prepare(model, example, size, 1, device="cpu")[0]
    x = torch.rand(3, *image.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x + 0.5).requires_grad_()
    with _positive(module), _DenseGradients():
        recorder, anatomy = _computed(module, name, (x, *arguments[1:]))
    distinct: dict[Any, int] = {}
    for index, layer in enumerate(anatomy.layers):
        if layer.is_map and None not in layer.fields:
            distinct.setdefault((layer.fields, layer.map_size, layer.whole_image), index)
    checks: list[Check] = []
    progress.begin("gradients", len(distinct), "layers")
    for index in distinct.values():
        tensor = result_of(recorder, index)
        if tensor is not None and tensor.requires_grad:
            checks += _measure(anatomy.layers[index], tensor, x)
        progress.advance(1)
    progress.end()
    return checks


def _computed(module: nn.Module, name: str, arguments: tuple[Any, ...]) -> tuple[Recorder, Anatomy]:
    """Record a forward pass on real tensors, with gradients."""
    recorder, outputs = record(module, name, arguments, compute=True)
    return recorder, to_anatomy(module, name, arguments[:1], outputs, recorder)


def _measure(layer: Layer, tensor: Tensor, x: Tensor) -> list[Check]:
    """Check the first, the middle and the last unit of a layer, each in its own image of the batch."""
    units = [[0, n // 2, n - 1] for n in layer.map_size]
    seed = torch.zeros_like(tensor)
    for image in range(3):
        _channels_first(seed, layer)[image, :, units[0][image], units[1][image]] = 1
    (gradient,) = torch.autograd.grad(tensor, x, seed, retain_graph=True)
    reached = gradient.abs().sum(dim=1) > 0
    checks = []
    for image in range(3):
        for axis in (0, 1):
            field, pixels, unit = layer.fields[axis], x.shape[2 + axis], units[axis][image]
            assert field is not None
            first, last = (0, pixels - 1) if layer.whole_image else field.at(unit)
            clipped = (max(first, 0), min(last, pixels - 1))
            expected = clipped if clipped[0] <= clipped[1] else None
            seen = reached[image].any(dim=1 - axis).nonzero().flatten()
            measured = (int(seen[0]), int(seen[-1])) if len(seen) else None
            cut = first < 0 or last >= pixels
            checks.append(Check(layer.name or layer.type, axis, unit, expected, measured, cut))
    return checks


def _channels_first(tensor: Tensor, layer: Layer) -> Tensor:
    """The output of a layer that is a map, as a view `[batch, channels, rows, columns]`."""
    (rows,), (columns,) = layer.dims
    return tensor.movedim((rows, columns), (2, 3))


@contextlib.contextmanager
def _positive(module: nn.Module) -> Iterator[None]:
    """Give a module positive float64 weights, which take no memory, until the context ends."""
    made: dict[int, Tensor] = {}

    def positive(part: nn.Module, tensor: Tensor) -> Tensor:
        value = 1.0
        if tensor.ndim > 1:
            # The gradient must not underflow at the corner of the field, which one path reaches, nor overflow
            # in the middle, which all paths reach.
            fan = tensor.shape[0 if isinstance(part, nn.modules.conv._ConvTransposeNd) else 1]
            value = 1 / (fan * math.sqrt(math.prod(tensor.shape[2:])))
        filled = torch.full((), value, dtype=torch.float64).expand(tensor.shape)
        return nn.Parameter(filled, requires_grad=False)

    with restored(module.modules()):
        for part in module.modules():
            holders: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for holder in holders:
                for key, tensor in holder.items():
                    if tensor is not None and tensor.is_floating_point():
                        if id(tensor) not in made:
                            made[id(tensor)] = positive(part, tensor)
                        holder[key] = made[id(tensor)]
        yield


@standard_settings()
def effective_field(
    module: nn.Module, images: Tensor, layer: str | None = None, unit: tuple[int, int] | None = None
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], Layer, tuple[int, int]]:
    """Effective receptive field: how much each pixel contributes to one unit of a layer.

    Luo, Li, Urtasun, Zemel 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks", NeurIPS, arXiv:1701.04128, section 3: the gradient of the unit with respect to the input. Here
    the unit is summed over its channels, and the absolute gradient is summed over colors and averaged over
    the images.

    Args:
        module: with its weights, on the CPU.
        images: float `[batch, channels, height, width]`, normalized as the module expects.
        layer: a name in `Anatomy.layers`; the last feature map by default.
        unit: row and column of the unit; the middle one by default.

    Returns:
        The contributions `[height, width]`, which sum to 1, the layer, and the unit.

    Raises:
        UsageError: there is no such layer or unit, or the layer has no spatial dimensions.
        ResourceError: the results of all layers cannot fit into memory.
    """
    require_memory(module, (images,))
    x = images.detach().clone().requires_grad_()
    with _own_buffers(module):
        recorder, anatomy = _computed(module, type(module).__name__, (x,))
    maps = [i for i, row in enumerate(anatomy.layers) if row.is_map]
    if layer is None and maps:
        index = maps[-1]
    else:
        row = anatomy.layer(layer or "")
        index = max(i for i, other in enumerate(anatomy.layers) if other is row)
    chosen, tensor = anatomy.layers[index], result_of(recorder, index)
    if index not in maps or tensor is None:
        raise UsageError(
            f"no effective receptive field of {chosen.name}",
            "its output has no spatial dimensions",
            "Choose an earlier layer",
        )
    height, width = chosen.map_size
    place = unit if unit is not None else (height // 2, width // 2)
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise UsageError(
            f"no unit {place} in {chosen.name}",
            f"its output is {height} x {width}",
            f"Choose a row from 0 to {height - 1} and a column from 0 to {width - 1}",
        )
    units = _channels_first(tensor, chosen)[:, :, place[0], place[1]]
    (gradient,) = torch.autograd.grad(units.sum(), x)
    heat = gradient.abs().sum(dim=1).mean(dim=0).double().numpy()
    return heat / max(float(heat.sum()), np.finfo(np.float64).tiny), chosen, place


@contextlib.contextmanager
def _own_buffers(module: nn.Module) -> Iterator[None]:
    """Use copies of the buffers until the context ends, for modules that count their calls."""
    with restored(module.modules()):
        for part in module.modules():
            part._buffers.update(replace_tensors(part._buffers, torch.clone))
        yield
