"""Prediction with exported ONNX files: the original's answers, without torch."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pretrained import build

import striate
from striate import cli
from striate.bundle import Description, write
from striate.bundle.unknown import of_features
from striate.errors import BundleError, DecodeError, UsageError
from striate.exporters.onnx.file import Graph, Node, Signature, encode, encode_metadata
from striate.inference.onnx_classifier import load
from striate.transforms.preprocess import Preprocess

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    striate.export(run.best, path, "onnx")
    return path


def test_the_answers_are_the_original_s(exported, run, few_colors, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    files = [*sorted(few_colors.rglob("*.png"))[::5], tmp_path / "bad.png"]
    original, model = striate.load(run.best, "cpu"), striate.load(exported)
    assert (model.classes, model.preprocess) == (original.classes, original.preprocess)
    pairs = zip(original.predict_many(files), model.predict_many(files, batch=3), strict=True)
    for ours, theirs in pairs:
        assert (ours.label, ours.error, ours.path) == (theirs.label, theirs.error, theirs.path)
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
    with pytest.raises(DecodeError, match="empty"):
        model.predict(tmp_path / "bad.png")
    assert model.predict(np.zeros((40, 30), np.uint8)).error is None


@pytest.fixture(scope="module")
def with_maps(tmp_path_factory):
    """A bundle of a network with a linear head, and its ONNX file."""
    folder = tmp_path_factory.mktemp("with_maps")
    network, _ = build("resnet20", 32, num_classes=3)
    description = Description(
        "classification", "resnet20", {"num_classes": 3}, ("a", "b", "c"), Preprocess.for_size(32, 3)
    )
    write(folder / "model.safetensors", network, description)
    striate.export(folder / "model.safetensors", folder / "model.onnx", "onnx")
    return folder / "model.safetensors", folder / "model.onnx"


def test_the_command_loads_no_torch(with_maps, few_colors, tmp_path, capsys):
    """Not for its explanations either, which are those of the bundle."""
    (bundle, exported), picture = with_maps, str(next(few_colors.rglob("*.png")))
    folders = [str(tmp_path / name) for name in ("ours", "theirs")]
    more, ours = (["--explain", "--out", folder] for folder in folders)
    code = (
        "import sys; from striate.cli import run; "
        f"assert run(['predict', {str(exported)!r}, {picture!r}, '--json', *{more!r}]) == 0; "
        "assert not any(name == 'torch' or name.startswith('torch.') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert cli.run(["predict", str(bundle), picture, "--json", *ours]) == 0
    ours, theirs = json.loads(capsys.readouterr().out), json.loads(done.stdout)
    figures = [result["results"][0]["figure"] for result in (ours, theirs)]
    assert figures[0].startswith(folders[1])
    first, second = (np.asarray(Image.open(figure)).astype(int) for figure in figures)
    assert np.abs(first - second).max() <= 1  # rounding
    expected = striate.load(bundle, "cpu").explain(picture, test=False)
    assert np.abs(np.asarray(expected.figure()).astype(int) - first).max() <= 1
    for one, other in zip(ours["results"][0]["top"], theirs["results"][0]["top"], strict=True):
        assert one["class"] == other["class"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_the_command_without_options_needs_no_parser(with_maps, few_colors, tmp_path, capfd):
    """It answers as the parsed command line does, for files, folders and what cannot be read."""
    exported, picture = str(with_maps[1]), str(next(few_colors.rglob("*.png")))
    code = (
        "import sys; from striate.cli import run; code = run(sys.argv[1:]); "
        "assert not {'typer', 'torch'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code, "predict", exported, picture], check=True)
    assert capfd.readouterr().out.startswith(picture)
    (tmp_path / "bad.png").write_bytes(b"")
    for words in (
        [exported, picture, str(tmp_path / "bad.png")],
        [exported, str(few_colors)],
        [exported, str(tmp_path / "absent" / "*.png")],
        [str(tmp_path / "absent.onnx"), picture],
    ):
        answers = [(cli.run(["predict", *words, *more]), capfd.readouterr()) for more in ([], ["--top", "5"])]
        assert answers[0] == answers[1]


def test_few_images_have_the_answers_of_many(with_maps, few_colors):
    """Their session changes the layout of no convolution."""
    files = sorted(few_colors.rglob("*.png"))[:3]
    many, few = (load(with_maps[1], few=few).predict_many(files) for few in (False, True))
    for one, other in zip(many, few, strict=True):
        assert np.allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert one.label == other.label


def test_a_file_without_features_marks_no_images(with_maps, few_colors, tmp_path, capsys):
    """Such as one in int8: an empty cell would say that the image is like the training images."""
    picture, path = str(next(few_colors.rglob("*.png"))), tmp_path / "model.onnx"
    record = of_features(*np.random.default_rng(0).normal(size=(2, 40, 64)))
    description = dataclasses.replace(load(with_maps[1]).description, unknown=record.encode())
    path.write_bytes(with_maps[1].read_bytes() + b"".join(encode_metadata(description.metadata())))
    assert load(path).description.unknown
    assert cli.run(["predict", str(path), picture, "--csv"]) == 0
    header = capsys.readouterr().out.splitlines()[0].split(",")
    assert header == [
        "path",
        "error",
        *(f"{what}{i}" for i in (1, 2, 3) for what in ("class", "probability")),
    ]


def test_explanations_of_several_images(with_maps, few_colors, tmp_path, capsys):
    """The map is that of torch; an unreadable image has none; as text and as CSV."""
    bundle, exported = with_maps
    (tmp_path / "bad.png").write_bytes(b"")
    files = [*sorted(few_colors.rglob("*.png"))[::5], tmp_path / "bad.png"]
    original, model = striate.load(bundle, "cpu"), striate.load(exported)
    for file, (prediction, found) in zip(files, model.explain_many(files, batch=3), strict=True):
        if found is None:
            assert (file.name, "empty" in prediction.error) == ("bad.png", True)
            continue
        expected = original.explain(file, test=False)
        assert (found.target, found.path) == (expected.target, str(file))
        assert np.abs(found.map - expected.map).max() <= 1e-4 * expected.map.max()
        assert np.array_equal(found.pixels, expected.pixels)
    out = ["--explain", "--out", str(tmp_path / "out")]
    assert cli.run(["predict", str(exported), *map(str, files), *out, "--csv"]) == 0
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert header[-1] == "figure"
    assert [Path(row[-1]).is_file() for row in rows] == [True] * (len(files) - 1) + [False]
    assert cli.run(["predict", str(exported), str(files[0]), *out]) == 0
    assert "grad-cam.png" in capsys.readouterr().out


def test_explanations_that_are_not_there(exported, run, few_colors, tmp_path, capsys):
    picture = str(next(few_colors.rglob("*.png")))
    assert cli.run(["predict", str(exported), picture, "--explain", "--out", str(tmp_path)]) == 2
    assert "it has no output for maps" in capsys.readouterr().err
    assert cli.run(["predict", str(run.best), picture, "--out", str(tmp_path)]) == 2
    assert "Add --explain" in capsys.readouterr().err


def written(path, metadata, dtype="uint8", shape=("batch", 2, 2, 3)):
    """A small valid file: the sum of the pixels."""
    nodes = [Node("Cast", ("images",), ("x",), {"to": 1}), Node("Flatten", ("x",), ("scores",), {"axis": 1})]
    images, scores = Signature("images", dtype, shape), Signature("scores", "float32", ("batch", 12))
    path.write_bytes(b"".join(encode(Graph("g", nodes, {}, (images,), (scores,)), ("t", "1"), metadata)))
    return path


def test_what_cannot_be_opened_is_refused(exported, run, tmp_path, monkeypatch):
    (tmp_path / "damaged.onnx").write_bytes(exported.read_bytes()[:5000])
    header = json.dumps(striate.load(exported).description.to_json())
    striate.export(run.best, tmp_path / "float.onnx", "onnx-float")
    cases = [
        (tmp_path / "absent.onnx", "no such file"),
        (tmp_path / "damaged.onnx", "ONNX Runtime cannot read it"),
        (tmp_path / "float.onnx", "normalized images, not pixels"),
        (written(tmp_path / "other.onnx", {}), "Striate did not write it"),
        (written(tmp_path / "bad.onnx", {"striate": "{"}), "its description is damaged"),
        (written(tmp_path / "nan.onnx", {"striate": header.replace("classes", "klasses")}), "klasses"),
        (written(tmp_path / "shape.onnx", {"striate": header}), "its shapes are not those"),
    ]
    for path, why in cases:
        with pytest.raises(BundleError, match=why):
            load(path)
    with pytest.raises(BundleError, match="only predict reads ONNX: give the bundle"):
        striate.evaluate(exported)
    with pytest.raises(UsageError, match="it runs on the CPU"):
        load(exported, "cuda")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match="pip install"):
        load(exported)
