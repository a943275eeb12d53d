"""Sequence-to-sequence networks: positions, padding and later tokens change only what they should."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_transformer import random_tokens, text_to_text

from striate.errors import LayoutError, UsageError
from striate.models.seq2seq import TextToText, build
from striate.models.text_decoder import Positions

SMALL = {"width": 16, "depth": 2, "heads": 2, "hidden": 32}


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(7)), st.integers(0, 2**16))
def test_without_positions_the_order_of_a_source_is_nothing(order, seed):
    network = text_to_text(seed, positions="none")
    source = random_tokens(2, 7, 13, seed)
    memory, _ = network.encode(source)
    torch.testing.assert_close(network.encode(source[:, order])[0], memory[:, order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_with_positions_it_is_something(positions):
    network = text_to_text(positions=positions)
    source = random_tokens(2, 7, 13)
    turned = network.encode(source.flip(1))[0].flip(1)
    assert (turned - network.encode(source)[0]).abs().max() > 1e-2


def test_sinusoids_are_the_papers_formula():
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(...), section 3.5."""
    table = Positions("sinusoidal", 6, 50)(torch.zeros(50, 6), torch.arange(50))
    for pos in (0, 1, 7, 49):
        for i in range(3):
            angle = pos / 10000 ** (2 * i / 6)
            assert table[pos, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[pos, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**16))
def test_a_later_token_changes_nothing_before_it(place, seed):
    network = text_to_text(seed)
    source, target = random_tokens(2, 6, 13, seed), random_tokens(2, 8, 11, seed)
    changed = target.clone()
    changed[:, place] = (changed[:, place] + 1) % 11
    before, after = network(source, target), network(source, changed)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.equal(before[:, place], after[:, place])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 5), st.integers(0, 2**16))
def test_padding_changes_nothing(lengths, more, seed):
    """A batch of several lengths, padded further still, gives what each sentence gives alone."""
    network = text_to_text(seed)
    source = random_tokens(len(lengths), 6, 13, seed, lengths)
    target = random_tokens(len(lengths), 5, 11, seed, [1 + length % 5 for length in lengths])
    memory, mask = network.encode(F.pad(source, (0, more)))
    logits = network(F.pad(source, (0, more)), F.pad(target, (0, more)))
    for row, length in enumerate(lengths):
        alone, _ = network.encode(source[row : row + 1, :length])
        torch.testing.assert_close(memory[row, :length], alone[0], atol=1e-5, rtol=0)
        words = 1 + length % 5
        alone = network(source[row : row + 1, :length], target[row : row + 1, :words])
        torch.testing.assert_close(logits[row, :words], alone[0], atol=1e-5, rtol=0)
        assert mask[row].tolist() == [True] * length + [False] * (6 + more - length)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_papers(smoothing):
    """The mean over tokens of -sum(q log p), q the label smoothed over the vocabulary; padding counts not."""
    network = text_to_text()
    source, target = random_tokens(3, 6, 13, 0, [6, 2, 4]), random_tokens(3, 5, 11, 0, [5, 1, 3])
    expected = random_tokens(3, 5, 11, 1, [5, 1, 3])
    log = network(source, target).log_softmax(dim=2)
    q = (1 - smoothing) * F.one_hot(expected, 11) + smoothing / 11
    terms = -(q * log).sum(dim=2)[expected != 0]
    assert len(terms) == 9
    torch.testing.assert_close(network.loss(source, target, expected, smoothing), terms.mean())


@pytest.mark.parametrize(("tied", "matrices"), [("none", 3), ("target", 2), ("all", 1)])
def test_tied_embeddings_are_one_matrix(tied, matrices):
    network = TextToText(11, 11, **SMALL, tied=tied)
    places = [network.embed.embedding, network.decoder.embed.embedding, network.decoder.output]
    assert len({id(layer.weight) for layer in places}) == matrices
    again = TextToText(11, 11, **SMALL, tied=tied)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.decoder.output.weight, network.decoder.output.weight)


def test_what_cannot_be_built_or_read():
    with pytest.raises(UsageError, match="did you mean text_to_text"):
        build("text_to_txt", source_vocab=5, target_vocab=5)
    with pytest.raises(UsageError, match="unexpected keyword argument 'size'"):
        build("text_to_text", source_vocab=5, target_vocab=5, size=3)
    with pytest.raises(UsageError, match="width 16 for 3 heads"):
        build("text_to_text", source_vocab=5, target_vocab=5, width=16, heads=3)
    with pytest.raises(UsageError, match="one embedding for 5 and 6 tokens"):
        build("text_to_text", source_vocab=5, target_vocab=6, tied="all")
    with pytest.raises(UsageError, match="unknown kind of positions 'sinus'"):
        text_to_text(positions="sinus")
    with pytest.raises(LayoutError, match="25 tokens: this network has positions for 24"):
        text_to_text().encode(random_tokens(1, 25, 13))
