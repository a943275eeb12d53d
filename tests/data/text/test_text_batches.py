import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.text.batches import bucket_by_length, pad_sequences

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
