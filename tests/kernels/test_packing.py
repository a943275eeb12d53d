"""Packed batches hold the tokens of a mask, in order, and nothing of the padding."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.kernels.packing import Packing


def mask_of(lengths, longest):
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def tokens(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2**16))
def test_packing_and_unpacking(lengths, seed):
    packing = Packing.of(mask_of(lengths, 6))
    x = tokens(len(lengths), 6, 3, seed=seed)
    packed = packing.pack(x)
    assert torch.equal(packed, x[packing.mask])
    assert torch.equal(packing.unpack(packed), x * packing.mask[:, :, None])
    assert (packing.attention_mask is None) == (set(lengths) == {6})


def test_gradients_are_those_of_indexing():
    packing = Packing.of(mask_of([3, 1, 4], 4))
    x = tokens(3, 4, 2).requires_grad_()
    gradient = tokens(8, 2, seed=1)
    (ours,) = torch.autograd.grad(packing.pack(x), x, gradient)
    (theirs,) = torch.autograd.grad(x[packing.mask], x, gradient)
    assert torch.equal(ours, theirs)
    packed = tokens(8, 2, seed=2).requires_grad_()
    gradient = tokens(3, 4, 2, seed=3)
    (ours,) = torch.autograd.grad(packing.unpack(packed), packed, gradient)
    assert torch.equal(ours, gradient[packing.mask])
