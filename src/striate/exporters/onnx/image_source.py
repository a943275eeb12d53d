"""From pixels to the tokens of a network that reads the text in images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from torch import Tensor, nn

from striate.exporters.onnx import PIXELS, normalize
from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.file import Signature
from striate.exporters.onnx.operators import OPERATORS, translate
from striate.exporters.onnx.recorder import IMAGES, Step, record
from striate.kernels.folding import fold_norm
from striate.models.image_encoders import Columns, Network, Patches
from striate.models.seq2seq import ImageToText
from striate.transforms.preprocess import Preprocess

_FLOAT = 1  # TensorProto.DataType
WIDTHS = "widths"  # an input


class ImageSource:
    """The source of a network that reads text in images: pixels, and their widths if these differ.

    Args:
        network: in evaluation mode.
        preprocess: of its images.

    Attributes:
        builder: of the graph, with the steps of an encoder that is a network of `MODELS`.
        inputs: of the graph.
    """

    def __init__(self, network: ImageToText, preprocess: Preprocess) -> None:
        self._network, self._preprocess, self._front = network, preprocess, network.front
        self._steps: Sequence[Step] = ()
        self._result = IMAGES
        if isinstance(self._front, Network):
            shape = (preprocess.channels, *preprocess.size)
            self._steps, self._result = record(_Vectors(self._front), shape, OPERATORS)
        self._has_widths = preprocess.resize == "line" and not isinstance(self._front, Network)
        self.builder = Builder(self._steps, dict([*network.named_parameters(), *network.named_buffers()]))
        height, width = preprocess.size
        columns = "width" if self._has_widths else width
        widths = (Signature(WIDTHS, "int64", ("batch",)),) if self._has_widths else ()
        self.inputs = (Signature(PIXELS, "uint8", ("batch", height, columns, preprocess.channels)), *widths)

    def embed(self) -> tuple[str, str]:
        """Names of the embedded tokens `[batch, tokens, width]` and of their mask `[batch, tokens]`."""
        add, network = self.builder.add, self._network
        normalize(self.builder, self._preprocess, None if self._has_widths else self._preprocess.size[1])
        x, mask, rows = self._grid()
        x = add("MatMul", x, network.project.weight.detach().t().contiguous())
        x = add("Add", x, network.project.bias.detach().clone())
        first, second = network.rows.width, network.columns.width
        if network.rows.kind != "none":  # a row's vector is the first half, a column's the second
            tables = (part.table.detach().numpy() for part in (network.rows, network.columns))
            above, beside = (
                self.builder.constant(np.pad(table, ((0, 0), sides)))
                for table, sides in zip(tables, ((0, second), (first, 0)), strict=True)
            )
            above = add("Slice", above, self._numbers(0), self._numbers(rows), self._numbers(0))
            beside = add("Slice", beside, self._numbers(0), self._size(x, 2), self._numbers(0))
            x = add("Add", x, add("Unsqueeze", above, self._numbers(1)))
            x = add("Add", x, beside)
        x = add("Reshape", x, self._numbers(0, -1, first + second))
        mask = add("Expand", add("Unsqueeze", mask, self._numbers(1)), self._numbers(1, rows, 1))
        return x, add("Reshape", mask, self._numbers(0, -1))

    def _grid(self) -> tuple[str, str, int]:
        """Names of vectors `[batch, rows, columns, channels]` and of the mask of columns; the rows."""
        add, front = self.builder.add, self._front
        if isinstance(front, Columns):
            return *self._columns(front), 1
        if isinstance(front, Patches):
            return *self._patches(front), front.height // front.patch
        for step in self._steps:
            translate(self.builder, step)
        rows, columns = self._result.shape[1:3]
        sizes = add("Concat", self._size(PIXELS, 0), self._numbers(columns), axis=0)
        mask = add("Expand", self.builder.constant(np.array(True)), sizes)
        return self.builder.name(self._result), mask, rows

    def _columns(self, front: Columns) -> tuple[str, str]:
        add = self.builder.add
        x, widths = self._padded(4)
        x = add("Mul", x, self._mask(x, widths))
        for layers in zip(front.convolutions, front.norms, front.pools, strict=True):
            convolution, norm, pool = layers
            weight, bias = fold_norm(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm))
            assert bias is not None
            x = add("Relu", add("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[1] * 4))
            x = add("MaxPool", x, kernel_shape=list(pool), strides=list(pool))
            widths = self._divided(widths, pool[1])
            x = add("Mul", x, self._mask(x, widths))
        x = add("Reshape", x, self._numbers(0, front.channels, -1))
        x = add("Unsqueeze", add("Transpose", x, perm=[0, 2, 1]), self._numbers(1))
        return x, self._inside(x, 2, widths)

    def _patches(self, front: Patches) -> tuple[str, str]:
        add, layer, sides = self.builder.add, front.conv_proj, [front.patch] * 2
        x, widths = self._padded(front.patch)
        x = add("Mul", x, self._mask(x, widths))
        bias = () if layer.bias is None else (layer.bias,)
        x = add("Conv", x, layer.weight, *bias, kernel_shape=sides, strides=sides)
        x = add("Transpose", x, perm=[0, 2, 3, 1])
        return x, self._inside(x, 2, self._divided(widths, front.patch))

    def _padded(self, multiple: int) -> tuple[str, str]:
        """The normalized images, padded with zeros to a multiple of columns, and their widths."""
        add, x = self.builder.add, self.builder.name(IMAGES)
        width = self._size(x, 3)
        missing = add("Mod", add("Neg", width), self._numbers(multiple))
        pads = add("Concat", self._numbers(*[0] * 7), missing, axis=0)
        widths = WIDTHS if self._has_widths else add("Expand", width, self._size(x, 0))
        return add("Pad", x, pads), widths

    def _inside(self, x: str, axis: int, widths: str) -> str:
        """Whether each column, along an axis of `x`, is one of the image: `[batch, columns]`."""
        add = self.builder.add
        size = add("Squeeze", self._size(x, axis), self._numbers(0))
        zero, one = (self.builder.constant(np.array(number, np.int64)) for number in (0, 1))
        return add("Less", add("Range", zero, size, one), add("Unsqueeze", widths, self._numbers(1)))

    def _mask(self, x: str, widths: str) -> str:
        """1 for the columns of an image, 0 for its padding: `[batch, 1, 1, columns]`."""
        inside = self.builder.add("Cast", self._inside(x, 3, widths), to=_FLOAT)
        return self.builder.add("Unsqueeze", inside, self._numbers(1, 2))

    def _divided(self, widths: str, step: int) -> str:
        """Widths divided by a number, rounded up."""
        more = self.builder.add("Add", widths, self._numbers(step - 1))
        return self.builder.add("Div", more, self._numbers(step))

    def _size(self, x: str, axis: int) -> str:
        """The size of an axis, int64 `[1]`."""
        return self.builder.add("Shape", x, start=axis, end=axis + 1)

    def _numbers(self, *values: int) -> str:
        return self.builder.constant(np.array(values, np.int64))


class _Vectors(nn.Module):
    """An image encoder without its mask, which is all True."""

    def __init__(self, front: Network) -> None:
        super().__init__()
        self.front = front

    def forward(self, images: Tensor) -> Tensor:
        """`[batch, channel, height, width]` -> `[batch, rows, columns, channels]`."""
        vectors: Tensor = self.front(images)[0]
        return vectors
