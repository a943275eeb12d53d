"""The command line: the only place that parses arguments, prints, or exits.

`COMMANDS` (`commands.py`) is the whole table. The file of a command imports nothing heavy at its top; its
function imports what it needs, so `striate --help` never loads torch.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from striate import strict_json
from striate.cli import help, streams
from striate.cli.commands import COMMANDS, GROUPS, SUMMARY, Command
from striate.cli.swapped import model_first
from striate.errors import (
    INTERNAL_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    StriateError,
    StriateWarning,
    translated_errors,
    unknown_name,
)
from striate.files import cache_folder
from striate.kernels import preload
from striate.printable import escaped

__all__ = ["COMMANDS", "GROUPS", "Command", "run"]

# Earlier names, which still work until the next release.
OLD_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("weights", "export"): ("export", "--to", "state-dict"),
    ("seq2seq", "export"): ("export",),
}
_NEED_TORCH = (
    "demo", "train", "resume", "tune", "evaluate", "calibrate", "compare", "predict", "embed", "explain",
    "export",
)  # fmt: skip
_COMPLETE = "_STRIATE_COMPLETE"  # the shell sets it when it asks for completions


def run(argv: Sequence[str]) -> int:
    """Run one command line, without the program's name; returns the exit code.

    An error of the user is one line on standard error. An unexpected error is one line too, with a traceback
    if the environment variable STRIATE_DEBUG is set. With `--json` the error is also the one JSON object on
    standard output.
    """
    streams.repair()
    # OpenMP threads wait by spinning, which slows down a busy machine. Spinning briefly is as fast on a quiet
    # one (docs/kernels.md). OpenMP reads this when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if _COMPLETE in os.environ:
        return _complete()
    show = warnings.showwarning
    warnings.showwarning = partial(_show_warning, show)
    try:
        argv = _current_names(argv)
        if list(argv) == ["--help"] and (width := help.usual_width()) is not None:
            print(_help(width, color=sys.stdout.isatty()), end="")
            streams.flush()
            return 0
        if _needs_torch(argv):
            preload.load_libraries()
        elif _runs_onnx(argv):  # NumPy's threads, which it does not need, take a third of the processor time
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        with translated_errors():
            code = _call(argv)
            streams.flush()
        return code
    except StriateError as error:
        shown = model_first(error, argv)
        return _print_error(str(shown), shown.exit_code, argv, shown.what, shown.why, shown.fix)
    except KeyboardInterrupt:
        return _print_error("interrupted", INTERRUPTED_EXIT_CODE, argv)
    except BrokenPipeError:  # the program that reads the output has ended, such as `head`
        streams.discard()
        return 141
    except Exception as error:
        if os.environ.get("STRIATE_DEBUG"):
            traceback.print_exc()
        what = f"internal error: {type(error).__name__}: {' '.join(str(error).split())}"
        fix = "This is a bug in Striate: please report it, with the traceback that STRIATE_DEBUG=1 shows"
        return _print_error(f"{what}. {fix}", INTERNAL_EXIT_CODE, argv, what, "", fix)
    finally:
        warnings.showwarning = show


def _help(width: int, *, color: bool) -> str:
    """The help of `striate` itself, as Typer prints it."""
    single = [(name, entry.summary) for name, entry in COMMANDS.items() if isinstance(entry, Command)]
    return help.text(SUMMARY, [*single, *GROUPS.items()], width, color=color)


def _call(argv: Sequence[str]) -> int:
    """Call the function of a command line; returns the exit code.

    Raises:
        UsageError: the arguments are not those of the command.
    """
    has_options = any(word.startswith("-") for word in argv)
    if argv[0] == "predict" and len(argv) > 2 and not has_options:
        from striate.cli import prediction  # importing the parser takes longer than classifying an image

        return prediction.predict(argv[1], argv[2:], prediction.Wanted())
    from striate.cli import parser

    return parser.call(argv)


def _needs_torch(argv: Sequence[str]) -> bool:
    """Whether a command line will load torch, as far as the words say."""
    if _runs_onnx(argv) or (argv[0] == "predict" and _exports_are_cached()):
        return False
    return argv[0] in _NEED_TORCH and "--help" not in argv


def _runs_onnx(argv: Sequence[str]) -> bool:
    """Whether a command line predicts with an ONNX file."""
    return argv[0] == "predict" and any(word.lower().endswith(".onnx") for word in argv)


def _exports_are_cached() -> bool:
    """Whether there are cached exports, of which one may be that of the model."""
    with suppress(OSError), os.scandir(cache_folder() / "exports") as found:
        return next(found, None) is not None
    return False


def _show_warning(show: Callable[..., None], message: Warning, kind: type[Warning], *where: Any) -> None:
    """Print a warning of Striate in one line, without the place in the code."""
    if issubclass(kind, StriateWarning):
        print(f"warning: {escaped(message)}", file=sys.stderr)
    else:
        show(message, kind, *where)


def _current_names(argv: Sequence[str]) -> list[str]:
    """The command line with the current name of its command, or with --help if it names none.

    Raises:
        UsageError: an unknown command.
    """
    if not argv or (len(argv) == 1 and argv[0] in GROUPS):
        return [*argv, "--help"]
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise unknown_name("command", argv[0], COMMANDS, "`striate --help` lists them")
    current = OLD_NAMES.get(tuple(argv[:2]))
    if current is None:
        return list(argv)
    old, new = " ".join(argv[:2]), " ".join(current)
    print(f"note: `striate {old}` is now `striate {new}`; the old name will be removed in the next release",
          file=sys.stderr)  # fmt: skip
    return [*current, *argv[2:]]


def _complete() -> int:
    """Print the completions that the shell asks for; it passes the words in the environment."""
    from striate.cli import parser

    words = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    parser.complete(words.split()[1:], _COMPLETE)
    return 0


def _print_error(
    message: str, code: int, argv: Sequence[str], what: str = "", why: str = "", fix: str = ""
) -> int:
    """Print an error on standard error, and with `--json` on standard output too; returns its exit code."""
    with suppress(OSError, MemoryError):  # the reader may be gone
        print(f"striate: {escaped(message)}", file=sys.stderr)
    if "--json" in argv and os.environ.get("RANK", "0") == "0":  # of several processes one prints
        error = {"message": message, "what": what or message, "why": why, "fix": fix, "exit_code": code}
        with suppress(OSError, MemoryError):
            print(strict_json.dumps({"error": error}, indent=2, ascii_only=True), flush=True)
    with suppress(OSError, StriateError):
        streams.flush()
    return code
