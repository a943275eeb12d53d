"""The command that a report shows trains the same model."""

import dataclasses
import hashlib
import shlex

from striate.report.reproduce import command, section
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.seq2seq.config import Seq2SeqConfig


def test_the_command_of_a_run_has_its_options(run):
    words = shlex.split(command(run.training.config))
    assert words[:2] == ["striate", "train"]
    assert words[2] == run.training.config.source
    assert words[words.index("--epochs") + 1] == "3"
    assert words[words.index("--batch") + 1] == "8"
    assert "--seed" not in words  # its default


def test_data_are_quoted_and_pairs_have_several_paths():
    config = ClassificationConfig(data="my data", nesterov=True, opt="sgd")
    assert command(config) == "striate train 'my data' --opt sgd --nesterov"
    assert command(Seq2SeqConfig(data=("a b", "c"))) == "striate seq2seq train 'a b' c"


def test_versions_hashes_and_time(run):
    (listing,) = section(run.training).blocks
    items = dict(listing.items)
    config = (run.training.folder / "config.yaml").read_bytes()
    assert items["SHA-256, config.yaml"] == hashlib.sha256(config).hexdigest()
    assert "PyTorch 2." in items["versions"]
    assert items["time"] == f"{run.training.seconds:,.1f} s"
    assert "energy of the processors" not in dict(
        section(dataclasses.replace(run.training, joules=None)).blocks[0].items
    )
    used = section(dataclasses.replace(run.training, joules=7200.0)).blocks[0]
    assert dict(used.items)["energy of the processors"] == "2.00 Wh"
