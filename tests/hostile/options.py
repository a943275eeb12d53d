"""Hostile values for every option of every command, and whether a number is in its declared range."""

from collections.abc import Iterator

import typer
from command_options import command_options
from targets import COMMANDS

from striate.training.options import kinds_of

VALUES = (
    "-1", "0", str(2**31), str(2**63), str(10**20), "nan", "inf", "1e308", "", "x" * 5000,
)  # fmt: skip
# A command line to which an option is added; the other options must be valid.
LINES = {name: lines[0] for name, lines in COMMANDS.items()} | {
    "anatomy": "anatomy lenet", "seq2seq translate": "seq2seq translate {text_model} abc",
}  # fmt: skip


def options() -> Iterator[tuple[str, str, bool]]:
    """Command, flag, and whether it takes a number, of each option with a value."""
    for command, name, hint, info in command_options():
        if isinstance(info, typer.models.OptionInfo) and bool not in kinds_of(hint):
            flags = [flag for flag in info.param_decls or () if flag.startswith("--")]
            flag = flags[0] if flags else f"--{name.replace('_', '-')}"
            yield command, flag, bool({int, float} & set(kinds_of(hint)))


OPTIONS = tuple(options())


def words(command: str, flag: str, value: str) -> list[str]:
    """A command line with one hostile value; an option that the line has already is replaced."""
    line = LINES[command].split()
    if flag in line:
        at = line.index(flag)
        del line[at : at + 2]
    return [*line, f"{flag}={value}"]
