"""The report page: complete, self-contained, and safe with any names."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_evaluation import random_evaluation

from striate.data import Problem
from striate.errors import DataError
from striate.report.page import render, write_report
from striate.sections import Card, Column, Picture, Report, Section, Table, Text
from striate.tasks.classification.report import report


def test_the_page_of_a_run(run):
    text = run.report.read_text("utf-8")
    assert text.count("data:image/png;base64,") >= 3
    assert f"{100 * run.evaluation.top1:.1f}\N{NO-BREAK SPACE}%" in text
    assert str(run.best) in text
    for heading in ("Training curves", "Augmented training batch", "Per-class metrics", "Configuration"):
        assert f"<h2>{heading}</h2>" in text
    assert "model: lenet" in text
    assert f"epochs, the best is {run.training.best_epoch}" in text
    for name in ("curves", "confusion", "calibration", "augmented"):
        with Image.open(run.training.folder / f"{name}.png") as image:
            assert min(image.size) > 100
            assert np.asarray(image.convert("L")).std() > 5  # something is drawn
    assert not re.search(r"(src|href)=\"(?!data:)", text)  # nothing is fetched
    assert "http" not in text


def test_hostile_and_foreign_names(tmp_path):
    names = ("<script>alert(1)</script>", "猫", "$x$ {{ 1 }}", "кошка")
    record = dataclasses.replace(
        random_evaluation(names),
        problems=(Problem("bad <b>.png", "it is <empty>"),),
        extra_classes={"&more": 3},
    )
    page = write_report(report(record, model="<i>m.safetensors"), tmp_path)
    text = page.read_text("utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "bad &lt;b&gt;.png" in text
    assert "&#39;&amp;more&#39;" in text
    assert "{{ 1 }}" in text
    assert "<i>m" not in text


def test_every_kind_of_block_and_its_text_is_escaped():
    table = Table(
        (Column("<name>"), Column("share", ".1%", bar_max=1.0), Column("n", ",d")),
        (("<x>", 0.256, 1234), ("y", None, 0), ("z", -0.1, 0)),
    )
    picture = Picture(np.zeros((4, 4, 1), np.uint8), alt='"<alt>', file="picture")
    section = Section("<h>", (Text("<text>", secondary=True), table, picture), "<note>")
    text, images = render(
        Report(
            "<title>", "<subtitle>", (section,), (Card(0.5, "<label>", ".1%", interval=(0.25, 0.75)),),
            ("<warning>", "<warning>"), ("striate <command>",), "key: <value>",
        )
    )  # fmt: skip
    for name in ("name", "x", "h", "text", "note", "title", "subtitle", "label", "command", "value"):
        assert f"<{name}>" not in text.replace("<title>&lt;title&gt;</title>", "")
        assert f"&lt;{name}&gt;" in text
    assert text.count("&lt;warning&gt;") == 1
    assert 'alt="&#34;&lt;alt&gt;"' in text
    assert '25.6\N{NO-BREAK SPACE}%<span class="bar"><i style="width: 25.6%">' in text
    assert '<i style="width: 0%">' in text  # a negative value has no bar
    assert '<td class="number">1,234</td>' in text
    assert '<td class="number">\N{EN DASH}</td>' in text
    assert "interval 25.0\N{NO-BREAK SPACE}% to 75.0\N{NO-BREAK SPACE}%" in text
    assert list(images) == ["picture"]
    assert images["picture"].startswith(b"\x89PNG")


def test_an_unwritable_folder_is_reported():
    with pytest.raises(DataError, match="cannot write"):
        write_report(report(random_evaluation("ab"), model="m"), Path(__file__) / "nowhere")
