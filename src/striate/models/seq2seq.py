"""Sequence to sequence: text to text, image to text, and a tag for each token.

The Transformer of Vaswani et al. 2017 (arXiv:1706.03762), its layers from `transformer.py`. An encoder gives
`(memory, mask)`: vectors `[batch, tokens, width]` of the source, and True where there is a token. The decoder
knows nothing else of the source.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate.errors import UsageError, unknown_name
from striate.models.image_encoders import image_front
from striate.models.linear import Linear
from striate.models.packing import Packing
from striate.models.text_decoder import Positions, TextDecoder, TokenEmbedding
from striate.models.transformer import Dropout, Encoder


class SequenceToSequence(nn.Module):
    """An encoder of anything, and a decoder of text; what the networks below have in common.

    Args:
        decoder: writes the text.
        pad: the number of padding among the target's tokens.
    """

    def __init__(self, decoder: TextDecoder, pad: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.pad = pad

    # The memory of a source, packed `[n, width]`; each network has its own arguments beside the source.
    encode_packed: Callable[..., tuple[Tensor, Packing]]

    def encode(self, source: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        """The memory of a source `[batch, tokens, width]` and its mask `[batch, tokens]`, True = attend."""
        memory, packing = self.encode_packed(source, **more)
        return packing.unpack(memory), packing.mask

    def forward(self, source: Tensor, target: Tensor, **more: Any) -> Tensor:
        """Scores of the next token after each token of the target (teacher forcing).

        Args:
            source: as in `encode`.
            target: `[batch, tokens]` int64, the first of them BEGIN; padding after the last.
            more: as in `encode`.

        Returns:
            Logits `[batch, tokens, target_vocab]`.
        """
        memory, mask = self.encode(source, **more)
        return self.decoder(target, memory, mask)

    def loss(
        self, source: Tensor, target: Tensor, expected: Tensor, smoothing: float = 0.0, **more: Any
    ) -> Tensor:
        """The cross-entropy of the tokens expected, in nats, a mean over those that are not padding.

        It is `F.cross_entropy` of `forward`, without the work on padding.

        Args:
            source: as in `encode`.
            target: `[batch, tokens]` int64, the first of them BEGIN; padding after the last.
            expected: the token after each: `target` without BEGIN, with END, int64 `[batch, tokens]`.
            smoothing: how much of the probability expected is spread over all tokens (section 5.4).
            more: as in `encode`.

        Returns:
            A scalar, to be differentiated once.
        """
        memory, packing = self.encode_packed(source, **more)
        return self.decoder.loss(memory, packing, target, expected, self.pad, smoothing)


class TextToText(SequenceToSequence):
    """Text to text: the paper's Transformer, pre-norm.

    Args:
        source_vocab: how many different tokens the source has.
        target_vocab: how many the target has.
        width: of a token's vector.
        depth: layers of the encoder, and as many of the decoder.
        heads: of the attentions; divides the width.
        hidden: width between the feed-forward layers.
        dropout: on the embedded tokens and in the layers; the attention weights have none, as in the paper.
        positions: a key of `POSITIONS`.
        max_length: tokens of a source or target at most.
        tied: which weights are one matrix: `none`, `target` (embedding and output of the decoder) or `all`
            (the encoder's embedding too, which needs one vocabulary for both).
        pad: the number of padding, in source and target.

    Raises:
        UsageError: arguments that do not go together.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        width: int = 256,
        depth: int = 3,
        heads: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        positions: str = "sinusoidal",
        max_length: int = 1024,
        tied: Literal["none", "target", "all"] = "target",
        pad: int = 0,
    ) -> None:
        check_heads(width, heads)
        if tied == "all" and source_vocab != target_vocab:
            raise UsageError(
                f"one embedding for {source_vocab} and {target_vocab} tokens",
                "tied='all' needs one vocabulary for source and target",
                "Use tied='target', or build one vocabulary of both",
            )
        super().__init__(
            TextDecoder(
                target_vocab, width, depth, heads, hidden, dropout, positions, max_length, tied != "none"
            ),
            pad,
        )
        self.embed = TokenEmbedding(source_vocab, width, positions, max_length, dropout)
        if tied == "all":
            self.embed.embedding.weight = self.decoder.embed.embedding.weight
        self.encoder = Encoder(depth, width, heads, hidden, dropout, activation="relu")

    def encode_packed(self, source: Tensor, weights: list[Tensor] | None = None) -> tuple[Tensor, Packing]:
        """The memory of a source, packed `[n, width]`.

        Args:
            source: int64 `[batch, tokens]`, `pad` where there is none; at least one token in each row.
            weights: as in `Encoder.forward`.
        """
        packing = Packing.of(source != self.pad)
        return self.encoder.read(self.embed(source, packing), packing, weights), packing


class ImageToText(SequenceToSequence):
    """Reads the text in an image: vectors of the image's places, an encoder, and a decoder of text.

    Args:
        target_vocab: how many different tokens the text has.
        encoder: where the vectors come from: `columns`, convolutions that leave one vector for each four
            columns of pixels; `patches`, as in ViT; or a network of `striate.models.MODELS`, cut before its
            classifier.
        encoder_arguments: of the first part: `channels` of `columns`, `patch` of `patches`, or the network's.
        in_channels: 1 for grayscale, 3 for RGB.
        input_size: height and width of the images in pixels; no width (None) for any, which the networks of
            the zoo do not take.
        width: of a token's vector.
        depth: layers of the encoder; 0 for none.
        decoder_depth: layers of the decoder; as many as the encoder's where left out.
        heads: of the attentions; divides the width.
        hidden: width between the feed-forward layers.
        dropout: on the vectors and in the layers.
        positions: a key of `POSITIONS`.
        max_length: tokens of a text, and columns of an image's vectors, at most.
        tied: the decoder's embedding and output are one matrix.
        pad: the number of padding in the text.

    Raises:
        UsageError: arguments that do not go together.
    """

    def __init__(
        self,
        target_vocab: int,
        encoder: str = "columns",
        encoder_arguments: dict[str, Any] | None = None,
        in_channels: int = 1,
        input_size: tuple[int, int | None] = (32, None),
        width: int = 256,
        depth: int = 3,
        decoder_depth: int | None = None,
        heads: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        positions: str = "sinusoidal",
        max_length: int = 1024,
        tied: bool = True,
        pad: int = 0,
    ) -> None:
        check_heads(width, heads)
        deep = depth if decoder_depth is None else decoder_depth
        super().__init__(
            TextDecoder(target_vocab, width, deep, heads, hidden, dropout, positions, max_length, tied), pad
        )
        size = (input_size[0], input_size[1])  # JSON knows no tuples
        self.front = image_front(encoder, in_channels, size, **(encoder_arguments or {}))
        self.project = Linear(self.front.channels, width)
        # Half of a vector's components tell the row, half the column.
        self.rows = Positions(positions, width // 2, max_length)
        self.columns = Positions(positions, width - width // 2, max_length)
        self.dropout = Dropout(dropout)
        self.encoder = Encoder(depth, width, heads, hidden, dropout, activation="relu")

    def encode_packed(
        self, source: Tensor, widths: Tensor | None = None, weights: list[Tensor] | None = None
    ) -> tuple[Tensor, Packing]:
        """The memory of images, packed `[n, width]`: their places row by row.

        Args:
            source: float `[batch, channel, height, width]`, as `Preprocess` gives them.
            widths: of each image before it was padded on the right, in pixels, int64 `[batch]`; None where
                none was.
            weights: as in `Encoder.forward`.
        """
        x, mask = self.front(source, widths)  # [batch, rows, columns, channels], [batch, columns]
        rows, columns = x.shape[1:3]
        for positions, length in ((self.rows, rows), (self.columns, columns)):
            positions.check(length)
        places = torch.arange(rows * columns, device=x.device).expand(x.shape[0], -1)
        packing = Packing.of(mask[:, None, :].expand(-1, rows, -1).flatten(1))
        places = packing.pack(places)
        x = self.project(packing.pack(x.flatten(1, 2)))
        row, column = x.split([self.rows.width, self.columns.width], dim=1)
        x = torch.cat([self.rows(row, places // columns), self.columns(column, places % columns)], dim=1)
        return self.encoder.read(self.dropout(x), packing, weights), packing


class Tagger(nn.Module):
    """A tag for each token: an encoder and a linear layer.

    Args:
        vocab: how many different tokens there are.
        tags: how many different tags.
        width: of a token's vector.
        depth: layers.
        heads: of the attention; divides the width.
        hidden: width between the feed-forward layers.
        dropout: on the embedded tokens and in the layers.
        positions: a key of `POSITIONS`.
        max_length: tokens of a text at most.
        pad: the number of padding among the tokens and among the tags.
    """

    def __init__(
        self,
        vocab: int,
        tags: int,
        width: int = 256,
        depth: int = 3,
        heads: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        positions: str = "sinusoidal",
        max_length: int = 1024,
        pad: int = 0,
    ) -> None:
        check_heads(width, heads)
        super().__init__()
        self.pad = pad
        self.embed = TokenEmbedding(vocab, width, positions, max_length, dropout)
        self.encoder = Encoder(depth, width, heads, hidden, dropout, activation="relu")
        self.head = Linear(width, tags)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[batch, tokens, tags]` for int64 `[batch, tokens]`; zeros where there is padding."""
        packing = Packing.of(tokens != self.pad)
        return packing.unpack(self.head(self.encoder.read(self.embed(tokens, packing), packing)))

    def loss(self, tokens: Tensor, expected: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean cross-entropy of the tags expected, int64 `[batch, tokens]`, `pad` for none."""
        logits = self(tokens).flatten(0, 1)
        return F.cross_entropy(logits, expected.flatten(), ignore_index=self.pad, label_smoothing=smoothing)


SEQUENCE_MODELS: dict[str, type[SequenceToSequence] | type[Tagger]] = {
    "text_to_text": TextToText,
    "image_to_text": ImageToText,
    "tagger": Tagger,
}


def build(name: str, **arguments: Any) -> SequenceToSequence | Tagger:
    """Build a network with fresh weights.

    Args:
        name: a key of `SEQUENCE_MODELS`.
        arguments: of its class; values that JSON knows.

    Raises:
        UsageError: unknown name or argument.
    """
    if name not in SEQUENCE_MODELS:
        raise unknown_name("sequence model", name, SEQUENCE_MODELS)
    kind = SEQUENCE_MODELS[name]
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(kind).parameters)
        raise UsageError(f"cannot build {name} with {arguments}", str(error), f"It takes {takes}") from error
    return kind(**arguments)


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that the heads do not divide.

    Raises:
        UsageError: it is so.
    """
    if heads < 1 or width % heads:
        raise UsageError(
            f"width {width} for {heads} heads", "each takes an equal part of it", "Use a multiple"
        )
