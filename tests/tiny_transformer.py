"""A small text-to-text network and random tokens, for several tests."""

import torch

from striate.models.seq2seq import TextToText


def text_to_text(seed=0, **arguments):
    """A network with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    size = {"width": 16, "depth": 2, "heads": 2, "hidden": 32, "max_length": 24}
    return TextToText(13, 11, **{**size, **arguments}).eval().requires_grad_(False)


def random_tokens(batch, length, vocab, seed=0, lengths=None):
    """Tokens from 3 on; padding (0) after `lengths`."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, vocab, (batch, length), generator=generator)
    if lengths is not None:
        tokens.masked_fill_(torch.arange(length) >= torch.tensor(lengths)[:, None], 0)
    return tokens
