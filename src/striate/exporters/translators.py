"""Export a `Translator`: to programs of torch.export, and to CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.data.text.lines import collate_images
from striate.data.text.tokens import NUM_SPECIALS, Tokenizer
from striate.errors import UsageError
from striate.exporters import ctranslate2, programs
from striate.exporters.records import Exported, Request
from striate.exporters.text_verification import Sources
from striate.inference.translator import Translator
from striate.models.seq2seq import TextToText

SAMPLES = 32  # random sources for the comparison, if none are given


def export_programs(translator: Translator, path: Path, request: Request) -> Exported:
    """Write the encoder and the decoding step as programs; arguments as `Format.target`."""
    sources = sources_for(translator, request)
    example = [torch.cat([part[:1]] * 2) for part in sources.arguments]
    programs.export(translator.network, path, example[0], sources.limit, *example[1:])
    return Exported(texts=programs.ProgramsEngine(path))


def export_ctranslate2(translator: Translator, path: Path, request: Request) -> Exported:
    """Write a CTranslate2 model; arguments as `Format.target`.

    Raises:
        UsageError: it reads images, or ctranslate2 is not installed.
    """
    network = translator.network
    if not isinstance(network, TextToText) or translator.source is None:
        raise UsageError(
            "a model that reads images, for CTranslate2", "it holds text to text only", "Use torch-export"
        )
    ctranslate2.export(network, path, _names(translator.source), _names(translator.target))
    return Exported(texts=ctranslate2.CTranslate2Engine(path, network.pad))


def _names(tokenizer: Tokenizer) -> list[str]:
    """A distinct string for each id."""
    names: dict[str, None] = {}
    for i in range(len(tokenizer)):
        name = tokenizer.id_to_token(i)
        names[name if name not in names else f"{name}#{i}"] = None
    return list(names)


def sources_for(translator: Translator, request: Request) -> Sources:
    """The samples as the network's input, or random tokens or noise if there are none.

    Raises:
        DecodeError, DataError: an image or a text cannot be read.
    """
    longest = (translator.description.text or {})["longest"]
    limit = int(min(2 * longest + 1, translator.network.decoder.embed.positions.length))
    inputs, widths = _inputs(translator, request.samples)
    kind = "images" if translator.source is None else "texts"
    what = f"{len(inputs)} {'given' if request.samples else 'random'} {kind}"
    return Sources(inputs, widths, limit, what)


def _inputs(translator: Translator, samples: Sequence[str]) -> tuple[Tensor, Tensor | None]:
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
