"""config.yaml: values of format 1 are converted, and what cannot be read is refused."""

import os

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from striate.errors import DataError, UsageError
from striate.tasks import entry
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig
from striate.training.config_file import config_text, parse_config, read_config

ODD = [
    "\r",
    "\n",
    " ",
    "\t",
    "\x85",
    "\u2028",
    "\ufeff",
    "\udc80",
    ":",
    "#",
    "'",
    '"',
    "- ",
    "null",
    "1e3",
    "é",
]


def written(folder, text):
    (folder / "config.yaml").write_text(text, "utf-8")
    return folder


@given(st.binary(max_size=12).map(os.fsdecode) | st.lists(st.sampled_from(ODD)).map("".join))
@example("a\x85b")
@example("x " * 60)
def test_any_file_name_survives(name):
    values = {"data": name, "names": [name, name]}
    assert yaml.safe_load(config_text(values).encode()) == values


def test_format_1_has_no_task_and_splits_batches_with_accumulate(tmp_path):
    values = read_config(written(tmp_path, "data: digits\nmodel: lenet\naccumulate: 4\n"))
    expected = {"task": "classification", "micro_batches": 4, "accumulate": 1}
    assert values == {"data": "digits", "model": "lenet", **expected}
    assert parse_config(ClassificationConfig, values) == ClassificationConfig(
        "digits", model="lenet", micro_batches=4
    )


def test_format_1_of_pairs_has_other_names_of_options(tmp_path):
    text = """
data: [pairs.tsv]
tokens: words
source_tokens: null
target_tokens: characters
vocab: 100
joint: false
check: true
encoder_channels: 0
accumulate: 1
languages: [en, de]
"""
    values = read_config(written(tmp_path, text))
    assert values["task"] == "seq2seq"
    assert parse_config(Seq2SeqConfig, values) == Seq2SeqConfig(
        "pairs.tsv", tokenizer="words", target_tokenizer="characters", vocab_size=100, shared_vocab=False,
        sanity_check=True, languages=("en", "de"), monitor="error",
        reference_columns="all", word_dropout=0.0,
    )  # fmt: skip


def test_format_2_had_no_monitor_and_no_epochs_within_a_budget(tmp_path):
    text = "format: 2\ntask: seq2seq\ndata: [pairs.tsv]\nbudget: 5m\nepochs: 25\n"
    values = read_config(written(tmp_path, text))
    assert values == {
        "task": "seq2seq", "data": ["pairs.tsv"], "budget": "5m", "epochs": None, "monitor": "error",
        "reference_columns": "all", "word_dropout": 0.0,
    }  # fmt: skip
    values = read_config(written(tmp_path, text.replace("format: 2", "format: 3") + "monitor: bleu\n"))
    assert (values["epochs"], values["monitor"]) == (25, "bleu")


def test_format_2_is_read_as_written(tmp_path):
    text = "format: 2\ntask: classification\ndata: digits\naccumulate: 4\nmicro_batches: 2\n"
    values = read_config(written(tmp_path, text))
    assert values == {"task": "classification", "data": "digits", "accumulate": 4, "micro_batches": 2}


def test_a_newer_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match="a newer Striate wrote it"):
        read_config(written(tmp_path, "format: 4\ndata: digits\n"))


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b"", 1, "it is empty"),
        (b"[1, 2]", 1, "it is not a mapping of options"),
        (b"just text", 1, "it is not a mapping of options"),
        (b"a: [", 1, "expected the node content"),
        (b"data: x\nformat: two\n", 2, "format is 'two', not a whole number"),
        (b"data: \xff\xfe", 1, "it is not UTF-8 text"),
        ("data: ü\n".encode("utf-16"), 1, "it is not UTF-8 text"),
        (b"data: x\nseed: " + b"9" * 5000, 2, "the value of 'seed' cannot be read"),
        (b"data: x\nname: &a [x]\nout: *a\n", 3, "it has an alias"),
        (b"data: x\ndata: y\n", 2, "'data' is there twice"),
        (b"data: x\nseed: 2026-01-01\n", 2, "seed is datetime.date(2026, 1, 1)"),
        (b"data: x\nlr: .inf\n", 2, "lr is inf, not"),
        (b"data: x\nlr: " + b"[" * 2000, 2, "it is nested too deeply"),
        (b"data: x\n1: y\n", 2, "the key '1' is not a name"),
        (b"data: x\na\x01: y\n", 2, "is not allowed"),
        (b"task: classification\ndata: null\n", 2, "data is null, not text or a list"),
        (b"task: classification\ndata: x\ndevice: null\n", 3, "device is null, not text"),
        (b"task: classification\ndata: x\nepochs: [3]\n", 3, "epochs is [3], not a whole number or null"),
        (b"task: classification\ndata: x\nmodl: lenet\n", 3, "unknown option 'modl'"),
        (b"format: 3\ntask: classification\ndata: x\nbatch: 0\n", 4, "--batch 0: it must be"),
        (b"format: 3\ndata: x\n", 1, "task is null, not text"),
        (b"data: x\ntask: clasification\n", 2, "unknown task 'clasification'"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, content, line, why):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_config(tmp_path, lambda task: entry(task).find("config"))
    assert str(caught.value).startswith(f"{tmp_path / 'config.yaml'}:{line}: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused():
    with pytest.raises(UsageError, match="unknown option 'modl': did you mean model"):
        parse_config(ClassificationConfig, {"data": "digits", "modl": "lenet"})
