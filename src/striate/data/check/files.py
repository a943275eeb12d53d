"""Check of a folder: files that a dataset skips, such as hidden, unreadable or misplaced ones."""

from __future__ import annotations

import os
from pathlib import Path

from striate.data.check.records import Found, Item
from striate.transforms.decode import is_image_name

# First bytes of common formats, to detect images with another suffix.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"BM")


def scan_folder(root: Path, used: frozenset[str], found: Found) -> list[str]:
    """Walk a folder and find skipped, hidden and unreadable files, and broken links.

    Args:
        root: the folder.
        used: paths of the images in the dataset.
        found: findings are appended here.

    Returns:
        All files with an image suffix outside of hidden folders.
    """
    images, seen = [], {os.path.realpath(root)}

    def denied(error: OSError) -> None:
        found["denied"].append((Item(str(error.filename), detail=error.strerror or str(error)),))

    for place, below, names in os.walk(root, onerror=denied, followlinks=True):
        kept = []
        for name in sorted(below):
            path = os.path.join(place, name)  # noqa: PTH118 - one of perhaps a million
            real = os.path.realpath(path)
            if real in seen and os.path.islink(path):  # noqa: PTH114
                found["loops"].append((Item(path, detail=f"links to {real}"),))
            elif name.startswith((".", "__")):
                _hidden_folder(path, found)
            else:
                seen.add(real)
                kept.append(name)
        below[:] = kept
        for name in sorted(names):
            path = os.path.join(place, name)  # noqa: PTH118
            if is_image_name(name):
                images.append(path)
                if path not in used and os.path.exists(path):  # noqa: PTH110
                    found["passed-over-images"].append((Item(path, detail="not in a class folder"),))
            if path not in used:
                _other(path, name, found)
    return images


def _hidden_folder(path: str, found: Found) -> None:
    """Report a hidden folder if it contains images."""
    count = sum(is_image_name(n.lstrip(".")) for _, _, names in os.walk(path) for n in names)
    if count:
        found["hidden"].append((Item(path, detail=f"{count} image{'s' * (count > 1)} below it"),))


def _other(path: str, name: str, found: Found) -> None:
    """Classify an unused file: a broken link, a hidden image, an image without suffix, or no image."""
    if not os.path.exists(path):  # noqa: PTH110
        found["loops"].append((Item(path, detail="broken link"),))
    elif is_image_name(name):
        return
    elif is_image_name(name.lstrip(".")) and not name.startswith("._"):
        found["hidden"].append((Item(path, detail="its name starts with a dot"),))
    elif _is_image(path):
        found["passed-over-images"].append((Item(path, detail="an image without image suffix"),))
    else:
        found["other-files"].append((Item(path),))


def _is_image(path: str) -> bool:
    if not os.path.isfile(path):  # noqa: PTH113 - opening a pipe would block
        return False
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            start = file.read(16)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
