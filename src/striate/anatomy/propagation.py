"""Receptive fields of whole tensors, and how reshaping, reductions, broadcasting and the like change them.

`Fields` has one entry for each image axis. It names the tensor dimension that runs along that axis, if there
is one, and the receptive field of its units. Squeeze-and-excitation and attention make every unit depend on
the whole image. Such global paths only set the flag `whole_image`; the receptive field is stored without
them, because one that always equals the image says nothing about the convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from striate.anatomy import axes, merging
from striate.anatomy.axes import AxisField
from striate.anatomy.receptive_fields import (
    EMPTY,
    MAX_PERIOD,
    ONE_PIXEL,
    SAME_INDEX,
    IndexMap,
    ReceptiveField,
    constant,
)

Fields = tuple[AxisField, ...]
Operand = tuple["Fields | None", Sequence[int]]  # with the tensor's shape; None: independent of the image


def input_fields(ndim: int) -> Fields | None:
    """Fields of the input image `[batch, channels, ...]`; None for other numbers of dimensions."""
    return tuple(AxisField(dim, ONE_PIXEL) for dim in range(2, ndim)) if 3 <= ndim <= 5 else None


def unknown(fields: Fields) -> Fields:
    """Fields of a tensor with unknown receptive field."""
    return tuple(axes.unknown_axis(axis.whole_image) for axis in fields)


def is_known(fields: Fields | None) -> bool:
    """Whether the receptive field is known along all axes."""
    return fields is None or all(axis.field is not None for axis in fields)


def move_dims(fields: Fields, targets: dict[int, int | None]) -> Fields:
    """Renumber tensor dimensions: d becomes `targets[d]`; None if it had size 1 and is removed."""
    out = []
    for axis in fields:
        if axis.dim is not None:
            axis = axis._replace(dim=targets.get(axis.dim, axis.dim))
        elif axis.digits:
            places = [targets.get(digit.dim, digit.dim) for digit in axis.digits]
            digits = [
                digit._replace(dim=dim)
                for digit, dim in zip(axis.digits, places, strict=True)
                if dim is not None
            ]
            axis = axis._replace(digits=tuple(sorted(digits, key=lambda digit: (digit.dim, -digit.inner))))
        out.append(axis)
    return tuple(out)


def drop_dims(fields: Fields, dims: Sequence[int], ndim: int) -> Fields:
    """Remove `dims`, none of which runs along an image axis, from a tensor of `ndim` dimensions."""
    return move_dims(fields, {d: d - sum(gone < d for gone in dims) for d in range(ndim)})


def apply(fields: Fields, index_maps: dict[int, IndexMap], shape: Sequence[int]) -> Fields:
    """Fields after an operator that reads its input, of this shape, through one index map per dimension."""
    out: list[AxisField] = []
    last: tuple[ReceptiveField, IndexMap, ReceptiveField] | None = None
    for axis in fields:
        if (axis.digits or axis.roll is not None) and any(
            index_maps.get(dim, SAME_INDEX) != SAME_INDEX for dim in axis.dims
        ):
            axis = axes.in_order(axis, shape)
        index_map = index_maps.get(axis.dim) if axis.dim is not None else None
        if index_map is not None and axis.field is not None:
            # Compute the two axes of a square kernel once.
            if last is None or last[0] is not axis.field or last[1] is not index_map:
                last = axis.field, index_map, axis.field.through(index_map)
            axis = AxisField(axis.dim, last[2], axis.whole_image)
        out.append(axis)
    return tuple(out)


def select(fields: Fields, dim: int, index: int, shape: Sequence[int]) -> Fields:
    """Keep one index along `dim`; the dimension stays, with size 1."""
    return tuple(axes.selected(axis, dim, index, shape) for axis in fields)


def roll(fields: Fields, dim: int, by: int, shape: Sequence[int]) -> Fields:
    """Shift cyclically along `dim`, as `torch.roll` does."""
    out = []
    for axis in fields:
        if dim in axis.dims:
            if axis.digits:
                axis = axes.in_order(axis, shape)
            axis = axes.rolled(axis, by, shape[dim])
        out.append(axis)
    return tuple(out)


def mix(fields: Fields, dims: Iterable[int], shape: Sequence[int], image_size: Sequence[int]) -> Fields:
    """Let every unit along `dims` depend on all others, as softmax and norms do.

    This is a global path, unless only a part of the axis runs along these dimensions, such as a window.
    """
    dims = set(dims)
    out = []
    for axis, pixels in zip(fields, image_size, strict=True):
        if axis.varies and dims.issuperset(axis.dims):
            axis = axis._replace(whole_image=True)
        elif not dims.isdisjoint(axis.dims):
            axis = merging.merged(axis, merging.reduced(axis, dims, shape, pixels), shape, pixels)
        out.append(axis)
    return tuple(out)


def reduce(fields: Fields, shape: Sequence[int], dims: Iterable[int], image_size: Sequence[int]) -> Fields:
    """Sum over `dims`, which stay with size 1.

    Args:
        fields: of the tensor before.
        shape: its shape.
        dims: the dimensions to sum over.
        image_size: one number for each image axis.
    """
    dims = set(dims)
    return tuple(
        merging.reduced(axis, dims, shape, pixels) for axis, pixels in zip(fields, image_size, strict=True)
    )


def pool(fields: Fields, shape: Sequence[int], dims: Iterable[int], image_size: Sequence[int]) -> Fields:
    """`reduce`, where a sum over all units is a global path even if no unit reads the pixels at the edge."""
    return tuple(
        after._replace(whole_image=True) if before.varies and not after.varies else after
        for before, after in zip(fields, reduce(fields, shape, dims, image_size), strict=True)
    )


def broadcast(operands: Sequence[Operand], image_size: Sequence[int]) -> Fields | None:
    """Fields of an elementwise operator, or of a product, over operands that broadcast.

    If one operand runs along an axis and another has a single receptive field for all units, as the factors
    of squeeze-and-excitation do, the second is a global path and leaves the receptive field unchanged.

    Args:
        operands: fields and shapes.
        image_size: one number for each image axis.
    """
    dependent = [(fields, shape) for fields, shape in operands if fields is not None]
    if not dependent:
        return None
    first = dependent[0][0]
    if all(fields is first for fields, _ in dependent) and len({len(shape) for _, shape in dependent}) == 1:
        return first
    shape = operands[0][1]
    if all(other == shape for _, other in operands):  # the usual case
        out = shape
    else:
        ndim = max(len(shape) for _, shape in operands)
        padded = ([1] * (ndim - len(shape)) + list(shape) for _, shape in operands)
        out = [max(sizes) for sizes in zip(*padded, strict=True)]
    result = []
    for index, pixels in enumerate(image_size):
        total = _aligned(*dependent[0], index, out)
        for fields, shape in dependent[1:]:
            total = merging.merged(total, _aligned(fields, shape, index, out), out, pixels)
        result.append(total)
    return tuple(result)


def _aligned(fields: Fields, shape: Sequence[int], index: int, out: Sequence[int]) -> AxisField:
    """One image axis of an operand, with the dimensions of the result."""
    axis = fields[index]
    if (
        axis.dim is not None
        and axis.field is not None
        and shape[axis.dim] != out[len(out) - len(shape) :][axis.dim]
    ):
        return AxisField(None, constant(axis.field.at(0)), axis.whole_image)
    if len(shape) == len(out):
        return axis
    (axis,) = move_dims((axis,), {d: d + len(out) - len(shape) for d in range(len(shape))})
    return axis


def mask(fields: Fields | None, operands: Sequence[Operand]) -> Fields | None:
    """Note an attention mask among the operands that were added to scores with these fields."""
    if fields is None or all(axis.roll is None for axis in fields):
        return fields
    ndim = max(len(shape) for _, shape in operands)
    for other, shape in operands:
        if other is None and len(shape) == ndim:
            fields = tuple(merging.masked(axis, shape) for axis in fields)
    return fields


def unmask(fields: Fields | None) -> Fields | None:
    """Forget attention masks: the scores have multiplied the values."""
    return fields and tuple(merging.unmasked(axis) for axis in fields)


def same_units(a: Fields, b: Fields, shape: Sequence[int]) -> bool:
    """Whether two tensors of this shape have the same receptive fields, apart from global paths."""
    for one, other in zip(a, b, strict=True):
        one, other = axes.in_order(one, shape), axes.in_order(other, shape)
        if one.field is None or other.field is None or one.dim != other.dim:
            return False
        units = 1 if one.dim is None else shape[one.dim]
        if one.field != other.field and one.field.first(units) != other.field.first(units):
            return False
    return True


def with_global_paths(fields: Fields, others: Fields) -> Fields:
    """The fields with the global paths of other fields in addition."""
    return tuple(
        axis._replace(whole_image=axis.whole_image or other.whole_image)
        for axis, other in zip(fields, others, strict=True)
    )


def concatenate(operands: Sequence[Operand], dim: int, image_size: Sequence[int]) -> Fields | None:
    """Fields of tensors concatenated along `dim`."""
    dependent = [(fields, shape) for fields, shape in operands if fields is not None]
    if not dependent:
        return None
    across = broadcast(
        [(f, [1 if i == dim else n for i, n in enumerate(s)]) for f, s in operands], image_size
    )
    assert across is not None
    return tuple(
        _joined(operands, dim, index) if any(dim in fields[index].dims for fields, _ in dependent) else axis
        for index, axis in enumerate(across)
    )


def _joined(operands: Sequence[Operand], dim: int, index: int) -> AxisField:
    """One image axis of tensors concatenated along a dimension that runs along it.

    A class token in front of the patches does not depend on the image, or on all of it: it only shifts the
    patches by one.
    """
    pieces: list[tuple[range, AxisField]] = []
    length, whole_image = 0, False
    for fields, shape in operands:
        places = range(length, length + shape[dim])
        length += shape[dim]
        if fields is None:
            continue
        axis = axes.in_order(fields[index], shape)
        whole_image = whole_image or axis.whole_image
        if axis.field is None or axis.dim not in (dim, None):
            return axes.unknown_axis(whole_image)
        if axis.dim == dim or not axis.whole_image:
            pieces.append((places, axis))
    running = [(places.start, axis.field) for places, axis in pieces if axis.dim == dim and axis.field]
    if len(running) == len(pieces) == 1 or length > MAX_PERIOD:
        shifted = [field.through(IndexMap(1, ((-start,),))) for start, field in running]
        same = len(running) == len(pieces) and all(field == shifted[0] for field in shifted)
        return AxisField(dim, shifted[0], whole_image) if same else axes.unknown_axis(whole_image)
    intervals = [EMPTY] * length
    for places, axis in pieces:
        assert axis.field is not None
        intervals[places.start : places.stop] = axis.field.first(len(places))
    return AxisField(dim, ReceptiveField.from_intervals(intervals), whole_image)


def reshape(fields: Fields, before: Sequence[int], after: Sequence[int]) -> Fields:
    """Fields after a change of shape that keeps the order of the elements."""
    if not any(axis.varies for axis in fields):
        return fields
    if 0 in before:
        return unknown(fields)
    groups = _reshape_groups(before, after)
    return tuple(axes.reshaped(axis, before, after, groups) if axis.varies else axis for axis in fields)


def _reshape_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of adjacent dimensions, before and after, with equal numbers of elements."""
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
