"""Find out what the four numbers of a box are: corner and size, two corners, or center and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from striate.data.detection.rows import COORDINATES
from striate.errors import DataError
from striate.metrics.detection.reference import Bools, Floats

AUTO = "auto"
NUMBERS = {
    "xywh": "left, top, width, height", "xyxy": "left, top, right, bottom",
    "cxcywh": "center, width, height",
}  # fmt: skip
SLACK = 0.02  # of the image's side: detectors that do not clip their boxes overshoot by a little
FEW = 0.1  # the share of boxes that may leave their image in the right layout
ENOUGH = 20  # boxes whose right and bottom lie beyond left and top: by chance no longer


@dataclass(frozen=True)
class Evidence:
    """Boxes that contradict a layout.

    Args:
        inverted: right or bottom before left or top, or a negative size.
        outside: the box leaves its image by more than `SLACK`.
    """

    inverted: Bools
    outside: Bools

    @property
    def contradicts(self) -> bool:
        """Whether the numbers cannot be in this layout."""
        return bool(self.inverted.any() or self.outside.sum() > FEW * self.outside.size)


def infer_coordinates(boxes: Floats, sizes: Floats, source: str, where: Sequence[str]) -> tuple[str, str]:
    """Choose the layout that the boxes themselves allow.

    A layout is ruled out by an inverted box, or if more than a tenth of the boxes leave their image. Of
    several, the one with the fewest boxes outside wins. If the image sizes are unknown and `ENOUGH` boxes are
    all ordered like corners, they are corners. Otherwise nothing tells the layouts apart: it is "xywh".

    Args:
        boxes: [N, 4], the numbers as written.
        sizes: [N, 2], width and height of the image in the same unit, NaN if unknown.
        source: the file or folder, for messages.
        where: file and line of each box.

    Returns:
        One of `COORDINATES`, and a sentence that states the choice and its reason.

    Raises:
        DataError: every layout is ruled out.
    """
    evidence = {name: _evidence(boxes, name, sizes) for name in COORDINATES}
    possible = [name for name in COORDINATES if not evidence[name].contradicts]
    if not possible:
        why = "; ".join(f"not {name}: {_reason(evidence[name], where)}" for name in COORDINATES)
        raise DataError(f"the boxes of {source}", why, "Correct them, or set --coordinates")
    outside = {name: int(evidence[name].outside.sum()) for name in possible}
    least = min(outside.values())
    possible = [name for name in possible if outside[name] == least or outside[name] < 3 * least]
    corners = bool((boxes[:, :2] > 0).all(axis=1).sum() >= ENOUGH)
    if len(possible) > 1 and "xyxy" in possible and corners and np.isnan(sizes).all():
        return "xyxy", _choice(source, "xyxy", f"right > left and bottom > top in all {len(boxes):,} boxes")
    chosen = possible[0]
    if len(possible) > 1:
        others = " or ".join(possible[1:])
        return chosen, _choice(source, chosen, f"they could also be {others}; --coordinates decides")
    others = "; ".join(
        f"not {name}: {_reason(evidence[name], where)}" for name in COORDINATES if name != chosen
    )
    return chosen, _choice(source, chosen, others)


def _choice(source: str, chosen: str, reason: str) -> str:
    return f"read the boxes of {source} as {chosen} ({NUMBERS[chosen]}): {reason}"


def _evidence(boxes: Floats, coordinates: str, sizes: Floats) -> Evidence:
    a, b, c, d = boxes.T
    if coordinates == "xyxy":
        left, top, right, bottom, inverted = a, b, c, d, (c < a) | (d < b)
    else:
        left, top = (a - c / 2, b - d / 2) if coordinates == "cxcywh" else (a, b)
        right, bottom, inverted = left + c, top + d, (c < 0) | (d < 0)
    # A pixel more than the image has: some tools count pixels from 1.
    slack = np.maximum(1.0 * (sizes > 1), SLACK * sizes)
    x_slack, y_slack = np.nan_to_num(slack, nan=1.0).T
    outside = (left < -x_slack) | (top < -y_slack)
    outside |= (right > sizes[:, 0] + x_slack) | (bottom > sizes[:, 1] + y_slack)
    return Evidence(inverted, outside & ~inverted)


def _reason(evidence: Evidence, where: Sequence[str]) -> str:
    counts = []
    n = evidence.inverted.size
    for rows, what in (
        (evidence.inverted, "would be inverted"),
        (evidence.outside, "would leave their image"),
    ):
        if rows.any():
            counts.append(f"{int(rows.sum()):,} of {n:,} boxes {what} (first: {where[int(np.argmax(rows))]})")
    return " and ".join(counts)
