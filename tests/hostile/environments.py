"""Hostile environments: factors, their levels, and arrays of cells that cover all pairs of levels."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# The first level of each factor is harmless.
FACTORS = {
    "streams": (
        "utf-8", "ascii", "latin-1", "stdout full", "stderr full", "stdin closed", "stdin bytes",
        "all closed",
    ),
    "settings": ("usual", "matplotlib", "no home", "home is a file", "tiny terminal", "C locale"),
    "cache": ("usual", "below a file", "too long", "loop"),
    "limit": ("none", "memory", "more memory", "descriptors", "no files", "small files", "no permission"),
    "input": ("usual", "absent", "too long", "below a file", "loop", "folder", "file", "address"),
    "output": ("usual", "below a file", "too long", "loop", "device", "exists"),
    "torch": ("usual", "float64", "float16", "meta", "no grad"),
}  # fmt: skip
Cell = dict[str, str]


def pairwise(targets: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Cell]]:
    """Cells such that each target meets each level of its factors, and each pair of levels meets somewhere.

    Args:
        targets: name -> the factors that matter to it.

    Yields:
        Targets and cells; a greedy choice without randomness.
    """
    together = {
        frozenset(pair)
        for one, other in itertools.combinations(FACTORS, 2)
        for pair in itertools.product(_levels(one), _levels(other))
        if any({one, other} <= set(factors) for factors in targets.values())
    }
    for target, factors in targets.items():
        alone = {level for factor in factors for level in _levels(factor)}
        while alone:
            cell = _cell(factors, alone, together)
            alone -= set(cell)
            together -= {frozenset(pair) for pair in itertools.combinations(cell, 2)}
            yield target, dict(cell)
    for target in itertools.cycle(targets):  # the pairs that are left
        able = {pair for pair in together if {factor for factor, _ in pair} <= set(targets[target])}
        if not together:
            return
        if able:
            cell = _cell(targets[target], set(), able)
            together -= {frozenset(pair) for pair in itertools.combinations(cell, 2)}
            yield target, dict(cell)


def _levels(factor: str) -> list[tuple[str, str]]:
    return [(factor, level) for level in FACTORS[factor]]


def _cell(factors, alone, together) -> list[tuple[str, str]]:
    """The level of each factor that covers most of what is not covered yet."""
    cell: list[tuple[str, str]] = []
    for factor in factors:
        new = {
            level: 2 * (level in alone) + sum(frozenset((level, other)) in together for other in cell)
            for level in _levels(factor)
        }
        ahead = {  # pairs with factors whose level is still open
            level: sum(level in pair for pair in together) for level in _levels(factor)
        }
        cell.append(max(_levels(factor), key=lambda level: (new[level], ahead[level])))
    return cell


COMMON = {"COLUMNS": "80", "https_proxy": "http://127.0.0.1:9"}  # nobody answers there: no downloads
_CACHES = ("XDG_CACHE_HOME", "TORCH_HOME")
READ = ("data", "model", "pairs", "image", "gt", "pth", "run", "text_model", "lines", "dt")


def bad_paths(cell: Cell, folder: Path, number: int) -> dict[str, str]:
    """Paths in place of those of `Material`: of several that a call reads, every other one is bad."""
    found = {}
    if (level := cell.get("output", "usual")) == "device":
        # Never the device itself: a test that runs as root could replace it for the whole machine.
        (folder / "device").symlink_to("/dev/full")
        found["out"] = str(folder / "device")
    elif level == "exists":
        (folder / "out" / "x").mkdir(parents=True)
    elif level != "usual":
        found["out"] = bad_path(level, folder)
    if (level := cell.get("input", "usual")) != "usual":
        found |= dict.fromkeys(READ[number % 2 :: 2], bad_path(level, folder))
    return found


def bad_path(level: str, folder: Path) -> str:
    (folder / "file").write_text("text")
    (folder / "folder").mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (folder / "loop").symlink_to("loop")
    return {
        "below a file": str(folder / "file" / "x"), "too long": "x" * 300,
        "address": "https://example.org/x.pth",
        **{name: str(folder / name) for name in ("absent", "loop", "folder", "file")},
    }[level]  # fmt: skip


def variables(level: str, folder: Path) -> dict[str, str | None]:
    """Environment variables of a level of `settings`, or of `cache` after that word; None removes one."""
    if level.startswith("cache "):
        place = level.removeprefix("cache ")
        return {} if place == "usual" else dict.fromkeys(_CACHES, bad_path(place, folder))
    if level == "matplotlib":
        (folder / "matplotlibrc").write_bytes(b"text.usetex: True\nfont.size: \xff\n")
        return {"MPLBACKEND": "module://nothing"}
    return {
        "usual": {},
        # The caches stay those of the tests: without HOME, the user's real home folder is found.
        "no home": {"HOME": None, "MPLCONFIGDIR": str(folder)},
        "home is a file": {"HOME": bad_path("file", folder), "XDG_CACHE_HOME": None, "TORCH_HOME": None},
        "tiny terminal": {"TERM": "dumb", "COLUMNS": "1", "LINES": "1"},
        "C locale": {
            "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
    }[level]  # fmt: skip
