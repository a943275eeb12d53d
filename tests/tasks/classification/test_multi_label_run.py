"""Training on images with several classes: loss, rows, thresholds, resuming, reports, use of the bundle."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exact_resume import outcome, start, start_and_crash
from PIL import Image
from sklearn import metrics as sk

import striate
import striate.cli
from striate import bundle
from striate.api import resume_training
from striate.errors import DataError, UsageError
from striate.metrics.multi_label import best_thresholds
from striate.tasks.classification.balance import positive_weights
from striate.tasks.classification.loss import Criterion
from striate.tasks.classification.multi_label_report import worst_label_errors

NAMES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """36 images with squares of any of three colors, and a table of them."""
    folder, rng = tmp_path_factory.mktemp("several"), np.random.default_rng(0)
    rows = []
    for i in range(36):
        pixels = rng.integers(0, 60, (32, 32, 3)).astype(np.uint8)
        names = [name for k, name in enumerate(NAMES) if i % (k + 2) == 0]
        for name in names:
            y, x = rng.integers(0, 20, 2)
            pixels[y : y + 12, x : x + 12, 2 - NAMES.index(name)] = 255
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
        rows.append((f"{i:02}.png", ";".join(names)))
    with (folder / "squares.csv").open("w") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return folder / "squares.csv"


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("runs"))
    return striate.train(table, model="lenet", epochs=2, batch=8, val=0.3, test=0.3, out=out, name="run")


SCORES = torch.tensor([[2.0, -1.0, 0.5], [-0.3, 0.2, 3.0]])
LABELS = torch.tensor([[True, False, True], [False, False, True]])


def test_the_loss_is_torchs():
    weights = torch.tensor([1.0, 2.0, 5.0])
    found, _ = Criterion(weights=weights)(SCORES, LABELS)
    expected = F.binary_cross_entropy_with_logits(SCORES, LABELS.float(), pos_weight=weights)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    mixed, _ = Criterion(0.2)(SCORES, LABELS, 0.7)
    targets = 0.7 * LABELS.float() + 0.3 * LABELS.float().roll(1, 0)
    expected = F.binary_cross_entropy_with_logits(SCORES, 0.8 * targets + 0.1)
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_focal_loss_follows_its_formula():
    """Lin et al. 2017, equation 4: -(1 - p_t)^gamma log p_t."""
    p = SCORES.sigmoid()
    p_t = torch.where(LABELS, p, 1 - p)
    found, _ = Criterion(gamma=2.0)(SCORES, LABELS)
    assert found.item() == pytest.approx((-((1 - p_t) ** 2) * p_t.log()).mean().item(), rel=1e-6)


def test_positive_weights_are_ratios_of_numbers():
    counts = np.array([10, 50])
    assert positive_weights("balanced", counts, 0, 100) == pytest.approx([9, 1])
    effective = (1 - 0.9**90) / (1 - 0.9**10)
    assert positive_weights("effective", counts, 0.9, 100) == pytest.approx([effective, 1])
    assert positive_weights("none", counts, 0, 100) is None


def test_the_figures_of_a_run(finished):
    evaluation, row = finished.evaluation, finished.training.epochs[-1]
    assert evaluation.split == "test"
    assert evaluation.metrics["map"] == pytest.approx(
        sk.average_precision_score(evaluation.labels, evaluation.probabilities), abs=1e-12
    )
    on_val = striate.evaluate(finished.best, split="val")
    best = finished.training.best_row
    assert best.val_map == pytest.approx(on_val.metrics["map"], abs=1e-6)
    at_half = on_val.probabilities >= 0.5
    assert best.val_micro_f1 == pytest.approx(
        sk.f1_score(on_val.labels, at_half, average="micro", zero_division=0), abs=1e-6
    )
    eps = on_val.probabilities.clip(1e-12, 1 - 1e-12)
    loss = -np.where(on_val.labels, np.log(eps), np.log(1 - eps)).mean()
    assert best.val_loss == pytest.approx(loss, rel=1e-4)
    assert finished.to_json()["val_map"] == best.val_map
    assert finished.training.config.monitor == "map"
    assert 0 <= row.train_exact <= 1


def test_the_bundle_has_the_thresholds_of_val(finished):
    description = bundle.describe(finished.best)
    on_val = striate.evaluate(finished.best, split="val")
    assert description.thresholds == pytest.approx(best_thresholds(on_val.probabilities, on_val.labels))
    assert [score.threshold for score in finished.evaluation.per_class] == list(description.thresholds)
    assert json.loads(json.dumps(description.to_json()))["format"] == 3
    assert bundle.describe(finished.training.last).thresholds == (0.5,) * 3


def test_predictions_reach_their_thresholds(finished, table, capsys):
    model = striate.load(finished.best)
    image = table.with_name("00.png")
    prediction = model.predict(image)
    expected = {
        name
        for name, chance, at in zip(NAMES, prediction.probabilities, prediction.thresholds, strict=True)
        if chance >= at
    }
    assert {score.name for score in prediction.labels} == expected
    assert striate.cli.run(["predict", str(finished.best), str(image), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    least = dict(zip(NAMES, prediction.thresholds, strict=True))
    assert {label["class"]: label["threshold"] for label in result["labels"]} == {
        name: least[name] for name in expected
    }
    assert striate.cli.run(["predict", str(finished.best), str(image)]) == 0
    out = capsys.readouterr().out
    assert all(f"(threshold {100 * least[name]:.1f} %)" in out for name in expected)
    assert len(result["top"]) == 3
    assert striate.cli.run(["predict", str(finished.best), str(image), "--csv"]) == 0
    header, row = csv.reader(capsys.readouterr().out.splitlines())
    assert set(filter(None, dict(zip(header, row, strict=True))["labels"].split(";"))) == expected


def test_evaluate_report_and_predictions(finished, table, tmp_path, capsys):
    command = [
        "evaluate",
        str(finished.best),
        str(table),
        "--split",
        "test",
        "--out",
        str(tmp_path),
        "--json",
    ]
    assert striate.cli.run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["map"] == finished.evaluation.metrics["map"]
    assert found["per_class"]["red"]["threshold"] == bundle.describe(finished.best).thresholds[2]
    page = (tmp_path / "report.html").read_text()
    assert "average precision" in page
    assert 'tr data-class="2"' in page, "a class of the table can be chosen"
    wrong = (finished.evaluation.predicted != finished.evaluation.labels).any(axis=1)
    assert f"{wrong.sum()} of {len(wrong)} test images have a wrong prediction" in page
    worst = worst_label_errors(finished.evaluation)
    assert len(worst.images) == wrong.sum() > 0
    for *answers, name in worst.captions:
        i = [Path(path).name for path in finished.evaluation.names].index(name)
        for answer in answers:
            sign, share, label = answer.split()
            k = NAMES.index(label)
            assert share == f"{finished.evaluation.probabilities[i, k]:.0%}"
            assert finished.evaluation.labels[i, k] == (sign == "-")
            assert finished.evaluation.predicted[i, k] == (sign == "+")
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = ["".join(sorted(row["truth"])) for row in rows]
    own = [
        ";".join(n for n, has in zip(NAMES, row, strict=True) if has) for row in finished.evaluation.labels
    ]
    assert truth == ["".join(sorted(text)) for text in own]
    correct = (finished.evaluation.predicted == finished.evaluation.labels).all(axis=1)
    assert [row["correct"] for row in rows] == [str(int(one)) for one in correct]
    assert striate.cli.run(["evaluate", str(finished.best)]) == 0
    assert "mAP" in capsys.readouterr().out


def test_explain_and_embed(finished, table):
    model = striate.load(finished.best)
    explained = model.explain(table.with_name("06.png"), target="green", test=False)
    chance = dict(zip(model.classes, model.predict(table.with_name("06.png")).probabilities, strict=True))
    assert explained.probability == pytest.approx(chance["green"], abs=1e-5)
    from striate.inference.embedding import embed

    found = embed(model, table)
    assert found.labels[found.paths.index(str(table.with_name("06.png")))] == "blue;green"


def test_a_run_resumes_exactly(table, tmp_path):
    options = {"epochs": 2, "batch": 8, "accumulate": 1, "mixup": 0.3, "class_weights": "balanced"}
    whole = outcome(start(table, tmp_path / "whole", **options).folder)
    folder = start_and_crash(table, tmp_path, 3, **options)
    torch.manual_seed(99)
    resume_training(folder)
    assert outcome(folder) == whole


def test_options_that_do_not_fit_are_refused(table, few_colors, tmp_path):
    for options, match in (
        ({"monitor": "balanced-accuracy"}, "several classes"), ({"sampler": "balanced"}, "cannot balance")
    ):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            striate.train(table, model="lenet", out=str(tmp_path), **options)
    with pytest.raises(UsageError, match="images with several classes"):
        striate.train(few_colors, model="lenet", monitor="map", out=str(tmp_path))


def test_a_model_of_one_class_is_not_evaluated_on_several(run, table):
    with pytest.raises(DataError, match="the model predicts one"):
        striate.evaluate(run.best, table)
