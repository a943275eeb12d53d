"""Operators that compute with values: elementwise arithmetic, reductions, norms, products, attention."""

from __future__ import annotations

from torch import Tensor

from striate.anatomy import sight
from striate.anatomy.rules.call import Call
from striate.anatomy.sight import Sight


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


def reduce(call: Call) -> Sight | None:
    """Sums, means, maxima: every unit along the dimensions counts."""
    seen, x = call.main()
    dims = call.dims()
    seen = sight.contracted(seen, x.shape, dims, call.size)
    return seen if call.args.get("keepdim") else sight.dropped(seen, dims, x.ndim)


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


def nothing(call: Call) -> Sight | None:
    """A result that does not depend on the values of its arguments."""
    return None
