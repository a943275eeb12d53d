"""`striate predict`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from striate.inference.classifier import Prediction


def predict(
    model: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Image files, folders, globs; `-` reads a list of paths from standard input.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option("--top", "-k", help="How many classes to name.", min=1)] = 5,
    batch: Annotated[int, typer.Option("--batch", "--batch-size", "-b", help="Images at once.", min=1)] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    workers: Annotated[int | None, typer.Option("--workers", "-j", help="Threads that decode.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> int:
    """Name what is in images; one that cannot be read gets a line that says why.

    Python: striate.load("runs/flowers/best.safetensors").predict("rose.jpg").top(5)
    """
    from striate import bundle
    from striate.data.images.folders import find_images
    from striate.errors import DataError, UsageError

    if as_json and as_csv:
        raise UsageError("--json and --csv", "one output, one form", "Give one of the two")
    paths = [path for source in sources for path in (_listed() if source == "-" else find_images(source))]
    if not paths:
        raise UsageError("no images to predict", "the list on standard input is empty")
    if bundle.inspect(bundle.path_of(model)).description.task == "seq2seq":
        from striate.cli.translate import read_images

        return read_images(model, paths, device, as_json=as_json, as_csv=as_csv)

    from striate.cli.console import print_json, watching
    from striate.device import cpu_count
    from striate.inference.classifier import load

    classifier = load(model, device)
    show = _rows_of_csv if as_csv else _lines
    with watching() as progress:
        progress.begin("predicting", len(paths))
        predictions = classifier.predict_many(
            paths, batch=batch, workers=workers or cpu_count(), progress=progress
        )
        if as_json or sys.stdout.isatty():  # results after the bar, not through it
            predictions = iter(list(predictions))
            progress.end()
        failed = 0
        if as_json:
            results = [_result(prediction, top) for prediction in predictions]
            failed = sum(result["error"] is not None for result in results)
            print_json({"results": results})
        else:
            failed = show(predictions, top, max(len(path) for path in paths))
    if failed == len(paths):
        raise DataError(f"none of {len(paths)} images could be read")
    return 0


def _listed() -> list[str]:
    return [line.rstrip("\r\n") for line in sys.stdin if line.strip()]


def _result(prediction: Prediction, top: int) -> dict[str, Any]:
    return {
        "path": prediction.path,
        "error": prediction.error,
        "top": [{"class": s.name, "probability": s.probability} for s in prediction.top(top)],
    }


def _lines(predictions: Iterator[Prediction], top: int, width: int) -> int:
    """A line for each image; answers how many could not be read."""
    failed = 0
    for prediction in predictions:
        if prediction.error is not None:
            failed += 1
            print(f"{prediction.path:{min(width, 60)}}  cannot be read: {prediction.error}")
            continue
        scores = "  ".join(f"{s.name} {100 * s.probability:.1f} %" for s in prediction.top(top))
        print(f"{prediction.path:{min(width, 60)}}  {scores}")
    return failed


def _rows_of_csv(predictions: Iterable[Prediction], top: int, width: int) -> int:
    """A row for each image; answers how many could not be read."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    ranks = [f"{what}{i}" for i in range(1, top + 1) for what in ("class", "probability")]
    writer.writerow(["path", "error", *ranks])
    failed = 0
    for prediction in predictions:
        failed += prediction.error is not None
        scores = [value for s in prediction.top(top) for value in (s.name, f"{s.probability:.6f}")]
        writer.writerow([prediction.path, prediction.error or "", *scores])
    return failed
