"""How each operator changes receptive fields: the table of rules.

A rule gets a `Call` and returns the receptive fields of the result. Elementwise operators need no entry:
torch tags them as pointwise. Other operators without an entry are reported as untracked, never guessed.
"""

from __future__ import annotations

import torch

from striate.anatomy.rules import layout, values, windows
from striate.anatomy.rules.call import Rule

_NAMES: dict[Rule, str] = {
    values.unchanged: """
        alias detach clone lift lift_fresh contiguous _to_copy lift_fresh_copy native_dropout
        alpha_dropout tril triu native_channel_shuffle channel_shuffle bernoulli
        _native_batch_norm_legit_no_training _batch_norm_no_update
    """,
    values.overwrite: "copy",
    # torch does not tag these as pointwise:
    values.elementwise: """
        hardswish threshold log_sigmoid_forward _prelu_kernel rrelu_with_noise where masked_fill
        embedding _embedding_bag lerp addcmul addcdiv index_put
    """,
    windows.window: """
        convolution convolution_overrideable mkldnn_convolution max_pool1d max_pool2d max_pool3d
        max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d
    """,
    windows.adaptive_pool: """
        _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
        adaptive_max_pool2d adaptive_max_pool3d
    """,
    windows.resize_nearest: "upsample_nearest1d upsample_nearest2d upsample_nearest3d",
    windows.resize_nearest_exact: """
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    """,
    windows.resize_linear: "upsample_linear1d upsample_bilinear2d upsample_trilinear3d",
    windows.resize_cubic: "upsample_bicubic2d",
    windows.pad: """
        constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
        replication_pad2d replication_pad3d
    """,
    layout.reshape: "view _unsafe_view reshape _reshape_alias squeeze unflatten",
    layout.expand: "expand",
    layout.repeat: "repeat",
    layout.permute: "permute",
    layout.transpose: "transpose t",
    layout.unsqueeze: "unsqueeze",
    layout.select: "select",
    layout.slice_: "slice",
    layout.split: "split split_with_sizes unsafe_split unsafe_split_with_sizes",
    layout.unbind: "unbind",
    layout.cat: "cat",
    layout.stack: "stack",
    values.reduce: """
        mean sum amax amin max min prod var std var_mean std_mean logsumexp norm linalg_vector_norm
        argmax argmin any all
    """,
    values.mix: "_softmax _log_softmax _safe_softmax softmax log_softmax cumsum cumprod sort topk",
    values.glu: "glu",
    values.layer_norm: "native_layer_norm _fused_rms_norm rms_norm",
    values.group_norm: "native_group_norm",
    values.batch_norm: """
        native_batch_norm _native_batch_norm_legit cudnn_batch_norm _batch_norm_with_update
    """,
    values.matmul: "mm addmm bmm baddbmm mv dot vdot linear",
    values.attention: """
        scaled_dot_product_attention _scaled_dot_product_flash_attention
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention
        _scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable
    """,
    windows.pixel_shuffle: "pixel_shuffle",
    windows.pixel_unshuffle: "pixel_unshuffle",
    windows.im2col: "im2col",
    windows.unfold: "unfold",
    layout.index: "index index_select",
    layout.roll: "roll",
    layout.flip: "flip",
    layout.as_strided: "as_strided",
    values.independent: """
        zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty
        new_full zero fill empty arange new_empty_strided
    """,
}

RULES: dict[str, Rule] = {name: rule for rule, names in _NAMES.items() for name in names.split()}


def find(func: torch._ops.OpOverload) -> Rule | None:
    """The rule of an operator, or None; an in-place operator has the rule of its out-of-place form."""
    name = func.overloadpacket.__name__
    rule = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if rule is None and torch.Tag.pointwise in func.tags:
        return values.elementwise
    return rule
