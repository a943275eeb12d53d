"""Read a CSV file with one box per line and columns with any usual names."""

from __future__ import annotations

import os
from pathlib import Path

from striate.csv_file import parse_csv
from striate.data.detection.rows import Rows, number, to_pixels
from striate.data.detection.text import TextLayout
from striate.errors import DataError
from striate.reading import MAX_TABLE_BYTES, damage_errors, read_bytes

# Usual names of the columns, in lower case, without spaces, dashes and underscores.
NAMES = {
    "image": ("image", "imageid", "filename", "file", "path", "img", "imagename"),
    "label": ("class", "label", "category", "labelname", "classname", "name", "categoryid", "classid"),
    "score": ("score", "confidence", "conf", "probability"),
    "difficult": ("difficult",),
}
BOXES = {
    "xyxy": (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom")),
    "xywh": (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("left", "top", "width", "height")),
    "cxcywh": (("cx", "cy", "w", "h"), ("xcenter", "ycenter", "width", "height")),
}


def read_csv(path: str | os.PathLike[str], layout: TextLayout | None = None, *, scored: bool = False) -> Rows:
    """Read all boxes of a CSV file with a header. An image's name is its file name without folder and suffix.

    Args:
        path: has columns for the image, the class, the box (their names define the coordinates) and, for
            detections, the score; an empty class means an image without boxes.
        layout: whether coordinates are relative, and the names of classes given by number.
        scored: whether a score is required.

    Raises:
        DataError: a column is missing, or a line is malformed; the message names the line.
    """
    path, layout = Path(path), layout or TextLayout()
    rows = Rows(labels=layout.labels)
    with damage_errors(f"cannot read {path}"):
        text = read_bytes(path, MAX_TABLE_BYTES).decode("utf-8-sig")
    lines = parse_csv(text, str(path))
    _, names = next(lines, (1, []))
    header = ["".join(c for c in name.lower() if c.isalnum()) for name in names]
    columns, coordinates = _columns(path, header, scored)
    for line, fields in lines:
        if len(fields) > len(header):
            why = f"it has {len(fields)} fields, more than the header"
            raise DataError(f"{path}, line {line}", why, "Put quotes around values that contain a comma")
        if any(fields):
            _read(rows, f"{path}, line {line}", fields, columns, coordinates, layout)
    return rows


def _columns(path: Path, header: list[str], scored: bool) -> tuple[dict[str, int], str]:
    columns = {
        key: header.index(name) for key, names in NAMES.items() for name in reversed(names) if name in header
    }
    for key in ("image", "label", *(["score"] if scored else [])):
        if key not in columns:
            raise DataError(
                f"{path}, line 1", f"no column for the {key}", f"Known names: {', '.join(NAMES[key])}"
            )
    for coordinates, choices in BOXES.items():
        for choice in choices:
            if all(name in header for name in choice):
                columns |= {f"box{i}": header.index(n) for i, n in enumerate(choice)}
                _refuse_twice(path, [header[i] for i in columns.values()], header)
                return columns, coordinates
    raise DataError(
        f"{path}, line 1", "no columns for the box", "Name them xmin, ymin, xmax, ymax or x, y, w, h"
    )


def _refuse_twice(path: Path, used: list[str], header: list[str]) -> None:
    for name in used:
        if header.count(name) > 1:
            why = f"{header.count(name)} columns are called {name!r}"
            raise DataError(f"{path}, line 1", why, "Rename or delete one")


def _read(
    rows: Rows, where: str, fields: list[str], columns: dict[str, int], coordinates: str, layout: TextLayout
) -> None:
    if len(fields) <= max(columns.values()):
        raise DataError(where, f"it has {len(fields)} fields, fewer than the header")
    image = Path(fields[columns["image"]]).stem
    rows.images.add(image)
    label = fields[columns["label"]]
    if not label:
        return
    values = [number(fields[columns[f"box{i}"]], where) for i in range(4)]
    box = to_pixels(values, coordinates, layout.size(image, where), where)
    rows.add(image, layout.label(label, where), box)
    if "score" in columns and fields[columns["score"]]:
        rows.score.append(number(fields[columns["score"]], where))
    if "difficult" in columns:
        rows.difficult.append(fields[columns["difficult"]].strip().lower() in ("1", "true"))
