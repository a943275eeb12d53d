"""Detection metrics of COCO and Pascal VOC, with the same bits as pycocotools.

    import striate
    result = striate.metrics.detection.evaluate("gt.json", "detections.json")
    result.stats        # COCO's twelve metrics

This package does not import torch.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from striate.errors import unknown_name
from striate.metrics.detection.coco import CocoResult, CocoSettings, evaluate_coco
from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.coco_eval import COCOeval
from striate.metrics.detection.coco_json import read_detections, read_ground_truth
from striate.metrics.detection.meter import MeanAveragePrecision
from striate.metrics.detection.records import Detections, GroundTruth, detections, ground_truth
from striate.metrics.detection.reference import MatchRecord
from striate.metrics.detection.voc import EVALUATORS, VocResult, VocSettings, evaluate_voc

__all__ = [
    "COCO", "EVALUATORS", "COCOeval", "CocoResult", "CocoSettings", "Detections", "GroundTruth",
    "MatchRecord", "MeanAveragePrecision", "VocResult", "VocSettings", "detections", "evaluate",
    "evaluate_coco", "evaluate_voc", "ground_truth", "read_detections", "read_ground_truth",
]  # fmt: skip

Path = str | os.PathLike[str]


def evaluate(
    truth: Path | GroundTruth,
    detections: Path | Detections,
    style: str = "coco",
    *,
    threads: int | None = None,
    **options: Any,
) -> Any:
    """Evaluate detections against ground truth.

    Args:
        truth: a COCO JSON file, or a `GroundTruth`.
        detections: a COCO results file, or `Detections`.
        style: "coco", or one of `EVALUATORS`: "voc07", "voc12" and popular ports of these.
        threads: number of threads; None for all cores, at most 8.
        options: fields of `CocoSettings` or `VocSettings`.

    Returns:
        A `CocoResult`, or a `VocResult`.

    Raises:
        DataError: a file cannot be read, or the detections are of other images.
        UsageError: the style is unknown.
    """
    if style != "coco" and style not in EVALUATORS:
        raise unknown_name("style", style, ["coco", *EVALUATORS])
    if not isinstance(truth, GroundTruth):
        truth = read_ground_truth(truth, threads)
    if not isinstance(detections, Detections):
        detections = read_detections(detections, truth, threads)
    if style == "coco":
        return evaluate_coco(truth, detections, CocoSettings(**options), threads=threads)
    return evaluate_voc(truth, detections, replace(EVALUATORS[style], **options))
