"""matplotlib with its own defaults: figures depend neither on MPLBACKEND nor on a matplotlibrc.

A notebook sets MPLBACKEND, for the programs that it starts too, and a matplotlibrc is made for other figures.
Importing this module imports matplotlib, even if those settings are invalid.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def _import_matplotlib() -> None:
    """Import matplotlib; without the user's settings if they are invalid, which ends its import."""
    try:
        importlib.import_module("matplotlib")  # with the user's settings, for the user's own figures
    except (OSError, ValueError):  # an unknown backend; a file that is unreadable or not UTF-8
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]
        with _without_settings():
            importlib.import_module("matplotlib")


@contextlib.contextmanager
def _without_settings() -> Iterator[None]:
    """A context in which matplotlib finds only the settings file that comes with it."""
    spec = importlib.util.find_spec("matplotlib")
    folder = Path(spec.origin if spec is not None and spec.origin is not None else "").parent
    settings = {"MPLBACKEND": "agg", "MATPLOTLIBRC": str(folder / "mpl-data" / "matplotlibrc")}
    before = {name: os.environ.get(name) for name in settings}
    exists = os.path.exists
    os.environ.update(settings)
    # It looks in the working folder first. Changing that folder would change it for all threads.
    os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
    try:
        yield
    finally:
        os.path.exists = exists
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_import_matplotlib()

from matplotlib import rc_context, rcdefaults, rcParams  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure as Figure  # noqa: E402


@contextlib.contextmanager
def defaults(changes: Mapping[Any, Any] = {}) -> Iterator[None]:
    """The context in which all figures are created and saved: matplotlib's defaults and these changes."""
    with rc_context():
        rcdefaults()
        rcParams.update(changes)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure of this size in inches, without pyplot and without a window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
