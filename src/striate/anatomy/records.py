"""What a trace finds out: one `Layer` for each step of a network, and the `Anatomy` that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from striate.anatomy.field import Interval, Reach

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """One step: a module without modules inside, or an operator that a larger module calls by itself.

    Attributes:
        name: path of the module in the network; for an operator that of the module that calls it, with the
            operator's name behind.
        type: class of the module, or name of the operator.
        output: shape of the result, the batch first; of the first tensor where there are several.
        kernel, stride, padding, dilation: of a convolution or pool, one number for each axis of the image;
            None elsewhere.
        groups: of a convolution; None elsewhere.
        reach: what its units see, for each axis of the image (`Reach`; None: not known); an empty tuple
            where the network does not read images or the step does not depend on them.
        moves: whether its units lie along the axis (they no longer do after global pooling).
        whole: whether a global path (squeeze-and-excitation, attention, global pooling) lets every unit see
            the whole image.
        params: trainable and frozen parameters that first take part here; shared ones count once.
        macs: multiply-accumulates (`striate.anatomy.costs` has the conventions).
        activation: bytes of its results; views and what is computed in place take none, nor do the indices
            and statistics that some operators return beside.
        inputs: indices of the layers whose results it reads; -1 is the input of the network.
        rule: how its size follows from that of its input, one entry for each operator in it: `kind` (window,
            fixed, scale, slice, pad, same, flat, product, other) and the numbers that go with it.
        shared: whether its module or parameters had been used before.
        image: size of the input on each axis of the image.
    """

    name: str
    type: str
    output: Numbers
    kernel: Numbers | None = None
    stride: Numbers | None = None
    padding: Numbers | None = None
    dilation: Numbers | None = None
    groups: int | None = None
    reach: tuple[Reach | None, ...] = ()
    moves: tuple[bool, ...] = ()
    whole: bool = False
    params: int = 0
    macs: int = 0
    activation: int = 0
    inputs: Numbers = ()
    rule: tuple[dict[str, Any], ...] = ()
    shared: bool = False
    image: Numbers = ()

    @property
    def rf(self) -> tuple[int | None, ...]:
        """Receptive field in pixels for each axis, global paths aside."""
        return tuple(None if reach is None else reach.size for reach in self.reach)

    @property
    def rf_strict(self) -> tuple[int | None, ...]:
        """Receptive field with global paths: None for an axis of which it is not known."""
        return self.rf if not self.whole else self.image

    @property
    def jump(self) -> tuple[Fraction | None, ...]:
        """Pixels between the centres of neighbouring units; None where there are no neighbours."""
        pairs = zip(self.reach, self.moves, strict=True)
        return tuple(reach.jump if reach is not None and moves else None for reach, moves in pairs)

    @property
    def start(self) -> tuple[float | None, ...]:
        """Centre of the field of the first unit, where the first pixel spans 0 to 1."""
        return tuple(
            None if reach is None or not reach.size else (reach.at(0)[0] + reach.at(0)[1] + 1) / 2
            for reach in self.reach
        )

    def sees(self, unit: tuple[int, ...]) -> tuple[Interval | None, ...]:
        """First and last pixel, on each axis, of what one unit sees; beyond the image is padding.

        Args:
            unit: place of the unit on each axis of the feature map.
        """
        return tuple(
            None if reach is None else reach.at(place) for reach, place in zip(self.reach, unit, strict=True)
        )


@dataclass(frozen=True)
class Anatomy:
    """What one forward pass of a network consists of.

    Attributes:
        model: name of the network or class of the module.
        input: shapes of the tensors that it was given.
        layers: in the order in which they ran.
        total_params: of the whole module, shared ones once.
        trainable: those of them that require a gradient.
        unused: parameters that took no part, by the module that holds them.
        buffers: numbers in the module's buffers.
        modules: class of each module by its path, for tables that show fewer levels.
        outputs: shapes of all tensors that came out.
        uncounted: operators whose MACs are not known, with how often they ran.
        untracked: operators whose effect on the receptive field is not known, likewise.
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

    @property
    def params(self) -> int:
        """Parameters that take part, shared ones once: GoogLeNet's without its auxiliary heads."""
        return sum(layer.params for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass, of the whole batch."""
        return sum(layer.macs for layer in self.layers)

    @property
    def activation(self) -> int:
        """Bytes of all tensors that the forward pass writes: what training keeps, or a little more."""
        return sum(layer.activation for layer in self.layers)

    @property
    def image(self) -> Numbers:
        """Size of the input on each axis of the image; empty where it is none."""
        first = self.input[0] if self.input else ()
        return first[2:] if 3 <= len(first) <= 5 else ()

    def layer(self, name: str) -> Layer:
        """The last layer of that name.

        Raises:
            UsageError: there is none; the message has the near matches.
        """
        from striate.errors import unknown_name

        for layer in reversed(self.layers):
            if layer.name == name:
                return layer
        names = list(dict.fromkeys(layer.name for layer in self.layers))
        raise unknown_name("layer", name, names, "`striate anatomy MODEL` lists them")
