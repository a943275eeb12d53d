"""Rules for operators that move values without computing: views, slices, concatenation, indexing."""

from __future__ import annotations

from collections.abc import Collection

from striate.anatomy import propagation
from striate.anatomy.propagation import Fields
from striate.anatomy.receptive_fields import IndexMap
from striate.anatomy.rules.call import Call


def reshape(call: Call) -> Fields | None:
    """A new shape with the elements in the same order."""
    fields, x = call.first()
    return propagation.reshape(fields, x.shape, call.out_shape)


def expand(call: Call) -> Fields | None:
    """New dimensions in front, and repetition along dimensions of size 1."""
    fields, x = call.first()
    new = len(call.out_shape) - x.ndim
    for d in range(x.ndim):
        if x.shape[d] != call.out_shape[d + new]:
            fields = propagation.select(fields, d, 0, x.shape)
    return propagation.move_dims(fields, {d: d + new for d in range(x.ndim)})


def repeat(call: Call) -> Fields | None:
    """Copies next to each other: unknown if a dimension along the image is repeated."""
    fields, x = call.first()
    new = len(call.out_shape) - x.ndim
    longer = {d for d in range(x.ndim) if x.shape[d] != call.out_shape[d + new] and x.shape[d] != 1}
    return propagation.unknown(fields) if _run_along(fields, longer) else expand(call)


def permute(call: Call) -> Fields | None:
    """Dimensions in another order."""
    fields, x = call.first()
    order = [d % x.ndim for d in call.args["dims"]]
    return propagation.move_dims(fields, {d: order.index(d) for d in range(x.ndim)})


def transpose(call: Call) -> Fields | None:
    """Two dimensions swapped."""
    fields, x = call.first()
    a, b = (call.args[name] % x.ndim for name in ("dim0", "dim1")) if "dim0" in call.args else (0, x.ndim - 1)
    return propagation.move_dims(fields, {a: b, b: a})


def unsqueeze(call: Call) -> Fields | None:
    """A new dimension of size 1."""
    fields, x = call.first()
    at = call.args["dim"] % (x.ndim + 1)
    return propagation.move_dims(fields, {d: d + (d >= at) for d in range(x.ndim)})


def select(call: Call) -> Fields | None:
    """One unit of a dimension; the dimension is removed."""
    fields, x = call.first()
    dim = call.dim()
    fields = propagation.select(fields, dim, call.args["index"] % x.shape[dim], x.shape)
    return propagation.drop_dims(fields, [dim], x.ndim)


def slice_(call: Call) -> Fields | None:
    """Every step-th unit from a start."""
    fields, x = call.first()
    dim, start, step = call.dim(), call.args["start"] or 0, call.args["step"] or 1
    n = x.shape[dim]
    start = min(n, max(0, start + n if start < 0 else start))
    if (start, step, call.out_shape[dim]) == (0, 1, n):
        return fields
    return propagation.apply(fields, {dim: IndexMap(step, ((start,),))}, x.shape)


def split(call: Call) -> list[Fields | None]:
    """Pieces along a dimension."""
    fields, x = call.first()
    dim = call.dim()
    sizes = call.args["split_sizes"] if "split_sizes" in call.args else call.args["split_size"]
    if isinstance(sizes, int):
        sizes = [sizes] * -(-x.shape[dim] // sizes)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [propagation.apply(fields, {dim: IndexMap(1, ((start,),))}, x.shape) for start in starts]


def unbind(call: Call) -> list[Fields | None]:
    """Each unit of a dimension; the dimension is removed."""
    fields, x = call.first()
    dim = call.dim()
    units = range(x.shape[dim])
    pieces = [propagation.select(fields, dim, unit, x.shape) for unit in units]
    return [propagation.drop_dims(piece, [dim], x.ndim) for piece in pieces]


def cat(call: Call) -> Fields | None:
    """Tensors concatenated along a dimension."""
    tensors = [t for t in call.args["tensors"] if t.shape != (0,)]
    dim = call.args["dim"] % len(call.out_shape)
    return propagation.concatenate([(call.fields_of(t), t.shape) for t in tensors], dim, call.image_size)


def stack(call: Call) -> Fields | None:
    """Tensors stacked along a new dimension."""
    at = call.args["dim"] % len(call.out_shape)
    operands = []
    for t in call.args["tensors"]:
        fields = call.fields_of(t)
        if fields is not None:
            fields = propagation.move_dims(fields, {d: d + (d >= at) for d in range(t.ndim)})
        operands.append((fields, [*t.shape[:at], 1, *t.shape[at:]]))
    return propagation.broadcast(operands, call.image_size)


def index(call: Call) -> Fields | None:
    """Indexing with a tensor: unknown if it indexes a dimension along the image."""
    fields, _ = call.first()
    indices = call.args.get("indices")
    if indices is None:
        dims = [call.dim()]
        flat = True
    else:
        dims = [d for d, tensor in enumerate(indices) if tensor is not None]
        flat = len(dims) == 1 and indices[dims[0]].ndim == 1
    if flat and not _run_along(fields, dims):
        return fields
    return propagation.unknown(fields)


def roll(call: Call) -> Fields | None:
    """Cyclic shifts."""
    fields, x = call.first()
    if not call.args.get("dims"):  # of the flattened tensor
        return propagation.unknown(fields)
    for shift, dim in zip(call.args["shifts"], call.args["dims"], strict=True):
        fields = propagation.roll(fields, dim % x.ndim, shift, x.shape)
    return fields


def flip(call: Call) -> Fields | None:
    """Dimensions in reverse order."""
    fields, x = call.first()
    dims = [d % x.ndim for d in call.args["dims"]]
    maps = {d: IndexMap(-1, ((x.shape[d] - 1,),)) for d in dims}
    return propagation.apply(fields, maps, x.shape)


def as_strided(call: Call) -> Fields | None:
    """Other strides: unknown unless the shape stays, as where torch makes a pooled map channels-last."""
    fields, x = call.first()
    same = tuple(call.out_shape) == tuple(x.shape) and not call.args["storage_offset"]
    dense = all(a == b for a, b, n in zip(call.args["stride"], x.stride(), x.shape, strict=False) if n > 1)
    return fields if same and dense else propagation.unknown(fields)


def _run_along(fields: Fields, dims: Collection[int]) -> bool:
    """Whether any of these dimensions runs along an image axis."""
    return any(dim in dims for axis in fields for dim in axis.dims)
