"""The contract from pixels to tensor, against Pillow and torch used by hand."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from striate.errors import LayoutError, UsageError
from striate.transforms.preprocess import IMAGENET_MEAN, IMAGENET_STD, NORMALIZATIONS, Preprocess

RNG = np.random.default_rng(0)


def photo(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (257, 301), (500, 256), (231, 997), (40, 30)])
@pytest.mark.parametrize(("shorter", "crop"), [(256, 224), (232, 224), (40, 32), (33, 32)])
def test_crop_is_torchvisions_resize_and_centre_crop(shape, shorter, crop):
    image = photo(*shape)
    height, width = shape
    # torchvision's rules: the longer side is int(size * long / short), a corner is int(round(margin / 2)).
    longer = int(shorter * max(shape) / min(shape))
    new = (longer, shorter) if width <= height else (shorter, longer)
    scaled = Image.fromarray(image).resize((new[1], new[0]), Image.Resampling.BILINEAR)
    top, left = round((new[0] - crop) / 2.0), round((new[1] - crop) / 2.0)
    expected = np.asarray(scaled.crop((left, top, left + crop, top + crop)))
    fit = Preprocess(size=(crop, crop), shorter_side=shorter).fit(image)
    assert np.array_equal(fit, expected)


def test_squash_and_letterbox():
    image = photo(60, 120)
    squashed = Preprocess(size=(32, 48), resize="squash", interpolation="bicubic").fit(image)
    assert np.array_equal(squashed, Image.fromarray(image).resize((48, 32), Image.Resampling.BICUBIC))
    boxed = Preprocess(size=(64, 64), resize="letterbox").fit(image)
    assert np.array_equal(boxed[16:48], Image.fromarray(image).resize((64, 32), Image.Resampling.BILINEAR))
    assert (boxed[:16] == 114).all()
    assert (boxed[48:] == 114).all()


def test_the_uncropped_image_contains_the_crop():
    pre = Preprocess.for_size(112)
    image = photo(300, 200)
    uncropped, fit = pre.resize_uncropped(image), pre.fit(image)
    assert uncropped.shape[:2] == pre.uncropped_size == (128, 128)
    # Torch scales it, in whole numbers of fewer bits than Pillow's: the same picture, rounded otherwise.
    apart = np.abs(uncropped[8:120, 8:120].astype(int) - fit)
    assert apart.max() <= 1
    assert apart.mean() < 0.05


def test_uncropped_images_are_read_in_two_steps(tmp_path):
    for size in ((300, 200), (1500, 1200)):  # the larger one is decoded at half its size with a gap
        Image.fromarray(photo(*size)).save(tmp_path / "x.jpg")
        for pre in (Preprocess.for_size(112), Preprocess.for_size(112, resize="letterbox", reducing_gap=2.0)):
            halves = pre.resize_uncropped(pre.decode_uncropped(tmp_path / "x.jpg"))
            assert np.array_equal(halves, pre.read(tmp_path / "x.jpg", crop=False))


def test_native_pixels_are_left_alone():
    image = photo(32, 32)
    assert np.array_equal(Preprocess.for_size(32).fit(image), image)


def test_normalize_is_to_tensor_and_normalize():
    batch = torch.from_numpy(photo(8, 6))[None]
    out = Preprocess.for_size(8).normalize(batch)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    assert torch.equal(out[0], (batch[0].permute(2, 0, 1).float() / 255 - mean) / std)
    assert out.is_contiguous()


def test_plain_subtraction_of_the_vgg_paper_is_a_contract_too():
    mean, std = NORMALIZATIONS["vgg"]
    pre = Preprocess(mean=mean, std=std)
    out = pre.normalize(torch.full((1, 2, 2, 3), 200, dtype=torch.uint8))
    assert torch.allclose(
        out[0, :, 0, 0], torch.tensor([200 - 123.68, 200 - 116.78, 200 - 103.94]), atol=1e-4
    )


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(2, 3, 8, 8), torch.zeros(8, 8, 3), torch.zeros(1, 8, 8, 1)],
    ids=["nchw", "one", "gray"],
)
def test_wrong_layouts_are_refused(bad):
    with pytest.raises(LayoutError, match=r"batch, height, width, 3"):
        Preprocess().normalize(bad)


@pytest.mark.parametrize("bad", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros(8, np.uint8)])
def test_wrong_images_are_refused(bad):
    with pytest.raises(LayoutError, match="images must be uint8"):
        Preprocess().fit(bad)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    resize=st.sampled_from(["crop", "squash", "letterbox"]),
    margin=st.integers(0, 50),
    channels=st.sampled_from([1, 3]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    gap=st.one_of(st.just(0.0), st.floats(1, 100)),
)
def test_json_round_trip(size, resize, margin, channels, interpolation, gap):
    pre = Preprocess(
        size, resize, max(size) + margin, interpolation, channels, (0.1,) * channels, (0.3,) * channels, gap
    )
    assert ("reducing_gap" in pre.to_json()) == (gap > 0)  # earlier versions do not know it
    assert Preprocess.from_json(json.loads(json.dumps(pre.to_json()))) == pre


@given(
    height=st.integers(1, 200), width=st.integers(1, 200), channels=st.sampled_from([1, 3]),
    resize=st.sampled_from(["crop", "squash", "letterbox"]),
)  # fmt: skip
def test_any_image_comes_to_the_promised_shape(height, width, resize, channels):
    pre = Preprocess.for_size(24, channels, resize=resize)
    image = np.zeros((height, width, 3), np.uint8)
    assert pre.fit(image).shape == (24, 24, channels)
    assert pre.resize_uncropped(image).shape == (*pre.uncropped_size, channels)


@pytest.mark.parametrize(
    "values",
    [{"size": (0, 5)}, {"resize": "zoom"}, {"shorter_side": 100}, {"interpolation": "cubic"}, {"channels": 2},
     {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)}, {"reducing_gap": 0.5}, {"reducing_gap": -2.0},
     {"reducing_gap": float("nan")}],
    ids=str,
)  # fmt: skip
def test_contradictions_are_refused(values):
    with pytest.raises(UsageError, match="preprocessing"):
        Preprocess(**values)


def test_unknown_fields_are_refused():
    with pytest.raises(UsageError, match="zoom"):
        Preprocess.from_json({"zoom": 3})


def test_decoding_is_part_of_the_contract(tmp_path):
    path = tmp_path / "é 图.png"
    Image.fromarray(photo(5, 7)).save(path)
    assert Preprocess.for_size(4).decode(path).shape == (5, 7, 3)
    assert Preprocess.for_size(4, 1).decode(path).shape == (5, 7, 1)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize(("shape", "width"), [((64, 96), 48), ((32, 7), 7), ((10, 900), 100), ((96, 1), 1)])
def test_a_line_is_scaled_to_its_height_and_squashed_only_beyond_the_width(shape, width, crop):
    line = Preprocess.for_line(32, 100)
    image = np.broadcast_to(np.linspace(0, 255, shape[1]).astype(np.uint8), shape)
    placed = line.fit(image) if crop else line.resize_uncropped(image)
    assert placed.shape == (32, width, 1)
    expected = np.asarray(Image.fromarray(image.copy()).resize((width, 32), Image.Resampling.BILINEAR))
    assert np.abs(placed[:, :, 0].astype(int) - expected).max() <= (not crop)  # torch rounds otherwise
