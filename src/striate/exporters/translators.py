"""Export a `Translator`: to programs of torch.export, and to CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.data.text.lines import collate_images
from striate.data.text.tokens import NUM_SPECIALS, Tokenizer
from striate.errors import UsageError
from striate.exporters import Parity, ctranslate2, programs
from striate.inference.translator import Translator
from striate.models.seq2seq import TextToText

SAMPLES = 32  # random sources for the comparison, if none are given


def export_programs(translator: Translator, folder: Path, samples: Sequence[str] = ()) -> Parity:
    """Write the encoder and the decoding step as programs; arguments as `exporters.export`."""
    sources, widths = _sources(translator, samples)
    example = [None if part is None else torch.cat([part[:1]] * 2) for part in (sources, widths)]
    assert example[0] is not None
    limit = _max_length(translator)
    programs.export(translator.network, folder, example[0], limit, example[1])
    return programs.compare(translator.network, folder, sources, limit, widths)


def export_ctranslate2(translator: Translator, folder: Path, samples: Sequence[str] = ()) -> Parity:
    """Write a CTranslate2 model; arguments and errors as `exporters.export`."""
    network = translator.network
    if not isinstance(network, TextToText) or translator.source is None:
        raise UsageError(
            "a model that reads images, for CTranslate2", "it holds text to text only", "Use programs"
        )
    ctranslate2.export(network, folder, _names(translator.source), _names(translator.target))
    rows = [row[row != network.pad].tolist() for row in _sources(translator, samples)[0]]
    return ctranslate2.compare(network, folder, rows, _max_length(translator))


def _max_length(translator: Translator) -> int:
    """Tokens of a text, at most: twice the longest target of training."""
    longest = (translator.description.text or {})["longest"]
    return int(min(2 * longest + 1, translator.network.decoder.embed.positions.length))


def _names(tokenizer: Tokenizer) -> list[str]:
    """A distinct string for each id."""
    names: dict[str, None] = {}
    for i in range(len(tokenizer)):
        name = tokenizer.id_to_token(i)
        names[name if name not in names else f"{name}#{i}"] = None
    return list(names)


def _sources(translator: Translator, samples: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """The network's input for the samples as one batch, and the widths of images."""
    generator = torch.Generator().manual_seed(0)
    if translator.source is None:
        preprocess = translator.description.image_preprocess
        if samples:
            return collate_images([preprocess.read(text) for text in samples], preprocess, translator.device)
        noise = torch.randint(256, (SAMPLES, 64, 256, 3), generator=generator).to(torch.uint8)
        return collate_images(
            [preprocess.fit(image) for image in noise.numpy()], preprocess, translator.device
        )
    if samples:
        rows = [translator.source.encode_source(text) for text in samples]
    else:
        size = len(translator.source)
        lengths = torch.randint(1, 16, (SAMPLES,), generator=generator).tolist()
        rows = [torch.randint(NUM_SPECIALS, size, (n,), generator=generator).tolist() for n in lengths]
        rows = [[*row, *translator.source.encode_source("")] for row in rows]
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True), None
