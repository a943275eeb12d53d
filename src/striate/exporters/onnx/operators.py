"""Torch's operators as nodes of ONNX (https://onnx.ai/onnx/operators, opset 17).

Each rule appends the nodes of one recorded step to a `Builder`. `OPERATORS` is the table.
"""

from __future__ import annotations

from striate.exporters.onnx import layers, layout, pointwise
from striate.exporters.onnx.builder import Builder, Rule
from striate.exporters.onnx.pointwise import binary, unary
from striate.exporters.onnx.recorder import NO_OPS, Step, UnsupportedError

OPERATORS: dict[str, Rule] = {
    # pointwise
    **{
        op.lower(): unary(op)
        for op in (
            "Abs",
            "Ceil",
            "Cos",
            "Erf",
            "Exp",
            "Floor",
            "Log",
            "Neg",
            "Reciprocal",
            "Relu",
            "Round",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sqrt",
            "Tanh",
        )
    },
    **{
        name: binary(op)
        for name, op in (
            ("add", "Add"),
            ("sub", "Sub"),
            ("mul", "Mul"),
            ("div", "Div"),
            ("maximum", "Max"),
            ("minimum", "Min"),
        )
    },
    **dict.fromkeys(("alias", "clone", "contiguous", "detach", *NO_OPS), pointwise.same),
    **dict.fromkeys(("_to_copy", "to"), pointwise.convert),
    **dict.fromkeys(("clamp", "clamp_max", "clamp_min", "hardtanh", "relu6"), pointwise.clip),
    "addcmul": pointwise.product_and_sum,
    "celu": pointwise.exponential_unit("Celu"),
    "elu": pointwise.exponential_unit("Elu"),
    "gelu": pointwise.gelu,
    "glu": pointwise.glu,
    "hardsigmoid": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": unary("HardSwish"),
    "leaky_relu": pointwise.leaky_relu,
    "log_sigmoid": pointwise.log_sigmoid,
    "log_softmax": pointwise.softmax("LogSoftmax"),
    "masked_fill": pointwise.masked_fill,
    "mish": pointwise.mish,
    "pow": pointwise.power,
    "prelu": pointwise.prelu,
    "rsqrt": pointwise.inverse_root,
    "rsub": pointwise.reverse_subtraction,
    "selu": unary("Selu"),
    "silu": pointwise.silu,
    "softmax": pointwise.softmax("Softmax"),
    "softplus": pointwise.softplus,
    "square": pointwise.square,
    "where": pointwise.where,
    # layers
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), layers.convolution),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), layers.transposed_convolution
    ),
    **dict.fromkeys(("bmm", "matmul", "mm", "mv"), layers.matmul),
    **dict.fromkeys(("addmm", "baddbmm"), layers.sum_and_product),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), layers.pool("AveragePool")),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), layers.pool("MaxPool")),
    "max_pool2d_with_indices": layers.pool("MaxPool"),
    "adaptive_avg_pool1d": layers.adaptive_pool,
    "adaptive_avg_pool2d": layers.adaptive_pool,
    "adaptive_max_pool2d": layers.adaptive_max_pool,
    "batch_norm": layers.batch_norm,
    "group_norm": layers.group_norm,
    "instance_norm": layers.instance_norm,
    "layer_norm": layers.layer_norm,
    "linear": layers.linear,
    "pixel_shuffle": layers.pixel_shuffle,
    "scaled_dot_product_attention": layers.attention,
    **dict.fromkeys(("upsample_bilinear2d", "upsample_nearest2d"), layers.resize),
    # layout
    **dict.fromkeys(
        ("_unsafe_view", "flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view"), layout.reshape
    ),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), layout.split),
    **dict.fromkeys(("constant_pad_nd", "pad"), layout.pad),
    **dict.fromkeys(("permute", "t", "transpose"), layout.permute),
    "amax": layout.reduction("ReduceMax"),
    "amin": layout.reduction("ReduceMin"),
    "cat": layout.concatenate,
    "expand": layout.expand,
    "flip": layout.flip,
    "index": layout.index,
    "index_select": layout.index_select,
    "linalg_vector_norm": layout.norm,
    "mean": layout.reduction("ReduceMean"),
    "repeat": layout.repeat,
    "roll": layout.roll,
    "select": layout.select,
    "slice": layout.part,
    "stack": layout.stack,
    "sum": layout.total,
    "unbind": layout.unbind,
}


def translate(builder: Builder, step: Step) -> None:
    """Append the nodes of a step; raises UnsupportedError."""
    function = OPERATORS.get(step.name)
    if function is None:
        raise UnsupportedError(f"there is no rule for the operator {step.name}")
    try:
        function(builder, step, step.arguments)
    except (AttributeError, KeyError, TypeError) as error:  # a tensor instead of a number, an absent argument
        raise UnsupportedError(f"there is no rule for the arguments of the operator {step.name}") from error
