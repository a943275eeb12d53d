"""`striate detection`: evaluate an object detector."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from striate.cli.console import print_json, say, watching
from striate.cli.options import Json, number
from striate.errors import DataError, UsageError
from striate.printable import escaped
from striate.reading import MAX_TABLE_BYTES, read_bytes
from striate.training.config import MAX_WORKERS

_STYLES = (
    "coco, voc07, voc12, or the behaviour of another implementation: padilla, padilla-11, py-faster-rcnn or "
    "py-faster-rcnn-07."
)
_MODE = "COCO: strict (like pycocotools) or corrected (handles ids of 0, duplicate ids, NaN scores)."
_IOU = "IoU threshold for VOC styles, --score and --out."
_SCORE = "Print TP, FP and FN at this score threshold."
_BOOTSTRAP = "Bootstrap samples for AP intervals; 0 for none."
_RELATIVE = "Text files and CSV: coordinates are fractions of the image size."


def detection(
    ground_truth: Annotated[
        Path, typer.Argument(metavar="GROUND_TRUTH", help="COCO JSON, CSV, folder of VOC XML or text files.")
    ],
    detections: Annotated[
        Path, typer.Argument(metavar="DETECTIONS", help="COCO JSON, CSV, or a folder of text files.")
    ],
    style: Annotated[str, typer.Option(help=_STYLES)] = "coco",
    iou: Annotated[float, number(_IOU, low=0, high=1)] = 0.5,
    score: Annotated[float | None, number(_SCORE, low=-1e9, high=1e9)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for an HTML report, figures and CSV.")] = None,
    picture: Annotated[Path | None, typer.Option(help="With --out: image to draw the matches on.")] = None,
    bootstrap: Annotated[int, number(_BOOTSTRAP, low=0, high=100_000)] = 0,
    compare: Annotated[Path | None, typer.Option(help="Another detector's detections to compare.")] = None,
    iou_type: Annotated[str, typer.Option(help="COCO JSON: bbox, segm or keypoints.")] = "bbox",
    mode: Annotated[str, typer.Option(help=_MODE)] = "strict",
    coordinates: Annotated[str, typer.Option(help="Text files: box as xywh, xyxy or cxcywh.")] = "xywh",
    relative: Annotated[bool, typer.Option("--relative", help=_RELATIVE)] = False,
    score_last: Annotated[bool, typer.Option("--score-last", help="Text files: the score is last.")] = False,
    images: Annotated[Path | None, typer.Option(help="Folder of images, for relative coordinates.")] = None,
    names: Annotated[Path | None, typer.Option(help="File with a class name on each line.")] = None,
    threads: Annotated[
        int | None, number("Number of threads.", low=1, high=MAX_WORKERS, show_default="all cores")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate an object detector: COCO's twelve metrics, or Pascal VOC's mAP.

    Python: striate.metrics.detection.evaluate("gt.json", "detections.json", style="coco")
    """
    from striate.metrics.detection import evaluate

    if picture is not None and out is None:
        raise UsageError("--picture without --out", "the picture is part of the report", "Add --out FOLDER")
    if iou_type != "bbox":
        only_numbers = style == "coco" and not (out or score or bootstrap or compare)
        _evaluate_other(ground_truth, detections, iou_type, only_numbers, as_json)
        return
    has_xml = ground_truth.is_dir() and any(ground_truth.glob("*.xml"))  # they contain the image sizes
    layout = (coordinates, relative, score_last, images, names, ground_truth if has_xml else None)
    truth, predictions = _read(ground_truth, detections, layout, threads)
    options: dict[str, Any] = {"mode": mode} if style == "coco" else {"iou": iou}
    result = evaluate(truth, predictions, style, threads=threads, **options)
    for note in result.notes:
        print(f"striate: {escaped(note)}", file=sys.stderr)
    answer, lines = _metrics(result)
    other = None if compare is None else _read(ground_truth, compare, layout, threads)[1]
    resampled = _resample(truth, predictions, other, bootstrap, None if style == "coco" else iou)
    answer |= {name: asdict(value) for name, value in resampled.items()}
    lines += _resampled_lines(**resampled)
    if score is not None or out is not None:
        threshold = 0.5 if score is None else score
        image = None if picture is None else (picture, _image_index(ground_truth, picture, truth))
        explained, files = _explain(result, (truth, predictions), (iou, threshold), out, image, **resampled)
        answer |= explained
        lines += [_point_line(answer["operating_point"]), *(f"wrote {path}" for path in files)]
    if as_json:
        print_json(answer)
    else:
        for line in lines:
            say(line)


def _evaluate_other(truth: Path, predictions: Path, iou_type: str, only_numbers: bool, as_json: bool) -> None:
    """Print COCO's metrics for masks (twelve) or key points (ten)."""
    from striate.metrics.detection import COCO, COCOeval

    if not only_numbers:
        fix = "Leave out --style, --out, --score, --bootstrap and --compare"
        raise UsageError(f"--iou-type {iou_type} with other options", "it has only COCO's metrics", fix)
    gt = COCO(truth)
    evaluator = COCOeval(gt, gt.loadRes(predictions), iou_type)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    if as_json:
        print_json({"stats": evaluator.stats.tolist()})
    else:
        print(evaluator)


def _metrics(result: Any) -> tuple[dict[str, Any], list[str]]:
    """The metrics as JSON values and as lines."""
    from striate.metrics.detection import CocoResult

    classes = result.per_class()
    if isinstance(result, CocoResult):
        return {"stats": result.stats.tolist(), "per_class": classes}, result.lines()
    widest = max([len(row["class"]) for row in classes] + [5])
    lines = [f"{'class':<{widest}}      AP  objects     TP     FP"]
    for row in classes:
        ap = "     -" if row["ap"] is None else f"{row['ap']:6.4f}"
        lines.append(f"{row['class']:<{widest}}  {ap} {row['positives']:8d} {row['tp']:6d} {row['fp']:6d}")
    mean = "-" if result.map is None else f"{result.map:.4f}"
    lines.append(f"mAP at IoU {result.settings.iou:g}: {mean}")
    return {"map": result.map, "per_class": classes}, lines


def _resample(truth: Any, predictions: Any, other: Any, draws: int, iou: float | None) -> dict[str, Any]:
    """Bootstrap the AP (`interval`), and compare it with another detector's (`comparison`)."""
    if not draws and other is None:
        return {}
    from striate.metrics.detection import CocoSettings
    from striate.metrics.detection.resampling import bootstrap, compare

    settings = None if iou is None else CocoSettings(thresholds=(iou,))
    out: dict[str, Any] = {}
    with watching() as progress:
        if draws:
            out["interval"] = bootstrap(truth, predictions, draws, settings=settings, progress=progress)
        if other is not None:
            out["comparison"] = compare(
                truth, predictions, other, draws or 200, settings=settings, progress=progress
            )
    return out


def _resampled_lines(interval: Any = None, comparison: Any = None) -> list[str]:
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
    return f"{name} {interval.value:.4f} (95 % of the draws: {interval.low:.4f} to {interval.high:.4f})"


def _explain(
    result: Any, boxes: Any, at: Any, out: Path | None, image: tuple[Path, int] | None, **resampled: Any
) -> tuple[dict[str, Any], list[Path]]:
    """TP, FP and FN `at` an IoU and a score as JSON values; with `out`, also the report and its files."""
    from striate.metrics.detection.explain import match, operating_point

    (truth, predictions), (iou, score) = boxes, at
    if out is None:
        return operating_point(match(truth, predictions, iou), score).to_json(), []
    from striate.report.detection import as_json, explain, write_report

    e = explain(truth, predictions, iou, score)
    drawn = None
    if image is not None:
        from striate.report.detection_image import draw_matches

        drawn = draw_matches(image[0], e.matched, image[1], score)
    return as_json(e), write_report(out, result, e, **resampled, image=drawn)


def _image_index(gt: Path, picture: Path, truth: Any) -> int:
    """Find an image in the ground truth by its file name."""
    ids = {str(i): place for place, i in enumerate(truth.image_ids.tolist())}
    if gt.suffix.lower() == ".json":
        rows = json.loads(read_bytes(gt, MAX_TABLE_BYTES).decode("utf-8-sig"))["images"]
        by_name = {Path(str(row.get("file_name", ""))).name: str(row["id"]) for row in rows}
        index = ids.get(by_name.get(picture.name, ""))
    else:
        index = ids.get(picture.stem)
    if index is None:
        raise DataError(f"{picture}", f"{gt} has no image with that file name")
    return index


def _point_line(point: dict[str, Any]) -> str:
    rates = ", ".join(
        f"{k} {'-' if point[k] is None else format(point[k], '.4f')}" for k in ("precision", "recall", "f1")
    )
    counts = ", ".join(f"{k.upper()} {point[k]}" for k in ("tp", "fp", "fn"))
    return f"at IoU {point['iou']:g} and score {point['score']:g}: {counts}, {rates}"


def _read(gt: Path, predictions: Path, options: tuple[Any, ...], threads: int | None) -> tuple[Any, Any]:
    if gt.suffix.lower() == predictions.suffix.lower() == ".json":  # the fast path: imports no image library
        from striate.metrics.detection import read_detections, read_ground_truth

        truth = read_ground_truth(gt, threads)
        return truth, read_detections(predictions, truth, threads)
    from striate.data.detection import TextLayout, load_detections, load_ground_truth

    layout = TextLayout(*options)
    truth = load_ground_truth(gt, layout)
    return truth, load_detections(predictions, truth, layout)
