"""What a unit of a feature map sees, in closed form, along one axis of the image.

A convolution with stride s, padding p and dilation d reads the taps i s - p, i s - p + d, ... of its input.
Were that all, the field of unit i would be `[lo + i * jump, hi + i * jump]`, as the recurrence
F(i) = (F(i+1) - 1) x stride + ksize has it (Dumoulin and Visin 2016, "A guide to convolution arithmetic for
deep learning", arXiv:1603.07285; Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional
Neural Networks", Distill). Upsampling and transposed convolutions break it: neighbours then see the same
pixels or differ in how much they see. But they do so periodically, and so does an image whose rows were
joined to one sequence of patches. A `Reach` is therefore one interval for each phase of a period.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

Interval = tuple[int, int]  # first and last pixel, both included; the first above the last: none

NOTHING: Interval = (0, -1)
MAX_PERIOD = 4096  # longer patterns come from joining whole feature maps, whose units nobody tells apart


@dataclass(frozen=True, slots=True)
class Taps:
    """Which units of its input an operator reads for each unit of its output.

    Attributes:
        advance: how many input units lie between an output unit and the one `len(units)` further.
        units: for each phase, the input units that it reads.
    """

    advance: int
    units: tuple[tuple[int, ...], ...]


ITSELF = Taps(1, ((0,),))


@dataclass(frozen=True, slots=True)
class Reach:
    """The pixels that each unit of a feature map depends on, along one axis.

    Unit `q * period + r` sees from `spans[r][0] + q * advance` to `spans[r][1] + q * advance`. The map and
    the image are taken as endless: pixels before 0 or beyond the last are padding.

    Attributes:
        advance: pixels by which the view moves over one period; 0 where all periods see the same.
        spans: one interval for each phase.
    """

    advance: int
    spans: tuple[Interval, ...]

    @property
    def jump(self) -> Fraction:
        """Pixels between the views of neighbouring units, on average over a period."""
        return Fraction(self.advance, len(self.spans))

    @property
    def size(self) -> int:
        """Pixels from the first to the last that a unit sees; the largest, where units differ."""
        return max(0, *(hi - lo + 1 for lo, hi in self.spans))

    def at(self, unit: int) -> Interval:
        """First and last pixel that a unit sees, on an endless image; the first above the last: none."""
        q, r = divmod(unit, len(self.spans))
        lo, hi = self.spans[r]
        return (lo + q * self.advance, hi + q * self.advance)

    def hull(self, units: int) -> Interval:
        """First and last pixel that units 0 to `units` - 1 see together."""
        period = len(self.spans)
        ends = range(units) if units <= 2 * period else [*range(period), *range(units - period, units)]
        return join([self.at(unit) for unit in ends])

    def through(self, taps: Taps) -> Reach:
        """What the output of an operator sees that reads a map of this reach through `taps`."""
        phases, period = len(taps.units), len(self.spans)
        if taps == ITSELF:
            return self
        if phases == period == 1 and taps.units[0] and self.spans[0] != NOTHING and self.advance >= 0:
            return Reach(  # as in nearly every network: what the outermost taps see
                self.advance * taps.advance,
                ((self.at(min(taps.units[0]))[0], self.at(max(taps.units[0]))[1]),),
            )
        repeats = period // gcd(period, taps.advance) if taps.advance else 1
        spans = []
        for r in range(phases * repeats):
            base = (r // phases) * taps.advance
            spans.append(join([self.at(base + unit) for unit in taps.units[r % phases]]))
        return Reach(self.advance * (repeats * taps.advance) // period, tuple(spans)).reduced()

    def union(self, other: Reach) -> Reach | None:
        """What a sum of two maps sees; None where one of them moves faster over the image than the other."""
        if self.advance == other.advance and len(self.spans) == len(other.spans):
            if self.spans == other.spans:
                return self
            pairs = zip(self.spans, other.spans, strict=True)
            return Reach(self.advance, tuple(join(pair) for pair in pairs)).reduced()
        if self.jump != other.jump:
            return None
        mine, theirs = len(self.spans), len(other.spans)
        period = mine * theirs // gcd(mine, theirs)
        spans = tuple(join([self.at(unit), other.at(unit)]) for unit in range(period))
        return Reach(self.advance * period // mine, spans).reduced()

    def reduced(self) -> Reach:
        """The same with the shortest period."""
        period = len(self.spans)
        for shorter in range(1, period // 2 + 1):
            if period % shorter or self.advance % (period // shorter):
                continue
            step = self.advance * shorter // period
            if all(
                self._shifted(self.spans[r], step) == self.spans[r + shorter] for r in range(period - shorter)
            ):
                return Reach(step, self.spans[:shorter])
        return self

    @staticmethod
    def _shifted(span: Interval, step: int) -> Interval:
        return span if span == NOTHING else (span[0] + step, span[1] + step)


IDENTITY = Reach(1, ((0, 0),))


def constant(span: Interval) -> Reach:
    """The reach of something that sees the same pixels wherever one asks."""
    return Reach(0, (span,))


def join(spans: Sequence[Interval]) -> Interval:
    """The smallest interval that holds all of them; empty ones add nothing."""
    seen = [span for span in spans if span[0] <= span[1]]
    if not seen:
        return NOTHING
    return (min(lo for lo, _ in seen), max(hi for _, hi in seen))


@functools.lru_cache(maxsize=256)
def window(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Taps:
    """The taps of a convolution or pool."""
    return Taps(stride, (tuple(range(-padding, -padding + (kernel - 1) * dilation + 1, dilation)),))


def transposed(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Taps:
    """The taps of a transposed convolution: output o reads input i where o = i stride - padding + k dilation.

    With a stride above the kernel some outputs read nothing but the bias.
    """
    units = []
    for phase in range(stride):
        shifted = [phase + padding - k * dilation for k in range(kernel)]
        units.append(tuple(sorted(place // stride for place in shifted if place % stride == 0)))
    return Taps(1, tuple(units))


def nearest(before: int, after: int, exact: bool = False) -> Taps:
    """The taps of nearest-neighbour resizing from `before` to `after` units: output o reads o before / after.

    Args:
        before: size of the input.
        after: size of the output.
        exact: take the middle of the output unit, as `nearest-exact` does.
    """
    period, advance = _ratio(before, after)
    half = 1 if exact else 0
    return Taps(advance, tuple(((2 * r + half) * advance // (2 * period),) for r in range(period)))


def linear(before: int, after: int, align_corners: bool, beyond: int = 0) -> Taps:
    """The taps of linear resizing: the two input units beside the place of the output unit.

    The place is (o + 1/2) before / after - 1/2, or o (before - 1) / (after - 1) with aligned corners. A
    place that falls on a unit reads that one only. Cubic resizing reads one more `beyond` on either side.
    """
    if align_corners:
        period, advance = _ratio(before - 1, after - 1) if after > 1 and before > 1 else (1, 0)
        places = [Fraction(r * advance, period) for r in range(period)]
    else:
        period, advance = _ratio(before, after)
        places = [(r + Fraction(1, 2)) * Fraction(advance, period) - Fraction(1, 2) for r in range(period)]
    units = []
    for place in places:
        low = place.numerator // place.denominator
        units.append((low,) if place == low else tuple(range(low - beyond, low + 2 + beyond)))
    return Taps(advance, tuple(units))


def adaptive(before: int, after: int) -> Taps:
    """The taps of adaptive pooling: output o reads floor(o n / m) up to ceil((o + 1) n / m), n to m units."""
    period, advance = _ratio(before, after)
    units = []
    for r in range(period):
        first, end = r * advance // period, -(-(r + 1) * advance // period)
        units.append((first, end - 1))
    return Taps(advance, tuple(units))


def _ratio(before: int, after: int) -> tuple[int, int]:
    """Output units and input units of one period of a resizing."""
    common = gcd(before, after)
    return after // common, before // common


def joined(reach: Reach, units: int, inner: int) -> Reach | None:
    """The reach along an axis that joins several: its unit i is this axis' unit (i // inner) % units.

    None where the pattern is longer than `MAX_PERIOD`.
    """
    period = inner * units
    if period > MAX_PERIOD:
        return None
    return Reach(0, tuple(reach.at(r // inner) for r in range(period)))


def parted(reach: Reach, inner: int) -> tuple[Reach, bool] | None:
    """Undo `joined`: the reach along the outer or the inner of two axes that one is split into.

    Args:
        reach: along the axis that is split.
        inner: size of the inner axis.

    Returns:
        The reach and whether it belongs to the outer axis; None where it changes along both.
    """

    def moved(distance: int, start: int) -> bool:
        return reach.at(start) != reach.at(start + distance)

    period = len(reach.spans)
    if not any(moved(1, unit) for unit in range(period * inner) if (unit + 1) % inner):
        return reach.through(Taps(inner, ((0,),))), True
    if not any(moved(inner, unit) for unit in range(period)):
        return fitted([reach.at(unit) for unit in range(inner)]), False
    return None


def fitted(spans: Sequence[Interval]) -> Reach:
    """The reach with the shortest period whose first units see `spans`."""
    for period in range(1, len(spans)):
        step = spans[period][0] - spans[0][0]
        if all(
            (spans[r][0] + step, spans[r][1] + step) == spans[r + period] for r in range(len(spans) - period)
        ):
            return Reach(step, tuple(spans[:period]))
    return Reach(0, tuple(spans))
