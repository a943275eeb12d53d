"""A config.yaml repeats its run, with whatever is overridden."""

import shutil

import pytest
from conftest import Messages
from safetensors.torch import load_file
from text_runs import write_reversed_words

import striate
from striate import cli
from striate.api import configure
from striate.errors import DataError, UsageError
from striate.training.config_file import read_config


def written(path, text):
    path.write_text(text, "utf-8")
    return path


def test_a_replayed_run_has_the_same_weights(run, tmp_path):
    config = shutil.copy(run.training.folder / "config.yaml", tmp_path / "saved.yaml")
    again = striate.train(config=config, out=str(tmp_path))
    assert again.training.folder.parent == tmp_path
    first, second = load_file(run.training.last), load_file(again.training.last)
    assert all(first[name].equal(second[name]) for name in first)
    assert first.keys() == second.keys()
    ours, theirs = (read_config(folder) for folder in (again.training.folder, run.training.folder))
    assert {**ours, "out": None} == {**theirs, "out": None}


def test_options_given_with_it_override_it(run):
    config = configure(None, {"config": run.training.folder, "epochs": 7, "lr": 0.25, "name": "other"})
    saved = read_config(run.training.folder)
    assert (config.epochs, config.lr, config.name) == (7, 0.25, "other")
    assert config.to_json() == {**saved, "epochs": 7, "lr": 0.25, "name": "other"}
    assert configure("elsewhere", {"config": run.training.folder}).data == "elsewhere"


@pytest.mark.parametrize("task", ["train", "seq2seq"])
def test_the_command_line_replays(task, tmp_path, monkeypatch):
    received = []

    def stop(config):
        received.append(config)
        raise UsageError("stopped")

    monkeypatch.setattr("striate.api.run_training", stop)
    data = tmp_path / "pairs.tsv" if task == "seq2seq" else tmp_path / "images"
    kind = "seq2seq" if task == "seq2seq" else "classification"
    config = written(tmp_path / "c.yaml", f"format: 3\ntask: {kind}\ndata: {data}\nepochs: 5\nbatch: 7\n")
    command = ["seq2seq", "train"] if task == "seq2seq" else ["train"]
    cli.run([*command, "--config", str(config), "--batch", "9"])
    cli.run([*command, "other", "--config", str(config)])
    first, second = received
    assert (first.source, first.epochs, first.batch) == (str(data), 5, 9)
    assert (second.source, second.epochs, second.batch) == ("other", 5, 7)


def test_a_file_of_another_task_is_refused(tmp_path, capsys):
    config = written(tmp_path / "c.yaml", "format: 3\ntask: seq2seq\ndata: [pairs.tsv]\n")
    assert cli.run(["train", "--config", str(config)]) == 2
    assert (
        "is for seq2seq, not for classification. Use striate seq2seq train --config"
        in capsys.readouterr().err
    )


def test_paths_are_relative_to_the_working_folder_or_else_to_the_file(tmp_path, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project / "flowers", elsewhere / "flowers", project / "birds"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    config = written(project / "c.yaml", "data: birds\n")
    assert configure(None, {"config": config}).data == str(project / "birds")
    written(config, "data: flowers\n")
    assert configure(None, {"config": config}).data == "flowers"
    written(config, "data: digits\nweights: imagenet\n")  # names, not paths
    assert configure(None, {"config": config}).data == "digits"
    write_reversed_words(project / "pairs.tsv")
    written(config, "task: seq2seq\ndata: [pairs.tsv]\nlanguages: [en, de]\n")
    assert configure(None, {"config": config}).data == (str(project / "pairs.tsv"),)
    assert configure(None, {"config": config}).languages == ("en", "de")


def test_files_written_by_hand_have_any_options(tmp_path):
    config = written(tmp_path / "c.yaml", "data: digits\nlr: 1e-3\naccumulate: 2\nepochs: 3\namp: false\n")
    values = configure(None, {"config": config})
    assert (values.lr, values.accumulate, values.epochs, values.amp) == (0.001, 2, 3, False)


def test_earlier_formats_are_converted(tmp_path):
    old = "data: digits\nmodel: lenet\naccumulate: 4\nepochs: 0\nbatch: 64\nlr: 0\nseed: 3\n"
    values = configure(None, {"config": written(tmp_path / "c.yaml", old)})
    assert (values.micro_batches, values.accumulate, values.epochs, values.lr, values.seed) == (
        4,
        1,
        None,
        None,
        3,
    )
    second = "format: 2\ntask: seq2seq\ndata: [a.tsv]\ntokens: words\nbudget: 1m\nepochs: 25\n"
    values = configure(None, {"config": written(tmp_path / "d.yaml", second)})
    assert (values.tokenizer, values.epochs, values.monitor) == ("words", None, "error")
    assert values.reference_columns == "all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: digits\nepoch: 3\n", r"unknown option 'epoch' in '.*c.yaml': .*epochs"),
        (
            "data: digits\nlearning_rate: 3\n",
            r"unknown option 'learning_rate' in '.*c.yaml': in Striate it is lr",
        ),
        ("data: digits\nlr: fast\n", r"--lr 'fast': it must be a number"),
        ("- 1\n", r"c.yaml:1: the file is damaged: it is not a mapping of options"),
        ("", r"c.yaml:1: the file is damaged: it is empty"),
        ("a: [\n", r"c.yaml:2: the file is damaged"),
        ("1: 2\n", r"c.yaml:1: the file is damaged: the key '1' is not a name"),
        ("format: 99\n", "a newer Striate wrote it"),
        ("lr: 0.1\n", "no data to train on"),
    ],
)
def test_mistakes_name_the_file(tmp_path, text, message):
    with pytest.raises(DataError if "damaged" in message else UsageError, match=message):
        configure(None, {"config": written(tmp_path / "c.yaml", text), "progress": Messages()})


def test_a_missing_file(tmp_path, capsys):
    assert cli.run(["train", "--config", str(tmp_path / "no.yaml")]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert cli.run(["train"]) == 2
    assert "no data to train on. Give a folder, or --config with that of a run" in capsys.readouterr().err
