"""Write ONNX files without the package `onnx`.

An ONNX file is one message of Protocol Buffers, a `ModelProto` (https://onnx.ai/onnx/repo-docs/IR.html). The
numbers of the fields below are those of `onnx.proto`, the encoding is that of
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

IR_VERSION, OPSET = 8, 17  # of ONNX 1.12 (2022): what every current runtime reads; the first with LayerNorm
LIMIT = (1 << 31) - 1  # bytes of a message

Array = npt.NDArray[Any]
Part = bytes | memoryview
Dimension = int | str
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9}  # TensorProto.DataType
_FLOAT, _INT, _STRING, _GRAPH, _INTS = 1, 2, 3, 5, 7  # AttributeProto.AttributeType


@dataclass(frozen=True)
class Node:
    """An operator: `outputs = op(inputs)`; an empty name stands for an optional input that is left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Signature:
    """Name, dtype and shape of an input or output of the graph; a name in the shape is a free dimension."""

    name: str
    dtype: str
    shape: tuple[Dimension, ...]


@dataclass(frozen=True)
class Graph:
    """A graph whose nodes are in the order of their execution."""

    name: str
    nodes: Sequence[Node]
    initializers: Mapping[str, Array]
    inputs: Sequence[Signature]
    outputs: Sequence[Signature]


def encode(graph: Graph, producer: tuple[str, str], metadata: Mapping[str, str]) -> Iterator[Part]:
    """The parts of an ONNX file, in order.

    Args:
        graph: the network.
        producer: name and version of the program.
        metadata: further keys and values, which runtimes show.

    Raises:
        OverflowError: the file would have more than `LIMIT` bytes.
    """
    parts = [
        *_int(1, IR_VERSION), *_text(2, producer[0]), *_text(3, producer[1]), *_message(7, _graph(graph)),
        *_message(8, _int(2, OPSET)),
    ]  # fmt: skip
    parts += encode_metadata(metadata)
    if sum(map(len, parts)) > LIMIT:
        raise OverflowError(f"an ONNX file has at most {LIMIT:,} bytes")
    return iter(parts)


def encode_metadata(metadata: Mapping[str, str]) -> list[Part]:
    """The parts of a file with these keys and values; they may also be appended to a complete file."""
    return [
        part for key, value in metadata.items() for part in _message(14, [*_text(1, key), *_text(2, value)])
    ]


def _graph(graph: Graph) -> Iterator[Part]:
    for node in graph.nodes:
        yield from _message(1, _node(node))
    yield from _text(2, graph.name)
    for name, array in graph.initializers.items():
        yield from _message(5, _tensor(name, array))
    for number, signatures in ((11, graph.inputs), (12, graph.outputs)):
        for signature in signatures:
            yield from _message(number, _signature(signature))


def _node(node: Node) -> Iterator[Part]:
    for name in node.inputs:
        yield from _text(1, name)
    for name in node.outputs:
        yield from _text(2, name)
    yield from _text(3, node.outputs[0])
    yield from _text(4, node.op)
    for name, value in node.attributes.items():
        yield from _message(5, [*_text(1, name), *_attribute(value)])


def _attribute(value: Any) -> list[Part]:
    if isinstance(value, str):
        kind, parts = _STRING, _text(4, value)
    elif isinstance(value, Graph):
        kind, parts = _GRAPH, _message(6, _graph(value))
    elif isinstance(value, float):
        kind, parts = _FLOAT, [_key(2, 5), struct.pack("<f", value)]
    elif isinstance(value, int):
        kind, parts = _INT, _int(3, value)
    else:
        kind, parts = _INTS, [part for item in value for part in _int(8, item)]
    return [*parts, *_int(20, kind)]


def _tensor(name: str, array: Array) -> Iterator[Part]:
    for size in array.shape:
        yield from _int(1, size)
    yield from _int(2, _TYPES[array.dtype.name])
    yield from _text(8, name)
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""
    yield from (_key(9, 2), _varint(len(content)), content)


def _signature(signature: Signature) -> Iterator[Part]:
    sizes: list[Part] = []
    for size in signature.shape:
        sizes += _message(1, _text(2, size) if isinstance(size, str) else _int(1, size))
    tensor = [*_int(1, _TYPES[signature.dtype]), *_message(2, sizes)]
    yield from _text(1, signature.name)
    yield from _message(2, _message(1, tensor))


def _message(number: int, content: Iterable[Part]) -> list[Part]:
    parts = list(content)
    return [_key(number, 2), _varint(sum(map(len, parts))), *parts]


def _text(number: int, text: str) -> list[Part]:
    return _bytes(number, text.encode("utf-8", "surrogateescape"))


def _bytes(number: int, content: bytes) -> list[Part]:
    return [_key(number, 2), _varint(len(content)), content]


def _int(number: int, value: int) -> list[Part]:
    return [_key(number, 0), _varint(value % (1 << 64))]


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the highest bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
