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

from striate.errors import UsageError, unknown_name
from striate.metrics.detection.coco import CocoResult, CocoSettings, evaluate_coco
from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.coco_eval import COCOeval
from striate.metrics.detection.coco_json import read_detections, read_ground_truth
from striate.metrics.detection.coco_modules import init_as_pycocotools
from striate.metrics.detection.coco_shapes import read_detections_with, read_ground_truth_with
from striate.metrics.detection.columns import detections, ground_truth
from striate.metrics.detection.lvis import LvisResult, evaluate_lvis, federate, lvis_settings
from striate.metrics.detection.meter import MeanAveragePrecision
from striate.metrics.detection.records import Detections, Federated, GroundTruth
from striate.metrics.detection.reference import MatchRecord
from striate.metrics.detection.voc import EVALUATORS, VocResult, VocSettings, evaluate_voc

__all__ = [
    "COCO", "EVALUATORS", "STYLES", "COCOeval", "CocoResult", "CocoSettings", "Detections", "Federated",
    "GroundTruth", "LvisResult", "MatchRecord", "MeanAveragePrecision", "VocResult", "VocSettings",
    "detections", "evaluate", "evaluate_as", "evaluate_coco", "evaluate_lvis", "evaluate_voc", "federate",
    "ground_truth", "init_as_pycocotools", "lvis_settings", "read_detections", "read_detections_with",
    "read_ground_truth", "read_ground_truth_with", "settings_for",
]  # fmt: skip

Path = str | os.PathLike[str]
STYLES = ("coco", "lvis", *EVALUATORS)


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
        truth: a COCO or LVIS JSON file, or a `GroundTruth`.
        detections: a COCO results file, or `Detections`.
        style: "coco", "lvis", or one of `EVALUATORS`: "voc07", "voc12" and popular ports of these.
        threads: number of threads; None for all cores, at most 8.
        options: fields of `CocoSettings` or `VocSettings`, such as `iou_type="segm"` for masks.

    Returns:
        A `CocoResult`, an `LvisResult`, or a `VocResult`.

    Raises:
        DataError: a file cannot be read, or the detections are of other images.
        UsageError: the style is unknown, or an option has no such value.
    """
    settings = settings_for(style, **options)
    iou_type = settings.iou_type if isinstance(settings, CocoSettings) else "bbox"
    boxes_alone = iou_type == "bbox" and style != "lvis"
    from_files = not isinstance(truth, GroundTruth) and not isinstance(detections, Detections)
    if not isinstance(truth, GroundTruth):
        truth = read_ground_truth(truth, threads) if boxes_alone else read_ground_truth_with(truth, iou_type)
    if not isinstance(detections, Detections):
        if boxes_alone:
            detections = read_detections(detections, truth, threads)
        else:
            detections = read_detections_with(detections, truth, iou_type)
    return evaluate_as(style, truth, detections, settings, threads, defer=from_files)


def evaluate_as(
    style: str,
    truth: GroundTruth,
    detections: Detections,
    settings: CocoSettings | VocSettings,
    threads: int | None = None,
    *,
    defer: bool = False,
) -> Any:
    """Evaluate in a style, with settings from `settings_for`: as `evaluate`, without reading files.

    `defer` is that of `evaluate_coco`.
    """
    if isinstance(settings, VocSettings):
        return evaluate_voc(truth, detections, settings)
    if style == "lvis":
        return evaluate_lvis(truth, detections, settings, threads=threads)
    return evaluate_coco(truth, detections, settings, threads=threads, defer=defer)


def settings_for(style: str, **options: Any) -> CocoSettings | VocSettings:
    """The settings of a style, changed by options.

    Raises:
        UsageError: the style is unknown, or does not have an option.
    """
    if style not in STYLES:
        raise unknown_name("style", style, STYLES)
    if style in EVALUATORS and options.pop("iou_type", "bbox") != "bbox":
        raise UsageError(
            f"style {style} of masks or key points", "Pascal VOC compares boxes", "Use style coco"
        )
    if style in EVALUATORS:
        return replace(EVALUATORS[style], **options)
    return lvis_settings(**options) if style == "lvis" else CocoSettings(**options)
