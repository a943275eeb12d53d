"""`striate resume` and `striate train --resume`."""

import json
import shutil

import pytest

from striate import cli


@pytest.fixture
def finished(run, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(run.training.folder, tmp_path / "colors")


def test_a_finished_run_says_so(finished, capsys):
    assert cli.run(["resume", str(finished)]) == 0
    assert "is finished: 3 epochs; best epoch " in capsys.readouterr().out
    assert cli.run(["resume", str(finished), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["finished"], result["epochs"]) == (True, 3)


def test_a_missing_report_is_written(finished, capsys):
    (finished / "report.html").unlink()
    assert cli.run(["resume", str(finished), "--json"]) == 0
    assert (finished / "report.html").exists()
    assert json.loads(capsys.readouterr().out)["epochs"] == 3


def test_train_resume_refuses_changed_options(finished, capsys):
    (finished / "report.html").unlink()
    assert cli.run(["train", "--resume", str(finished), "--lr", "0.5", "--batch", "8"]) == 2
    assert "another configuration: lr was 0.002 and is 0.5" in capsys.readouterr().err
    assert cli.run(["train", "--resume", str(finished), "--batch", "8"]) == 0  # as it was


def test_a_folder_without_a_run(tmp_path, capsys):
    assert cli.run(["resume", str(tmp_path / "nothing")]) == 2
    assert "it has no config.yaml" in capsys.readouterr().err
