"""Attention rollout and relevance against a Vision Transformer that is written out."""

import numpy as np
import pytest
import torch
from pretrained import build

from striate.errors import UsageError
from striate.explain import Explainer
from striate.explain.attention import attention_rollout, relevance
from striate.models.vit import VisionTransformer

HEADS, DEPTH, WIDTH = 2, 3, 8


def material(height=12, width=16):
    torch.manual_seed(0)
    network = VisionTransformer(4, DEPTH, WIDTH, HEADS, num_classes=3, input_size=(height, width))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network.eval(), torch.randn(1, 3, height, width)


def written_out(network, image, target):
    """Attention weights of each layer `[heads, tokens, tokens]` and their gradients."""
    x = network.conv_proj(image).flatten(2).transpose(1, 2)
    x = torch.cat([network.class_token, x], dim=1) + network.encoder.pos_embedding
    kept = []
    for layer in network.encoder.layers:
        attention, y = layer.self_attention, layer.ln_1(x)
        projected = y @ attention.in_proj_weight.T + attention.in_proj_bias
        query, key, value = projected.reshape(1, -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.mT / (WIDTH // HEADS) ** 0.5, dim=-1)
        kept.append(weights)
        x = x + attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.ln_2(x))
    scores = network.heads(network.encoder.ln(x)[:, 0])
    gradients = torch.autograd.grad(scores[0, target], kept)
    return [w[0].detach().numpy() for w in kept], [g[0].numpy() for g in gradients]


def test_rollout_and_relevance():
    network, image = material()
    weights, gradients = written_out(network, image, 1)
    tokens = 1 + 3 * 4
    rollout, relevances = np.eye(tokens), np.eye(tokens)
    for weight, gradient in zip(weights, gradients, strict=True):
        rollout = (0.5 * weight.mean(axis=0) + 0.5 * np.eye(tokens)) @ rollout
        relevances = relevances + np.maximum(gradient * weight, 0).mean(axis=0) @ relevances
    network.requires_grad_(False)
    explainer = Explainer(network, (3, 12, 16))
    np.testing.assert_allclose(
        attention_rollout(explainer, image, 1).numpy(), rollout[0, 1:].reshape(3, 4), rtol=1e-4
    )
    np.testing.assert_allclose(
        relevance(explainer, image, 1).numpy(), relevances[0, 1:].reshape(3, 4), rtol=1e-4, atol=1e-7
    )


def test_attention_of_torchs_own_layers():
    """Fused attention and the fast path of torch's encoder return no weights by themselves."""
    from test_location import Tokens

    network = Tokens().eval()
    torch.nn.init.normal_(network.head.weight)
    explainer, image = Explainer(network, (3, 16, 16)), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        x = network.layer.norm1(network.patches(image).flatten(2).transpose(1, 2))
        _, weights = network.layer.self_attn(x, x, x, need_weights=True)
    expected = (0.5 * weights[0] + 0.5 * torch.eye(16)).mean(dim=0).reshape(4, 4)
    torch.testing.assert_close(attention_rollout(explainer, image, 0), expected)
    assert relevance(explainer, image, 0).shape == (4, 4)


def test_a_network_without_attention():
    network, _ = build("lenet", 32, num_classes=3)
    with pytest.raises(UsageError, match="no attention weights of LeNet"):
        relevance(Explainer(network, (3, 32, 32)), torch.zeros(1, 3, 32, 32), 0)
