"""Augmentation is a function of (seed, epoch, sample), and each recipe does what it says."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from striate.transforms.augment import RECIPES, augment, uniform


def numbered(n, height, width):
    """Pixels that each tell their own position: value = 1 + row * width + column."""
    page = torch.arange(1, height * width + 1).view(1, height, width, 1)
    return page.expand(n, -1, -1, -1).to(torch.uint8)


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_sample_is_augmented_alike_in_any_batch(recipe):
    batch = torch.randint(0, 256, (12, 20, 20, 3), dtype=torch.uint8)
    samples = np.arange(100, 112)

    def run(which):
        return augment(batch[which], (16, 16), recipe, seed=3, epoch=2, samples=samples[which])

    whole = run(np.arange(12))
    assert whole.shape == (12, 16, 16, 3)
    shuffled = np.random.default_rng(0).permutation(12)
    assert torch.equal(run(shuffled), whole[shuffled])
    assert torch.equal(torch.cat([run(np.arange(5)), run(np.arange(5, 12))]), whole)


def test_none_is_the_centre_crop():
    out = augment(numbered(1, 12, 12), (8, 8), "none", seed=0, epoch=0, samples=np.arange(1))
    assert torch.equal(out, numbered(1, 12, 12)[:, 2:10, 2:10])


@pytest.mark.parametrize("recipe", ["shift", "light"])
def test_crops_are_uniform_over_their_positions(recipe):
    n = 4000
    out = augment(numbered(n, 10, 10), (8, 8), recipe, seed=0, epoch=0, samples=np.arange(n))
    corner = out[:, 0, 0, 0].long() - 1
    mirrored = out[:, 0, 1, 0].long() < out[:, 0, 0, 0].long()
    left = corner % 10 - torch.where(mirrored, 7, 0)
    cells = np.bincount((corner // 10 * 3 + left).numpy(), minlength=9)
    assert stats.chisquare(cells).pvalue > 1e-3
    share = mirrored.float().mean()
    assert share == 0 if recipe == "shift" else abs(share - 0.5) < 0.03


def test_small_images_are_padded_by_an_eighth():
    n = 2000
    out = augment(numbered(n, 8, 8), (8, 8), "shift", seed=0, epoch=0, samples=np.arange(n))
    zero_rows = (out[:, :, :, 0] == 0).all(dim=2)
    assert set(zero_rows.sum(dim=1).tolist()) == {0, 1}  # one row of zeros above, below, or none
    # Every pixel is a pixel of the image, moved by -1, 0 or 1.
    assert set(out[:, 4, 4, 0].tolist()) == {1 + r * 8 + c for r in (3, 4, 5) for c in (3, 4, 5)}


def test_resized_crops_keep_to_their_areas():
    n = 3000
    # A horizontal ramp: its slope in the crop tells the crop's width.
    ramp = torch.linspace(0, 255, 64).round().to(torch.uint8).view(1, 1, 64, 1).expand(n, 64, 64, 1)
    out = augment(ramp, (32, 32), "standard", seed=0, epoch=0, samples=np.arange(n)).float()
    slope = (out[:, 16, 30, 0] - out[:, 16, 1, 0]) / 29
    width = slope.abs() * 32 * 64 / 255 * (63 / 64) / 64  # as a share of the image
    # Shares run from sqrt(0.08 * 3/4) to 1; the ends of the range must be reached and not passed.
    assert 0.22 < width.min() < 0.32
    assert width.max() < 1.05
    assert abs((slope < 0).float().mean() - 0.5) < 0.04


@given(st.integers(0, 2**63), st.integers(0, 1000))
def test_draws_depend_on_every_argument(seed, epoch):
    samples = np.arange(50)
    draws = uniform(seed, epoch, samples, 3)
    assert draws.shape == (50, 3)
    assert ((draws >= 0) & (draws < 1)).all()
    assert len(np.unique(draws)) == 150
    assert not np.intersect1d(draws, uniform(seed + 1, epoch, samples, 3)).size
    assert not np.intersect1d(draws, uniform(seed, epoch + 1, samples, 3)).size
    assert np.array_equal(uniform(seed, epoch, samples[10:20], 3), draws[10:20])


def test_draws_are_uniform():
    draws = uniform(1, 2, np.arange(20000), 5)
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(draws.T) - np.eye(5)).max() < 0.03
