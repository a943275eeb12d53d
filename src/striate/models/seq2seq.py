"""Sequence to sequence: text to text, and image to text.

The Transformer of Vaswani et al. 2017 (arXiv:1706.03762), with the layers of `transformer.py`. The encoder
returns `(memory, mask)`: vectors `[batch, source tokens, width]`, and True where there is a token. The
decoder sees nothing else of the source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from striate import models
from striate.errors import UsageError, unknown_name
from striate.models.image_encoders import image_front
from striate.models.text_decoder import Positions, TextDecoder, TokenEmbedding
from striate.models.transformer import Encoder


class SequenceToSequence(nn.Module):
    """An encoder for any source, and a decoder that writes text: the base class of the networks below.

    Args:
        decoder: writes the text.
        pad: number of the padding token in the target.
    """

    # A source to its memory `[batch, source tokens, width]` and mask `[batch, source tokens]`, True = attend;
    # memory at padding is arbitrary. Each network takes further arguments of its kind of source.
    encode: Callable[..., tuple[Tensor, Tensor]]

    def __init__(self, decoder: TextDecoder, pad: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.pad = pad

    def forward(self, source: Tensor, target: Tensor, **more: Any) -> Tensor:
        """Score the next token after each token of the target (teacher forcing).

        Args:
            source: as in `encode`.
            target: `[batch, tokens]` int64, starting with BEGIN; padding comes last.
            more: as in `encode`.

        Returns:
            Logits `[batch, tokens, target_vocab]`.
        """
        memory, mask = self.encode(source, **more)
        return self.decoder(target, memory, mask)

    def loss(
        self, source: Tensor, target: Tensor, expected: Tensor, smoothing: float = 0.0, **more: Any
    ) -> Tensor:
        """Mean cross-entropy of the expected tokens, in nats, without padding.

        Args:
            source: as in `encode`.
            target: as in `forward`.
            expected: the token after each, int64 `[batch, tokens]`: `target` without BEGIN, with END.
            smoothing: share of the probability that label smoothing spreads over all tokens (section 5.4).
            more: as in `encode`.

        Returns:
            A scalar.
        """
        logits = self(source, target, **more).flatten(0, 1)  # [batch * tokens, target_vocab]
        return F.cross_entropy(logits, expected.flatten(), ignore_index=self.pad, label_smoothing=smoothing)


class TextToText(SequenceToSequence):
    """Text to text: the Transformer of the paper, pre-norm.

    Args:
        source_vocab: number of different tokens in the source.
        target_vocab: number of different tokens in the target.
        width: length of a token's vector.
        depth: number of encoder layers.
        heads: of the attentions; divides the width.
        hidden: width between the feed-forward layers.
        dropout: rate on the embedded tokens and in the layers; none on attention weights, as in the paper.
        positions: a kind of `POSITIONS`.
        max_length: maximum number of tokens in a source or target.
        tied: which weights are one matrix: `none`, `target` (embedding and output of the decoder) or `all`
            (also the embedding of the encoder, which requires one vocabulary for both).
        pad: number of the padding token, in source and target.
        decoder_depth: number of decoder layers; `depth` by default.

    Raises:
        UsageError: the arguments contradict each other.
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
        decoder_depth: int | None = None,
    ) -> None:
        check_heads(width, heads)
        if tied == "all" and source_vocab != target_vocab:
            raise UsageError(
                f"one embedding for {source_vocab} and {target_vocab} tokens",
                "tied='all' needs one vocabulary for source and target",
                "Use tied='target', or build one vocabulary of both",
            )
        deep = depth if decoder_depth is None else decoder_depth
        super().__init__(
            TextDecoder(
                target_vocab, width, deep, heads, hidden, dropout, positions, max_length, tied != "none"
            ),
            pad,
        )
        self.embed = TokenEmbedding(source_vocab, width, positions, max_length, dropout)
        if tied == "all":
            self.embed.embedding.weight = self.decoder.embed.embedding.weight
        self.encoder = Encoder(depth, width, heads, hidden, dropout, activation="relu")

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Encode int64 `[batch, tokens]`, `pad` after the last token; at least one token per row."""
        mask = source != self.pad
        return self.encoder(self.embed(source), mask[:, None, None, :]), mask


class ImageToText(SequenceToSequence):
    """Reads the text in an image: a grid of vectors, an encoder, and a decoder that writes the text.

    Args:
        target_vocab: number of different tokens in the text.
        encoder: what makes the vectors: `columns`, convolutions that leave one vector per four columns of
            pixels; `patches`, as in ViT; or a network of `striate.models.MODELS`, cut before its classifier.
        encoder_arguments: `channels` of `columns`, `patch` of `patches`, or those of the network.
        in_channels: 1 for grayscale, 3 for RGB.
        input_size: height and width of the images in pixels. Width None accepts any width, except with a
            network of `MODELS`.
        width: length of a token's vector.
        depth: number of encoder layers; may be 0.
        decoder_depth: number of decoder layers; `depth` by default.
        heads: of the attentions; divides the width.
        hidden: width between the feed-forward layers.
        dropout: rate on the vectors and in the layers.
        positions: a kind of `POSITIONS`.
        max_length: maximum number of tokens in a text, and of rows and columns of vectors.
        tied: embedding and output of the decoder are one matrix.
        pad: number of the padding token in the text.

    Raises:
        UsageError: the arguments contradict each other.
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
        size = (input_size[0], input_size[1])  # a list when it comes from JSON
        self.front = image_front(encoder, in_channels, size, **(encoder_arguments or {}))
        self.project = nn.Linear(self.front.channels, width)
        # The first half of a vector encodes the row, the second half the column.
        self.rows = Positions(positions, width // 2, max_length)
        self.columns = Positions(positions, width - width // 2, max_length)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(depth, width, heads, hidden, dropout, activation="relu")

    def encode(self, source: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode images; their tokens are the grid of vectors, row by row.

        Args:
            source: float `[batch, channel, height, width]`, as `Preprocess` returns it.
            widths: width of each image before padding on the right, in pixels, int64 `[batch]`; None if no
                image is padded.
        """
        x, mask, rows, columns = self.grid(source, widths)
        x = self.embed(x, rows, columns)  # [batch, tokens, width]
        return self.encoder(x, mask[:, None, None, :]), mask

    def grid(self, source: Tensor, widths: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vectors `[batch, tokens, channels]` of images, their mask, and each token's row and column."""
        x, mask = self.front(source, widths)  # [batch, rows, columns, channels], [batch, columns]
        rows, columns = x.shape[1:3]
        self.rows.check(rows)
        self.columns.check(columns)
        tokens = torch.arange(rows * columns, device=x.device)
        mask = mask[:, None, :].expand(-1, rows, -1).flatten(1)  # [batch, tokens]
        return x.flatten(1, 2), mask, tokens // columns, tokens % columns

    def embed(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """`[..., channels]` -> `[..., width]`: a projection plus positions, then dropout."""
        row, column = self.project(x).split([self.rows.width, self.columns.width], dim=-1)
        return self.dropout(torch.cat([self.rows(row, rows), self.columns(column, columns)], dim=-1))


SEQUENCE_MODELS: dict[str, type[SequenceToSequence]] = {
    "text_to_text": TextToText,
    "image_to_text": ImageToText,
}


def build(name: str, **arguments: Any) -> SequenceToSequence:
    """Build a network with fresh weights.

    Args:
        name: a key of `SEQUENCE_MODELS`.
        arguments: of its class, as JSON values.

    Raises:
        UsageError: unknown name or argument.
    """
    if name not in SEQUENCE_MODELS:
        raise unknown_name("sequence model", name, SEQUENCE_MODELS)
    kind = SEQUENCE_MODELS[name]
    models.bind(name, kind, arguments)
    return kind(**arguments)


def check_heads(width: int, heads: int) -> None:
    """Check that the heads divide the width.

    Raises:
        UsageError: they do not.
    """
    if heads < 1 or width % heads:
        raise UsageError(
            f"width {width} for {heads} heads", "each takes an equal part of it", "Use a multiple"
        )
