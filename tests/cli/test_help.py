"""The help of `striate` itself is what Typer prints."""

import pytest
from typer import rich_utils

from striate import cli
from striate.cli import help, parser


@pytest.mark.parametrize("color", [False, True])
def test_the_help_is_that_of_typer(capsys, monkeypatch, color):
    for name in help.UNUSUAL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", None)
    monkeypatch.setattr(rich_utils, "FORCE_TERMINAL", color)
    monkeypatch.setenv("TERM", "xterm-256color")
    for width in (help.NARROWEST, 70, 79, 80, 81, 100, 120, 121, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        parser._app(["--help"])(["--help"], prog_name="striate", standalone_mode=False)
        assert cli._help(width, color=color) == capsys.readouterr().out


def test_typer_prints_where_something_is_unusual(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    for name in help.UNUSUAL:
        monkeypatch.delenv(name, raising=False)
    assert cli.run(["--help"]) == 0
    usual = capfd.readouterr().out
    assert max(map(len, usual.splitlines())) == 90
    monkeypatch.setenv("COLUMNS", "\N{SUPERSCRIPT TWO}")  # a digit, and no number
    assert help.usual_width() != 2
    for name, value in (("COLUMNS", "50"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
        assert help.usual_width() is None
        monkeypatch.setenv("COLUMNS", "90")
    assert cli.run(["--help"]) == 0
    assert capfd.readouterr().out == usual
