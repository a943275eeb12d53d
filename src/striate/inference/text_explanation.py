"""Explain what a sequence-to-sequence model wrote: what each token of the answer depends on."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from striate.data.text.batches import pad_sequences
from striate.data.text.lines import collate_images
from striate.data.text.tokens import BOS, EOS
from striate.errors import DataError, translated_errors
from striate.explain import drawing
from striate.explain.faithfulness import Faithfulness
from striate.explain.sequences import token_maps
from striate.inference.prediction import NOT_FINITE
from striate.inference.translator import Source, Translator
from striate.transforms.decode import Uint8Array

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SequenceExplanation:
    """What the tokens of an answer depend on.

    Attributes:
        source: the text, or the path of the image.
        text: the answer, by greedy search.
        tokens: of the answer, with `<end>` unless it was cut.
        source_tokens: of the source; empty for an image.
        grid: rows and columns of the image's vectors that the decoder attends to; None for a text.
        encoder: attention of the encoder, float32 `[layers, heads, source tokens, source tokens]`.
        decoder: attention to earlier tokens, `[layers, heads, tokens, tokens]`.
        cross: attention to the source, `[layers, heads, tokens, source tokens]`.
        gradients: sensitivity of each token to the source, `[tokens, source tokens]` or `[tokens, height,
            width]`: see `striate.explain.sequences.TokenMaps`.
        faithfulness: the test of the gradients; None if it was not wanted.
        pixels: uint8 `[height, width, channels]` of an image.
    """

    source: str
    text: str
    tokens: tuple[str, ...]
    source_tokens: tuple[str, ...]
    grid: tuple[int, int] | None
    encoder: Array = field(repr=False)
    decoder: Array = field(repr=False)
    cross: Array = field(repr=False)
    gradients: Array = field(repr=False)
    faithfulness: Faithfulness | None = None
    pixels: Uint8Array | None = field(repr=False, default=None)

    def __repr__(self) -> str:
        """The source and the answer."""
        return f"SequenceExplanation({self.source!r}: {self.text!r}, {len(self.tokens)} tokens)"

    @property
    def alignment(self) -> list[int]:
        """For each token the source token that it depends on most, by its gradient; empty for an image."""
        return [int(row.argmax()) for row in self.gradients] if self.pixels is None else []

    def figure(self) -> Image.Image:
        """Of a text the gradients as a table, a row for each token; of an image their sum over the image."""
        if self.pixels is None:
            return drawing.table(self.gradients, self.tokens, self.source_tokens)
        total = self.gradients.sum(axis=0)
        heat = total / max(float(total.max()), float(np.finfo(np.float32).tiny))
        return drawing.overlay(self.pixels, drawing.smoothed(heat.astype(np.float32)))

    def arrays(self) -> bytes:
        """All maps as the content of a `.npz` file."""
        content = io.BytesIO()
        np.savez(
            content, encoder=self.encoder, decoder=self.decoder, cross=self.cross, gradients=self.gradients
        )
        return content.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the maps themselves."""
        layers, heads = self.cross.shape[:2]
        return {
            "source": self.source, "error": None, "text": self.text, "tokens": list(self.tokens),
            "source_tokens": list(self.source_tokens), "grid": self.grid and list(self.grid),
            "alignment": self.alignment, "attention": {"layers": layers, "heads": heads},
            "faithfulness": self.faithfulness and self.faithfulness.to_json(),
        }  # fmt: skip


@translated_errors()
def explain_seq2seq(translator: Translator, source: Source, *, test: bool = True) -> SequenceExplanation:
    """Explain the answer to one source, found by greedy search.

    Args:
        translator: of texts, or one that reads images.
        source: as for `Translator.translate`.
        test: test the gradients with deletion and insertion curves.

    Raises:
        DataError: the source cannot be read or is empty, or the answer has no finite scores.
    """
    shown, row = translator.read(source)
    if isinstance(row, str):
        raise DataError(f"cannot explain {shown!r}", row)
    if isinstance(row, list) and len(row) == 1:
        raise DataError(f"cannot explain {shown!r}", "it is empty", "Give a text")
    hypothesis = translator.write([row])[0]
    if not np.isfinite(hypothesis.log_probability):
        raise DataError(f"cannot explain {shown!r}", NOT_FINITE, "Use another model: this one is damaged")
    expected = [*hypothesis.tokens, *([EOS] if hypothesis.ended else [])]
    if not expected:
        raise DataError(f"cannot explain {shown!r}", "the answer is empty")
    device = translator.device
    if isinstance(row, list):
        assert translator.source is not None
        inputs, widths, pixels = pad_sequences([row]).to(device), None, None
        source_tokens, grid = tuple(map(translator.source.id_to_token, row)), None
    else:
        inputs, widths = collate_images([row], translator.description.image_preprocess, device)
        pixels, source_tokens, grid = row, (), translator.grid(source)
    maps = token_maps(
        translator.network, inputs, widths, torch.tensor([[BOS, *expected[:-1]]], device=device),
        torch.tensor([expected], device=device), test=test,
    )  # fmt: skip
    shown_tokens = tuple("<end>" if i == EOS else translator.target.id_to_token(i) for i in expected)
    return SequenceExplanation(
        shown, translator.target.decode(hypothesis.tokens), shown_tokens, source_tokens, grid,
        _array(maps.encoder), _array(maps.decoder), _array(maps.cross), _array(maps.gradients),
        maps.faithfulness, pixels,
    )  # fmt: skip


def _array(values: torch.Tensor) -> Array:
    found: Array = values.float().cpu().numpy()
    return found
