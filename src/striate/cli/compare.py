"""`striate compare`: models on the same images, or a leaderboard of runs."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from striate.cli.options import Batch, Device, Json, Trust, Workers

if TYPE_CHECKING:
    from striate.inference.comparison import Pair

_MODELS = (
    "Two or more bundles or run folders, compared with the first; or folders of several runs (of --folds and "
    "--seeds, too): a leaderboard."
)
_DATA = "Labeled images; by default those that the run of the first model held out."
_SHOWN = 10  # classes and images


def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help=_MODELS)],
    data: Annotated[str | None, typer.Option("--data", help=_DATA, show_default=False)] = None,
    split: Annotated[str, typer.Option(help="Split of the data: test, val, train or all.")] = "auto",
    batch: Batch = 64,
    device: Device = "auto",
    workers: Workers = None,
    trust: Trust = "",
    out: Annotated[str | None, typer.Option(help="Folder for an HTML report.")] = None,
    as_json: Json = False,
) -> None:
    """Compare image classifiers: McNemar's exact test, the difference with its interval, and what changed.

    Python: striate.compare("runs/a", "runs/b", data="flowers/")
    """
    from striate.cli.console import print_json, say, watching
    from striate.files import expanded, is_folder, probe
    from striate.training.run_folder import writable

    if out is not None:
        writable(out)
    paths = [expanded(model) for model in models]
    if any(is_folder(path) and probe(path / "best.safetensors") is None for path in paths):
        _rank(paths, out, as_json)
        return
    import striate

    with watching() as progress:
        found = striate.compare(
            *models, data=data, split=split, batch=batch, device=device, workers=workers, trust=trust,
            progress=progress,
        )  # fmt: skip
    report = None
    if out is not None:
        from striate.report.compare_page import comparison_report
        from striate.report.page import write_report

        report = write_report(comparison_report(found), Path(out))
    if as_json:
        print_json({**found.to_json(), "report": None if report is None else str(report)})
        return
    say(f"{found.n:,} images ({found.split}) of {found.data}")
    for m in found.models:
        low, high = m.top1_ci
        macs = "" if m.macs is None else f", {m.macs:,} MACs"
        say(
            f"{m.name}: top-1 {100 * m.top1:.2f} % (95 % interval {100 * low:.2f} % to {100 * high:.2f} %), "
            f"{m.params:,} parameters{macs}, {m.ms:.2f} ms per image"
        )
    for pair in found.pairs:
        _print_pair(found.models[0].name, pair)
    for note in found.notes:
        say(f"note: {note}")
    if report is not None:
        say(f"report  {report}")


def _print_pair(first: str, pair: Pair) -> None:
    from striate.cli.console import say

    low, high = pair.difference_ci
    say(
        f"{pair.second} against {first}: {100 * pair.difference:+.2f} points "
        f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f})"
    )
    verdict = "differ" if pair.p < 0.05 else "no difference shown"
    say(
        f"  {pair.only_second} images right that were wrong, {pair.only_first} wrong that were right: "
        f"p = {pair.p:.3g} (McNemar, exact; {verdict})"
    )
    for c in [c for c in pair.per_class if c.first != c.second][:_SHOWN]:
        say(
            f"  {c.name}: {100 * c.first:.1f} % to {100 * c.second:.1f} % of {c.images}, p = {c.p:.3g} (Holm)"
        )
    for image in pair.changed[:_SHOWN]:
        say(
            f"  {image.path}: {image.first or 'no answer'} to {image.second or 'no answer'}, is {image.label}"
        )
    if len(pair.changed) > _SHOWN:
        say(f"  ... and {len(pair.changed) - _SHOWN:,} more images with another prediction")


def _rank(folders: list[Path], out: str | None, as_json: bool) -> None:
    """Print a leaderboard of the runs of some folders."""
    from striate.cli.console import interval, print_json, say
    from striate.report.leaderboard import leaderboard

    places, notes = leaderboard(*folders)
    report = None
    if out is not None:
        from striate.report.compare_page import leaderboard_report
        from striate.report.page import write_report

        report = write_report(leaderboard_report(folders, places, notes), Path(out))
    if as_json:
        rows = [place.to_json() for place in places]
        named = None if report is None else str(report)
        print_json({"leaderboard": rows, "notes": notes, "report": named})
        return
    for (dataset, label), group in groupby(places, key=lambda place: (place.dataset, place.label)):
        say(f"{dataset}: {label}")
        for place in group:
            spread = "" if place.sd is None else f" ± {100 * place.sd:.2f}"
            repeated = f" ({place.repeated})" if place.repeated else ""
            ends = interval(place.interval, place.show)
            say(
                f"  {100 * place.mean:6.2f}{spread}{place.unit}{ends}  {place.model}  {place.title}{repeated}"
            )
    for note in notes:
        say(f"note: {note}")
    if report is not None:
        say(f"report  {report}")
