"""Augmentation is a function of (seed, epoch, sample), and each recipe does what it says."""

import importlib
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from striate import transforms
from striate.errors import UsageError
from striate.transforms.augment import augment, pca_color, uniform
from striate.transforms.augmentations import AUGMENTATIONS, Augmentation
from striate.transforms.geometry import RandomResizedCrop, _crops_at_once, _crops_by_index, _crops_by_numpy


def numbered(n, height, width):
    """Pixels that each tell their own position: value = 1 + row * width + column."""
    page = torch.arange(1, height * width + 1).view(1, height, width, 1)
    return page.expand(n, -1, -1, -1).to(torch.uint8)


@pytest.mark.parametrize("recipe", list(AUGMENTATIONS))
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


@pytest.mark.parametrize(("height", "width"), [(10, 12), (8, 8)])
def test_a_cpu_cuts_what_a_gpu_gathers(height, width):
    rng = np.random.default_rng(0)
    batch = torch.from_numpy(rng.integers(0, 256, (64, height, width, 3), np.uint8))
    top, left = (torch.from_numpy(rng.integers(-2, side - 8 + 3, 64)) for side in (height, width))
    mirrored = torch.from_numpy(rng.random(64) < 0.5)
    cut, together, gathered = (
        f(batch, top, left, (8, 8), mirrored) for f in (_crops_by_numpy, _crops_at_once, _crops_by_index)
    )
    assert torch.equal(together, gathered)
    assert torch.equal(cut, gathered)


def test_resized_crops_are_pillows():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)).resize((64, 48))
    batch = torch.from_numpy(np.array(photo))[None].expand(50, -1, -1, -1)
    out = augment(batch, (24, 24), "standard", seed=1, epoch=2, samples=np.arange(50))
    crop = RandomResizedCrop(24)
    rand = torch.from_numpy(uniform(1, 2, np.arange(50), crop.num_random + 1)).float()
    for image, *box, mirror in zip(out.numpy(), *crop.boxes(48, 64, rand), rand[:, -1] < 0.5, strict=True):
        top, left, height, width = map(int, box)
        expected = photo.crop((left, top, left + width, top + height)).resize(
            (24, 24), Image.Resampling.BILINEAR
        )
        apart = np.abs(image.astype(int) - np.asarray(expected)[:, :: -1 if mirror else 1])
        assert apart.max() <= 1


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
    numbers = uniform(seed, epoch, samples, 3)
    assert numbers.shape == (50, 3)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert len(np.unique(numbers)) == 150
    assert not np.intersect1d(numbers, uniform(seed + 1, epoch, samples, 3)).size
    assert not np.intersect1d(numbers, uniform(seed, epoch + 1, samples, 3)).size
    assert np.array_equal(uniform(seed, epoch, samples[10:20], 3), numbers[10:20])


def test_draws_are_uniform():
    numbers = uniform(1, 2, np.arange(20000), 5)
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(numbers.T) - np.eye(5)).max() < 0.03


def test_the_largest_draw_stays_below_one(monkeypatch):
    """As float32 it would be rounded to 1, and there is no operation and no magnitude with that number."""
    module = importlib.import_module("striate.transforms.augment")
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    found = []
    for draw in (1 - 2.0**-24, 1 - 2.0**-53):
        monkeypatch.setattr(module, "uniform", lambda *given, draw=draw: np.full((2, given[3]), draw))
        found.append(augment(batch, (32, 32), "strong", seed=0, epoch=0, samples=np.arange(2)))
    assert torch.equal(*found)


def test_strong_changes_values_and_keeps_the_stream_of_light():
    batch = torch.randint(0, 256, (400, 32, 32, 3), dtype=torch.uint8)
    samples = np.arange(400)
    light, strong = (
        augment(batch, (32, 32), recipe, seed=0, epoch=0, samples=samples) for recipe in ("light", "strong")
    )
    assert strong.dtype == torch.uint8
    same = (light == strong).flatten(1).all(1).float().mean()
    # One change in 14 is Identity, signed ones of strength 0 are few; a tenth of those is erased.
    assert 1 / 14 * 0.8 < same < 0.25


def test_a_row_of_the_table_is_an_augmentation(monkeypatch):
    row = Augmentation("gray and mirrored", "center", flip=False, transforms=(
        ("color:RandomGrayscale", {"p": 1.0}), ("geometry:RandomHorizontalFlip", {"p": 1.0}),
        ("geometry:RandomVerticalFlip", {"p": 0.5}), ("color:RandomErasing", {"p": 1.0}),
    ))  # fmt: skip
    monkeypatch.setitem(AUGMENTATIONS, "gray", row)
    batch = torch.randint(0, 256, (30, 12, 12, 3), dtype=torch.uint8)
    out = augment(batch, (8, 8), "gray", seed=1, epoch=0, samples=np.arange(30))
    assert out.shape == (30, 8, 8, 3)
    assert torch.equal(out[..., 0], out[..., 2])
    gray = transforms.Grayscale(3)(batch[:, 2:10, 2:10].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    upright = (out == gray.flip(2)).flatten(1).float().mean(1)
    upside = (out == gray.flip(1, 2)).flatten(1).float().mean(1)
    assert (torch.maximum(upright, upside) > 0.6).all()  # the rest is erased
    assert 5 < (upright > upside).sum() < 25  # a transform does not repeat another one's numbers


def spin(image):
    """A user's own augmentation: random by all three generators."""
    assert isinstance(image, Image.Image)
    turn = random.choice((0, 90)) + 90 * int(np.random.randint(2)) + 90 * int(torch.randint(2, ()))
    return image.rotate(turn).crop((2, 2, 18, 18))


def test_ones_own_transform_depends_on_the_sample_alone():
    batch = torch.randint(0, 256, (12, 20, 20, 3), dtype=torch.uint8)
    samples = np.arange(12)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    whole = augment(batch, (16, 16), spin, seed=3, epoch=2, samples=samples)
    assert torch.equal(torch.get_rng_state(), before)
    assert whole.shape == (12, 16, 16, 3)
    assert torch.equal(augment(batch[5:], (16, 16), spin, seed=3, epoch=2, samples=samples[5:]), whole[5:])
    turned = {
        next(k for k in range(4) if torch.equal(torch.rot90(resized, k)[2:18, 2:18], image))
        for resized, image in zip(batch, whole, strict=True)
    }
    assert len(turned) > 1


class Albumentation:
    """Has the interface of albumentations' transforms: arrays by keyword, and a generator of its own."""

    def set_random_seed(self, seed):
        self.generator = np.random.default_rng(seed)

    def __call__(self, *, image):
        return {"image": np.full((16, 16, image.shape[2]), self.generator.integers(256), np.uint8)}


Albumentation.__module__ = "albumentations.core"


def test_albumentations_are_called_as_they_expect():
    batch = torch.zeros(5, 20, 20, 1, dtype=torch.uint8)
    outs = [
        augment(batch, (16, 16), Albumentation(), seed=1, epoch=0, samples=np.arange(5)) for _ in range(2)
    ]
    assert torch.equal(*outs)
    assert outs[0].unique().numel() == 5


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (lambda image: torch.zeros(3, 16, 16), "Remove ToTensor and Normalize"),
        (lambda image: image.crop((0, 0, 9, 9)), "Add a crop or Resize"),
    ],
)
def test_what_ones_own_transform_must_give_is_said(own, words):
    batch = torch.zeros(2, 20, 20, 3, dtype=torch.uint8)
    with pytest.raises(UsageError, match=words):
        augment(batch, (16, 16), own, seed=0, epoch=0, samples=np.arange(2))


def test_scaled_crops_are_of_the_papers_scales():
    """A ramp tells the side of each crop: 224 px out of an image scaled to 256 to 480, evenly."""
    n = 2000
    ramp = torch.arange(64).expand(64, 64)[None, :, :, None].expand(n, 64, 64, 1).to(torch.uint8)
    out = augment(ramp, (56, 56), "scale", seed=0, epoch=0, samples=np.arange(n))
    steps = (out[:, 28, 40, 0] - out[:, 28, 16, 0]).abs() / 24  # pixels of the image for one of the crop
    scales = 64 / (56 * steps.numpy()) * 224
    assert scales.min() >= 255
    assert scales.max() <= 481
    assert stats.kstest(scales, "uniform", (256, 224)).pvalue > 1e-3


def test_light_changes_as_in_alexnet():
    """One shift for all pixels of an image, whose covariance is P diag(0.1 lambda)^2 P', in 0 to 255."""
    n = 20_000
    batch = torch.full((n, 1, 2, 3), 100.0)
    out = pca_color(batch, 0.1, seed=5, epoch=1, samples=np.arange(n))
    assert torch.equal(out[:, 0, 0], out[:, 0, 1])
    shift = (out[:, 0, 0] - 100).double().numpy() / 255
    sizes = np.array([0.2175, 0.0188, 0.0045])
    directions = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    drawn = shift @ directions / (0.1 * sizes)  # the directions are orthonormal
    for axis in range(3):
        assert stats.kstest(drawn[:, axis], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03
    again = pca_color(batch[:3], 0.1, seed=5, epoch=1, samples=np.array([7, 0, 19_999]))
    assert torch.equal(again, out[[7, 0, 19_999]])
    assert pca_color(batch, 0.0, seed=5, epoch=1, samples=np.arange(n)) is batch
    gray = torch.zeros(4, 2, 2, 1, dtype=torch.uint8)
    assert pca_color(gray, 0.1, seed=5, epoch=1, samples=np.arange(4)) is gray
