"""`striate embed`: features of images, for search, clustering and other classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.options import Batch, Device, Json, LabelColumn, Model, PathColumn, Trust, Workers
from striate.printable import counted, escaped

_DATA = "Images as for training, a folder of images without classes, or an image file."
_OUT = "File to write: .npz (arrays features, paths, labels, splits) or .parquet (a row per image)."


def embed(
    model: Model,
    data: Annotated[str, typer.Argument(metavar="DATA", help=_DATA)],
    out: Annotated[Path, typer.Option(help=_OUT)] = Path("features.npz"),
    batch: Batch = 64,
    device: Device = "auto",
    workers: Workers = None,
    cache: Annotated[bool, typer.Option(help="Keep decoded images on disk for the next run.")] = True,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Write the features of images, the input of the network's last layer, with their paths and labels.

    Python: striate.load("runs/flowers-resnet18").embed(["rose.jpg", "lily.jpg"])
    """
    from striate import bundle
    from striate.cli.console import print_json, say, watching
    from striate.errors import BundleError

    task = bundle.describe(bundle.path_of(model)).task  # a wrong file is reported before torch is imported
    if task != "classification":
        raise BundleError(f"{model!r} cannot embed images", f"it was trained for {task}", "Give a classifier")
    from striate.inference import embedding
    from striate.inference.classifier import load

    embedding.require_format(out)
    with watching() as progress:
        found = embedding.embed(
            load(model, device, trust=trust), data, batch=batch, workers=workers, cache=cache,
            path_column=path_column, label_column=label_column, progress=progress,
        )  # fmt: skip
        for problem in found.problems:
            progress.warn(f"{problem.path} is left out: {problem.reason}")
    found.write(out)
    n, width = found.features.shape
    if as_json:
        unreadable = [problem.path for problem in found.problems]
        print_json({"out": str(out), "n": n, "features": width, "unreadable": unreadable})
        return
    say(f"{counted(n, 'image')}, {width:,} features each: {escaped(str(out))}")
