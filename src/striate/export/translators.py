"""A trained translator, or reader of images, in another format, and how the two compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.data.text.lines import collate_images
from striate.data.text.tokens import NUM_SPECIALS, Tokenizer
from striate.errors import UsageError, unknown_name
from striate.export import Parity, ctranslate2, programs
from striate.inference.translator import Translator
from striate.models.seq2seq import TextToText

FORMATS = ("ctranslate2", "programs")
SAMPLES = 32  # sources of the comparison where none are given


def export(translator: Translator, folder: Path, kind: str, texts: Sequence[str] = ()) -> Parity:
    """Write a translator in another format, and let both answer the same sources.

    Args:
        translator: on the CPU.
        folder: to be written; it must not exist.
        kind: one of `FORMATS`.
        texts: sources (or image files) to compare by; sequences of random tokens (or noise) where there are
            none.

    Raises:
        UsageError: an unknown format, one that cannot hold the network, or a package that is missing.
        WriteError: the folder exists, or cannot be written.
    """
    network = translator.network
    longest = (translator.description.text or {})["longest"]
    room = min(2 * longest + 1, network.decoder.embed.positions.length)
    if kind == "programs":
        sources, widths = _sources(translator, texts)
        example = [None if part is None else torch.cat([part[:1]] * 2) for part in (sources, widths)]
        assert example[0] is not None
        programs.export(network, folder, example[0], room, example[1])
        return programs.compare(network, folder, sources, room, widths)
    if kind != "ctranslate2":
        raise unknown_name("format", kind, FORMATS)
    if not isinstance(network, TextToText) or translator.source is None:
        raise UsageError("a reader of images for CTranslate2", "it has text to text only", "Use programs")
    ctranslate2.export(network, folder, _names(translator.source), _names(translator.target))
    rows = [row[row != network.pad].tolist() for row in _sources(translator, texts)[0]]
    return ctranslate2.compare(network, folder, rows, room)


def _names(tokenizer: Tokenizer) -> list[str]:
    """A string for each id, all different."""
    names: dict[str, None] = {}
    for i in range(len(tokenizer)):
        name = tokenizer.id_to_token(i)
        names[name if name not in names else f"{name}#{i}"] = None
    return list(names)


def _sources(translator: Translator, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """What the network reads of the texts, as one batch; and the widths of images."""
    generator = torch.Generator().manual_seed(0)
    if translator.source is None:
        contract = translator.description.contract
        if texts:
            return collate_images([contract.read(text) for text in texts], contract, translator.device)
        noise = torch.randint(256, (SAMPLES, 64, 256, 3), generator=generator).to(torch.uint8)
        return collate_images([contract.fit(image) for image in noise.numpy()], contract, translator.device)
    if texts:
        rows = [translator.source.source(text) for text in texts]
    else:
        size = len(translator.source)
        lengths = torch.randint(1, 16, (SAMPLES,), generator=generator).tolist()
        rows = [torch.randint(NUM_SPECIALS, size, (n,), generator=generator).tolist() for n in lengths]
        rows = [[*row, *translator.source.source("")] for row in rows]
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True), None
