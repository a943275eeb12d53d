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
from striate.reading import damage_errors, read_bytes

CORNERS = ("xmin", "ymin", "xmax", "ymax")
LARGEST = 4 << 20  # bytes of one annotation file; parsed, it takes a hundred times as many
MAX_SIDE = 1 << 31  # pixels


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
    if not (1 <= width < MAX_SIDE and 1 <= height < MAX_SIDE):
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
    text = read_bytes(path, LARGEST)
    with damage_errors(f"cannot read {path}"):  # an unknown encoding, for example
        try:
            return ElementTree.fromstring(text, ElementTree.XMLParser(target=_Tree()))
        except ElementTree.ParseError as error:
            raise DataError(f"{path}, line {error.position[0]}", str(error).split(":")[0]) from None


class _Tree(ElementTree.TreeBuilder):
    """Elements of a document without a document type: entities could expand to more than fits in memory."""

    def doctype(self, *_: str | None) -> None:
        """Refuse the document type; raises ValueError."""
        raise ValueError("it has a document type, which no VOC annotation has")
