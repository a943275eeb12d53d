"""Distances to training images against sorted cosines, their compressed form, and marks of predictions."""

import json
import shutil

import numpy as np
import pytest

import striate
from striate import bundle, cli
from striate.bundle.unknown import UnknownInputs, of_features
from striate.errors import BundleError

RNG = np.random.default_rng(0)


def features(n, width=64, centre=0):
    """Features of five classes around directions that differ with `centre`."""
    directions = np.random.default_rng(centre).normal(size=(5, width))
    return (directions[RNG.integers(0, 5, n)] * 2 + RNG.normal(size=(n, width))).astype(np.float32)


@pytest.mark.parametrize(("images", "width"), [(300, 64), (300, 700), (150, 100)])
def test_distances_are_one_minus_the_tenth_largest_cosine(images, width):
    train, val, foreign = features(images, width), features(200, width), features(200, width, 1)
    known = of_features(train, val)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, val, foreign)]
    near, far = (1 - np.sort(x @ unit[0].T, axis=1)[:, -10] for x in unit[1:])
    assert known.distances(val) == pytest.approx(near, abs=0.02 if width < 200 else 0.25)
    assert np.mean(known.distances(val) > known.threshold) <= 0.03
    assert np.mean(known.distances(foreign) > known.threshold) > 0.9
    assert known.rejected <= 0.1
    assert min(far) > np.median(near)


@pytest.mark.slow
def test_the_text_is_small_and_exact():
    known = of_features(features(2500, 2048), features(50, 2048))
    text = known.encode()
    assert len(text) < 2_000_000
    again = UnknownInputs.decode(text)
    assert (again.reference == known.reference).all()
    assert (again.distances(features(5, 2048)) >= 0).all()
    assert again.summary() == known.summary()
    assert len(again.reference) == 2000


def test_too_few_images_and_features_that_are_not_finite():
    assert of_features(features(19), features(50)) is None
    assert of_features(features(50), np.full((50, 64), np.nan, np.float32)) is None
    known = of_features(features(50), features(50))
    assert known.distances(np.full((1, 64), np.inf, np.float32)) == np.inf


@pytest.fixture
def marked(run, tmp_path):
    """The run's bundle with features of its training images."""
    assert bundle.describe(run.best).unknown == ""  # fewer than 20 validation images
    path, model = shutil.copy(run.best, tmp_path / "m.safetensors"), striate.load(run.best)
    bundle.add_metrics(path, {}, None, _of(model, run).encode())
    return path


def _of(model, run):
    images = list(run.evaluation.images[:]) * 3
    return of_features(model.embed(images), model.embed(images))


def test_predictions_are_marked(run, marked, few_colors, capfd):
    picture = str(next(few_colors.rglob("*.png")))
    old, new = striate.load(run.best), striate.load(marked)
    assert (old.predict(picture).unknown, new.predict(picture).unknown) == (None, False)
    expected = old.predict(picture).probabilities
    assert new.predict(picture).probabilities == pytest.approx(expected, abs=1e-5)
    assert cli.run(["predict", str(marked), picture, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["results"][0]["unknown"] is False
    assert cli.run(["predict", str(marked), picture, "--csv"]) == 0
    assert capfd.readouterr().out.splitlines()[0].endswith(",unknown")
    values = json.loads(bundle.describe(marked).unknown)
    bundle.add_metrics(marked, {}, None, json.dumps({**values, "threshold": -1.0}))
    assert cli.run(["predict", str(marked), picture]) == 0
    assert capfd.readouterr().out.endswith("unlike the training images\n")


@pytest.mark.parametrize("change", [("axes", "!"), ("axes", "eJw="), ("shape", [0, 1, 1]), ("step", "x")])
def test_damaged_features_are_refused_when_used(marked, few_colors, change):
    values = json.loads(bundle.describe(marked).unknown)
    values[change[0]] = change[1]
    bundle.add_metrics(marked, {}, None, json.dumps(values))
    model = striate.load(marked)
    with pytest.raises(BundleError, match="its features of training images"):
        model.predict(next(few_colors.rglob("*.png")))
