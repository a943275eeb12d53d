"""A sequence network as ONNX: the encoder, a decoding step with cache, and the whole greedy search.

The Transformer of Vaswani et al. 2017 (arXiv:1706.03762) with the norms before the sublayers. Each layer is
written by hand, because its sizes depend on the number of texts and of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from striate.data.text.tokens import BOS, EOS, NEVER_GENERATED
from striate.exporters.onnx.builder import Builder
from striate.exporters.onnx.file import Dimension, Graph, Node, Signature
from striate.exporters.onnx.image_source import ImageSource
from striate.models.seq2seq import ImageToText, SequenceToSequence, TextToText
from striate.models.text_decoder import TokenEmbedding
from striate.models.transformer import (
    NORM_EPSILON,
    DecoderLayer,
    Encoder,
    EncoderLayer,
    MultiHeadAttention,
)
from striate.transforms.preprocess import Preprocess

_CAUSAL_LAST = "past + 1"  # the size of a cache after a step
_INT64, _BOOL = 7, 9  # TensorProto.DataType


def encoder_graph(network: SequenceToSequence, preprocess: Preprocess | None = None) -> Graph:
    """Sources -> `source_keys`, `source_values`, `mask` for the decoding step.

    Sources are `source` int64 `[batch, tokens]`; or, with the preprocessing of an image-to-text network,
    `images` uint8 `[batch, height, width, channels]`, padded on the right with any value, and their `widths`
    int64 `[batch]` in pixels before that, unless all images have one width.
    """
    writer = _Writer(network, preprocess)
    names = writer.encode()
    for name, public in zip(names, _MEMORY, strict=True):
        writer.nodes.append(Node("Identity", (name,), (public,)))
    return writer.graph("encoder", writer.inputs, tuple(writer.memory_signatures("source tokens")))


def step_graph(network: SequenceToSequence, preprocess: Preprocess | None = None) -> Graph:
    """One token of each text.

    Inputs are `tokens` int64 `[batch]`, the last ones; `place` int64 `[1]`, the number of earlier steps;
    `keys` and `values` `[layers, batch, heads, past, width / heads]` of those; and what the encoder gives.
    Outputs are `logits` `[batch, vocabulary]`, and `next_keys` and `next_values` with one more token.
    """
    writer = _Writer(network, preprocess)
    results = writer.step("tokens", "place", "keys", "values", _MEMORY)
    outputs = (
        Signature("logits", "float32", ("batch", writer.vocabulary)),
        *(writer.cache(f"next_{name}", _CAUSAL_LAST) for name in ("keys", "values")),
    )
    for name, output in zip(results, outputs, strict=True):
        writer.nodes.append(Node("Identity", (name,), (output.name,)))
    inputs = (
        Signature("tokens", "int64", ("batch",)), Signature("place", "int64", (1,)),
        *(writer.cache(name, "past") for name in ("keys", "values")),
        *writer.memory_signatures("source tokens"),
    )  # fmt: skip
    return writer.graph("step", inputs, outputs)


def greedy_graph(network: SequenceToSequence, preprocess: Preprocess | None = None) -> Graph:
    """Greedy search, until each text has END or `limit` tokens; padding follows END.

    Inputs are those of the encoder and `limit` int64 `[]`; the output is `texts` int64 `[batch, steps]`.
    """
    writer = _Writer(network, preprocess)
    add = writer.builder.add
    memory = writer.encode()
    batch = add("Shape", writer.inputs[0].name, start=0, end=1)
    sizes = [writer.numbers(writer.depth), batch, writer.numbers(writer.heads, 0, writer.head_width)]
    empty = add("ConstantOfShape", add("Concat", *sizes, axis=0))
    first = add("Expand", writer.numbers(BOS), batch)
    ended = add("Equal", first, writer.number(EOS))
    start = ("limit", writer.builder.constant(np.array(True)), first, ended, empty, empty)
    outputs = ("last", "all_ended", "all_keys", "all_values", "steps")
    body = writer.search_body(memory)  # the last one: its names must not be used again
    writer.nodes.append(Node("Loop", start, outputs, {"body": body}))
    writer.nodes.append(Node("Transpose", ("steps",), ("texts",), {"perm": [1, 0]}))
    inputs = (*writer.inputs, Signature("limit", "int64", ()))
    return writer.graph("greedy", inputs, (Signature("texts", "int64", ("batch", "steps")),))


_MEMORY = ("source_keys", "source_values", "mask")


class _Writer:
    """Appends the layers of a network to a graph; methods take and return names."""

    def __init__(self, network: SequenceToSequence, preprocess: Preprocess | None) -> None:
        self.network = network
        self.images: ImageSource | None = None
        self.inputs: tuple[Signature, ...] = (Signature("source", "int64", ("batch", "tokens")),)
        if isinstance(network, ImageToText):
            assert preprocess is not None
            self.images = ImageSource(network, preprocess)
            self.builder, self.inputs = self.images.builder, self.images.inputs
        else:
            self.builder = Builder((), dict([*network.named_parameters(), *network.named_buffers()]))
        self.decoders = cast("list[DecoderLayer]", list(network.decoder.layers.layers))
        attention = self.decoders[0].self_attention
        self.depth, self.heads = len(self.decoders), attention.heads
        self.width = attention.in_proj_weight.shape[1]
        self.head_width = self.width // self.heads
        self.vocabulary = network.decoder.output.weight.shape[0]

    @property
    def nodes(self) -> list[Node]:
        """The nodes so far."""
        return self.builder.nodes

    def graph(self, name: str, inputs: Sequence[Signature], outputs: Sequence[Signature]) -> Graph:
        """The finished graph."""
        return Graph(name, self.nodes, self.builder.constants, inputs, outputs)

    def cache(self, name: str, tokens: Dimension) -> Signature:
        """Keys or values of all layers."""
        return Signature(name, "float32", (self.depth, "batch", self.heads, tokens, self.head_width))

    def memory_signatures(self, tokens: Dimension) -> list[Signature]:
        """What the encoder gives to each step."""
        keys, values, mask = _MEMORY
        return [
            self.cache(keys, tokens),
            self.cache(values, tokens),
            Signature(mask, "bool", ("batch", tokens)),
        ]

    def number(self, value: int) -> str:
        """An int64 constant without axes."""
        return self.builder.constant(np.array(value, np.int64))

    def numbers(self, *values: int) -> str:
        """An int64 constant with one axis."""
        return self.builder.constant(np.array(values, np.int64))

    def encode(self) -> tuple[str, str, str]:
        """Keys and values for each decoder layer, and the mask, of sources."""
        x, mask = self.images.embed() if self.images else self.embed_source()
        add, bias = self.builder.add, self.bias(mask)
        encoder = cast(Encoder, self.network.encoder)
        for layer in cast("list[EncoderLayer]", list(encoder.layers)):
            attention = layer.self_attention
            query, key, value = self.project(attention, self.norm(layer.ln_1, x), 0, 3)
            x = add("Add", x, self.attend(attention, query, key, value, bias))
            x = add("Add", x, self.feed_forward(layer.mlp, self.norm(layer.ln_2, x)))
        x = self.norm(encoder.ln, x)
        pairs = [self.project(layer.cross_attention, x, 1, 3) for layer in self.decoders]
        keys, values = (self.stack(parts) for parts in zip(*pairs, strict=True))
        return keys, values, mask

    def embed_source(self) -> tuple[str, str]:
        """The tokens of texts as vectors, and their mask."""
        add, source, network = self.builder.add, self.inputs[0].name, cast(TextToText, self.network)
        mask = add("Not", add("Equal", source, self.number(network.pad)))
        count = add("Shape", source, start=1, end=2)
        x = self.embed(
            network.embed, source, lambda table: add("Slice", table, self.numbers(0), count, self.numbers(0))
        )
        return x, mask

    def step(
        self, tokens: str, place: str, keys: str, values: str, memory: Sequence[str]
    ) -> tuple[str, str, str]:
        """Logits, keys and values after one more token."""
        add, decoder = self.builder.add, self.network.decoder
        source_keys, source_values, mask = memory
        bias = self.bias(mask)
        row = add("Unsqueeze", tokens, self.numbers(1))
        x = self.embed(decoder.embed, row, lambda table: add("Gather", table, place, axis=0))
        caches: tuple[list[str], list[str]] = ([], [])
        for i, layer in enumerate(self.decoders):
            own, index = layer.self_attention, self.number(i)
            query, *new = self.project(own, self.norm(layer.ln_1, x), 0, 3)
            for part, all_layers, kept in zip(new, (keys, values), caches, strict=True):
                earlier = add("Gather", all_layers, index, axis=0)
                kept.append(add("Concat", earlier, part, axis=2))
            x = add("Add", x, self.attend(own, query, caches[0][-1], caches[1][-1], ""))
            cross = layer.cross_attention
            (query,) = self.project(cross, self.norm(layer.ln_2, x), 0, 1)
            key, value = (add("Gather", part, index, axis=0) for part in (source_keys, source_values))
            x = add("Add", x, self.attend(cross, query, key, value, bias))
            x = add("Add", x, self.feed_forward(layer.mlp, self.norm(layer.ln_3, x)))
        x = add("Squeeze", self.norm(decoder.layers.ln, x), self.numbers(1))
        logits = self.linear(x, decoder.output.weight, decoder.output.bias)
        never = np.zeros(self.vocabulary, np.float32)
        never[list(NEVER_GENERATED)] = -np.inf
        logits = add("Add", logits, self.builder.constant(never))
        return logits, self.stack(caches[0]), self.stack(caches[1])

    def search_body(self, memory: Sequence[str]) -> Graph:
        """The body of ONNX's Loop: it sees the names of the graph around it."""
        add, start = self.builder.add, len(self.nodes)
        place = add("Unsqueeze", "step", self.numbers(0))
        logits, keys, values = self.step("token", place, "keys", "values", memory)
        best = add("ArgMax", logits, axis=1, keepdims=0)
        token = add("Where", "ended", self.number(self.network.pad), best)
        ended = add("Or", "ended", add("Equal", best, self.number(EOS)))
        least = add("ReduceMin", add("Cast", ended, to=_INT64), keepdims=0)
        going = add("Not", add("Cast", least, to=_BOOL))
        results = {
            "going": going,
            "next": token,
            "next_ended": ended,
            "next_keys": keys,
            "next_values": values,
        }
        for public, name in {**results, "written": token}.items():
            self.nodes.append(Node("Identity", (name,), (public,)))
        nodes = self.nodes[start:]
        del self.nodes[start:]
        shapes: Mapping[str, tuple[str, tuple[Dimension, ...]]] = {
            "step": ("int64", ()), "is_going": ("bool", ()), "token": ("int64", ("batch",)),
            "ended": ("bool", ("batch",)),
        }  # fmt: skip
        inputs = [Signature(name, *about) for name, about in shapes.items()]
        inputs += [self.cache(name, "past") for name in ("keys", "values")]
        outputs = [
            Signature("going", "bool", ()), Signature("next", "int64", ("batch",)),
            Signature("next_ended", "bool", ("batch",)),
            *(self.cache(f"next_{name}", _CAUSAL_LAST) for name in ("keys", "values")),
            Signature("written", "int64", ("batch",)),
        ]  # fmt: skip
        return Graph("search", nodes, {}, inputs, outputs)

    def embed(self, embedding: TokenEmbedding, tokens: str, rows_of: Any) -> str:
        """Tokens `[batch, tokens]` to vectors; `rows_of` takes the rows of the table of positions."""
        x = self.builder.add("Gather", embedding.embedding.weight, tokens, axis=0)
        x = self.builder.add("Mul", x, math.sqrt(self.width))
        if embedding.positions.kind == "none":
            return x
        return self.builder.add("Add", x, rows_of(self.builder.name(embedding.positions.table)))

    def norm(self, layer: nn.LayerNorm, x: str) -> str:
        """LayerNorm of each token."""
        return self.builder.add(
            "LayerNormalization", x, layer.weight, layer.bias, axis=-1, epsilon=NORM_EPSILON
        )

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """`x @ weight.T + bias`."""
        product = self.builder.add("MatMul", x, weight.detach().t().contiguous())
        return self.builder.add("Add", product, bias.detach().clone())

    def project(self, attention: MultiHeadAttention, x: str, first: int, last: int) -> list[str]:
        """Some of queries (0), keys (1) and values (2), each `[batch, heads, tokens, width / heads]`."""
        rows = slice(first * self.width, last * self.width)
        x = self.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
        x = self.builder.add("Reshape", x, self.numbers(0, 0, last - first, self.heads, self.head_width))
        x = self.builder.add("Transpose", x, perm=[2, 0, 3, 1, 4])
        return [self.builder.add("Gather", x, self.number(i), axis=0) for i in range(last - first)]

    def attend(self, attention: MultiHeadAttention, query: str, key: str, value: str, bias: str) -> str:
        """softmax(q k^T / sqrt(d) + bias) v, and the output projection."""
        add = self.builder.add
        scores = add(
            "MatMul", add("Mul", query, self.head_width**-0.5), add("Transpose", key, perm=[0, 1, 3, 2])
        )
        scores = add("Add", scores, bias) if bias else scores
        x = add("Transpose", add("MatMul", add("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])
        x = add("Reshape", x, self.numbers(0, 0, self.width))
        return self.linear(x, attention.out_proj.weight, attention.out_proj.bias)

    def feed_forward(self, mlp: nn.Sequential, x: str) -> str:
        """Two linear layers with ReLU between them."""
        x = self.linear(x, mlp[0].get_parameter("weight"), mlp[0].get_parameter("bias"))
        x = self.builder.add("Relu", x)
        return self.linear(x, mlp[3].get_parameter("weight"), mlp[3].get_parameter("bias"))

    def bias(self, mask: str) -> str:
        """0 where a mask `[batch, tokens]` is true, else -inf; `[batch, 1, 1, tokens]`."""
        bias = self.builder.add("Where", mask, 0.0, -torch.inf)
        return self.builder.add("Unsqueeze", bias, self.numbers(1, 2))

    def stack(self, names: Sequence[str]) -> str:
        """Join along a new first axis."""
        rows = [self.builder.add("Unsqueeze", name, self.numbers(0)) for name in names]
        return self.builder.add("Concat", *rows, axis=0)
