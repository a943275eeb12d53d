"""`striate detection`: the numbers by which detectors are judged."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from striate.cli.console import print_json, watching
from striate.errors import DataError, UsageError

Styles = "coco, voc07, voc12, or a port of these: padilla, padilla-11, py-faster-rcnn, py-faster-rcnn-07"


def detection(
    gt: Annotated[Path, typer.Argument(help="Ground truth: COCO JSON, CSV, or a folder of VOC XML or text.")],
    detections: Annotated[
        Path, typer.Argument(help="Detections: COCO JSON, CSV, or a folder of text files.")
    ],
    style: Annotated[str, typer.Option(help=f"What is measured: {Styles}.")] = "coco",
    iou: Annotated[float, typer.Option(help="IoU threshold of VOC's styles and of the explanation.")] = 0.5,
    score: Annotated[float | None, typer.Option(help="Print hits and misses at this score.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for an HTML report, figures and CSV.")] = None,
    picture: Annotated[Path | None, typer.Option(help="With --out: an image to draw the matches in.")] = None,
    bootstrap: Annotated[int, typer.Option(help="Draws of images for the interval of AP; 0 for none.")] = 0,
    compare: Annotated[Path | None, typer.Option(help="Another detector's detections, to compare.")] = None,
    iou_type: Annotated[str, typer.Option(help="COCO JSON: bbox, segm or keypoints.")] = "bbox",
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
    """Measure detections against ground truth: COCO's twelve numbers, or Pascal VOC's mAP.

    Python: striate.metrics.detection.evaluate("gt.json", "detections.json", style="coco")
    """
    from striate.metrics.detection import CocoResult, CocoSettings, evaluate

    if picture is not None and out is None:
        raise UsageError("--picture", "a picture needs a place to go", "Give --out FOLDER too")
    if iou_type != "bbox":
        _other_overlaps(gt, detections, iou_type, as_json, style, out or score or bootstrap or compare)
        return
    states_sizes = gt.is_dir() and any(gt.glob("*.xml"))  # VOC's annotations do
    layout = (coordinates, relative, score_last, images, names, gt if states_sizes else None)
    truth, found = _read(gt, detections, layout, threads)
    coco: dict[str, Any] = {"mode": mode} if style == "coco" else {"iou": iou}
    result = evaluate(truth, found, style, threads=threads, **coco)
    for note in result.notes:
        print(f"striate: {note}", file=sys.stderr)
    if isinstance(result, CocoResult):
        answer, lines = {"stats": result.stats.tolist(), "per_class": result.per_class()}, result.lines()
    else:
        answer, lines = {"map": result.map, "per_class": result.per_class()}, _voc_lines(result)
    settings = None if style == "coco" else CocoSettings(thresholds=(iou,))
    interval = comparison = None
    if bootstrap:
        from striate.metrics.detection.resampling import bootstrap as resample

        with watching() as progress:
            interval = resample(truth, found, bootstrap, settings=settings, progress=progress)
        answer["interval"] = asdict(interval)
        lines.append(f"AP {_between(interval)}")
    if compare is not None:
        from striate.metrics.detection.resampling import compare as both

        other = _read(gt, compare, layout, threads)[1]
        with watching() as progress:
            comparison = both(truth, found, other, bootstrap or 200, settings=settings, progress=progress)
        answer["comparison"] = asdict(comparison)
        lines += [
            f"this one    AP {_between(comparison.first)}",
            f"the other   AP {_between(comparison.second)}",
            f"difference     {_between(comparison.difference)}, p = {comparison.p:.3f}",
        ]
    if score is not None or out is not None:
        more, written = _explained(gt, result, truth, found, iou, score, out, picture, interval, comparison)
        answer |= more
        lines += [_point_line(more["operating_point"]), *(f"wrote {path}" for path in written)]
    if as_json:
        print_json(answer)
    else:
        print("\n".join(lines))


def _other_overlaps(gt: Path, found: Path, kind: str, as_json: bool, style: str, more: Any) -> None:
    """COCO's numbers of masks or key points: twelve, or ten for key points."""
    from striate.metrics.detection import COCO, COCOeval

    if style != "coco" or more:
        raise UsageError(f"--iou-type {kind}", "only COCO's numbers can be had of it", "Leave the rest out")
    truth = COCO(gt)
    judge = COCOeval(truth, truth.loadRes(found), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    if as_json:
        print_json({"stats": judge.stats.tolist()})
    else:
        print(judge)


def _explained(
    gt: Path,
    result: Any,
    truth: Any,
    found: Any,
    iou: float,
    score: float | None,
    out: Path | None,
    picture: Path | None,
    interval: Any,
    comparison: Any,
) -> tuple[dict[str, Any], list[Path]]:
    """What lies behind the numbers: for the answer, and as files where there is a folder for them."""
    from striate.metrics.detection.explain import match, operating_point

    score = 0.5 if score is None else score
    if out is None:
        point = operating_point(match(truth, found, iou), score)
        of = {"iou": iou, "score": score}
        return {"operating_point": of | point.total(), "operating_point_per_class": point.per_class()}, []
    from striate.report.detection import as_json, explain, write_report

    e = explain(truth, found, iou, score)
    drawn = _drawn(gt, picture, truth, e.matched, score) if picture is not None else None
    files = write_report(out, result, e, interval=interval, comparison=comparison, picture=drawn)
    return as_json(e), files


def _drawn(gt: Path, picture: Path, truth: Any, matched: Any, score: float) -> bytes:
    """PNG of one image with its matches; the image goes by its file name."""
    import io

    from striate.report.detection_figures import matches_picture

    ids = {str(i): place for place, i in enumerate(truth.image_ids.tolist())}
    if gt.suffix.lower() == ".json":
        rows = json.loads(gt.read_text("utf-8-sig"))["images"]
        by_name = {Path(str(row.get("file_name", ""))).name: str(row["id"]) for row in rows}
        image = ids.get(by_name.get(picture.name, ""))
    else:
        image = ids.get(picture.stem)
    if image is None:
        raise DataError(f"{picture}", f"{gt} has no image of that name")
    buffer = io.BytesIO()
    matches_picture(picture, matched, image, score).save(buffer, "PNG")
    return buffer.getvalue()


def _between(interval: Any) -> str:
    return f"{interval.value:.4f} (95 % of the draws: {interval.low:.4f} to {interval.high:.4f})"


def _point_line(point: dict[str, Any]) -> str:
    rates = ", ".join(
        f"{k} {'-' if point[k] is None else format(point[k], '.4f')}" for k in ("precision", "recall", "f1")
    )
    counts = ", ".join(f"{k.upper()} {point[k]}" for k in ("tp", "fp", "fn"))
    return f"at IoU {point['iou']:g} and score {point['score']:g}: {counts}, {rates}"


def _read(gt: Path, found: Path, options: tuple[Any, ...], threads: int | None) -> tuple[Any, Any]:
    if gt.suffix.lower() == found.suffix.lower() == ".json":  # the quickest way in: no image library
        from striate.metrics.detection import read_detections, read_ground_truth

        truth = read_ground_truth(gt, threads)
        return truth, read_detections(found, truth, threads)
    from striate.data.detection import TextLayout, read_found, read_truth

    layout = TextLayout(*options)
    truth = read_truth(gt, layout)
    return truth, read_found(found, truth, layout)


def _voc_lines(result: Any) -> list[str]:
    widest = max([len(c.name) for c in result.classes] + [5])
    lines = [f"{'class':<{widest}}      AP  objects     TP     FP"]
    for row in result.per_class():
        ap = "     -" if row["ap"] is None else f"{row['ap']:6.4f}"
        lines.append(f"{row['class']:<{widest}}  {ap} {row['positives']:8d} {row['tp']:6d} {row['fp']:6d}")
    mean = "-" if result.map is None else f"{result.map:.4f}"
    return [*lines, f"mAP at IoU {result.settings.iou:g}: {mean}"]
