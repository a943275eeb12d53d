"""Stacks of layers on packed tokens give what the plain stacks give on padded ones."""

import pytest
import torch
import torch.nn.functional as F

from striate.kernels import prepare
from striate.kernels.attention import attention_weights, project
from striate.kernels.packing import Packing
from striate.kernels.sequence import decode, encode, memories
from striate.models.seq2seq import TextToText
from striate.models.transformer import Decoder, Encoder


def tokens(batch, length, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, dtype=torch.float64, generator=generator)


def mask_of(lengths, longest):
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("lengths", [[6, 2, 5], [6, 6, 6], [1, 1, 1]])
def test_packed_encoding(activation, lengths):
    torch.manual_seed(0)
    encoder = Encoder(2, 16, 4, 32, activation=activation).double()
    x, packing = tokens(3, 6, 16), Packing.of(mask_of(lengths, 6))
    expected = encoder(x, packing.attention_mask)
    torch.testing.assert_close(encode(encoder, packing.pack(x), packing), packing.pack(expected))


@pytest.mark.parametrize("lengths", [[2, 6, 3], [6, 6, 6]])
@pytest.mark.parametrize("sources", [[7, 1, 4], [7, 7, 7]])
def test_packed_decoding(lengths, sources):
    """The target packed, the source packed, or both; its attention weights change nothing."""
    torch.manual_seed(0)
    decoder = Decoder(2, 16, 4, 32).double()
    x, memory = tokens(3, 6, 16), tokens(3, 7, 16, seed=1)
    packing, source = Packing.of(mask_of(lengths, 6)), Packing.of(mask_of(sources, 7))
    expected = decoder(x, memory, source.attention_mask)
    keys_values = memories(decoder, source.pack(memory), source)
    padded = decode(decoder, x, keys_values, source.attention_mask)
    torch.testing.assert_close(padded, expected)
    weights = []
    packed = decode(
        decoder, packing.pack(x), keys_values, source.attention_mask, packing=packing, weights=weights
    )
    torch.testing.assert_close(packed, packing.pack(expected))
    assert [tuple(w.shape for w in pair) for pair in weights] == [((3, 4, 6, 6), (3, 4, 6, 7))] * 2


def prepared(**arguments):
    torch.manual_seed(0)
    network = TextToText(13, 11, width=16, depth=2, heads=2, hidden=32, **arguments)
    return prepare(network, torch.device("cpu"), training=True)


def batch():
    source = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 3, 0, 0, 0, 0], [4, 5, 6, 12, 0, 0]])
    target = torch.tensor([[1, 4, 5, 6, 7], [1, 0, 0, 0, 0], [1, 8, 10, 0, 0]])
    expected = torch.tensor([[4, 5, 6, 7, 2], [2, 0, 0, 0, 0], [8, 10, 2, 0, 0]])
    return source, target, expected


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_logits(smoothing):
    network, (source, target, expected) = prepared().eval(), batch()
    ours = network.loss(source, target, expected, smoothing)
    logits = network(source, target).flatten(0, 1)
    theirs = F.cross_entropy(logits, expected.flatten(), ignore_index=0, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    parameters = list(network.parameters())
    for a, b in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_memory_is_zero_at_padding_and_right_elsewhere():
    network, (source, _, _) = prepared().eval(), batch()
    memory, mask = network.encode(source)
    assert torch.equal(mask, source != 0)
    assert not memory[~mask].any()
    for row, length in enumerate([6, 2, 4]):
        alone, _ = network.encode(source[row : row + 1, :length])
        torch.testing.assert_close(memory[row, :length], alone[0], atol=1e-5, rtol=0)


def test_no_attention_to_padding_of_the_source():
    network, (source, _, _) = prepared().eval(), batch()
    inputs = []
    layer = network.encoder.layers[0]
    layer.ln_1.register_forward_hook(lambda _module, _input, output: inputs.append(output))
    network.encode(source)
    packing = Packing.of(source != 0)
    assert inputs[0].shape == (12, 16)
    query, key, _ = project(layer.self_attention, inputs[0], 0, 3, packing)
    weights = attention_weights(query, key, packing.attention_mask)
    assert not weights[1, :, :, 2:].any()


def test_dropout_draws_for_tokens_alone():
    """A batch padded further trains the same, to the bit: padding draws no random bits."""
    network, (source, target, expected) = prepared(dropout=0.3).train(), batch()
    losses = []
    for more in (0, 4):
        torch.manual_seed(3)
        padded = [F.pad(rows, (0, more)) for rows in (source, target, expected)]
        losses.append(network.loss(*padded))
    assert torch.equal(*losses)
