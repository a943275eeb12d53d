"""The section of a report about the data."""

import dataclasses

import numpy as np
from random_evaluation import random_evaluation

from striate.data import open_data
from striate.data.check import quick_check
from striate.metrics.label_errors import suspected_labels
from striate.sections import Table, Text
from striate.tasks.classification.data_report import data_section


def tables(section):
    return [block for block in section.blocks if isinstance(block, Table)]


def test_findings_with_their_files(few_colors, tmp_path):
    """Equal files in two classes, a small class and similar names, each with examples and advice."""
    for name in ("red", "blue", "Red "):
        (tmp_path / name).mkdir()
    for i in range(5):
        (tmp_path / "blue" / f"{i}.png").write_bytes((few_colors / "blue" / f"00{i}.png").read_bytes())
    (tmp_path / "red" / "x.png").write_bytes((few_colors / "blue" / "003.png").read_bytes())
    (tmp_path / "Red " / "y.png").write_bytes((few_colors / "red" / "001.png").read_bytes())
    record = random_evaluation("ab", n=10)
    findings, _ = tables(data_section(record, quick_check(open_data(tmp_path))))
    rows = {row[1]: row for row in findings.rows}
    copies = rows["The same image in two classes"]
    assert (copies[0], copies[2]) == ("serious", 1)
    assert set(copies[3].split(" = ")) == {"blue/3.png", "red/x.png"}
    assert "Classes whose names differ only by case, spaces or form" in rows
    assert rows["Classes with fewer than three images"][2] == 2


def test_data_without_findings_say_so():
    record = random_evaluation("ab", n=10)
    sure = np.eye(2)[record.labels]
    section = data_section(dataclasses.replace(record, probabilities=sure), ())
    assert [type(block) for block in section.blocks] == [Text, Text]
    assert "No suspected label errors" in section.blocks[1].text
    assert section.note.startswith("`striate check data`")


def test_suspected_label_errors_are_listed_by_their_files():
    record = random_evaluation("abcd", n=200)
    (table,) = tables(data_section(record))
    which, classes = suspected_labels(record.probabilities, record.labels)
    assert len(which) > 24
    first = table.rows[0]
    assert first[0] == record.names[which[0]]
    assert (first[1], first[3]) == (record.classes[record.labels[which[0]]], record.classes[classes[0]])
    assert first[4] == record.probabilities[which[0], classes[0]]
    assert len(table.rows) == 24
