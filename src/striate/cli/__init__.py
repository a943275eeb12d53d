"""The command line: the only place that parses arguments, prints, or exits.

`COMMANDS` is the whole table. A command's file imports nothing heavy at its top; what the command needs
is imported inside its function, so that `striate --help` never loads torch.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import typer

from striate.errors import INTERNAL_EXIT_CODE, INTERRUPTED_EXIT_CODE, StriateError, unknown_name
from striate.kernels import preload


@dataclass(frozen=True)
class Command:
    """One command: `module:function`, and its line in the list of commands."""

    target: str
    line: str


# In the order of the help. A group is a dict of its own commands, with its line in GROUPS.
COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": Command("striate.cli.demo:demo", "Train on handwritten digits, in a minute, as a first look."),
    "train": Command("striate.cli.train:train", "Train a network on a folder of images, and report."),
    "resume": Command("striate.cli.resume:resume", "Go on with a run that was stopped or killed."),
    "recipes": Command("striate.cli.recipes:recipes", "Show the ways to train from the literature."),
    "evaluate": Command("striate.cli.evaluate:evaluate", "Measure a model on labelled images."),
    "predict": Command("striate.cli.predict:predict", "Name what is in images."),
    "check": Command("striate.cli.check:check", "Find what is wrong with a data set, before training."),
    "detection": Command("striate.cli.detection:detection", "Measure a detector as COCO and VOC do."),
    "seq2seq": {
        "train": Command(
            "striate.cli.seq2seq:train", "Train on pairs of texts, or of images and their text."
        ),
        "evaluate": Command("striate.cli.seq2seq:evaluate", "BLEU, chrF, exact match and error rates."),
        "translate": Command("striate.cli.translate:translate", "Write what texts, or images, become."),
        "export": Command("striate.cli.seq2seq_export:export", "For CTranslate2, or as programs of torch."),
    },
    "anatomy": Command("striate.cli.anatomy:anatomy", "Show what each layer does to size, sight and cost."),
    "weights": {
        "list": Command("striate.cli.weights:list_", "List the official ImageNet weights."),
        "get": Command("striate.cli.weights:get", "Download official weights into torch's cache."),
        "import": Command(
            "striate.cli.weights:import_", "Make a bundle of a .pth or .safetensors of others."
        ),
        "inspect": Command("striate.cli.weights:inspect", "Print what a model file says of itself."),
        "export": Command("striate.cli.weights:export", "Write a bundle's weights as a plain .pth."),
    },
    "doctor": Command("striate.cli.doctor:doctor", "Show versions, devices and the cache; empty the cache."),
}
GROUPS = {
    "seq2seq": "Text to text, and the text in images: train, measure, use.",
    "weights": "Get, import, look into and export weights.",
}
_LEARN = ("demo", "train", "resume", "evaluate", "predict")  # those that torch is loaded for, whatever comes


def run(argv: Sequence[str]) -> int:
    """Run one command line, without the program's name; returns the exit code.

    A user's mistake is one line on standard error. Anything unforeseen is one line too, and a traceback
    where the environment variable STRIATE_DEBUG is set. With `--json` the mistake is also the one JSON object
    on standard output.
    """
    _mend_streams()
    # OpenMP's threads wait for each other by spinning, which takes most of the time on a busy machine. A
    # short while of it does as well on a quiet one (docs/training.md). This is read when torch is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if not argv or (len(argv) == 1 and argv[0] in GROUPS):
        argv = [*argv, "--help"]
    try:
        if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
            raise unknown_name("command", argv[0], COMMANDS, "`striate --help` lists them")
        if argv[0] in _LEARN and "--help" not in argv:
            preload.load_libraries()
        code = _app(argv)(list(argv), prog_name="striate", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except StriateError as error:
        return _complain(str(error), error.exit_code, argv, error.what, error.why, error.fix)
    except typer.TyperException as error:
        command = " ".join(["striate", *argv[:1]] if argv and argv[0] in COMMANDS else ["striate"])
        sentence, fix = _sentence(error, argv), f"See `{command} --help`"
        return _complain(f"{sentence}. {fix}", 2, argv, sentence, "", fix)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", INTERRUPTED_EXIT_CODE, argv)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # either may be the one, and both are flushed at the end
            os.dup2(nowhere, stream.fileno())
        return 141
    except Exception as error:
        if os.environ.get("STRIATE_DEBUG"):
            traceback.print_exc()
        what = f"internal error: {type(error).__name__}: {' '.join(str(error).split())}"
        fix = "This is a bug of Striate; set STRIATE_DEBUG=1 to see where, and please report it"
        return _complain(f"{what}. {fix}", INTERNAL_EXIT_CODE, argv, what, "", fix)


def _mend_streams() -> None:
    """Let output go nowhere where a stream was closed (`2>&-`), and names of any bytes pass as they are."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="surrogateescape")


def _complain(
    message: str, code: int, argv: Sequence[str], what: str = "", why: str = "", fix: str = ""
) -> int:
    """Tell of an error on standard error, and with `--json` on standard output too; answers its exit code."""
    with suppress(OSError):  # nobody may be reading
        print(f"striate: {message}", file=sys.stderr)
    if "--json" in argv and os.environ.get("RANK", "0") == "0":  # of several processes one prints
        error = {"message": message, "what": what or message, "why": why, "fix": fix, "exit_code": code}
        with suppress(OSError):
            print(json.dumps({"error": error}, indent=2), flush=True)
    return code


def _sentence(error: typer.TyperException, argv: Sequence[str]) -> str:
    """The parser's message in one line, with the value that it does not like."""
    text = " ".join((error.format_message() if hasattr(error, "format_message") else str(error)).split())
    for option in getattr(getattr(error, "param", None), "opts", ()):
        if option in argv[:-1]:
            text = f"{option} {argv[argv.index(option) + 1]}: {text}"
    return text.rstrip(".")


def _app(argv: Sequence[str]) -> typer.Typer:
    """The application with the one command that is asked for, or with all of them for the help."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode="rich")
    app.callback(invoke_without_command=True)(_main)
    called = bool(argv) and argv[0] in COMMANDS
    for name in argv[:1] if called else COMMANDS:
        entry = COMMANDS[name]
        if isinstance(entry, Command):
            app.command(name, short_help=entry.line)(_function(entry) if called else _listed)
        else:
            group = typer.Typer(no_args_is_help=True, help=GROUPS[name])
            for sub, command in entry.items():
                group.command(sub, short_help=command.line)(_function(command) if called else _listed)
            app.add_typer(group, name=name)
    return app


def _function(command: Command) -> Callable[..., int | None]:
    module, name = command.target.split(":")
    function: Callable[..., int | None] = getattr(importlib.import_module(module), name)
    return function


def _listed() -> None:
    """Stands in the list of commands for one that is not called, so that its file is not loaded."""


def _main(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Striate: from a folder of images to a measured, explained, portable model."""
    if version:
        import striate

        print(f"striate {striate.__version__}")
        raise typer.Exit
