"""The functions of `striate` accept runs and bundles of every task, and their options are typed."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_markup import Checker

import striate
from striate import bundle
from striate.errors import StriateWarning, UsageError
from striate.exporters import FORMATS, Format
from striate.exporters.records import Exported
from striate.inference.evaluation import evaluate
from striate.inference.text_evaluation import evaluate_seq2seq
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.options import declarations

SMALL = {
    "width": 32, "depth": 1, "heads": 2, "hidden": 64, "batch": 400, "epochs": 1, "average": 0, "name": "x",
}  # fmt: skip


def weights(path):
    return bundle.inspect(path).weights_sha256


def test_train_seq2seq_is_an_alias(reversed_words, tmp_path):
    one = striate.train(reversed_words, task="seq2seq", out=str(tmp_path / "one"), **SMALL)
    other = striate.train_seq2seq(reversed_words, out=str(tmp_path / "other"), **SMALL)
    assert weights(one.best) == weights(other.best)
    assert one.evaluation.scores == other.evaluation.scores
    words = "".join(Checker(one._repr_html_()).text)
    assert f"exact match{100 * one.evaluation.scores.exact:.2f} %" in words
    assert repr(one.evaluation) in repr(one)
    values = one.to_json()
    keys = ("run", "best", "last", "report", "epochs", "best_epoch", "val_error", "val_exact", "n", "exact")
    assert set(keys) <= values.keys()
    assert Path(values["report"]).is_file()
    # A finished run resumes to itself, whatever its task.
    before = weights(one.best)
    assert striate.resume(one.training.folder).to_json()["epochs"] == 1
    assert weights(one.best) == before


def test_load_opens_both_tasks(run, text_run, reversed_words):
    assert striate.load(run.best, "cpu").predict(run.evaluation.images[0]).label in ("blue", "green", "red")
    translator, same = striate.load(text_run.folder, "cpu"), striate.load_translator(text_run.best, "cpu")
    texts = [result.text for result in translator.translate(["ab", "dcba"]).results]
    assert texts == [result.text for result in same.translate(["ab", "dcba"]).results]


def test_evaluate_takes_bundles_folders_and_models_of_both_tasks(run, text_run, reversed_words, colors):
    for model in (run.best, run.training.folder, striate.load(run.best)):
        assert striate.evaluate(model, colors, split="train").n == 42
    assert striate.evaluate(run.best).top1 == run.evaluation.top1  # what the run held out
    first = striate.evaluate_seq2seq(text_run.best, reversed_words).scores
    for model in (text_run.best, text_run.folder, striate.load(text_run.best)):
        assert striate.evaluate(model, reversed_words).scores == first
        assert striate.evaluate(model, (str(reversed_words),), beams=1).scores == first


def test_export_writes_both_tasks(run, text_run, tmp_path):
    import torch

    for name, path in (("images", run.best), ("text", text_run.best)):
        parity = striate.export(path, tmp_path / f"{name}.pth", "state-dict")
        state = bundle.read(path)[1]
        written = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        assert (parity.equal, parity.max_difference < 1e-5) == (parity.n, True)
        assert parity.notes == (f"All {len(state)} tensors are equal bit for bit.",)
        assert written.keys() == state.keys()
        assert all(torch.equal(written[key], value) for key, value in state.items())


def test_an_export_that_cannot_be_is_refused(run, text_run, tmp_path):
    with pytest.raises(UsageError, match=r"a classification model as ctranslate2: .* Use onnx"):
        striate.export(run.best, tmp_path / "x", "ctranslate2")
    with pytest.raises(UsageError, match="unknown format 'torch-expor': did you mean torch-export"):
        striate.export(text_run.best, tmp_path / "x", "torch-expor")
    assert not (tmp_path / "x").exists()


def write_names(model, path, request):
    """A format for the test: the names of the tensors."""
    path.write_text("\n".join(model.network.state_dict()), "utf-8")
    return Exported(missing="names have no scores")


def test_a_new_format_is_a_row(run, text_run, tmp_path, monkeypatch):
    row = Format("test_api_tasks:write_names", ("classification",), "names of the tensors")
    monkeypatch.setitem(FORMATS, "names", row)
    with pytest.warns(StriateWarning, match="not compared with the original: names have no scores"):
        assert striate.export(run.best, tmp_path / "names.txt", "names").n == 0
    assert (tmp_path / "names.txt").read_text("utf-8").startswith("conv1.weight")
    with pytest.raises(UsageError, match="the format cannot hold it"):
        striate.export(text_run.best, tmp_path / "other.txt", "names")


def test_train_has_every_option_with_its_default():
    """An option of both tasks has the default of classification, the task without a name."""
    parameters = inspect.signature(striate.train).parameters
    assert next(iter(parameters)) == "data"
    fields = ClassificationConfig.__dataclass_fields__
    for name, declared, _ in declarations(ClassificationConfig):
        assert parameters[name].default == fields[name].default, name
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{name}: {declared.help}" in striate.train.__doc__
    only = Seq2SeqConfig.__dataclass_fields__
    for name, declared, _ in declarations(Seq2SeqConfig):
        assert f"{name}: {declared.help}" in striate.train.__doc__
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert name in fields or parameters[name].default == only[name].default


def test_functions_complete_the_options_that_they_pass_on():
    """Notebooks and editors complete what `inspect.signature` lists; `dir` has all public names."""
    assert set(striate.__all__) == set(dir(striate))
    evaluation = set(inspect.signature(striate.evaluate).parameters)
    assert evaluation == {
        name for function in (evaluate, evaluate_seq2seq) for name in inspect.signature(function).parameters
    }
    searched = inspect.signature(striate.tune).parameters
    assert list(searched)[:3] == ["data", "budget", "trials"]
    assert searched["batch"].default == ClassificationConfig.__dataclass_fields__["batch"].default
    assert {"depth", "tokenizer"} <= set(inspect.signature(striate.train_seq2seq).parameters)
    assert {"epochs", "save_every", "trust"} <= set(inspect.signature(striate.resume).parameters)


@pytest.mark.slow
def test_a_type_checker_knows_the_options_of_each_task(tmp_path):
    lines = {
        'striate.train("x", task="seq2seq", width=8)': None,
        'striate.train("x", model="lenet", mixup=0.2)': None,
        'striate.train("x", width=8)': "No overload variant",
        'striate.train("x", task="seq2seq", mixup=0.2)': "No overload variant",
        'striate.train("x", epochs="many")': "No overload variant",
        'reveal_type(striate.train("x").evaluation)': "striate.inference.evaluation.Evaluation",
        'reveal_type(striate.train("x", task="seq2seq").evaluation)': "text_evaluation.TextEvaluation",
    }
    (tmp_path / "user.py").write_text("import striate\n" + "\n".join(lines) + "\n", "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "user.py"]
    environment = {**os.environ, "MYPYPATH": str(Path(striate.__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    for number, (line, expected) in enumerate(lines.items(), 2):
        told = [text for text in done.stdout.splitlines() if text.startswith(f"user.py:{number}:")]
        if expected is None:
            assert not told, (line, told)
        else:
            assert expected in "\n".join(told), (line, done.stdout, done.stderr)
