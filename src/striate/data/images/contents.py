"""What the files and folders of a dataset are: images, hidden ones, output of Striate, or something else.

An image counts as one by its suffix or by its first bytes, so `photo.jpg_large` and `photo` are used too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from striate.printable import first_few
from striate.transforms.decode import is_image_name

HEAD = 32  # first bytes of a file that `looks_like_image` needs
PAGE_START = 1024  # first bytes of a report that `is_output` needs

IMAGE, HIDDEN, LITTER, OTHER = "image", "hidden", "litter", "other"

# Folders that operating systems and tools create; those that start with a dot are hidden anyway.
SYSTEM_FOLDERS = frozenset({
    "__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found",
})  # fmt: skip
_LITTER_FOLDERS = SYSTEM_FOLDERS | {
    ".git", ".svn", ".hg", ".ipynb_checkpoints", ".cache", ".venv", ".Trash", ".Trashes", ".thumbnails",
    ".Spotlight-V100", ".fseventsd", ".TemporaryItems",
}  # fmt: skip
_LITTER_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
# Notes and annotations next to images; files of other kinds are worth a note when they are skipped.
_SIDECARS = frozenset({
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".rst", ".html", ".htm", ".yaml", ".yml",
    ".ini", ".log", ".py", ".ipynb", ".db", ".sh",
})  # fmt: skip
# Camera raw files start like TIFF, but a TIFF reader finds only their thumbnail.
_RAW = frozenset({
    ".cr2", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".pef", ".orf", ".rw2", ".srw", ".3fr", ".iiq", ".erf",
})  # fmt: skip

_STARTS = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")

OUTPUT_FILES = ("config.yaml", "lr.csv", "report.html")  # a folder that Striate wrote has one of them
_RUN_FILES = frozenset({"split.csv", "results.csv", "best.safetensors", "last.safetensors"})
_GENERATOR = b'<meta name="generator" content="Striate'


@dataclass
class Skipped:
    """Paths of what was skipped.

    Attributes:
        hidden: image files whose names start with a dot, and hidden folders with images.
        outputs: folders that Striate wrote, such as runs.
        others: files that are neither images nor notes about them.
    """

    hidden: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """Return one line for each kind."""
        kinds = (
            (self.hidden, "hidden images or folders with images"),
            (self.outputs, "folders that Striate wrote"),
            (self.others, "files that are not images"),
        )
        return [f"skipped {len(paths):,} {what}: {listed(paths, 3)}" for paths, what in kinds if paths]


def is_hidden_folder(name: str) -> bool:
    """Return whether a folder is hidden, or belongs to the operating system or a tool."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def is_litter_folder(name: str) -> bool:
    """Return whether a hidden folder is of a known tool, so that images in it are copies or thumbnails."""
    return name in _LITTER_FOLDERS


def kind_of_file(name: str, head: Callable[[], bytes]) -> str:
    """Return what a file is: `image`, `hidden` (an image), `litter` or `other`.

    Args:
        name: without its folder.
        head: reads its first `HEAD` bytes; called only if the name does not decide.
    """
    if is_image_name(name):
        return IMAGE
    if name.startswith("._") or name.lower() in _LITTER_FILES:
        return LITTER
    if is_image_name(name.lstrip(".")):
        return HIDDEN
    suffix = PurePath(name).suffix.lower()
    if not name.startswith(".") and suffix not in _RAW and looks_like_image(head()):
        return IMAGE
    return LITTER if name.startswith(".") or suffix in _SIDECARS else OTHER


def looks_like_image(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an image format."""
    if head.startswith(_STARTS):
        return True
    if head[:2] == b"BM":  # of a bitmap, the next field is the size of the file, and then four zeros follow
        return head[6:10] == b"\0\0\0\0" and head[14:18] in (
            b"\x0c\0\0\0",
            b"\x28\0\0\0",
            b"\x6c\0\0\0",
            b"\x7c\0\0\0",
        )
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def read_head(path: str) -> bytes:
    """Return the first `HEAD` bytes of a regular file; empty for anything else, or if it cannot be read."""
    try:
        if not Path(path).is_file():  # opening a pipe would block
            return b""
        with open(path, "rb") as file:  # noqa: PTH123 - one of perhaps a million
            return file.read(HEAD)
    except OSError:
        return b""


def is_output(names: Collection[str], page: Callable[[], bytes]) -> bool:
    """Return whether Striate wrote a folder: a run, a learning rate range test or a report.

    Args:
        names: of the files and folders in it.
        page: reads the start of its `report.html`; called only if there is one.
    """
    if "config.yaml" in names and ("state" in names or not _RUN_FILES.isdisjoint(names)):
        return True
    return ("lr.csv" in names and "lr.png" in names) or ("report.html" in names and _GENERATOR in page())


def listed(names: list[str], most: int = 5) -> str:
    """Return the first names, quoted, and the number of others."""
    return first_few([repr(name) for name in names], most)
