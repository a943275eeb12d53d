"""What all training commands do: train, evaluate, report, print, exit code."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.progress import Progress
    from striate.training.run_folder import TrainingRun


def run_and_print(training: Callable[[Progress], TrainingRun], as_json: bool) -> int:
    """Train, evaluate, report and print; returns the exit code. After Ctrl-C, evaluates the best epoch."""
    from striate import api
    from striate.cli.console import print_json, watching
    from striate.errors import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE

    code = 0
    with watching() as progress:
        try:
            trained = training(progress)
        except KeyboardInterrupt as stop:
            if not hasattr(stop, "run"):
                raise
            trained = stop.run
            code = TERMINATED_EXIT_CODE if stop.terminated else INTERRUPTED_EXIT_CODE  # type: ignore[attr-defined]
        if not trained.is_main:
            return code  # the main process evaluates and prints
        if code == TERMINATED_EXIT_CODE:
            again = f"resume it with: striate resume {shlex.quote(str(trained.folder))}"
            progress.warn(f"terminated; a checkpoint is saved; {again}")
            return code
        if code == INTERRUPTED_EXIT_CODE:
            progress.warn("interrupted; evaluating the best epoch so far (press Ctrl-C again to skip)")
        run = api.finish(trained)
    if as_json:
        print_json(run.to_json())
    else:
        _print(run, interrupted=code != 0)
    return code


def _print(run: Any, *, interrupted: bool) -> None:
    from striate.cli.console import print_evaluation, print_profile, say

    print_evaluation(run.evaluation)
    if run.training.profile:
        print_profile(run.training.profile)
    say(f"model   {run.best}")
    say(f"report  {run.report}")
    best, allowed = shlex.quote(str(run.best)), _permission(run.training.description.architecture)
    if interrupted:
        say(f"next    striate resume {shlex.quote(str(run.training.folder))}{allowed}")
    elif run.training.description.preprocess is not None:
        say(f"next    striate predict {best} IMAGE.jpg{allowed}")
    else:
        say(f"next    striate seq2seq translate {best} {shlex.quote(run.evaluation.sources[0])}")


def _permission(architecture: str) -> str:
    """The flag that a model needs to be opened, if any; the command line trains networks by name only."""
    from striate.models.references import is_custom

    if not is_custom(architecture):
        return ""
    return f" --trust {architecture.partition(':')[0].partition('.')[0]}"
