"""COCO's numbers: which precision or recall each one is, its name, and the line that shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from striate.metrics.detection.reference import Floats

STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIZES = ("small", "medium", "large")

# One of COCO's numbers: whether it is a precision, IoU threshold (None: mean over all), area range, limit.
Row = tuple[bool, float | None, str, int]


def twelve_rows(limits: Sequence[int]) -> list[Row]:
    """Definitions of COCO's twelve metrics as pycocotools reads `limits`, in the order of `STAT_NAMES`.

    The first uses a limit of exactly 100 detections, and the others the first three limits.
    """
    one, ten, last = (*limits, -1, -1, -1)[:3]
    return [
        (True, None, "all", 100),
        (True, 0.5, "all", last),
        (True, 0.75, "all", last),
        *((True, None, size, last) for size in SIZES),
        *((False, None, "all", most) for most in (one, ten, last)),
        *((False, None, size, last) for size in SIZES),
    ]


def filled_rows(limits: Sequence[int]) -> list[Row]:
    """The twelve with every number that `limits` can fill.

    Without 100 among them, AP uses the same limit as AP50. Of fewer than three, the last is the last, and AR1
    and AR10 are at 1 and 10 if these are among them; another one takes the place of AR10.
    """
    if len(limits) < 3:
        other = [most for most in limits[:-1] if most != 1]
        limits = (1, other[0] if other else 10, limits[-1])
    rows = twelve_rows(limits)
    return rows if 100 in limits else [(True, None, "all", limits[2]), *rows[1:]]


def keypoint_rows(limit: int) -> list[Row]:
    """Definitions of COCO's ten metrics of key points at a limit."""
    some: list[tuple[float | None, str]] = [(None, "all"), (0.5, "all"), (0.75, "all")]
    some += [(None, "medium"), (None, "large")]
    return [(precise, t, area, limit) for precise in (True, False) for t, area in some]


def stat_rows(iou_type: str, limits: Sequence[int]) -> list[Row]:
    """Definitions of COCO's twelve metrics, or of its ten for key points."""
    return keypoint_rows(limits[-1]) if iou_type == "keypoints" else filled_rows(limits)


def stat_names(rows: Sequence[Row]) -> list[str]:
    """A name for each number: AP50, APs, ... The limit is part of it if recalls at several limits follow."""
    overall = [row for row in rows if not row[0] and row[1] is None and row[2] == "all"]
    names = []
    for precise, threshold, area, limit in rows:
        name = "AP" if precise else "AR"
        if threshold is not None:
            name += f"{100 * threshold:.0f}"
        if area != "all":
            name += area[0] if area in SIZES else f" {area}"
        elif not precise and threshold is None and len(overall) > 1:
            name += f"{limit}"
        names.append(name)
    return names


def mean_stat(
    values: Floats,
    threshold: float | None,
    area: str,
    limit: int,
    thresholds: Sequence[float] | Floats,
    areas: Iterable[str],
    limits: Iterable[int],
) -> float:
    """Mean of precision or recall [T, ..., A, M] at one area and limit; -1 if there is nothing to average."""
    a = [i for i, name in enumerate(areas) if name == area]
    m = [i for i, most in enumerate(limits) if most == limit]
    if threshold is not None:
        values = values[np.flatnonzero(np.asarray(thresholds) == threshold)]
    # In the order [T, R, K], on which the rounding of the sum depends; a limit given twice counts twice.
    single = len(a) == len(m) == 1  # the same values as those of the lists, without a copy
    mean = mean_or_none(values[..., a[0], m[0]] if single else values[..., a, m]) if a and m else None
    return -1.0 if mean is None else mean


def mean_or_none(values: Floats) -> float | None:
    """Mean of the values above -1; None if there are none."""
    flat = np.ravel(values)  # mostly a copy: reading a transposed array twice takes longer
    kept = flat[flat > -1]
    return float(np.mean(kept)) if kept.size else None


def stat_lines(rows: Sequence[Row], stats: Floats, thresholds: Sequence[float] | Floats) -> list[str]:
    """The numbers as pycocotools prints them."""
    lines = []
    for (precise, threshold, area, limit), value in zip(rows, stats, strict=True):
        name = ("Average Precision", "(AP)") if precise else ("Average Recall", "(AR)")
        at = f"{thresholds[0]:0.2f}:{thresholds[-1]:0.2f}" if threshold is None else f"{threshold:0.2f}"
        where = f"IoU={at:<9} | area={area:>6s} | maxDets={limit:>3d}"
        lines.append(f" {name[0]:<18} {name[1]} @[ {where} ] = {value:0.3f}")
    return lines
