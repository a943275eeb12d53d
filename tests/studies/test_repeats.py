"""Cross-validation and repeated seeds: each image once, the mean of the runs, and resuming them."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from conftest import COLORS, Messages, crash_after, make_images
from exact_resume import outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from test_markup import Checker

import striate
from striate.cli import run as run_command
from striate.data import DataSet, Samples, SplitPlan, split
from striate.errors import BundleError, DataError, UsageError
from striate.inference.evaluation import evaluate
from striate.studies.repeats_report import labels as labels_of
from striate.studies.runs import StudyInterrupted, new_study

OPTIONS = {"model": "lenet", "epochs": 2, "batch": 8, "augment": "none", "name": "study"}


def dataset(images):
    """Images of (class, group) in two classes."""
    labels = np.array([label for label, _ in images], np.int64)
    names = tuple(f"/d/{label}/{i}.png" for i, label in enumerate(labels))
    groups = tuple(str(group) for _, group in images)
    return DataSet("/d", "/d", ("a", "b"), {"all": Samples(names, labels, groups=groups)})


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 15)), min_size=20, max_size=60),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_groups_never_cross_folds_and_every_image_is_in_one(images, folds, seed):
    data = dataset([(0, 90), (0, 91), (1, 92), (1, 93), *images])
    tested = []
    for fold in range(1, folds + 1):
        parts = split(data, SplitPlan(seed=seed, folds=folds, fold=fold)).splits
        found = [group for part in parts.values() for group in set(part.groups)]
        assert len(found) == len(set(found))
        assert sum(map(len, parts.values())) == len(data.splits["all"])
        tested += parts["test"].names
    assert sorted(tested) == sorted(data.splits["all"].names)


@settings(max_examples=25)
@given(st.lists(st.integers(2, 30), min_size=2, max_size=4), st.integers(2, 6), st.integers(0, 3))
def test_folds_without_groups_are_stratified(counts, folds, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"/d/{label}/{i}.png" for i, label in enumerate(labels))
    classes = tuple(map(str, range(len(counts))))
    data = DataSet("/d", "/d", classes, {"all": Samples(names, labels)})
    if len(labels) < folds:
        return
    table = np.array([
        np.bincount(
            split(data, SplitPlan(seed=seed, folds=folds, fold=fold)).splits["test"].labels,
            minlength=len(counts),
        )
        for fold in range(1, folds + 1)
    ])  # fmt: skip
    assert (table.sum(axis=0) == counts).all()
    assert (np.ptp(table, axis=0) <= 1).all()  # of each class
    assert np.ptp(table.sum(axis=1)) <= 1


def test_an_own_test_split_is_in_no_fold_and_too_few_images_are_refused():
    one = Samples(("/d/a/1", "/d/a/2", "/d/b/3", "/d/b/4"), np.array([0, 0, 1, 1]))
    two = Samples(("/d/a/5", "/d/b/6"), np.array([0, 1]))
    data = DataSet("/d", "/d", ("a", "b"), {"train": one, "val": two, "test": two})
    found = split(data, SplitPlan(folds=2, fold=2))
    assert sum(map(len, found.splits.values())) == 6
    assert found.notes[-1].startswith("the test split of the data (2 images) is in no fold")
    with pytest.raises(DataError, match=r"has only 6 images\. Use --folds 6"):
        split(data, SplitPlan(folds=7))
    with pytest.raises(DataError, match="all images of class 'b' would be in one fold"):
        split(DataSet("/d", "/d", ("a", "b"), {"all": one.take(np.arange(3))}), SplitPlan(folds=2))


@pytest.fixture(scope="module")
def folded(few_colors, tmp_path_factory):
    """A cross-validation with three folds."""
    out = tmp_path_factory.mktemp("folds")
    return striate.train(few_colors, folds=3, out=str(out), **OPTIONS), out


def test_out_of_fold_accuracy_is_that_of_the_folds(folded, few_colors):
    found, _ = folded
    assert [(run.fold, run.seed, run.n) for run in found.runs] == [(1, 0, 12), (2, 0, 12), (3, 0, 12)]
    top1 = [run.metrics["top1"] for run in found.runs]
    assert found.mean["top1"] == pytest.approx(np.mean(top1))
    assert found.pooled.n == 36
    assert found.pooled.top1 == pytest.approx(np.mean(top1))  # folds of the same size
    assert sorted(found.pooled.names) == sorted(map(str, few_colors.glob("*/*.png")))
    with (found.folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for run in found.runs:
        own = [row for row in rows if row["fold"] == str(run.fold)]
        assert np.mean([row["correct"] == "1" for row in own]) == pytest.approx(run.metrics["top1"])
        with (run.folder / "predictions.csv").open() as file:
            assert [r["p_red"] for r in csv.DictReader(file)] == [r["p_red"] for r in own]
        assert evaluate(run.folder).top1 == run.metrics["top1"]
    low, high = found.interval["top1"]
    assert low <= found.mean["top1"] <= high or found.std["top1"] == 0
    assert (found.pooled.images[13] == found.runs[1].evaluation.images[1]).all()
    assert found.test_to_train == pytest.approx(36 / sum(run.trained_on for run in found.runs))


def test_a_notebook_shows_the_mean_and_every_run(folded):
    found, _ = folded
    words = "".join(Checker(found._repr_html_()).text)
    for text in ("fold-1", "fold-3", f"{found.mean['top1']:.4f}", found.method):
        assert text in words
    assert f"3 runs, mean top1 {found.mean['top1']:.4f}" in repr(found)


def test_the_page_shows_every_run(folded):
    with pytest.raises(BundleError, match=r"it contains several runs\. Give one of them, such as .*fold-1"):
        striate.load(folded[0].folder)
    page = folded[0].report.read_text()
    for text in (
        "fold-1",
        "fold-3",
        "Mean of all runs",
        "Nadeau and Bengio",
        "out-of-fold images",
        ">test images<",
    ):
        assert text in page


def test_a_killed_cross_validation_ends_like_a_whole_one(folded, few_colors, tmp_path):
    whole, _ = folded
    with crash_after(5):
        striate.train(few_colors, folds=3, out=str(tmp_path), **OPTIONS)
    shutil.copytree(whole.folder / "fold-1", tmp_path / "study" / "fold-1", dirs_exist_ok=True)
    (tmp_path / "study" / "fold-2").mkdir()  # killed before its first checkpoint
    messages = Messages()
    found = striate.resume(tmp_path / "study", messages)
    assert any("fold-1 is finished" in text for text in messages.infos)
    for run, other in zip(found.runs, whole.runs, strict=True):
        assert outcome(run.folder) == outcome(other.folder)
    assert found.mean == whole.mean
    assert (found.folder / "predictions.csv").read_text() == (whole.folder / "predictions.csv").read_text()
    with pytest.raises(UsageError, match="with --epochs: it has several runs"):
        striate.resume(found.folder, epochs=4)


@pytest.mark.slow
def test_seeds_have_their_own_runs_and_the_same_test_split_needs_no_correction(tmp_path, capsys):
    for part in ("train", "val", "test"):
        for name in ("red", "blue"):
            make_images(tmp_path / "data" / part / name, 4, COLORS[name])
    options = ["--model", "lenet", "--epochs", "1", "--batch", "4", "--out", str(tmp_path / "out"), "--json"]
    assert run_command(["train", str(tmp_path / "data"), "--seeds", "2", "--seed", "5", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["seeds"], found["folds"], found["out_of_fold"]) == ([5, 6], 0, None)
    assert found["interval_method"] == "Student's t over 2 runs"
    assert found["run"].endswith("data-lenet-2-seeds")
    top1 = [run["top1"] for run in found["runs"]]
    assert found["mean"]["top1"] == pytest.approx(np.mean(top1))
    assert run_command(["resume", found["run"], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["mean"] == found["mean"]
    one = striate.train(tmp_path / "data", model="lenet", epochs=1, batch=4, seed=6, out=str(tmp_path))
    assert outcome(one.training.folder) == outcome(tmp_path / "out" / "data-lenet-2-seeds" / "seed-6")


@pytest.mark.parametrize("has_runs", [False, True])
def test_only_a_study_without_runs_is_removed(tmp_path, has_runs):
    (tmp_path / "study" / ("fold-1" if has_runs else "")).mkdir(parents=True)
    (tmp_path / "study" / "config.yaml").touch()
    with pytest.raises(UsageError), new_study(tmp_path / "study"):
        raise UsageError("what", "why", "fix")
    assert (tmp_path / "study" / "config.yaml").exists() == has_runs


def test_a_signal_names_the_study(few_colors, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("striate.training.run.train", interrupted)
    with pytest.raises(StudyInterrupted) as caught:
        striate.train(few_colors, seeds=2, out=str(tmp_path), **OPTIONS)
    assert caught.value.folder == tmp_path / "study"

    launched = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    before = sorted(tmp_path.rglob("*"))
    for several in ({"seeds": 2}, {"folds": 3}):
        with pytest.raises(UsageError, match=r"in 2 processes .* only a single run can be shared"):
            striate.train(few_colors, out=str(tmp_path), **several, **OPTIONS)
    with pytest.raises(UsageError, match="in 2 processes"):
        striate.resume(tmp_path / "study")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="WORLD_SIZE=two: it must be a whole number"):
        striate.train(few_colors, seeds=2, out=str(tmp_path), **OPTIONS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_seeds_of_sequence_to_sequence(tmp_path):
    pairs = "".join(f"{a} {b}\t{b} {a}\n" for a in "abcdef" for b in "ghijkl")
    (tmp_path / "pairs.tsv").write_text(pairs)
    found = striate.train(
        tmp_path / "pairs.tsv", task="seq2seq", seeds=2, epochs=1, width=8, depth=1, heads=1, hidden=8,
        batch=256, average=0, samples=0, out=str(tmp_path),
    )  # fmt: skip
    assert [run.seed for run in found.runs] == [0, 1]
    assert not math.isnan(found.mean["chrf"])
    assert found.pooled is None
    assert "Mean of all runs" in found.report.read_text()


def test_odd_numbers_of_folds_are_refused(few_colors, tmp_path):
    with pytest.raises(UsageError, match="--folds 1: it must be from 2 to 100"):
        striate.train(few_colors, folds=1, out=str(tmp_path))


@pytest.mark.slow
def test_studies_of_images_with_several_classes(few_colors, tmp_path):
    paths = sorted(few_colors.glob("*/*.png"))
    labels = [f"{path.parent.name};{'even' if i % 2 else 'odd'}" for i, path in enumerate(paths)]
    rows = "".join(f"{path},{label}\n" for path, label in zip(paths, labels, strict=True))
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}")
    options = {"multi_label": True, "model": "lenet", "epochs": 1, "batch": 8, "out": str(tmp_path)}
    found = striate.train(tmp_path / "t.csv", folds=3, **options)
    assert sum(run.n for run in found.runs) == 36
    assert found.pooled is None
    names = list(found.runs[0].metrics)
    assert found.mean[names[0]] == pytest.approx(np.mean([run.metrics[names[0]] for run in found.runs]))
    assert [label for label, _ in labels_of(found).values()] == ["mAP", "micro F1", "macro F1", "exact match"]
    assert all(0 <= low < high <= 1 for low, high in found.interval.values()), "they are fractions"
    search = striate.tune(tmp_path / "t.csv", trials=3, **options)
    assert search.plan.monitor != "top1"
    assert search.best.value >= search.default.value
    assert search.report.is_file()
