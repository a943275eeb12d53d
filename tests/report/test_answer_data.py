"""What a page contains of the answers of a model of sequences."""

import csv

import numpy as np
import pytest

from striate.charts import Answers
from striate.report import answer_data
from striate.report.answer_data import pack
from striate.report.prediction_table import write_answers


class Lines:
    """Images that remember which ones were read."""

    def __init__(self):
        self.read = []

    def __getitem__(self, i):
        self.read.append(i)
        return np.zeros((8, 8 * (i + 1), 1), np.uint8)


def answers(**changes):
    rates = np.array([0.0, 1.0, 0.5, 0.0])
    references = (("ab",), ("b", "bb"), ("cd",), ("\udcff",))
    return Answers(("a", "b", "c", "d"), references, ("ab", "x", "cx", "\udcff"), rates, alt="", **changes)


def test_the_worst_answers_come_first():
    packed = pack(answers())
    assert [row[0] for row in packed["rows"]] == ["b", "c", "a", "d"]
    assert packed["rows"][0] == ["b", "x", ["b", "bb"], 1.0]
    assert (packed["count"], packed["wrong"], packed["images"], packed["base"]) == (4, 2, [], None)


def test_texts_and_images_have_limits(monkeypatch):
    monkeypatch.setattr(answer_data, "TEXT_BYTES", 60)
    monkeypatch.setattr(answer_data, "MAX_IMAGES", 1)
    lines = Lines()
    packed = pack(answers(images=lines, are_files=True), base="../")
    assert 1 <= len(packed["rows"]) < 4
    assert (len(packed["images"]), lines.read, packed["base"]) == (1, [1], "../")
    whole = pack(answers(images=Lines()), full=True)
    assert (len(whole["rows"]), len(whole["images"])) == (4, 4)


def test_the_table_of_answers(tmp_path):
    write_answers(tmp_path, answers())
    with (tmp_path / "predictions.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[:3] == [
        ["source", "truth", "prediction", "correct", "cer"],
        ["a", "ab", "ab", "1", "0.0"],
        ["b", "b | bb", "x", "0", "1.0"],
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    write_answers(tmp_path, answers(), parquet=True)
    table = parquet.read_table(tmp_path / "predictions.parquet")
    assert table["cer"].to_pylist() == [0.0, 1.0, 0.5, 0.0]
