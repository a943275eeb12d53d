import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from write_tiffs import write_tiff

from striate.errors import DecodeError, LayoutError, UsageError
from striate.transforms import image_file
from striate.transforms.multiband import count_bands
from striate.transforms.preprocess import Preprocess

BANDS = np.random.default_rng(0).integers(0, 256, (50, 70, 8)).astype(np.uint8)
EIGHT = Preprocess.for_size(32, 8)


def test_each_band_is_resized_as_a_grayscale_image(tmp_path):
    (tmp_path / "x.tif").write_bytes(write_tiff(BANDS, tile=(16, 32)))
    gray = replace(EIGHT, channels=1, mean=(0.5,), std=(0.5,))
    expected = np.concatenate([gray.fit(BANDS[..., band]) for band in range(8)], axis=2)
    for source in (
        BANDS,
        tmp_path / "x.tif",
        (tmp_path / "x.tif").read_bytes(),
        BANDS.astype(np.uint16) * 257,
    ):
        np.testing.assert_array_equal(EIGHT.read(source), expected)
    assert EIGHT.read(BANDS, crop=False).shape == (*EIGHT.uncropped_size, 8)
    assert EIGHT.decode(tmp_path / "x.tif").shape == (50, 70, 8)


def test_four_bands_are_not_converted():
    rgba = np.random.default_rng(1).integers(0, 256, (32, 32, 4)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    four = Preprocess(size=(32, 32), shorter_side=32, channels=4, mean=(0.5,) * 4, std=(0.5,) * 4)
    for source in (rgba, file.getvalue(), Image.fromarray(rgba), write_tiff(rgba)):
        np.testing.assert_array_equal(four.read(source), rgba)


def test_large_files_are_read_like_small_ones(tmp_path, monkeypatch):
    six, four = tmp_path / "6.tif", tmp_path / "4.png"
    six.write_bytes(write_tiff(BANDS[..., :6]))
    Image.fromarray(BANDS[..., :4]).save(four)
    monkeypatch.setattr(image_file, "LARGE_FILE", 1000)
    np.testing.assert_array_equal(Preprocess.for_size(32, 6).decode(six), BANDS[..., :6])
    np.testing.assert_array_equal(Preprocess.for_size(32, 4).decode(four), BANDS[..., :4])
    assert count_bands(six) == 6
    read = []
    monkeypatch.setattr(image_file.LargeFile, "read", lambda file, size=-1: read.append(size) or b"??")
    assert count_bands(four) is None
    assert read == [2], "nothing else is read of a file that is no TIFF"


def test_another_number_of_channels_is_named():
    file = io.BytesIO()
    Image.fromarray(BANDS[..., :3]).save(file, "PNG")
    with pytest.raises(DecodeError, match="it has 3 channels; this model reads images of 8"):
        EIGHT.read(file.getvalue())
    with pytest.raises(DecodeError, match="it has 6 channels; this model reads images of 8"):
        EIGHT.read(write_tiff(BANDS[..., :6]))
    with pytest.raises(LayoutError, match="it has 3 channels; this model reads images of 8"):
        EIGHT.read(BANDS[..., :3])
    with pytest.raises(DecodeError, match="it has 8 bands, which --channels 8 reads"):
        Preprocess.for_size(32).read(write_tiff(BANDS))
    with pytest.raises(LayoutError, match="type float32"):
        EIGHT.read(BANDS.astype(np.float32))


def test_means_are_per_channel():
    one = replace(EIGHT, mean=tuple(np.arange(8) / 10), std=(0.5,) * 8)
    import torch

    batch = one.normalize(torch.from_numpy(BANDS[None]))
    expected = (BANDS / 255 - np.arange(8) / 10) / 0.5
    np.testing.assert_allclose(batch[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    with pytest.raises(UsageError, match="each needs 8 values"):
        replace(EIGHT, mean=(0.5,) * 3)


def test_damaged_and_truncated_files_are_decode_errors():
    whole = write_tiff(BANDS)
    rng = np.random.default_rng(2)
    for _ in range(60):
        data = bytearray(whole[: rng.integers(8, len(whole))] if rng.random() < 0.5 else whole)
        data[rng.integers(0, 8)] ^= 1 << rng.integers(8)
        data[-rng.integers(1, 200)] ^= 1 << rng.integers(8)
        with contextlib.suppress(DecodeError):  # no other error
            EIGHT.read(bytes(data))


def test_checks_and_pages_show_the_first_bands(tmp_path):
    from striate import cli

    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            noise = np.random.default_rng(ord(label) + i).integers(0, 256, (40, 40, 6)).astype(np.uint8)
            (tmp_path / "data" / label / f"{i}.tif").write_bytes(write_tiff(noise))
    (tmp_path / "data" / "a" / "cut.tif").write_bytes(write_tiff(BANDS)[:900])
    (tmp_path / "data" / "b" / "same.tif").write_bytes((tmp_path / "data" / "a" / "0.tif").read_bytes())
    assert cli.run(["check", str(tmp_path / "data"), "--out", str(tmp_path / "page"), "--json"]) in (0, 1)
    assert "data:image/jpeg;base64" in (tmp_path / "page").read_text("utf-8")
