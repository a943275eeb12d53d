"""A sequence network as two programs of `torch.export`, which run without Striate.

`encoder.pt2` turns sources into what the decoder needs of them; `step.pt2` writes one token of each text, and
`cache.json` has the shape of the cache that it wants: layers, heads, room (for tokens), width (of a head).
The numbers of sources and of their tokens may be others than those they were exported with.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from striate.errors import WriteError
from striate.export import Parity
from striate.inference.generation import greedy
from striate.models.seq2seq import SequenceToSequence
from striate.models.transformer import Cache

ENCODER, STEP, SHAPE = "encoder.pt2", "step.pt2", "cache.json"


class EncoderProgram(nn.Module):
    """Sources to the keys and values that the decoder's layers attend to.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: SequenceToSequence) -> None:
        super().__init__()
        self.network = network

    def forward(self, source: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode.

        Args:
            source: tokens `[batch, tokens]`, or images `[batch, channel, height, width]`.
            widths: of images before padding, int64 `[batch]`.

        Returns:
            Keys and values `[layers, batch, heads, source tokens, width / heads]`, and the mask of the source
            `[batch, source tokens]`, True = attend.
        """
        more = {} if widths is None else {"widths": widths}
        memory, mask = self.network.encode(source, **more)
        keys, values = zip(*self.network.decoder.layers.memories(memory), strict=True)
        return torch.stack(keys), torch.stack(values), mask


class StepProgram(nn.Module):
    """One token more of each text.

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
        """Take a step.

        Args:
            tokens: the last of each text, int64 `[batch]`; BEGIN in the first step.
            place: how many steps were taken before, int64 `[1]`.
            keys: of the steps before, `[layers, batch, heads, room, width / heads]`; zeros in the first step.
            values: like `keys`.
            source_keys: from the encoder.
            source_values: from the encoder.
            mask: from the encoder.

        Returns:
            Logits `[batch, vocab]`, and keys and values to give to the next step.
        """
        caches: list[Cache] = [_Slots(k, v, place) for k, v in zip(keys, values, strict=True)]
        x = self.decoder.layers(
            self.decoder.embed(tokens[:, None], place=place),
            list(zip(source_keys, source_values, strict=True)),
            mask[:, None, None, :],
            caches=caches,
            mask=(torch.arange(keys.shape[3], device=keys.device) <= place)[None],
        )
        keys, values = torch.stack([c.keys for c in caches]), torch.stack([c.values for c in caches])
        return self.decoder.output(x)[:, 0], keys, values


class _Slots(Cache):
    """A cache with a slot for each step there will be: its shape says nothing of the step."""

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        self.keys, self.values, self.place = keys, values, place

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put those of the step into its slot; returns all slots."""
        here = (torch.arange(self.keys.shape[2], device=keys.device) == self.place)[:, None]
        self.keys = torch.where(here, keys, self.keys)
        self.values = torch.where(here, values, self.values)
        return self.keys, self.values


@torch.no_grad()
def export(
    network: SequenceToSequence, folder: Path, source: Tensor, room: int, widths: Tensor | None = None
) -> None:
    """Write the folder with both programs: aside, then renamed.

    Args:
        network: in evaluation mode.
        folder: to be written; it must not exist.
        source: at least two sources of at least two tokens, or images of the size that will be read.
        room: how many tokens a text has at most.
        widths: of the images before padding, int64 `[batch]`, where the encoder shall be told.

    Raises:
        WriteError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise WriteError(f"cannot write {str(folder)!r}", "it exists", "Remove it or choose another folder")
    encoder, step = EncoderProgram(network).eval(), StepProgram(network).eval()
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} if source.ndim == 2 else {0: Dim.DYNAMIC}
    inputs = (source,) if widths is None else (source, widths)
    shapes = (free,) if widths is None else (free, {0: Dim.DYNAMIC})
    encoder_program = torch.export.export(encoder, inputs, dynamic_shapes=shapes)
    source_keys, source_values, mask = encoder(*inputs)
    layers, batch, heads, _, width = source_keys.shape
    slots = source_keys.new_zeros(layers, batch, heads, room, width)
    tokens = torch.zeros(batch, dtype=torch.int64, device=slots.device)
    place = torch.zeros(1, dtype=torch.int64, device=slots.device)
    rows = {1: Dim.DYNAMIC}
    seen = {1: Dim.DYNAMIC, 3: Dim.DYNAMIC} if source.ndim == 2 else rows
    mask_free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC} if source.ndim == 2 else {0: Dim.DYNAMIC}
    step_program = torch.export.export(
        step,
        (tokens, place, slots, slots.clone(), source_keys, source_values, mask),
        dynamic_shapes=({0: Dim.DYNAMIC}, None, rows, rows, seen, seen, mask_free),
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
            whole = Path(aside) / "programs"
            whole.mkdir()
            for program, name in ((encoder_program, ENCODER), (step_program, STEP)):
                torch.export.save(program, whole / name)
            shape = {"layers": layers, "heads": heads, "room": room, "width": width}
            (whole / SHAPE).write_text(json.dumps(shape), "utf-8")
            shutil.move(whole, folder)
    except OSError as error:
        raise WriteError(
            f"cannot write {str(folder)!r}", error.strerror or str(error), "Choose another folder"
        ) from error


@torch.inference_mode()
def compare(
    network: SequenceToSequence,
    folder: Path,
    source: Tensor,
    limit: int,
    widths: Tensor | None = None,
    *,
    begin: int = 1,
    end: int = 2,
) -> Parity:
    """Write texts with the network and with the programs just exported from it.

    Args:
        network: in evaluation mode.
        folder: of the programs, of one's own making: loading them runs what they hold.
        source: as `export` took it, any number.
        limit: how many tokens a text has at most, END among them; at most the `room` of the export.
        widths: as `export` took them.
        begin: the number of BEGIN.
        end: the number of END.
    """
    encoder, step = (torch.export.load(folder / name).module() for name in (ENCODER, STEP))
    shape = json.loads((folder / SHAPE).read_text("utf-8"))
    memory, mask = network.encode(source, **({} if widths is None else {"widths": widths}))
    written = greedy(network.decoder, memory, mask, limit, begin=begin, end=end)
    equal, difference = 0, 0.0
    for row, (hypothesis,) in enumerate(written.hypotheses):
        text = [*hypothesis.tokens, *([end] if hypothesis.ended else [])]
        given = torch.tensor([[begin, *text[:-1]]], device=memory.device)
        ours = network.decoder(given, memory[row : row + 1], mask[row : row + 1])[0].log_softmax(dim=1)
        inputs = [part[row : row + 1] for part in (source, widths) if part is not None]
        source_memory = encoder(*inputs)
        keys = values = memory.new_zeros(shape["layers"], 1, shape["heads"], shape["room"], shape["width"])
        theirs = []
        for place, token in enumerate(given[0]):
            logits, keys, values = step(token[None], token.new_tensor([place]), keys, values, *source_memory)
            theirs.append(logits[0].log_softmax(dim=0))
        equal += [int(log.argmax()) for log in theirs] == text
        picked = torch.tensor(text, device=memory.device)[:, None]
        difference = max(difference, float((torch.stack(theirs) - ours).gather(1, picked).abs().max()))
    return Parity(len(written.hypotheses), equal, difference)
