"""`striate export`."""

from __future__ import annotations

from typing import Annotated

import typer

from striate.cli.options import Json, Model
from striate.exporters import FORMATS

_SAMPLES = "Texts or image files on which the two models are compared."


def export(
    model: Model,
    samples: Annotated[
        list[str] | None, typer.Argument(metavar="SAMPLE", help=_SAMPLES, show_default="random inputs")
    ] = None,
    out: Annotated[str, typer.Option(help="File or folder to write; it must not exist.")] = "exported",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Format: "
            + "; ".join(f"{n} ({row.summary}, {row.models})" for n, row in FORMATS.items())
            + ".",
            show_default="the first one that can hold the model",
            autocompletion=lambda: list(FORMATS),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to another format (torch.export, CTranslate2, .pth) and compare it with the original.

    Python: striate.export("runs/words-small", "exported", "ctranslate2")
    """
    import dataclasses

    from striate import api, bundle
    from striate.cli.console import print_json, say
    from striate.exporters import formats_for

    task = bundle.describe(bundle.path_of(model)).task  # a wrong file is reported before torch is imported
    format_ = format_ or formats_for(task)[0]
    parity = api.export(model, out, format_, tuple(samples or ()))
    if as_json:
        print_json({"out": out, "format": format_, **dataclasses.asdict(parity)})
        return
    say(f"{out}: {parity.equal} of {parity.n} {parity.outputs} equal")
    print(f"largest difference: {parity.max_difference:.1e} {parity.unit}".rstrip())
