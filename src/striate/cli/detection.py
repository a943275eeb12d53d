"""`striate detection`: the numbers by which detectors are judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Styles = "coco, voc07, voc12, or a port of these: padilla, padilla-11, py-faster-rcnn, py-faster-rcnn-07"


def detection(
    gt: Annotated[Path, typer.Argument(help="Ground truth: COCO JSON, CSV, or a folder of VOC XML or text.")],
    detections: Annotated[
        Path, typer.Argument(help="Detections: COCO JSON, CSV, or a folder of text files.")
    ],
    style: Annotated[str, typer.Option(help=f"What is measured: {Styles}.")] = "coco",
    iou: Annotated[float, typer.Option(help="IoU threshold of VOC's styles.")] = 0.5,
    mode: Annotated[str, typer.Option(help="COCO: strict (as pycocotools) or corrected.")] = "strict",
    coordinates: Annotated[str, typer.Option(help="Text files: xywh, xyxy or cxcywh.")] = "xywh",
    relative: Annotated[bool, typer.Option("--relative", help="Text, CSV: fractions of the image.")] = False,
    score_last: Annotated[
        bool, typer.Option("--score-last", help="Text: the score is after the box.")
    ] = False,
    images: Annotated[Path | None, typer.Option(help="Folder of images, for relative coordinates.")] = None,
    names: Annotated[Path | None, typer.Option(help="File with a class name on each line.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; all there are by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure detections against ground truth: COCO's twelve numbers, or Pascal VOC's mAP."""
    from striate.metrics.detection import CocoResult, evaluate

    options: dict[str, Any] = {"mode": mode} if style == "coco" else {"iou": iou}
    truth, found = _read(gt, detections, coordinates, relative, score_last, images, names, threads)
    result = evaluate(truth, found, style, threads=threads, **options)
    for note in result.notes:
        print(f"striate: {note}", file=sys.stderr)
    if isinstance(result, CocoResult):
        answer = {"stats": result.stats.tolist(), "per_class": result.per_class()}
        text = _coco_lines(result)
    else:
        answer = {"map": result.map, "per_class": result.per_class()}
        text = _voc_lines(result)
    print(json.dumps(answer) if as_json else "\n".join(text))


def _read(
    gt: Path,
    found: Path,
    coordinates: str,
    relative: bool,
    score_last: bool,
    images: Path | None,
    names: Path | None,
    threads: int | None,
) -> tuple[Any, Any]:
    if gt.suffix.lower() == found.suffix.lower() == ".json":  # the quickest way in: no image library
        from striate.metrics.detection import read_detections, read_ground_truth

        truth = read_ground_truth(gt, threads)
        return truth, read_detections(found, truth, threads)
    from striate.data.detection import TextLayout, read_found, read_truth

    layout = TextLayout(coordinates, relative, score_last, images, names)
    truth = read_truth(gt, layout)
    return truth, read_found(found, truth, layout)


def _coco_lines(result: Any) -> list[str]:
    """The twelve numbers, as pycocotools prints them."""
    limits = result.settings.limits
    sizes = ("all", "all", "all", "small", "medium", "large")
    precision = zip(("0.50:0.95", "0.50", "0.75", *["0.50:0.95"] * 3), sizes, [limits[-1]] * 6, strict=True)
    recall = zip(["0.50:0.95"] * 6, sizes, (*limits, *[limits[-1]] * 3), strict=True)
    lines = []
    for i, (at, area, most) in enumerate((*precision, *recall)):
        name = ("Average Precision", "(AP)") if i < 6 else ("Average Recall", "(AR)")
        lines.append(
            f" {name[0]:<18} {name[1]} @[ IoU={at:<9} | area={area:>6s} | maxDets={most:>3d} ] "
            f"= {result.stats[i]:0.3f}"
        )
    return lines


def _voc_lines(result: Any) -> list[str]:
    widest = max([len(c.name) for c in result.classes] + [5])
    lines = [f"{'class':<{widest}}      AP  objects     TP     FP"]
    for row in result.per_class():
        ap = "     -" if row["ap"] is None else f"{row['ap']:6.4f}"
        lines.append(f"{row['class']:<{widest}}  {ap} {row['positives']:8d} {row['tp']:6d} {row['fp']:6d}")
    mean = "-" if result.map is None else f"{result.map:.4f}"
    return [*lines, f"mAP at IoU {result.settings.iou:g}: {mean}"]
