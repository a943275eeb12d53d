"""The values of `striate detection`'s options, and the lines and JSON values that it prints."""

from __future__ import annotations

from typing import Any

from striate.errors import UsageError

MOST = 10**9  # detections of an image; pixels of its side
LONGEST = 1000  # numbers in an option


def settings_of(
    iou_type: str,
    max_detections: str | None,
    area_ranges: str | None,
    iou_thresholds: str | None,
    sigmas: str | None,
) -> dict[str, Any]:
    """The fields of `CocoSettings` that options state.

    Raises:
        UsageError: an option has another form.
    """
    from striate.metrics.detection.similarity import check_iou_type

    check_iou_type(iou_type)
    if sigmas is not None and iou_type != "keypoints":
        raise UsageError(f"--sigmas with --iou-type {iou_type}", "only key points have them", "Leave it out")
    options: dict[str, Any] = {} if iou_type == "bbox" else {"iou_type": iou_type}
    if max_detections is not None:
        options["limits"] = tuple(sorted(_numbers("--max-detections", max_detections, int, high=MOST)))
    if area_ranges is not None:
        options["areas"] = _areas(area_ranges)
    if iou_thresholds is not None:
        options["thresholds"] = _thresholds(iou_thresholds)
    if sigmas is not None:
        options["sigmas"] = _numbers("--sigmas", sigmas, float, high=1e9)
    return options


def _numbers(flag: str, text: str, kind: type, high: float) -> tuple[Any, ...]:
    """The numbers from 0 to `high` in an option."""
    what = "whole numbers" if kind is int else "numbers"
    try:
        values = tuple(kind(part) for part in text.split(","))
        inside = len(values) <= LONGEST and all(0 <= value <= high for value in values)
    except ValueError:
        inside = False
    if not inside:
        why = f"it should be {what} from 0 to {high:,g} with commas between them, at most {LONGEST:,}"
        raise UsageError(f"{flag} {text!r}", why)
    return values


def _areas(text: str) -> dict[str, tuple[float, float]]:
    from striate.metrics.detection.coco import AREAS

    areas = {"all": AREAS["all"]}
    for part in text.split(","):
        fields = part.split(":")
        why = "it should be NAME:LEAST:MOST with commas between them, in square pixels"
        if len(fields) == 1 and part in AREAS:
            areas[part] = AREAS[part]
            continue
        try:
            name, least, most = fields[0], *map(float, fields[1:])
            is_range = name not in ("", "all") and 0 <= least <= most <= MOST**2
        except ValueError:
            is_range = False
        if not is_range:
            raise UsageError(f"--area-ranges {text!r}", why, "Example: tiny:0:256,small:256:1024")
        areas[name] = (least, most)
    return areas


def _thresholds(text: str) -> tuple[float, ...]:
    from striate.metrics.detection.coco import CLOSE, steps

    if ":" not in text:
        return _numbers("--iou-thresholds", text, float, high=1)
    values = _numbers("--iou-thresholds", text.replace(":", ","), float, high=1)
    example = "Example: 0.5:0.95:0.05"
    if "," in text or len(values) != 3 or values[1] < values[0] or values[2] * LONGEST < 1:
        why = f"a range is FIRST:LAST:STEP, with steps of {1 / LONGEST:g} or more"
        raise UsageError(f"--iou-thresholds {text!r}", why, example)
    count = (values[1] - values[0]) / values[2]
    if abs(count - round(count)) > CLOSE * LONGEST:
        why = f"steps of {values[2]:g} from {values[0]:g} do not end at {values[1]:g}"
        raise UsageError(f"--iou-thresholds {text!r}", why, example)
    return steps(*values)


def metrics(result: Any) -> tuple[dict[str, Any], list[str]]:
    """The metrics as JSON values and as lines."""
    from striate.metrics.detection import CocoResult

    classes, notes = result.per_class(), {"notes": list(result.notes)}
    if isinstance(result, CocoResult):
        numbers = {"stats": result.stats.tolist(), "stat_names": result.stat_names, "areas": result.by_area()}
        return numbers | {"per_class": classes} | notes, result.lines()
    widest = max([len(row["class"]) for row in classes] + [5])
    lines = [f"{'class':<{widest}}      AP  objects     TP     FP"]
    for row in classes:
        ap = "     -" if row["ap"] is None else f"{row['ap']:6.4f}"
        lines.append(f"{row['class']:<{widest}}  {ap} {row['positives']:8d} {row['tp']:6d} {row['fp']:6d}")
    mean = "-" if result.map is None else f"{result.map:.4f}"
    lines.append(f"mAP at IoU {result.settings.iou:g}: {mean}")
    return {"map": result.map, "per_class": classes} | notes, lines


def resampled_lines(interval: Any = None, comparison: Any = None) -> list[str]:
    """Lines about a confidence interval and a comparison."""
    lines = [] if interval is None else [_interval_line("AP", interval)]
    if comparison is not None:
        difference = _interval_line("difference    ", comparison.difference)
        lines += [
            _interval_line("this one    AP", comparison.first),
            _interval_line("the other   AP", comparison.second),
            f"{difference}, p = {comparison.p:.3f}",
        ]
    return lines


def _interval_line(name: str, interval: Any) -> str:
    return f"{name} {interval.value:.4f} (95 % confidence: {interval.low:.4f} to {interval.high:.4f})"


def point_line(point: dict[str, Any], overlap: str) -> str:
    """A line about an operating point; `overlap` is the name of the measure."""
    rates = ", ".join(
        f"{k} {'-' if point[k] is None else format(point[k], '.4f')}" for k in ("precision", "recall", "f1")
    )
    counts = ", ".join(f"{k.upper()} {point[k]}" for k in ("tp", "fp", "fn"))
    return f"at {overlap} {point['iou']:g} and score {point['score']:g}: {counts}, {rates}"
