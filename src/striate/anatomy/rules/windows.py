"""Operators that read neighbouring units: convolutions, pools, resizing, padding, windows in a row."""

from __future__ import annotations

from collections.abc import Callable

from striate.anatomy import field, sight
from striate.anatomy.field import Taps
from striate.anatomy.rules.call import Call, per_axis
from striate.anatomy.sight import Sight


def window(call: Call) -> Sight | None:
    """Convolutions and pools. A channel sees all channels of its group, so only other dimensions move."""
    seen, x = call.main()
    args = call.args
    kernel: list[int]
    if "weight" in args:
        kernel = list(args["weight"].shape[2:])
        if call.see(args["weight"]) is not None:
            return sight.unknown(seen)
    else:
        kernel = per_axis(args["kernel_size"], x.ndim - 2, 1)
    count = len(kernel)
    stride = per_axis(args.get("stride") or kernel, count, 1)
    padding = per_axis(args.get("padding"), count, 0)
    dilation = per_axis(args.get("dilation"), count, 1)
    shape = field.transposed if args.get("transposed") else field.window
    if "weight" in args and any(axis.dim == x.ndim - count - 1 for axis in seen):
        seen = sight.contracted(seen, x.shape, [x.ndim - count - 1], call.size)
    first = x.ndim - count
    taps = {first + i: shape(kernel[i], stride[i], padding[i], dilation[i]) for i in range(count)}
    return sight.through_each(seen, taps)


def adaptive_pool(call: Call) -> Sight | None:
    """Adaptive pools; one output unit is a sum over all."""
    seen, x = call.main()
    sizes = list(call.args["output_size"])
    for i, after in enumerate(sizes):
        dim = x.ndim - len(sizes) + i
        if after == 1:
            seen = sight.contracted(seen, x.shape, [dim], call.size)
        else:
            seen = sight.through(seen, dim, field.adaptive(x.shape[dim], after))
    return seen


def resize_nearest(call: Call) -> Sight | None:
    """Nearest-neighbour interpolation."""
    return _resized(call, lambda before, after: field.nearest(before, after))


def resize_nearest_exact(call: Call) -> Sight | None:
    """Nearest-neighbour interpolation that takes the middle."""
    return _resized(call, lambda before, after: field.nearest(before, after, exact=True))


def resize_linear(call: Call) -> Sight | None:
    """Linear, bilinear and trilinear interpolation."""
    align = bool(call.args["align_corners"])
    return _resized(call, lambda before, after: field.linear(before, after, align))


def resize_cubic(call: Call) -> Sight | None:
    """Bicubic interpolation."""
    align = bool(call.args["align_corners"])
    return _resized(call, lambda before, after: field.linear(before, after, align, beyond=1))


def _resized(call: Call, taps: Callable[[int, int], Taps]) -> Sight | None:
    seen, x = call.main()
    for dim in range(2, x.ndim):
        seen = sight.through(seen, dim, taps(x.shape[dim], call.out[dim]))
    return seen


def pad(call: Call) -> Sight | None:
    """Padding of any kind: pixels before the first move the field; what reflection repeats is not counted."""
    seen, x = call.main()
    amounts = list(call.args["pad"] if "pad" in call.args else call.args["padding"])
    for i in range(0, len(amounts), 2):
        if amounts[i]:
            seen = sight.through(seen, x.ndim - 1 - i // 2, Taps(1, ((-amounts[i],),)))
    return seen


def pixel_shuffle(call: Call) -> Sight | None:
    """Channels become pixels: r neighbours see the same."""
    seen, x = call.main()
    r: int = call.args["upscale_factor"]
    for dim in (x.ndim - 2, x.ndim - 1):
        seen = sight.through(seen, dim, Taps(1, ((0,),) * r))
    return seen


def pixel_unshuffle(call: Call) -> Sight | None:
    """Pixels become channels."""
    seen, x = call.main()
    r: int = call.args["downscale_factor"]
    for dim in (x.ndim - 2, x.ndim - 1):
        seen = sight.through(seen, dim, Taps(r, (tuple(range(r)),)))
    return seen


def im2col(call: Call) -> Sight | None:
    """`F.unfold`: windows in a row."""
    seen, x = call.main()
    columns = [1, 1]
    for i in range(2):
        k, s, p, d = (call.args[name][i] for name in ("kernel_size", "stride", "padding", "dilation"))
        seen = sight.through(seen, x.ndim - 2 + i, field.window(k, s, p, d))
        columns[i] = (x.shape[x.ndim - 2 + i] + 2 * p - d * (k - 1) - 1) // s + 1
    return sight.reshaped(seen, [*call.out[:-1], *columns], call.out, call.size)


def unfold(call: Call) -> Sight | None:
    """`Tensor.unfold`: windows along a dimension, their contents in a new one."""
    seen, x = call.main()
    dim = call.args["dimension"] % x.ndim
    return sight.through(seen, dim, field.window(call.args["size"], call.args["step"]))
