"""Attention, encoder and decoder compared with the paper's formula and with torch's own layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.models.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, MultiHeadAttention


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
    mask = mask_of([6, 2, 5], 6)
    expected = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask[:, None, None])[mask], expected[mask])


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_decoder_layer_is_torchs_pre_norm_layer(activation):
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(
        16, 4, 32, dropout=0.0, activation=activation, layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    ours = with_weights_of(theirs, DecoderLayer(16, 4, 32, activation=activation).double())
    x, memory = tokens(3, 6, 16), tokens(3, 7, 16, seed=1)
    mask = mask_of([7, 1, 4], 7)
    causal = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    expected = theirs(x, memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, memory, mask[:, None, None]), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.integers(0, 2**16))
def test_a_later_token_changes_nothing_before_it(place, seed):
    torch.manual_seed(seed)
    decoder = Decoder(2, 8, 2, 16).double()
    x, memory = tokens(2, 6, 8, seed), tokens(2, 4, 8, seed + 1)
    changed = x.clone()
    changed[:, place:] = tokens(2, 6 - place, 8, seed + 2)
    before, after = decoder(x, memory), decoder(changed, memory)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.isclose(before[:, place:], after[:, place:]).all(dim=2).any()


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
    encoder = Encoder(1, 8, 2, 16, dropout=0.5).double()
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
