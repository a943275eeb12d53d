"""Readers of detection data: COCO JSON, Pascal VOC XML, YOLO and other text files, CSV.

`load_ground_truth` and `load_detections` choose the format by the path. Malformed input raises a `DataError`
that names the file and the line.
"""

from __future__ import annotations

import os
from pathlib import Path

from striate.data.detection.rows import Rows
from striate.data.detection.tables import read_csv
from striate.data.detection.text import TextLayout, read_text
from striate.data.detection.voc import read_voc
from striate.errors import DataError
from striate.metrics.detection import Detections, GroundTruth, read_detections, read_ground_truth

__all__ = ["TextLayout", "load_detections", "load_ground_truth", "read_csv", "read_text", "read_voc"]


def load_ground_truth(path: str | os.PathLike[str], layout: TextLayout | None = None) -> GroundTruth:
    """Ground truth from a COCO JSON file, a CSV file, or a folder of VOC XML or text files.

    Args:
        path: the file or folder.
        layout: how to read text and CSV files.

    Raises:
        DataError: the path has none of these formats, or the content is malformed.
    """
    path = Path(path)
    file_format = _format(path)
    if file_format == "json":
        return read_ground_truth(path)
    if file_format == "xml":
        return read_voc(path)
    return _read_rows(path, file_format, layout, scored=False).ground_truth(path)


def load_detections(
    path: str | os.PathLike[str], truth: GroundTruth, layout: TextLayout | None = None
) -> Detections:
    """Detections from a COCO results file, a CSV file, or a folder of text files.

    Args:
        path: the file or folder.
        truth: the ground truth of the same images.
        layout: how to read text and CSV files.

    Raises:
        DataError: the path has none of these formats, the content is malformed, or `truth` lacks an image.
    """
    path = Path(path)
    file_format = _format(path)
    if file_format == "json":
        return read_detections(path, truth)
    if file_format == "xml":
        raise DataError(f"{path}", "XML files hold ground truth, not detections")
    return _read_rows(path, file_format, layout, scored=True, truth=truth).detections(path, truth)


def _read_rows(
    path: Path, file_format: str, layout: TextLayout | None, scored: bool, truth: GroundTruth | None = None
) -> Rows:
    layout = layout or TextLayout()
    if file_format == "csv":
        return read_csv(path, layout, scored=scored)
    sizes = {}
    if truth is not None and truth.image_size is not None:
        names = [str(i) for i in truth.image_ids.tolist()]
        sizes = {
            name: (width, height)
            for name, (width, height) in zip(names, truth.image_size.tolist(), strict=True)
            if width == width
        }
    return read_text(path, layout, scored=scored, sizes=sizes)


def _format(path: Path) -> str:
    if path.is_file():
        suffix = path.suffix.lower().lstrip(".")
        if suffix in ("json", "csv"):
            return suffix
    elif path.is_dir():
        for suffix in ("xml", "txt"):
            if next(path.glob(f"*.{suffix}"), None):
                return suffix
    elif not path.exists():
        raise DataError(f"cannot read {path}", "it does not exist")
    why = "it is neither a .json or .csv file nor a folder with .xml or .txt files"
    raise DataError(f"cannot read {path}", why)
