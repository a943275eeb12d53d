"""What all training commands do: train, evaluate, report, print, exit code."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from striate.progress import Progress
    from striate.studies.repeats import Repeats
    from striate.studies.tuning import Tuning
    from striate.training.run_folder import TrainingRun

_SHOWN_TRIALS = 12


def run_and_print(training: Callable[[Progress], TrainingRun | Repeats | Tuning], as_json: bool) -> int:
    """Train, evaluate, report and print; returns the exit code. After Ctrl-C, evaluates the best epoch.

    Args:
        training: one run without its evaluation, or several whole runs.
        as_json: whether to print JSON.
    """
    from striate.cli.console import print_json, watching
    from striate.errors import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE

    code = 0
    with watching() as progress:
        try:
            trained = training(progress)
        except KeyboardInterrupt as stop:
            if hasattr(stop, "folder"):
                return interrupted_study(stop, progress)
            if not hasattr(stop, "run"):
                raise
            trained = stop.run
            code = TERMINATED_EXIT_CODE if stop.terminated else INTERRUPTED_EXIT_CODE  # type: ignore[attr-defined]
        from striate.studies.repeats import Repeats  # these load torch, as training has
        from striate.studies.tuning import Tuning

        result = trained if isinstance(trained, (Repeats, Tuning)) else _evaluate(trained, code, progress)
    if result is None:
        return code
    if as_json:
        print_json(result.to_json())
    elif isinstance(result, Repeats):
        _print_repeats(result)
    elif isinstance(result, Tuning):
        _print_tuning(result)
    else:
        _print(result, interrupted=code != 0)
    return code


def _evaluate(trained: TrainingRun, code: int, progress: Progress) -> Any:
    """The evaluated run; None if another process evaluates it, or if there is no time."""
    from striate import api
    from striate.errors import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE

    if not trained.is_main:
        return None  # the main process evaluates and prints
    if code == TERMINATED_EXIT_CODE:
        again = f"resume it with: striate resume {shlex.quote(str(trained.folder))}"
        progress.warn(f"terminated; a checkpoint is saved; {again}")
        return None
    if code == INTERRUPTED_EXIT_CODE:
        progress.warn("interrupted; evaluating the best epoch so far (press Ctrl-C again to skip)")
    return api.finish(trained)


def interrupted_study(stop: Any, progress: Progress) -> int:
    """Say how to continue a study that a signal has stopped; returns the exit code."""
    from striate.errors import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE

    progress.warn(f"interrupted; resume it with: striate resume {shlex.quote(str(stop.folder))}")
    return TERMINATED_EXIT_CODE if stop.terminated else INTERRUPTED_EXIT_CODE


def _print_repeats(found: Repeats) -> None:
    from striate.cli.console import interval, percent, say
    from striate.studies.repeats_report import labels

    for name, (label, spec) in labels(found).items():
        one = found.spreads[name]
        show = percent if spec.endswith("%") else "{:.4f}".format
        ends = (
            " (95 % interval –: the runs do not differ)"
            if one.std == 0
            else interval((one.low, one.high), show)
        )
        say(f"mean {label}  {show(one.mean)}{ends}")
    say(f"intervals  {found.method}")
    for run in found.runs:
        name, value = next(iter(run.metrics.items()))
        say(f"run     {run.folder}  {name} {value:.4f} on {run.n:,}")
    say(f"report  {found.report}")


def _print_tuning(found: Tuning) -> None:
    from striate.cli.console import say
    from striate.studies.tuning_report import best_command, main_metric, table, warnings

    columns = f"{'lr':>8} {'decay':>8}  augment   transfer  seconds"
    say(f"{'trial':>5} {'epochs':>6} {found.plan.monitor:>9} {columns}")
    for trial in table(found)[:_SHOWN_TRIALS]:
        value = "failed" if trial.value is None else f"{trial.value:.4f}"
        lr, decay = (f"{v:.2g}" if v is not None else "default" for v in (trial.lr, trial.weight_decay))
        others = f"{trial.augment or 'default':9} {trial.transfer or 'default':9}"
        say(f"{trial.trial:5} {trial.epochs:6} {value:>9} {lr:>8} {decay:>8}  {others} {trial.seconds:7.1f}")
    if len(found.trials) > _SHOWN_TRIALS:
        say(f"... and {len(found.trials) - _SHOWN_TRIALS} more in {found.folder / 'trials.csv'}")
    default, (best, other) = found.default, found.evaluations
    say(f"val {found.plan.monitor}  {found.best.value:.4f}, with the default options {default.value:.4f}")
    metric, reached, _ = main_metric(best)
    say(f"{best.split} {metric}  {reached:.4f}, with the default options {main_metric(other)[1]:.4f}")
    for warning in warnings(found):
        say(warning)
    say(f"model   {found.model}")
    say(f"config  {found.folder / 'config.yaml'}")
    say(f"report  {found.report}")
    say(f"next    {best_command(found)}")


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
