"""Every kind of file comes out the right way up and in the right colors, or is refused in one line."""

import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import png, tiff
from PIL import Image

from striate.errors import DecodeError, LayoutError
from striate.transforms import decode as module
from striate.transforms import image_file
from striate.transforms.decode import decode, is_image_name
from striate.transforms.preprocess import Preprocess

# A picture with no symmetry: each quarter has a color of its own.
QUARTERS = np.zeros((32, 48, 3), np.uint8)
QUARTERS[:16, :24], QUARTERS[:16, 24:], QUARTERS[16:, :24], QUARTERS[16:, 24:] = (
    (220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 220, 40)
)  # fmt: skip


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def close(a, b, tolerance=12):
    return np.abs(a.astype(int) - b.astype(int)).mean() < tolerance


def test_a_png_comes_out_as_it_went_in():
    assert np.array_equal(decode(encoded(Image.fromarray(QUARTERS), "PNG")), QUARTERS)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    # What a camera stores so that turning it as the tag says gives QUARTERS (TIFF 6.0, tag 274).
    inverse = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(inverse[orientation](QUARTERS)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(stored, kind, exif=exif, quality=95))
    assert pixels.shape == QUARTERS.shape
    assert close(pixels, QUARTERS)


JPEGS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
    "stored as RGB": {"keep_rgb": True},
    "coarse": {"quality": 5},
}


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 48)])
def test_a_jpeg_is_what_pillow_makes_of_it(options, mode, size):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        for channels, wanted in ((3, "RGB"), (1, "L")):
            pillow = np.asarray(image.convert(wanted)).reshape(*size[::-1], channels)
            assert np.array_equal(decode(data, channels), pillow)


@settings(max_examples=200, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), end=st.floats(0.5, 1))
def test_a_damaged_jpeg_is_taken_or_refused_as_pillow_does(at, value, end):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), "JPEG", restart_marker_blocks=1))
    data[int(at * len(data))] = value
    damaged = bytes(data[: int(end * len(data))] if end < 0.9 else data)

    def outcome(decoder):
        try:
            return np.asarray(decoder(damaged)).tolist()
        except DecodeError as error:
            return error.why

    assert outcome(decode) == outcome(module.open_image)


def test_tiff_orientation_is_applied_once():
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(QUARTERS, 1)))
    assert np.array_equal(decode(encoded(stored, "TIFF", tiffinfo={274: 6})), QUARTERS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(kind):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(ramp), kind), 1)[:, :, 0]
    assert np.array_equal(pixels, np.rint(ramp / 257))


def test_big_endian_16_bit_tiff():
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(">u2")
    image = Image.frombytes("I;16B", (32, 32), ramp.tobytes())
    assert np.array_equal(decode(encoded(image, "TIFF"), 1)[:, :, 0], np.rint(ramp / 257))


def test_floats_of_a_known_range_are_scaled_and_others_refused():
    unit = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(decode(encoded(Image.fromarray(unit), "TIFF"), 1)[:, :, 0], np.rint(unit * 255))
    for bad in (unit - 0.5, unit * 1000, unit * np.nan):
        with pytest.raises(DecodeError, match="without a known white"):
            decode(encoded(Image.fromarray(bad), "TIFF"))


def test_transparency_is_laid_on_white():
    rgba = np.dstack([QUARTERS, np.full((32, 48), 255, np.uint8)])
    rgba[:16, :24, 3] = 0
    rgba[16:, 24:, 3] = 128
    pixels = decode(encoded(Image.fromarray(rgba), "PNG"))
    assert (pixels[:16, :24] == 255).all()
    assert np.array_equal(pixels[:16, 24:], QUARTERS[:16, 24:])
    blend = QUARTERS[16:, 24:] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(pixels[16:, 24:] - blend).max() <= 1


def test_palette_and_colour_key_transparency():
    palette = Image.fromarray(QUARTERS).quantize(4)
    keyed = palette.getpixel((0, 0))
    assert (decode(encoded(palette, "PNG", transparency=keyed))[:16, :24] == 255).all()
    gray = Image.fromarray(np.full((8, 8), 7, np.uint8))
    assert (decode(encoded(gray, "PNG", transparency=7)) == 255).all()
    deep = Image.fromarray(np.full((8, 8), 700, np.uint16))
    assert (decode(encoded(deep, "PNG", transparency=700), 1) == 255).all()


def test_cmyk_1_bit_and_gray():
    cmyk = Image.fromarray(QUARTERS).convert("CMYK")
    assert close(decode(encoded(cmyk, "JPEG", quality=95)), QUARTERS, 20)
    bits = Image.fromarray(QUARTERS[:, :, 0] > 100)
    assert np.array_equal(decode(encoded(bits, "PNG"), 1)[:, :, 0], np.where(QUARTERS[:, :, 0] > 100, 255, 0))
    luma = decode(encoded(Image.fromarray(QUARTERS), "PNG"), 1)
    expected = QUARTERS @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert luma.shape == (32, 48, 1)
    assert np.abs(luma[:, :, 0] - expected).max() <= 1


def test_the_first_frame_of_an_animation():
    other = Image.fromarray(255 - QUARTERS)
    data = encoded(Image.fromarray(QUARTERS), "WEBP", save_all=True, append_images=[other], lossless=True)
    assert np.array_equal(decode(data), QUARTERS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"])
@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.02, 0.98))
def test_a_file_cut_short_is_never_half_decoded(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on some cuts
        try:
            pixels = decode(whole[: int(len(whole) * share)])
        except DecodeError:
            return
        assert np.array_equal(pixels, decode(whole))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text\n", "text"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),  # Pillow would start Ghostscript
        (bytes(range(256)), "supported image format"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, reason):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=reason) as caught:
        decode(path)
    assert "x.jpg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_pipes(tmp_path):
    with pytest.raises(DecodeError, match="no such file"):
        decode(tmp_path / "absent.png")
    with pytest.raises(DecodeError, match="not a regular file"):
        decode(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DecodeError, match="not a regular file"):
        decode(tmp_path / "pipe.png")


def sources(data, tmp_path):
    """One image in each form that is read with its header."""
    path = tmp_path / "image"
    path.write_bytes(data)
    loaded = Image.open(path)
    loaded.load()
    read = io.BytesIO(data)
    read.read()
    return {
        "path": path, "text path": str(path), "bytes": data, "bytearray": bytearray(data),
        "memoryview": memoryview(data), "file object": io.BytesIO(data), "read file object": read,
        "pipe": Pipe(data), "opened": Image.open(path), "loaded": loaded,
        "from bytes": Image.open(io.BytesIO(data)),
    }  # fmt: skip


class Pipe:
    """A file object that cannot be rewound, such as an HTTP response."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


RAMP = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
EXIF = Image.Exif()
EXIF[0x0112] = 6
FORMS = {
    "RGB": encoded(Image.fromarray(QUARTERS), "PNG"),
    "JPEG": encoded(Image.fromarray(QUARTERS), "JPEG"),
    "turned": encoded(Image.fromarray(QUARTERS), "JPEG", exif=EXIF),
    "alpha": encoded(Image.fromarray(np.dstack([QUARTERS, RAMP >> 8]).astype(np.uint8)), "PNG"),
    "16 bits": encoded(Image.fromarray(RAMP), "PNG"),
    "float": encoded(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF"),
    "12 bits": tiff(RAMP >> 4, 12),
    "white is zero": tiff(RAMP, 16, photometric=0),
    "key of 2 bits": png(RAMP >> 14, 2, key=(1,)),
    "key of 4 bits": png(RAMP >> 12, 4, key=(9,)),
    # Of an image that is already loaded, Pillow has the high bytes only.
    "key of 16 bits": png(np.dstack([RAMP | 255] * 3), 16, color=2, key=(int(RAMP[5, 5]) | 255,) * 3),
    "palette": encoded(Image.fromarray(QUARTERS).quantize(4), "PNG", transparency=1),
    "CMYK": encoded(Image.fromarray(QUARTERS).convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_form_of_an_image_gives_the_same_pixels(data, channels, tmp_path):
    preprocess = Preprocess.for_size(16, channels)
    expected = decode(data, channels)
    fitted, uncropped = preprocess.read(data), preprocess.read(data, crop=False)
    for read in (
        lambda source: decode(source, channels) - expected,
        lambda source: preprocess.read(source) - fitted,
        lambda source: preprocess.read(source, crop=False) - uncropped,
    ):
        found = {form: read(source).max() for form, source in sources(data, tmp_path).items()}
        assert not any(found.values()), found


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_a_large_file_is_decoded_from_the_disk(data, tmp_path, monkeypatch):
    expected = decode(data)
    (tmp_path / "x").write_bytes(data)
    (tmp_path / "text").write_text("x" * 99)
    monkeypatch.setattr(image_file, "LARGE_FILE", 10)
    monkeypatch.setattr(module, "_bytes_of", None)
    assert np.array_equal(decode(tmp_path / "x"), expected)
    with pytest.raises(DecodeError, match="it is text, not an image"):
        decode(tmp_path / "text")


def test_what_is_no_image_is_named_by_its_type(tmp_path):
    (tmp_path / "text").write_text("x")
    with (tmp_path / "text").open() as file, pytest.raises(LayoutError, match=r"open as text.*rb"):
        decode(file)
    with pytest.raises(LayoutError, match="a list is no image"):
        decode([1])
    closed = io.BytesIO(b"x")
    closed.close()
    with pytest.raises(DecodeError, match="closed file"):
        decode(closed)
    with pytest.raises(DecodeError, match="it has no pixels"):
        decode(Image.new("RGB", (0, 4)))
    with pytest.raises(DecodeError, match="it has no pixels"):
        decode(np.zeros((0, 4, 3), np.uint8))


def test_memory_that_runs_out_is_the_error_of_one_image(monkeypatch):
    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", fails)
    monkeypatch.setattr(module, "orientation", fails)
    with pytest.raises(DecodeError, match="out of memory"):
        Preprocess.for_size(16).read(np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(DecodeError, match="out of memory"):
        decode(FORMS["JPEG"])


def test_one_image_may_be_read_in_many_threads_at_once():
    data = FORMS["turned"]
    expected = decode(data)
    for source in (Image.open(io.BytesIO(data)), io.BytesIO(data)):
        with ThreadPoolExecutor(8) as pool:
            assert all(np.array_equal(pixels, expected) for pixels in pool.map(decode, [source] * 32))


def test_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 1000)
    with pytest.raises(DecodeError, match="more than 1,000 pixels"):
        decode(encoded(Image.new("RGB", (40, 40)), "PNG"))


def test_image_names():
    assert all(is_image_name(n) for n in ("a.JPG", "ß.jpeg", "b.webp", "c.tiff"))
    assert not any(is_image_name(n) for n in (".hidden.jpg", "notes.txt", "jpg", "a.jpg.part"))


# What each awkward file must come to: its upright shape and, where the subject is known, its colors.
HOPPER = "hopper_orientation_2.jpg"
REFUSED = {
    "10ct_32bit_128.tiff": "without a known white", "LICENSE": "supported image format",
    "broken.png": "supported image format",
    "heif_RGB_8__128x128.heif": "HEIC", "heif_truncated_truncated.heic": "HEIC", "heif_zPug_3.heic": "HEIC",
    "truncated_image.png": "truncated", "truncated_jpeg.jpg": "truncated",
    "zero_width.gif": "supported image format",
}  # fmt: skip
SHAPES = {
    "16bit.MM.deflate.tif": (64, 64), "16bit.cropped.jp2": (64, 64), "avif_hopper.avif": (128, 128),
    "avif_rot1mir0.avif": (427, 640), "dispose_none.gif": (100, 100), "flower.webp": (360, 480),
    "hopper.Lab.tif": (128, 128), "hopper_bad_exif.jpg": (500, 500),
    "hopper_bw_500.png": (500, 500), "hopper_gray.jpg": (128, 128),
    "hopper_orientation_6.webp": (128, 128), "i_trns.png": (64, 64), "iss634.apng": (245, 245),
    "iss634.webp": (245, 245), "multiple_comments.gif": (100, 100), "p_trns_single.png": (64, 64),
    "pil_sample_cmyk.jpg": (100, 100), "sugarshack.mpo": (480, 640), "tiff_strip_cmyk_jpeg.tif": (100, 100),
    "transparent.webp": (150, 200), "uncompressed_la.png": (128, 128),
    **{f"hopper_orientation_{i}.jpg": (128, 128) for i in range(2, 9)},
}  # fmt: skip
SAME_PICTURE = [
    *(f"hopper_orientation_{i}.jpg" for i in range(3, 9)), "hopper_orientation_6.webp", "hopper.Lab.tif",
    "avif_hopper.avif",
]  # fmt: skip


def test_every_awkward_file_is_decoded_rightly_or_refused(shared):
    folder = shared / "data" / "awkward"
    pixels = {}
    for path in sorted(folder.iterdir()):
        if path.name in REFUSED:
            with pytest.raises(DecodeError, match=REFUSED[path.name]) as caught:
                decode(path)
            assert "\n" not in str(caught.value)
        else:
            pixels[path.name] = decode(path)
    assert {name: p.shape[:2] for name, p in pixels.items()} == SHAPES
    for name in SAME_PICTURE:
        assert close(pixels[name], pixels[HOPPER], 6), name
    assert close(pixels["iss634.apng"], pixels["iss634.webp"], 4)
    red = pixels["pil_sample_cmyk.jpg"]
    assert close(red, pixels["tiff_strip_cmyk_jpeg.tif"], 4)
    assert red[:, :, 0].max() > 200 > 60 > red[:, :, 1:].mean()  # red letters on black, not their negative
    assert (pixels["transparent.webp"][0, 0] == 255).all()
