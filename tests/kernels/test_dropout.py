"""Fast dropout is dropout: independent draws with the right probability, and its own gradient."""

import pytest
import torch

from striate.kernels.dropout import Dropout


def test_dropout_on_a_cpu():
    """The share of zeros and its spread are those of independent draws; the rest is scaled up."""
    torch.manual_seed(0)
    dropout = Dropout(0.1)
    x = torch.ones(400, 1000)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.9])
    share = (y == 0).double()
    assert share.mean().item() == pytest.approx(0.1, abs=5 * (0.09 / 400_000) ** 0.5)
    for axis, n in ((0, 400), (1, 1000)):  # no line drops more often than chance lets it
        assert ((share.mean(dim=axis) - 0.1).abs() < 5 * (0.09 / n) ** 0.5).all()
    assert torch.equal(dropout.eval()(x), x)
    assert not Dropout(1.0)(x).any()


def test_dropout_differentiates_as_it_computes():
    torch.manual_seed(0)
    x = torch.randn(7, 3, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0) * 2.0)
