"""Operators that move values and compute nothing: views, slices, pieces, joins, choices."""

from __future__ import annotations

from striate.anatomy import sight
from striate.anatomy.field import Taps
from striate.anatomy.rules.call import Call
from striate.anatomy.sight import Axis, Sight


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
    return sight.dropped(seen, [dim], x.ndim)


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
    return [sight.dropped(sight.picked(seen, dim, unit), [dim], x.ndim) for unit in range(x.shape[dim])]


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
