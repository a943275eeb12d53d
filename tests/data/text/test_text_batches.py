import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.text.batches import TextBatch, bucket_by_length, drop_words, pad_sequences
from striate.data.text.tokens import BOS, EOS, NUM_SPECIALS, UNK

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80)


@settings(max_examples=80, deadline=None)
@given(LENGTHS, st.integers(2, 200), st.integers(0, 5), st.integers(0, 5))
def test_batches_hold_every_pair_once_and_not_too_much(lengths, tokens, seed, epoch):
    lengths = np.array(lengths, np.int64)
    batches = bucket_by_length(lengths, tokens, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        held = lengths[batch].max(axis=0).sum() * len(batch)
        assert held <= tokens or len(batch) == 1
    again = bucket_by_length(lengths, tokens, seed=seed, epoch=epoch)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))
    assert len(bucket_by_length(lengths, tokens, seed=seed, epoch=epoch + 1)) == len(batches)


def test_little_is_padding_and_epochs_differ():
    lengths = np.random.default_rng(0).integers(1, 60, (3000, 1)).repeat(2, axis=1)
    first, second = (bucket_by_length(lengths, 2000, seed=0, epoch=epoch) for epoch in (0, 1))
    held = sum(int(lengths[batch].max(axis=0).sum()) * len(batch) for batch in first)
    assert lengths.sum() / held > 0.95
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    longest = [int(lengths[batch].max()) for batch in first]
    assert longest != sorted(longest)  # not from short to long


def test_rows_are_filled_up_with_pad():
    assert pad_sequences([[5, 6], [7]]).tolist() == [[5, 6], [7, 0]]
    assert pad_sequences([[]], min_length=2).tolist() == [[0, 0]]


def test_word_dropout_hides_tokens_from_the_decoder():
    """A share of them that depends on seed, epoch and sample, but not on the batch."""
    rng = np.random.default_rng(0)
    rows = [[BOS, *rng.integers(NUM_SPECIALS, 40, n), EOS] for n in rng.integers(1, 30, 200)]
    padded = pad_sequences(rows)
    batch = TextBatch(padded, None, padded[:, :-1], padded[:, 1:], np.arange(200), 200)
    dropped = drop_words(batch, 0.2, 40, seed=1, epoch=2)
    tokens, before = dropped.decoder_input, batch.decoder_input
    changed = tokens != before
    assert set(tokens[changed].tolist()) == {UNK}
    assert int(before[changed].min()) >= NUM_SPECIALS  # not BOS, EOS and PAD
    n = int((before >= NUM_SPECIALS).sum())
    assert abs(int(changed.sum()) - 0.2 * n) < 4 * (n * 0.2 * 0.8) ** 0.5  # four standard deviations
    assert torch.equal(dropped.target, batch.target)
    some = batch.part(slice(3, 7))
    again = drop_words(some, 0.2, 40, seed=1, epoch=2)
    assert torch.equal(again.decoder_input, tokens[3:7])
    assert not torch.equal(drop_words(batch, 0.2, 40, seed=1, epoch=3).decoder_input, tokens)
    assert drop_words(batch, 0.0, 40, seed=1, epoch=2) is batch
