"""Predictions: one path for files and arrays, errors in place, the same in any process and batch."""

import copy
import dataclasses
import io
import math
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import striate
from striate import bundle, memory, models
from striate.data import InMemoryImages
from striate.errors import BundleError, DecodeError, LayoutError, ResourceError, UsageError
from striate.inference import classifier as classifiers
from striate.inference import prediction as predictions_of
from striate.inference.prediction import softmax


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
    assert [a.error for a in answers][::3] == [None, None]
    assert answers[1].error == "the file is empty (0 bytes)"
    assert answers[2].error == "no such file or directory"
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


def test_later_changes_of_the_network_have_no_effect_or_a_whole_one(model, files):
    own = dataclasses.replace(model, network=copy.deepcopy(model.network))
    before = own.predict(files[0]).probabilities
    with torch.no_grad():
        for parameter in own.network.parameters():
            parameter.mul_(0.5)
            assert np.array_equal(own.predict(files[0]).probabilities, before)
    own.network.half()
    assert np.array_equal(own.predict(files[0]).probabilities, before)
    own.network.float()
    changed = dataclasses.replace(own).predict(files[0]).probabilities
    assert abs(changed - before).max() > 1e-3
    fresh = dataclasses.replace(own, network=copy.deepcopy(own.network))
    assert np.array_equal(changed, fresh.predict(files[0]).probabilities)


def test_a_used_classifier_can_be_pickled_and_copied(model, files):
    before = model.predict(files[0])
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert np.array_equal(other.predict(files[0]).probabilities, before.probabilities)
        assert other.classes == model.classes
    assert pickle.loads(pickle.dumps(before)).top() == before.top()


def first_class(model, path):
    return model.predict(path).label


@pytest.mark.slow
def test_a_used_classifier_can_be_sent_to_a_spawned_process(model, files):
    expected = model.predict(files[0]).label
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(first_class, [model], files[:1], timeout=120)) == [expected]


FORKS_AND_MEMORY = """
import os, resource, signal, sys
import torch
import striate
from PIL import Image

def forked():
    if (child := os.fork()) == 0:
        signal.alarm(60)  # ends a child that hangs
        model.predict(ordinary)
        os._exit(0)
    return os.waitpid(child, 0)[1]

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

bundle, ordinary, *others = sys.argv[1:]
torch.set_num_threads(2)
torch.manual_seed(0)
model = striate.load(bundle, device="cpu")
torch.rand(1)
print(forked(), "after loading")
model.predict(ordinary)
print(forked(), "after predicting")
before = peak()
for path in others:
    model.predict(path)
print((peak() - before) // 100, "times 100 MB")
"""


def test_forks_and_long_images(run, tmp_path):
    """A fork after loading or predicting computes; a picture of 60,000x1 pixels takes little memory."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image in {
        "ordinary.png": Image.new("RGB", (500, 375)), "wide.png": Image.new("RGB", (60_000, 1)),
        "high.png": Image.new("RGBA", (1, 60_000)), "turned.png": Image.new("RGB", (1, 5000)),
        "deep.png": Image.new("I;16", (5000, 2)), "float.tif": Image.new("F", (2, 5000)),
    }.items():  # fmt: skip
        image.save(tmp_path / name, exif=exif)
    names = sorted(path.name for path in tmp_path.iterdir())
    paths = ["ordinary.png", *(name for name in names if name != "ordinary.png")]
    out = subprocess.run(
        [sys.executable, "-c", FORKS_AND_MEMORY, run.best, *paths], cwd=tmp_path, stdout=subprocess.PIPE,
        text=True, check=True, timeout=200,
    ).stdout  # fmt: skip
    assert out.splitlines() == ["0 after loading", "0 after predicting", "0 times 100 MB"]


def test_batches_that_cannot_fit_are_refused_before_images_are_decoded(model, files, monkeypatch):
    """An image takes its pixels as bytes and as float32, and the largest result of a layer."""
    height, width = model.preprocess.size
    values = model.preprocess.channels * height * width
    layers = striate.anatomy.trace(model.description.architecture, size=(height, width)).layers
    need = 12 * (5 * values + max(4 * math.prod(layer.output) for layer in layers))
    monkeypatch.setattr(predictions_of, "USUAL_PIXELS", 0)
    monkeypatch.setattr(memory, "available", lambda: need)
    assert len(list(model.predict_many(files[:1] * 12, batch=12))) == 12
    monkeypatch.setattr(memory, "available", lambda: need - 1)
    monkeypatch.setattr(predictions_of, "read_image", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ResourceError, match=r"a batch of 12 images: it needs at least .*--batch"):
        next(model.predict_many(files[:1] * 12, batch=100))
    pixels = np.zeros((13, height, width, model.preprocess.channels), np.uint8)
    source = InMemoryImages(pixels, np.zeros(13, np.int64), ("",) * 13, ())
    for call in (model.measure, model.features, model.scores_and_features):
        with pytest.raises(ResourceError, match="a batch of 13 images"):
            call(source)
    assert len(model.probabilities(pixels, batch=11)) == 13


def test_memory_that_runs_out_in_the_network(model, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("could not create a primitive")  # of oneDNN

    monkeypatch.setattr(classifiers, "logits", fail)
    pixels = np.zeros((1, *model.preprocess.size, model.preprocess.channels), np.uint8)
    source = InMemoryImages(pixels, np.zeros(1, np.int64), ("",), ())
    for call in (model.measure, model.features, model.scores_and_features):
        with pytest.raises(ResourceError, match="could not create a primitive"):
            call(source)
    with pytest.raises(ResourceError, match="could not create a primitive"):
        model.probabilities(pixels)
