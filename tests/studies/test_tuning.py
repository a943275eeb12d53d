"""`striate tune`: the same trials after a restart, the best one as a command and a config.yaml."""

import csv
import dataclasses
import json
import shlex
import shutil

import pytest
from conftest import Messages, crash_after
from exact_resume import outcome
from test_markup import Checker

import striate
from striate import api
from striate.cli import run as run_command
from striate.errors import DataError, UsageError
from striate.studies.tuning_report import best_command, warnings

OPTIONS = {"model": "lenet", "epochs": 3, "batch": 8, "name": "search"}


@pytest.fixture(scope="module")
def found(few_colors, tmp_path_factory):
    """A search with four trials."""
    return striate.tune(few_colors, trials=4, out=str(tmp_path_factory.mktemp("tune")), **OPTIONS)


def rows(folder):
    with (folder / "trials.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_notebook_shows_the_trials(found):
    checked = Checker(found._repr_html_())
    assert "top-1 accuracy" in "".join(checked.text)
    for trial in found.trials:
        assert f"{trial.value:.4f}" in "".join(checked.text)
    assert repr(found).endswith(f"{len(found.trials)} trials, best options {found.best.options})")


def test_trials_are_halved_and_the_best_whole_run_is_chosen(found):
    table = rows(found.folder)
    assert (table[0]["trial"], table[0]["epochs"], table[0]["lr"]) == ("0", "3", "")
    by_rung = [[int(row["trial"]) for row in table if row["rung"] == rung] for rung in "01"]
    assert by_rung[0] == [1, 2, 3, 4]
    assert by_rung[1][0] == 0
    assert len(by_rung[1]) >= 2  # the defaults, and a third of the others
    whole = [row for row in table if row["rung"] == "1"]
    assert float(found.best.score) == max(float(row["score"]) for row in whole)
    assert found.is_better == (float(whole[0]["score"]) < found.best.score)
    page = found.report.read_text("utf-8")
    for trial in found.trials:
        assert f"{trial.value:.1%}".replace("%", "\N{NO-BREAK SPACE}%") in page
        assert f"{trial.value:.4f}" not in page
    value = found.evaluations[0].top1
    assert striate.evaluate(found.model).top1 == value
    with (found.model.parent / "results.csv").open() as file:
        assert max(float(row["val_top1"]) for row in csv.DictReader(file)) == found.best.value


def test_a_gain_that_the_test_images_do_not_show_is_a_warning(found):
    best, _ = found.evaluations
    better = dataclasses.replace(found, best=dataclasses.replace(found.trials[-1], trial=4))
    high, low = (dataclasses.replace(best, metrics={**best.metrics, "top1": value}) for value in (0.9, 0.5))
    assert warnings(dataclasses.replace(better, evaluations=(high, low))) == ()
    (text,) = warnings(dataclasses.replace(better, evaluations=(low, high)))
    assert text.endswith("but not on the test images: the difference may be chance.")
    (text,) = warnings(dataclasses.replace(found, best=found.default))
    assert text == "No trial is better than the default options on the validation images."


def test_only_the_weights_that_are_needed_stay(found):
    kept = {path.parent.name for path in found.folder.glob("*/best.safetensors")}
    assert kept == {found.best.name, "trial-000-3-epochs"}
    assert (found.folder / "trial-001-1-epochs" / "results.csv").is_file()


@pytest.mark.slow
def test_the_command_and_config_yaml_train_the_best_run_again(found, tmp_path, few_colors):
    words = shlex.split(best_command(found))
    assert words[:2] == ["striate", "train"]
    assert run_command([*words[1:], "--out", str(tmp_path), "--name", "a", "--json"]) == 0
    again = striate.train(config=found.folder, out=str(tmp_path), name="b")
    own = outcome(found.folder / found.best.name)
    assert outcome(again.training.folder) == own
    assert outcome(tmp_path / "a") == own


def test_a_killed_search_goes_on_with_the_same_trials(found, few_colors, tmp_path):
    with crash_after(9):  # in the whole run with the defaults
        striate.tune(few_colors, trials=4, out=str(tmp_path), **OPTIONS)
    folder = tmp_path / "search"
    assert not (folder / "trials.csv").exists()
    for trial in found.trials[1:4]:  # as if it had been killed later: what is recorded is not trained again
        shutil.copytree(found.folder / trial.name, folder / trial.name)
    lines = (found.folder / "trials.csv").read_text().splitlines(keepends=True)
    (folder / "trials.csv").write_text("".join(lines[:5]))
    shutil.rmtree(folder / "trial-000-3-epochs")
    shutil.copytree(found.folder / "trial-000-3-epochs", folder / "trial-000-3-epochs")
    again = striate.resume(folder)
    assert rows(folder) == rows(found.folder)
    assert again.chosen.to_json() == {**found.chosen.to_json(), "out": str(tmp_path)}
    with pytest.raises(UsageError, match="Only --budget gives it a new end"):
        striate.resume(folder, epochs=9)
    (folder / "tune.json").write_text("{}")
    with pytest.raises(DataError, match="Restore it"):
        striate.resume(folder)


@pytest.mark.slow
def test_a_budget_ends_the_search_and_defaults_that_are_not_beaten_are_reported(
    few_colors, tmp_path, capsys, monkeypatch
):
    finished, finish = [], api.finish
    monkeypatch.setattr(api, "finish", lambda run: finished.append(run.folder) or finish(run))
    out = ["--out", str(tmp_path), "--name", "search"]
    words = ["tune", str(few_colors), "--model", "lenet", "--batch", "8", "--budget", "0.01s", *out, "--json"]
    assert run_command(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [trial["trial"] for trial in found["trials"]] == [0]
    assert (found["is_better"], found["options"], found["epochs"]) == (False, {}, 3)
    assert found["value"] == found["default"]
    assert len(finished) == 1, "one evaluation is that of the best run and of the defaults"
    page = (tmp_path / "search" / "report.html").read_text()
    assert "No trial is better than the default options" in page
    assert run_command(["resume", str(tmp_path / "search"), "--budget", "2s"]) == 0
    printed = capsys.readouterr().out
    assert "next    striate train" in printed
    assert len(rows(tmp_path / "search")) > 1


@pytest.mark.parametrize("options", [{"folds": 3}, {"seeds": 2}, {"trials": 2}])
def test_a_study_that_cannot_begin_leaves_nothing(few_colors, tmp_path, options):
    start = striate.tune if "trials" in options else striate.train
    messages = Messages()
    with pytest.raises(DataError, match="no such file or folder"):
        start(tmp_path / "absent", out=str(tmp_path / "runs"), progress=messages, **options, **OPTIONS)
    assert not [line for line in messages.infos if "one epoch" in line]
    with pytest.raises(UsageError, match="unknown device"):
        start(few_colors, out=str(tmp_path / "runs"), device="gpux", **options, **OPTIONS)
    assert not list((tmp_path / "runs").iterdir())


def test_searches_without_an_end_or_a_choice_are_refused(few_colors, tmp_path):
    every = {"lr": 0.1, "weight_decay": 0.1, "augment": "none", "transfer": "all"}
    with pytest.raises(UsageError, match="nothing to search"):
        striate.tune(few_colors, trials=2, out=str(tmp_path), model="lenet", **every)
    with pytest.raises(UsageError, match="tune with --folds"):
        striate.tune(few_colors, trials=2, out=str(tmp_path), folds=3)
