"""Export a text-to-text network to CTranslate2, OpenNMT's inference engine for Transformers in C++.

https://github.com/OpenNMT/CTranslate2; the package `ctranslate2` writes and runs the models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from striate.data.text.tokens import NEVER_GENERATED
from striate.errors import UsageError
from striate.exporters import Parity
from striate.files import new_folder
from striate.inference.generation import greedy, log_probabilities
from striate.models.seq2seq import TextToText
from striate.models.text_decoder import TokenEmbedding
from striate.models.transformer import NORM_EPSILON, MultiHeadAttention

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


@torch.inference_mode()
def compare(
    network: TextToText,
    folder: Path,
    sources: Sequence[Sequence[int]],
    limit: int,
    *,
    begin: int = 1,
    end: int = 2,
) -> Parity:
    """Compare the translations of the network and of an exported model.

    Args:
        network: in evaluation mode, on the CPU.
        folder: of the exported model.
        sources: token numbers of each source, without padding.
        limit: maximum number of tokens in a translation, including END.
        begin: number of BEGIN.
        end: number of END.

    Raises:
        UsageError: ctranslate2 is not installed.
    """
    translator = _library().Translator(str(folder), device="cpu", compute_type="float32")
    source_names, target_names = (_vocabulary(folder, side) for side in ("source", "target"))
    words = [[source_names[token] for token in source] for source in sources]
    padded = nn.utils.rnn.pad_sequence(
        [torch.tensor(source) for source in sources], batch_first=True, padding_value=network.pad
    )
    memory, mask = network.encode(padded)
    generated = greedy(network.decoder, memory, mask, limit, begin=begin, end=end)
    ours = [hypotheses[0] for hypotheses in generated]
    theirs = translator.translate_batch(words, beam_size=1, max_decoding_length=limit)
    texts = [[target_names[token] for token in hypothesis.tokens] for hypothesis in ours]
    equal = sum(a == b.hypotheses[0] for a, b in zip(texts, theirs, strict=True))
    scores = translator.score_batch(words, texts)
    difference = 0.0
    for row, (hypothesis, score) in enumerate(zip(ours, scores, strict=True)):
        target = torch.tensor([[begin, *hypothesis.tokens]])
        log = log_probabilities(network.decoder(target, memory[row : row + 1], mask[row : row + 1])[0])
        picked = log.gather(1, torch.tensor([*hypothesis.tokens, end])[:, None])[:, 0]
        difference = max(difference, float((picked - torch.tensor(score.log_probs)).abs().max()))
    return Parity(len(ours), equal, difference)


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
