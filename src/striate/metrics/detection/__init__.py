"""Detection metrics: exact to the bit, fast, and explained.

    import striate
    result = striate.metrics.detection.evaluate("gt.json", "detections.json")
    result.stats        # COCO's twelve numbers

Nothing here loads torch.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from striate.errors import unknown_name
from striate.metrics.detection.coco import CocoResult, CocoSettings, MatchRecord, evaluate_coco
from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.coco_eval import COCOeval
from striate.metrics.detection.coco_json import read_detections, read_ground_truth
from striate.metrics.detection.meter import MeanAveragePrecision
from striate.metrics.detection.records import Detections, GroundTruth, detections, ground_truth
from striate.metrics.detection.voc import EVALUATORS, VocResult, VocSettings, evaluate_voc

__all__ = [
    "COCO",
    "EVALUATORS",
    "COCOeval",
    "CocoResult",
    "CocoSettings",
    "Detections",
    "GroundTruth",
    "MatchRecord",
    "MeanAveragePrecision",
    "VocResult",
    "VocSettings",
    "detections",
    "evaluate",
    "evaluate_coco",
    "evaluate_voc",
    "ground_truth",
    "read_detections",
    "read_ground_truth",
]

Path = str | os.PathLike[str]


def evaluate(
    truth: Path | GroundTruth,
    found: Path | Detections,
    style: str = "coco",
    *,
    threads: int | None = None,
    **options: Any,
) -> Any:
    """Measure detections against ground truth.

    Args:
        truth: a COCO JSON file, or a `GroundTruth`.
        found: a COCO results file, or `Detections`.
        style: "coco", or one of `EVALUATORS`: "voc07", "voc12" and what the popular ports make of them.
        threads: how many threads work; None for as many as the machine has.
        options: fields of `CocoSettings` or `VocSettings`.

    Returns:
        A `CocoResult`, or a `VocResult`.

    Raises:
        DataError: a file that cannot be read or does not fit.
        UsageError: an unknown style.
    """
    if style != "coco" and style not in EVALUATORS:
        raise unknown_name("style", style, ["coco", *EVALUATORS])
    if not isinstance(truth, GroundTruth):
        truth = read_ground_truth(truth, threads)
    if not isinstance(found, Detections):
        found = read_detections(found, truth, threads)
    if style == "coco":
        return evaluate_coco(truth, found, CocoSettings(**options), threads=threads)
    return evaluate_voc(truth, found, replace(EVALUATORS[style], **options))
