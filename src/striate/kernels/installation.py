"""The fast counterpart of each plain layer and network of a Transformer."""

from __future__ import annotations

from torch import nn

from striate.kernels.attention import Attention
from striate.kernels.dropout import Dropout
from striate.kernels.linear import Linear
from striate.kernels.sequence import PackedImageToText, PackedTextDecoder, PackedTextToText
from striate.models.seq2seq import ImageToText, SequenceToSequence, TextToText
from striate.models.text_decoder import TextDecoder, TokenEmbedding
from striate.models.transformer import DecoderLayer, EncoderLayer, FeedForward, MultiHeadAttention

COUNTERPARTS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Linear,
    nn.Dropout: Dropout,
    MultiHeadAttention: Attention,
    TextDecoder: PackedTextDecoder,
    TextToText: PackedTextToText,
    ImageToText: PackedImageToText,
}
# Where a linear layer or dropout belongs to a Transformer; in other networks torch's own stay.
_OWNERS = (
    EncoderLayer, DecoderLayer, FeedForward, MultiHeadAttention, TokenEmbedding, TextDecoder,
    SequenceToSequence,
)  # fmt: skip


def install(network: nn.Module) -> None:
    """Give each module of a Transformer, in place, the class of its fast counterpart."""
    for owner in network.modules():
        if isinstance(owner, _OWNERS):
            for module in (owner, *owner.children()):
                module.__class__ = COUNTERPARTS.get(type(module), type(module))
