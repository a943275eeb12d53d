"""A text-to-text network as a model of CTranslate2, OpenNMT's engine for Transformers in C++.

https://github.com/OpenNMT/CTranslate2; install `ctranslate2` to write and to run it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from striate.errors import UsageError, WriteError
from striate.export import Parity
from striate.inference.generation import greedy
from striate.models.seq2seq import TextToText
from striate.models.text_decoder import TokenEmbedding
from striate.models.transformer import NORM_EPSILON, MultiHeadAttention


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
    """Write the folder of a CTranslate2 model, in float32: aside, then renamed.

    The model reads sources as the network does: the caller ends them with END where the network learned so.

    Args:
        network: any device.
        folder: to be written; it must not exist.
        source_tokens: a distinct string for each token of the source.
        target_tokens: a distinct string for each token of the target.
        begin: the number of BEGIN.
        end: the number of END.
        unknown: the number of UNKNOWN.

    Raises:
        UsageError: ctranslate2 is not installed, or the strings do not fit the network.
        WriteError: the folder exists, or cannot be written.
    """
    library = _library()
    vocabularies = ((network.embed, source_tokens), (network.decoder.embed, target_tokens))
    for embed, strings in vocabularies:
        if len(set(strings)) != embed.embedding.num_embeddings:
            raise UsageError(
                f"{len(set(strings))} different strings for {embed.embedding.num_embeddings} tokens",
                "CTranslate2 needs one for each",
                "Give the vocabulary that the network was trained with",
            )
    if folder.exists():
        raise WriteError(f"cannot write {str(folder)!r}", "it exists", "Remove it or choose another folder")
    spec = _spec(network, library)
    spec.register_source_vocabulary(list(source_tokens))
    spec.register_target_vocabulary(list(target_tokens))
    spec.config.unk_token, spec.config.bos_token = target_tokens[unknown], target_tokens[begin]
    spec.config.eos_token, spec.config.decoder_start_token = target_tokens[end], target_tokens[begin]
    spec.config.layer_norm_epsilon = NORM_EPSILON
    spec.validate()
    spec.optimize(quantization=None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside:
            whole = Path(aside) / "model"
            whole.mkdir()
            spec.save(str(whole))
            shutil.move(whole, folder)
    except OSError as error:
        raise WriteError(
            f"cannot write {str(folder)!r}", error.strerror or str(error), "Choose another folder"
        ) from error


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
    """Translate with the network and with an exported model.

    Args:
        network: in evaluation mode, on the CPU.
        folder: of the exported model.
        sources: token numbers of each, without padding, as the network reads them.
        limit: how many tokens a translation has at most, END among them.
        begin: the number of BEGIN.
        end: the number of END.

    Raises:
        UsageError: ctranslate2 is not installed.
    """
    translator = _library().Translator(str(folder), device="cpu", compute_type="float32")
    names = [(folder / f"{side}_vocabulary.json") for side in ("source", "target")]
    shared = folder / "shared_vocabulary.json"
    source_names, target_names = (_strings(path if path.exists() else shared) for path in names)
    words = [[source_names[token] for token in source] for source in sources]
    padded = nn.utils.rnn.pad_sequence(
        [torch.tensor(source) for source in sources], batch_first=True, padding_value=network.pad
    )
    memory, mask = network.encode(padded)
    ours = [
        found[0] for found in greedy(network.decoder, memory, mask, limit, begin=begin, end=end).hypotheses
    ]
    theirs = translator.translate_batch(words, beam_size=1, max_decoding_length=limit)
    texts = [[target_names[token] for token in hypothesis.tokens] for hypothesis in ours]
    equal = sum(a == b.hypotheses[0] for a, b in zip(texts, theirs, strict=True))
    scores = translator.score_batch(words, texts)
    difference = 0.0
    for row, (hypothesis, score) in enumerate(zip(ours, scores, strict=True)):
        given = torch.tensor([[begin, *hypothesis.tokens]])
        log = network.decoder(given, memory[row : row + 1], mask[row : row + 1])[0].log_softmax(dim=1)
        picked = log.gather(1, torch.tensor([*hypothesis.tokens, end])[:, None])[:, 0]
        difference = max(difference, float((picked - torch.tensor(score.log_probs)).abs().max()))
    return Parity(len(ours), equal, difference)


def _library() -> ModuleType:
    """CTranslate2, imported when it is needed.

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


def _strings(path: Path) -> list[str]:
    strings: list[str] = json.loads(path.read_text("utf-8"))
    return strings


def _spec(network: TextToText, library: ModuleType) -> Any:
    """The network's weights in the places that CTranslate2 has for them."""
    encoder: Any = network.encoder.layers  # torch's containers do not say of what
    decoder: Any = network.decoder.layers.layers
    heads = decoder[0].self_attention.heads
    spec = library.specs.TransformerSpec.from_config((len(encoder), len(decoder)), heads, pre_norm=True)
    _embedding(spec.encoder, spec.encoder.embeddings[0], network.embed)
    _embedding(spec.decoder, spec.decoder.embeddings, network.decoder.embed)
    _norm(spec.encoder.layer_norm, network.encoder.ln)
    _norm(spec.decoder.layer_norm, network.decoder.layers.ln)
    _linear(spec.decoder.projection, network.decoder.output.weight, network.decoder.output.bias)
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
    """`cuts`: where the fused projection is cut, in thirds."""
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
    """In float32 and its own memory."""
    return tensor.detach().float().cpu().contiguous().clone().numpy()
