"""`striate export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.options import Json, Model, Trust
from striate.exporters import FORMATS

_SAMPLES = "Texts or image files on which the two models are compared."


def export(
    model: Model,
    samples: Annotated[
        list[str] | None, typer.Argument(metavar="SAMPLE", help=_SAMPLES, show_default="random inputs")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="File or folder to write; it must not exist.", show_default="exported, exported.onnx, ..."
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
            show_default="that of --out's suffix, or the first one that can hold the model",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    trust: Trust = "",
    as_json: Json = False,
) -> None:
    """Export a model to another format (ONNX, CTranslate2, ...) and compare it with the original.

    A model card, MODEL_CARD.md, is written next to the export.

    Python: striate.export("runs/flowers-resnet18", "flowers.onnx", "onnx")
    """
    import dataclasses

    from striate import api, bundle
    from striate.cli.console import print_json, say
    from striate.exporters import formats_for

    task = bundle.describe(bundle.path_of(model)).task  # a wrong file is reported before torch is imported
    if format_ is None:
        suffix = Path(out).suffix.lower() if out else ""
        formats = formats_for(task)
        format_ = next((name for name in formats if FORMATS[name].suffix == suffix != ""), formats[0])
    out = out or f"exported{FORMATS[format_].suffix if format_ in FORMATS else ''}"
    parity = api.export(model, out, format_, tuple(samples or ()), trust=trust)
    if as_json:
        print_json({"out": out, "format": format_, **dataclasses.asdict(parity)})
        return
    if not parity.n:  # a warning says why
        say(f"{out}: written")
        return
    say(f"{out}: {parity.equal} of {parity.n} {parity.outputs} equal")
    print(f"largest difference: {parity.max_difference:.1e} {parity.unit}".rstrip())
