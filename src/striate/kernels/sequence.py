"""Sequence-to-sequence networks that do no work on padding.

Every layer of a Transformer but attention treats tokens separately, so a batch is packed (`Packing`) once,
and only attention sees rows and columns. `torch.compile` and `torch.export` take the plain networks instead:
the shape of a packed batch depends on its values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from striate.kernels.attention import Cache, attend, project
from striate.kernels.cross_entropy import linear_cross_entropy
from striate.kernels.packing import Packing
from striate.models.seq2seq import ImageToText, SequenceToSequence, TextToText
from striate.models.text_decoder import TextDecoder, TokenEmbedding
from striate.models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer

KeysValues = tuple[Tensor, Tensor]  # each [batch, heads, tokens, width / heads]


def encode(encoder: Encoder, x: Tensor, packing: Packing) -> Tensor:
    """`Encoder.forward` for packed tokens `[n, width]`."""
    mask = packing.attention_mask
    for layer in cast("list[EncoderLayer]", encoder.layers):
        query, key, value = project(layer.self_attention, layer.ln_1(x), 0, 3, packing)
        y = attend(layer.self_attention, query, key, value, mask, packing=packing)
        x = x + layer.drop_path(layer.dropout(y))
        x = x + layer.drop_path(layer.mlp(layer.ln_2(x)))
    return encoder.ln(x)


def memories(decoder: Decoder, memory: Tensor, packing: Packing | None = None) -> list[KeysValues]:
    """Each layer's keys and values of an encoded source.

    Args:
        decoder: its cross-attentions project the source.
        memory: `[batch, source tokens, width]`, or `[n, width]` packed.
        packing: of `memory`, if it is packed.
    """
    layers = cast("list[DecoderLayer]", decoder.layers)
    return [cast(KeysValues, project(layer.cross_attention, memory, 1, 3, packing)) for layer in layers]


def decode(
    decoder: Decoder,
    x: Tensor,
    memories: list[KeysValues],
    memory_mask: Tensor | None = None,
    *,
    packing: Packing | None = None,
    caches: list[Cache] | None = None,
    mask: Tensor | None = None,
    weights: list[tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """`Decoder.forward` for packed tokens, or for the next tokens after cached ones.

    Args:
        decoder: a stack of layers.
        x: `[batch, tokens, width]`, or `[n, width]` packed.
        memories: keys and values of the source, from `memories`.
        memory_mask: True = attend; bool, broadcasts to `[batch, heads, tokens, source tokens]`.
        packing: of `x`, if it is packed.
        caches: one per layer, with the keys and values of earlier tokens. `x` attends to all of them and to
            all of itself, except where `mask` is False.
        mask: True = attend; bool, broadcasts to `[batch, heads, tokens, cached tokens]`; only with `caches`.
        weights: a list that receives each layer's attention weights `[batch, heads, tokens, attended
            tokens]`: to the cached tokens, and to the source.

    Returns:
        The shape of `x`.
    """
    for index, layer in enumerate(cast("list[DecoderLayer]", decoder.layers)):
        collected: list[Tensor] | None = None if weights is None else []
        attention = layer.self_attention
        query, key, value = project(attention, layer.ln_1(x), 0, 3, packing)
        if caches is not None:
            key, value = caches[index].extend(key, value)
        causal = caches is None
        y = attend(attention, query, key, value, mask, causal=causal, packing=packing, weights=collected)
        x = x + layer.dropout(y)
        attention = layer.cross_attention
        (query,) = project(attention, layer.ln_2(x), 0, 1, packing)
        y = attend(attention, query, *memories[index], memory_mask, packing=packing, weights=collected)
        x = x + layer.dropout(y)
        x = x + layer.mlp(layer.ln_3(x))
        if weights is not None and collected is not None:
            weights.append((collected[0], collected[1]))
    return decoder.ln(x)


def embed(embedding: TokenEmbedding, tokens: Tensor, packing: Packing) -> Tensor:
    """`TokenEmbedding.forward` of `[batch, tokens]`, packed: `[n, width]`."""
    embedding.positions.check(tokens.shape[1])
    places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    return embedding(packing.pack(tokens), packing.pack(places))


class PackedTextDecoder(TextDecoder):
    """`TextDecoder` that projects only the tokens of the source, not its padding."""

    def forward(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """As `TextDecoder.forward`."""
        if torch.compiler.is_compiling():
            return super().forward(tokens, memory, mask)
        source = Packing.of(mask)
        keys_values = memories(self.layers, source.pack(memory), source)
        return self.output(decode(self.layers, self.embed(tokens), keys_values, source.attention_mask))


class _PackedSequenceToSequence(SequenceToSequence):
    """What the packed networks share.

    Attributes:
        encode_packed: the arguments of `encode` -> packed memory `[n, width]` and its packing.
    """

    encode_packed: Callable[..., tuple[Tensor, Packing]]

    def encode(self, *source: Any, **more: Any) -> tuple[Tensor, Tensor]:
        """As the plain network's, with zeros at padding."""
        if torch.compiler.is_compiling():
            return super().encode(*source, **more)
        memory, packing = self.encode_packed(*source, **more)
        return packing.unpack(memory), packing.mask

    def loss(
        self, source: Tensor, target: Tensor, expected: Tensor, smoothing: float = 0.0, **more: Any
    ) -> Tensor:
        """As `SequenceToSequence.loss`; can be differentiated once."""
        if torch.compiler.is_compiling():
            return super().loss(source, target, expected, smoothing, **more)
        memory, packing = self.encode_packed(source, **more)
        decoder, target_packing = self.decoder, Packing.of(expected != self.pad)
        x = embed(decoder.embed, target, target_packing)
        keys_values = memories(decoder.layers, memory, packing)
        x = decode(decoder.layers, x, keys_values, packing.attention_mask, packing=target_packing)
        output, expected = decoder.output, target_packing.pack(expected)
        return linear_cross_entropy(x, output.weight, output.bias, expected, smoothing)


class PackedTextToText(_PackedSequenceToSequence, TextToText):
    """`TextToText` without work on padding."""

    def encode_packed(self, source: Tensor) -> tuple[Tensor, Packing]:
        """`TextToText.encode`, packed: `[n, width]` and the packing."""
        packing = Packing.of(source != self.pad)
        return encode(self.encoder, embed(self.embed, source, packing), packing), packing


class PackedImageToText(_PackedSequenceToSequence, ImageToText):
    """`ImageToText` without work on padding, after its convolutions."""

    def encode_packed(self, source: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Packing]:
        """`ImageToText.encode`, packed: `[n, width]` and the packing."""
        x, mask, rows, columns = self.grid(source, widths)
        packing = Packing.of(mask)
        rows, columns = (packing.pack(places.expand(mask.shape)) for places in (rows, columns))
        return encode(self.encoder, self.embed(packing.pack(x), rows, columns), packing), packing
