"""`striate export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.options import Json, Model, Trust, number
from striate.exporters import FORMATS

_SAMPLES = "Texts or image files on which the two models are compared."
_DATA = "Labeled images on which the two models are compared: a folder of class folders, a table, ..."
_MAX_LOSS = "Points of accuracy that a format with fewer bits may lose."


def export(
    model: Model,
    samples: Annotated[
        list[str] | None, typer.Argument(metavar="SAMPLE", help=_SAMPLES, show_default="held-out images")
    ] = None,
    data: Annotated[str | None, typer.Option(help=_DATA, show_default="those that the run held out")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="File or folder to write; it must not exist.",
            show_default="exported.onnx, exported-int8.onnx, ...",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--to",
            "--format",
            help="Format: "
            + "; ".join(f"{n} ({row.summary}, {row.models})" for n, row in FORMATS.items())
            + ".",
            show_default="that of --out's suffix; else onnx, or torch-export for sequence to sequence",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    max_loss: Annotated[float, number(_MAX_LOSS, "--max-loss", low=0, high=100)] = 1.0,
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Export a model to another format (ONNX, CTranslate2, ...) and compare it with the original.

    A model that differs from the original is an error, and no file is left. EXPORT.md, with the comparison,
    and a model card are written next to the export.

    Python: striate.export("runs/flowers-resnet18", "flowers.onnx", "onnx")
    """
    import dataclasses

    from striate import api, bundle
    from striate.cli.console import print_json, say
    from striate.exporters import comparison, default_name, formats_for

    task = bundle.describe(bundle.path_of(model)).task  # a wrong file is reported before torch is imported
    if format_ is None:
        suffix = Path(out).suffix.lower() if out else ""
        formats = formats_for(task)
        format_ = next((name for name in formats if FORMATS[name].suffix == suffix != ""), formats[0])
    out = out or default_name(format_)
    parity = api.export(model, out, format_, tuple(samples or ()), data=data, max_loss=max_loss, trust=trust)
    if as_json:
        print_json({"out": out, "format": format_, **dataclasses.asdict(parity)})
        return
    if not parity.n:  # a warning says why
        say(f"{out}: written")
        return
    first, *others = comparison.lines(parity)
    say(f"{out}: {first}")
    for line in others:
        say(line)
