"""The page of a search for options: the best ones as a command, and the table of trials."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from striate.report.reproduce import command
from striate.sections import Card, Cell, Column, Listing, Phrase, Report, Section, Table, Text
from striate.studies.trials import Trial
from striate.studies.tuning import Tuning


def describe(found: Tuning) -> Report:
    """Describe a search as a report."""
    data, config = Path(found.config.source).name, found.config
    return Report(
        title=found.folder.name,
        subtitle=Phrase("Search for options: {model} on {data}", model=config.model, data=data),
        sections=(_best(found), _trials(found)),
        cards=tuple(_cards(found)),
        warnings=warnings(found),
        commands=(f"striate predict {quote(str(found.model))} PHOTO.jpg",),
    )


def warnings(found: Tuning) -> tuple[Phrase, ...]:
    """What a reader of the best options must know: whether they are better than the defaults at all."""
    if not found.is_better:
        return (Phrase("No trial is better than the default options on the validation images."),)
    best, default = found.evaluations
    if best.split == "test" and main_metric(best)[1] <= main_metric(default)[1]:
        return (
            Phrase(
                "The best options are better than the defaults on the validation images, but not on the test "
                "images: the difference may be chance."
            ),
        )
    return ()


def best_command(found: Tuning) -> str:
    """The command line that trains with the best options."""
    return command(found.chosen)


def table(found: Tuning) -> list[Trial]:
    """The trials, the best first: whole runs before shorter ones."""
    return sorted(found.trials, key=lambda trial: (trial.rung, trial.order), reverse=True)


def main_metric(evaluation: Any) -> tuple[str, float, tuple[float, float] | None]:
    """Name, value and 95 % interval of the first metric of an evaluation."""
    found = evaluation.headline()
    name = next(name for name, value in found.items() if isinstance(value, float))
    ends = found.get(f"{name}_ci")
    return name, found[name], None if ends is None else (ends[0], ends[1])


def _cards(found: Tuning) -> list[Card]:
    monitor, split = found.plan.monitor, Phrase(found.evaluations[0].split)
    name, best, ends = main_metric(found.evaluations[0])
    _, default, others = main_metric(found.evaluations[1])
    shown, spec = {"split": split, "metric": name}, _format(monitor)
    return [
        Card(found.best.value, Phrase("val {monitor}, best options", monitor=monitor), spec),
        Card(found.default.value, Phrase("val {monitor}, default options", monitor=monitor), spec),
        Card(best, Phrase("{split} {metric}, best options", **shown), ".1%", interval=ends),
        Card(default, Phrase("{split} {metric}, default options", **shown), ".1%", interval=others),
        Card(len({trial.trial for trial in found.trials}) - 1, Phrase("trials besides the defaults"), ",d"),
    ]


def _format(monitor: str) -> str:
    """Every metric that a search can monitor is a fraction, except the loss."""
    return ".4f" if monitor == "loss" else ".1%"


def _best(found: Tuning) -> Section:
    text = Text(
        Phrase(
            "config.yaml in this folder holds the same options, for `striate train --config`. The best of "
            "many trials is best by chance in part, so its validation metric is slightly optimistic."
        ),
        secondary=True,
    )
    items = tuple((name.replace("_", " "), str(value)) for name, value in found.best.options.items())
    return Section(Phrase("Best options"), (Listing(items, best_command(found)), text))


def _trials(found: Tuning) -> Section:
    columns = (
        Column(Phrase("trial"), "d"), Column(Phrase("epochs"), "d"),
        Column(found.plan.monitor, _format(found.plan.monitor)), Column(Phrase("learning rate"), ".2g"),
        Column(Phrase("weight decay"), ".2g"), Column(Phrase("augmentation")),
        Column(Phrase("trained layers")), Column(Phrase("best epoch"), "d"),
        Column(Phrase("seconds"), ",.0f"),
    )  # fmt: skip
    rows = tuple(_row(trial) for trial in table(found))
    note = Phrase(
        "Successive halving: all trials start with few epochs, and the best third of each length is trained "
        "anew with three times as many. Empty cells are the defaults; trial 0 has only defaults."
    )
    return Section(Phrase("Trials"), (Table(columns, rows),), note)


def _row(trial: Trial) -> tuple[Cell, ...]:
    return (
        trial.trial, trial.epochs, trial.value, trial.lr, trial.weight_decay, trial.augment, trial.transfer,
        trial.best_epoch or None, trial.seconds,
    )  # fmt: skip
