"""Receptive fields of whole tensors, and how reshaping, reductions, broadcasting and the like change them.

`Fields` has one entry for each image axis. It names the tensor dimension that runs along that axis, if there
is one, and the receptive field of its units. Squeeze-and-excitation and attention make every unit depend on
the whole image. Such global paths only set the flag `whole_image`; the receptive field is stored without
them, because one that always equals the image says nothing about the convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from striate.anatomy.receptive_fields import (
    MAX_PERIOD,
    ONE_PIXEL,
    IndexMap,
    ReceptiveField,
    constant,
    flatten,
    unflatten,
)


class AxisField(NamedTuple):
    """How a tensor depends on one axis of the image.

    Attributes:
        dim: the tensor dimension that runs along the image axis; None if all values have the same field.
        field: the receptive field of each unit along `dim`, without global paths; None if unknown.
        whole_image: whether every unit depends on the whole axis through a global path.
    """

    dim: int | None
    field: ReceptiveField | None
    whole_image: bool = False


Fields = tuple[AxisField, ...]
Operand = tuple["Fields | None", Sequence[int]]  # with the tensor's shape; None: independent of the image


def input_fields(ndim: int) -> Fields | None:
    """Fields of the input image `[batch, channels, ...]`; None for other numbers of dimensions."""
    return tuple(AxisField(dim, ONE_PIXEL) for dim in range(2, ndim)) if 3 <= ndim <= 5 else None


def unknown(fields: Fields) -> Fields:
    """Fields of a tensor with unknown receptive field."""
    return tuple(AxisField(None, None, axis.whole_image) for axis in fields)


def is_known(fields: Fields | None) -> bool:
    """Whether the receptive field is known along all axes."""
    return fields is None or all(axis.field is not None for axis in fields)


def move_dims(fields: Fields, targets: dict[int, int | None]) -> Fields:
    """Renumber tensor dimensions: d becomes `targets[d]`; None if it had size 1 and is removed."""
    return tuple(
        axis if axis.dim is None else axis._replace(dim=targets.get(axis.dim, axis.dim)) for axis in fields
    )


def drop_dims(fields: Fields, dims: Sequence[int], ndim: int) -> Fields:
    """Remove `dims`, none of which runs along an image axis, from a tensor of `ndim` dimensions."""
    return move_dims(fields, {d: d - sum(gone < d for gone in dims) for d in range(ndim)})


def apply(fields: Fields, index_maps: dict[int, IndexMap]) -> Fields:
    """Fields after an operator that reads its input through one index map for each tensor dimension."""
    out: list[AxisField] = []
    last: tuple[ReceptiveField, IndexMap, ReceptiveField] | None = None
    for axis in fields:
        index_map = index_maps.get(axis.dim) if axis.dim is not None else None
        if index_map is not None and axis.field is not None:
            # Compute the two axes of a square kernel once.
            if last is None or last[0] is not axis.field or last[1] is not index_map:
                last = axis.field, index_map, axis.field.through(index_map)
            axis = AxisField(axis.dim, last[2], axis.whole_image)
        out.append(axis)
    return tuple(out)


def select(fields: Fields, dim: int, unit: int) -> Fields:
    """Keep one unit along `dim`; the dimension stays, with size 1."""
    return tuple(
        AxisField(None, constant(axis.field.at(unit)), axis.whole_image)
        if axis.dim == dim and axis.field
        else axis
        for axis in fields
    )


def mix(fields: Fields, dims: Iterable[int]) -> Fields:
    """Let every unit along `dims` depend on all others, as softmax and norms do."""
    dims = set(dims)
    return tuple(axis._replace(whole_image=True) if axis.dim in dims else axis for axis in fields)


def reduce(fields: Fields, shape: Sequence[int], dims: Iterable[int], image_size: Sequence[int]) -> Fields:
    """Sum over `dims`, which stay with size 1.

    Args:
        fields: of the tensor before.
        shape: its shape.
        dims: the dimensions to sum over.
        image_size: one number for each image axis.
    """
    dims = set(dims)
    out = []
    for axis, pixels in zip(fields, image_size, strict=True):
        if axis.dim in dims and axis.field is not None and axis.dim is not None:
            axis = _global(axis.field.hull(shape[axis.dim]), axis.whole_image, pixels)
        out.append(axis)
    return tuple(out)


def _global(interval: tuple[int, int], whole_image: bool, pixels: int) -> AxisField:
    """An axis along which all values have the same receptive field."""
    return AxisField(None, constant(interval), whole_image or _covers(interval, pixels))


def _covers(interval: tuple[int, int], pixels: int) -> bool:
    return interval[0] <= 0 and interval[1] >= pixels - 1


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
    ndim = max(len(shape) for _, shape in operands)
    result = []
    for index, pixels in enumerate(image_size):
        axes = []
        for fields, shape in dependent:
            axis, units = fields[index], 1
            if axis.dim is not None:
                units = shape[axis.dim]
                axis = axis._replace(dim=axis.dim + ndim - len(shape))
            axes.append((axis, units))
        result.append(_merge(axes, pixels))
    return tuple(result)


def _merge(axes: Sequence[tuple[AxisField, int]], pixels: int) -> AxisField:
    """Merge one image axis of several operands, each given with its number of units along that axis."""
    whole_image = any(axis.whole_image for axis, _ in axes)
    if any(axis.field is None for axis, _ in axes):
        return AxisField(None, None, whole_image)
    longest = max(units for _, units in axes)
    leader = next((axis for axis, units in axes if axis.dim is not None and units == longest), axes[0][0])
    single = leader.dim is None or longest == 1
    field = leader.field
    for axis, units in axes:
        if axis is leader or axis.field is None or field is None:
            continue
        if axis.dim == leader.dim and units == longest:
            both = field.union(axis.field)
            if both is None and longest == 1:  # the jump does not matter for a single unit
                both = _union_of_first(field, axis.field)
            field = both
        elif axis.dim is not None and units != 1:
            whole_image = True  # both run along the axis, in two dimensions: attention scores
        elif single:
            field = _union_of_first(field, axis.field)
        elif axis.whole_image or _covers(axis.field.at(0), pixels):
            whole_image = True
        else:
            return AxisField(None, None, whole_image)
    return AxisField(leader.dim if field is not None else None, field, whole_image)


def _union_of_first(a: ReceptiveField, b: ReceptiveField) -> ReceptiveField | None:
    """The receptive field of the sum of the first units."""
    return constant(a.at(0)).union(constant(b.at(0)))


def concatenate(operands: Sequence[Operand], dim: int, image_size: Sequence[int]) -> Fields | None:
    """Fields of tensors concatenated along `dim`."""
    shifted: list[Operand] = []
    offset = 0
    for fields, shape in operands:
        if fields is not None and offset:
            fields = apply(fields, {dim: IndexMap(1, ((-offset,),))})
        offset += shape[dim]
        shifted.append((fields, shape))
    along = [
        index
        for index in range(len(image_size))
        if any(fields is not None and fields[index].dim == dim for fields, _ in operands)
    ]
    if not along:
        return broadcast(
            [(f, [1 if i == dim else n for i, n in enumerate(shape)]) for f, shape in shifted], image_size
        )
    # A class token in front of the patches does not depend on the image; it only shifts the patches by one.
    dependent = {fields for fields, _ in shifted if fields is not None}
    first = next(fields for fields, _ in shifted if fields is not None)
    if len(dependent) == 1:
        return first
    fields = broadcast(shifted, image_size)
    assert fields is not None
    return tuple(
        AxisField(None, None, axis.whole_image) if i in along else axis for i, axis in enumerate(fields)
    )


def reshape(fields: Fields, before: Sequence[int], after: Sequence[int], image_size: Sequence[int]) -> Fields:
    """Fields after a change of shape that keeps the order of the elements."""
    if all(axis.dim is None for axis in fields):
        return fields
    if 0 in before:
        return unknown(fields)
    groups = _reshape_groups(before, after)
    return tuple(
        axis if axis.dim is None else _reshape_axis(axis, before, after, groups, pixels)
        for axis, pixels in zip(fields, image_size, strict=True)
    )


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


def _reshape_axis(
    axis: AxisField,
    before: Sequence[int],
    after: Sequence[int],
    groups: Sequence[tuple[list[int], list[int]]],
    pixels: int,
) -> AxisField:
    """One axis of `reshape`."""
    dim, field = axis.dim, axis.field
    assert dim is not None
    if field is None:
        return AxisField(None, None, axis.whole_image)
    old, new = next(group for group in groups if dim in group[0])
    if before[dim] == 1:
        ones = [j for j in new if after[j] == 1]
        if len(old) == 1 and ones:
            return axis._replace(dim=ones[0])
        return AxisField(None, constant(field.at(0)), axis.whole_image)
    outer, inner = (prod(before[i] for i in old if i < dim), prod(before[i] for i in old if i > dim))
    new = [j for j in new if after[j] != 1]
    if outer == inner == 1 and len(new) == 1:
        return axis._replace(dim=new[0])
    # First flatten all dimensions of the group into one, then split that into the new ones.
    if outer == 1:
        flat = field.through(IndexMap(1, ((0,),) * inner)) if inner <= MAX_PERIOD else None
    else:
        flat = flatten(field, before[dim], inner)
    if flat is None:  # channels and pixels flattened into one vector: each value now depends on the whole map
        return _global(field.hull(before[dim]), axis.whole_image, pixels)
    while len(new) > 1:
        split = unflatten(flat, prod(after[j] for j in new[1:]))
        if split is None:
            return AxisField(None, None, axis.whole_image)
        flat, is_outer = split
        new = new[:1] if is_outer else new[1:]
    return AxisField(new[0], flat, axis.whole_image)
