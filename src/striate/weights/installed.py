"""Files in installed packages, such as weights, found without importing the packages."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from striate.weights.catalog import CATALOG, Weights


def file_of(package: str, name: str) -> Path | None:
    """The path of a file in an installed package; None if the package or the file is not there.

    Args:
        package: name on the Python package index.
        name: of the file, without its folder.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == name)
    return next((path for path in paths if path.is_file()), None)


def path_of(weights: Weights) -> Path | None:
    """The path of a file of weights in the installed package that contains it; None if there is none."""
    return file_of(weights.package, weights.file) if weights.package else None


def first() -> Weights | None:
    """The first weights of the catalog that are installed, for training without a named network."""
    return next((weights for weights in CATALOG.values() if path_of(weights) is not None), None)
