"""The variables of torchrun and other launchers."""

import pytest

from striate.cli import run
from striate.errors import UsageError
from striate.training.launcher import Launch, read_environment

COMPLETE = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in (*COMPLETE, "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_a_launcher_says_which_process_this_is(monkeypatch):
    assert read_environment() is None
    set_all(monkeypatch, COMPLETE)
    assert read_environment() == Launch(1, 4, 0, 1, "host", 29500, False)
    set_all(monkeypatch, {"LOCAL_RANK": "3"})  # srun and mpirun need not set the other one
    assert read_environment().local_rank == 3
    set_all(monkeypatch, {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert read_environment() == Launch(1, 4, 3, 2, "host", 29500, True)


def test_an_address_alone_is_no_launcher(monkeypatch):
    set_all(monkeypatch, {"MASTER_ADDR": "host", "MASTER_PORT": "x", "LOCAL_RANK": "x"})
    assert read_environment() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, values in {
            "RANK": ("x", "-1", "4", "1.0", "9" * 5000, "\u0661\u0662"),
            "WORLD_SIZE": ("x", "0", "1", "-2", "1e3", "9" * 30),
            "MASTER_PORT": ("x", "0", "65536", "-1", "80 "), "LOCAL_RANK": ("x", "4", "-1"),
            "LOCAL_WORLD_SIZE": ("x", "0", "5"),
        }.items()
        for value in values
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_impossible_values_are_refused(name, value, monkeypatch):
    set_all(monkeypatch, {**COMPLETE, name: value})
    with pytest.raises(UsageError, match=r"it must be a whole number from .* to .*torchrun"):
        read_environment()


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_part_of_the_variables_is_refused(missing, monkeypatch):
    set_all(monkeypatch, {name: value for name, value in COMPLETE.items() if name != missing})
    with pytest.raises(UsageError, match=rf"{missing} is not\. Start the processes with torchrun"):
        read_environment()


def test_a_command_says_so_and_exits(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "0")
    assert run(["train", "digits", "--model", "lenet", "--out", str(tmp_path / "x")]) == 2
    text = capsys.readouterr().err
    assert "the environment variables RANK are set: WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not" in text
    assert not (tmp_path / "x").exists()
