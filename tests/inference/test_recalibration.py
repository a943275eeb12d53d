"""Calibration of bundles: after training, by the command, in predictions, exports and explanations."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import striate
from striate import bundle, cli
from striate.bundle import Calibration
from striate.bundle.calibration import encode_scores, kept_ranks
from striate.bundle.unknown import of_features
from striate.errors import BundleError, UsageError
from striate.inference.calibration import calibration_of
from striate.inference.prediction import softmax
from striate.tasks.classification.report import report


def calibration(temperature=2.0, images=19, method="lac"):
    scores = encode_scores(np.linspace(0.01, 0.9, images))
    return Calibration(temperature, images, "val", (0.2, 0.1), method, scores)


@pytest.fixture
def calibrated(run, tmp_path):
    """The run's bundle with a temperature of 2 and prediction sets from 19 images."""
    path = shutil.copy(run.best, tmp_path / "model.safetensors")
    bundle.add_metrics(path, {}, calibration())
    return path


def test_training_calibrates_on_val(run, colors):
    stored = bundle.describe(run.best).calibration
    assert (stored, stored.source) == (run.evaluation.calibration, "val")
    raw = striate.evaluate(run.best, split="val", calibration=False)
    again = calibration_of(np.log(raw.probabilities), raw.labels, "val")
    assert again.temperature == pytest.approx(stored.temperature, rel=1e-5)
    assert stored.images == raw.n
    last = bundle.describe(run.training.last)
    assert last.calibration is None


def test_probabilities_are_those_of_scaled_scores(run, calibrated, few_colors):
    picture = next(few_colors.rglob("*.png"))
    plain = striate.load(run.best).uncalibrated().predict(picture).probabilities
    model = striate.load(calibrated)
    assert model.predict(picture).probabilities == pytest.approx(softmax(np.log(plain), 2.0))
    assert model.uncalibrated().predict(picture).probabilities == pytest.approx(plain)
    assert model.explain(picture, test=False).probability == pytest.approx(
        model.predict(picture).top(1)[0].probability, rel=1e-5
    )
    old = striate.evaluate(run.best, few_colors, calibration=False)
    new = striate.evaluate(calibrated, few_colors)
    assert (old.top1, old.calibration, new.calibration.temperature) == (new.top1, None, 2.0)
    assert old.ece != new.ece


def test_the_header_keeps_what_earlier_versions_read(run, calibrated):
    described = bundle.describe(calibrated)
    assert "calibration" not in described.to_json()
    assert described.calibration == calibration()
    assert bundle.inspect(calibrated).weights_sha256 == bundle.inspect(run.best).weights_sha256
    bundle.add_metrics(calibrated, {"test": {"top1": 1.0}})
    assert bundle.describe(calibrated).calibration == calibration()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"images": 20}, "scores"),
        ({"scores": "*"}, "scores"),
        ({"scores": encode_scores(np.linspace(1, 0, 19))}, "rising"),
        ({"method": "aps"}, "method"),
        ({"ece": [0.1]}, "ece"),
    ],
)
def test_damaged_calibrations_are_refused(run, tmp_path, changed, why, monkeypatch):
    path = shutil.copy(run.best, tmp_path / "model.safetensors")
    values = {**calibration().to_json(), **changed}
    monkeypatch.setattr(Calibration, "to_json", lambda self: values)
    bundle.add_metrics(path, {}, calibration())
    with pytest.raises(BundleError, match=why):
        bundle.describe(path)


def test_an_exported_file_has_it_too(calibrated, few_colors, tmp_path):
    pytest.importorskip("onnxruntime")
    striate.export(calibrated, tmp_path / "model.onnx", "onnx")
    picture = next(few_colors.rglob("*.png"))
    original, exported = striate.load(calibrated), striate.load(tmp_path / "model.onnx")
    assert exported.description.calibration == calibration()
    assert exported.predict(picture).probabilities == pytest.approx(
        original.predict(picture).probabilities, abs=1e-5
    )
    assert exported.predict(picture).set(0.9) == original.predict(picture).set(0.9)


def test_the_command_predicts_sets(calibrated, few_colors, capfd):
    picture = str(next(few_colors.rglob("*.png")))
    assert cli.run(["predict", str(calibrated), picture, "--coverage", "0.95", "--json"]) == 0
    (result,) = json.loads(capfd.readouterr().out)["results"]
    likely = [row["class"] for row in result["top"] if row["probability"] >= 1 - 0.9]
    assert result["set"] == likely  # 0.9 is the largest of the 19 scores
    assert cli.run(["predict", str(calibrated), picture, "--coverage", "0.95", "--csv"]) == 0
    header, row = capfd.readouterr().out.splitlines()
    assert header.startswith("path,error,set,class1")
    assert row.split(",")[2] == "|".join(likely)
    assert cli.run(["predict", str(calibrated), picture, "--coverage", "0.96"]) == 2
    assert "needs 24 calibration images; the model has 19" in capfd.readouterr().err
    assert cli.run(["predict", str(calibrated), picture, "--coverage", "1.5"]) == 2
    assert cli.run(["predict", str(calibrated), picture, "--coverage", "95"]) == 2
    assert "it must be between 0 and 1. Did you mean 0.95?" in capfd.readouterr().err
    assert cli.run(["predict", str(calibrated), picture, "--coverage", "0.9", "--no-calibration"]) == 2
    assert "Leave one of them out" in capfd.readouterr().err
    plain = striate.load(calibrated).uncalibrated().predict(picture)
    with pytest.raises(UsageError, match="the model is not calibrated"):
        plain.set(0.9)
    with pytest.raises(UsageError, match="each with a threshold: those above it are the set"):
        dataclasses.replace(plain, thresholds=(0.5, 0.5, 0.5)).set(0.9)


def test_18_images_are_too_few():
    with pytest.raises(UsageError, match="needs 19 calibration images"):
        calibration(images=18).threshold(0.95)
    assert calibration(images=19).threshold(0.95) == pytest.approx(0.9)


def test_of_many_images_the_next_higher_score_counts():
    scores = np.sort(np.random.default_rng(0).random(12_345))
    assert (len(kept_ranks(12_345)), kept_ranks(12_345)[-1]) == (2000, 12_344)
    many = dataclasses.replace(calibration(), images=12_345, scores=encode_scores(scores))
    for coverage in (0.5, 0.9, 0.95, 0.999):
        exact = scores[int(np.ceil(12_346 * coverage)) - 1]
        assert exact <= many.threshold(coverage) <= exact + 0.002


def test_the_command_calibrates_an_existing_bundle(run, few_colors, colors, tmp_path, capfd):
    path = shutil.copy(run.best, tmp_path / "model.safetensors")
    assert cli.run(["calibrate", str(path), str(few_colors), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    stored = bundle.describe(path).calibration
    assert (result["temperature"], result["images"]) == (stored.temperature, stored.images)
    assert stored.source == f"images of {few_colors}"
    with pytest.raises(UsageError, match="no data to evaluate on"):
        striate.calibrate(path)
    folder = shutil.copytree(run.training.folder, tmp_path / "run")
    assert striate.calibrate(folder).source == "val"


@pytest.mark.filterwarnings("default::striate.errors.StriateWarning")
def test_calibration_on_training_images_and_what_is_left_out_is_reported(run, tmp_path, capfd):
    folder = shutil.copytree(run.training.folder, tmp_path / "run")
    splits = run.training.task.dataset.splits
    names = (*splits["train"].names[:5], *splits["val"].names, tmp_path / "missing.png")
    rows = [f"{name},red" for name in names] + [f"{splits['test'].names[0]},rde"]
    table = tmp_path / "typo.csv"
    table.write_text("\n".join(["path,label", *rows]), "utf-8")
    says = f"5 of the {len(names)} images that calibrate the model were training images of its run, such as "
    assert cli.run(["calibrate", str(folder), str(table)]) == 0
    out, err = capfd.readouterr()
    assert f"warning: {says}{splits['train'].names[0]!r}" in err
    assert "class unknown to the model, left out: rde (1 image)" in out
    assert f"unreadable, left out: {tmp_path / 'missing.png'}" in out
    table.write_text(f"path,label\n{splits['val'].names[0]},red\n", "utf-8")
    assert cli.run(["calibrate", str(folder), str(table), "--json"]) == 0
    out, err = capfd.readouterr()
    result = json.loads(out)
    assert "warning" not in err
    assert (result["images"], result["extra_classes"], result["unreadable"]) == (1, {}, [])
    assert set(result) == {
        "temperature", "images", "source", "ece", "method", "extra_classes", "unreadable", "notes"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("temperature", "says"),
    [(1.0, "probabilities unchanged: 19 images (val)"), (2.0, "calibrated, temperature 2.00")],
)
def test_a_temperature_of_1_is_no_calibration(run, few_colors, tmp_path, capfd, temperature, says):
    path = shutil.copy(run.best, tmp_path / "model.safetensors")
    bundle.add_metrics(path, {}, calibration(temperature))
    assert cli.run(["evaluate", str(path), str(few_colors)]) == 0
    assert says in capfd.readouterr().out
    page = str(report(striate.evaluate(path, few_colors), model="m"))
    assert ("The probabilities are unchanged" in page) == (temperature == 1)
    assert ("calibrated" in striate.load(path)._repr_html_()) == (temperature != 1)


def test_features_of_a_train_split_go_into_the_bundle(run, colors, few_colors, tmp_path):
    path = shutil.copy(run.best, tmp_path / "model.safetensors")
    for folder, split in ((colors, "train"), (few_colors, "val")):
        shutil.copytree(folder, tmp_path / "data" / split)
    found = striate.calibrate(path, tmp_path / "data")
    assert (found.images, found.source) == (36, f"val images of {tmp_path / 'data'}")
    model = striate.load(path)
    train, val = (sorted((tmp_path / "data" / split).rglob("*.png")) for split in ("train", "val"))
    expected = of_features(model.embed(train), model.embed(val))
    summary = model.unknown_inputs.summary()
    assert (summary["images"], summary["held_out"]) == (60, 36)
    assert summary["threshold"] == pytest.approx(expected.threshold, rel=1e-3)
