"""The exceptions of Striate and their exit codes.

A message says what failed, why, and what to do next, in one line. The command line prints it and exits with
`exit_code`; Python code catches `StriateError` or a subclass.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class StriateError(Exception):
    """Base class of all errors that are not bugs of Striate.

    Args:
        what: what failed, with the value.
        why: the reason.
        fix: what to do next.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        message = f"{what}: {why}" if why else what
        stop = "" if message.endswith("?") else "."
        super().__init__(f"{message}{stop} {fix}" if fix else message)


class UsageError(StriateError):
    """Invalid option, argument, model name or value."""

    exit_code = 2


class LayoutError(UsageError, ValueError):
    """Wrong shape or dtype of a tensor or array."""


class DataError(StriateError):
    """Unusable folder, table, image or bundle."""

    exit_code = 3


class WriteError(DataError):
    """Failed to write a file; an existing file is unchanged."""


class DecodeError(DataError):
    """Failed to decode an image file; `why` is the reason in one line."""


class BundleError(DataError):
    """A model file that is damaged, for another task, or not a bundle."""


class TrainingError(StriateError):
    """Training failed, for example because the loss is not finite."""

    exit_code = 4


class StriateWarning(UserWarning):
    """Something that a user of the library should know; the command line prints it in one line."""


INTERNAL_EXIT_CODE = 70  # EX_SOFTWARE in sysexits.h: a bug of Striate, not an error of the user
TERMINATED_EXIT_CODE = 143  # 128 + SIGTERM
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as in shells


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """Create the error for an unknown name, with similar names.

    Args:
        kind: of the name, such as "model".
        name: the unknown name.
        known: all valid names.
        where: how to list all names; if empty, and no name is similar, the message lists them.
    """
    names = list(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    why = f"did you mean {' or '.join(near)}?" if near else f"there is no {kind} of that name"
    fix = where or ("" if near else f"Known: {', '.join(names)}")
    return UsageError(f"unknown {kind} {name!r}", why, fix)
