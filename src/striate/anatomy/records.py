"""The result of a trace: one `Layer` for each step of a network, and the `Anatomy` that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from striate.anatomy import table
from striate.anatomy.receptive_fields import Interval, ReceptiveField

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a module without submodules, or an operator that a larger module calls directly.

    Attributes:
        name: path of the module in the network; for an operator the path of the calling module, followed by
            the operator's name.
        type: class of the module, or name of the operator.
        output: shape of the (first) result, batch included.
        kernel, stride, padding, dilation: of a convolution or pool, one number for each image axis; None for
            other layers.
        groups: of a convolution; None for other layers.
        fields: the receptive field along each image axis (None: unknown); empty if the network does not read
            images or the layer does not depend on them.
        dims: for each image axis, the dimensions of the output that run along it: none after global pooling,
            two if a map is cut into windows, the same one for all axes in a sequence of patches.
        whole_image: whether a global path (squeeze-and-excitation, attention, global pooling) makes every
            unit depend on the whole image.
        params: trainable and frozen parameters that are first used here, so shared ones count once.
        macs: multiply-accumulates (`striate.anatomy.costs` has the conventions).
        activation: bytes of its results, without views, in-place results, and the indices and statistics that
            some operators return in addition.
        inputs: indices of the layers whose results it reads; -1 is the network's input.
        geometry: how the output size follows from the input size, one entry for each operator: `kind`
            (window, fixed, scale, slice, pad, same, flat, product, other) and its parameters.
        shared: whether its module or its parameters were used before.
        image: size of the network's input along each image axis.
    """

    name: str
    type: str
    output: Numbers
    kernel: Numbers | None = None
    stride: Numbers | None = None
    padding: Numbers | None = None
    dilation: Numbers | None = None
    groups: int | None = None
    fields: tuple[ReceptiveField | None, ...] = ()
    dims: tuple[Numbers, ...] = ()
    whole_image: bool = False
    params: int = 0
    macs: int = 0
    activation: int = 0
    inputs: Numbers = ()
    geometry: tuple[dict[str, Any], ...] = ()
    shared: bool = False
    image: Numbers = ()

    @property
    def rf(self) -> tuple[int | None, ...]:
        """Receptive field in pixels along each axis, without global paths."""
        return tuple(None if field is None else field.size for field in self.fields)

    @property
    def rf_strict(self) -> tuple[int | None, ...]:
        """Receptive field in pixels along each axis, with global paths."""
        return self.rf if not self.whole_image else self.image

    @property
    def spatial(self) -> tuple[bool, ...]:
        """For each image axis, whether the output still extends along it."""
        return tuple(map(bool, self.dims))

    @property
    def is_map(self) -> bool:
        """Whether the output is a batch of feature maps, with one dimension for rows and one for columns."""
        dims = [dim for axis in self.dims for dim in axis]
        return len(self.output) == 4 and len(self.dims) == 2 and len(dims) == len({0, *dims}) - 1 == 2

    @property
    def map_size(self) -> Numbers:
        """Rows and columns of a feature map."""
        return tuple(self.output[dim] for axis in self.dims for dim in axis)

    @property
    def jump(self) -> tuple[Fraction | None, ...]:
        """Pixels between the centers of neighboring units; None along an axis without neighbors."""
        pairs = zip(self.fields, self.spatial, strict=True)
        return tuple(field.jump if field is not None and spatial else None for field, spatial in pairs)

    @property
    def start(self) -> tuple[float | None, ...]:
        """Center of the first unit's receptive field; the first pixel spans 0 to 1."""
        return tuple(
            None if not field or not field.size else (sum(field.at(0)) + 1) / 2 for field in self.fields
        )

    def sees(self, unit: tuple[int, ...]) -> tuple[Interval | None, ...]:
        """First and last pixel of one unit's receptive field along each axis, padding included.

        Args:
            unit: index of the unit along each axis of the feature map.
        """
        pairs = zip(self.fields, unit, strict=True)
        return tuple(None if field is None else field.at(index) for field, index in pairs)


@dataclass(frozen=True)
class Anatomy:
    """The layers of a network, from one forward pass.

    Attributes:
        model: name of the network or class of the module.
        input: shapes of the input tensors.
        layers: in the order in which they ran.
        total_params: parameters of the whole module, shared ones counted once.
        trainable: those of them that require a gradient.
        unused: number of parameters that the pass did not use, by the module that holds them.
        buffers: number of values in the module's buffers.
        modules: class of each module by its path, for tables with fewer levels.
        outputs: shapes of all output tensors.
        uncounted: operators with unknown MACs, and how often they ran.
        untracked: operators with unknown effect on the receptive field, and how often they ran.
    """

    model: str
    input: tuple[Numbers, ...]
    layers: tuple[Layer, ...]
    total_params: int
    trainable: int
    unused: dict[str, int]
    buffers: int
    modules: dict[str, str]
    outputs: tuple[Numbers, ...]
    uncounted: dict[str, int]
    untracked: dict[str, int]

    __repr__ = table.to_line
    _repr_html_ = table.to_html

    @property
    def params(self) -> int:
        """Parameters that the pass used, shared ones counted once; without GoogLeNet's auxiliary heads."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass over the whole batch."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation(self) -> int:
        """Bytes that the forward pass writes: about what training has to keep for the backward pass."""
        return sum(layer.activation for layer in self.layers)

    @property
    def image(self) -> Numbers:
        """Size of the input along each image axis; empty if the input is not an image."""
        first = self.input[0] if self.input else ()
        return first[2:] if 3 <= len(first) <= 5 else ()

    def layer(self, name: str) -> Layer:
        """The last layer with this name.

        Raises:
            UsageError: no layer has this name; the message lists near matches.
        """
        from striate.errors import unknown_name

        for layer in reversed(self.layers):
            if layer.name == name:
                return layer
        names = list(dict.fromkeys(layer.name for layer in self.layers))
        raise unknown_name("layer", name, names, "`striate anatomy MODEL` lists them")
