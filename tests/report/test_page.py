"""The report page: complete, self-contained, and safe with any names."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_evaluation import random_evaluation

from striate.charts import Curves, Line, Panel, Picture
from striate.data import Problem
from striate.errors import DataError
from striate.report.page import render, write_report
from striate.sections import Card, Column, Estimate, Remark, Report, Section, Table, Text
from striate.tasks.classification.report import report


def payload(text):
    found = re.search(r'<script id="payload" type="application/json">(.*?)</script>', text, re.S).group(1)
    return json.loads(found, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_page_of_a_run(run):
    text = run.report.read_text("utf-8")
    assert f"{100 * run.evaluation.top1:.1f}\N{NO-BREAK SPACE}%" in text
    assert str(run.best) in text
    headings = re.findall(r"<h2><span data-t=[^>]*>(.*?)</span></h2>", text)
    assert headings == [
        "Errors", "Per-class metrics", "Calibration", "Training curves", "Augmented training batch",
        "Data", "Network", "Reproduce", "Commands", "Configuration",
    ]  # fmt: skip
    assert "model: lenet" in text
    assert f"epochs, the best is {run.training.best_epoch}" in text
    kinds = [block["kind"] for block in payload(text)["blocks"]]
    assert kinds == ["matrix", "gallery", "classes", "reliability", "curves"]
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)  # nothing is fetched
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    predicted = (run.training.folder / "predictions.csv").read_text("utf-8").splitlines()
    assert len(predicted) == run.evaluation.n + 1


def test_remarks_are_not_warnings():
    both = render(Report("a", "b", (), warnings=(Remark("one"), "two", Remark("one"))))
    assert '<p class="warning">two</p>' in both
    assert both.count("<p>one</p>") == 1
    assert both.index("two</p>") < both.index("one</p>")
    assert '<div class="notes" ' in both
    plain = render(Report("a", "b", (), warnings=(Remark("one"),)))
    assert 'class="warning"' not in plain
    assert '<div class="notes plain" ' in plain


def test_matplotlib_is_needed_only_for_figures(run, tmp_path, monkeypatch):
    for name in ("striate.report.figures", "striate.report.drawing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    content = run.training.task.report(run.training, run.evaluation)
    write_report(content, tmp_path, run.training)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "report.html"]
    with pytest.raises(ImportError):
        write_report(content, tmp_path, run.training, figures=True)


def test_figures_are_written_on_request(run, tmp_path):
    content = run.training.task.report(run.training, run.evaluation)
    write_report(content, tmp_path, run.training, figures=True)
    names = {"curves", "confusion", "calibration", "augmented"}
    assert {path.stem for path in tmp_path.glob("*.png")} - {"mistakes"} == names
    for name in names:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 100
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn


HOSTILE = (
    "</script><script>alert(1)</script>",
    "猫",
    "$x$ {{ 1 }}",
    "кошка\x00\x1b[31m",
    "<!--",
    "x" * 300,
    "\udcff",
)


def test_hostile_and_foreign_names(tmp_path):
    record = dataclasses.replace(
        random_evaluation(HOSTILE),
        problems=(Problem("bad <b>.png", "it is <empty>"),),
        extra_classes={"&more": 3},
    )
    page = write_report(report(record, model="<i>m.safetensors"), tmp_path)
    text = page.read_text("utf-8")
    assert text.count("<script") == 3  # the translations, the payload, the scripts
    assert "&lt;script&gt;" in text
    assert "<!--" not in text
    assert "bad &lt;b&gt;.png" in text
    assert "&#39;&amp;more&#39;" in text
    assert "{{ 1 }}" in text
    assert "<i>m" not in text
    assert payload(text)["predictions"]["classes"] == list(HOSTILE)


def test_every_kind_of_block_and_its_text_is_escaped():
    table = Table(
        (Column("<name>"), Column("share", ".1%", bar_max=1.0), Column("n", ",d")),
        (("<x>", 0.256, 1234), ("y", None, 0), ("z", -0.1, 0), ("e", Estimate(0.5, 0.25, 0.75), 1)),
    )
    picture = Picture(np.zeros((4, 4, 1), np.uint8), alt='"<alt>', file="picture")
    lines = Curves((1,), (Panel("<p>", (Line("<l>", (float("nan"),)),)),), 1, alt='"<alt>')
    section = Section("<h>", (Text("<text>", secondary=True), table, picture, lines), "<note>")
    text = render(
        Report(
            "<title>", "<subtitle>", (section,), (Card(0.5, "<label>", ".1%", interval=(0.25, 0.75)),),
            ("<warning>", "<warning>"), ("striate <command>",), "key: <value>",
        )
    )  # fmt: skip
    for name in ("name", "x", "h", "text", "note", "title", "subtitle", "label", "command", "value"):
        assert f"<{name}>" not in text.replace("<title>&lt;title&gt;</title>", "")
        assert f"&lt;{name}&gt;" in text
    assert text.count("&lt;warning&gt;") == 1
    assert text.count('="&#34;&lt;alt&gt;"') == 2
    assert '25.6\N{NO-BREAK SPACE}%<span class="bar-of" aria-hidden="true"><i style="width: 25.6%">' in text
    assert '<i style="width: 0%">' in text  # a negative value has no bar
    assert '<td class="number" data-v="1234">1,234</td>' in text
    assert '<td class="number" data-v="">\N{EN DASH}</td>' in text
    low, high = "25.0\N{NO-BREAK SPACE}%", "75.0\N{NO-BREAK SPACE}%"
    assert f"interval {low} to {high}" in text
    assert f'50.0\N{NO-BREAK SPACE}%<span class="ci">{low} – {high}</span>' in text
    assert payload(text)["blocks"][0]["panels"][0]["lines"][0]["y"] == [None]


def test_an_unwritable_folder_is_reported():
    with pytest.raises(DataError, match="cannot write"):
        write_report(report(random_evaluation("ab"), model="m"), Path(__file__) / "nowhere")
