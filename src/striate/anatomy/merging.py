"""Receptive fields along one image axis after sums, products, attention and elementwise operators."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

from striate.anatomy.axes import (
    AxisField,
    Digit,
    changed,
    digits_of,
    sums,
    unknown_axis,
    with_digits,
    without_roll,
)
from striate.anatomy.receptive_fields import MAX_PERIOD, IndexMap, Interval, constant, enclose


def reduced(axis: AxisField, dims: Collection[int], shape: Sequence[int], pixels: int) -> AxisField:
    """The axis after a sum over `dims`, which stay with size 1.

    A sum over all dimensions that run along the axis leaves one receptive field for all values.
    """
    if axis.field is None or not any(dim in dims for dim in axis.dims):
        return axis
    if all(dim in dims for dim in axis.dims):
        if axis.dim is not None:
            hull = axis.field.hull(shape[axis.dim])
        else:
            hull = enclose([axis.field.at(unit) for unit in sums(axis.digits)])
        return AxisField(None, constant(hull), axis.whole_image or covers(hull, pixels))
    gone = [digit for digit in axis.digits if digit.dim in dims]
    kept = [digit for digit in axis.digits if digit.dim not in dims]
    return with_digits(_over_window(axis, gone), kept, shape)


def covers(interval: Interval, pixels: int) -> bool:
    """Whether an interval contains the whole image axis."""
    return interval[0] <= 0 and interval[1] >= pixels - 1


def _over_window(axis: AxisField, gone: Sequence[Digit]) -> AxisField:
    """The axis with the union over all values of some of its digits."""
    if not gone:
        return axis
    if axis.roll is not None and axis.roll.actual is None and not axis.roll.masked:
        axis = axis._replace(roll=axis.roll._replace(actual=axis.reported))
    window = IndexMap(1, (tuple(sums(gone)),))
    return changed(axis, lambda field: field.through(window))


def merged(a: AxisField, b: AxisField, shape: Sequence[int], pixels: int) -> AxisField:
    """The axis of an elementwise operator, or of a product, of two tensors that broadcast to `shape`.

    If each runs along the axis in a dimension of its own, as queries and keys do in attention scores, a unit
    of the first depends on all units of the second, or on those that share its window.
    """
    whole_image = a.whole_image or b.whole_image
    if a.field is None or b.field is None:
        return unknown_axis(whole_image)
    if not a.varies or not b.varies:
        return _with_constant(*((a, b) if a.varies else (b, a)), shape, pixels)
    if a.roll != b.roll and (a.roll and a.roll[:2]) != (b.roll and b.roll[:2]):
        a, b = without_roll(a), without_roll(b)
    if (a.dim, a.digits) == (b.dim, b.digits):
        return _united(a, b, _span(digits_of(a, shape)))
    refined = _common_digits(digits_of(a, shape), digits_of(b, shape))
    if refined is None:
        return unknown_axis(whole_image)
    a, b = (axis._replace(dim=None, digits=digits) for axis, digits in zip((a, b), refined, strict=True))
    return _with_leader(*_leader_first(a, b), shape)


def _with_constant(a: AxisField, b: AxisField, shape: Sequence[int], pixels: int) -> AxisField:
    """`merged` if all values of `b` have the same receptive field."""
    assert a.field is not None
    assert b.field is not None
    single = not digits_of(a, shape)
    if not single and (b.whole_image or covers(b.field.at(0), pixels)):
        return a._replace(whole_image=True)
    if single:
        return _united(AxisField(a.dim, constant(a.field.at(0)), a.whole_image), b, 1)
    a = without_roll(a)
    return _united(a, b, _span(digits_of(a, shape)))


def _united(a: AxisField, b: AxisField, units: int) -> AxisField:
    """Axis `a` with the union of both receptive fields, which have the same order of units."""
    assert a.field is not None
    assert b.field is not None
    roll = a.roll
    if roll is not None and b.roll is not None:
        masked = roll.masked or b.roll.masked
        actual = None
        if not masked and (roll.actual or b.roll.actual) is not None:
            assert a.reported is not None
            assert b.reported is not None
            actual = a.reported.union(b.reported, units)
        roll = roll._replace(masked=masked, actual=actual)
    return a._replace(
        field=a.field.union(b.field, units), whole_image=a.whole_image or b.whole_image, roll=roll
    )


def _common_digits(
    a: Sequence[Digit], b: Sequence[Digit]
) -> tuple[tuple[Digit, ...], tuple[Digit, ...]] | None:
    """Both with their digits split so that two digits of a dimension are the same or do not overlap."""
    places: dict[int, set[int]] = {}
    for digit in (*a, *b):
        places.setdefault(digit.dim, set()).update((digit.inner, digit.inner * digit.size))
    out: list[tuple[Digit, ...]] = []
    for digits in (a, b):
        split: list[Digit] = []
        for digit in digits:
            end = digit.inner * digit.size
            inside = [place for place in sorted(places[digit.dim]) if digit.inner <= place <= end]
            if any(high % low for low, high in pairwise(inside)):
                return None
            split += [
                Digit(digit.dim, low, high // low, digit.stride * (low // digit.inner))
                for low, high in pairwise(inside)
            ]
        out.append(tuple(split))
    return out[0], out[1]


def _leader_first(a: AxisField, b: AxisField) -> tuple[AxisField, AxisField]:
    """First the axis whose units the result has: that with more digits; of attention scores, the queries."""
    places = [{digit[:3] for digit in axis.digits} for axis in (a, b)]
    mine, theirs = places[0] - places[1], places[1] - places[0]
    first = not theirs or bool(mine and min(mine) < min(theirs))
    return (a, b) if first else (b, a)


def _with_leader(leader: AxisField, other: AxisField, shape: Sequence[int]) -> AxisField:
    """`merged` for two axes with different dimensions, whose digits are the same or do not overlap."""
    whole_image = leader.whole_image or other.whole_image
    places = {digit[:3] for digit in leader.digits}
    strides = {digit[:3]: digit.stride for digit in other.digits if digit[:3] in places}
    if not strides:
        return with_digits(leader._replace(whole_image=True), leader.digits, shape)
    other = _over_window(other, [digit for digit in other.digits if digit[:3] not in places])
    *inner, outer = sorted(leader.digits, key=lambda digit: digit.stride)
    if _span(inner) > outer.stride or outer.stride > MAX_PERIOD:
        return unknown_axis(whole_image)
    # Units of the leader by those of the other axis, which have the same order but are fewer.
    indices: list[tuple[int, ...]] = [()] * outer.stride
    in_other = [digit._replace(stride=strides.get(digit[:3], 0)) for digit in inner]
    for unit, index in zip(sums(inner), sums(in_other), strict=True):
        indices[unit] = (index,)
    index_map = IndexMap(strides.get(outer[:3], 0), tuple(indices))
    other = changed(other, lambda field: field.through(index_map))
    return with_digits(_united(leader, other, _span(leader.digits)), leader.digits, shape)


def masked(axis: AxisField, mask: Sequence[int]) -> AxisField:
    """The axis of attention scores after a constant mask was added.

    A mask that differs between the windows of a cyclically shifted map keeps the two sides of the seam apart
    (Liu et al. 2021, "Swin Transformer", arXiv:2103.14030, section 3.2); its values are not examined.

    Args:
        axis: of the scores.
        mask: shape of the mask, with as many dimensions as the scores.
    """
    if axis.roll is None or axis.roll.actual is None or any(mask[dim] == 1 for dim in axis.dims):
        return axis
    return axis._replace(roll=axis.roll._replace(masked=True, actual=None))


def unmasked(axis: AxisField) -> AxisField:
    """The axis after the scores have multiplied the values: a mask says nothing about later operators."""
    return axis if axis.roll is None else axis._replace(roll=axis.roll._replace(masked=False))


def _span(digits: Sequence[Digit]) -> int:
    """One more than the highest unit."""
    return 1 + sum((digit.size - 1) * digit.stride for digit in digits)
