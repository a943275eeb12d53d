"""Check of a folder: files that a dataset skips, such as hidden, unreadable or misplaced ones."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from striate.data.check.records import Found, Item
from striate.data.images.contents import HIDDEN, IMAGE, is_hidden_folder, kind_of_file, read_head
from striate.data.images.folders import is_output_folder
from striate.transforms.decode import is_image_name


def scan_folder(root: Path, used: frozenset[str], found: Found) -> list[str]:
    """Walk a folder and find skipped, hidden and unreadable files, and broken links.

    Args:
        root: the folder.
        used: paths of the images in the dataset.
        found: findings are appended here.

    Returns:
        All images outside of hidden folders and of folders that Striate wrote.
    """
    images, seen = [], {os.path.realpath(root)}

    def denied(error: OSError) -> None:
        found["denied"].append((Item(str(error.filename), detail=error.strerror or str(error)),))

    for place, below, names in os.walk(root, onerror=denied, followlinks=True):
        if place != str(root) and is_output_folder(place, {*below, *names}):
            below.clear()
            continue
        kept = []
        for name in sorted(below):
            path = os.path.join(place, name)  # noqa: PTH118 - one of perhaps a million
            real = os.path.realpath(path)
            if real in seen and os.path.islink(path):  # noqa: PTH114
                found["loops"].append((Item(path, detail=f"links to {real}"),))
            elif is_hidden_folder(name):
                _hidden_folder(path, found)
            else:
                seen.add(real)
                kept.append(name)
        below[:] = kept
        for name in sorted(names):
            path = os.path.join(place, name)  # noqa: PTH118
            if path in used or _is_image(path, name, found):
                images.append(path)
                if path not in used and os.path.exists(path):  # noqa: PTH110
                    found["passed-over-images"].append((Item(path, detail="not in a class folder"),))
    return images


def _hidden_folder(path: str, found: Found) -> None:
    """Report a hidden folder if it contains images."""
    count = sum(is_image_name(n.lstrip(".")) for _, _, names in os.walk(path) for n in names)
    if count:
        found["hidden"].append((Item(path, detail=f"{count} image{'s' * (count > 1)} below it"),))


def _is_image(path: str, name: str, found: Found) -> bool:
    """Return whether an unused file is an image; reports broken links, hidden images and other files."""
    kind = kind_of_file(name, partial(read_head, path))
    if not os.path.exists(path):  # noqa: PTH110
        found["loops"].append((Item(path, detail="broken link"),))
    elif kind == HIDDEN:
        found["hidden"].append((Item(path, detail="its name starts with a dot"),))
    elif kind != IMAGE:
        found["other-files"].append((Item(path),))
    return kind == IMAGE
