"""Export a `Translator`: to programs of torch.export, and to CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from striate.data.text.lines import collate_images, pad_images
from striate.data.text.tokens import NUM_SPECIALS, Tokenizer
from striate.errors import UsageError
from striate.exporters import ctranslate2, programs
from striate.exporters.records import Exported, Request
from striate.exporters.text_verification import Sources
from striate.inference.translator import Translator
from striate.models.seq2seq import TextToText
from striate.transforms.decode import Uint8Array

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
    how = "given" if request.samples else "random"
    if translator.source is not None:
        inputs = _tokens(translator.source, request.samples)
        return Sources(inputs, None, limit, f"{len(inputs)} {how} texts")
    images, preprocess = _images(translator, request.samples), translator.description.image_preprocess
    inputs, widths = collate_images(images, preprocess, translator.device)
    pixels = pad_images(images, preprocess)
    return Sources(inputs, widths, limit, f"{len(inputs)} {how} images", pixels)


def _images(translator: Translator, samples: Sequence[str]) -> list[Uint8Array]:
    """The pixels of the samples."""
    preprocess = translator.description.image_preprocess
    if samples:
        return [preprocess.read(path) for path in samples]
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(32, 257, (SAMPLES,), generator=generator).tolist()
    noise = torch.randint(256, (SAMPLES, 64, 256, 3), generator=generator).to(torch.uint8).numpy()
    return [preprocess.fit(image[:, :width]) for image, width in zip(noise, sizes, strict=True)]


def _tokens(source: Tokenizer, samples: Sequence[str]) -> Tensor:
    """The tokens of the samples as one batch."""
    generator = torch.Generator().manual_seed(0)
    if samples:
        rows = [source.encode_source(text) for text in samples]
    else:
        lengths = torch.randint(1, 16, (SAMPLES,), generator=generator).tolist()
        rows = [torch.randint(NUM_SPECIALS, len(source), (n,), generator=generator).tolist() for n in lengths]
        rows = [[*row, *source.encode_source("")] for row in rows]
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
