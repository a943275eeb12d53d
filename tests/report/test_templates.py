"""All pages share one template: they fit a phone, and numbers look the same everywhere."""

import json

import numpy as np
import pytest
from browser import horizontal_overflow, needs_chromium
from PIL import Image

from striate import cli, sections
from striate.anatomy import trace
from striate.data.check import check
from striate.report import anatomy_page, check_page, page
from striate.report.templates import number

LONG = "a_name_without_any_space_" * 6


def run_page(run, tmp_path):
    return run.report.read_text("utf-8")


def seq2seq_page(run, tmp_path):
    tokens = tuple("abcdefghij" * 4)
    attention = sections.AttentionMap(tokens, tokens, np.eye(40), alt="")
    columns = tuple(map(sections.Column, ("source", "answer", "reference")))
    table = sections.Table(columns, ((LONG, LONG, LONG), ("a " * 99, "b " * 99, "c " * 99)))
    found = (sections.Section("Attention", (attention, attention)), sections.Section("Answers", (table,)))
    return page.render(sections.Report(LONG, LONG, found, warnings=(LONG,), commands=(LONG,), config=LONG))[0]


def detection_page(run, tmp_path):
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [9 * i, 9, 8, 8], "area": 64, "iscrowd": 0}
            for i in range(1, 13)
        ],
        "categories": [{"id": i, "name": f"{LONG}{i}"} for i in range(1, 13)],
    }
    found = [
        {"image_id": 1, "category_id": i, "bbox": [9 * i, 9, 8, 8], "score": 0.05 * i} for i in range(1, 13)
    ]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(found))
    files = [str(tmp_path / name) for name in ("gt.json", "dt.json")]
    assert cli.run(["detection", *files, "--out", str(tmp_path), "--bootstrap", "20"]) == 0
    return (tmp_path / "report.html").read_text("utf-8")


def checked_page(run, tmp_path):
    for name in ("one", LONG):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (90, 60), (80 * i, 9, 9)).save(tmp_path / "data" / name / f"{LONG}{i}.png")
    (tmp_path / "data" / "one" / f"{LONG}.png").write_bytes(b"")
    return check_page.render(check(tmp_path / "data"))


def page_of_a_network(run, tmp_path):
    return anatomy_page.render(trace("mobilenet_v3_small"))


@needs_chromium
@pytest.mark.parametrize("make", [run_page, seq2seq_page, detection_page, checked_page, page_of_a_network])
def test_pages_do_not_scroll_sideways_on_a_phone(run, tmp_path, make):
    text = make(run, tmp_path)
    assert "prefers-color-scheme: dark" in text
    assert horizontal_overflow(tmp_path, text, 360) == 0


def test_numbers_for_readers():
    assert number(None, ".3f") == "\N{EN DASH}"
    assert number("text", ".3f") == "text"
    assert number(0.1234, ".1%") == "12.3\N{NO-BREAK SPACE}%"
    assert number(12345, ",d") == "12,345"
