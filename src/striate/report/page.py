"""One HTML page about a run or an evaluation: everything is in the file, nothing is fetched."""

from __future__ import annotations

import base64
from pathlib import Path
from shlex import quote

import yaml
from matplotlib.figure import Figure

import striate
from striate.files import write_atomic
from striate.inference.evaluation import Evaluation
from striate.report import figures
from striate.report.augmented import augmented
from striate.report.templates import template
from striate.training.folder import TrainedRun
from striate.training.profile import shares


def write_report(evaluation: Evaluation, folder: Path, *, model: str, run: TrainedRun | None = None) -> Path:
    """Write `report.html` and its figures as PNG files into a folder.

    Args:
        evaluation: of the held-out images.
        folder: made if need be.
        model: path of the bundle, for the commands that the page shows.
        run: the training run, where the page is about one.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder cannot be written to.
    """
    drawn: dict[str, Figure | None] = {
        "curves": figures.curves(run.epochs, run.best_epoch) if run is not None and run.epochs else None,
        "confusion": figures.confusion(evaluation),
        "calibration": figures.calibration(evaluation),
        "mistakes": figures.worst_mistakes(evaluation),
        "augmented": augmented(run) if run is not None else None,
    }
    images = {name: figures.png(figure) for name, figure in drawn.items() if figure is not None}
    for name, image in images.items():
        write_atomic(folder / f"{name}.png", image)
    page = folder / "report.html"
    write_atomic(page, render(evaluation, images, model, run).encode("utf-8", "replace"))
    return page


def render(evaluation: Evaluation, images: dict[str, bytes], model: str, run: TrainedRun | None) -> str:
    """The text of the page."""
    urls = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in images.items()}
    known = dict.fromkeys(("curves", "confusion", "calibration", "mistakes", "augmented"))
    return template("page.html").render(
        title=run.folder.name if run else f"{Path(model).name} on {evaluation.data}",
        subtitle=_subtitle(run) if run else f"Measured on {evaluation.what} of {evaluation.data}",
        e=evaluation,
        cards=_cards(run) if run else [],
        notes=_notes(evaluation, run),
        figures={**known, **urls},
        problems=[*(run.problems if run else ()), *evaluation.problems],
        commands=_commands(model, evaluation),
        profile=shares(run.profile) if run and run.profile else [],
        run=run,
        recipe=_recipe(run) if run else "",
        config=yaml.safe_dump(run.config.to_json(), sort_keys=False, allow_unicode=True) if run else "",
        version=striate.__version__,
        percent=lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%",
    )


def _subtitle(run: TrainedRun) -> str:
    height, width = run.description.contract.size
    return (
        f"{run.config.model} on {run.description.provenance['data']}: {run.train:,} training images of "
        f"{width}×{height} px, {len(run.dataset.classes)} classes"
    )


def _recipe(run: TrainedRun) -> str:
    config = run.config
    mixed = [
        f"{name} {value:g}" for name, value in (("MixUp", config.mixup), ("CutMix", config.cutmix)) if value
    ]
    return ", ".join([str(config.to_json()["augment"]), *mixed])


def _cards(run: TrainedRun) -> list[tuple[str, str]]:
    return [
        (f"{len(run.epochs)}", f"epochs, best is {run.best_epoch}"),
        (f"{run.seconds:,.0f} s", "from start to end"),
        (f"{run.images_per_second:,.0f}", "training images a second"),
    ]


def _notes(evaluation: Evaluation, run: TrainedRun | None) -> list[str]:
    notes = [*(run.notes if run else ()), *evaluation.notes]
    if evaluation.missing_classes:
        notes.append(f"No {evaluation.what} of: {', '.join(evaluation.missing_classes)}")
    for name, count in evaluation.extra_classes.items():
        notes.append(f"The model does not know the class {name!r}: its {count} images were not measured")
    return list(dict.fromkeys(notes))


def _commands(model: str, evaluation: Evaluation) -> list[str]:
    return [
        f"striate predict {quote(model)} PHOTO.jpg",
        f"striate evaluate {quote(model)} --data {quote(evaluation.data)}",
        f"striate weights inspect {quote(model)}",
    ]
