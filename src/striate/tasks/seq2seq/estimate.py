"""Estimate the memory that batches of tokens need, before any is allocated."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from striate import memory
from striate.anatomy import trace
from striate.bundle import Description
from striate.data.images.base import Indices
from striate.data.text.batches import bucket_by_length
from striate.data.text.dataset import PIXELS_PER_TOKEN, Seq2SeqDataset
from striate.device import on_meta, require_activations
from striate.models.seq2seq import build
from striate.tasks.seq2seq.config import Seq2SeqConfig

_USUAL_TOKENS = 100_000  # of a batch; the preset `large` has 25,000
_SAMPLE = 8  # tokens of the sequences whose activations are known


def require_memory(
    config: Seq2SeqConfig,
    description: Description,
    train: Seq2SeqDataset,
    val: Seq2SeqDataset,
    device: torch.device,
) -> None:
    """Refuse batches for which memory cannot suffice; usual ones are not worth the estimate.

    Args:
        config: of the run, with the preset's values.
        description: of the network.
        train: training examples.
        val: validation examples.
        device: where the run executes; devices other than the CPU report a lack of memory themselves.

    Raises:
        ResourceError: a batch cannot fit; the message has the estimate.
    """
    assert config.batch is not None
    if device.type != "cpu":
        return
    validated = _largest_batch(val.lengths, config.batch)[1]
    vocab = description.arguments["target_vocab"]
    memory.require(  # the scores and their softmax
        2 * 4 * validated * vocab, f"the scores of {vocab:,} ids after each of {validated:,.0f} tokens",
        "Use a smaller --batch or --vocab-size",
    )  # fmt: skip
    tokens = _largest_batch(train.lengths, config.step_batch) / (config.accumulate * config.micro_batches)
    if tokens.sum() > _USUAL_TOKENS:
        size = float(tokens @ _activations(description))
        fix = f"Use a smaller --batch, or --micro-batches {2 * config.micro_batches}"
        require_activations(size, f"a batch of {tokens.sum():,.0f} tokens", fix)


def _largest_batch(lengths: Indices, max_tokens: int) -> npt.NDArray[np.float64]:
    """Source and target tokens of the largest batch, without padding."""
    batches = bucket_by_length(lengths, max_tokens, seed=0, epoch=0)
    sums = np.array([lengths[which].sum(axis=0) for which in batches], np.float64)
    largest: npt.NDArray[np.float64] = sums[sums.sum(axis=1).argmax()]
    return largest


def _activations(description: Description) -> npt.NDArray[np.float64]:
    """Bytes of all results of layers for a token of the source and of the target, in short sequences."""
    with on_meta():
        network = build(description.architecture, **description.arguments)
        source = target = torch.zeros(1, _SAMPLE, dtype=torch.int64)
        length = float(_SAMPLE)
        if description.preprocess is not None:
            height, width = description.arguments["input_size"]
            width = width or _SAMPLE * PIXELS_PER_TOKEN
            source = torch.zeros(1, description.preprocess.channels, height, width)
            length = width / PIXELS_PER_TOKEN
    sizes = [0, 0]
    for layer in trace(network, (source, target)).layers:
        if layer.name != "decoder.output":  # whose results are computed in chunks
            sizes[layer.name.startswith("decoder.")] += layer.activation
    return np.array([sizes[0] / length, sizes[1] / _SAMPLE])
