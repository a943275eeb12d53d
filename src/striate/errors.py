"""The exceptions of Striate and their exit codes.

A message says what failed, why, and what to do next, in one line. The command line prints it and exits with
`exit_code`; Python code catches `StriateError` or a subclass.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
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


class TrustError(UsageError):
    """A file names code that the caller has not allowed, or that only the caller has."""


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


class ResourceError(StriateError):
    """Out of memory, threads or file descriptors."""

    exit_code = 4


def share_meant(percent: float) -> str:
    """The fraction of one that a number in percent stands for, as a question; empty if it is none."""
    return f"Did you mean {percent / 100:g}?" if 2 <= percent < 100 else ""


class StriateWarning(UserWarning):
    """Something that a user of the library should know; the command line prints it in one line."""


INTERNAL_EXIT_CODE = 70  # EX_SOFTWARE in sysexits.h: a bug of Striate, not an error of the user
TERMINATED_EXIT_CODE = 143  # 128 + SIGTERM
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as in shells


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """Create the error for an unknown name, with similar names.

    Args:
        kind: of the name, such as "model", or "value for --opt".
        name: the unknown name.
        known: all valid names.
        where: how to list all names; if empty, and no name is similar, the message lists them.
    """
    names = list(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    why = f"did you mean {' or '.join(near)}?" if near else "there is none of that name"
    fix = where or ("" if near else f"Known: {', '.join(names)}")
    return UsageError(f"unknown {kind} {name!r}", why, fix)


# What to do about an error of the operating system.
_FIXES = {
    errno.EACCES: "Check the permissions of the path and of its parent folders",
    errno.EPERM: "Check the permissions of the path and of its parent folders",
    errno.ENOENT: "Check the spelling of the path",
    errno.ENOTDIR: "A part of the path is a file; check its spelling",
    errno.EISDIR: "Give a file",
    errno.ENAMETOOLONG: "Use a shorter path",
    errno.ELOOP: "Repair the symbolic links, which lead to each other",
    errno.EROFS: "Choose a folder that can be written to",
    errno.ENOSPC: "Free some disk space, or choose another folder",
    errno.EDQUOT: "Free some of your disk quota, or choose another folder",
    errno.EFBIG: "Raise the limit of the size of files (`ulimit -f`), or choose another folder",
    errno.EIO: "Check the disk and its connection",
}
_TOO_FEW = {
    errno.EMFILE: ("too many open files", "Raise the limit with `ulimit -n 4096`"),
    errno.ENFILE: ("too many open files on this machine", "Close other programs"),
    errno.ENOMEM: ("out of memory", "Close other programs, or use a smaller --batch or fewer --workers"),
    errno.EAGAIN: ("cannot start another process or thread", "Use fewer --workers, or raise `ulimit -u`"),
}
_NO_MEMORY = (
    "out of memory", "not enough memory", "allocate memory", "bad_alloc", "failed to map segment",
    "unable to allocate", "can't allocate",
)  # fmt: skip
# Packages that an installation for prediction alone does not have (docs/export.md), by the names of modules.
_LEFT_OUT = {
    "torch": "torch", "sklearn": "scikit-learn", "scipy": "scikit-learn", "matplotlib": "matplotlib",
    "jinja2": "Jinja2",
}  # fmt: skip
_INTERPRETER = "error return without exception set"  # Python had no memory left for a MemoryError
_ONEDNN = "could not create a primitive"  # with "descriptor" after it: an operator that is not supported


def access_error(
    error: OSError, what: str = "", fix: str = "", kind: type[DataError] = DataError
) -> StriateError:
    """The error for a file or folder that the operating system refuses.

    Args:
        error: of the operating system.
        what: what failed; by default the access to the path that `error` names.
        fix: what to do, unless the reason says that.
        kind: class of the error if it concerns this path rather than the limits of the process.
    """
    if error.errno in _TOO_FEW:
        why, fix = _TOO_FEW[error.errno]
        return ResourceError(what or "cannot continue", why, fix)
    path = error.filename2 or error.filename
    named = (
        f"cannot access {os.fsdecode(path)!r}" if isinstance(path, (str, bytes)) else "cannot read or write"
    )
    why = error.strerror or " ".join(str(error).split())
    return kind(what or named, f"{why[:1].lower()}{why[1:]}", _FIXES.get(error.errno or 0, fix))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; torch and the libraries below it have no exception class for that on a CPU."""
    text = " ".join(str(error).split())
    if isinstance(error, SystemError):
        return text == _INTERPRETER
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, ImportError))
        and (text == _ONEDNN or any(words in text.lower() for words in _NO_MEMORY))
    )


def environment_error(error: BaseException) -> StriateError | None:
    """The StriateError for an exception that the machine causes (files, memory, threads), else None."""
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, BrokenPipeError):
        return access_error(error)
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        why, fix = _TOO_FEW[errno.ENOMEM]
        return ResourceError(why, text[:200], fix)
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return ResourceError("cannot continue", *_TOO_FEW[errno.EAGAIN])
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _LEFT_OUT:
        package = _LEFT_OUT[(error.name or "").partition(".")[0]]
        fix = "Install Striate with its dependencies; without them it predicts with .onnx files"
        return UsageError(f"this needs {package}", "it is not installed here", fix)
    if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in text:
        return ResourceError("cannot continue", *_TOO_FEW[errno.EMFILE])
    if isinstance(error, RuntimeError) and text.startswith("Symlink loop from"):  # by pathlib before 3.13
        return DataError("cannot access a path", text, _FIXES[errno.ELOOP])
    # Standard output takes any letter (cli/streams.py), so this is a path.
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        why = f"this locale has no letters beyond {error.encoding}"
        return DataError(f"cannot access {error.object!a}", why, "Set LC_ALL=C.UTF-8")
    if isinstance(error, ValueError) and "embedded null" in text:
        return DataError("cannot open a path", "it contains a zero byte", "Check the spelling of the path")
    return None


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """A context, or a decorator, in which exceptions that the machine causes become StriateErrors."""
    try:
        yield
    except StriateError:
        raise
    except Exception as error:
        translated = environment_error(error)
        if translated is None:
            raise
        raise translated from error
