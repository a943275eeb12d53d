"""`striate compare`: two models on the same images, and a leaderboard with the spread of seeds."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch

import striate
from striate import bundle, cli
from striate.errors import UsageError
from striate.report.compare_page import overlaid
from striate.report.messages import phrase_of
from striate.sections import Phrase


@pytest.fixture(scope="module")
def other(run, tmp_path_factory):
    """The run's network with a biased last layer, and with its classes in another order."""
    description, state = bundle.read(run.best)
    last = [name for name in state if name.endswith("bias")][-1]
    weight = last.replace("bias", "weight")
    order = [2, 0, 1]
    state[last] = state[last][order] + torch.tensor([8.0, 0.0, 0.0])
    state[weight] = state[weight][order]
    classes = tuple(description.classes[i] for i in order)
    path = tmp_path_factory.mktemp("other") / "biased.safetensors"
    bundle.write(path, state, dataclasses.replace(description, classes=classes, calibration=None))
    return path


def test_two_models(run, other, colors, tmp_path, capfd):
    argv = ["compare", str(run.training.folder), str(other), "--data", str(colors), "--split", "all"]
    assert cli.run([*argv, "--json", "--out", str(tmp_path / "page")]) == 0
    result = json.loads(capfd.readouterr().out)
    a, b = (striate.evaluate(m, colors, split="all") for m in (run.best, other))
    # Only the first is split as in training, so the images have another order.
    answers = [dict(zip(e.names, (e.classes[i] for i in e.predicted), strict=True)) for e in (a, b)]
    names = [[answer[name] for name in a.names] for answer in answers]
    truth = [a.classes[i] for i in a.labels]
    lost = sum(x == t != y for x, y, t in zip(*names, truth, strict=True))
    gained = sum(y == t != x for x, y, t in zip(*names, truth, strict=True))
    (pair,) = result["pairs"]
    assert result["n"] == a.n
    assert (pair["only_first"], pair["only_second"]) == (lost, gained)
    assert pair["difference"] == pytest.approx(b.top1 - a.top1)
    low, high = pair["difference_ci"]
    assert low <= pair["difference"] <= high
    assert len(pair["changed"]) == sum(x != y for x, y in zip(*names, strict=True)) > 0
    changed = {c["path"]: (c["first"], c["second"]) for c in pair["changed"]}
    for i, name in enumerate(a.names):
        assert changed.get(name, (names[0][i],) * 2) == (names[0][i], names[1][i])
    for row, e in zip(result["models"], (a, b), strict=True):
        assert (row["top1"], row["ece"]) == pytest.approx((e.top1, e.ece))
        assert row["params"] == sum(p.numel() for p in striate.load(run.best).network.parameters())
        assert row["macs"] > 0 < row["ms"]
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "McNemar" in page
    assert "Images with another prediction" in page
    first = pair["changed"][0]
    assert f">{first['first']} → {first['second']}</span>" in page
    assert page.count('<img alt=""') == min(24, len(pair["changed"]))
    assert cli.run(argv) == 0
    out = capfd.readouterr().out
    assert "points (95 % interval" in out
    assert "p = " in out


def test_the_curves_of_runs_of_the_same_name_in_two_folders(run, tmp_path):
    models = {}
    for folder in ("a", "b"):
        shutil.copytree(run.training.folder, tmp_path / folder / "x")
        models[f"{folder}/x"] = tmp_path / folder / "x"
    table = tmp_path / "b" / "x" / "results.csv"
    header, *rows = table.read_text("utf-8").splitlines()
    table.write_text("\n".join([header, *rows[:-1]]) + "\n", "utf-8")
    curves = overlaid(models)
    epochs = len(rows)
    assert curves.epochs == tuple(range(1, epochs + 1))
    for panel in curves.panels:
        assert [line.label for line in panel.lines] == ["a/x", "b/x"]
        assert [np.isfinite(line.values).sum() for line in panel.lines] == [epochs, epochs - 1]


def test_the_same_model_twice(run, capfd):
    assert cli.run(["compare", str(run.training.folder), str(run.best), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    shown = repr(striate.compare(run.best, run.best))
    top1 = f"{run.best} top-1 {100 * run.evaluation.top1:.2f} %"
    assert shown == f"ModelComparison({top1}, {top1}; {run.evaluation.n} test images of {result['data']!r})"
    (pair,) = result["pairs"]
    assert (pair["difference"], pair["p"], pair["changed"]) == (0.0, 1.0, [])
    assert result["n"] == run.evaluation.n


def test_a_leaderboard_groups_seeds(run, tmp_path, capfd):
    for name, seed, model, top1 in [("a", 0, "lenet", 0.8), ("b", 1, "lenet", 0.9), ("c", 0, "lenet5", 0.95)]:
        folder = shutil.copytree(run.training.folder, tmp_path / "runs" / name)
        text = (folder / "config.yaml").read_text("utf-8")
        text = text.replace("seed: 0", f"seed: {seed}").replace("model: lenet", f"model: {model}")
        (folder / "config.yaml").write_text(text, "utf-8")
        bundle.add_metrics(folder / "best.safetensors", {"test": {"top1": top1, "top1_ci": [0.5, 1.0]}})
    (tmp_path / "runs" / "empty").mkdir()
    folder = shutil.copytree(run.training.folder, tmp_path / "runs" / "labels")  # several classes per image
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text("utf-8").replace("lenet", "vgg11"))
    bundle.add_metrics(folder / "best.safetensors", {"test": {"map": 0.7, "micro_f1": 0.6, "exact": 0.2}})
    out = tmp_path / "page"
    assert cli.run(["compare", str(tmp_path / "runs"), "--json", "--out", str(out)]) == 0
    first, second, third = json.loads(capfd.readouterr().out)["leaderboard"]
    assert (third["runs"], third["metric"], third["mean"]) == (["labels"], "map", 0.7)
    assert (first["runs"], first["mean"], first["sd"]) == (["c"], 0.95, None)
    assert second["runs"] == ["a", "b"]
    assert second["mean"] == pytest.approx(0.85)
    assert second["sd"] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert "Leaderboard" in (out / "report.html").read_text("utf-8")
    assert cli.run(["compare", str(tmp_path / "runs")]) == 0
    assert "± 7.07 % (95 % interval 21.47 % to 100.00 %)  lenet  a, b (2 seeds)" in capfd.readouterr().out


def test_a_leaderboard_ranks_only_what_can_be_compared(run, colors, tmp_path, capfd):
    def add(name, top1, metric="top1", **options):
        folder = shutil.copytree(run.training.folder, tmp_path / "runs" / name)
        text = (folder / "config.yaml").read_text("utf-8")
        for option, value in options.items():
            text = re.sub(rf"(?m)^{option}: .*$", f"{option}: {value}", text)
        (folder / "config.yaml").write_text(text, "utf-8")
        found = {metric: top1, f"{metric}_ci": [0.1, 0.9], "n": 10}
        bundle.add_metrics(folder / "best.safetensors", {"test": found})

    add("a", 0.5)
    add("copy", 0.5)
    add("pets", 0.99, data="/data/pets", seed="damaged")
    add("labels", 0.9, metric="map")
    for study, options in (("cv", {"folds": 2}), ("sd", {"seeds": 2})):
        for i, top1 in enumerate((0.6, 0.8) if study == "cv" else (0.7, 0.7)):
            own = {"folds": 2, "fold": i + 1} if study == "cv" else {"seed": i}
            add(f"{study}/run-{i}", top1, **own)
        shutil.copy(tmp_path / "runs" / "a" / "config.yaml", tmp_path / "runs" / study)
        config = tmp_path / "runs" / study / "config.yaml"
        name, value = next(iter(options.items()))
        config.write_text(
            re.sub(rf"(?m)^{name}: .*$", f"{name}: {value}", config.read_text("utf-8")), "utf-8"
        )
    for name in ("new", "search", "sd/run-2"):
        (tmp_path / "runs" / name).mkdir()
        shutil.copy(tmp_path / "runs" / "a" / "config.yaml", tmp_path / "runs" / name)
    (tmp_path / "runs" / "search" / "tune.json").write_text("{}")
    assert cli.run(["compare", str(tmp_path / "runs"), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    rows = [(row["dataset"], row["metric"], row["study"], row["mean"]) for row in result["leaderboard"]]
    assert rows == [
        ("pets", "top1", None, 0.99), (colors.name, "top1", "cv", pytest.approx(0.7)),
        (colors.name, "top1", "sd", 0.7), (colors.name, "top1", None, 0.5), (colors.name, "map", None, 0.9),
    ]  # fmt: skip
    _, cv, sd, single, _ = result["leaderboard"]
    assert (single["runs"], single["sd"], single["interval"]) == (["a", "copy"], None, [0.1, 0.9])
    assert (sd["sd"], sd["interval"]) == (0.0, None)  # equal runs say nothing about an interval
    trained = bundle.describe(run.best).provenance["training_images"]
    half = 12.706 * np.std([0.6, 0.8], ddof=1) * np.sqrt(1 / 2 + 10 / trained)  # Nadeau and Bengio 2003
    assert cv["interval"] == pytest.approx([max(0, 0.7 - half), min(1, 0.7 + half)], abs=1e-4)
    search = tmp_path / "runs" / "search"
    assert sorted(result["notes"]) == [
        "new is not ranked: it has no bundle with metrics",
        "sd: runs without metrics are left out (1)",
        f"search is not ranked: it is a search; `striate compare {search}` ranks its trials",
    ]
    assert all(isinstance(phrase_of(note), Phrase) for note in result["notes"]), "the page is also in Chinese"
    assert cli.run(["compare", str(tmp_path / "runs" / "sd"), str(tmp_path / "runs" / "cv")]) == 0
    out = capfd.readouterr().out
    assert "70.00 ± 14.14 % (95 % interval" in out
    assert "cv (2 folds)" in out
    assert "70.00 ± 0.00 %  lenet" in out
    assert cli.run(["compare", str(tmp_path / "runs" / "cv")]) == 0
    assert "cv (2 folds)" in capfd.readouterr().out


def test_mistakes(run, tmp_path, capfd):
    with pytest.raises(UsageError, match="nothing to compare it with"):
        striate.compare(run.best)
    (tmp_path / "runs").mkdir()
    assert cli.run(["compare", str(tmp_path / "runs")]) == 3
    assert "it has no finished runs" in capfd.readouterr().err
