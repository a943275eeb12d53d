"""The report page: complete, self-contained, and safe with any names."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from striate.data import Problem
from striate.inference.evaluation import measure
from striate.report import figures
from striate.report.page import write_report


def evaluation(names, n=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), n)
    images = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
    files = tuple(f"{i}.png" for i in range(n))
    chances = rng.dirichlet(np.ones(len(names)), n)
    return measure(files, labels, chances, tuple(names), images=images, data="data", split="test")


def test_the_page_of_a_run(run):
    text = run.report.read_text("utf-8")
    assert text.count("data:image/png;base64,") >= 3
    assert f"{100 * run.evaluation.top1:.1f}\N{NO-BREAK SPACE}%" in text
    assert str(run.best) in text
    for name in ("curves", "confusion", "calibration", "augmented"):
        with Image.open(run.training.folder / f"{name}.png") as image:
            assert min(image.size) > 100
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing is fetched
    assert "http" not in text


def test_hostile_and_foreign_names(tmp_path):
    names = ("<script>alert(1)</script>", "猫", "$x$ {{ 1 }}", "кошка")
    record = dataclasses.replace(
        evaluation(names), problems=(Problem("bad <b>.png", "it is <empty>"),), extra_classes={"&more": 3}
    )
    page = write_report(record, tmp_path, model="m.safetensors")
    text = page.read_text("utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "bad &lt;b&gt;.png" in text
    assert "&#39;&amp;more&#39;" in text
    assert "{{ 1 }}" in text


def test_no_mistakes_no_picture(tmp_path):
    record = evaluation("ab")
    perfect = dataclasses.replace(record, probabilities=np.eye(2)[record.labels])
    assert figures.worst_mistakes(perfect) is None
    assert "all 60 test images are right" in write_report(perfect, tmp_path, model="m").read_text("utf-8")


@pytest.mark.parametrize("classes", [2, 41])
def test_confusion_of_few_and_many_classes(classes):
    record = evaluation([f"class {i}" for i in range(classes)])
    axes = figures.confusion(record).axes[0]
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    expected = {tuple(map(int, c)): int(record.confusion[tuple(c)]) for c in np.argwhere(record.confusion)}
    assert shown == (expected if classes <= figures.MOST_CLASSES else {})


def test_the_worst_mistakes_come_first():
    record = evaluation("abc")
    figure = figures.worst_mistakes(record)
    confidence = record.probabilities.max(axis=1)
    wrong = np.flatnonzero(record.predicted != record.labels)
    worst = wrong[np.argmax(confidence[wrong])]
    title = figure.axes[0].get_title()
    said, true = "abc"[record.predicted[worst]], "abc"[record.labels[worst]]
    assert title == f"{said} {confidence[worst]:.0%}\nis {true}"


def test_pages_are_whole_or_not_there(tmp_path):
    with pytest.raises(Exception, match="cannot write"):
        write_report(evaluation("ab"), Path(__file__) / "nowhere", model="m")
    assert not list(tmp_path.iterdir())
