"""Every error that Striate raises on purpose, each with its exit code.

An error says what went wrong, why, and what to do next, in one line. The command line prints that line
and exits with `exit_code`; a Python caller catches `StriateError` or one of its few subclasses.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class StriateError(Exception):
    """Base of all errors that are not a bug of Striate.

    Args:
        what: the thing that failed, with the offending value.
        why: the cause.
        fix: what to do next.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        message = f"{what}: {why}" if why else what
        stop = "" if message.endswith("?") else "."
        super().__init__(f"{message}{stop} {fix}" if fix else message)


class UsageError(StriateError):
    """A wrong flag, argument, model name or value."""

    exit_code = 2


class LayoutError(UsageError, ValueError):
    """A tensor or array whose axes are not where they should be."""


class DataError(StriateError):
    """A folder, table, image or bundle that cannot be used."""

    exit_code = 3


class WriteError(DataError):
    """A file that cannot be written; what stood there before still stands."""


class DecodeError(DataError):
    """An image file that cannot be decoded; `why` is the one-line reason."""


class BundleError(DataError):
    """A model file that is damaged, of another task, or not a bundle at all."""


class TrainingError(StriateError):
    """A training run that cannot go on, such as one whose loss is no longer finite."""

    exit_code = 4


INTERNAL_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: a bug of Striate, not a mistake of the user
TERMINATED_EXIT_CODE = 143  # 128 + SIGTERM
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells report it


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """The error for a name that is not in `known`, with its near matches.

    Args:
        kind: what the name stands for, such as "model".
        name: what was given.
        known: all names that would have been right.
        where: how to see all names; where this is empty, and none is near, all are listed.
    """
    names = list(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    why = f"did you mean {' or '.join(near)}?" if near else f"there is no {kind} of that name"
    fix = where or ("" if near else f"Known: {', '.join(names)}")
    return UsageError(f"unknown {kind} {name!r}", why, fix)
