"""`striate tune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from striate.cli.options import Config, Json, with_options
from striate.tasks.classification.config import ClassificationConfig

if TYPE_CHECKING:
    from striate.progress import Progress

_NOT_FOR_TRIALS = {"budget", "folds", "seeds", "callbacks"}
_OPTIONS = {name for name in ClassificationConfig.__dataclass_fields__ if name not in _NOT_FOR_TRIALS}
_BUDGET = typer.Option(help="Time limit for all trials, such as 30m.", show_default="30m; none with --trials")
_TRIALS = typer.Option(help="Largest number of trials.", min=1, max=100_000, show_default="no limit")


@with_options(ClassificationConfig, only=_OPTIONS)
def tune(
    context: typer.Context,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="As for `striate train`.")] = None,
    budget: Annotated[str | None, _BUDGET] = None,
    trials: Annotated[int | None, _TRIALS] = None,
    config: Config = None,
    as_json: Json = False,
    *,
    options: dict[str, Any],
) -> int:
    """Search for the learning rate, weight decay, augmentation and trained layers that suit a dataset.

    Successive halving on the validation images. All other options are those of `striate train`; what you give
    is not searched. Layers are frozen only with --weights. `striate resume` continues a search.

    Python: striate.tune("flowers/", budget="30m")
    """
    from striate import api
    from striate.cli.running import run_and_print

    def search(progress: Progress) -> Any:
        given = {**options, "config": config, "progress": progress}
        return api.tune(data, budget=budget, trials=trials, **given)

    return run_and_print(search, as_json)
