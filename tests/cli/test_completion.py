"""Shell completion: commands, flags and values, without loading torch."""

import os
import subprocess
import sys

import pytest

from striate import cli

CODE = """if True:
    import sys
    from striate.cli import run
    try:
        run([])
    except SystemExit:
        pass
    sys.exit("torch" in sys.modules)
"""


def complete(*words, **more):
    """What is offered for the last word in bash."""
    variables = {
        "_STRIATE_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(["striate", *words]),
        "COMP_CWORD": str(len(words)), **more,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env={**os.environ, **variables}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["train", "--opt", ""], ["adamw", "sgd", "rmsprop"]),
        (["train", "--opt", "s"], ["sgd"]),
        (["tr"], ["train"]),
        (["seq2seq", "tr"], ["train", "translate"]),
        (["export", "x", "--to", "onnx-i"], ["onnx-int8", "onnx-int8-weights"]),
        (["seq2seq", "train", "x", "--label"], ["--label-smoothing"]),
        (["evaluate", "--be"], ["--beam"]),
    ],
)
def test_what_is_offered_in_bash(words, offered):
    assert complete(*words) == offered


def test_every_command_is_offered():
    assert set(complete("")) == set(cli.COMMANDS)


def test_earlier_flags_are_not_offered():
    offered = complete("seq2seq", "train", "--")
    assert "--tokenizer" in offered
    assert not {"--tokens", "--vocab", "--joint", "--check"} & set(offered)


def test_zsh_and_fish():
    zsh = complete(_STRIATE_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="striate train --sched inv")
    assert "inverse-sqrt" in " ".join(zsh)
    fish = {"_TYPER_COMPLETE_ARGS": "striate train --sched inv", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert complete(_STRIATE_COMPLETE="complete_fish", **fish) == ["inverse-sqrt"]


def test_only_the_top_level_installs_it(capsys):
    cli.run(["--help"])
    assert "--install-completion" in capsys.readouterr().out
    for argv in (["train"], ["seq2seq"], ["seq2seq", "train"], ["weights", "list"]):
        cli.run([*argv, "--help"])
        assert "completion" not in capsys.readouterr().out
