"""`striate check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from striate.data.check import CheckReport, Finding

FOUND_EXIT_CODE = 1  # as a linter's


def check(
    data: Annotated[
        str,
        typer.Argument(help="As for `train`; a folder without class folders will do.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page with pictures; runs/check-NAME.html if left out.", show_default=False),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write the page with pictures.")] = True,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, help="Threads that decode.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Find what is wrong with a data set: broken files, copies, leakage, labels, odd pictures.

    The exit code is 1 if anything serious was found. Nothing is written into the data folder.

    Python: striate.check("flowers/").findings
    """
    from striate.cli.console import print_json, watching
    from striate.data.check import check as look_over

    with watching() as progress:
        checkup = look_over(data, workers=workers, progress=progress)
    report = None
    if page:
        from striate.files import write_atomic
        from striate.report.check_page import render

        name = Path(data).resolve().name or "data"
        report = out or Path("runs") / f"check-{name}.html"
        write_atomic(report, render(checkup).encode("utf-8", "replace"))
    if as_json:
        print_json({**checkup.to_json(), "report": None if report is None else str(report)})
    else:
        _print(checkup, report)
    return FOUND_EXIT_CODE if checkup.serious else 0


def _print(checkup: CheckReport, report: Path | None) -> None:
    from rich.console import Console

    out = Console(highlight=False, soft_wrap=True, emoji=False)
    splits = ", ".join(f"{count:,} {name}" for name, count in checkup.splits.items())
    rate = checkup.n / max(checkup.seconds, 1e-9)
    out.print(
        f"{checkup.n:,} images{f' ({splits})' if splits else ''}, {len(checkup.classes)} classes, looked at "
        f"in {checkup.seconds:.1f} s ({rate:,.0f} images/s)",
        markup=False,
    )
    for finding in checkup.findings:
        _print_finding(finding, out)
    if not checkup.findings:
        out.print("nothing found")
    if report is not None:
        out.print()
        out.print(f"page    {report}", markup=False)


_STYLES = {"serious": "bold red", "warning": "yellow", "note": "dim"}


def _print_finding(finding: Finding, out: Console, most: int = 3) -> None:
    from rich.text import Text

    together = len(finding.groups) < finding.count
    n = len(finding.groups)
    what = "images" if finding.pictured else "names"
    count = f"{n:,} group{'s' * (n > 1)}, {finding.count:,} {what}" if together else f"{n:,}"
    out.print()
    out.print(
        Text.assemble((f"{finding.severity:8}", _STYLES[finding.severity]), f"{finding.title}: {count}")
    )
    shown = 1 if finding.severity == "note" else most
    for group in finding.groups[:shown]:
        for item in group[:4]:
            where = f" [{item.label}]" if finding.kind == "conflicting-labels" else ""
            detail = f"  ({item.detail})" if item.detail else ""
            out.print(f"          {item.path}{where}{detail}", markup=False)
        if len(group) > 4:
            out.print(f"          ... and {len(group) - 4} more of them")
    if len(finding.groups) > shown:
        out.print(f"          ... and {len(finding.groups) - shown:,} more")
    out.print(f"          -> {finding.advice}", markup=False)
