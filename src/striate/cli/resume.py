"""`striate resume`: any run, of any task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Json, Trust, with_options
from striate.printable import counted
from striate.training.config import EXTENDING, RunConfig

if TYPE_CHECKING:
    from striate.progress import Progress


@with_options(
    RunConfig, only={*RunConfig.FREE, *EXTENDING} - {"out", "name"}, default="as in the original run"
)
def resume(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    data: Annotated[str | None, typer.Option(help="New path of the dataset, if it has moved.")] = None,
    trust: Trust = "",
    as_json: Json = False,
    *,
    options: dict[str, Any],
) -> int:
    """Resume a run that was stopped or killed, or train a finished one for longer.

    With the same CPU and software, it ends with the weights of an uninterrupted run, bit for bit. On GPUs
    this is not guaranteed. --epochs or --budget give the run a new length: the learning rate schedule is then
    computed anew.

    Python: striate.resume("runs/flowers-resnet18", epochs=40)
    """
    return resume_run(run, {"data": data, **({"trust": trust} if trust else {}), **options}, as_json)


def resume_run(run: str, options: dict[str, Any], as_json: bool) -> int:
    """Resume a run with the options that the user gave, and print the result."""
    from striate import api
    from striate.cli.console import print_json, say
    from striate.cli.running import run_and_print
    from striate.files import expanded, probe
    from striate.tasks import entry
    from striate.training import checkpoint
    from striate.training.config_file import TUNING, read_config

    folder = expanded(run)
    if probe(folder / TUNING) is not None:
        return run_and_print(lambda progress: _resume_several(folder, progress, options), as_json)
    config = read_config(folder, lambda task: entry(task).find("config"))  # refuses what is not a run
    if entry(config["task"]).find("config").describes_several(config):
        return run_and_print(lambda progress: _resume_several(folder, progress, options), as_json)
    values = checkpoint.finished(folder)
    extended = any(options.get(name) not in (None, config.get(name)) for name in EXTENDING)
    if values is not None and not extended and probe(folder / "report.html") is not None:
        best = next(row for row in values["rows"] if row["epoch"] == values["best_epoch"])
        metrics = {name: v for name, v in best.items() if name.startswith("val_") and v is not None}
        if as_json:
            print_json({"run": run, "finished": True, "epochs": len(values["rows"]), **metrics})
        else:
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
            say(
                f"{run} is finished: {counted(len(values['rows']), 'epoch')}; best epoch "
                f"{values['best_epoch']} ({figures}). There is nothing to resume; --epochs N trains it for "
                f"longer. Report: {folder / 'report.html'}"
            )
        return 0
    return run_and_print(lambda progress: api.resume_training(run, progress, **options), as_json)


def _resume_several(folder: Path, progress: Progress, options: dict[str, Any]) -> Any:
    from striate import api
    from striate.studies import whole
    from striate.tasks import entry

    changed = {**options, "progress": progress}
    return whole.resume(folder, lambda task: entry(task).find("config"), changed, api.trainer())
