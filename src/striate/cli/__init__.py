"""The command line: the only place that parses arguments, prints, or exits.

`COMMANDS` is the whole table. The file of a command imports nothing heavy at its top; its function imports
what it needs, so `striate --help` never loads torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer

from striate import strict_json
from striate.cli import help, streams
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


@dataclass(frozen=True)
class Command:
    """One command: its function as `file:function`, and its line in the list of commands."""

    target: str
    summary: str


# In the order of the help. A group is a dict of commands; its line is in GROUPS.
COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": Command(
        "demo:demo", "Train a network on digits or photographs and evaluate it, in about a minute."
    ),
    "train": Command("train:train", "Train an image classifier, evaluate it and write a report."),
    "resume": Command("resume:resume", "Resume a run that was stopped or killed."),
    "tune": Command("tune:tune", "Search for learning rate, weight decay, augmentation and trained layers."),
    "recipes": Command("recipes:recipes", "Show training recipes with their cost and published results."),
    "evaluate": Command("evaluate:evaluate", "Evaluate a model on labelled data."),
    "calibrate": Command("calibrate:calibrate", "Calibrate a classifier's probabilities on labelled images."),
    "compare": Command("compare:compare", "Compare models on the same images, or rank runs."),
    "predict": Command("predict:predict", "Classify images, or recognize the text in them."),
    "embed": Command("embed:embed", "Write the features of images, with their paths and labels."),
    "explain": Command("explain:explain", "Show which parts of an image speak for a class, and test that."),
    "explore": {
        "filters": Command("explore:filters", "Draw the filters of a convolution."),
        "maps": Command("explore:maps", "Draw the feature maps of a layer for an image."),
        "channel": Command("explore:channel", "Find the images that activate a channel most."),
        "nearest": Command("explore:nearest", "Find the training images most similar to an image."),
        "prototypes": Command("explore:prototypes", "Find prototypes and criticisms of each class."),
    },
    "export": Command(
        "export:export", "Export a model to another format (ONNX, CTranslate2, torch.export, .pth)."
    ),
    "view": Command("view:view", "Show all runs of a folder side by side in the browser, live."),
    "check": Command("check:check", "Find broken files, duplicates, leakage, likely label errors, outliers."),
    "detection": Command("detection:detection", "Evaluate an object detector: COCO and Pascal VOC metrics."),
    "seq2seq": {
        "train": Command("seq2seq:train", "Train a Transformer on pairs of texts, or of images and text."),
        "evaluate": Command("seq2seq:evaluate", "Compute BLEU, chrF, character and word error rates."),
        "translate": Command("translate:translate", "Translate texts, or recognize text in images."),
    },
    "anatomy": Command(
        "anatomy:anatomy", "Show output size, receptive field, parameters and MACs of each layer."
    ),
    "weights": {
        "list": Command("weights:list_", "List the published ImageNet weights."),
        "get": Command("weights:get", "Download published weights into torch's cache."),
        "import": Command("weights:import_", "Convert other libraries' weights to a bundle (model file)."),
        "inspect": Command("weights:inspect", "Show the contents of a bundle (model file)."),
    },
    "doctor": Command("doctor:doctor", "Show versions, devices and the image cache; clear the cache."),
}
GROUPS = {
    "explore": "See what a classifier has learned: filters, feature maps, similar images, prototypes.",
    "seq2seq": "Sequence to sequence: translate text, or recognize text in images.",
    "weights": "List, download, import and inspect weights.",
}
# Earlier names, which still work until the next release.
OLD_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("weights", "export"): ("export", "--to", "state-dict"),
    ("seq2seq", "export"): ("export",),
}
_NEED_TORCH = (
    "demo", "train", "resume", "tune", "evaluate", "calibrate", "compare", "predict", "embed", "explain",
    "export",
)  # fmt: skip
_LONGEST_VALUE, _LONGEST_MESSAGE = 80, 400  # characters of what the parser refuses
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
        with translated_errors():
            code = _app(argv)(list(argv), prog_name="striate", standalone_mode=False)
            streams.flush()
        return code if isinstance(code, int) else 0
    except StriateError as error:
        return _print_error(str(error), error.exit_code, argv, error.what, error.why, error.fix)
    except typer.TyperException as error:
        if hasattr(error, "option_name"):
            from striate.cli.unknown_options import unknown_option

            unknown = unknown_option(error, argv)
            return _print_error(str(unknown), 2, argv, unknown.what, unknown.why, unknown.fix)
        command = f"striate {argv[0]}" if argv[0] in COMMANDS else "striate"
        what, fix = _parser_message(error, argv), f"See `{command} --help`"
        return _print_error(f"{what}. {fix}", 2, argv, what, "", fix)
    except (KeyboardInterrupt, typer.Abort):
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
    return help.text((_main.__doc__ or ""), [*single, *GROUPS.items()], width, color=color)


def _needs_torch(argv: Sequence[str]) -> bool:
    """Whether a command line will load torch, as far as the words say."""
    if argv[0] == "predict" and (
        any(word.lower().endswith(".onnx") for word in argv) or _exports_are_cached()
    ):
        return False
    return argv[0] in _NEED_TORCH and "--help" not in argv


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
    words = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    _app(words.split()[1:])(prog_name="striate", complete_var=_COMPLETE)
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


def _parser_message(error: typer.TyperException, argv: Sequence[str]) -> str:
    """The parser's message in one line, with the value that is wrong."""
    text = " ".join((error.format_message() if hasattr(error, "format_message") else str(error)).split())
    for option in getattr(getattr(error, "param", None), "opts", ()):
        if option in argv[:-1]:
            text = f"{option} {argv[argv.index(option) + 1][:_LONGEST_VALUE]}: {text}"
    return text[:_LONGEST_MESSAGE].rstrip(".")


def _app(argv: Sequence[str]) -> typer.Typer:
    """The application with the called command alone, or with all of them for the help."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    app.callback(invoke_without_command=True)(_main)
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
    """Striate: from a folder of images to an evaluated model in one file, with a report."""
    if version:
        from striate.version import __version__

        print(f"striate {__version__}")
        raise typer.Exit
