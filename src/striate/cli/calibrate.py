"""`striate calibrate`: make a classifier's probabilities as often right as they say."""

from __future__ import annotations

from typing import Annotated

import typer

from striate.cli.options import LABEL_COLUMN, PATH_COLUMN, Batch, Device, Json, Model, Trust, Workers

_DATA = "Labeled images that the model was not trained on; by default the validation images of its run."
_SPLIT = "Split of the data: val, test or all of them; auto is val if there is one, else all."


def calibrate(
    model: Model,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=_DATA, show_default=False)] = None,
    split: Annotated[str, typer.Option(help=_SPLIT)] = "auto",
    batch: Batch = 64,
    device: Device = "auto",
    workers: Workers = None,
    path_column: Annotated[str | None, typer.Option("--path-column", **PATH_COLUMN)] = None,
    label_column: Annotated[str | None, typer.Option("--label-column", **LABEL_COLUMN)] = None,
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Calibrate an image classifier: store a temperature and prediction sets in its bundle.

    Training does this by itself. The most probable class of an image stays the same.

    Python: striate.calibrate("runs/flowers-resnet18", "flowers/")
    """
    import striate
    from striate.cli.console import percent, print_json, print_left_out, say, watching

    with watching() as progress:
        found = striate.calibrate(
            model, data, split=split, batch=batch, device=device, workers=workers, path_column=path_column,
            label_column=label_column, trust=trust, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(found.summary())
        return
    before, after = found.ece
    images = f"{found.images:,} images ({found.source})"
    if found.is_needed:
        say(f"temperature {found.temperature:.3f}, from {images}")
        say(f"expected calibration error {percent(before)} before, {percent(after)} after, on these images")
    else:
        say(f"temperature 1, which changes no probability: {images} show no need to calibrate")
        say(f"expected calibration error {percent(before)} on these images")
    print_left_out(found)
