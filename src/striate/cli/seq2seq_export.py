"""`striate seq2seq export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts, or image files, to compare by.", show_default=False),
    ] = None,
    out: Annotated[str, typer.Option("--out", help="Folder to write; it must not exist.")] = "exported",
    format_: Annotated[
        str,
        typer.Option("--format", help="ctranslate2, or programs of torch.export: encoder and step."),
    ] = "programs",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Write a model for another engine, and compare what the two answer.

    Python: striate.export.translators.export(translator, Path("exported"), "ctranslate2")
    """
    import dataclasses

    from striate.cli.console import print_json
    from striate.export.translators import export
    from striate.inference.translator import load_translator

    parity = export(load_translator(model, "cpu"), Path(out), format_, texts or [])
    if as_json:
        print_json({"out": out, "format": format_, **dataclasses.asdict(parity)})
    else:
        print(f"{out}: {parity.equal} of {parity.n} answers equal, token for token")
        print(f"largest difference of a token's log-probability: {parity.max_difference:.1e} nats")
    return 0
