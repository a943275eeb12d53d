"""`striate predict`: classify images, or recognize the text in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from striate.cli import prediction
from striate.cli.options import TTA, Batch, Device, Json, Model, Trust, Workers, number

_USUAL = prediction.Wanted()
_SOURCES = (
    "Image files, folders or globs; `-` reads paths from standard input, one per line or separated by NUL "
    "(`find -print0`)."
)
_TOP = "Number of classes to show."
_COVERAGE = "Also give the set of classes that holds the right one with this probability, such as 0.95."
_RAW = "Divide the scores by the temperature of the model, if it is calibrated."
_EXPLAIN = (
    "Also write a PNG file for each image: the image next to Grad-CAM's map of the most probable class."
)
_ENGINE = (
    "What runs the network: torch; onnxruntime, with an export that is kept in the cache; or auto: an export "
    "that is in the cache already if the model runs on the CPU, and torch otherwise."
)


def _engines() -> list[str]:
    from striate.exporters.engines import ENGINES

    return list(ENGINES)


def predict(
    model: Model,
    sources: Annotated[list[str], typer.Argument(metavar="IMAGE", help=_SOURCES)],
    top: Annotated[int, number(_TOP, "--top", "-k", low=1, high=1_000_000)] = _USUAL.top,
    batch: Batch = _USUAL.batch,
    device: Device = _USUAL.device,
    workers: Workers = None,
    engine: Annotated[str, typer.Option(help=_ENGINE, autocompletion=_engines)] = _USUAL.engine,
    trust: Trust = _USUAL.trust,
    explain: Annotated[bool, typer.Option("--explain", help=_EXPLAIN)] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --explain: folder of the files.", show_default="explanations")
    ] = None,
    coverage: Annotated[float | None, typer.Option("--coverage", help=_COVERAGE, show_default=False)] = None,
    calibration: Annotated[bool, typer.Option("--calibration/--no-calibration", help=_RAW)] = True,
    tta: Annotated[str | None, typer.Option("--tta", help=TTA, show_default="none")] = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> int:
    """Classify images, or recognize the text in them. If an image cannot be read, the reason is printed.

    Python: striate.load("runs/flowers-resnet18").predict("rose.jpg").top(5)
    """
    wanted = prediction.Wanted(
        top, batch, device, workers, engine, trust, explain, out, coverage, calibration, tta, as_json, as_csv
    )
    return prediction.predict(model, sources, wanted)
