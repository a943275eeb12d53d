"""Convolution arithmetic by hand: output sizes, receptive fields, and what stacks of small kernels save."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from striate.anatomy.receptive_fields import ONE_PIXEL, ReceptiveField, conv
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
    """Output size of a convolution or pool: N = floor((W - F + 2 P) / S) + 1.

    Args:
        size: W, pixels along one side of the input.
        kernel: F.
        stride: S.
        padding: P, on each side.
        dilation: D; the kernel then spans D (F - 1) + 1 pixels.
        ceil: round up, as pools with `ceil_mode` do, unless the last window would start in the padding after
            the image.
        transposed: the size for a transposed convolution: (N - 1) S - 2 P + D (F - 1) + 1 plus
            `output_padding` (torch.nn.ConvTranspose2d).
        output_padding: only if `transposed`; less than stride or dilation.

    Raises:
        UsageError: an impossible value, or a kernel larger than the padded input.
    """
    _check(size, kernel, stride, padding, dilation)
    span, padded = dilation * (kernel - 1) + 1, size + 2 * padding
    if transposed:
        if not 0 <= output_padding < max(stride, dilation):
            raise UsageError(
                f"output padding {output_padding}",
                f"it has to be less than the stride ({stride}) or the dilation ({dilation})",
                f"Use a value from 0 to {max(stride, dilation) - 1}",
            )
        result = (size - 1) * stride - 2 * padding + span + output_padding
    elif span > padded:
        result = 0
    else:
        result = (padded - span + (stride - 1 if ceil else 0)) // stride + 1
        if ceil and (result - 1) * stride >= size + padding:
            result -= 1
    if result < 1:
        raise UsageError(
            f"a kernel of {kernel} on {size} pixels",
            f"the kernel spans {span} pixels and the padded input has {padded}",
            "Use a smaller kernel, more padding, or a larger input",
        )
    return result


def receptive_field(layers: Iterable[int | Sequence[int]]) -> ReceptiveField:
    """Receptive field of a stack of convolutions and pools, along one axis.

    F(i) = (F(i + 1) - 1) x stride + ksize, from the last layer to the first.

    Args:
        layers: from the input on, each a kernel size, or kernel, stride, padding and dilation, of which the
            last ones may be omitted.

    Returns:
        `size` is the receptive field in pixels, `jump` the distance of neighboring units, `at(0)` the first
        and last pixel of the first unit.
    """
    field = ONE_PIXEL
    for layer in layers:
        values = (layer,) if isinstance(layer, int) else tuple(layer)
        kernel, stride, padding, dilation = (*values, *(1, 0, 1)[len(values) - 1 :])
        _check(1, kernel, stride, padding, dilation)
        field = field.through(conv(kernel, stride, padding, dilation))
    return field


def _check(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    values = {"input": size, "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    for name, value in values.items():
        lowest = 0 if name == "padding" else 1
        if value < lowest:
            raise UsageError(f"{name} {value}", f"it has to be at least {lowest}", f"Use --{name} {lowest}")


@dataclass(frozen=True)
class ConvArithmetic:
    """The arithmetic of one convolution.

    Attributes:
        output: pixels along one side of the output.
        params: weights and, with `bias`, biases.
        macs: multiply-accumulates for a square image.
        lines: the calculation, one formula per line.
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
) -> ConvArithmetic:
    """Output size, parameters and MACs of one convolution on a square image, step by step.

    Args:
        size: pixels along one side of the input.
        kernel: pixels along one side of the kernel.
        stride: of the convolution.
        padding: on each side.
        dilation: spacing between kernel elements.
        channels: of the input.
        filters: channels of the output.
        groups: number of groups that the channels are divided into.
        ceil: round the size up.
        transposed: a transposed convolution.
        bias: whether each filter has a bias.

    Raises:
        UsageError: an impossible combination of values.
    """
    if min(channels, filters, groups) < 1 or channels % groups or filters % groups:
        raise UsageError(
            f"{channels} channels, {filters} filters and {groups} groups",
            "channels and filters have to be positive multiples of the groups",
            "Choose numbers that the number of groups divides",
        )
    window = (size, kernel, stride, padding, dilation)
    output = conv_output_size(*window, ceil=ceil, transposed=transposed)
    weights = kernel * kernel * (channels // groups) * filters
    params = weights + (filters if bias else 0)
    side = size if transposed else output  # the kernel is applied once for each pixel of this map
    macs = weights * side * side
    lines = (
        *_size_lines(window, output, ceil, transposed),
        f"weights: {kernel} x {kernel} x {channels // groups} x {filters} = {weights:,}"
        + (f", plus {filters:,} biases: {params:,} parameters" if bias else ""),
        f"multiply-accumulates: {weights:,} x {side} x {side} = {macs:,}",
    )
    return ConvArithmetic(output, params, macs, lines)


def _size_lines(window: tuple[int, ...], output: int, ceil: bool, transposed: bool) -> list[str]:
    """The calculation of the output size, given the first arguments of `conv_output_size`."""
    size, kernel, stride, padding, dilation = window
    lines = []
    span = dilation * (kernel - 1) + 1
    if dilation > 1:
        lines.append(f"F = D (F - 1) + 1 = {dilation} x ({kernel} - 1) + 1 = {span}, the span of the kernel")
    if transposed:
        lines.append(f"N = (W - 1) S - 2 P + F = ({size} - 1) x {stride} - 2 x {padding} + {span} = {output}")
        return lines
    room = size - span + 2 * padding
    rest = room % stride
    quotient = f"{room // stride}"
    if rest:
        quotient = f"{room / stride:g}, rounded {'up' if ceil else 'down'} to {output - 1}"
    lines += [
        "N = (W - F + 2 P) / S + 1",
        f"W - F + 2 P = {size} - {span} + 2 x {padding} = {room}",
        f"{room} / {stride} = {quotient}",
        f"N = {output - 1} + 1 = {output}",
    ]
    if rest and not ceil:
        lines.append(f"the last {rest} of the {size + 2 * padding} padded pixels are not used")
    return lines


@dataclass(frozen=True)
class Stack:
    """Convolutions of stride 1 in sequence, all with C input and C output channels, without biases.

    Attributes:
        kernels: kernel sizes.
        rf: receptive field of the stack in pixels.
        weights: parameters divided by C^2; also the MACs per pixel divided by C^2.
    """

    kernels: tuple[int, ...]
    rf: int
    weights: int

    @property
    def name(self) -> str:
        """The usual notation: 3x3, 3x3."""
        return ", ".join(f"{kernel}x{kernel}" for kernel in self.kernels)


def stack(kernels: Sequence[int]) -> Stack:
    """Receptive field and parameters of a stack of convolutions.

    Two 3x3 have the receptive field of one 5x5 with 2 x 9 C^2 parameters instead of 25 C^2; three have that
    of one 7x7 with 27 C^2 instead of 49 C^2 (Simonyan, Zisserman 2015, arXiv:1409.1556, section 2.3).
    """
    if not kernels:
        raise UsageError("an empty stack", "it has no kernels", "List kernels as 3x3,3x3")
    return Stack(tuple(kernels), receptive_field(kernels).size, sum(kernel**2 for kernel in kernels))


@dataclass(frozen=True)
class Reduction:
    """A convolution with and without a 1x1 bottleneck in front of it.

    Attributes:
        plain: MACs without the bottleneck.
        reduced: MACs with it, its own included.
    """

    plain: int
    reduced: int


def reduction(size: int, channels: int, filters: int, kernel: int, bottleneck: int) -> Reduction:
    """MACs that a 1x1 bottleneck saves in front of a larger kernel (Szegedy et al. 2015, arXiv:1409.4842).

    Args:
        size: pixels along one side of the feature map; padding keeps the size.
        channels: of the input.
        filters: channels of the output.
        kernel: of the larger convolution.
        bottleneck: channels between the two convolutions.
    """
    values = (size, channels, filters, kernel, bottleneck)
    if min(values) < 1:
        raise UsageError(
            f"a bottleneck with a value of {min(values)}", "sizes and channels start at 1", "Use at least 1"
        )
    pixels = size * size
    plain = kernel * kernel * channels * filters
    reduced = channels * bottleneck + kernel * kernel * bottleneck * filters
    return Reduction(plain * pixels, reduced * pixels)
