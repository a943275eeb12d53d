"""Decoding token by token gives the scores of the full pass, whatever beam continues which."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_transformer import random_tokens, text_to_text

from striate.errors import LayoutError
from striate.kernels import prepare
from striate.kernels.decoding import IncrementalDecoder
from striate.kernels.prepacking import prepack

CPU = torch.device("cpu")


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**16), st.booleans())
def test_step_by_step_is_all_at_once(steps, capacity, seed, learned):
    network = text_to_text(seed, positions="learned" if learned else "sinusoidal")
    source, target = random_tokens(3, 6, 13, seed, [6, 1, 4]), random_tokens(3, steps, 11, seed)
    decoder = IncrementalDecoder(network.decoder, *network.encode(source), capacity=capacity)
    logits = [decoder.step(token)[:, 0] for token in target.split(1, dim=1)]
    torch.testing.assert_close(torch.stack(logits, 1), network(source, target), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", [lambda n: n, lambda n: prepare(n, CPU, training=False), prepack])
@settings(max_examples=15, deadline=None)
@given(steps=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_beams_that_change_places(how, steps, seed):
    """The scores of a beam are those of its whole text, after a selection too."""
    beams, plain = 3, text_to_text(seed)
    network = how(text_to_text(seed))
    memory, mask = plain.encode(random_tokens(3, 6, 13, seed, [6, 1, 4]))
    decoder = IncrementalDecoder(network.decoder, memory, mask, beams, capacity=1)
    texts = torch.ones(3, beams, 1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        logits = decoder.step(texts[:, :, -1])
        for beam in range(beams):
            whole = plain.decoder(texts[:, beam], memory, mask)[:, -1]
            torch.testing.assert_close(logits[:, beam], whole, atol=1e-5, rtol=0)
        parents = torch.randint(beams, texts.shape[:2], generator=generator)
        words = torch.randint(11, texts.shape[:2], generator=generator)
        decoder.reorder(parents)
        texts = torch.cat([texts.gather(1, parents[:, :, None].expand_as(texts)), words[:, :, None]], dim=2)
        if step == 2:
            kept = torch.tensor([2, 0])
            decoder.select(kept)
            texts, memory, mask = texts[kept], memory[kept], mask[kept]


def test_more_steps_than_positions_are_refused():
    network = text_to_text()
    decoder = IncrementalDecoder(network.decoder, *network.encode(random_tokens(1, 3, 13)))
    for _ in range(24):
        decoder.step(torch.ones(1, 1, dtype=torch.int64))
    with pytest.raises(LayoutError, match="25 tokens: this network has positions for 24"):
        decoder.step(torch.ones(1, 1, dtype=torch.int64))
