"""Predictions: one path for files and arrays, errors in place, the same in any process and batch."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import striate
from striate import bundle, models
from striate.errors import BundleError, DecodeError, LayoutError, UsageError
from striate.inference.classifier import softmax


@pytest.fixture(scope="module")
def model(run):
    return striate.load(run.best, device="cpu")


@pytest.fixture
def files(colors):
    return sorted(str(p) for p in colors.rglob("*.png"))[::7]


def test_a_file_and_its_pixels_give_the_same(model, files):
    by_file = model.predict(files[0])
    by_array = model.predict(np.asarray(Image.open(files[0])))
    assert np.array_equal(by_file.probabilities, by_array.probabilities)
    assert by_file.path == files[0]
    with Image.open(files[0]) as image:
        assert np.array_equal(model.predict(image).probabilities, by_file.probabilities)
    with pytest.raises(LayoutError, match="a list is no image"):
        model.predict([files[0]])
    assert len(repr(model)) < 2000
    assert by_file.probabilities.sum() == pytest.approx(1)


def test_the_answer_is_the_network_s(model, files):
    pixels = torch.from_numpy(model.preprocess.fit(model.preprocess.decode(files[0])))[None]
    with torch.no_grad():
        scores = model.network(model.preprocess.normalize(pixels))
    expected = torch.softmax(scores.double(), 1)[0].numpy()
    assert model.predict(files[0]).probabilities == pytest.approx(expected, abs=1e-9)
    best = model.predict(files[0]).top(2)
    assert [s.name for s in best] == [model.classes[i] for i in np.argsort(-expected)[:2]]


def test_a_bad_file_does_not_stop_the_rest(model, files, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    answers = list(model.predict_many([files[0], bad, "absent.png", files[1]], batch=2))
    assert [a.error for a in answers] == [None, "the file is empty (0 bytes)", "no such file", None]
    assert answers[1].top(3) == []
    assert answers[1].label is None
    assert answers[3].label == model.predict(files[1]).label
    with pytest.raises(DecodeError, match=r"bad\.jpg"):
        model.predict(bad)


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_batches_do_not_matter(model, files, batch):
    one_by_one = [model.predict(f).probabilities for f in files]
    together = [p.probabilities for p in model.predict_many(files, batch=batch)]
    assert np.allclose(one_by_one, together, rtol=0, atol=1e-6)


def test_a_stream_is_read_as_it_is_needed(model, files):
    taken = []

    def stream():
        for i in range(1000):
            taken.append(i)
            yield files[0]

    next(model.predict_many(stream(), batch=4))
    assert len(taken) <= 8


def test_wrong_arrays_are_refused(model):
    with pytest.raises(LayoutError):
        model.predict(np.zeros((3, 32, 32), np.float32))


def test_a_fresh_process_without_pickle_gives_the_same(run, model, files):
    code = f"""
import pickle, torch
def refuse(*args, **kwargs): raise AssertionError("pickle was used")
for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"): setattr(pickle, name, refuse)
torch.load = refuse
torch.set_num_threads(2)
import striate
model = striate.load({str(run.best)!r}, device="cpu")
for path in {files!r}:
    print(model.predict(path).probabilities.tobytes().hex())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [model.predict(path).probabilities.tobytes().hex() for path in files]


def test_a_run_s_folder_stands_for_its_best(run):
    assert striate.load(run.training.folder).path == str(run.best)


def test_bundles_that_cannot_classify(run, tmp_path):
    description, _ = bundle.read(run.best)
    network = models.build("lenet", num_classes=5)
    import dataclasses

    other = tmp_path / "other.safetensors"
    bundle.write(other, network, dataclasses.replace(description, task="seq2seq"))
    with pytest.raises(BundleError, match="trained for seq2seq"):
        striate.load(other)
    bundle.write(other, network, description)  # five classes in the tensors, three in the description
    with pytest.raises(BundleError, match="does not fit lenet"):
        striate.load(other)
    with pytest.raises(UsageError, match="unknown device"):
        striate.load(run.best, device="gpux")


def test_softmax_is_torchs_and_does_not_overflow():
    scores = np.random.default_rng(0).normal(0, 300, (20, 7)).astype(np.float32)
    assert softmax(scores) == pytest.approx(
        torch.softmax(torch.from_numpy(scores).double(), 1).numpy(), abs=1e-15
    )


def test_every_form_of_an_image_gets_the_same_prediction(model, tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (50, 40, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.png"
    Image.fromarray(rgba).save(path, exif=exif)
    data = path.read_bytes()
    by_path = model.predict(path)
    with path.open("rb") as file, Image.open(path) as opened:
        forms = {"bytes": data, "memory": io.BytesIO(data), "file": file, "opened": opened}
        predictions = {form: model.predict(source) for form, source in forms.items()}
        again = list(model.predict_many([opened, file, data, opened, file], batch=1))
        assert all(np.array_equal(p.probabilities, by_path.probabilities) for p in again)
    predictions["array"] = model.predict(np.rot90(rgba, -1))
    for form, prediction in predictions.items():
        assert np.array_equal(prediction.probabilities, by_path.probabilities), form
    assert [predictions[form].path for form in ("bytes", "memory", "file", "opened", "array")] == [
        "image bytes", "file object", str(path), "array", "array"
    ]  # fmt: skip
