"""Commands in any terminal: encodings, closed streams and full devices."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from striate import cli


@pytest.fixture
def streams(monkeypatch):
    """Replace standard output by one of an encoding, and return what it receives."""

    def replace(encoding):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
        return raw

    return replace


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_outside_the_encoding_are_escaped(encoding, streams, monkeypatch):
    monkeypatch.setattr("striate.cli.doctor._examine", lambda: _report("猫 – \udcff"))
    raw = streams(encoding)
    assert cli.run(["doctor"]) == 0
    expected = "猫 – " if encoding == "utf-8" else r"\u732b \u2013 "
    assert f"devices        {expected}".encode() + b"\xff\n" in raw.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding, streams, monkeypatch):
    monkeypatch.setattr("striate.cli.doctor._examine", lambda: _report("猫 😀 –"))
    raw = streams(encoding)
    assert cli.run(["doctor", "--json"]) == 0
    assert json.loads(raw.getvalue().decode(encoding)) == _report("猫 😀 –")


def _report(text):
    cache = {"folder": "x", "bytes": 0, "limit_bytes": 0}
    return {
        "versions": {}, "devices": [text], "processors": 1, "formats": [], "native": True, "weights": [],
        "cache": cache,
    }  # fmt: skip


def test_a_full_device_is_one_line(monkeypatch, capfd):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.run(["weights", "list"]) == 3
    assert capfd.readouterr().err.startswith("striate: cannot write to standard output: no space left")


def test_a_message_that_is_lost_ends_nothing(monkeypatch, capfd):
    with Path("/dev/full").open("w", buffering=1, encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert cli.run(["weights", "export"]) == 2
        assert cli.run(["recipes"]) == 0
        assert "resnet" in capfd.readouterr().out
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # what it still holds is written at its end


@pytest.mark.parametrize("stream", [None, "closed"])
def test_closed_input_is_empty_input(stream, monkeypatch, run, capfd):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdin", None if stream is None else closed)
    assert cli.run(["predict", str(run.best), "-"]) == 2
    assert "the list on standard input is empty" in capfd.readouterr().err
