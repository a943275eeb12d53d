"""The table of suspected labels: its order, and that `--exclude` takes it."""

import csv

import numpy as np
from conftest import Messages

import striate
from striate.inference.evaluation import measure
from striate.studies.label_errors import NAME, write_label_errors


def test_swapped_labels_come_first_and_can_be_excluded(colors, tmp_path):
    names = tuple(sorted(map(str, colors.rglob("*.png"))))
    classes = ("blue", "green", "red")
    truth = np.array([next(k for k, c in enumerate(classes) if f"/{c}/" in name) for name in names])
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(3), len(names)) * 0.05 + 0.95 * np.eye(3)[truth]
    labels = truth.copy()
    swapped = rng.permutation(len(names))[:6]
    labels[swapped] = (labels[swapped] + 1) % 3
    images = np.zeros((len(names), 2, 2, 3), np.uint8)
    found = measure(names, labels, chances, classes, images=images, data="colors", split="out-of-fold")
    assert write_label_errors(tmp_path, found) == ""
    with (tmp_path / NAME).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows[:6]} == {names[i] for i in swapped}
    assert {row["kind"] for row in rows} == {"label-error"}
    for row in rows[:6]:
        assert (row["class"], row["suggested"]) == tuple(
            classes[k[names.index(row["path"])]] for k in (labels, truth)
        )
    own = [float(row["label_probability"]) for row in rows]
    assert own == sorted(own)
    run = striate.train(
        colors, model="lenet", epochs=1, out=str(tmp_path / "runs"), exclude=str(tmp_path / NAME)
    )
    with (run.training.folder / "excluded.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_a_warning_if_most_suspected_labels_are_errors_of_the_model(few_colors, tmp_path):
    messages = Messages()
    options = {"model": "lenet", "epochs": 1, "batch": 64, "lr": 1e-5, "progress": messages}
    found = striate.train(few_colors, folds=2, out=str(tmp_path), **options)
    with (found.folder / NAME).open(newline="", encoding="utf-8") as file:
        count = len(list(csv.DictReader(file)))
    assert count > 0.1 * found.pooled.n
    says = f"the labels of {count} of 36 images are suspected"
    assert any(says in line for line in messages.warnings)
    striate.train(few_colors, out=str(tmp_path), exclude=str(found.folder / NAME), **options)
    assert sum(says in line for line in messages.warnings) == 2
