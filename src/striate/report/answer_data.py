"""Pack the answers of a model of sequences for a page: the worst ones first, as many as fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from striate.charts import Answers
from striate.transforms.thumbnails import thumbnail

TEXT_BYTES, IMAGE_BYTES, MAX_IMAGES = 2_000_000, 1_500_000, 300
LINE = 480  # pixels of the longer side of the image of a line


def pack(answers: Answers, *, full: bool = False, base: str = "") -> dict[str, Any]:
    """The answers as JSON values, those with the highest error rate first.

    Args:
        answers: of at least one source.
        full: all answers and images, instead of as many as fit in 4 MB.
        base: URL of the folder that relative paths refer to.
    """
    rows: list[list[Any]] = []
    images: list[str] = []
    text_bytes = image_bytes = 0
    for i in np.argsort(-answers.rates, kind="stable").tolist():
        row = [answers.sources[i], answers.answers[i], list(answers.references[i]), float(answers.rates[i])]
        text_bytes += sum(len(text.encode("utf-8", "replace")) + 4 for text in (*row[:2], *row[2])) + 8
        if text_bytes > TEXT_BYTES and rows and not full:
            break
        rows.append(row)
        if answers.images is not None and (full or (len(images) < MAX_IMAGES and image_bytes < IMAGE_BYTES)):
            images.append(thumbnail(answers.images[i], LINE))
            image_bytes += len(images[-1])
    return {
        "rows": rows,
        "images": images,
        "count": len(answers.answers),
        "areImages": answers.images is not None,
        "wrong": int((answers.rates > 0).sum()),
        "base": base if answers.are_files else None,
    }
