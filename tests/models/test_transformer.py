"""Attention, encoder and decoder: the paper's formula, torch's own layers, and that tokens have no place."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.models.packing import Packing
from striate.models.transformer import (
    Cache,
    Decoder,
    DecoderLayer,
    Dropout,
    Encoder,
    EncoderLayer,
    MultiHeadAttention,
)


def tokens(batch, length, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, dtype=torch.float64, generator=generator)


def test_attention_is_the_papers_formula():
    """softmax(Q K^T / sqrt(d)) V in each head, concatenated, projected (equation 1, section 3.2.2)."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(12, 3).double()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    x = tokens(2, 5, 12)
    w, b = attention.in_proj_weight.detach().numpy(), attention.in_proj_bias.detach().numpy()
    query, key, value = np.split(x.numpy() @ w.T + b, 3, axis=2)
    heads = []
    for head in range(3):
        q, k, v = (part[:, :, 4 * head : 4 * head + 4] for part in (query, key, value))
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(4))
        heads.append(scores / scores.sum(axis=2, keepdims=True) @ v)
    expected = np.concatenate(heads, axis=2) @ attention.out_proj.weight.detach().numpy().T
    expected += attention.out_proj.bias.detach().numpy()
    np.testing.assert_allclose(attention(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_attention_takes_the_weights_of_torchs_own():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    ours = MultiHeadAttention(16, 4).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = tokens(3, 7, 16)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


THEIR_NAMES = {
    "self_attn": "self_attention",
    "multihead_attn": "cross_attention",
    "linear1": "mlp.0",
    "linear2": "mlp.3",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "norm3": "ln_3",
}


def with_weights_of(theirs, ours):
    """Our layer with the weights of torch's, all of them made random first."""
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    state = {}
    for key, value in theirs.state_dict().items():
        first, _, rest = key.partition(".")
        state[f"{THEIR_NAMES[first]}.{rest}"] = value
    ours.load_state_dict(state)
    return ours


def mask_of(lengths, longest):
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_an_encoder_layer_is_torchs_pre_norm_layer(activation):
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation=activation, layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    ours = with_weights_of(theirs, EncoderLayer(16, 4, 32, activation=activation).double())
    x = tokens(3, 6, 16)
    torch.testing.assert_close(ours(x), theirs(x))
    packing = Packing.of(mask_of([6, 2, 5], 6))
    expected = theirs(x, src_key_padding_mask=~packing.mask)
    torch.testing.assert_close(ours.read(packing.pack(x), packing), packing.pack(expected))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_decoder_layer_is_torchs_pre_norm_layer(activation):
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(
        16, 4, 32, dropout=0.0, activation=activation, layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    ours = with_weights_of(theirs, DecoderLayer(16, 4, 32, activation=activation).double())
    x, memory = tokens(3, 6, 16), tokens(3, 7, 16, seed=1)
    mask, packing = mask_of([7, 1, 4], 7), Packing.of(mask_of([2, 6, 3], 6))
    causal = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    expected = theirs(x, memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=~mask)
    memories = ours.cross_attention.keys_values(memory)
    torch.testing.assert_close(ours(x, memories, mask[:, None, None]), expected)
    packed = ours(packing.pack(x), memories, mask[:, None, None], packing=packing)
    torch.testing.assert_close(packed, packing.pack(expected))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2**16))
def test_packing_and_unpacking(lengths, seed):
    packing = Packing.of(mask_of(lengths, 6))
    x = tokens(len(lengths), 6, 3, seed)
    packed = packing.pack(x)
    assert torch.equal(packed, x[packing.mask])
    assert torch.equal(packing.unpack(packed), x * packing.mask[:, :, None])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 2**16))
def test_a_later_token_changes_nothing_before_it(place, seed):
    torch.manual_seed(seed)
    decoder = Decoder(2, 8, 2, 16).double()
    x, memories = tokens(2, 6, 8, seed), decoder.memories(tokens(2, 4, 8, seed + 1))
    changed = x.clone()
    changed[:, place:] = tokens(2, 6 - place, 8, seed + 2)
    before, after = decoder(x, memories), decoder(changed, memories)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.isclose(before[:, place:], after[:, place:]).all(dim=2).any()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 9), st.integers(0, 2**16))
def test_a_cache_gives_back_all_it_was_given(sizes, room, seed):
    cache, given_keys = Cache(room), []
    for number, size in enumerate(sizes):
        keys = tokens(2, size, 12, seed + number).view(2, size, 3, 4).transpose(1, 2)
        given_keys.append(keys)
        got, values = cache.extend(keys, -keys)
        assert torch.equal(got, torch.cat(given_keys, dim=2))
        assert torch.equal(values, -got)
    cache.select(torch.tensor([1]))
    more = cache.extend(keys[:1], keys[:1])[0]
    assert torch.equal(more, torch.cat([got[1:], keys[:1]], dim=2))


def test_attention_weights_are_those_that_were_used():
    """They sum to one, are zero where the mask is False, and make the same output."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2).double()
    x, mask, weights = tokens(2, 5, 8), mask_of([5, 3], 5)[:, None, None], []
    torch.testing.assert_close(attention.attend(x, mask, weights=weights), attention.attend(x, mask))
    assert weights[0].shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights[0].sum(dim=3), torch.ones(2, 2, 5, dtype=torch.float64))
    assert not weights[0][1, :, :, 3:].any()
    torch.testing.assert_close(
        attention.attend(x, causal=True, weights=weights), attention.attend(x, causal=True)
    )
    assert torch.equal(weights[1], weights[1].tril())


def test_dropout_on_a_cpu():
    """The share of zeros and its spread are those of independent draws; the rest is scaled up."""
    torch.manual_seed(0)
    dropout = Dropout(0.1)
    x = torch.ones(400, 1000)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.9])
    share = (y == 0).double()
    assert share.mean().item() == pytest.approx(0.1, abs=5 * (0.09 / 400_000) ** 0.5)
    for axis, n in ((0, 400), (1, 1000)):  # no line drops more often than chance lets it
        assert ((share.mean(dim=axis) - 0.1).abs() < 5 * (0.09 / n) ** 0.5).all()
    assert torch.equal(dropout.eval()(x), x)
    assert not Dropout(1.0)(x).any()


def test_dropout_differentiates_as_it_computes():
    torch.manual_seed(0)
    x = torch.randn(7, 3, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0) * 2.0)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 2**16))
def test_the_encoder_knows_no_positions(order, seed):
    """Tokens in another order give the same answers in that order."""
    torch.manual_seed(seed)
    encoder = Encoder(2, 8, 2, 16).double().eval()
    x = tokens(1, 6, 8, seed)
    torch.testing.assert_close(encoder(x[:, order]), encoder(x)[:, order])


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    encoder = Encoder(1, 8, 2, 16, dropout=0.5, attention_dropout=0.5).double()
    x = tokens(1, 6, 8)
    assert not torch.equal(encoder.train()(x), encoder(x))
    assert torch.equal(encoder.eval()(x), encoder(x))


def test_dropout_of_the_attention_weights():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, dropout=0.5).double()
    x = tokens(1, 6, 8)
    assert not torch.equal(attention.train()(x), attention(x))
    assert torch.equal(attention.eval()(x), attention(x))


def test_initial_weights():
    """Glorot-uniform as torchvision; biases zero in the attention, 1e-6 in the feed-forward layers."""
    torch.manual_seed(0)
    layer = EncoderLayer(64, 4, 256)
    for weight in (layer.self_attention.in_proj_weight, layer.mlp[0].weight, layer.mlp[3].weight):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound
    assert not layer.self_attention.in_proj_bias.any()
    assert not layer.self_attention.out_proj.bias.any()
    assert 0 < layer.mlp[0].bias.abs().max() < 1e-5
