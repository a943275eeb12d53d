"""The fused loss is torch's, in value and gradient, whatever the chunks."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.kernels import cross_entropy
from striate.kernels.cross_entropy import linear_cross_entropy


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(2, 30),
    st.sampled_from([0.0, 0.1]),
    st.integers(1, 200),
    st.integers(0, 99),
)
def test_it_is_torchs_cross_entropy(n, vocab, smoothing, chunk, seed):
    generator = torch.Generator().manual_seed(seed % 2**32)
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in ((n, 5), (vocab, 5), (vocab,))
    )
    expected = torch.randint(vocab, (n,), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "CHUNK", chunk)
        ours = linear_cross_entropy(x, weight, bias, expected, smoothing)
    theirs = F.cross_entropy(F.linear(x, weight, bias), expected, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    inputs = (x, weight, bias)
    for a, b in zip(
        torch.autograd.grad(3 * ours, inputs), torch.autograd.grad(3 * theirs, inputs), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_without_tokens_the_gradient_is_zero():
    """As torch's: a process of a joint step may have no token, and its gradient counts nothing."""
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((0, 5), (7, 5), (7,))]
    labels = torch.zeros(0, dtype=torch.int64)
    ours = linear_cross_entropy(*inputs, labels, 0.1)
    theirs = F.cross_entropy(F.linear(*inputs), labels, label_smoothing=0.1)
    assert ours.isnan()
    assert theirs.isnan()
    for a, b in zip(
        torch.autograd.grad(0 * ours, inputs), torch.autograd.grad(0 * theirs, inputs), strict=True
    ):
        assert torch.equal(a, b)
        assert not a.any()


def test_without_gradients_it_is_the_same_number():
    torch.manual_seed(0)
    x, weight, bias, expected = torch.randn(6, 5), torch.randn(9, 5), torch.randn(9), torch.arange(6)
    ours = linear_cross_entropy(x.requires_grad_(), weight, bias, expected, 0.1)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(x, weight, bias, expected, 0.1), ours.detach())
