"""`striate evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    model: Annotated[str, typer.Argument(help="Bundle, or a run's folder.", show_default=False)],
    data_argument: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="As for `train`; left out, what the run of this bundle held out.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The same as the argument.")] = None,
    split: Annotated[
        str, typer.Option(help="test, val, train or all; auto takes test, else val, else all.")
    ] = "auto",
    batch: Annotated[int, typer.Option("--batch", "--batch-size", "-b", help="Images at once.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    workers: Annotated[int | None, typer.Option("--workers", "-j", help="Threads that decode.")] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep decoded images for the next time.")
    ] = True,
    out: Annotated[str | None, typer.Option(help="Folder for a report page and its figures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model: accuracy with its interval, each class, confusion, calibration.

    Python: striate.evaluate("runs/flowers/best.safetensors", "flowers/")
    """
    from striate.errors import UsageError

    if data is not None and data_argument is not None:
        raise UsageError("two data sets", f"{data_argument!r} and {data!r}", "Give one")

    from striate import bundle

    bundle.inspect(bundle.path_of(model))  # a wrong file is told before torch is loaded

    if out is not None:
        from striate.training.folder import writable

        writable(out)

    import striate
    from striate.cli.console import print_evaluation, print_json, watching

    with watching() as progress:
        evaluation = striate.evaluate(
            model, data or data_argument, split=split, batch=batch, device=device, workers=workers,
            cache=cache, progress=progress,
        )  # fmt: skip
    report = None
    if out is not None:
        from striate.report.page import write_report

        report = write_report(evaluation, Path(out), model=model)
    if as_json:
        print_json({**evaluation.to_json(), "report": None if report is None else str(report)})
        return
    print_evaluation(evaluation)
    if report is not None:
        print(f"report  {report}")
