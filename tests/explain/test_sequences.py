"""Attention and gradients of sequence-to-sequence networks."""

import pytest
import torch
import torch.nn.functional as F
from tiny_transformer import random_tokens, text_to_text

from striate.explain.sequences import token_maps
from striate.kernels import prepare
from striate.kernels.sequence import decode, memories
from striate.models.seq2seq import ImageToText


def material(prepared=True):
    network = text_to_text()
    if prepared:
        prepare(network, torch.device("cpu"), training=False)
    source = random_tokens(1, 7, 13)
    tokens, expected = torch.tensor([[1, 5, 9, 4]]), torch.tensor([[5, 9, 4, 2]])
    return network, source, tokens, expected


@pytest.mark.parametrize("prepared", [False, True])
def test_attention_of_every_layer(prepared):
    """Against the weights that the decoder of `striate.kernels` collects, and the encoder's written out."""
    network, source, tokens, expected = material(prepared)
    found = token_maps(network, source, None, tokens, expected, test=False)
    with torch.no_grad():
        memory, _ = network.encode(source)
        kept = []
        layers = network.decoder.layers
        decode(layers, network.decoder.embed(tokens), memories(layers, memory), weights=kept)
        for layer, (own, across) in enumerate(kept):
            torch.testing.assert_close(found.decoder[layer], own[0])
            torch.testing.assert_close(found.cross[layer], across[0])
        first = network.encoder.layers[0]
        y = first.ln_1(network.embed(source))
        attention = first.self_attention
        query, key, _ = attention.split_heads(attention.project(y, 0, 3), 3).unbind(0)
        weights = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, dim=-1)
        torch.testing.assert_close(found.encoder[0], weights[0])
    assert found.encoder.shape == (2, 2, 7, 7)
    assert found.decoder.shape == (2, 2, 4, 4)
    assert found.cross.shape == (2, 2, 4, 7)
    assert float(found.decoder.triu(1).abs().max()) == 0  # no token attends to later ones


def test_gradients_are_slopes():
    """Central differences along the direction of the gradient have its length as their slope."""
    network, source, tokens, expected = material()
    network = network.double()
    found = token_maps(network, source, None, tokens, expected, test=False).gradients
    x = network.embed(source)

    def log_probabilities(embedded):
        mask = torch.ones(1, 7, dtype=torch.bool)
        memory = network.encoder(embedded, mask[:, None, None, :])
        return F.log_softmax(network.decoder(tokens, memory, mask)[0], dim=1).gather(1, expected[0][:, None])

    leaf = x.clone().requires_grad_()
    for token, place in ((0, 0), (3, 6), (2, 4)):
        (gradient,) = torch.autograd.grad(log_probabilities(leaf)[token, 0], leaf)
        step = torch.zeros_like(x)
        step[0, place] = 1e-4 * F.normalize(gradient[0, place], dim=0)
        slope = (log_probabilities(x + step) - log_probabilities(x - step))[token, 0] / 2e-4
        assert float(found[token, place]) == pytest.approx(float(slope), rel=1e-4)


def test_the_network_stays_as_it_was():
    network, source, tokens, expected = material()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = token_maps(network, source, None, tokens, expected)
    assert found.faithfulness is not None
    assert all(part.training for part in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("encoder", ["columns", "patches"])
def test_images(encoder):
    torch.manual_seed(0)
    network = ImageToText(9, encoder, input_size=(16, None), width=8, depth=1, heads=2, hidden=8).eval()
    prepare(network, torch.device("cpu"), training=False)
    pixels, widths = torch.randn(1, 1, 16, 24), torch.tensor([24])
    tokens, expected = torch.tensor([[1, 5, 9 - 2]]), torch.tensor([[5, 7, 2]])
    found = token_maps(network, pixels, widths, tokens, expected)
    columns = 6 if encoder == "columns" else 2 * 3
    assert found.cross.shape == (1, 2, 3, columns)
    assert found.encoder.shape == (1, 2, columns, columns)
    assert found.gradients.shape == (3, 16, 24)
    x = pixels.clone().requires_grad_()
    logits = network(x, tokens, widths=widths)
    (gradient,) = torch.autograd.grad(F.log_softmax(logits[0], dim=1)[1, 7], x)
    torch.testing.assert_close(found.gradients[1], gradient[0, 0].abs(), rtol=1e-4, atol=1e-6)
