"""Rules for operators that read neighboring units: convolutions, pools, resizing, padding, unfolding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from striate.anatomy import propagation, receptive_fields
from striate.anatomy.propagation import Fields
from striate.anatomy.receptive_fields import IndexMap
from striate.anatomy.rules.call import Call, Rule, per_axis


def window(call: Call) -> Fields | None:
    """Convolutions and pools. Channels of a group see all its channels, so only spatial indices matter."""
    fields, x = call.first()
    args = call.args
    if "weight" in args and call.fields_of(args["weight"]) is not None:
        return propagation.unknown(fields)
    kernel, stride, padding, dilation, _ = parameters(args, x.ndim).values()
    count = len(kernel)
    index_map = receptive_fields.transposed_conv if args.get("transposed") else receptive_fields.conv
    first = x.ndim - count
    if "weight" in args and any(first - 1 in axis.dims for axis in fields):
        fields = propagation.reduce(fields, x.shape, [first - 1], call.image_size)
    maps = {first + i: index_map(kernel[i], stride[i], padding[i], dilation[i]) for i in range(count)}
    return propagation.apply(fields, maps, x.shape)


def parameters(args: dict[str, Any], ndim: int) -> dict[str, tuple[int, ...]]:
    """Kernel, stride, padding, dilation and output padding of a convolution or pool, for each image axis."""
    weight = args.get("weight")
    kernel = per_axis(args["kernel_size"], ndim - 2, 1) if weight is None else weight.shape[2:]
    out = {"kernel": tuple(kernel)}
    for name, default in {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}.items():
        value = args.get(name) or (list(kernel) if name == "stride" else None)
        out[name] = tuple(per_axis(value, len(kernel), default))
    return out


def adaptive_pool(call: Call) -> Fields | None:
    """Adaptive pools; a single output unit is a reduction."""
    fields, x = call.first()
    sizes = list(call.args["output_size"])
    for i, after in enumerate(sizes):
        dim = x.ndim - len(sizes) + i
        if after == 1:
            fields = propagation.reduce(fields, x.shape, [dim], call.image_size)
        else:
            index_map = receptive_fields.adaptive_pool(x.shape[dim], after)
            fields = propagation.apply(fields, {dim: index_map}, x.shape)
    return fields


def _resize(index_map: Callable[..., IndexMap], **options: Any) -> Rule:
    """The rule of an interpolation, given the index map of one axis and options of that map."""

    def rule(call: Call) -> Fields | None:
        fields, x = call.first()
        align = {"align_corners": bool(call.args["align_corners"])} if "align_corners" in call.args else {}
        sizes = {dim: (x.shape[dim], call.out_shape[dim]) for dim in range(2, x.ndim)}
        maps = {dim: index_map(*before_after, **align, **options) for dim, before_after in sizes.items()}
        return propagation.apply(fields, maps, x.shape)

    return rule


resize_nearest = _resize(receptive_fields.nearest_resize)
resize_nearest_exact = _resize(receptive_fields.nearest_resize, exact=True)
resize_linear = _resize(receptive_fields.linear_resize)
resize_cubic = _resize(receptive_fields.linear_resize, extra=1)


def pad(call: Call) -> Fields | None:
    """Padding of any kind, which shifts the receptive field; pixels repeated by reflection are ignored."""
    fields, x = call.first()
    amounts = list(call.args["pad"] if "pad" in call.args else call.args["padding"])
    for i in range(0, len(amounts), 2):
        if amounts[i] or amounts[i + 1]:
            index_map = IndexMap(1, ((-amounts[i],),))
            fields = propagation.apply(fields, {x.ndim - 1 - i // 2: index_map}, x.shape)
    return fields


def pixel_shuffle(call: Call) -> Fields | None:
    """Channels become pixels: r neighbors get the same receptive field."""
    fields, x = call.first()
    index_map = IndexMap(1, ((0,),) * call.args["upscale_factor"])
    return propagation.apply(fields, dict.fromkeys((x.ndim - 2, x.ndim - 1), index_map), x.shape)


def pixel_unshuffle(call: Call) -> Fields | None:
    """Pixels become channels."""
    fields, x = call.first()
    r: int = call.args["downscale_factor"]
    index_map = IndexMap(r, (tuple(range(r)),))
    return propagation.apply(fields, dict.fromkeys((x.ndim - 2, x.ndim - 1), index_map), x.shape)


def im2col(call: Call) -> Fields | None:
    """`F.unfold`: the windows of a convolution as one sequence."""
    fields, x = call.first()
    columns = []
    for i, dim in enumerate((x.ndim - 2, x.ndim - 1)):
        k, s, p, d = (call.args[name][i] for name in ("kernel_size", "stride", "padding", "dilation"))
        fields = propagation.apply(fields, {dim: receptive_fields.conv(k, s, p, d)}, x.shape)
        columns.append((x.shape[dim] + 2 * p - d * (k - 1) - 1) // s + 1)
    return propagation.reshape(fields, [*call.out_shape[:-1], *columns], call.out_shape)


def unfold(call: Call) -> Fields | None:
    """`Tensor.unfold`: windows along a dimension, with their content in a new last dimension."""
    fields, x = call.first()
    dim = call.args["dimension"] % x.ndim
    windows = receptive_fields.conv(call.args["size"], call.args["step"])
    return propagation.apply(fields, {dim: windows}, x.shape)
