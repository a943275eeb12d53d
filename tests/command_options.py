"""The options of all commands, as their functions declare them."""

import importlib
import inspect
import typing
from collections.abc import Iterator
from typing import Any

from striate.cli import COMMANDS, Command


def command_options() -> Iterator[tuple[str, str, Any, Any]]:
    """Command, parameter, type, and Typer's declaration, of each option and argument of each command."""
    for name, entry in COMMANDS.items():
        for sub, command in {"": entry}.items() if isinstance(entry, Command) else entry.items():
            module, attribute = command.target.split(":")
            function = getattr(importlib.import_module(f"striate.cli.{module}"), attribute)
            for parameter in inspect.signature(function, eval_str=True).parameters.values():
                if typing.get_origin(parameter.annotation) is typing.Annotated:
                    hint, info = typing.get_args(parameter.annotation)[:2]
                    yield f"{name} {sub}".strip(), parameter.name, hint, info
