"""Readers of detection data: COCO JSON, Pascal VOC XML, YOLO and other text files, CSV.

`read_truth` and `read_found` tell the layout from the path. Anything malformed is refused by file and line.
"""

from __future__ import annotations

import os
from pathlib import Path

from striate.data.detection.tables import read_csv
from striate.data.detection.text import TextLayout, read_text
from striate.data.detection.voc import read_voc
from striate.errors import DataError
from striate.metrics.detection import Detections, GroundTruth, read_detections, read_ground_truth

__all__ = ["TextLayout", "read_csv", "read_found", "read_text", "read_truth", "read_voc"]


def read_truth(path: str | os.PathLike[str], layout: TextLayout | None = None) -> GroundTruth:
    """Ground truth from a COCO JSON file, a CSV file, or a folder of VOC XML or text files.

    Args:
        path: the file or folder.
        layout: how text and CSV files are to be read.

    Raises:
        DataError: a path that holds none of these, or malformed content, by file and line.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "json":
        return read_ground_truth(path)
    if kind == "xml":
        return read_voc(path)
    layout = layout or TextLayout()
    rows = read_csv(path, layout) if kind == "csv" else read_text(path, layout, scored=False)
    return rows.ground_truth(path)


def read_found(
    path: str | os.PathLike[str], truth: GroundTruth, layout: TextLayout | None = None
) -> Detections:
    """Detections from a COCO results file, a CSV file, or a folder of text files.

    Args:
        path: the file or folder.
        truth: the ground truth that they are about.
        layout: how text and CSV files are to be read.

    Raises:
        DataError: a path that holds none of these, malformed content, or an image that `truth` lacks.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "json":
        return read_detections(path, truth)
    if kind == "xml":
        raise DataError(f"{path}", "XML files hold ground truth, not detections")
    layout = layout or TextLayout()
    rows = read_csv(path, layout, scored=True) if kind == "csv" else read_text(path, layout, scored=True)
    return rows.detections(path, truth)


def _kind(path: Path) -> str:
    if path.is_file():
        suffix = path.suffix.lower().lstrip(".")
        if suffix in ("json", "csv"):
            return suffix
    elif path.is_dir():
        for suffix in ("xml", "txt"):
            if next(path.glob(f"*.{suffix}"), None):
                return suffix
    else:
        raise DataError(f"cannot read {path}", "there is nothing of that name")
    raise DataError(
        f"cannot read {path}",
        "it is neither a .json or .csv file nor a folder with .xml or .txt files",
    )
