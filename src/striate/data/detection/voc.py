"""Read Pascal VOC annotations: one XML file per image.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", section 4.
"""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

from striate.data.detection.rows import Rows, number, to_pixels
from striate.errors import DataError
from striate.metrics.detection import GroundTruth

CORNERS = ("xmin", "ymin", "xmax", "ymax")
LARGEST = 16 << 20  # bytes of one annotation file


def read_voc(folder: str | os.PathLike[str]) -> GroundTruth:
    """Read the ground truth in a folder of VOC XML files; an image's name is the file name without `.xml`.

    Boxes have the width xmax - xmin. VOC's pixels are inclusive, so `evaluate_voc` adds 1.

    Raises:
        DataError: there is no XML file, or one is malformed; the message names the line.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.xml"))
    if not paths:
        raise DataError(f"cannot read {folder}", "there is no .xml file in it")
    rows = Rows()
    for path in paths:
        rows.images.add(path.stem)
        root = _parse(path)
        if (size := _stated_size(root)) is not None:
            rows.sizes[path.stem] = size
        for item in root.iter("object"):
            label = (item.findtext("name") or "").strip()
            corners = item.find("bndbox")
            if not label or corners is None:
                raise DataError(f"{path}", "an object without name or bndbox")
            values = [number((corners.findtext(k) or "").strip(), f"{path}, {k}") for k in CORNERS]
            rows.add(path.stem, label, to_pixels(values, "xyxy", None, f"{path}, {label}"))
            rows.difficult.append((item.findtext("difficult") or "0").strip() == "1")
    return rows.ground_truth(folder)


def image_size(folder: str | os.PathLike[str], image: str, where: str) -> tuple[int, int]:
    """Read the width and height of an image from its XML file in `folder`.

    Raises:
        DataError: the file does not exist or has no size; the message begins with `where`.
    """
    path = Path(folder) / f"{image}.xml"
    if not path.is_file():
        raise DataError(where, f"there is no {path.name} in {folder}, which would state the image's size")
    width, height = (
        number((_parse(path).findtext(f"size/{side}") or "").strip(), f"{path}, {side}")
        for side in ("width", "height")
    )
    if min(width, height) < 1:
        raise DataError(f"{path}", f"it states a size of {width:g} x {height:g}", "Give the folder of images")
    return int(width), int(height)


def _stated_size(root: ElementTree.Element) -> tuple[float, float] | None:
    """Width and height in an annotation; None if it does not state them as positive numbers."""
    try:
        width, height = (float(root.findtext(f"size/{side}") or "nan") for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width >= 1 and height >= 1 else None


def _parse(path: Path) -> ElementTree.Element:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}", error.strerror or str(error)) from None
    # Annotations need no document type, and entities in one could expand to more text than fits in memory.
    if len(text) > LARGEST or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise DataError(f"{path}", "it has a document type or more than 16 MiB, which no VOC annotation has")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}, line {error.position[0]}", str(error).split(":")[0]) from None
