"""Accuracy under corruptions, against predictions of images that the test corrupts itself."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

import striate
from striate import cli, models
from striate.bundle import Description
from striate.errors import UsageError
from striate.inference.classifier import Classifier
from striate.inference.robustness import CorruptedImages, chosen_severities, summarize
from striate.transforms.corruptions import CORRUPTIONS, corrupt
from striate.transforms.preprocess import Preprocess


@pytest.fixture
def faint(colors, tmp_path):
    """The colors with little contrast, some in the wrong class: hard to tell apart under corruptions."""
    for i, path in enumerate(sorted(colors.rglob("*.png"))):
        pixels = np.asarray(Image.open(path).convert("RGB"), float)
        name = path.parent.name if i % 4 else "red"
        target = tmp_path / "faint" / name / f"{path.parent.name}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((128 + 0.12 * (pixels - 128)).astype(np.uint8)).save(target)
    return tmp_path / "faint"


def test_the_command(run, faint, tmp_path, capfd):
    argv = ["evaluate", str(run.best), str(faint), "--split", "all", "--corruptions"]
    few = ["--severities", "5,1", "--corruption-images", "20"]
    assert cli.run([*argv, *few, "--json", "--batch", "7", "--out", str(tmp_path / "page")]) == 0
    found = json.loads(capfd.readouterr().out)
    robustness = found["robustness"]
    assert (robustness["n"], robustness["severities"]) == (20, [1, 5])
    results = {(r["corruption"], r["severity"]): r for r in robustness["results"]}
    assert list(results) == [(name, severity) for name in CORRUPTIONS for severity in (1, 5)]

    model = striate.load(run.best)
    evaluation = striate.evaluate(model, faint, split="all")
    chosen = np.sort(np.random.default_rng(0).permutation(evaluation.n)[:20])
    pixels, labels = np.stack([evaluation.images[i] for i in chosen]), evaluation.labels[chosen]
    for name, severity in results:
        corrupted = np.stack([corrupt(image, name, severity) for image in pixels])
        right = int((model.probabilities(corrupted).argmax(axis=1) == labels).sum())
        result = results[name, severity]
        assert result["top1"] == right / 20
        expected = binomtest(right, 20).proportion_ci(method="wilson")
        assert result["top1_ci"] == pytest.approx([expected.low, expected.high], abs=1e-6)
    assert len({result["top1"] for result in results.values()}) > 3
    clean = float((evaluation.predicted[chosen] == labels).mean())
    assert robustness["clean_top1"] == clean
    mean = np.mean([result["top1"] for result in results.values()])
    assert robustness["mean_top1"] == pytest.approx(mean)
    assert robustness["relative_drop"] == pytest.approx((clean - mean) / clean)
    low, high = robustness["mean_top1_ci"]
    assert low <= mean <= high

    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert ">Robustness<" in page
    assert page.count(">JPEG compression<") == 3  # the figure, the table and the example
    assert cli.run([*argv, "--severities", "5", "--corruption-images", "3"]) == 0
    out = capfd.readouterr().out
    assert "Elastic transform" in out
    assert "mean under corruptions" in out
    assert "severity 5" in out


def test_mistakes(run, colors, capfd):
    for options, text in [
        (("--severities", "1"), "--severities without --corruptions"),
        (("--corruption-images", "5"), "--corruption-images without --corruptions"),
        (("--corruptions", "--severities", "0,3"), "no severity '0': there are 1 to 5"),
        (("--corruptions", "--severities", ""), "no severity ''"),
    ]:
        assert cli.run(["evaluate", str(run.best), str(colors), *options]) == 2
        err = capfd.readouterr().err
        assert err.count("\n") == 1
        assert text in err


def classifier(channels, thresholds=None):
    preprocess = Preprocess.for_size(32, channels)
    network = models.build("lenet", num_classes=2, in_channels=channels).eval()
    description = Description("classification", "lenet", {}, ("a", "b"), preprocess, thresholds=thresholds)
    return Classifier(network, description, torch.device("cpu"))


def test_which_models_and_severities():
    assert chosen_severities(False, 500, classifier(5)) == ()
    assert chosen_severities((), 500, classifier(5)) == ()
    assert chosen_severities(True, 500, classifier(1)) == (1, 3, 5)
    assert chosen_severities((5, 2, 2), 1, classifier(3)) == (2, 5)
    with pytest.raises(UsageError, match="its images have 5 channels"):
        chosen_severities(True, 500, classifier(5))
    with pytest.raises(UsageError, match="several classes each"):
        chosen_severities(True, 500, classifier(3, (0.5, 0.5)))
    with pytest.raises(UsageError, match="corruptions of 0 images"):
        chosen_severities(True, 0, classifier(3))


def test_another_kind_of_model_refuses(text_run, reversed_words, capfd):
    assert cli.run(["evaluate", str(text_run.best), str(reversed_words), "--corruptions"]) == 2
    assert "--corruptions with a seq2seq model: it has no such option" in capfd.readouterr().err


def test_corrupted_images_do_not_depend_on_the_batch():
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3), np.uint8)
    source = CorruptedImages(images, np.zeros(6, np.int64), "snow", 3)
    assert (len(source), source.shape) == (6, (16, 20, 3))
    together, alone = np.empty_like(images), np.empty_like(images[:1])
    assert source.read(np.array([5, 1, 0, 2, 3, 4]), together).all()
    for row, i in enumerate((5, 1, 0, 2, 3, 4)):
        source.read(np.array([i]), alone)
        np.testing.assert_array_equal(together[row], alone[0])


def test_the_figures():
    rng = np.random.default_rng(0)
    clean = rng.random(400) < 0.9
    right = clean & (rng.random((30, 400)) < rng.choice([0.2, 0.9], 400))
    settings = [(name, severity) for name in CORRUPTIONS for severity in (2, 4)]
    found = summarize(right, clean, settings)
    assert found.of("snow")[1].top1 == right[settings.index(("snow", 4))].mean()
    assert found.mean_top1 == right.mean()
    assert found.relative_drop == pytest.approx(1 - right.mean() / clean.mean())
    # Large samples: the bootstrap agrees with the normal distribution of the mean of images.
    half = 1.96 * right.mean(axis=0).std() / 20
    assert found.mean_top1_ci == pytest.approx((right.mean() - half, right.mean() + half), abs=half / 5)
    rest = right.mean(axis=0) - clean * right.mean() / clean.mean()  # the linear part of the ratio
    half = 1.96 * rest.std() / 20 / clean.mean()
    drop = found.relative_drop
    assert found.relative_drop_ci == pytest.approx((drop - half, drop + half), abs=half / 5)

    nothing = summarize(np.zeros((30, 5), bool), np.zeros(5, bool), settings)
    assert (nothing.mean_top1, nothing.relative_drop, nothing.relative_drop_ci) == (0, None, None)
    assert nothing.mean_top1_ci == pytest.approx(nothing.clean_top1_ci)
    everything = summarize(np.ones((30, 5), bool), np.ones(5, bool), settings)
    assert (everything.mean_top1, everything.relative_drop, everything.relative_drop_ci) == (1, 0, None)
