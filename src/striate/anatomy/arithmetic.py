"""The arithmetic of convolutions, by hand: sizes, receptive fields, and what stacks of small kernels save."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from striate.anatomy.field import IDENTITY, Reach, window
from striate.anatomy.shapes import transposed_size, window_size
from striate.errors import UsageError


def conv_output_size(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    *,
    ceil: bool = False,
    transposed: bool = False,
    output_padding: int = 0,
) -> int:
    """N = floor((W - F + 2 P) / S) + 1, the size that a convolution or pool makes of W pixels.

    Args:
        size: W, pixels on one side of the input.
        kernel: F.
        stride: S.
        padding: P, on each side.
        dilation: distance of neighbouring taps; the kernel then spans D (F - 1) + 1 pixels.
        ceil: round up, as pools with `ceil_mode` do, unless the last window would begin in the padding
            behind the image.
        transposed: the size that a transposed convolution makes: (N - 1) S - 2 P + D (F - 1) + 1 and
            `output_padding` more.
        output_padding: only where `transposed`; less than stride or dilation.

    Raises:
        UsageError: a value that no convolution has, or a kernel that does not fit into the padded input.
    """
    _check(size, kernel, stride, padding, dilation)
    if transposed:
        if not 0 <= output_padding < max(stride, dilation):
            raise UsageError(
                f"output padding {output_padding}",
                f"it has to be less than the stride ({stride}) or the dilation ({dilation})",
                "It chooses among the sizes that the same convolution would bring to this one",
            )
        result = transposed_size(size, kernel, stride, padding, dilation, output_padding)
    else:
        result = 0
        if dilation * (kernel - 1) + 1 <= size + 2 * padding:
            result = window_size(size, kernel, stride, padding, dilation, ceil)
    if result < 1:
        raise UsageError(
            f"a kernel of {kernel} on {size} pixels",
            f"it spans {dilation * (kernel - 1) + 1} and the padded input is {size + 2 * padding}",
            "Use a smaller kernel, more padding, or a larger input",
        )
    return result


def receptive_field(layers: Iterable[int | Sequence[int]]) -> Reach:
    """What a unit behind a stack of convolutions and pools sees, along one axis.

    F(i) = (F(i + 1) - 1) x stride + ksize, from the last layer to the first.

    Args:
        layers: from the input on, each a kernel size, or kernel, stride, padding and dilation of which the
            latter may be left off.

    Returns:
        `size` is the field in pixels, `jump` the distance of neighbouring units, `at(0)` the first and last
        pixel that the first unit sees.
    """
    reach = IDENTITY
    for layer in layers:
        values = (layer,) if isinstance(layer, int) else tuple(layer)
        kernel, stride, padding, dilation = (*values, *(1, 0, 1)[len(values) - 1 :])
        _check(1, kernel, stride, padding, dilation)
        reach = reach.through(window(kernel, stride, padding, dilation))
    return reach


def _check(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    least = {"input": (size, 1), "kernel": (kernel, 1), "stride": (stride, 1), "padding": (padding, 0)}
    for name, (value, lowest) in {**least, "dilation": (dilation, 1)}.items():
        if value < lowest:
            raise UsageError(
                f"{name} {value}", f"the least that there is is {lowest}", f"Give --{name} {lowest}"
            )


@dataclass(frozen=True)
class Step:
    """One layer, worked out.

    Attributes:
        output: pixels on one side of the result.
        params: weights and, with `bias`, biases.
        macs: multiply-accumulates for a square image.
        lines: the arithmetic, one formula a line.
    """

    output: int
    params: int
    macs: int
    lines: tuple[str, ...]


def explain(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    *,
    channels: int = 3,
    filters: int = 1,
    groups: int = 1,
    ceil: bool = False,
    transposed: bool = False,
    bias: bool = True,
) -> Step:
    """Size, parameters and cost of one convolution on a square image, with every intermediate result.

    Args:
        size: pixels on one side of the input.
        kernel: pixels on one side of the kernel.
        stride: of the convolution.
        padding: on each side.
        dilation: distance of neighbouring taps.
        channels: of the input.
        filters: channels of the output.
        groups: into which the channels are divided.
        ceil: round the size up.
        transposed: a transposed convolution.
        bias: whether each filter has one.

    Raises:
        UsageError: values that do not go together.
    """
    if channels % groups or filters % groups or min(channels, filters, groups) < 1:
        raise UsageError(
            f"{channels} channels, {filters} filters and {groups} groups",
            "both numbers of channels have to be multiples of the groups",
            "Choose numbers that divide",
        )
    output = conv_output_size(size, kernel, stride, padding, dilation, ceil=ceil, transposed=transposed)
    span = dilation * (kernel - 1) + 1
    lines = []
    if dilation > 1:
        lines.append(f"F = D (F - 1) + 1 = {dilation} x ({kernel} - 1) + 1 = {span}, the span of the kernel")
    if transposed:
        lines.append(f"N = (W - 1) S - 2 P + F = ({size} - 1) x {stride} - 2 x {padding} + {span} = {output}")
    else:
        room = size - span + 2 * padding
        places, exact = room // stride, room % stride == 0
        rounding = (
            f"= {places}" if exact else f"= {room / stride:g}, {'up' if ceil else 'down'} to {output - 1}"
        )
        lines.append("N = (W - F + 2 P) / S + 1")
        lines.append(f"W - F + 2 P = {size} - {span} + 2 x {padding} = {room}")
        lines.append(f"{room} / {stride} {rounding}")
        lines.append(f"N = {output - 1} + 1 = {output}")
        if not exact and not ceil:
            lost = room % stride
            lines.append(f"the last {lost} of the {size + 2 * padding} padded pixels are not read")
    per_group = channels // groups
    weights = kernel * kernel * per_group * filters
    lines.append(
        f"weights: {kernel} x {kernel} x {per_group} x {filters} = {weights:,}"
        + (f", and {filters:,} biases: {weights + filters:,} parameters" if bias else "")
    )
    points = size if transposed else output
    macs = weights * points * points
    lines.append(f"multiply-accumulates: {weights:,} x {points} x {points} = {macs:,}")
    return Step(output, weights + (filters if bias else 0), macs, tuple(lines))


@dataclass(frozen=True)
class Stack:
    """Convolutions of stride 1 in a row, all with C channels in and out, without biases.

    Attributes:
        kernels: of the layers.
        sight: pixels that a unit behind them sees.
        weights: the factor of C^2 in the number of parameters; also the MACs for each pixel.
    """

    kernels: tuple[int, ...]
    sight: int
    weights: int

    @property
    def name(self) -> str:
        """As people write it: 3x3, 3x3."""
        return ", ".join(f"{kernel}x{kernel}" for kernel in self.kernels)


def stack(kernels: Sequence[int]) -> Stack:
    """What a stack of convolutions sees and costs (Simonyan, Zisserman 2015, arXiv:1409.1556, section 2.3).

    Two 3x3 see as much as one 5x5 with 2 x 9 C^2 parameters instead of 25 C^2; three see 7x7 with 27 C^2
    instead of 49 C^2.
    """
    if not kernels:
        raise UsageError("an empty stack", "there is nothing to add up", "Write kernels as 3x3,3x3")
    return Stack(tuple(kernels), receptive_field(kernels).size, sum(kernel**2 for kernel in kernels))


@dataclass(frozen=True)
class Reduction:
    """A convolution beside the same with a 1x1 in front that takes channels away.

    Attributes:
        plain: MACs without it.
        reduced: MACs with it, its own included.
        plain_weights: parameters without it, biases aside.
        reduced_weights: parameters with it.
    """

    plain: int
    reduced: int
    plain_weights: int
    reduced_weights: int


def reduction(size: int, channels: int, filters: int, kernel: int, bottleneck: int) -> Reduction:
    """What a 1x1 convolution saves in front of a larger one (Szegedy et al. 2015, arXiv:1409.4842).

    Args:
        size: pixels on one side of the feature map, which stays as it is.
        channels: that come in.
        filters: that go out.
        kernel: of the larger convolution.
        bottleneck: channels between the two.
    """
    if min(size, channels, filters, kernel, bottleneck) < 1:
        raise UsageError(
            "a reduction with a size below 1", "there is nothing to convolve", "Give numbers from 1"
        )
    pixels = size * size
    plain = kernel * kernel * channels * filters
    reduced = channels * bottleneck + kernel * kernel * bottleneck * filters
    return Reduction(plain * pixels, reduced * pixels, plain, reduced)
