"""The parser of command lines: Typer, with the functions of the commands."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import typer

from striate.cli.commands import COMMANDS, GROUPS, SUMMARY, Command
from striate.errors import UsageError

_LONGEST_VALUE, _LONGEST_MESSAGE = 80, 400  # characters of what the parser refuses


def call(argv: Sequence[str]) -> int:
    """Parse a command line and call its function.

    Args:
        argv: without the program's name.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are not those of the command.
    """
    try:
        app = _app(argv)
        code = app(list(argv), prog_name="striate", standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except typer.TyperException as error:
        if hasattr(error, "possibilities"):  # of the parser's errors, only that of an unknown option has them
            from striate.cli.unknown_options import unknown_option

            raise unknown_option(error, argv) from error
        raise UsageError(_message(error, argv), fix=f"See `{_called(argv)} --help`") from error
    return code if isinstance(code, int) else 0


def _called(argv: Sequence[str]) -> str:
    """The command of a command line, as far as it names one."""
    entry = COMMANDS.get(argv[0])
    words = argv[:2] if isinstance(entry, dict) and argv[1:2] and argv[1] in entry else argv[:1]
    return " ".join(["striate", *(words if entry is not None else ())])


def complete(words: Sequence[str], variable: str) -> None:
    """Print the completions of a command line that a shell asks for in an environment variable."""
    _app(words)(prog_name="striate", complete_var=variable)


def _message(error: typer.TyperException, argv: Sequence[str]) -> str:
    """The parser's message in one line, with the value that is wrong."""
    text = " ".join((error.format_message() if hasattr(error, "format_message") else str(error)).split())
    if given := _given(getattr(getattr(error, "param", None), "opts", ()), argv):
        text = f"{given[0]} {given[1][:_LONGEST_VALUE]}: {text}"
    return text[:_LONGEST_MESSAGE].rstrip(".")


def _given(spellings: Sequence[str], argv: Sequence[str]) -> tuple[str, str] | None:
    """An option and its value as the user typed them; the last one, which is the one that counts."""
    found = None
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        option, _, value = word.partition("=")
        if word in spellings and following is not None:
            found = word, following
        elif option in spellings and word != option:
            found = option, value
    return found


def _app(argv: Sequence[str]) -> typer.Typer:
    """The application with the called command alone, or with all of them for the help."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    app.callback(invoke_without_command=True, help=SUMMARY)(_main)
    called = bool(argv) and argv[0] in COMMANDS
    for name in argv[:1] if called else COMMANDS:
        entry = COMMANDS[name]
        if isinstance(entry, Command):
            _add(app, name, entry, called)
        else:
            group = typer.Typer(no_args_is_help=True, help=GROUPS[name])
            for sub, command in entry.items():
                _add(group, sub, command, called)
            app.add_typer(group, name=name)
    return app


def _add(app: typer.Typer, name: str, command: Command, called: bool) -> None:
    """Add a command; without its function if it is only listed."""
    function: Callable[..., int | None] = _listed
    if called:
        module, attribute = command.target.split(":")
        function = getattr(importlib.import_module(f"striate.cli.{module}"), attribute)
    app.command(name, short_help=command.summary)(function)


def _listed() -> None:
    """Stands for a command in the list, so that its file is not loaded."""


def _main(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Print the version."""
    if version:
        from striate.version import __version__

        print(f"striate {__version__}")
        raise typer.Exit
