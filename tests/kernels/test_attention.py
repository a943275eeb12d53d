"""Attention in parts equals the plain attention; its weights are those of the paper's formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.kernels.attention import FEW, Attention, Cache, attend, attention_weights, project
from striate.kernels.packing import Packing
from striate.models.transformer import MultiHeadAttention


def tokens(batch, length, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, width, dtype=torch.float64, generator=generator)


def mask_of(lengths, longest):
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


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


@pytest.fixture
def attention():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2).double()
    torch.nn.init.normal_(attention.in_proj_bias)
    return attention


@pytest.mark.parametrize("queries", [1, FEW.start, FEW.stop - 1, FEW.stop])
@pytest.mark.parametrize("how", ["self", "causal", "memory", "masked"])
def test_in_parts_it_is_the_plain_attention(attention, queries, how):
    """On either side of each limit of the explicit matrix products."""
    x, memory = tokens(2, queries, 8), tokens(2, 5, 8, seed=1)
    mask = mask_of([5, 3], 5)[:, None, None]
    if how in ("self", "causal"):
        expected = attention(x, causal=how == "causal")
        ours = attend(attention, *project(attention, x, 0, 3), causal=how == "causal")
    else:
        mask = mask if how == "masked" else None
        expected = attention(x, memory, mask)
        ours = attend(attention, *project(attention, x, 0, 1), *project(attention, memory, 1, 3), mask)
    torch.testing.assert_close(ours, expected)


def test_packed_it_is_the_plain_attention(attention):
    x, packing = tokens(3, 6, 8), Packing.of(mask_of([6, 2, 5], 6))
    expected = attention(x, mask=packing.attention_mask)
    parts = project(attention, packing.pack(x), 0, 3, packing)
    ours = attend(attention, *parts, packing.attention_mask, packing=packing)
    torch.testing.assert_close(ours, packing.pack(expected))


def test_the_fast_class_projects_as_the_plain_one(attention):
    x, gradient = tokens(2, 3, 8), tokens(2, 3, 24, seed=1)
    for first, last in ((0, 3), (0, 1), (1, 3)):
        expected, ours = attention.project(x, first, last), Attention.project(attention, x, first, last)
        assert torch.equal(ours, expected)
        grads = [
            torch.autograd.grad(y, attention.in_proj_weight, gradient[:, :, : y.shape[2]])[0]
            for y in (ours, expected)
        ]
        assert torch.equal(*grads)


def test_attention_weights_are_those_that_were_used(attention):
    """They sum to one, are zero where the mask is False, and make the same output."""
    x, mask, weights = tokens(2, 5, 8), mask_of([5, 3], 5)[:, None, None], []
    parts = project(attention, x, 0, 3)
    torch.testing.assert_close(attend(attention, *parts, mask, weights=weights), attention(x, mask=mask))
    assert weights[0].shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights[0].sum(dim=3), torch.ones(2, 2, 5, dtype=torch.float64))
    assert not weights[0][1, :, :, 3:].any()
    causal = attend(attention, *parts, causal=True, weights=weights)
    torch.testing.assert_close(causal, attention(x, causal=True))
    assert torch.equal(weights[1], weights[1].tril())


def test_attention_weights_are_the_papers_formula(attention):
    query, key, _ = project(attention, tokens(2, 4, 8), 0, 3)
    expected = torch.einsum("bhqd,bhkd->bhqk", query, key).div(2).softmax(dim=3)  # sqrt(d) = 2
    torch.testing.assert_close(attention_weights(query, key, None), expected)
