"""ONNX Runtime gives the scores of torch for image files of every kind, for every network."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from test_onnx import classifier

from striate import models
from striate.exporters.onnx import graph, write
from striate.inference.onnx_classifier import load

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FILES = 200
KINDS = (
    *(f"exif{orientation}" for orientation in range(1, 9)), "cmyk", "gray16", "rgb", "gray", "bilevel",
    "palette", "palette_alpha", "rgba", "gray_alpha",
)  # fmt: skip
SIDES = (1, 3, 17, 31, 33, 49, 101, 127)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Odd sizes, from one pixel on, in the order of the kinds: any few of them are of several kinds."""
    folder, generator = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    sizes = itertools.cycle(itertools.product(SIDES, SIDES[::-1]))
    paths = []
    for i, kind, (width, height) in zip(range(FILES), itertools.cycle(KINDS), sizes, strict=False):
        coarse = generator.integers(0, 256, (4, 5, 4), np.uint8)
        image = Image.fromarray(coarse, "RGBA").resize((width, height), Image.Resampling.BICUBIC)
        paths.append(str(save(image, kind, folder / f"{i:03}-{kind}")))
    return paths


def save(image, kind, path):
    if kind.startswith("exif"):
        exif = Image.Exif()
        exif[0x0112] = int(kind[-1])
        image.convert("RGB").save(path := path.with_suffix(".jpg"), exif=exif, quality=90)
    elif kind == "cmyk":
        image.convert("RGB").convert("CMYK").save(path := path.with_suffix(".jpg"))
    elif kind == "gray16":
        wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(wide).save(path := path.with_suffix(".png"))
    elif kind == "palette_alpha":
        image.convert("RGB").quantize(16).save(path := path.with_suffix(".png"), transparency=3)
    else:
        mode = {"rgb": "RGB", "gray": "L", "bilevel": "1", "palette": "P", "rgba": "RGBA", "gray_alpha": "LA"}
        image.convert(mode[kind]).save(path := path.with_suffix(".png"))
    return path


def scores_in_openvino(path, images):
    """None if it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled(image[None])["scores"] for image in images])


def compare(name, paths, path, size=None):
    original = classifier(name, size)
    write(path, graph(original.network, original.preprocess), original)
    onnx.checker.check_model(str(path), full_check=True)
    exported = load(path)
    assert exported.preprocess == original.preprocess
    images = np.stack([exported.preprocess.read(file) for file in paths])
    found = np.concatenate([exported.session.run(["scores"], {"images": part[None]})[0] for part in images])
    with torch.inference_mode():
        pixels = np.stack([original.preprocess.read(file) for file in paths])
        parts = torch.from_numpy(pixels).split(8)
        expected = np.concatenate([original.network(original.preprocess.normalize(p)).numpy() for p in parts])
    for scores in (found, scores_in_openvino(path, images)):
        if scores is not None:
            assert np.abs(scores - expected).max() <= 1e-4 * np.abs(expected).max()
            assert np.array_equal(scores.argmax(1), expected.argmax(1))
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max()  # the files have different scores


def test_200_files(files, tmp_path):
    assert len(files) == FILES
    compare("lenet", files, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", models.MODELS)
def test_files_with_every_network(name, files, tmp_path):
    compare(name, files, tmp_path / "model.onnx")
    (tmp_path / "model.onnx").unlink()  # several hundred MB
