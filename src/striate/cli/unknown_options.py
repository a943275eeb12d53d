"""The error for an option that a command does not have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from striate.errors import UsageError
from striate.training.foreign_names import OF_MODELS, striate_name

# Arguments of commands that use a model or its weights.
_MODELS = {"model", "models", "name", "file", "run", "source", "bundle", "weights"}


def unknown_option(error: Any, argv: Sequence[str]) -> UsageError:
    """Name the option that is meant: Striate's name for that of another tool, or a similar one.

    Args:
        error: the parser's, with the option as `option_name` and the context as `ctx`.
        argv: the command line.
    """
    # Of `-lr 0.1` the parser names only `-l`.
    words = [word.partition("=")[0] for word in argv]
    longer = (word for word in words if word.startswith(error.option_name))
    typed = error.option_name if error.option_name in words else next(longer, error.option_name)
    known = {
        spelling.lstrip("-"): (spelling, parameter)
        for parameter in error.ctx.command.params
        for spelling in (*parameter.opts, *parameter.secondary_opts)
        if spelling.startswith("-") and not getattr(parameter, "hidden", False)
    }
    name, why = striate_name(typed, known)
    if why in OF_MODELS and not _MODELS & {parameter.name for parameter in error.ctx.command.params}:
        why = "this command needs no model"
    if name:
        option, _, value = name.partition(" ")
        spelling, parameter = known[option]
        meaning = str(getattr(parameter, "help", "") or "").partition(": ")[0].rstrip(".")
        why = f"in Striate it is {spelling} {value}".rstrip() + (f" ({meaning})" if meaning else "")
    elif not why:
        near = get_close_matches(typed.strip("-").lower().replace("_", "-"), known, cutoff=0.6)
        options = " or ".join(known[option][0] for option in near)
        why = f"did you mean {options}?" if near else "there is no option of that name"
    return UsageError(f"unknown option {typed}", why, f"See `{error.ctx.command_path} --help`")
