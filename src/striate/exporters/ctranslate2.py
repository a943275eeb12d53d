"""Export a text-to-text network to CTranslate2, OpenNMT's inference engine for Transformers in C++.

https://github.com/OpenNMT/CTranslate2; the package `ctranslate2` writes and runs the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from striate.data.text.tokens import EOS, NEVER_GENERATED
from striate.errors import UsageError
from striate.exporters.text_verification import Sources, Text
from striate.files import new_folder
from striate.models.seq2seq import TextToText
from striate.models.text_decoder import TokenEmbedding
from striate.models.transformer import NORM_EPSILON, MultiHeadAttention

_TOKENS = 2048  # of a batch, padding with it
NEVER = -1e4  # logit of what is never generated: its probability is 0; finite in float16 too


def export(
    network: TextToText,
    folder: Path,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    *,
    begin: int = 1,
    end: int = 2,
    unknown: int = 3,
) -> None:
    """Write a CTranslate2 model folder in float32, atomically.

    The model takes the same sources as the network: if the network was trained with END after each source,
    the caller appends END.

    Args:
        network: on any device.
        folder: must not exist.
        source_tokens: a distinct string per token of the source.
        target_tokens: a distinct string per token of the target.
        begin: number of BEGIN.
        end: number of END.
        unknown: number of UNKNOWN.

    Raises:
        UsageError: ctranslate2 is not installed, or the strings do not match the network.
        WriteError: the folder exists, or cannot be written.
    """
    library = _library()
    vocabularies = ((network.embed, source_tokens), (network.decoder.embed, target_tokens))
    for embed, strings in vocabularies:
        if len(set(strings)) != embed.embedding.num_embeddings:
            raise UsageError(
                f"{len(set(strings))} different strings for {embed.embedding.num_embeddings} tokens",
                "CTranslate2 needs one string per token",
                "Use the vocabulary that the network was trained with",
            )
    spec = _spec(network, library)
    spec.register_source_vocabulary(list(source_tokens))
    spec.register_target_vocabulary(list(target_tokens))
    spec.config.unk_token, spec.config.bos_token = target_tokens[unknown], target_tokens[begin]
    spec.config.eos_token, spec.config.decoder_start_token = target_tokens[end], target_tokens[begin]
    spec.config.layer_norm_epsilon = NORM_EPSILON
    spec.validate()
    spec.optimize(quantization=None)
    with new_folder(folder) as model:
        spec.save(str(model))


class CTranslate2Engine:
    """Runs an exported model with CTranslate2, on the CPU.

    Args:
        folder: of the model.
        pad: number of padding.
        workers: how many batches are translated at once, each by one thread; None for one batch by all
            threads.
        compute_type: `float32` or `int8`.

    Raises:
        UsageError: ctranslate2 is not installed.
    """

    def __init__(
        self, folder: Path, pad: int, *, workers: int | None = None, compute_type: str = "float32"
    ) -> None:
        threads = {} if workers is None else {"inter_threads": workers, "intra_threads": 1}
        torch_threads = torch.get_num_threads()
        self.translator = _library().Translator(
            str(folder), device="cpu", compute_type=compute_type, **threads
        )
        torch.set_num_threads(torch_threads)  # it has set its own number for all of OpenMP, torch too
        self.source_names, self.target_names = (_vocabulary(folder, side) for side in ("source", "target"))
        self.ids = {name: i for i, name in enumerate(self.target_names)}
        self.pad, self.workers = pad, workers or 1

    def generate(self, sources: Sources) -> list[Text]:
        """As `TextEngine`."""
        found = self.translator.translate_batch(
            self._words(sources), beam_size=1, max_decoding_length=sources.limit, min_decoding_length=0,
            return_end_token=True,
        )  # fmt: skip
        return [[self.ids[name] for name in result.hypotheses[0]] for result in found]

    def greedy(self, rows: Sequence[Sequence[int]], limit: int) -> Iterator[tuple[Text, float]]:
        """Greedy search for sources of any number, in batches of similar length.

        Args:
            rows: tokens.
            limit: maximum number of tokens of an answer, END included.

        Yields:
            The tokens, with END if it was reached, and their log-probability.
        """
        words = [[self.source_names[token] for token in row] for row in rows]
        share = sum(map(len, rows)) // (2 * self.workers)  # every worker gets batches, more than one
        tokens = min(_TOKENS, max(share, max(map(len, rows))))
        found = self.translator.translate_batch(
            words, beam_size=1, length_penalty=0, max_decoding_length=limit, min_decoding_length=0,
            max_input_length=0, return_end_token=True, return_scores=True,
            max_batch_size=tokens, batch_type="tokens",
        )  # fmt: skip
        for result in found:
            yield [self.ids[name] for name in result.hypotheses[0]], result.scores[0]

    def score(self, sources: Sources, texts: Sequence[Text]) -> list[Tensor]:
        """As `TextEngine`."""
        names = [[self.target_names[token] for token in text if token != EOS] for text in texts]
        found = self.translator.score_batch(self._words(sources), names)  # with END
        return [torch.tensor(scores.log_probs[: len(t)]) for scores, t in zip(found, texts, strict=True)]

    def _words(self, sources: Sources) -> list[list[str]]:
        return [[self.source_names[token] for token in row[row != self.pad]] for row in sources.inputs]


def _library() -> ModuleType:
    """Import CTranslate2.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ctranslate2
        import ctranslate2.specs
    except ImportError as error:
        raise UsageError(
            "cannot export to CTranslate2", "it is not installed", "pip install ctranslate2"
        ) from error
    module: ModuleType = ctranslate2
    return module


def _vocabulary(folder: Path, side: str) -> list[str]:
    """The strings of the tokens; CTranslate2 stores equal vocabularies once."""
    own = folder / f"{side}_vocabulary.json"
    path = own if own.exists() else folder / "shared_vocabulary.json"
    strings: list[str] = json.loads(path.read_text("utf-8"))
    return strings


def _spec(network: TextToText, library: ModuleType) -> Any:
    """Copy the weights into a model specification of CTranslate2."""
    encoder: Any = network.encoder.layers  # torch's containers do not declare the type of their modules
    decoder: Any = network.decoder.layers.layers
    heads = decoder[0].self_attention.heads
    spec = library.specs.TransformerSpec.from_config((len(encoder), len(decoder)), heads, pre_norm=True)
    _embedding(spec.encoder, spec.encoder.embeddings[0], network.embed)
    _embedding(spec.decoder, spec.decoder.embeddings, network.decoder.embed)
    _norm(spec.encoder.layer_norm, network.encoder.ln)
    _norm(spec.decoder.layer_norm, network.decoder.layers.ln)
    _linear(spec.decoder.projection, network.decoder.output.weight, network.decoder.output.bias)
    spec.decoder.projection.bias[list(NEVER_GENERATED)] = NEVER  # whatever options the caller decodes with
    for there, layer in zip(spec.encoder.layer, encoder, strict=True):
        _attention(there.self_attention, layer.ln_1, layer.self_attention, (0, 3))
        _feed_forward(there.ffn, layer.ln_2, layer.mlp)
    for there, layer in zip(spec.decoder.layer, decoder, strict=True):
        _attention(there.self_attention, layer.ln_1, layer.self_attention, (0, 3))
        _attention(there.attention, layer.ln_2, layer.cross_attention, (0, 1, 3))
        _feed_forward(there.ffn, layer.ln_3, layer.mlp)
    return spec


def _embedding(side: Any, there: Any, embed: TokenEmbedding) -> None:
    there.weight = _array(embed.embedding.weight)
    side.scale_embeddings = True
    positions = embed.positions
    none = torch.zeros(positions.length, positions.width)
    side.position_encodings.encodings = _array(none if positions.kind == "none" else positions.table)


def _attention(there: Any, norm: nn.LayerNorm, attention: MultiHeadAttention, cuts: Sequence[int]) -> None:
    """`cuts`: where to split the fused projection, in thirds."""
    _norm(there.layer_norm, norm)
    width = attention.in_proj_weight.shape[1]
    for place, first, last in zip(there.linear, cuts, cuts[1:], strict=False):
        rows = slice(first * width, last * width)
        _linear(place, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
    _linear(there.linear[-1], attention.out_proj.weight, attention.out_proj.bias)


def _feed_forward(there: Any, norm: nn.LayerNorm, layers: nn.Sequential) -> None:
    _norm(there.layer_norm, norm)
    for place, layer in ((there.linear_0, layers[0]), (there.linear_1, layers[3])):
        _linear(place, layer.get_parameter("weight"), layer.get_parameter("bias"))


def _norm(there: Any, norm: nn.LayerNorm) -> None:
    there.gamma, there.beta = _array(norm.weight), _array(norm.bias)


def _linear(there: Any, weight: Tensor, bias: Tensor) -> None:
    there.weight, there.bias = _array(weight), _array(bias)


def _array(tensor: Tensor) -> Any:
    """A float32 copy."""
    return tensor.detach().float().cpu().contiguous().clone().numpy()
