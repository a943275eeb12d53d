"""Class folders inside a zip or tar archive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from striate.data.images.archives import Archive, attach_archives
from striate.data.images.contents import (
    HEAD,
    HIDDEN,
    IMAGE,
    OTHER,
    OUTPUT_FILES,
    PAGE_START,
    Skipped,
    is_hidden_folder,
    is_litter_folder,
    is_output,
    kind_of_file,
)
from striate.data.images.folders import read_tree
from striate.data.images.samples import SPLIT_NAMES, DataSet
from striate.reading import DAMAGE
from striate.transforms.decode import is_image_name


def read(archive: Archive, source: str) -> DataSet:
    """Read an archive of class folders, with or without an outer folder.

    Args:
        archive: the opened archive.
        source: how the user named it, for messages.

    Raises:
        DataError: there are no class folders with images.
    """
    place = {f"{archive.path}/{name}": i for i, name in enumerate(archive.names)}

    def head(path: str, limit: int) -> bytes:
        with contextlib.suppress(*DAMAGE):  # an image that cannot be read is reported by its name
            return archive.read(place[path], limit) if path in place else b""
        return b""

    # In the order of the same files in a folder: the files of a folder before its subfolders.
    members = [tuple(name.split("/")) for name in archive.names]
    members.sort(key=lambda parts: [*((1, part) for part in parts[:-1]), (0, parts[-1])])
    root = _ArchiveFolder(os.path.basename(archive.path), archive.path, members, head)  # noqa: PTH119
    while len(below := root.folders()) == 1 and not root.count_loose():
        if below[0].name.lower() in SPLIT_NAMES or not below[0].folders():
            break
        root = below[0]
    data = read_tree(root, source)
    return attach_archives(replace(data, notes=(*archive.skipped, *data.notes)), [archive])


@dataclass
class _ArchiveFolder:
    """A folder inside an archive.

    Attributes:
        name: without parents.
        path: full path, starting with that of the archive.
        members: all files below it: the parts of their names relative to this folder.
        head: reads the first bytes of a member by its full path.
    """

    name: str
    path: str
    members: list[tuple[str, ...]]
    head: Callable[[str, int], bytes]

    def folders(self) -> list[_ArchiveFolder]:
        below = self._below()
        return [
            _ArchiveFolder(name, f"{self.path}/{name}", below[name], self.head)
            for name in sorted(below)
            if not is_hidden_folder(name)
        ]

    def hidden(self) -> list[str]:
        return [
            f"{self.path}/{name}"
            for name, members in sorted(self._below().items())
            if is_hidden_folder(name) and not is_litter_folder(name)
            and any(is_image_name(parts[-1]) for parts in members)
        ]  # fmt: skip

    def images(self, skipped: Skipped) -> list[str]:
        outputs = self._outputs()
        lengths = {len(parts) for parts in outputs}
        skipped.outputs += ("/".join((self.path, *parts)) for parts in sorted(outputs))
        images, hidden = [], set()
        for parts in self.members:
            path = "/".join((self.path, *parts))
            above = next((i for i, name in enumerate(parts[:-1]) if is_hidden_folder(name)), None)
            if any(parts[:length] in outputs for length in lengths):
                continue
            if above is not None:
                if is_image_name(parts[-1]) and not is_litter_folder(parts[above]):
                    hidden.add("/".join((self.path, *parts[: above + 1])))
                continue
            kind = kind_of_file(parts[-1], partial(self.head, path, HEAD))
            if kind == IMAGE:
                images.append(path)
            elif kind in (HIDDEN, OTHER):
                (skipped.hidden if kind == HIDDEN else skipped.others).append(path)
        skipped.hidden += sorted(hidden)
        return images

    def count_loose(self) -> int:
        loose = (parts[0] for parts in self.members if len(parts) == 1)
        heads = ((name, partial(self.head, f"{self.path}/{name}", HEAD)) for name in loose)
        return sum(kind_of_file(name, head) == IMAGE for name, head in heads)

    def _below(self) -> dict[str, list[tuple[str, ...]]]:
        """Return the members of each direct subfolder."""
        below: dict[str, list[tuple[str, ...]]] = {}
        for parts in self.members:
            if len(parts) > 1:
                below.setdefault(parts[0], []).append(parts[1:])
        return below

    def _outputs(self) -> set[tuple[str, ...]]:
        """Return the folders that Striate wrote, as parts of their names."""
        names = {parts[:-1]: set[str]() for parts in self.members if parts[-1] in OUTPUT_FILES}
        lengths = {len(parts) for parts in names}
        for parts in self.members:
            for length in lengths:
                if len(parts) > length and parts[:length] in names:
                    names[parts[:length]].add(parts[length])

        def page(folder: tuple[str, ...]) -> bytes:
            return self.head("/".join((self.path, *folder, "report.html")), PAGE_START)

        return {folder for folder, inside in names.items() if is_output(inside, partial(page, folder))}
