"""Receptive fields measured: what gradients reach, to check the closed form and to see what really counts."""

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

from striate.anatomy.field import Interval
from striate.anatomy.records import Layer
from striate.anatomy.tracing import gather, observe, prepare, result_of
from striate.errors import UsageError
from striate.progress import SILENT, Progress

# Elementwise functions and norms, whose gradient may vanish where the field does not.
PASSED: set[Callable[..., Any]] = {
    F.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.sigmoid,
    F.tanh, F.mish, F.batch_norm, F.layer_norm, torch.relu, torch.sigmoid, torch.tanh, Tensor.relu,
    Tensor.sigmoid, Tensor.tanh,
}  # fmt: skip
POOLS: dict[Callable[..., Any], int] = {
    F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3,
    torch.max_pool1d: 1, torch.max_pool2d: 2, torch.max_pool3d: 3,
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One unit of one layer, on one axis.

    Attributes:
        layer: its name.
        axis: 0 for rows, 1 for columns.
        unit: its place along that axis.
        expected: first and last pixel by the closed form, cut to the image; None: it sees nothing of it.
        measured: first and last pixel that its gradient reaches, likewise.
        cut: whether the image ends inside the field, so that the measurement says less.
    """

    layer: str
    axis: int
    unit: int
    expected: Interval | None
    measured: Interval | None
    cut: bool

    @property
    def agrees(self) -> bool:
        """Whether both say the same; where the image cuts the field, padding may hide a part of it."""
        return self.expected == self.measured


class _Pass(torch.autograd.Function):
    """The value of a function, and the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Spread(torch.autograd.Function):
    """The value of a max-pool, and a gradient for every pixel of its windows: any may be the largest."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], window: Any) -> Tensor:
        ctx.shape, ctx.window = x.shape, window
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        kernel, stride, padding, dilation = ctx.window
        (grad,), count, shape = grads, len(kernel), ctx.shape
        spread = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[count - 1]
        flat = grad.reshape(-1, 1, *grad.shape[2:])
        ones = torch.ones(1, 1, *kernel, dtype=grad.dtype)
        full = spread(flat, ones, stride=stride, dilation=dilation)
        for axis in range(count):
            short = padding[axis] + shape[2 + axis] - full.shape[2 + axis]
            if short > 0:
                full = F.pad(full, [0, 0] * (count - 1 - axis) + [0, short])
            full = full.narrow(2 + axis, padding[axis], shape[2 + axis])
        return full.reshape(shape), None, None


class _Open(TorchFunctionMode):
    """Lets gradients pass wherever the field does."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in PASSED:
            kwargs.pop("inplace", None)
            x = args[0] if args else kwargs.pop("input")
            if func in (F.relu, F.hardtanh, F.leaky_relu, F.elu):
                args = args[: 1 if func is F.relu else 3]  # `inplace` may stand behind
            return _Pass.apply(x, lambda value: func(value, *args[1:], **kwargs))  # type: ignore[no-untyped-call]
        if func in POOLS and not kwargs.get("return_indices"):
            window = _window(POOLS[func], *args, **kwargs)
            run = lambda value: func(value, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
            return _Spread.apply(args[0], run, window)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


def _window(
    count: int,
    _: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *rest: Any,
    **others: Any,
) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation of a pool, one number for each axis."""
    values = (kernel_size, stride or kernel_size, padding, dilation)
    return tuple((v,) * count if isinstance(v, int) else tuple(v) for v in values)


def check(
    model: str | nn.Module,
    example: Any = None,
    *,
    size: int | Sequence[int] | None = None,
    progress: Progress = SILENT,
) -> list[Check]:
    """Hold the closed form of every different receptive field against gradients.

    The network runs in float64 with positive weights, max-pools hand their gradient to the whole window,
    and activations and norms pass theirs on, so that a gradient is zero only where nothing is seen. For each
    layer whose field differs from those before, the first, the middle and the last unit are looked at.

    Args:
        model: a name of `striate.models.MODELS`, or any module on the CPU.
        example: an image batch `[1, channels, height, width]`, of which the shape counts; by default one
            that suits the network.
        size: height and width of that image, or one number for both. The larger, the fewer fields it cuts.
        progress: told of each layer.

    Returns:
        Three units on each axis, for each layer that was looked at.

    Raises:
        UsageError: as `trace`; also where the network reads no images.
    """
    module, name, arguments = prepare(model, example, size, 1, device="cpu")
    image = arguments[0]
    if not isinstance(image, Tensor) or image.ndim != 4:
        raise UsageError(
            f"checking the fields of {name}", "it reads no images", "Give it a network that does"
        )
    x = torch.rand(3, *image.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (x + 0.5).requires_grad_()
    with _positive(module), _Open():
        tracer, outputs = observe(module, name, (x, *arguments[1:]), compute=True)
    anatomy = gather(module, name, (x,), outputs, tracer)
    wanted: dict[Any, int] = {}
    for index, layer in enumerate(anatomy.layers):
        if len(layer.output) == 4 and all(layer.moves) and len(layer.moves) == 2 and None not in layer.reach:
            wanted.setdefault((layer.reach, layer.output[2:], layer.whole), index)
    found: list[Check] = []
    progress.begin("gradients", len(wanted), "layers")
    for index in wanted.values():
        tensor = result_of(tracer, index)
        if tensor is not None and tensor.requires_grad:
            found += _measure(anatomy.layers[index], tensor, x)
        progress.advance(1)
    progress.end()
    return found


def _measure(layer: Layer, tensor: Tensor, x: Tensor) -> list[Check]:
    """The first, the middle and the last unit of a layer, each in its own image of the batch."""
    places = [[0, n // 2, n - 1] for n in layer.output[2:]]
    seed = torch.zeros_like(tensor)
    for image in range(3):
        seed[image, :, places[0][image], places[1][image]] = 1
    (gradient,) = torch.autograd.grad(tensor, x, seed, retain_graph=True)
    reached = gradient.abs().sum(dim=1) > 0
    found = []
    for image in range(3):
        for axis in (0, 1):
            reach, pixels, unit = layer.reach[axis], x.shape[2 + axis], places[axis][image]
            assert reach is not None
            lo, hi = (0, pixels - 1) if layer.whole else reach.at(unit)
            seen = reached[image].any(dim=1 - axis).nonzero().flatten()
            found.append(
                Check(
                    layer.name or layer.type,
                    axis,
                    unit,
                    (max(lo, 0), min(hi, pixels - 1)) if lo <= hi and hi >= 0 and lo < pixels else None,
                    (int(seen[0]), int(seen[-1])) if len(seen) else None,
                    lo < 0 or hi >= pixels,
                )
            )
    return found


@contextlib.contextmanager
def _positive(module: nn.Module) -> Iterator[None]:
    """Give a module positive float64 weights that take no memory, for a while."""
    homes: list[tuple[Any, dict[str, Any]]] = []
    made: dict[int, Tensor] = {}
    for part in module.modules():
        holders: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for holder in holders:
            homes.append((holder, dict(holder)))
            for key, tensor in holder.items():
                if tensor is None or not tensor.is_floating_point():
                    continue
                if id(tensor) not in made:
                    value = 1.0
                    if tensor.ndim > 1:
                        # So that the gradient neither vanishes at the corner of the field, which one path
                        # reaches, nor overflows in the middle, which all do.
                        fan = (
                            tensor.shape[0]
                            if isinstance(part, nn.modules.conv._ConvTransposeNd)
                            else tensor.shape[1]
                        )
                        value = 1 / (fan * math.sqrt(math.prod(tensor.shape[2:])))
                    filled = torch.full((), value, dtype=torch.float64).expand(tensor.shape)
                    made[id(tensor)] = nn.Parameter(filled, requires_grad=False)
                holder[key] = made[id(tensor)]
    try:
        yield
    finally:
        for holder, before in homes:
            holder.clear()
            holder.update(before)


def effective_field(
    module: nn.Module, images: Tensor, layer: str | None = None, unit: tuple[int, int] | None = None
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], Layer, tuple[int, int]]:
    """How much each pixel counts for one unit of a layer: the effective receptive field.

    Luo, Li, Urtasun, Zemel 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural
    Networks", NeurIPS, arXiv:1701.04128, section 3: the gradient of the unit with respect to the input. Here
    that of the sum over its channels, in magnitude, summed over colours and averaged over the images.

    Args:
        module: with its weights, on the CPU.
        images: float `[batch, channels, height, width]`, normalised as the module reads them.
        layer: a name as in `Anatomy.layers`; the last feature map by default.
        unit: row and column of the unit; that in the middle by default.

    Returns:
        The heat `[height, width]` that sums to 1, the layer, and the unit.

    Raises:
        UsageError: no such layer or unit, or one that has no place in the image.
    """
    x = images.detach().clone().requires_grad_()
    with _own_buffers(module):
        tracer, outputs = observe(module, type(module).__name__, (x,), compute=True)
    anatomy = gather(module, type(module).__name__, (x,), outputs, tracer)
    maps = [i for i, row in enumerate(anatomy.layers) if len(row.output) == 4 and any(row.moves)]
    if layer is None and maps:
        index = maps[-1]
    else:
        row = anatomy.layer(layer or "")
        index = max(i for i, other in enumerate(anatomy.layers) if other is row)
    chosen, tensor = anatomy.layers[index], result_of(tracer, index)
    if index not in maps or tensor is None:
        raise UsageError(
            f"the field of {chosen.name}", "its values have no place in the image", "Choose a layer before"
        )
    height, width = chosen.output[2:]
    place = unit if unit is not None else (height // 2, width // 2)
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        raise UsageError(f"unit {place} of {chosen.name}", f"its map is {height} x {width}", "Count from 0")
    (gradient,) = torch.autograd.grad(tensor[:, :, place[0], place[1]].sum(), x)
    heat = gradient.abs().sum(dim=1).mean(dim=0).double().numpy()
    return heat / max(float(heat.sum()), np.finfo(np.float64).tiny), chosen, place


@contextlib.contextmanager
def _own_buffers(module: nn.Module) -> Iterator[None]:
    """Copies of the buffers, for modules that count their calls."""
    homes: list[tuple[Any, dict[str, Any]]] = [(p._buffers, dict(p._buffers)) for p in module.modules()]
    for holder, _ in homes:
        for key, tensor in holder.items():
            holder[key] = tensor.clone() if tensor is not None else None
    try:
        yield
    finally:
        for holder, before in homes:
            holder.update(before)
