"""Weights in installed packages, found without importing the packages."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from striate.weights.catalog import CATALOG, Weights


def path_of(weights: Weights) -> Path | None:
    """The path of a file of weights in the installed package that contains it; None if there is none."""
    if not weights.package:
        return None
    try:
        files = metadata.files(weights.package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == weights.file)
    return next((path for path in paths if path.is_file()), None)


def first() -> Weights | None:
    """The first weights of the catalog that are installed, for training without a named network."""
    return next((weights for weights in CATALOG.values() if path_of(weights) is not None), None)
