"""Rules for operators that move values without computing: views, slices, concatenation, indexing."""

from __future__ import annotations

from striate.anatomy import propagation
from striate.anatomy.propagation import AxisField, Fields
from striate.anatomy.receptive_fields import IndexMap
from striate.anatomy.rules.call import Call


def reshape(call: Call) -> Fields | None:
    """A new shape with the elements in the same order."""
    fields, x = call.first()
    return propagation.reshape(fields, x.shape, call.out_shape, call.image_size)


def expand(call: Call) -> Fields | None:
    """New dimensions in front, and repetition along dimensions of size 1."""
    fields, x = call.first()
    new = len(call.out_shape) - x.ndim
    fields = propagation.move_dims(fields, {d: d + new for d in range(x.ndim)})
    for d in range(x.ndim):
        if x.shape[d] != call.out_shape[d + new]:
            fields = propagation.select(fields, d + new, 0)
    return fields


def repeat(call: Call) -> Fields | None:
    """Copies next to each other: unknown if a dimension along the image is repeated."""
    fields, x = call.first()
    new = len(call.out_shape) - x.ndim
    longer = {d for d in range(x.ndim) if x.shape[d] != call.out_shape[d + new] and x.shape[d] != 1}
    return propagation.unknown(fields) if any(axis.dim in longer for axis in fields) else expand(call)


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
    fields = propagation.select(fields, dim, call.args["index"] % x.shape[dim])
    return propagation.drop_dims(fields, [dim], x.ndim)


def slice_(call: Call) -> Fields | None:
    """Every step-th unit from a start."""
    fields, x = call.first()
    dim, start, step = call.dim(), call.args["start"] or 0, call.args["step"] or 1
    n = x.shape[dim]
    start = min(n, max(0, start + n if start < 0 else start))
    return propagation.apply(fields, {dim: IndexMap(step, ((start,),))})


def split(call: Call) -> list[Fields | None]:
    """Pieces along a dimension."""
    fields, x = call.first()
    dim = call.dim()
    sizes = call.args["split_sizes"] if "split_sizes" in call.args else call.args["split_size"]
    if isinstance(sizes, int):
        sizes = [sizes] * -(-x.shape[dim] // sizes)
    return [propagation.apply(fields, {dim: IndexMap(1, ((sum(sizes[:i]),),))}) for i in range(len(sizes))]


def unbind(call: Call) -> list[Fields | None]:
    """Each unit of a dimension; the dimension is removed."""
    fields, x = call.first()
    dim = call.dim()
    units = range(x.shape[dim])
    return [propagation.drop_dims(propagation.select(fields, dim, unit), [dim], x.ndim) for unit in units]


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
    if flat and not any(axis.dim in dims for axis in fields):
        return fields
    return propagation.unknown(fields)


def reorder(call: Call) -> Fields | None:
    """Flips and rolls: unknown along the dimensions that they reorder."""
    fields, x = call.first()
    dims = {d % x.ndim for d in call.args.get("dims") or range(x.ndim)}
    return tuple(AxisField(None, None, axis.whole_image) if axis.dim in dims else axis for axis in fields)
