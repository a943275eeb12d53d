"""What a whole tensor sees of the image, and how operators pass that on.

A `Sight` has one entry for each axis of the image. The entry names the dimension of the tensor that runs
along that axis, if one does, and what its units see. Squeeze-and-excitation and attention let every unit
see everything; they are noted as `whole`, beside the reach without them, since a field that is always the
whole image says nothing about the convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from striate.anatomy.field import IDENTITY, MAX_PERIOD, Reach, Taps, constant, joined, parted


class Axis(NamedTuple):
    """One axis of the image as a tensor sees it.

    Attributes:
        dim: the tensor's dimension that runs along the axis; None where all its values see the same.
        reach: what each unit along `dim` sees, global paths aside; None where it is not known.
        whole: whether every unit sees the whole axis through a global path.
    """

    dim: int | None
    reach: Reach | None
    whole: bool = False


Sight = tuple[Axis, ...]
Operand = tuple["Sight | None", Sequence[int]]  # with the tensor's shape; None: it does not see the image


def image(ndim: int) -> Sight | None:
    """The sight of the input itself: `[batch, channel, ...]`; None where it has no axes like that."""
    return tuple(Axis(dim, IDENTITY) for dim in range(2, ndim)) if 3 <= ndim <= 5 else None


def unknown(sight: Sight) -> Sight:
    """The same with nothing known of it."""
    return tuple(Axis(None, None, axis.whole) for axis in sight)


def is_known(sight: Sight | None) -> bool:
    """Whether all of it is in closed form."""
    return sight is None or all(axis.reach is not None for axis in sight)


def moved(sight: Sight, places: dict[int, int | None]) -> Sight:
    """The sight where dimension d has become `places[d]`; None: it has gone, and had one unit only."""
    return tuple(
        axis if axis.dim is None else axis._replace(dim=places.get(axis.dim, axis.dim)) for axis in sight
    )


def dropped(sight: Sight, dims: Sequence[int], ndim: int) -> Sight:
    """The sight of a tensor of `ndim` dimensions once `dims`, along which nothing runs any more, are gone."""
    return moved(sight, {d: d - sum(gone < d for gone in dims) for d in range(ndim)})


def through(sight: Sight, dim: int, taps: Taps) -> Sight:
    """The sight after an operator that reads the axis along `dim` through `taps`."""
    return tuple(
        axis._replace(reach=axis.reach.through(taps)) if axis.dim == dim and axis.reach else axis
        for axis in sight
    )


def through_each(sight: Sight, taps: dict[int, Taps]) -> Sight:
    """`through` for several dimensions at once."""
    out: list[Axis] = []
    last: tuple[Reach, Taps, Reach] | None = None  # the axes of square kernels have one reach
    for axis in sight:
        read = taps.get(axis.dim) if axis.dim is not None else None
        if read is not None and axis.reach is not None:
            if last is None or last[0] is not axis.reach or last[1] is not read:
                last = axis.reach, read, axis.reach.through(read)
            axis = Axis(axis.dim, last[2], axis.whole)
        out.append(axis)
    return tuple(out)


def picked(sight: Sight, dim: int, unit: int) -> Sight:
    """The sight of one unit along `dim`; the dimension stays, with size 1 or about to be dropped."""
    return tuple(
        Axis(None, constant(axis.reach.at(unit)), axis.whole) if axis.dim == dim and axis.reach else axis
        for axis in sight
    )


def mixed(sight: Sight, dims: Iterable[int]) -> Sight:
    """The sight where every unit along `dims` comes to see all units, as after softmax or a norm."""
    dims = set(dims)
    return tuple(axis._replace(whole=True) if axis.dim in dims else axis for axis in sight)


def contracted(sight: Sight, shape: Sequence[int], dims: Iterable[int], size: Sequence[int]) -> Sight:
    """The sight where `dims` are summed over.

    Args:
        sight: of the tensor before.
        shape: its shape.
        dims: its dimensions that are summed over; they stay, with size 1.
        size: of the image.
    """
    dims = set(dims)
    out = []
    for axis, pixels in zip(sight, size, strict=True):
        if axis.dim in dims and axis.reach is not None and axis.dim is not None:
            reach = constant(axis.reach.hull(shape[axis.dim]))
            axis = Axis(None, reach, axis.whole or _covers(reach, pixels))
        out.append(axis)
    return tuple(out)


def _covers(reach: Reach, pixels: int) -> bool:
    lo, hi = reach.at(0)
    return lo <= 0 and hi >= pixels - 1


def combined(operands: Sequence[Operand], size: Sequence[int]) -> Sight | None:
    """The sight of an elementwise operator, or of a product, over operands that broadcast.

    Where one operand runs along an axis and another sees the same from everywhere, as the weights that
    squeeze-and-excitation multiplies with, the second is a global path and leaves the reach of the first.

    Args:
        operands: sights and shapes.
        size: of the image.
    """
    seeing = [(sight, shape) for sight, shape in operands if sight is not None]
    if not seeing:
        return None
    first = seeing[0][0]
    if all(sight is first for sight, _ in seeing) and len({len(shape) for _, shape in seeing}) == 1:
        return first
    ndim = max(len(shape) for _, shape in operands)
    result = []
    for index, pixels in enumerate(size):
        axes = []
        for sight, shape in seeing:
            axis, units = sight[index], 1
            if axis.dim is not None:
                units = shape[axis.dim]
                axis = axis._replace(dim=axis.dim + ndim - len(shape))
            axes.append((axis, units))
        result.append(_merged(axes, pixels))
    return tuple(result)


def _merged(axes: Sequence[tuple[Axis, int]], pixels: int) -> Axis:
    """One axis of several operands; each with its number of units along it."""
    whole = any(axis.whole for axis, _ in axes)
    if any(axis.reach is None for axis, _ in axes):
        return Axis(None, None, whole)
    longest = max(units for axis, units in axes)
    leader = next((axis for axis, units in axes if axis.dim is not None and units == longest), axes[0][0])
    reach = leader.reach
    for axis, units in axes:
        if axis is leader or axis.reach is None or reach is None:
            continue
        if axis.dim == leader.dim and units == longest:
            both = reach.union(axis.reach)
            if both is None and longest == 1:  # the pace over the image means nothing for a single unit
                both = constant(reach.at(0)).union(constant(axis.reach.at(0)))
            reach = both
        elif axis.dim is None or units == 1:
            seen = constant(axis.reach.at(0))
            if leader.dim is None or longest == 1:
                reach = constant(reach.at(0)).union(seen)
            elif axis.whole or _covers(seen, pixels):
                whole = True
            else:
                return Axis(None, None, whole)
        else:  # both run along the axis, in two dimensions: the scores of self-attention
            whole = True
    return Axis(leader.dim if reach is not None else None, reach, whole)


def concatenated(operands: Sequence[Operand], dim: int, size: Sequence[int]) -> Sight | None:
    """The sight of tensors joined along `dim`."""
    shifted: list[Operand] = []
    offset = 0
    for sight, shape in operands:
        if sight is not None and offset:
            sight = through(sight, dim, Taps(1, ((-offset,),)))
        offset += shape[dim]
        shifted.append((sight, shape))
    along = [
        index
        for index in range(len(size))
        if any(sight is not None and sight[index].dim == dim for sight, _ in operands)
    ]
    # A class token in front of the patches sees nothing yet; the patches only move by one.
    same = [(s, [1 if i == dim else n for i, n in enumerate(shape)]) for s, shape in shifted]
    if not along:
        return combined(same, size)
    seeing = [(sight, shape) for sight, shape in shifted if sight is not None]
    if len(seeing) == 1:
        return seeing[0][0]
    sight = combined(shifted, size)
    if sight is None or len({s for s, _ in seeing}) == 1:
        return seeing[0][0]
    return tuple(Axis(None, None, axis.whole) if i in along else axis for i, axis in enumerate(sight))


def reshaped(sight: Sight, before: Sequence[int], after: Sequence[int], size: Sequence[int]) -> Sight:
    """The sight of a tensor whose elements, in their order, take another shape."""
    if all(axis.dim is None for axis in sight):
        return sight
    if 0 in before:
        return unknown(sight)
    groups = _groups(before, after)
    return tuple(
        axis if axis.dim is None else _regrouped(axis, before, after, groups, pixels)
        for axis, pixels in zip(sight, size, strict=True)
    )


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of dimensions, before and after, with the same number of elements."""
    groups = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new, left, right = [], [], 1, 1
        if i < len(before):
            old, left, i = [i], before[i], i + 1
        if j < len(after) and (left > 1 or not old or after[j] == 1):
            new, right, j = [j], after[j], j + 1
        while left != right:
            if left < right:
                old, left, i = [*old, i], left * before[i], i + 1
            else:
                new, right, j = [*new, j], right * after[j], j + 1
        groups.append((old, new))
    return groups


def _regrouped(
    axis: Axis,
    before: Sequence[int],
    after: Sequence[int],
    groups: Sequence[tuple[list[int], list[int]]],
    pixels: int,
) -> Axis:
    """One axis of `reshaped`."""
    dim = axis.dim
    assert dim is not None
    if axis.reach is None:
        return Axis(None, None, axis.whole)
    old, new = next(group for group in groups if dim in group[0])
    if before[dim] == 1:
        ones = [j for j in new if after[j] == 1]
        if len(old) == 1 and ones:
            return axis._replace(dim=ones[0])
        return Axis(None, constant(axis.reach.at(0)), axis.whole)
    outer, inner, units = 1, 1, before[dim]
    for i in old:
        outer *= before[i] if i < dim else 1
        inner *= before[i] if i > dim else 1
    new = [j for j in new if after[j] != 1]
    if outer == inner == 1 and len(new) == 1:
        return axis._replace(dim=new[0])
    # First as if all dimensions of the run were joined to one, then part that one again.
    if outer == 1:
        flat: Reach | None = axis.reach.through(Taps(1, ((0,),) * inner)) if inner <= MAX_PERIOD else None
    else:
        flat = joined(axis.reach, units, inner)
    if flat is None:  # channels and pixels in one vector: from here on it sees all that the map saw
        reach = constant(axis.reach.hull(units))
        return Axis(None, reach, axis.whole or _covers(reach, pixels))
    while len(new) > 1:
        rest = 1
        for j in new[1:]:
            rest *= after[j]
        split = parted(flat, rest)
        if split is None:
            return Axis(None, None, axis.whole)
        flat, is_outer = split
        new = new[:1] if is_outer else new[1:]
    return Axis(new[0], flat, axis.whole)
