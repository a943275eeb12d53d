"""Receptive fields along one image axis, in closed form.

A convolution with stride s, padding p and dilation d reads the inputs i s - p, i s - p + d, ... for output i.
In a stack of convolutions the receptive field of output i is therefore
`[first + i * jump, last + i * jump]`, by the recurrence F(i) = (F(i+1) - 1) x stride + ksize (Dumoulin and
Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285; Araujo, Norris, Sim 2019,
"Computing Receptive Fields of Convolutional Neural Networks", Distill). Upsampling and transposed
convolutions break this rule: the receptive fields of neighboring outputs then coincide or differ in size.
But the pattern repeats periodically, and so it does when the rows of a feature map are flattened into a
sequence. A `ReceptiveField` therefore stores one interval for each position within a period.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import gcd

Interval = tuple[int, int]  # first and last pixel, both included; empty if first > last

EMPTY: Interval = (0, -1)
MAX_PERIOD = 32768  # a longer period means a flattened feature map, where single units no longer matter


@dataclass(frozen=True, slots=True)
class IndexMap:
    """The input indices that an operator reads for each output index.

    Attributes:
        shift: difference between the input indices of output `i + len(indices)` and those of output `i`.
        indices: input indices for each output of the first period.
    """

    shift: int
    indices: tuple[tuple[int, ...], ...]


SAME_INDEX = IndexMap(1, ((0,),))


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The pixels that each unit of a feature map depends on, along one axis.

    Unit `q * period + r` depends on pixels `intervals[r][0] + q * shift` to `intervals[r][1] + q * shift`.
    The image has no borders here: pixels before 0 or after the last one are padding.

    Attributes:
        shift: pixels by which the receptive field moves per period; 0 if all units have the same one.
        intervals: first and last pixel for each unit of the first period.
    """

    shift: int
    intervals: tuple[Interval, ...]

    @classmethod
    def from_intervals(cls, intervals: Sequence[Interval]) -> ReceptiveField:
        """The receptive field with the shortest period whose first units have these intervals.

        Without a period, the units after the last one continue at the average distance.
        """
        count = len(intervals)
        lengths = [last - first for first, last in intervals]
        steps = [b[0] - a[0] for a, b in pairwise(intervals)]
        for period in range(1, count):
            # The sizes repeat, and so do the steps from unit to unit.
            if lengths[period] != lengths[0] or (period < count - 1 and steps[period] != steps[0]):
                continue
            if lengths[period:] == lengths[:-period] and steps[period:] == steps[:-period]:
                return cls(intervals[period][0] - intervals[0][0], tuple(intervals[:period]))
        shift = round((intervals[-1][0] - intervals[0][0]) * count / (count - 1)) if count > 1 else 0
        return cls(shift, tuple(intervals))

    @property
    def jump(self) -> Fraction:
        """Distance in pixels between the receptive fields of neighboring units, averaged over a period."""
        return abs(Fraction(self.shift, len(self.intervals)))

    @property
    def size(self) -> int:
        """Size of the receptive field in pixels; the largest one if units differ."""
        return max(0, *(last - first + 1 for first, last in self.intervals))

    def at(self, unit: int) -> Interval:
        """First and last pixel of a unit's receptive field; may lie in the padding, empty if first > last."""
        q, r = divmod(unit, len(self.intervals))
        first, last = self.intervals[r]
        return (first + q * self.shift, last + q * self.shift)

    def first(self, units: int) -> list[Interval]:
        """First and last pixel of units 0 to `units` - 1."""
        moves = range(0, -(-units // len(self.intervals)) * self.shift, self.shift) if self.shift else None
        if moves is None:
            return (list(self.intervals) * -(-units // len(self.intervals)))[:units]
        return [(a + by, b + by) for by in moves for a, b in self.intervals][:units]

    def hull(self, units: int) -> Interval:
        """The smallest interval that contains the receptive fields of units 0 to `units` - 1."""
        period = len(self.intervals)
        ends = range(units) if units <= 2 * period else [*range(period), *range(units - period, units)]
        return enclose([self.at(unit) for unit in ends])

    def through(self, index_map: IndexMap) -> ReceptiveField:
        """The receptive field after an operator that reads this feature map through `index_map`."""
        if index_map == SAME_INDEX:
            return self
        indices = index_map.indices
        phases, period = len(indices), len(self.intervals)
        if phases == period == 1 and indices[0] and self.intervals[0] != EMPTY and self.shift >= 0:
            return ReceptiveField(  # the usual case: only the outermost inputs matter
                self.shift * index_map.shift, ((self.at(min(indices[0]))[0], self.at(max(indices[0]))[1]),)
            )
        if phases == index_map.shift == len(indices[0]) == 1:  # a class token, a slice or padding
            return self._from(indices[0][0])
        repeats = period // gcd(period, index_map.shift) if index_map.shift else 1
        intervals = []
        for r in range(phases * repeats):
            base = (r // phases) * index_map.shift
            intervals.append(enclose([self.at(base + index) for index in indices[r % phases]]))
        shift = self.shift * (repeats * index_map.shift) // period
        return ReceptiveField(shift, tuple(intervals)).simplified()

    def _from(self, start: int) -> ReceptiveField:
        """The receptive field if the first unit is unit `start` of this one."""
        q, r = divmod(start, len(self.intervals))
        ends = ((self.intervals[r:], q * self.shift), (self.intervals[:r], (q + 1) * self.shift))
        moved = ((a + by, b + by) if a <= b else EMPTY for part, by in ends for a, b in part)
        return ReceptiveField(self.shift, tuple(moved))

    def union(self, other: ReceptiveField, units: int | None = None) -> ReceptiveField | None:
        """The receptive field of a sum of two feature maps.

        Args:
            other: that of the second one.
            units: length of the axis, which is needed only if the jumps differ.

        Returns:
            None if the jumps differ and `units` is not known, or more than `MAX_PERIOD`.
        """
        if self == other:
            return self
        mine, theirs = len(self.intervals), len(other.intervals)
        period = mine * theirs // gcd(mine, theirs)
        if self.shift * theirs != other.shift * mine:
            if units is None or units > MAX_PERIOD:
                return None
            period = -(-units // mine) * mine
        intervals = tuple(enclose([self.at(unit), other.at(unit)]) for unit in range(period))
        return ReceptiveField(self.shift * (period // mine), intervals).simplified()

    def simplified(self) -> ReceptiveField:
        """The same receptive field with the shortest period."""
        period = len(self.intervals)
        for shorter in range(1, period // 2 + 1):
            if period % shorter or self.shift % (period // shorter):
                continue
            shift = self.shift * shorter // period
            if self.intervals[shorter][1] - self.intervals[0][1] not in (0, shift):
                continue  # the usual case, without a look at the others
            moved = [
                span if span == EMPTY else (span[0] + shift, span[1] + shift)
                for span in self.intervals[:-shorter]
            ]
            if moved == list(self.intervals[shorter:]):
                return ReceptiveField(shift, self.intervals[:shorter])
        return self


ONE_PIXEL = ReceptiveField(1, ((0, 0),))  # of the input image itself


def constant(interval: Interval) -> ReceptiveField:
    """A receptive field that is the same for all units."""
    return ReceptiveField(0, (interval,))


def enclose(intervals: Sequence[Interval]) -> Interval:
    """The smallest interval that contains all of these; empty ones are ignored."""
    filled = [interval for interval in intervals if interval[0] <= interval[1]]
    if not filled:
        return EMPTY
    return (min(first for first, _ in filled), max(last for _, last in filled))


@functools.lru_cache(maxsize=256)
def conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> IndexMap:
    """Indices that a convolution or pool reads."""
    return IndexMap(stride, (tuple(range(-padding, -padding + (kernel - 1) * dilation + 1, dilation)),))


def transposed_conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> IndexMap:
    """Indices that a transposed convolution reads.

    Output o reads input i if o = i stride - padding + k dilation, with k from 0 to kernel - 1. If the stride
    is larger than the kernel, some outputs read no input, only the bias.
    """
    indices = []
    for phase in range(stride):
        shifted = [phase + padding - k * dilation for k in range(kernel)]
        indices.append(tuple(sorted(place // stride for place in shifted if place % stride == 0)))
    return IndexMap(1, tuple(indices))


def nearest_resize(before: int, after: int, exact: bool = False) -> IndexMap:
    """Indices that nearest-neighbor resizing reads: output o reads input floor(o before / after).

    Args:
        before: size of the input.
        after: size of the output.
        exact: sample at the center of the output pixel, as torch's `nearest-exact` does.
    """
    period, shift = _ratio(before, after)
    half = 1 if exact else 0
    return IndexMap(shift, tuple(((2 * r + half) * shift // (2 * period),) for r in range(period)))


def linear_resize(before: int, after: int, align_corners: bool, extra: int = 0) -> IndexMap:
    """Indices that linear resizing reads: the two inputs around the sampling position.

    The position is (o + 1/2) before / after - 1/2, or o (before - 1) / (after - 1) with aligned corners. At
    an integer position only one input is read. Cubic resizing reads one `extra` input on each side.
    """
    if align_corners:
        period, shift = _ratio(before - 1, after - 1) if after > 1 and before > 1 else (1, 0)
        positions = [Fraction(r * shift, period) for r in range(period)]
    else:
        period, shift = _ratio(before, after)
        positions = [(r + Fraction(1, 2)) * Fraction(shift, period) - Fraction(1, 2) for r in range(period)]
    indices = []
    for position in positions:
        low = position.numerator // position.denominator
        indices.append((low,) if position == low else tuple(range(low - extra, low + 2 + extra)))
    return IndexMap(shift, tuple(indices))


def adaptive_pool(before: int, after: int) -> IndexMap:
    """Indices that adaptive pooling from n to m units reads: floor(o n / m) up to ceil((o + 1) n / m) - 1."""
    period, shift = _ratio(before, after)
    return IndexMap(
        shift, tuple((r * shift // period, -(-(r + 1) * shift // period) - 1) for r in range(period))
    )


def _ratio(before: int, after: int) -> tuple[int, int]:
    """Number of outputs and of inputs in one period of a resize."""
    common = gcd(before, after)
    return after // common, before // common
