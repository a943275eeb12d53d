"""What a run on pairs starts with: tokenizers, datasets, network, and the bundle's header."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from striate import bundle
from striate.bundle import Description
from striate.data.text.dataset import Seq2SeqDataset
from striate.data.text.lines import TextLineImages
from striate.data.text.tokens import Tokenizer, suggest_kind, train_tokenizer
from striate.device import require_weights, seed_everything
from striate.errors import DataError, UsageError
from striate.inference.translator import TASK, Translator, tokenizers_of
from striate.kernels import prepare as prepare_network
from striate.models import MODELS
from striate.models.seq2seq import SequenceToSequence, build
from striate.tasks.seq2seq.config import IMAGE_ENCODERS, Seq2SeqConfig
from striate.tasks.seq2seq.estimate import require_memory
from striate.tasks.seq2seq.metrics import choose_monitor
from striate.training.task import Context, Setup, provenance
from striate.transforms.preprocess import Preprocess

if TYPE_CHECKING:
    from striate.data.text.pairs import Pairs, PairSet
    from striate.tasks.seq2seq.task import Seq2Seq

LENGTH_QUANTILE = 0.99  # of the lengths in training, for the maximum length of answers
MIN_POSITIONS = 1024  # positions that every network has
_SHARED_KINDS = ("sentencepiece",)  # tokenizers for which one vocabulary for both sides is the default


def prepare(task: Seq2Seq, resumed: Mapping[str, Any] | None) -> Setup:
    """Train (or restore) the tokenizers, tokenize the pairs, and build the network; writes nothing.

    Args:
        task: with the defaults of its configuration filled in; receives its examples and translator.
        resumed: the facts of the checkpoint that the run resumes from.

    Raises:
        DataError: nothing can be read.
        UsageError: sentencepiece is not installed, weights that do not fit.
    """
    config, data, context = task.config, task.data, task.context
    images = None
    if resumed is None:
        source, target, task.tokenizers = train_tokenizers(
            config, data.splits["train"], data.kind == "images"
        )
        images = image_encoder(config) if source is None else None
        reads: Tokenizer | Preprocess | None = source or (images and images[0])
    else:
        description = Description.from_json(resumed["description"])
        source, target = tokenizers_of(description)
        reads = source or description.preprocess
    assert reads is not None
    config = dataclasses.replace(config, monitor=choose_monitor(config.monitor, target))
    train, notes = dataset(config, data.splits["train"], reads, target, context, all_references=True)
    val, more = dataset(config, data.splits["val"], reads, target, context, all_references=False)
    notes = [*data.notes, *notes, *more]
    if not {target.kind, source.kind if source else ""} & {"words", "sentencepiece"}:
        notes += [f"{shown} has no effect with {target.kind}" for shown in config.changed(["vocab_size"])]
    if not len(train) or not len(val):
        raise DataError(f"cannot train on {data.source!r}", f"no image can be read: {notes[-1]}")
    if resumed is None:
        description = describe(config, data, source, target, images, train)
    make = partial(build, description.architecture, **description.arguments)
    require_weights(make, "Use a smaller --width, --depth, --hidden or --vocab-size")
    require_memory(config, description, train, val, context.device)
    seed_everything(config.seed, context.device)
    network: Any = make()
    context.announce(notes)
    if resumed is None and config.encoder_from:
        notes += context.inform(load_encoder(network, config.encoder_from))
    network = prepare_network(network, context.device, training=True)
    network = context.distributed.sync_batchnorm(network, config.sync_bn)
    task.train, task.val = train, val
    task.translator = Translator(network, description, source, target, context.device)
    return Setup(config, description, network, {}, notes)


def train_tokenizers(
    config: Seq2SeqConfig, pairs: Pairs, images: bool
) -> tuple[Tokenizer | None, Tokenizer, str]:
    """The tokenizers of both sides, trained on the training data only.

    Args:
        config: may name their kinds.
        pairs: the training data.
        images: whether sources are images, which need no tokenizer.

    Returns:
        The tokenizers of source (None for images) and target, and a message about them.
    """
    targets = [reference for references in pairs.references for reference in references]
    target_kind = config.target_tokenizer or config.tokenizer or suggest_kind(targets)
    if images:
        target = train_tokenizer(targets, target_kind, config.vocab_size)
        return None, target, f"tokenizer: {target.kind} ({len(target):,} ids)"
    sources = list(pairs.sources)
    source_kind = config.source_tokenizer or config.tokenizer or suggest_kind(sources)
    shared = config.shared_vocab
    if shared is None:
        shared = source_kind == target_kind and source_kind in _SHARED_KINDS
    if shared and source_kind != target_kind:
        raise UsageError(
            f"--shared-vocab with {source_kind} and {target_kind}", "a shared vocabulary has one tokenizer",
            "Give one --tokenizer for both sides",
        )  # fmt: skip
    if shared:
        both = train_tokenizer([*sources, *targets], source_kind, config.vocab_size)
        return both, both, f"tokenizer: {both.kind}, one vocabulary of {len(both):,} ids for both sides"
    source = train_tokenizer(sources, source_kind, config.vocab_size)
    target = train_tokenizer(targets, target_kind, config.vocab_size)
    message = f"tokenizers: {source.kind} ({len(source):,} ids) to {target.kind} ({len(target):,} ids)"
    return source, target, message


def image_encoder(config: Seq2SeqConfig) -> tuple[Preprocess, dict[str, Any]]:
    """How images are preprocessed, and the network's arguments for its image encoder."""
    channels: Literal[1, 3] = 1 if config.channels == 1 else 3
    if config.encoder_from is not None:
        description = bundle.describe(bundle.path_of(config.encoder_from))
        if description.architecture not in MODELS:
            why = f"it is a {description.architecture}, not an image classifier"
            raise UsageError(f"--encoder-from {config.encoder_from!r}", why)
        preprocess = description.image_preprocess
        ours = ("num_classes", "in_channels", "input_size")
        arguments = {name: value for name, value in description.arguments.items() if name not in ours}
        size = list(preprocess.size)
        return preprocess, {
            "encoder": description.architecture, "encoder_arguments": arguments, "input_size": size,
        }  # fmt: skip
    if config.encoder not in IMAGE_ENCODERS:
        width = min(config.max_width, 4 * config.height)
        preprocess = Preprocess.for_line(config.height, width, channels)
        preprocess = dataclasses.replace(preprocess, resize="letterbox")
        return preprocess, {"encoder": config.encoder, "input_size": [config.height, width]}
    assert config.width is not None
    preprocess = Preprocess.for_line(config.height, config.max_width, channels)
    if config.encoder == "patches":
        arguments = {"channels": config.encoder_channels or config.width}
    else:
        first = config.encoder_channels or max(1, config.width // 8)
        arguments = {"channels": [first, 2 * first, 4 * first, 8 * first]}
    return preprocess, {
        "encoder": config.encoder, "encoder_arguments": arguments, "input_size": [config.height, None],
    }  # fmt: skip


def load_encoder(network: SequenceToSequence, path: str) -> str:
    """Load a classifier's weights into the image encoder; returns a note about it."""
    _, state = bundle.read(bundle.path_of(path))
    encoder = network.get_submodule("front.network")
    own = encoder.state_dict()
    fits = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    if not fits:
        raise UsageError(f"--encoder-from {path!r}", "none of its weights fit the encoder")
    encoder.load_state_dict(fits, strict=False)
    return f"{len(fits)} of the encoder's {len(own)} tensors come from {Path(path).name}"


def dataset(
    config: Seq2SeqConfig,
    pairs: Pairs,
    source: Tokenizer | Preprocess,
    target: Tokenizer,
    context: Context,
    *,
    all_references: bool,
) -> tuple[Seq2SeqDataset, list[str]]:
    """The examples of a split, and a note about unreadable images.

    Args:
        config: of the run.
        pairs: of the split.
        source: the tokenizer of the source, or the preprocessing of images.
        target: the tokenizer of the target.
        context: for progress and workers.
        all_references: whether each reference is an example, or only the first of each pair.
    """
    if isinstance(source, Tokenizer):
        return Seq2SeqDataset(pairs, source, target, all_references=all_references), []
    workers = context.distributed.workers(config.workers)
    lines = TextLineImages(
        pairs.sources, source, workers=workers, cache=config.cache, root=config.source,
        progress=context.progress,
    )  # fmt: skip
    notes = [lines.left_out] if lines.problems else []
    return Seq2SeqDataset(pairs, lines, target, all_references=all_references), notes


def describe(
    config: Seq2SeqConfig,
    data: PairSet,
    source: Tokenizer | None,
    target: Tokenizer,
    images: tuple[Preprocess, dict[str, Any]] | None,
    train: Seq2SeqDataset,
) -> Description:
    """The header of the run's bundles."""
    lengths = train.lengths
    arguments: dict[str, Any] = {
        "target_vocab": len(target), "width": config.width, "depth": config.depth, "heads": config.heads,
        "hidden": config.hidden, "dropout": config.dropout, "positions": config.positions,
        "max_length": max(MIN_POSITIONS, 2 * int(lengths.max())),
    }  # fmt: skip
    if images is not None:
        preprocess, encoder = images
        arguments |= {
            **encoder, "in_channels": preprocess.channels, "decoder_depth": config.decoder_depth
        }  # fmt: skip
    else:
        assert source is not None
        tied = "all" if source == target else "target"
        arguments |= {"source_vocab": len(source), "tied": tied}
        if config.decoder_depth is not None:
            arguments["decoder_depth"] = config.decoder_depth
    return Description(
        task=TASK,
        architecture="text_to_text" if images is None else "image_to_text",
        arguments=arguments,
        classes=(),
        preprocess=None if images is None else images[0],
        provenance=provenance(data=data.source, training_pairs=len(data.splits["train"]), seed=config.seed),
        text={
            "source": None if source is None else source.to_json(),
            "target": target.to_json(),
            "ids": {"source": 0 if source is None else len(source), "target": len(target)},
            "digests": [tokenizer.digest for tokenizer in (source, target) if tokenizer is not None],
            # What limits the length of answers: not the extremes, which may be wrong pairs.
            "ratio": float(np.quantile(lengths[:, 1] / lengths[:, 0], LENGTH_QUANTILE)),
            "longest": math.ceil(np.quantile(lengths[:, 1], LENGTH_QUANTILE)),
            **({"columns": config.columns.to_json()} if config.columns else {}),
        },
    )
