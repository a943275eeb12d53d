"""predictions.csv and predictions.parquet."""

import csv
import dataclasses
import math
import sys

import numpy as np
import pytest
from random_evaluation import random_evaluation

from striate import cli
from striate.csv_file import unescaped
from striate.errors import UsageError
from striate.report.prediction_table import losses, write_predictions
from striate.tasks.classification.report import report


def predictions_of(classes, names=None, lost=()):
    record = random_evaluation(classes, n=40)
    chances = record.probabilities.copy()
    chances[list(lost)] = np.nan
    record = dataclasses.replace(record, probabilities=chances, names=names or record.names)
    return report(record, model="m").predictions


def test_rows_are_those_of_the_classifier(tmp_path):
    strange = ('a,"b"', "line\nbreak", "path")
    names = tuple(f"{i}, \x1b[31m.png" for i in range(40))
    found = predictions_of(strange, names, lost=(7,))
    assert write_predictions(tmp_path, found) == [tmp_path / "predictions.csv"]
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert [unescaped(cell) for cell in header] == [
        "path", "truth", "prediction", "correct", "loss", *(f"p_{name}" for name in strange),
    ]  # fmt: skip
    assert [unescaped(row[0]) for row in rows] == list(names)
    for i, row in enumerate(rows):
        truth, guess = strange[found.labels[i]], strange[found.predicted[i]] if i != 7 else ""
        assert [unescaped(cell) for cell in row[1:4]] == [truth, guess, str(int(truth == guess))]
        chances = [float(value) for value in row[5:]]
        assert np.allclose(chances, found.probabilities[i], atol=5e-7, equal_nan=True)
        if i != 7:
            assert math.isclose(
                float(row[4]), -math.log(found.probabilities[i, found.labels[i]]), rel_tol=1e-5
            )


def test_a_true_class_without_probability_has_an_infinite_loss():
    found = dataclasses.replace(
        predictions_of("ab"), labels=np.array([0, 1]), probabilities=np.array([[0.0, 1.0], [0.0, 1.0]])
    )
    assert losses(found).tolist() == [math.inf, 0.0]
    assert math.copysign(1, losses(found)[1]) == 1


def test_parquet_has_all_digits(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    found = predictions_of("abc", lost=(3,))
    write_predictions(tmp_path, found, parquet=True)
    table = parquet.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["path", "truth", "prediction", "correct", "loss", "p_a", "p_b", "p_c"]
    assert np.array_equal(table["p_b"].to_numpy(), found.probabilities[:, 1], equal_nan=True)
    assert table["path"].to_pylist() == list(found.paths)
    assert table["prediction"].to_pylist()[3] is None
    assert table["correct"].to_pylist() == (found.labels == found.predicted).tolist()


def test_parquet_without_pyarrow_is_refused_before_training(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.run(["train", "digits", "--parquet", "--out", str(tmp_path)]) == 2
    assert "--parquet: it needs pyarrow, which is not installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="needs pyarrow"):
        write_predictions(tmp_path, predictions_of("ab"), parquet=True)
