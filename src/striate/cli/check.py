"""`striate check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.options import Json, LabelColumn, MultiLabel, PathColumn, Workers
from striate.printable import counted, escaped

if TYPE_CHECKING:
    from rich.console import Console

    from striate.data.check import CheckReport, Finding

FOUND_EXIT_CODE = 1  # as linters do


def check(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A dataset, as for `train`, or a folder without classes.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Path of the HTML report.", show_default="runs/check-NAME.html")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether to write the HTML report.")] = True,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write the findings to this CSV file, one row for each image.", show_default="none"
        ),
    ] = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    multi_label: MultiLabel = None,
    workers: Workers = None,
    as_json: Json = False,
) -> int:
    """Find broken files, duplicates, data leakage, problems of class names and outliers in a dataset.

    The exit code is 1 if there are serious findings. Nothing is written to the data folder. Likely label
    errors need a model: `striate train DATA --folds 5` lists them.

    Python: striate.check("flowers/").findings
    """
    from striate.cli.console import print_json, watching
    from striate.data.check import check as check_data

    with watching() as progress:
        result = check_data(
            data, workers=workers, path_column=path_column, label_column=label_column,
            multi_label=multi_label, progress=progress,
        )  # fmt: skip
    report = None
    if csv is not None:
        from striate.files import write_atomic

        write_atomic(csv, result.to_csv())
    if page:
        from striate.files import write_atomic
        from striate.report.check_page import render

        name = Path(data).resolve().name or "data"
        report = out or Path("runs") / f"check-{name}.html"
        write_atomic(report, render(result).encode("utf-8", "replace"))
    if as_json:
        files = {"report": report, "csv": csv}
        print_json({**result.to_json(), **{name: path and str(path) for name, path in files.items()}})
    else:
        _print(result, report, csv)
    return FOUND_EXIT_CODE if result.serious else 0


def _print(result: CheckReport, report: Path | None, csv: Path | None) -> None:
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True, emoji=False)
    splits = ", ".join(f"{count:,} {name}" for name, count in result.splits.items())
    rate = result.n / max(result.seconds, 1e-9)
    out.print(
        f"{counted(result.n, 'image')}{f' ({splits})' if splits else ''}, "
        f"{counted(len(result.classes), 'class', 'classes')}, checked "
        f"in {result.seconds:.1f} s ({rate:,.0f} images/s)",
        markup=False,
    )
    if result.labels_per_image is not None:
        out.print(result.labels_per_image.summary, markup=False)
    for finding in result.findings:
        _print_finding(finding, out)
    if not result.findings:
        out.print("no findings")
    out.print()
    for name, path in (("report", report), ("csv", csv)):
        if path is not None:
            out.print(f"{name:6}  {escaped(path)}", markup=False)


_COLORS = {"serious": "bold red", "warning": "yellow", "note": "dim"}


def _print_finding(finding: Finding, out: Console) -> None:
    from rich.text import Text

    n, count = len(finding.groups), f"{len(finding.groups):,}"
    if n < finding.count:
        count += f" group{'s' * (n > 1)}, {finding.count:,} {'images' if finding.pictured else 'names'}"
    title = f"{finding.title}: {count}"
    out.print("\n", Text.assemble((f"{finding.severity:8}", _COLORS[finding.severity]), title), sep="")
    shown = 1 if finding.severity == "note" else 3
    for group in finding.groups[:shown]:
        for item in group[:4]:
            where = f" [{item.label}]" if finding.kind.startswith("conflicting-") else ""
            detail = f"  ({item.detail})" if item.detail else ""
            out.print(f"          {escaped(f'{item.path}{where}{detail}')}", markup=False)
        if len(group) > 4:
            out.print(f"          ... and {len(group) - 4} more in this group")
    if n > shown:
        out.print(f"          ... and {n - shown:,} more")
    out.print(f"          -> {escaped(finding.advice)}", markup=False)
