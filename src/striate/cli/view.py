"""`striate view`: all runs of a folder in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from striate.cli.options import Json, number


def view(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of runs.")] = Path("runs"),
    port: Annotated[int, number("Port; 0 for a free one.", low=0, high=65535)] = 8765,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Serve a page of all runs: sortable, filterable, with curves side by side, live while a run trains.

    The page is read-only, and only programs on this computer can reach it. Ctrl-C ends it.

    Python: striate.report.view_server.RunServer(Path("runs")).serve_forever()
    """
    import contextlib
    import webbrowser

    from striate.cli.console import print_json, say
    from striate.errors import DataError
    from striate.files import expanded, is_folder, why_missing
    from striate.report.view_server import RunServer

    folder = expanded(runs)
    if not is_folder(folder):
        raise DataError(f"cannot view {str(runs)!r}", *why_missing(folder, "Give the folder of the runs"))
    with RunServer(folder, port) as server:
        if as_json:
            print_json({"url": server.url, "folder": str(folder)})
        else:
            say(f"{server.url}  (Ctrl-C ends it)")
        if open_browser and not as_json:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
