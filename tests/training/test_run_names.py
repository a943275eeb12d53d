"""A run folder that exists is never written to, and is reported before the data are read."""

import pytest
from conftest import Messages

from striate import api, cli
from striate.errors import DataError
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.run_names import announce_taken, create


def test_a_taken_name_gets_the_next_free_number(tmp_path):
    assert [create(tmp_path, "a").name for _ in range(3)] == ["a", "a-2", "a-3"]
    (tmp_path / "b").write_text("a file")
    assert create(tmp_path, "b").name == "b-2"


@pytest.mark.parametrize("options", [["--name", "mine"], []])
def test_a_taken_name_is_reported_before_the_data_are_read(tmp_path, capsys, options):
    folder = tmp_path / "my runs" / (options[-1] if options else "missing-resnet18")
    folder.mkdir(parents=True)
    data = tmp_path / "missing"
    assert cli.run(["train", str(data), "--out", str(folder.parent), *options]) == 3
    notice, error = capsys.readouterr().err.strip().splitlines()
    assert f"{folder} exists, so this run goes to {folder}-2; to continue the earlier one" in notice
    assert f"striate resume '{folder}' (with --epochs N if it is finished)" in notice
    assert "missing" in error
    assert not (tmp_path / "my runs" / f"{folder.name}-2").exists()


def test_the_number_is_that_of_the_next_free_folder(tmp_path):
    for name in ("a", "a-2"):
        (tmp_path / name).mkdir()
    progress = Messages()
    announce_taken(ClassificationConfig("d", out=str(tmp_path), name="a", progress=progress))
    announce_taken(ClassificationConfig("d", out=str(tmp_path), name="b", progress=progress))
    assert len(progress.warnings) == 1
    assert f"goes to {tmp_path / 'a-3'};" in progress.warnings[0]


def test_one_of_several_processes_reports_and_a_restarted_one_does_not(tmp_path, monkeypatch):
    progress = Messages()
    config = ClassificationConfig("d", out=str(tmp_path), name="a", progress=progress)
    (tmp_path / "a").mkdir()
    monkeypatch.setenv("RANK", "1")
    announce_taken(config)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    announce_taken(config)
    assert progress.warnings == []


def test_seq2seq_reports_it_once_the_name_is_known(tmp_path, reversed_words):
    names = [Seq2SeqConfig("pairs.tsv", model=model, name=name).is_named
             for model, name in ((None, None), ("tiny", None), (None, "mine"))]  # fmt: skip
    assert names == [False, True, True]
    (tmp_path / f"{reversed_words.stem}-tiny").mkdir()
    progress = Messages()
    with pytest.raises(DataError):
        api.run_training(Seq2SeqConfig(str(tmp_path / "no.tsv"), out=str(tmp_path), progress=progress))
    assert progress.warnings == []
