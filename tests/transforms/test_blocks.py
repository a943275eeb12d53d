"""Batches that are changed in parts."""

import pytest
import torch

from striate import transforms as T
from striate.transforms import blocks

RNG = torch.Generator().manual_seed(0)
LARGE = torch.randint(0, 256, (5, 300, 310, 3), dtype=torch.uint8, generator=RNG).permute(0, 3, 1, 2)
SMALL = torch.randint(0, 256, (40, 32, 90, 3), dtype=torch.uint8, generator=RNG).permute(0, 3, 1, 2)


@pytest.mark.parametrize("images", [LARGE, SMALL], ids=["one image in a block", "several"])
@pytest.mark.parametrize("which", [None, [0, 3, 4], list(range(1, 5))])
def test_blocks_are_all_rows_in_order(images, which):
    rows = torch.arange(len(images))
    chosen = None if which is None else torch.tensor(which)
    found = list(blocks.blocks(images, chosen))
    assert torch.cat([rows[block] for block, _ in found]).tolist() == (which or rows.tolist())
    positions = range(len(images) if which is None else len(which))
    assert [p for _, part in found for p in positions[part]] == list(positions)
    if which is None:
        assert len(found) > 1


@pytest.mark.parametrize(
    "transform",
    [T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.TrivialAugmentWide(), T.RandAugment(), T.AutoAugment()],
    ids=lambda transform: type(transform).__name__,
)
@pytest.mark.parametrize("images", [LARGE, SMALL], ids=["one image in a block", "several"])
def test_results_do_not_depend_on_blocks(transform, images, monkeypatch):
    rand = torch.rand(len(images), transform.num_random, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    out = transform.batch(images, rand)
    assert torch.equal(images, before)
    assert out.stride() == images.stride()
    monkeypatch.setattr(blocks, "_BLOCK", 1 << 40)
    assert torch.equal(transform.batch(images, rand), out)


def test_gradients_pass(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 1)
    images = torch.rand(2, 3, 9, 9, requires_grad=True)
    rand = torch.rand(2, 5, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward(T.ColorJitter(0.4, 0.4, 0.4, 0.1).batch(images, rand).sum())
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
