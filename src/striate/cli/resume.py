"""`striate resume`, and what it shares with `striate train`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from striate.progress import Progress
    from striate.training.folder import TrainedRun


def resume(
    run: Annotated[str, typer.Argument(help="Folder of a run that was stopped or killed.")],
    data: Annotated[str | None, typer.Option(help="Where the images lie now.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", "-j", help="Threads that decode.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps from one saved state to the next.")] = None,
    rollbacks: Annotated[
        int | None, typer.Option(help="Times to go back, with half the rate, when the loss is not finite.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Go on with a run that was stopped or killed, to the same weights as if it had not been.

    Python: striate.resume("runs/flowers-resnet18")
    """
    options = {
        "data": data, "device": device, "workers": workers, "save_every": save_every, "rollbacks": rollbacks
    }  # fmt: skip
    return go_on(run, options, as_json)


def go_on(run: str, options: dict[str, Any], as_json: bool) -> int:
    """Resume a run, with the options that the user named."""
    from striate.cli.console import print_json
    from striate.cli.seq2seq import go_on_with_pairs
    from striate.training import saved
    from striate.training.seq2seq.config import is_run_on_pairs

    folder = Path(run).expanduser()
    if is_run_on_pairs(folder):
        return go_on_with_pairs(run, options, as_json)
    values = saved.finished(folder)
    if values is not None and (folder / "report.html").exists():
        best = {row["epoch"]: row["val_top1"] for row in values["rows"]}[values["best_epoch"]]
        if as_json:
            print_json({"run": run, "finished": True, "epochs": len(values["rows"]), "val_top1": best})
        else:
            print(
                f"{run} is finished: {len(values['rows'])} epochs, val top-1 {best:.4f} in epoch "
                f"{values['best_epoch']}. There is nothing to resume; its report is {folder / 'report.html'}"
            )
        return 0
    from striate.training.session import resume as resume_training

    return show(lambda progress: resume_training(run, progress, **options), as_json)


def show(training: Callable[[Progress], TrainedRun], as_json: bool) -> int:
    """Train, measure, report and print; returns the exit code."""
    from striate.cli.console import print_evaluation, print_json, print_profile, watching
    from striate.errors import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE
    from striate.training.interrupts import TrainingInterrupted

    interrupted = False
    with watching() as progress:
        try:
            trained = training(progress)
        except TrainingInterrupted as stop:
            trained, interrupted = stop.run, True
            if not trained.leads:
                return TERMINATED_EXIT_CODE if stop.terminated else INTERRUPTED_EXIT_CODE
            again = f"go on with it: striate resume {shlex.quote(str(trained.folder))}"
            if stop.terminated:
                progress.warn(f"terminated; what was reached is saved; {again}")
                return TERMINATED_EXIT_CODE
            progress.warn("interrupted; measuring and reporting what was reached (Ctrl-C again to leave it)")
        if not trained.leads:
            return 0  # the first of the processes measures and tells
        from striate.runs import finish

        run = finish(trained, progress)
    if as_json:
        print_json(run.to_json())
    else:
        print_evaluation(run.evaluation)
        if trained.profile:
            print_profile(trained.profile)
        print(f"model   {run.best}")
        print(f"report  {run.report}")
        if interrupted:
            print(f"next    striate resume {shlex.quote(str(trained.folder))}")
        else:
            print(f"next    striate predict {shlex.quote(str(run.best))} PHOTO.jpg")
    return INTERRUPTED_EXIT_CODE if interrupted else 0
