"""Render the findings of a data check as one HTML page, with thumbnails of the images they concern."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from striate.data import DataSet, Samples
from striate.data.check import CheckReport, Finding
from striate.device import cpu_count
from striate.errors import DecodeError
from striate.report import templates
from striate.sections import Column, Phrase, Table
from striate.transforms.decode import Uint8Array, open_bytes, to_array
from striate.transforms.image_file import open_content
from striate.transforms.multiband import to_picture, visible_bands
from striate.transforms.thumbnails import data_url

THUMBNAIL = 128  # pixels of the longer side
MAX_GROUPS, MAX_IN_GROUP = 24, 6  # shown of each finding; the JSON output lists all
MAX_CLASSES = 200


def render(report: CheckReport) -> str:
    """Render the page, which refers to nothing outside itself. Unreadable images appear by name only."""
    thumbnail = partial(_thumbnail, in_memory=_in_memory(report.data))
    shown = {
        item.path: None
        for finding in report.findings
        if finding.pictured
        for group in finding.groups[:MAX_GROUPS]
        for item in group[:MAX_IN_GROUP]
    }
    with ThreadPoolExecutor(cpu_count()) as pool:
        urls = dict(zip(shown, pool.map(thumbnail, shown), strict=True))
    splits = ""
    for name, count in report.splits.items():
        splits = Phrase("{before}, {count:,} {split}", before=splits, count=count, split=name)
    classes = sorted(report.classes.items(), key=lambda pair: -pair[1])
    table = None
    if classes:
        columns = (Column(Phrase("class")), Column(Phrase("images"), ",d", bar_max=max(1, classes[0][1])))
        table = Table(columns, tuple(classes[:MAX_CLASSES]))
    subtitle = Phrase(
        "{n:,} images{splits}; {count:,} classes; {seconds:.1f} s", n=report.n, splits=splits,
        count=len(classes), seconds=report.seconds,
    )  # fmt: skip
    if report.labels_per_image is not None:
        subtitle = Phrase("{before}; {labels}", before=subtitle, labels=report.labels_per_image.summary)
    return templates.render(
        "check.html",
        title=Phrase("Data check of {source}", source=report.source),
        subtitle=subtitle,
        footer=Phrase("Nothing was changed in the data folder."), full_width=True,
        sections=[_section(finding, urls) for finding in report.findings], classes=table,
    )  # fmt: skip


def _section(finding: Finding, urls: dict[str, str | None]) -> dict[str, Any]:
    groups = [
        {
            "shown": [(item, urls.get(item.path)) for item in group[:MAX_IN_GROUP]],
            "more": max(0, len(group) - MAX_IN_GROUP),
        }
        for group in finding.groups[:MAX_GROUPS]
    ]
    return {"finding": finding, "groups": groups, "more": max(0, len(finding.groups) - MAX_GROUPS)}


def _in_memory(data: DataSet | None) -> dict[str, tuple[Samples, int]]:
    """Map the names of images that are not files to their samples and index."""
    return {
        name: (samples, i)
        for samples in (data.splits.values() if data else ())
        if not samples.in_files
        for i, name in enumerate(samples.names)
    }


def _thumbnail(path: str, in_memory: dict[str, tuple[Samples, int]]) -> str | None:
    try:
        samples, i = in_memory.get(path, (None, 0))
        source = path if samples is None else samples.fetch(i)
        if isinstance(source, np.ndarray):
            pixels: Uint8Array = source
        elif (bands := visible_bands(source, path)) is not None:
            pixels = bands
        else:
            opened = open_content(source) if isinstance(source, str) else nullcontext(source)
            with opened as content, open_bytes(content, path) as file:
                file.draft(None, (THUMBNAIL, THUMBNAIL))
                pixels = to_array(file)
    except DecodeError:
        return None
    image = to_picture(pixels).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=None)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return data_url(out.getvalue(), "jpeg")
