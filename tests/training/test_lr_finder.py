"""The learning rate range test."""

import json

import numpy as np
import pytest

from striate import cli
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.task import Classification
from striate.training.lr_finder import LRSearch, find_lr, smoothed


def test_the_running_mean_is_corrected_for_its_start():
    assert smoothed([3.0] * 20) == pytest.approx([3.0] * 20)
    values = [1.0, 5.0, 2.0]
    weights = np.array([0.81, 0.9, 1.0])
    assert smoothed(values)[-1] == pytest.approx((weights * values).sum() / weights.sum())


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss(tmp_path):
    """A loss that falls as a logistic curve around 1e-3 and rises after 1e-1."""
    rates = np.geomspace(1e-6, 10, 141)
    exponent = np.log10(rates)
    losses = 1 / (1 + np.exp(4 * (exponent + 3))) + np.maximum(0, exponent + 1) * 5
    found = LRSearch(tmp_path, "x", rates, losses, losses)
    assert found.lowest == pytest.approx(0.1, rel=0.2)
    assert found.lr == found.lowest / 10


def test_the_search_ends_once_the_loss_rises(colors, tmp_path):
    config = ClassificationConfig(str(colors), model="lenet", batch=8, out=str(tmp_path), name="x")
    found = find_lr(Classification, config)
    assert found.lrs[0] == pytest.approx(1e-6)
    ratios = found.lrs[1:] / found.lrs[:-1]
    assert ratios == pytest.approx(np.full(len(ratios), ratios[0]))
    assert 10 < len(found.losses) <= 150
    assert found.losses[0] == pytest.approx(np.log(3), abs=0.4)  # random guesses among three classes
    assert 1e-5 < found.lr < 1
    assert found.smooth[-1] > found.smooth.min()
    assert found.folder == tmp_path / "x-lr"


def test_the_command_draws_the_curve(colors, tmp_path, capsys):
    arguments = ["train", str(colors), "--model", "lenet", "--find-lr", "--json", "--out", str(tmp_path)]
    assert cli.run(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lr.csv", "lr.png"]
    assert said["picture"] == str(folder / "lr.png")
    assert len((folder / "lr.csv").read_text().splitlines()) == len(said["losses"]) + 1
