"""Rules for operators that compute: elementwise arithmetic, reductions, norms, matrix products, attention."""

from __future__ import annotations

from torch import Tensor

from striate.anatomy import propagation
from striate.anatomy.propagation import Fields, Operand
from striate.anatomy.rules.call import Call


def elementwise(call: Call) -> Fields | None:
    """Arithmetic over all tensors among the arguments, with broadcasting."""
    operands: list[Operand] = []
    for value in call.args.values():
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(tensor, Tensor):
                operands.append((call.fields_of(tensor), tensor.shape))
    return propagation.mask(propagation.broadcast(operands, call.image_size), operands)


def overwrite(call: Call) -> Fields | None:
    """The first argument gets the values of the second."""
    target, source = call.args["self"], call.args["src"]
    operands: list[Operand] = [(None, target.shape), (call.fields_of(source), source.shape)]
    return propagation.broadcast(operands, call.image_size)


def unchanged(call: Call) -> Fields | None:
    """The receptive fields of the first tensor."""
    return call.first()[0]


def reduce(call: Call) -> Fields | None:
    """Sums, means, maxima."""
    fields, x = call.first()
    dims = call.dims()
    fields = propagation.reduce(fields, x.shape, dims, call.image_size)
    return fields if call.args.get("keepdim") else propagation.drop_dims(fields, dims, x.ndim)


def mix(call: Call) -> Fields | None:
    """Softmax, cumulative sums, sorting: every unit along a dimension depends on all others."""
    fields, x = call.first()
    return propagation.mix(fields, call.dims(), x.shape, call.image_size)


def glu(call: Call) -> Fields | None:
    """Gated linear unit: one half of a dimension multiplies the other."""
    fields, _ = call.first()
    return propagation.unknown(fields) if any(call.dim() in axis.dims for axis in fields) else fields


def layer_norm(call: Call) -> Fields | None:
    """Statistics over the last dimensions."""
    fields, x = call.first()
    dims = range(x.ndim - len(call.args["normalized_shape"]), x.ndim)
    return propagation.mix(fields, dims, x.shape, call.image_size)


def group_norm(call: Call) -> Fields | None:
    """Statistics over the feature map of each image."""
    fields, x = call.first()
    return propagation.mix(fields, range(2, x.ndim), x.shape, call.image_size)


def batch_norm(call: Call) -> Fields | None:
    """Scale and shift; with statistics of the batch, every unit depends on the whole feature map."""
    fields, x = call.first()
    batch_statistics = call.args.get("training") or call.args.get("running_mean") is None
    dims = [d for d in range(x.ndim) if d != 1]
    return propagation.mix(fields, dims, x.shape, call.image_size) if batch_statistics else fields


def matmul(call: Call) -> Fields | None:
    """Matrix products, which sum over the inner dimension."""
    tensors = [value for value in call.args.values() if isinstance(value, Tensor)]
    bias = None
    if next(iter(call.args)) in ("self", "input") and len(tensors) == 3:  # addmm, baddbmm
        bias, *tensors = tensors
    a, b = tensors
    left, right = call.fields_of(a), call.fields_of(b)
    operands: list[Operand] = []
    # In attention, the product of scores and values is a global path.
    contract = propagation.reduce if left is None or right is None else propagation.pool
    if left is not None:
        left = contract(left, a.shape, [a.ndim - 1], call.image_size)
        targets: dict[int, int | None] = {} if b.ndim > 1 else {a.ndim - 1: None}
        shape = [*a.shape[:-1], 1][: len(call.out_shape)]
        operands.append((propagation.move_dims(left, targets), shape))
    if right is not None:
        right = contract(right, b.shape, [max(0, b.ndim - 2)], call.image_size)
        operands.append((right, [*b.shape[:-2], 1, b.shape[-1]][-max(1, len(call.out_shape)) :]))
    if bias is not None:
        operands.append((call.fields_of(bias), bias.shape))
    return propagation.unmask(propagation.broadcast(operands, call.image_size))


def attention(call: Call) -> Fields | None:
    """Scaled dot-product attention: each query depends on all keys and values, or on those of its window."""
    query, key, value = (call.args[name] for name in ("query", "key", "value"))
    bias = call.args.get("attn_mask", call.args.get("attn_bias"))
    operands: list[Operand] = [(call.fields_of(query), query.shape)]
    for tensor in (key, value):
        fields = call.fields_of(tensor)
        if fields is not None:
            fields = propagation.pool(fields, tensor.shape, [tensor.ndim - 2], call.image_size)
        operands.append((fields, [*tensor.shape[:-2], 1, tensor.shape[-1]]))
    scores = propagation.broadcast(operands, call.image_size)
    if isinstance(bias, Tensor) and call.fields_of(bias) is None:
        scores = propagation.mask(scores, [(None, bias.shape)])
    return propagation.unmask(scores)


def independent(call: Call) -> Fields | None:
    """A result that does not depend on the values of the arguments."""
    return None
