"""What a sequence-to-sequence network looks at: attention by layer and head, and gradients at the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from striate.anatomy.tracing import restored
from striate.device import standard_settings
from striate.errors import UsageError
from striate.explain import faithfulness
from striate.explain.attention_weights import AttentionRecorder
from striate.explain.faithfulness import Faithfulness
from striate.models.seq2seq import ImageToText, SequenceToSequence, TextToText
from striate.models.text_decoder import TextDecoder
from striate.models.transformer import DecoderLayer, EncoderLayer


@dataclass(frozen=True)
class TokenMaps:
    """How the generated tokens depend on the source.

    Attributes:
        encoder: attention of the encoder, `[layers, heads, source tokens, source tokens]`.
        decoder: attention of the decoder to earlier tokens, `[layers, heads, tokens, tokens]`.
        cross: attention of the decoder to the source, `[layers, heads, tokens, source tokens]`.
        gradients: for each token the length of the gradient of its log-probability with respect to each
            source token's vector, `[tokens, source tokens]`; for images the largest magnitude over the
            colors at each pixel, `[tokens, height, width]`.
        faithfulness: of the gradients, summed over the tokens; None if it was not wanted.
    """

    encoder: Tensor
    decoder: Tensor
    cross: Tensor
    gradients: Tensor
    faithfulness: Faithfulness | None


@standard_settings()
def token_maps(
    network: SequenceToSequence,
    source: Tensor,
    widths: Tensor | None,
    tokens: Tensor,
    expected: Tensor,
    *,
    test: bool = True,
) -> TokenMaps:
    """Attention and gradients for one source and the text that was generated for it.

    Attention is softmax(Q K^T / sqrt(d)) of Vaswani et al. 2017 (arXiv:1706.03762, equation 1). The gradients
    are those of Simonyan, Vedaldi, Zisserman 2014 (arXiv:1312.6034, section 3.1), of the log-probability of
    each token after the ones before it; for texts with respect to the embedded source (Li, Chen, Hovy,
    Jurafsky 2016, arXiv:1506.01066, section 5).

    Args:
        network: left unchanged.
        source: `[1, source tokens]` int64, or an image `[1, channels, height, width]`.
        widths: width of the image, as `ImageToText.encode` takes it; None for a text.
        tokens: `[1, tokens]` int64: BEGIN and the text without END.
        expected: `[1, tokens]` int64: the token after each.
        test: test the gradients with deletion and insertion curves.

    Raises:
        UsageError: a network of another kind.
    """
    with restored(network.modules()):
        for part in network.modules():
            part.training = False
        encode, x = _encoder(network, source, widths)
        x = x.detach().clone().requires_grad_()
        with AttentionRecorder() as recorder:
            logits = _decode(network, tokens, *encode(x))
        scores = F.log_softmax(logits[0], dim=1).gather(1, expected[0][:, None])[:, 0]
        found = [torch.autograd.grad(score, x, retain_graph=True)[0][0] for score in scores]
        gradients = torch.stack([_lengths(gradient) for gradient in found]).detach()
        result = _test(network, encode, x.detach(), tokens, expected, gradients) if test else None
    return TokenMaps(*_by_layer(network, [part.detach()[0] for part in recorder.weights]), gradients, result)


def _by_layer(network: SequenceToSequence, weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the encoder, the decoder and of the decoder's attention to the source, by layer.

    Args:
        network: that was recorded.
        weights: of each attention in the order of the calls, those of an image's own network first.
    """
    wide = sum(isinstance(part, EncoderLayer) for part in network.get_submodule("encoder").modules())
    deep = sum(isinstance(part, DecoderLayer) for part in network.decoder.modules())
    first = len(weights) - 2 * deep  # each decoder layer attends to the text, then to the source
    inside, across = weights[first::2], weights[first + 1 :: 2]
    own = weights[first - wide : first]
    length = across[0].shape[2]
    return (
        torch.stack(own) if own else torch.zeros(0, 0, length, length),
        torch.stack(inside),
        torch.stack(across),
    )


Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def _encoder(network: SequenceToSequence, source: Tensor, widths: Tensor | None) -> tuple[Encode, Tensor]:
    """From what has gradients to the memory and its mask, by the plain layers; and that tensor itself."""
    if isinstance(network, TextToText):
        mask = source != network.pad

        def from_embedded(x: Tensor) -> tuple[Tensor, Tensor]:
            masks = mask.expand(len(x), -1)
            return network.encoder(x, masks[:, None, None, :]), masks

        return from_embedded, network.embed(source)
    if not isinstance(network, ImageToText):
        why = "it is neither text to text nor image to text"
        raise UsageError(f"cannot explain {type(network).__name__}", why)

    def from_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
        each = None if widths is None else widths.expand(len(x))
        return ImageToText.encode(network, x, each)  # not the packed one of `striate.kernels`

    return from_pixels, source


def _decode(network: SequenceToSequence, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """Logits `[batch, tokens, vocab]` by the plain layers, for the same text after each source."""
    return TextDecoder.forward(network.decoder, tokens.expand(len(memory), -1), memory, mask)


def _lengths(gradient: Tensor) -> Tensor:
    """`[source tokens, width]` to lengths; `[channels, height, width]` to the largest magnitudes."""
    return gradient.norm(dim=1) if gradient.ndim == 2 else gradient.abs().amax(dim=0)


def _test(
    network: SequenceToSequence,
    encode: Encode,
    x: Tensor,
    tokens: Tensor,
    expected: Tensor,
    gradients: Tensor,
) -> Faithfulness:
    """Hide and show parts of the source, and watch the mean probability of a token.

    The probability is the geometric mean over the tokens of the answer. Of a text, whole tokens are hidden:
    their vectors become 0. So it is treated as an image of one row, with a channel for each component.
    """
    is_text = x.ndim == 3

    def probability(batch: Tensor) -> Tensor:
        with torch.no_grad():
            logits = _decode(network, tokens, *encode(batch[:, :, 0].transpose(1, 2) if is_text else batch))
            chosen = F.log_softmax(logits, dim=2).gather(2, expected.expand(len(batch), -1)[..., None])
            return chosen[..., 0].mean(dim=1).exp()

    total = gradients.sum(dim=0)
    if is_text:
        image = x.transpose(1, 2)[:, :, None]
        return faithfulness.measure(probability, image, total[None], torch.zeros_like(image))
    return faithfulness.measure(probability, x, total)
