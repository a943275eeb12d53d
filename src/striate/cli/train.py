"""`striate train`: image classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Config, Json, with_options
from striate.tasks.classification.config import ClassificationConfig

if TYPE_CHECKING:
    from striate.progress import Progress

_DATA = (
    "Folder with one folder per class (with or without train/val/test above them), a .zip or .tar of such a "
    "folder, WebDataset shards, CSV or TSV, .npz, a folder of idx files, or `digits`."
)


@with_options(ClassificationConfig)
def train(
    context: typer.Context,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=_DATA)] = None,
    data_flag: Annotated[
        str | None, typer.Option("--data", help="The same as the argument DATA.", rich_help_panel="Data")
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Run a learning rate range test instead of training.")
    ] = False,
    resume: Annotated[str | None, typer.Option(help="Resume the run in this folder.")] = None,
    config: Config = None,
    as_json: Json = False,
    *,
    options: dict[str, Any],
) -> int:
    """Train a network on a folder of images, evaluate it, and write a report.

    Python: striate.train("flowers/", model="resnet18", epochs=20)
    """
    from striate.errors import UsageError

    if resume is not None:
        from striate.cli.resume import resume_run

        if config is not None:
            raise UsageError(
                "--resume with --config", "a resumed run has its options", "Leave one of them out"
            )
        return resume_run(resume, {"data": data or data_flag, **options}, as_json)
    if data is not None and data_flag is not None:
        raise UsageError("two datasets", f"{data!r} and {data_flag!r}", "Give one folder")
    if data is None and data_flag is None and config is None:
        raise UsageError("no data to train on", "", "Give a folder, or --config with that of a run")
    options |= {"task": "classification", "config": config}
    return (_find_lr if find_lr else train_and_print)(data or data_flag, options, as_json)


def train_and_print(data: Any, options: dict[str, Any], as_json: bool) -> int:
    """Train with the options that the user gave, and print the result."""
    from striate import api
    from striate.cli.running import run_and_print

    def begin(progress: Progress) -> Any:
        config = api.configure(data, {**options, "progress": progress})
        if not config.is_repeated:
            return api.run_training(config)
        from striate.studies import whole

        return whole.train(config, api.trainer())

    return run_and_print(begin, as_json)


def _find_lr(data: Any, options: dict[str, Any], as_json: bool) -> int:
    from striate import api
    from striate.cli.console import print_json, watching
    from striate.report.lr_search import write_lr_search
    from striate.tasks import entry
    from striate.training.lr_finder import find_lr

    with watching() as progress:
        config = api.configure(data, {**options, "progress": progress})
        found = find_lr(entry(config.task).find("task"), config)
        picture = write_lr_search(found)
    if as_json:
        print_json({**found.to_json(), "picture": str(picture)})
        return 0
    print(f"learning rate  {found.lr:.2g}  (a tenth of the rate with the lowest loss, {found.lowest:.2g})")
    print(f"curve          {picture}")
    print(f"next           the same command with --lr {found.lr:.2g} instead of --find-lr")
    return 0
