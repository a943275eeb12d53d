"""Receptive fields of a tensor along one image axis, also where several dimensions share that axis.

Flattening rows and columns into a sequence, or cutting a map into windows, spreads the pixels of an image
axis over several tensor dimensions, or over a part of one. The index along such a dimension has digits: in a
sequence of 14 x 14 patches, the row is the upper digit and the column the lower one. An `AxisField` lists the
digits that belong to its axis, so reshaping only regroups digits and leaves the receptive field unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from itertools import pairwise, product
from math import gcd, prod
from typing import NamedTuple

from striate.anatomy.receptive_fields import (
    MAX_PERIOD,
    IndexMap,
    Interval,
    ReceptiveField,
    constant,
)


class Digit(NamedTuple):
    """A factor of the index along a tensor dimension: `index // inner % size`, which counts `stride` units.

    Attributes:
        dim: the tensor dimension.
        inner: number of indices along `dim` for which the digit stays the same.
        size: number of values of the digit.
        stride: units of the image axis from one value of the digit to the next.
    """

    dim: int
    inner: int
    size: int
    stride: int


class Roll(NamedTuple):
    """A cyclic shift that has not been undone, as in shifted-window attention.

    The axis's `field` treats the shift as if the units that wrapped around lay outside the image.

    Attributes:
        by: index i holds unit (i + by) % units.
        units: length of the axis.
        masked: whether the units on both sides of the seam have been kept apart by an attention mask.
        actual: the receptive field by index, if windows across the seam have been mixed; otherwise None.
    """

    by: int
    units: int
    masked: bool = False
    actual: ReceptiveField | None = None


class AxisField(NamedTuple):
    """How a tensor depends on one axis of the image.

    If neither `dim` nor `digits` is given, all values have the same receptive field.

    Attributes:
        dim: the tensor dimension that runs along the image axis, if it is exactly one.
        field: the receptive field of each unit, without global paths; None if unknown.
        whole_image: whether every unit depends on the whole axis through a global path.
        digits: the index of a unit is the sum of these digits times their strides, if several dimensions run
            along the axis, or a part of one.
        roll: a cyclic shift that has not been undone.
    """

    dim: int | None
    field: ReceptiveField | None
    whole_image: bool = False
    digits: tuple[Digit, ...] = ()
    roll: Roll | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        """The tensor dimensions that run along the axis."""
        if self.dim is not None:
            return (self.dim,)
        return tuple(dict.fromkeys(digit.dim for digit in self.digits))

    @property
    def varies(self) -> bool:
        """Whether some tensor dimension runs along the axis."""
        return self.dim is not None or bool(self.digits)

    @property
    def reported(self) -> ReceptiveField | None:
        """The receptive field by index, with cyclic shifts resolved."""
        if self.roll is None or self.field is None:
            return self.field
        return self.roll.actual or _around(self.field, self.roll)


def unknown_axis(whole_image: bool) -> AxisField:
    """An axis along which the receptive field is not known."""
    return AxisField(None, None, whole_image)


def digits_of(axis: AxisField, shape: Sequence[int]) -> tuple[Digit, ...]:
    """The digits of an axis of a tensor with this shape; none along a dimension of size 1."""
    if axis.dim is None:
        return axis.digits
    return (Digit(axis.dim, 1, shape[axis.dim], 1),) if shape[axis.dim] > 1 else ()


def with_digits(axis: AxisField, digits: Iterable[Digit], shape: Sequence[int]) -> AxisField:
    """The axis with other digits, in the simplest form, as part of a tensor with this shape."""
    kept: list[Digit] = []
    for digit in sorted((d for d in digits if d.size > 1), key=lambda d: (d.dim, -d.inner)):
        above = kept[-1] if kept else None
        if (
            above is not None
            and above.dim == digit.dim
            and above.inner == digit.inner * digit.size
            and above.stride == digit.stride * digit.size
        ):
            kept[-1] = Digit(digit.dim, digit.inner, above.size * digit.size, digit.stride)
        else:
            kept.append(digit)
    axis = axis._replace(dim=None, digits=tuple(kept))
    if not kept:
        return changed(axis._replace(roll=None), lambda field: constant(field.at(0)))
    common = gcd(*(digit.stride for digit in kept))
    if common > 1 and axis.roll is None:
        axis = changed(axis, lambda field: field.through(IndexMap(common, ((0,),))))
        kept = [digit._replace(stride=digit.stride // common) for digit in kept]
    only = kept[0]
    if len(kept) == 1 and (only.inner, only.stride, only.size) == (1, 1, shape[only.dim]):
        return axis._replace(dim=only.dim, digits=())
    return axis._replace(digits=tuple(kept))


def reshaped(
    axis: AxisField,
    before: Sequence[int],
    after: Sequence[int],
    groups: Sequence[tuple[list[int], list[int]]],
) -> AxisField:
    """The axis after a change of shape that keeps the order of the elements.

    Args:
        axis: along which some dimension runs.
        before: shape of the tensor before.
        after: its new shape.
        groups: adjacent dimensions, before and after, with equal numbers of elements.
    """
    if axis.field is None:
        return unknown_axis(axis.whole_image)
    if axis.dim is not None and before[axis.dim] == 1:
        olds, news = next(group for group in groups if axis.dim in group[0])
        ones = [d for d in news if after[d] == 1]
        dim = ones[0] if len(olds) == 1 and ones else None
        return AxisField(dim, axis.field if dim is not None else constant(axis.field.at(0)), axis.whole_image)
    old = digits_of(axis, before)
    pieces: list[Digit] = []
    for digit in old:
        olds, news = next(group for group in groups if digit.dim in group[0])
        place = digit.inner * prod(before[d] for d in olds if d > digit.dim)
        split = _split_over(digit, place, [(d, after[d]) for d in news])
        if split is None:
            return unknown_axis(axis.whole_image)
        pieces += split
    if len(pieces) > len(old) and axis.roll is None:
        field, pieces = _pruned(axis.field, tuple(pieces))
        axis = axis._replace(field=field)
    return with_digits(axis, pieces, after)


def _split_over(digit: Digit, place: int, dims: Sequence[tuple[int, int]]) -> list[Digit] | None:
    """Divide a digit among new dimensions with their sizes; None if it does not divide evenly.

    Args:
        digit: of the flattened group of dimensions.
        place: number of elements of the group for which the digit stays the same.
        dims: the new dimensions of the group.
    """
    pieces = []
    end, inner = place * digit.size, 1
    for dim, size in reversed(dims):
        low, high = max(place, inner), min(end, inner * size)
        if low < high:
            if low % place or high % low or low % inner:
                return None
            pieces.append(Digit(dim, low // inner, high // low, digit.stride * (low // place)))
        inner *= size
    return pieces


@functools.lru_cache(maxsize=256)
def _pruned(field: ReceptiveField, digits: tuple[Digit, ...]) -> tuple[ReceptiveField, list[Digit]]:
    """Drop the digits along which the receptive field does not change, as rows of a flattened map do."""
    sizes = [digit.size for digit in digits]
    if len(field.intervals) == 1 or prod(sizes) > MAX_PERIOD:
        return field, list(digits)
    units = sums(digits)
    seen = [_or_empty(field.at(unit)) for unit in units]
    kept = []
    for position, digit in enumerate(digits):
        step = prod(sizes[position + 1 :])  # in the list of sums
        last = digit.size - 1
        if any(seen[i] != seen[i + step] for i in range(len(units)) if i // step % digit.size != last):
            kept.append(digit)
    ordered = sorted(kept, key=lambda digit: digit.stride)
    if len(kept) < len(digits) and all(b.stride == a.stride * a.size for a, b in pairwise(ordered)):
        # Only the units that exist count now, so their pattern may be simpler.
        step = ordered[0].stride if ordered else 1
        span = prod(digit.size for digit in kept)
        field = ReceptiveField.from_intervals([field.at(step * unit) for unit in range(span)])
        kept = [digit._replace(stride=digit.stride // step) for digit in kept]
    return field, kept


def _or_empty(interval: Interval) -> Interval | None:
    return interval if interval[0] <= interval[1] else None


def sums(digits: Iterable[Digit]) -> list[int]:
    """The unit of each combination of digits; the last digit changes first."""
    values = [[value * digit.stride for value in range(digit.size)] for digit in digits]
    return [sum(parts) for parts in product(*values)]


def in_order(axis: AxisField, shape: Sequence[int]) -> AxisField:
    """The axis with its only dimension as `dim`, also if it runs along just a part of that dimension.

    Operators that read neighboring indices need this form. It is unknown if several dimensions run along the
    axis, or if the pattern is too long.
    """
    axis = without_roll(axis)
    if not axis.digits or axis.field is None:
        return axis
    period = max(digit.inner * digit.size for digit in axis.digits)
    dim, *others = axis.dims
    if others or period > MAX_PERIOD:
        return unknown_axis(axis.whole_image)
    first = axis.digits[0]
    if len(axis.digits) == 1 and period == shape[dim]:  # rows: each is repeated for all its columns
        repeated = IndexMap(first.stride, ((0,),) * first.inner)
        return axis._replace(dim=dim, digits=(), field=axis.field.through(repeated))
    units = [sum(i // d.inner % d.size * d.stride for d in axis.digits) for i in range(period)]
    field = ReceptiveField(0, tuple(axis.field.at(unit) for unit in units))
    return axis._replace(dim=dim, digits=(), field=field)


def selected(axis: AxisField, dim: int, index: int, shape: Sequence[int]) -> AxisField:
    """The axis after keeping one index along `dim`, which stays with size 1."""
    if dim not in axis.dims or axis.field is None:
        return axis
    axis = without_roll(axis)
    if axis.dim is not None:
        assert axis.field is not None
        return AxisField(None, constant(axis.field.at(index)), axis.whole_image)
    unit = sum(index // d.inner % d.size * d.stride for d in axis.digits if d.dim == dim)
    axis = changed(axis, lambda field: field.through(IndexMap(1, ((unit,),))))
    return with_digits(axis, [digit for digit in axis.digits if digit.dim != dim], shape)


def rolled(axis: AxisField, by: int, units: int) -> AxisField:
    """The axis `[..., units, ...]` after `torch.roll` by `by` units along its dimension."""
    if axis.roll is not None and axis.roll.actual is not None:
        axis = without_roll(axis)
    before = axis.roll.by if axis.roll is not None else 0
    after = (before - by) % units
    if after > units // 2:
        after -= units
    axis = changed(axis, lambda field: field.through(IndexMap(1, ((after - before,),))))
    masked = axis.roll is not None and axis.roll.masked
    return axis._replace(roll=Roll(after, units, masked) if after else None)


def without_roll(axis: AxisField) -> AxisField:
    """The axis in the order of the indices, so that its receptive field is that of each index."""
    return axis if axis.roll is None else axis._replace(field=axis.reported, roll=None)


def changed(axis: AxisField, function: Callable[[ReceptiveField], ReceptiveField]) -> AxisField:
    """The axis with a function applied to its receptive field."""
    if axis.field is None:
        return axis
    roll = axis.roll
    if roll is not None and roll.actual is not None:
        roll = roll._replace(actual=function(roll.actual))
    return axis._replace(field=function(axis.field), roll=roll)


def _around(field: ReceptiveField, roll: Roll) -> ReceptiveField:
    """The receptive field by index, where `field` takes units that wrapped around for units outside."""
    intervals = [field.at((index + roll.by) % roll.units - roll.by) for index in range(roll.units)]
    shift = round(roll.units * Fraction(field.shift, len(field.intervals)))
    return ReceptiveField(shift, tuple(intervals)).simplified()
