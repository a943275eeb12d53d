"""Export a sequence network as two programs of `torch.export`, which run without Striate.

`encoder.pt2` maps sources to the keys and values that the decoder attends to; `step.pt2` writes one token of
each text; `cache.json` has the shape of its cache: layers, heads, room (for tokens), width (of a head). The
programs accept other numbers of sources and tokens than those of the export.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from striate import strict_json
from striate.data.text.tokens import BOS, EOS
from striate.exporters.text_verification import Sources, Text
from striate.exporters.torch_archive import write_archive
from striate.inference.generation import exclude_specials
from striate.kernels.attention import Cache
from striate.kernels.sequence import decode, memories
from striate.models.seq2seq import SequenceToSequence

ENCODER, STEP, SHAPE = "encoder.pt2", "step.pt2", "cache.json"


class EncoderProgram(nn.Module):
    """Sources to the keys and values of each decoder layer.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: SequenceToSequence) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode sources.

        Args:
            source: tokens `[batch, tokens]`, or images `[batch, channel, height, width]`.
            widths: widths of images before padding, int64 `[batch]`.

        Returns:
            Keys and values `[layers, batch, heads, source tokens, width / heads]`, and the mask of the source
            `[batch, source tokens]`, True = attend.
        """
        more = {} if widths is None else {"widths": widths}
        memory, mask = self.network.encode(source, **more)
        keys, values = zip(*memories(self.network.decoder.layers, memory), strict=True)
        return torch.stack(keys), torch.stack(values), mask


class StepProgram(nn.Module):
    """One decoding step: the next token of each text.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: SequenceToSequence) -> None:
        super().__init__()
        self.decoder = network.decoder

    def forward(
        self,
        tokens: Tensor,
        place: Tensor,
        keys: Tensor,
        values: Tensor,
        source_keys: Tensor,
        source_values: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score the next token.

        Args:
            tokens: the last token of each text, int64 `[batch]`; BEGIN in the first step.
            place: number of earlier steps, int64 `[1]`.
            keys: of earlier steps, `[layers, batch, heads, room, width / heads]`; zeros in the first step.
            values: like `keys`.
            source_keys: from the encoder.
            source_values: from the encoder.
            mask: from the encoder.

        Returns:
            Logits `[batch, vocab]`, -inf for padding, BEGIN and UNKNOWN, which are never generated; and the
            keys and values for the next step.
        """
        caches: list[Cache] = [_Slots(k, v, place) for k, v in zip(keys, values, strict=True)]
        x = decode(
            self.decoder.layers,
            self.decoder.embed(tokens[:, None], place),
            list(zip(source_keys, source_values, strict=True)),
            mask[:, None, None, :],
            caches=caches,
            mask=(torch.arange(keys.shape[3], device=keys.device) <= place)[None],
        )
        keys, values = torch.stack([c.keys for c in caches]), torch.stack([c.values for c in caches])
        return exclude_specials(self.decoder.output(x)[:, 0]), keys, values


class _Slots(Cache):
    """A cache with a slot per step, so that its shape does not depend on the step."""

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        self.keys, self.values, self.place = keys, values, place

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of the step into its slot; return all slots."""
        here = (torch.arange(self.keys.shape[2], device=keys.device) == self.place)[:, None]
        self.keys = torch.where(here, keys, self.keys)
        self.values = torch.where(here, values, self.values)
        return self.keys, self.values


@torch.no_grad()
def export(
    network: SequenceToSequence, folder: Path, source: Tensor, room: int, widths: Tensor | None = None
) -> None:
    """Write a folder with both programs.

    Args:
        network: in evaluation mode.
        folder: to create.
        source: an example of at least two sources of at least two tokens; or images of the final size.
        room: maximum number of tokens in a text.
        widths: widths of the images before padding, int64 `[batch]`, if the encoder takes them.
    """
    folder.mkdir()
    encoder, step = EncoderProgram(network).eval(), StepProgram(network).eval()
    rows = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} if source.ndim == 2 else {0: Dim.DYNAMIC}
    inputs = (source,) if widths is None else (source, widths)
    shapes = (rows,) if widths is None else (rows, {0: Dim.DYNAMIC})
    encoder_program = torch.export.export(encoder, inputs, dynamic_shapes=shapes)
    write_archive(folder / ENCODER, lambda file: torch.export.save(encoder_program, file))
    source_keys, source_values, mask = encoder(*inputs)
    layers, batch, heads, _, width = source_keys.shape
    slots = source_keys.new_zeros(layers, batch, heads, room, width)
    tokens = torch.zeros(batch, dtype=torch.int64, device=slots.device)
    cache_rows = {1: Dim.DYNAMIC}
    source_rows = {1: Dim.DYNAMIC, 3: Dim.DYNAMIC} if source.ndim == 2 else cache_rows
    step_program = torch.export.export(
        step,
        (tokens, tokens[:1].clone(), slots, slots.clone(), source_keys, source_values, mask),
        dynamic_shapes=(
            {0: Dim.DYNAMIC}, None, cache_rows, cache_rows, source_rows, source_rows, rows
        ),
    )  # fmt: skip
    write_archive(folder / STEP, lambda file: torch.export.save(step_program, file))
    shape = {"layers": layers, "heads": heads, "room": room, "width": width}
    (folder / SHAPE).write_text(strict_json.dumps(shape), "utf-8")


class ProgramsEngine:
    """Runs the programs of a folder, one source and one token at a time.

    Args:
        folder: of the programs. Only load programs that you trust: loading executes code.
    """

    def __init__(self, folder: Path) -> None:
        self.encoder, self.step = (torch.export.load(folder / name).module() for name in (ENCODER, STEP))
        shape = json.loads((folder / SHAPE).read_text("utf-8"))
        self.cache = torch.zeros(shape["layers"], 1, shape["heads"], shape["room"], shape["width"])

    def generate(self, sources: Sources) -> list[Text]:
        """As `TextEngine`."""
        texts = []
        for i in range(len(sources)):
            memory, keys, values = self.encoder(*sources[i].arguments), self.cache, self.cache
            text: Text = []
            while len(text) < sources.limit and EOS not in text:
                last = torch.tensor([text[-1] if text else BOS])
                logits, keys, values = self.step(last, torch.tensor([len(text)]), keys, values, *memory)
                text.append(int(logits[0].argmax()))
            texts.append(text)
        return texts

    def score(self, sources: Sources, texts: Sequence[Text]) -> list[Tensor]:
        """As `TextEngine`."""
        found = []
        for i, text in enumerate(texts):
            memory, keys, values = self.encoder(*sources[i].arguments), self.cache, self.cache
            scores = []
            for place, (last, token) in enumerate(zip([BOS, *text], text, strict=False)):
                logits, keys, values = self.step(
                    torch.tensor([last]), torch.tensor([place]), keys, values, *memory
                )
                scores.append(logits[0].log_softmax(dim=0)[token])
            found.append(torch.stack(scores) if scores else torch.zeros(0))
        return found
