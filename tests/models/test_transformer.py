"""Attention and encoder: the paper's formula, torch's own attention, and that tokens have no place."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.models.transformer import Encoder, EncoderLayer, MultiHeadAttention


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


def test_an_encoder_layer_is_torchs_pre_norm_layer():
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).double()
    ours = EncoderLayer(16, 4, 32).double()
    ours.load_state_dict(
        {
            key.replace("self_attn", "self_attention")
            .replace("linear1", "mlp.0")
            .replace("linear2", "mlp.3")
            .replace("norm1", "ln_1")
            .replace("norm2", "ln_2"): value
            for key, value in theirs.state_dict().items()
        }
    )
    x = tokens(2, 6, 16)
    torch.testing.assert_close(ours(x), theirs(x))


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
