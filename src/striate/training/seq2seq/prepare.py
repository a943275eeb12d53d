"""Data, tokens and network of a sequence-to-sequence run; nothing here writes a file."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import striate
from striate import bundle
from striate.bundle import Description
from striate.data.text.dataset import Seq2SeqDataset
from striate.data.text.lines import TextLineImages
from striate.data.text.pairs import Pairs, PairSet, open_pairs, split_pairs
from striate.data.text.tokens import Tokenizer, suggest_kind, train_tokenizer
from striate.device import choose, cpu_count, seed_everything
from striate.errors import DataError, UsageError
from striate.inference.translator import TASK, Translator
from striate.models import MODELS
from striate.models.seq2seq import SequenceToSequence, build
from striate.progress import Progress
from striate.training.seq2seq.config import ENCODERS, SeqConfig, filled
from striate.transforms.preprocess import Preprocess

MAX_LENGTH = 1024  # positions that a network has at least
_JOINT = ("sentencepiece",)  # kinds that one vocabulary for both sides suits


@dataclass(frozen=True)
class SeqReady:
    """All that a run begins with.

    Attributes:
        config: filled in.
        data: divided.
        train: examples to learn.
        val: examples that measure an epoch.
        translator: with a network of fresh weights, on the device.
        notes: what should be known.
        chosen: what was chosen for the data, in words.
    """

    config: SeqConfig
    data: PairSet
    train: Seq2SeqDataset
    val: Seq2SeqDataset
    translator: Translator
    notes: list[str]
    chosen: list[str]


def prepare(config: SeqConfig, progress: Progress, known: Description | None = None) -> SeqReady:
    """Read the data, learn or take over its tokens, and build the network.

    Args:
        config: as the user gave it.
        progress: is told of the stages.
        known: what the bundles of a run that goes on say.

    Raises:
        DataError: nothing to train on, or too little that can be read.
        UsageError: sentencepiece is not installed, a device is not there, weights do not fit.
    """
    data = split_pairs(
        open_pairs(*config.data, languages=config.languages),
        val=config.val, test=config.test, seed=config.seed,
    )  # fmt: skip
    notes = list(data.notes)
    pairs, images = data.splits["train"], data.kind == "images"
    place = choose(config.device)
    config = filled(config, len(pairs))
    chosen = []
    if known is None:
        source, target, said = _tokenizers(config, pairs, images)
        contract, front = _front(config) if images else (None, {})
        chosen.append(said)
    else:
        says = known.text or {}
        source = None if says["source"] is None else Tokenizer.from_json(says["source"])
        target, contract, front = Tokenizer.from_json(says["target"]), known.preprocess, {}
    train, val = (
        _examples(config, data.splits[name], source, contract, target, notes, progress, first=name == "val")
        for name in ("train", "val")
    )
    if not len(train) or not len(val):
        raise DataError(f"cannot train on {data.source!r}", f"nothing can be read: {notes[-1]}")
    seed_everything(config.seed)
    description = known or _describe(config, data, source, target, contract, train, front)
    network = build(description.architecture, **description.arguments)
    assert isinstance(network, SequenceToSequence)
    if known is None and config.encoder_from:
        notes.append(_load_encoder(network, config.encoder_from))
    translator = Translator(network.to(place), description, source, target, place)
    return SeqReady(config, data, train, val, translator, notes, chosen)


def _tokenizers(config: SeqConfig, pairs: Pairs, images: bool) -> tuple[Tokenizer | None, Tokenizer, str]:
    """What turns both sides into ids, from the training data alone; and what was chosen."""
    targets = [reference for references in pairs.references for reference in references]
    target_kind = config.target_tokens or config.tokens or suggest_kind(targets)
    if images:
        target = train_tokenizer(targets, target_kind, config.vocab)
        return None, target, f"tokens: {target.kind} ({len(target):,} ids)"
    sources = list(pairs.sources)
    source_kind = config.source_tokens or config.tokens or suggest_kind(sources)
    joint = config.joint
    if joint is None:
        joint = source_kind == target_kind and source_kind in _JOINT
    if joint and source_kind != target_kind:
        raise UsageError(
            f"--joint with {source_kind} and {target_kind}", "one vocabulary has one kind of tokens",
            "Give one kind as --tokens",
        )  # fmt: skip
    if joint:
        both = train_tokenizer([*sources, *targets], source_kind, config.vocab)
        return both, both, f"tokens: {both.kind}, one vocabulary of {len(both):,} ids for both sides"
    source, target = (
        train_tokenizer(texts, kind, config.vocab)
        for texts, kind in ((sources, source_kind), (targets, target_kind))
    )
    said = f"tokens: {source.kind} ({len(source):,} ids) to {target.kind} ({len(target):,} ids)"
    return source, target, said


def _front(config: SeqConfig) -> tuple[Preprocess, dict[str, Any]]:
    """The contract for images, and the network's arguments that go with it."""
    channels: Literal[1, 3] = 1 if config.channels == 1 else 3
    if config.encoder_from is None and config.encoder in ENCODERS:
        contract = Preprocess.for_line(config.height, config.max_width, channels)
        if config.encoder == "patches":
            made: dict[str, Any] = {"channels": config.encoder_channels or config.width}
        else:
            first = config.encoder_channels or max(1, config.width // 8)
            made = {"channels": [first, 2 * first, 4 * first, 8 * first]}
        return contract, {
            "encoder": config.encoder,
            "encoder_arguments": made,
            "input_size": [config.height, None],
        }
    if config.encoder_from is None:
        width = min(config.max_width, 4 * config.height)
        contract = dataclasses.replace(
            Preprocess.for_line(config.height, width, channels), resize="letterbox"
        )
        return contract, {"encoder": config.encoder, "input_size": [config.height, width]}
    says = bundle.inspect(bundle.path_of(config.encoder_from)).description
    if says.architecture not in MODELS:
        raise UsageError(
            f"--encoder-from {config.encoder_from!r}", f"it is a {says.architecture}, no classifier of images"
        )
    contract = says.contract
    taken = {k: v for k, v in says.arguments.items() if k not in ("num_classes", "in_channels", "input_size")}
    return contract, {
        "encoder": says.architecture,
        "encoder_arguments": taken,
        "input_size": list(contract.size),
    }


def _load_encoder(network: SequenceToSequence, path: str) -> str:
    """Load a classifier's weights into the encoder of images; answers what was loaded."""
    _, state = bundle.read(bundle.path_of(path))
    encoder = network.get_submodule("front.network")
    own = encoder.state_dict()
    fits = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not fits:
        raise UsageError(f"--encoder-from {path!r}", "none of its weights fits the encoder")
    encoder.load_state_dict(fits, strict=False)
    return f"{len(fits)} of the encoder's {len(own)} tensors come from {Path(path).name}"


def _examples(
    config: SeqConfig,
    pairs: Pairs,
    source: Tokenizer | None,
    contract: Preprocess | None,
    target: Tokenizer,
    notes: list[str],
    progress: Progress,
    *,
    first: bool,
) -> Seq2SeqDataset:
    if source is not None:
        return Seq2SeqDataset(pairs, source, target, all_references=not first)
    assert contract is not None
    lines = TextLineImages(pairs.sources, contract, workers=config.workers or cpu_count(), progress=progress)
    if lines.problems:
        some = "; ".join(f"{p.path} ({p.reason})" for p in lines.problems[:3])
        notes.append(f"{len(lines.problems)} images cannot be read and are left out: {some}")
    return Seq2SeqDataset(pairs, lines, target, all_references=not first)


def _describe(
    config: SeqConfig,
    data: PairSet,
    source: Tokenizer | None,
    target: Tokenizer,
    contract: Preprocess | None,
    train: Seq2SeqDataset,
    front: dict[str, Any],
) -> Description:
    lengths = train.lengths
    longest = int(lengths.max())
    common: dict[str, Any] = {
        "target_vocab": len(target), "width": config.width, "depth": config.depth, "heads": config.heads,
        "hidden": config.hidden, "dropout": config.dropout, "positions": config.positions,
        "max_length": max(MAX_LENGTH, 2 * longest),
    }  # fmt: skip
    if source is None:
        assert contract is not None
        architecture = "image_to_text"
        arguments = {
            **common, **front, "in_channels": contract.channels, "decoder_depth": config.decoder_depth,
        }  # fmt: skip
    else:
        architecture = "text_to_text"
        arguments = {
            **common, "source_vocab": len(source), "tied": "all" if source == target else "target",
        }  # fmt: skip
    return Description(
        task=TASK,
        architecture=architecture,
        arguments=arguments,
        classes=(),
        preprocess=contract,
        provenance={
            "striate": striate.__version__,
            "torch": torch.__version__,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "data": data.source,
            "training_pairs": len(data.splits["train"]),
            "seed": config.seed,
        },
        text={
            "source": None if source is None else source.to_json(),
            "target": target.to_json(),
            "ids": {"source": 0 if source is None else len(source), "target": len(target)},
            "digests": [tokens.digest for tokens in (source, target) if tokens is not None],
            "ratio": float(np.max(lengths[:, 1] / lengths[:, 0])),
            "longest": int(lengths[:, 1].max()),
        },
    )
