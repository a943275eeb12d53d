"""A check-up as one HTML page: findings by seriousness, with the pictures that they are about."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jinja2
import numpy as np
from PIL import Image

import striate
from striate.data import DataSet, Samples
from striate.data.check import CheckReport, Finding
from striate.device import cpu_count
from striate.errors import DecodeError
from striate.transforms.decode import Uint8Array, open_bytes, read_file, to_array

SIDE = 128  # pixels of the longer side of a picture
MOST_GROUPS, MOST_IN_GROUP = 24, 6  # pictures of each finding; all names are listed in JSON


def render(checkup: CheckReport) -> str:
    """The page; it refers to nothing outside itself. Pictures that cannot be read are named without one."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("striate", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    thumbnail = partial(_thumbnail, stored=_stored(checkup.data))
    shown = {
        item.path: None
        for finding in checkup.findings
        if finding.pictured
        for group in finding.groups[:MOST_GROUPS]
        for item in group[:MOST_IN_GROUP]
    }
    with ThreadPoolExecutor(cpu_count()) as pool:
        urls = dict(zip(shown, pool.map(thumbnail, shown), strict=True))
    return environment.get_template("check.html").render(
        c=checkup,
        findings=[_section(finding, urls) for finding in checkup.findings],
        counts={s: sum(f.severity == s for f in checkup.findings) for s in ("serious", "warning", "note")},
        classes=sorted(checkup.classes.items(), key=lambda pair: -pair[1]),
        version=striate.__version__,
    )


def _section(finding: Finding, urls: dict[str, str | None]) -> dict[str, Any]:
    return {
        "finding": finding,
        "groups": [
            {
                "items": [(item, urls.get(item.path)) for item in group[:MOST_IN_GROUP]],
                "left": max(0, len(group) - MOST_IN_GROUP),
            }
            for group in finding.groups[:MOST_GROUPS]
        ],
        "left": max(0, len(finding.groups) - MOST_GROUPS),
    }


def _stored(data: DataSet | None) -> dict[str, tuple[Samples, int]]:
    """The images that are no files of their own, by name."""
    return {
        name: (samples, i)
        for samples in (data.splits.values() if data else ())
        if not samples.in_files
        for i, name in enumerate(samples.names)
    }


def _thumbnail(path: str, stored: dict[str, tuple[Samples, int]]) -> str | None:
    try:
        samples, i = stored.get(path, (None, 0))
        source = path if samples is None else samples.fetch(i)
        if isinstance(source, np.ndarray):
            pixels: Uint8Array = np.ascontiguousarray(source)
        else:
            with open_bytes(read_file(source) if isinstance(source, str) else source, path) as image:
                image.draft(None, (SIDE, SIDE))
                pixels = to_array(image)
    except DecodeError:
        return None
    return _data_url(Image.fromarray(pixels).convert("RGB"))


def _data_url(image: Image.Image) -> str:
    scale = SIDE / max(image.size)
    if scale < 1:
        size: Sequence[int] = [max(1, round(side * scale)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
