"""Transforms under torchvision's names: Pillow is the oracle, definitions for what is random."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from striate import transforms as T
from striate.errors import LayoutError, UsageError
from striate.transforms import color, policies
from striate.transforms.affine import warp

torch.set_num_threads(1)


def photograph(height, width, seed=0):
    """A smooth random picture with noise, so that every value occurs."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8))


def batch_of(*images):
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


PICTURES = [photograph(37, 53, seed) for seed in range(4)]
BATCH = batch_of(*PICTURES)
FACTORS = torch.tensor([0.0, 0.4, 1.0, 1.9])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 70), st.integers(2, 70), st.integers(1, 60),
    st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)  # fmt: skip
def test_resize_is_pillows(height, width, size, interpolation):
    picture = photograph(height, width)
    ours = T.Resize(size, interpolation)(picture)
    # torchvision: the shorter side becomes `size`, the longer int(size * long / short).
    long = int(size * max(height, width) / min(height, width))
    shape = (size, long) if width <= height else (long, size)  # width, height
    expected = picture.resize(shape, getattr(Image.Resampling, interpolation.upper()))
    assert ours.size == shape
    assert np.array_equal(np.asarray(ours), np.asarray(expected))
    assert np.array_equal(T.Resize(size, interpolation)(np.asarray(picture)), np.asarray(expected))
    assert torch.equal(T.Resize(size, interpolation)(pixels(picture)), pixels(expected))


def test_resize_bounds_the_longer_side():
    assert T.Resize(20, max_size=30)(photograph(20, 60)).size == (30, 10)
    assert T.Resize((7, 9))(photograph(20, 60)).size == (9, 7)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_center_crop_is_pillows(height, width, to_height, to_width):
    picture = photograph(height, width)
    ours = T.CenterCrop((to_height, to_width))(picture)
    assert ours.size == (to_width, to_height)
    pad_x, pad_y = max(0, to_width - width), max(0, to_height - height)
    room = ImageOps.expand(picture, (pad_x // 2, pad_y // 2, pad_x - pad_x // 2, pad_y - pad_y // 2))
    left, top = round((room.width - to_width) / 2), round((room.height - to_height) / 2)
    expected = room.crop((left, top, left + to_width, top + to_height))
    assert np.array_equal(np.asarray(ours), np.asarray(expected))


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (color.brightness, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturation, ImageEnhance.Color),
        (color.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancements_are_pillows(ours, pillows):
    out = ours(BATCH, FACTORS)
    for picture, factor, result in zip(PICTURES, FACTORS.tolist(), out, strict=True):
        assert torch.equal(result, pixels(pillows(picture).enhance(factor)))
    assert torch.equal(ours(BATCH.contiguous(), FACTORS), out)  # one channel after the other in memory
    gray = color.luma(BATCH)
    for picture, factor, result in zip(gray, FACTORS.tolist(), ours(gray, FACTORS), strict=True):
        expected = pillows(Image.fromarray(picture[0].numpy())).enhance(factor)
        assert torch.equal(result[0], torch.from_numpy(np.array(expected)))


@pytest.mark.parametrize("change", [color.luma, color.contrast, color.saturation, color.hue])
def test_only_gray_and_rgb_have_colors(change):
    four = torch.cat([BATCH, BATCH[:, :1]], dim=1)
    with pytest.raises(LayoutError, match="an image of 4 channels"):
        change(four, *([] if change is color.luma else [FACTORS]))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_posterize_is_pillows(bits):
    assert torch.equal(
        color.posterize(BATCH, torch.tensor([bits] * 4))[0], pixels(ImageOps.posterize(PICTURES[0], bits))
    )


@pytest.mark.parametrize("threshold", [0, 100, 255])
def test_solarize_is_pillows(threshold):
    out = color.solarize(BATCH, torch.tensor([threshold] * 4))
    assert torch.equal(out[1], pixels(ImageOps.solarize(PICTURES[1], threshold)))


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (color.equalize, ImageOps.equalize),
        (color.autocontrast, ImageOps.autocontrast),
        (color.invert, ImageOps.invert),
        (color.luma, ImageOps.grayscale),
    ],
)
def test_whole_picture_changes_are_pillows(ours, pillows):
    flat = Image.new("RGB", (53, 37), (9, 200, 31))
    dim = Image.fromarray((np.asarray(PICTURES[0]) // 5 + 40).astype(np.uint8))
    for picture in (*PICTURES, flat, dim):
        expected = torch.from_numpy(np.array(pillows(picture)))
        assert torch.equal(
            ours(pixels(picture)[None])[0],
            expected.permute(2, 0, 1) if expected.ndim == 3 else expected[None],
        )


@pytest.mark.parametrize("change", [color.equalize, color.autocontrast])
def test_whole_picture_changes_without_pillow(change):
    """Of two channels, which Pillow does not take: as on a GPU."""
    flat = torch.full((1, 3, 37, 53), 90, dtype=torch.uint8)
    dim = (BATCH // 5 + 40).contiguous()
    for batch in (BATCH, flat, dim):
        assert torch.equal(change(batch[:, :2]), change(batch)[:, :2])


def test_hue_turns_the_colour_circle():
    third = color.hue(BATCH, torch.full((4,), 1 / 3))
    assert (third.int() - BATCH.roll(1, 1).int()).abs().max() <= 1  # red becomes green becomes blue
    assert (color.hue(BATCH, torch.zeros(4)).int() - BATCH.int()).abs().max() == 0
    there_and_back = color.hue(color.hue(BATCH, torch.full((4,), 0.2)), torch.full((4,), -0.2))
    assert (there_and_back.int() - BATCH.int()).abs().max() <= 3


def fraction_equal(ours, pillows):
    return (ours == pixels(pillows)).float().mean().item()


def test_the_way_of_a_gpu_agrees_with_that_of_a_cpu():
    rng = torch.Generator().manual_seed(0)
    inverse = torch.eye(2, 3) + 0.4 * torch.randn(len(BATCH), 2, 3, generator=rng)
    # Floats are fetched as a GPU fetches bytes.
    here, there = warp(BATCH, inverse, "nearest", 9), warp(BATCH.float(), inverse, "nearest", 9)
    assert (here == there).float().mean() > 0.999


@pytest.mark.parametrize("angle", [-135.0, -17.3, 30.0, 90.0])
def test_rotation_is_pillows(angle):
    out = T.RandomRotation((angle, angle))(PICTURES[0])
    assert fraction_equal(pixels(out), PICTURES[0].rotate(angle)) > 0.999


@pytest.mark.parametrize("m", [-0.31, 0.23])
def test_shears_and_shifts_are_pillows(m):
    picture = PICTURES[0]
    for change, matrix in {"ShearX": (1, m, 0, 0, 1, 0), "ShearY": (1, 0, 0, m, 1, 0)}.items():
        ours = policies.apply(pixels(picture)[None], change, torch.tensor([m]))[0]
        assert fraction_equal(ours, picture.transform(picture.size, Image.Transform.AFFINE, matrix)) > 0.999
    ours = policies.apply(pixels(picture)[None], "TranslateX", torch.tensor([5.7]))[0]
    assert torch.equal(ours[:, :, 5:], pixels(picture)[:, :, :-5])
    assert not ours[:, :, :5].any()


@pytest.mark.parametrize(
    "transform",
    [
        T.RandomCrop(16, padding=4), T.RandomResizedCrop(16), T.RandomHorizontalFlip(),
        T.RandomVerticalFlip(), T.RandomRotation(30),
        T.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), 10, "bilinear"),
        T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.RandomGrayscale(0.5), T.GaussianBlur(5), T.RandomErasing(),
        T.TrivialAugmentWide(), T.RandAugment(), T.AutoAugment(),
    ],
    ids=lambda t: type(t).__name__,
)  # fmt: skip
def test_a_sample_is_changed_alike_alone_and_in_a_batch(transform):
    images = batch_of(*[photograph(24, 28, seed) for seed in range(24)])
    rand = torch.rand(24, transform.num_random, generator=torch.Generator().manual_seed(1))
    whole = transform.batch(images, rand)
    assert whole.dtype == torch.uint8
    for i in range(24):
        assert torch.equal(transform.batch(images[i : i + 1], rand[i : i + 1])[0], whole[i])
    assert (
        len(
            {
                tuple(image.flatten().tolist())
                for image in transform.batch(images[:1].repeat(24, 1, 1, 1), rand)
            }
        )
        > 1
    )


@pytest.mark.parametrize(
    "kind", ["pillow", "gray pillow", "array", "gray array", "batch array", "chw", "bchw"]
)
def test_what_goes_in_comes_out(kind):
    image = {
        "pillow": PICTURES[0], "gray pillow": PICTURES[0].convert("L"), "array": np.asarray(PICTURES[0]),
        "gray array": np.asarray(PICTURES[0].convert("L")), "batch array": BATCH.permute(0, 2, 3, 1).numpy(),
        "chw": BATCH[0], "bchw": BATCH,
    }[kind]  # fmt: skip
    chain = T.Compose([T.Resize(24), T.RandomCrop(20), T.ColorJitter(0.2), T.RandomHorizontalFlip(1.0)])
    out = chain(image)
    assert type(out) is type(image)
    if isinstance(image, Image.Image):
        assert out.mode == image.mode
        assert out.size == (20, 20)
    else:
        assert out.dtype == image.dtype
        assert len(out.shape) == len(image.shape)
    tensor = T.Compose(
        [
            T.CenterCrop(20),
            T.ToTensor(),
            T.Normalize([0.5], [0.5]) if "gray" in kind else T.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )(image)
    assert tensor.dtype == torch.float32
    assert tensor.shape[-3:] == (1 if "gray" in kind else 3, 20, 20)
    assert tensor.ndim == (4 if kind in ("batch array", "bchw") else 3)


def test_the_evaluation_chain_is_its_formula():
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    out = T.Compose([T.Resize(32), T.CenterCrop(28), T.ToTensor(), T.Normalize(mean, std)])(PICTURES[0])
    small = PICTURES[0].resize((45, 32), Image.Resampling.BILINEAR)
    left, top = round((45 - 28) / 2), 2
    values = np.asarray(small.crop((left, top, left + 28, top + 28))) / np.float32(255)
    expected = (values - np.float32(mean)) / np.float32(std)
    assert np.array_equal(out.permute(1, 2, 0).numpy(), expected)


def test_torch_seeds_what_is_random():
    chain = T.Compose([T.RandomResizedCrop(16), T.TrivialAugmentWide()])
    outs = []
    for _ in range(2):
        torch.manual_seed(5)
        outs.append(chain(BATCH))
    assert torch.equal(*outs)
    assert not torch.equal(outs[0], chain(BATCH))


def test_crop_positions_are_uniform():
    page = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(4000, 1, 1, 1)
    first = T.RandomCrop(5).batch(page, torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)))[
        :, 0, 0, 0
    ]
    counts = torch.bincount(first.long() // 8 * 4 + first.long() % 8, minlength=16)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_resized_crops_have_the_areas_and_shapes_they_should():
    crop = T.RandomResizedCrop(8, scale=(0.2, 0.6))
    _, _, height, width = crop.boxes(
        200, 200, torch.rand(5000, crop.num_random, generator=torch.Generator().manual_seed(0))
    )
    area = (height * width / 200**2).numpy()
    ratio = np.log((width / height).numpy())
    assert area.min() > 0.19
    assert area.max() < 0.61
    assert stats.kstest((area - 0.2) / 0.4, "uniform").statistic < 0.03
    assert stats.kstest((ratio / math.log(4 / 3) + 1) / 2, "uniform").statistic < 0.03


def test_a_crop_that_cannot_fit_is_the_middle():
    crop = T.RandomResizedCrop(8, scale=(1.0, 1.0))
    top, left, height, width = crop.boxes(10, 100, torch.rand(3, crop.num_random))
    assert (height == 10).all()
    assert (width == 13).all()
    assert (left == 43).all()
    assert (top == 0).all()


def test_erasing_blanks_the_share_and_the_shape_it_should():
    erase = T.RandomErasing(0.5, value=7)
    white = torch.full((4000, 1, 60, 60), 255, dtype=torch.uint8)
    out = erase.batch(white, torch.rand(4000, erase.num_random, generator=torch.Generator().manual_seed(0)))
    share = (out == 7).float().mean(dim=(1, 2, 3)).numpy()
    assert abs((share > 0).mean() - 0.5) < 0.03
    assert share.max() < 0.35
    assert share[share > 0].min() > 0.015
    assert stats.kstest((share[share > 0] - 0.02) / 0.31, "uniform").statistic < 0.05


def test_blur_is_the_gaussian():
    point = torch.zeros(2, 1, 15, 15)
    point[:, :, 7, 7] = 1
    out = T.GaussianBlur(7, (1.5, 1.5))(point)
    line = np.exp(-0.5 * (np.arange(-3, 4) / 1.5) ** 2)
    line /= line.sum()
    assert np.allclose(out[0, 0, 4:11, 4:11], np.outer(line, line), atol=1e-6)


def test_jitter_draws_its_factors_evenly():
    gray = torch.full((3000, 1, 1, 1), 0.5)
    jitter = T.ColorJitter(brightness=0.4)
    factor = (
        jitter.batch(gray, torch.rand(3000, 5, generator=torch.Generator().manual_seed(0))).flatten() / 0.5
    )
    assert stats.kstest((factor.numpy() - 0.6) / 0.8, "uniform").statistic < 0.03


def test_trivial_augment_uses_every_change_alike():
    seen = []

    def note(change, magnitude, height, width):
        seen.extend([change] * len(magnitude))
        return lambda images, _: images, magnitude

    original, policies._prepared = policies._prepared, note
    try:
        T.TrivialAugmentWide().batch(
            torch.zeros(7000, 3, 4, 4, dtype=torch.uint8),
            torch.rand(7000, 3, generator=torch.Generator().manual_seed(0)),
        )
    finally:
        policies._prepared = original
    names, counts = np.unique(seen, return_counts=True)
    assert len(names) == 14
    assert sum(counts) == 7000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_mixing_keeps_the_sum_and_the_labels_follow():
    images = torch.rand(6, 3, 20, 30)
    labels = torch.arange(6)
    for mix in (T.MixUp(alpha=0.4, num_classes=6), T.CutMix(alpha=1.0, num_classes=6)):
        mixed, shares = mix(images, labels, generator=np.random.default_rng(3))
        assert torch.allclose(mixed.sum(0), images.sum(0), atol=1e-5)  # what one loses another gets
        assert torch.allclose(shares.sum(1), torch.ones(6))
        own, neighbour = shares[1, 1], shares[1, 0]
        assert math.isclose(own + neighbour, 1, rel_tol=1e-6)
        if isinstance(mix, T.CutMix):
            pasted = (mixed[1] == images[0]).all(0).float().mean()
            assert math.isclose(pasted, neighbour, abs_tol=1e-6)
        else:
            assert torch.allclose(mixed[1], own * images[1] + neighbour * images[0], atol=1e-6)


class FixedGenerator:
    """Stands in for NumPy's generator: returns this lambda and this box center."""

    def __init__(self, lam, x, y):
        self.lam, self.place = lam, iter((x, y))

    def beta(self, a, b):
        return self.lam

    def integers(self, high):
        return next(self.place)


@pytest.mark.parametrize("lam", [0.75, 0.36, 0.19])
def test_the_sides_of_cutmix_follow_the_square_root_of_the_area(lam):
    """Yun et al. 2019, section 3.1: sides W sqrt(1 - lambda), H sqrt(1 - lambda), so area 1 - lambda."""
    height, width = 40, 80
    images = torch.stack([torch.zeros(1, height, width), torch.ones(1, height, width)])
    rows, columns = round(height * math.sqrt(1 - lam)), round(width * math.sqrt(1 - lam))
    mixed, own = T.CutMix().mix(images, FixedGenerator(lam, width // 2, height // 2))
    pasted = mixed[0, 0] == 1
    assert (pasted.any(1).sum(), pasted.any(0).sum(), pasted.sum()) == (rows, columns, rows * columns)
    assert math.isclose(own, lam, abs_tol=1e-9)
    # At a corner three quarters of the box lie outside; the label follows the pasted area.
    mixed, own = T.CutMix().mix(images, FixedGenerator(lam, 0, 0))
    assert (mixed[0, 0] == 1).sum() == rows * columns // 4
    assert math.isclose(own, 1 - (1 - lam) / 4, abs_tol=1e-9)


def test_mixup_shares_follow_their_beta():
    generator = np.random.default_rng(0)
    mix = T.MixUp(alpha=0.4, num_classes=2)
    shares = [
        mix(torch.rand(2, 1, 1, 1), torch.tensor([0, 1]), generator=generator)[1][0, 0].item()
        for _ in range(2000)
    ]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).statistic < 0.04


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: T.Compose([T.Normalize([0.5], [0.5]), T.ToTensor()]), "Put ToTensor() before it"),
        (lambda: T.Compose([T.ToTensor(), T.ToTensor()]), "Put it before ToTensor()"),
        (lambda: T.Compose([T.ToTensor(), T.RandAugment()]), "Put it before ToTensor()"),
        (lambda: T.Compose([T.Normalize([0.5], [0.5]), T.ColorJitter(0.1)]), "Put Normalize last"),
        (lambda: T.Compose([T.Resize(8), [T.ToTensor()]]), "Wrap it: Compose"),
        (lambda: T.Compose(T.Resize(8)), "it expects a list"),
        (lambda: T.Compose([T.Resize]), "Use instances"),
        (lambda: T.Compose([T.MixUp()]), "Call it last"),
        (lambda: T.Normalize([0.5] * 3, [0.5] * 3)(PICTURES[0]), "Put ToTensor() before it"),
        (lambda: T.RandomCrop(90)(PICTURES[0]), "pad_if_needed"),
        (lambda: T.CutMix()(BATCH, torch.arange(4)), "num_classes"),
        (lambda: T.GaussianBlur(4), "odd"),
        (lambda: T.RandomHorizontalFlip(1.5), "between 0 and 1"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_what_to_do(make, words):
    with pytest.raises(UsageError) as error:
        make()
    assert words in str(error.value)


def test_what_is_no_image_is_refused():
    for wrong in ("cat.png", [1, 2], torch.zeros(2, 2), np.zeros((4, 4)), PICTURES[0].convert("RGBA")):
        with pytest.raises(LayoutError):
            T.RandomHorizontalFlip()(wrong)


def test_others_callables_may_stand_in_a_chain():
    chain = T.Compose([lambda image: image.rotate(90), T.ToTensor()])
    assert torch.equal(chain(PICTURES[0]), pixels(PICTURES[0].rotate(90)).float() / 255)
