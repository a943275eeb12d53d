"""What each operator does to sight: the table of the operators whose rule is known in closed form.

A rule is given a `Call` and returns what the operator's result sees. Elementwise operators need no entry:
torch marks them. An operator that is neither here nor marked is reported as not known, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from striate.anatomy import field, sight
from striate.anatomy.field import Taps
from striate.anatomy.sight import Axis, Sight


@dataclass(slots=True)
class Call:
    """One call of an operator that sees the image.

    Attributes:
        args: the arguments by their names in the operator's schema, defaults included.
        see: what a tensor sees; None for one that does not depend on the image.
        out: shape of the (first) result.
        size: of the image, one number for each axis.
    """

    args: dict[str, Any]
    see: Callable[[Any], Sight | None]
    out: Sequence[int]
    size: Sequence[int]

    def main(self) -> tuple[Sight, Tensor]:
        """The first tensor argument, of which most operators have one, and what it sees."""
        tensor = next(value for value in self.args.values() if isinstance(value, Tensor))
        return self.see(tensor) or (), tensor

    def dim(self, name: str = "dim") -> int:
        """A dimension argument, counted from the front."""
        value: int = self.args[name]
        return value % max(1, self.main()[1].ndim)

    def dims(self) -> list[int]:
        """The argument `dim` as a list, counted from the front; all dimensions where it is empty."""
        ndim = self.main()[1].ndim
        value = self.args.get("dim")
        if value is None or value == []:
            return list(range(ndim))
        return [d % max(1, ndim) for d in (value if isinstance(value, (list, tuple)) else [value])]


Rule = Callable[[Call], "Sight | list[Sight | None] | None"]


def per_axis(value: Any, count: int, default: int) -> list[int]:
    """An argument that has one number for each spatial axis, one for all, or none."""
    values = [default] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        values = [default]
    return values * count if len(values) == 1 else values


def elementwise(call: Call) -> Sight | None:
    """All tensors among the arguments, broadcast."""
    operands = []
    for value in call.args.values():
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                operands.append((call.see(tensor), tensor.shape))
    return sight.combined(operands, call.size)


def overwrite(call: Call) -> Sight | None:
    """The first argument takes the values of the second."""
    target, source = call.args["self"], call.args["src"]
    return sight.combined([(None, target.shape), (call.see(source), source.shape)], call.size)


def same(call: Call) -> Sight | None:
    """Nothing changes, whatever the other arguments see."""
    return call.main()[0]


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
    for i in range(count):
        taps = shape(kernel[i], stride[i], padding[i], dilation[i])
        seen = sight.through(seen, x.ndim - count + i, taps)
    return seen


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


def reshape(call: Call) -> Sight | None:
    """The same elements in another shape."""
    seen, x = call.main()
    return sight.reshaped(seen, x.shape, call.out, call.size)


def expand(call: Call) -> Sight | None:
    """New dimensions in front, and repetition along those of size 1."""
    seen, x = call.main()
    new = len(call.out) - x.ndim
    seen = sight.moved(seen, {d: d + new for d in range(x.ndim)})
    stretched = [d + new for d in range(x.ndim) if x.shape[d] != call.out[d + new]]
    for d in stretched:
        seen = sight.picked(seen, d, 0)
    return seen


def repeat(call: Call) -> Sight | None:
    """Copies side by side: known where the dimensions along the image are not repeated."""
    seen, x = call.main()
    new = len(call.out) - x.ndim
    seen = sight.moved(seen, {d: d + new for d in range(x.ndim)})
    longer = {d + new for d in range(x.ndim) if x.shape[d] != call.out[d + new] and x.shape[d] != 1}
    if any(axis.dim in longer for axis in seen):
        return sight.unknown(seen)
    for d in range(x.ndim):
        if x.shape[d] != call.out[d + new]:
            seen = sight.picked(seen, d + new, 0)
    return seen


def permute(call: Call) -> Sight | None:
    """Dimensions in another order."""
    seen, x = call.main()
    order = [d % x.ndim for d in call.args["dims"]]
    return sight.moved(seen, {d: order.index(d) for d in range(x.ndim)})


def transpose(call: Call) -> Sight | None:
    """Two dimensions change places."""
    seen, x = call.main()
    a, b = (call.args[name] % x.ndim for name in ("dim0", "dim1")) if "dim0" in call.args else (0, x.ndim - 1)
    return sight.moved(seen, {a: b, b: a})


def unsqueeze(call: Call) -> Sight | None:
    """A new dimension of size 1."""
    seen, x = call.main()
    at = call.args["dim"] % (x.ndim + 1)
    return sight.moved(seen, {d: d + (d >= at) for d in range(x.ndim)})


def select(call: Call) -> Sight | None:
    """One unit of a dimension, which goes."""
    seen, x = call.main()
    dim = call.dim()
    seen = sight.picked(seen, dim, call.args["index"] % x.shape[dim])
    return _dropped(seen, [dim], x.ndim)


def slice_(call: Call) -> Sight | None:
    """Every step-th unit from a start."""
    seen, x = call.main()
    dim, start, step = call.dim(), call.args["start"] or 0, call.args["step"] or 1
    n = x.shape[dim]
    start = min(n, max(0, start + n if start < 0 else start))
    if start == 0 and step == 1:
        return seen
    return sight.through(seen, dim, Taps(step, ((start,),)))


def split(call: Call) -> list[Sight | None]:
    """Pieces along a dimension."""
    seen, x = call.main()
    dim = call.dim()
    sizes = call.args["split_sizes"] if "split_sizes" in call.args else call.args["split_size"]
    if isinstance(sizes, int):
        sizes = [sizes] * -(-x.shape[dim] // sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [sight.through(seen, dim, Taps(1, ((start,),))) if start else seen for start in starts]


def unbind(call: Call) -> list[Sight | None]:
    """Each unit of a dimension, which goes."""
    seen, x = call.main()
    dim = call.dim()
    return [_dropped(sight.picked(seen, dim, unit), [dim], x.ndim) for unit in range(x.shape[dim])]


def _dropped(seen: Sight, dims: Sequence[int], ndim: int) -> Sight:
    """The sight once `dims`, along which nothing runs any more, are gone."""
    return sight.moved(seen, {d: d - sum(gone < d for gone in dims) for d in range(ndim)})


def cat(call: Call) -> Sight | None:
    """Tensors side by side."""
    tensors = [t for t in call.args["tensors"] if t.shape != (0,)]
    dim = call.args["dim"] % len(call.out)
    return sight.concatenated([(call.see(t), t.shape) for t in tensors], dim, call.size)


def stack(call: Call) -> Sight | None:
    """Tensors along a new dimension."""
    at = call.args["dim"] % len(call.out)
    operands = []
    for t in call.args["tensors"]:
        seen = call.see(t)
        if seen is not None:
            seen = sight.moved(seen, {d: d + (d >= at) for d in range(t.ndim)})
        operands.append((seen, [*t.shape[:at], 1, *t.shape[at:]]))
    return sight.combined(operands, call.size)


def reduce(call: Call) -> Sight | None:
    """Sums, means, maxima: every unit along the dimensions counts."""
    seen, x = call.main()
    dims = call.dims()
    seen = sight.contracted(seen, x.shape, dims, call.size)
    return seen if call.args.get("keepdim") else _dropped(seen, dims, x.ndim)


def mix(call: Call) -> Sight | None:
    """Softmax, cumulative sums, sorting: all units along a dimension come to see each other."""
    return sight.mixed(call.main()[0], call.dims())


def glu(call: Call) -> Sight | None:
    """One half of a dimension gates the other."""
    seen, _ = call.main()
    return sight.unknown(seen) if any(axis.dim == call.dim() for axis in seen) else seen


def layer_norm(call: Call) -> Sight | None:
    """Statistics over the last dimensions."""
    seen, x = call.main()
    return sight.mixed(seen, range(x.ndim - len(call.args["normalized_shape"]), x.ndim))


def group_norm(call: Call) -> Sight | None:
    """Statistics over the whole map, of this very image."""
    seen, x = call.main()
    return sight.mixed(seen, range(2, x.ndim))


def batch_norm(call: Call) -> Sight | None:
    """A scale and a shift, unless the statistics are those of this very image."""
    seen, x = call.main()
    own = call.args.get("training") or call.args.get("running_mean") is None
    return sight.mixed(seen, [d for d in range(x.ndim) if d != 1]) if own else seen


def product(call: Call) -> Sight | None:
    """Matrix products: the inner dimension is summed over."""
    tensors = [value for value in call.args.values() if isinstance(value, Tensor)]
    bias = None
    if next(iter(call.args)) in ("self", "input") and len(tensors) == 3:  # addmm, baddbmm
        bias, *tensors = tensors
    a, b = tensors
    left, right = call.see(a), call.see(b)
    operands: list[sight.Operand] = []
    if left is not None:
        left = sight.contracted(left, a.shape, [a.ndim - 1], call.size)
        places: dict[int, int | None] = {} if b.ndim > 1 else {a.ndim - 1: None}
        operands.append((sight.moved(left, places), [*a.shape[:-1], 1][: len(call.out)]))
    if right is not None:
        right = sight.contracted(right, b.shape, [max(0, b.ndim - 2)], call.size)
        operands.append((right, [*b.shape[:-2], 1, b.shape[-1]][-max(1, len(call.out)) :]))
    if bias is not None:
        operands.append((call.see(bias), bias.shape))
    return sight.combined(operands, call.size)


def attention(call: Call) -> Sight | None:
    """Scaled dot-product attention: a query stays where it is and sees all keys and values."""
    query = call.args["query"]
    seen = call.see(query)
    others = [s for s in (call.see(call.args["key"]), call.see(call.args["value"])) if s is not None]
    if seen is None:
        return sight.unknown(others[0]) if others else None
    return sight.mixed(seen, range(query.ndim)) if others else seen


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


def pick(call: Call) -> Sight | None:
    """Choosing by index: known along dimensions that do not run along the image."""
    seen, _ = call.main()
    indices = call.args.get("indices")
    if indices is None:
        dims = [call.dim()]
        flat = True
    else:
        dims = [d for d, index in enumerate(indices) if index is not None]
        flat = len(dims) == 1 and indices[dims[0]].ndim == 1
    if flat and not any(axis.dim in dims for axis in seen):
        return seen
    return sight.unknown(seen)


def reorder(call: Call) -> Sight | None:
    """Reversal and rotation: known along dimensions that do not run along the image."""
    seen, x = call.main()
    dims = call.args.get("dims") or range(x.ndim)
    lost = {d % x.ndim for d in dims}
    if any(axis.dim in lost for axis in seen):
        return tuple(Axis(None, None, axis.whole) if axis.dim in lost else axis for axis in seen)
    return seen


def nothing(call: Call) -> Sight | None:
    """A result that does not depend on the values of its arguments."""
    return None


_NAMES: dict[Rule, str] = {
    same: "alias detach clone lift lift_fresh contiguous _to_copy lift_fresh_copy native_dropout "
    "alpha_dropout tril triu native_channel_shuffle channel_shuffle bernoulli",
    overwrite: "copy",
    # torch does not mark these as elementwise:
    elementwise: "hardswish threshold log_sigmoid_forward _prelu_kernel rrelu_with_noise "
    "where masked_fill embedding _embedding_bag lerp addcmul addcdiv index_put",
    window: "convolution convolution_overrideable mkldnn_convolution max_pool1d max_pool2d max_pool3d "
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d",
    adaptive_pool: "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_max_pool2d adaptive_max_pool3d",
    resize_nearest: "upsample_nearest1d upsample_nearest2d upsample_nearest3d",
    resize_nearest_exact: "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d",
    resize_linear: "upsample_linear1d upsample_bilinear2d upsample_trilinear3d",
    resize_cubic: "upsample_bicubic2d",
    pad: "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d",
    reshape: "view _unsafe_view reshape _reshape_alias squeeze unflatten",
    expand: "expand",
    repeat: "repeat",
    permute: "permute",
    transpose: "transpose t",
    unsqueeze: "unsqueeze",
    select: "select",
    slice_: "slice",
    split: "split split_with_sizes unsafe_split unsafe_split_with_sizes",
    unbind: "unbind",
    cat: "cat",
    stack: "stack",
    reduce: "mean sum amax amin max min prod var std var_mean std_mean logsumexp norm linalg_vector_norm "
    "argmax argmin any all",
    mix: "_softmax _log_softmax _safe_softmax softmax log_softmax cumsum cumprod sort topk",
    glu: "glu",
    layer_norm: "native_layer_norm _fused_rms_norm rms_norm",
    group_norm: "native_group_norm",
    batch_norm: "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "cudnn_batch_norm _batch_norm_with_update _batch_norm_no_update",
    product: "mm addmm bmm baddbmm mv dot vdot linear",
    attention: "scaled_dot_product_attention _scaled_dot_product_flash_attention "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable",
    pixel_shuffle: "pixel_shuffle",
    pixel_unshuffle: "pixel_unshuffle",
    im2col: "im2col",
    unfold: "unfold",
    pick: "index index_select",
    reorder: "flip roll",
    nothing: "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty "
    "new_full zero fill empty arange new_empty_strided",
}

RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}


def find(func: torch._ops.OpOverload) -> Rule | None:
    """The rule of an operator; None where there is none. In-place forms have that of the plain one."""
    name = func.overloadpacket.__name__
    plain = name.removesuffix("_")
    rule = RULES.get(name) or RULES.get(plain)
    if rule is batch_norm and name in ("_native_batch_norm_legit_no_training", "_batch_norm_no_update"):
        return same
    if rule is None and torch.Tag.pointwise in func.tags:
        return elementwise
    return rule
