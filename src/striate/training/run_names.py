"""Names of run folders: no run overwrites another; needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from striate.errors import DataError, access_error
from striate.files import expanded
from striate.training.config import RunConfig


def candidates(out: Path, name: str) -> Iterator[Path]:
    """The folders of a run, in the order in which they are tried: NAME, NAME-2, NAME-3, ..."""
    yield out / name
    for number in range(2, 10_000):
        yield out / f"{name}-{number}"


def create(out: Path, name: str) -> Path:
    """Create the run folder; a name that is taken gets a number.

    Raises:
        DataError: all numbers are taken, or the folder cannot be created.
    """
    for folder in candidates(out, name):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise access_error(error, f"cannot create {str(folder)!r}", "Choose --name or --out") from error
        return folder
    raise DataError(
        f"cannot create a folder for run {name!r}", f"{out} has 9,999 of that name", "Choose --name"
    )


def announce_taken(config: RunConfig) -> None:
    """Warn, before anything slow happens, that the folder of a run exists and where the new run goes."""
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"  # then the folder is its own
    if os.environ.get("RANK", "0") != "0" or restarted:
        return
    first, *others = _taken(expanded(config.out), config.run_name)
    if others:
        config.progress.warn(
            f"{first} exists, so this run goes to {others[-1]}; to continue the earlier one: striate resume "
            f"{quote(str(first))} (with --epochs N if it is finished); for another folder: --name or --out"
        )


def _taken(out: Path, name: str) -> list[Path]:
    """The candidates up to the first free one."""
    found = []
    for folder in candidates(out, name):
        found.append(folder)
        if not os.path.lexists(folder):
            break
    return found
