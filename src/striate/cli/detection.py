"""`striate detection`: evaluate an object detector."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from striate.cli.console import print_json, say, watching
from striate.cli.detection_lines import metrics, point_line, resampled_lines, settings_of
from striate.cli.options import Json, number
from striate.errors import DataError, UsageError
from striate.printable import escaped
from striate.training.config import MAX_WORKERS

_STYLES = (
    "coco, lvis, voc07, voc12, or the behavior of another implementation: padilla, padilla-11, "
    "py-faster-rcnn or py-faster-rcnn-07."
)
_MODE = "COCO: strict (like pycocotools) or corrected (handles ids of 0, duplicate ids, NaN scores)."
_SCORE = "Print TP, FP and FN at this score threshold."
_BOOTSTRAP = "Bootstrap samples for AP intervals; 0 for none."
_RELATIVE = "Text files and CSV: coordinates are fractions of the image size."
_COORDINATES = "Text files: box as xywh, xyxy or cxcywh; auto infers it from the boxes."
_IOU = "IoU threshold (OKS for key points) for VOC styles, --score and --out."
_LIMITS = "COCO: maximum detections per class and image, such as 1,10,100. LVIS: per image, such as 300."
_AREAS = "COCO: area ranges in square pixels, such as tiny:0:256,small:256:1024; all is always there."
_THRESHOLDS = "COCO: IoU thresholds, such as 0.5,0.75 or 0.5:0.95:0.05."
_IMAGES = "Folder of images: for the page of --out, and for relative coordinates."
_SIGMAS = "Key points: standard deviation of annotators for each point, such as 0.026,0.025,..."


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
    out: Annotated[Path | None, typer.Option(help="Folder for an HTML report and CSV.")] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="With --out: write the figures as PNG files, too.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="With --out: image to draw the matches on.")] = None,
    bootstrap: Annotated[int, number(_BOOTSTRAP, low=0, high=100_000)] = 0,
    compare: Annotated[Path | None, typer.Option(help="Another detector's detections to compare.")] = None,
    iou_type: Annotated[str, typer.Option(help="COCO JSON: bbox, segm or keypoints.")] = "bbox",
    mode: Annotated[str, typer.Option(help=_MODE)] = "strict",
    max_detections: Annotated[str | None, typer.Option(help=_LIMITS, show_default="1,10,100")] = None,
    area_ranges: Annotated[str | None, typer.Option(help=_AREAS, show_default="small,medium,large")] = None,
    iou_thresholds: Annotated[
        str | None, typer.Option(help=_THRESHOLDS, show_default="0.5:0.95:0.05")
    ] = None,
    sigmas: Annotated[str | None, typer.Option(help=_SIGMAS, show_default="COCO's 17")] = None,
    coordinates: Annotated[str, typer.Option(help=_COORDINATES)] = "auto",
    relative: Annotated[bool, typer.Option("--relative", help=_RELATIVE)] = False,
    score_last: Annotated[bool, typer.Option("--score-last", help="Text files: the score is last.")] = False,
    images: Annotated[Path | None, typer.Option(help=_IMAGES)] = None,
    names: Annotated[Path | None, typer.Option(help="File with a class name on each line.")] = None,
    threads: Annotated[
        int | None, number("Number of threads.", low=1, high=MAX_WORKERS, show_default="all cores")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate an object detector: COCO's twelve metrics, LVIS's thirteen, or Pascal VOC's mAP.

    Python: striate.metrics.detection.evaluate("gt.json", "detections.json", style="coco")
    """
    if picture is not None and out is None:
        raise UsageError("--picture without --out", "the picture is part of the report", "Add --out FOLDER")
    if figures and out is None:
        raise UsageError("--figures without --out", "they belong to the report", "Add --out FOLDER")
    chosen = settings_of(iou_type, max_detections, area_ranges, iou_thresholds, sigmas)
    has_xml = ground_truth.is_dir() and any(ground_truth.glob("*.xml"))  # they contain the image sizes
    layout = (coordinates, relative, score_last, images, names, ground_truth if has_xml else None)
    reader = Reader(ground_truth, layout, _settings(style, mode, iou, chosen), style, threads)
    answer, lines = _evaluate(
        reader, detections, compare, bootstrap, Point(iou, score, out, picture, figures, images)
    )
    if as_json:
        print_json(answer)
    else:
        for line in lines:
            say(line)


class Point(NamedTuple):
    """An operating point, the folder of the report, the image to draw on, figures or not, all images."""

    iou: float
    score: float | None
    out: Path | None
    picture: Path | None
    figures: bool
    images: Path | None


def _settings(style: str, mode: str, iou: float, chosen: dict[str, Any]) -> Any:
    """The settings of the style, of which Pascal VOC's has other ones than COCO's."""
    from striate.metrics.detection import EVALUATORS, settings_for

    if style not in EVALUATORS:
        return settings_for(style, mode=mode, **chosen)
    flags = {"limits": "max-detections", "areas": "area-ranges", "thresholds": "iou-thresholds"}
    for name, flag in flags.items():
        if name in chosen:
            raise UsageError(f"--{flag} with style {style}", "Pascal VOC has no such option", "Leave it out")
    return settings_for(style, iou=iou, **chosen)


class Reader(NamedTuple):
    """Reads ground truth and detections in the formats and for the style that the user chose."""

    path: Path
    layout: tuple[Any, ...]
    settings: Any
    style: str
    threads: int | None

    @property
    def iou_type(self) -> Any:
        """What is compared."""
        return getattr(self.settings, "iou_type", "bbox")

    def ground_truth(self) -> Any:
        """The ground truth."""
        from striate.metrics.detection import read_ground_truth, read_ground_truth_with

        if self._needs_all(self.path):
            return read_ground_truth_with(self.path, self.iou_type)
        if self.path.suffix.lower() == ".json":  # imports no image library
            return read_ground_truth(self.path, self.threads)
        from striate.data.detection import TextLayout, load_ground_truth

        return load_ground_truth(self.path, TextLayout(*self.layout))

    def detections(self, path: Path, truth: Any) -> Any:
        """Detections in the images of the ground truth."""
        from striate.metrics.detection import read_detections, read_detections_with

        if self._needs_all(path):
            return read_detections_with(path, truth, self.iou_type)
        if path.suffix.lower() == ".json":
            return read_detections(path, truth, self.threads)
        from striate.data.detection import TextLayout, load_detections

        return load_detections(path, truth, TextLayout(*self.layout))

    def _needs_all(self, path: Path) -> bool:
        """Whether more than the boxes are needed, which only COCO's JSON has."""
        if self.iou_type == "bbox" and self.style != "lvis":
            return False
        if path.suffix.lower() != ".json":
            what = f"style {self.style}" if self.iou_type == "bbox" else f"--iou-type {self.iou_type}"
            raise UsageError(f"{what} with {path}", "it needs COCO's JSON", "Give a .json file")
        return True


def _evaluate(
    reader: Reader, predictions: Path, compare: Path | None, draws: int, point: Point
) -> tuple[dict[str, Any], list[str]]:
    """The results as JSON values and as lines; writes the report."""
    from striate.metrics.detection import evaluate_as

    truth = reader.ground_truth()
    found = reader.detections(predictions, truth)
    result = evaluate_as(reader.style, truth, found, reader.settings, reader.threads, defer=True)
    for note in result.notes:
        print(f"striate: {escaped(note)}", file=sys.stderr)
    answer, lines = metrics(result)
    other = None if compare is None else reader.detections(compare, truth)
    pairs = [_counted(reader, truth, one) for one in (found, other) if one is not None]
    resampled = _resample(reader, pairs, draws)
    answer |= {name: asdict(value) for name, value in resampled.items()}
    lines += resampled_lines(**resampled)
    if point.score is not None or point.out is not None:
        explained, files, overlap = _explain(reader, result, pairs[0], point, resampled)
        answer |= explained
        lines += [point_line(answer["operating_point"], overlap), *(f"wrote {path}" for path in files)]
    return answer, lines


def _counted(reader: Reader, truth: Any, found: Any) -> tuple[Any, Any]:
    """The rows that count: for LVIS those of the classes that were looked for, otherwise all."""
    if reader.style != "lvis":
        return truth, found
    from striate.metrics.detection import federate

    pair: tuple[Any, Any] = federate(truth, found, reader.settings.limits[-1])
    return pair


def _resample(reader: Reader, pairs: list[tuple[Any, Any]], draws: int) -> dict[str, Any]:
    """Bootstrap the AP (`interval`), and compare it with another detector's (`comparison`)."""
    if not draws and len(pairs) == 1:
        return {}
    from striate.metrics.bootstrap import DRAWS
    from striate.metrics.detection import CocoSettings
    from striate.metrics.detection.resampling import bootstrap, compare

    settings = reader.settings
    if not isinstance(settings, CocoSettings):
        settings = CocoSettings(thresholds=(settings.iou,))
    out: dict[str, Any] = {}
    (truth, found), *others = pairs
    with watching() as progress:
        if draws:
            out["interval"] = bootstrap(truth, found, draws, settings=settings, progress=progress)
        if others:
            out["comparison"] = compare(
                truth, found, others[0][1], draws or DRAWS, settings=settings, progress=progress
            )
    return out


def _explain(
    reader: Reader, result: Any, pair: tuple[Any, Any], at: Point, resampled: dict[str, Any]
) -> tuple[dict[str, Any], list[Path], str]:
    """TP, FP and FN at an operating point as JSON values, the files of the report, and the overlap's name."""
    from striate.metrics.detection.explain import match, operating_point
    from striate.metrics.detection.similarity import OVERLAP_NAMES

    options = {"iou_type": reader.iou_type}
    if reader.iou_type == "keypoints":
        options["sigmas"] = reader.settings.sigmas
    name, score = OVERLAP_NAMES[reader.iou_type], 0.5 if at.score is None else at.score
    if at.out is None:
        return operating_point(match(*pair, at.iou, **options), score).to_json(), [], name
    from striate.report.detection import as_json, explain, write_report
    from striate.report.detection_pictures import pictures_in

    names = _image_names(reader.path, pair[0])
    index = None if at.picture is None else _image_index(reader.path, at.picture, names)
    e = explain(*pair, at.iou, score, **options)
    drawn = None
    if at.picture is not None and index is not None:
        from striate.report.detection_image import draw_matches

        drawn = draw_matches(at.picture, e.matched, index, score)
    files = {} if at.images is None else pictures_in(at.images)
    written = write_report(
        at.out, result, e, **resampled, image=drawn, figures=at.figures, names=names, files=files
    )
    return as_json(e), written, name


def _image_names(gt: Path, truth: Any) -> list[str]:
    """The file names of the images, or their ids if the ground truth names no files."""
    ids = truth.image_ids.tolist()
    if gt.suffix.lower() != ".json":
        return [str(value) for value in ids]
    from striate.metrics.detection import COCO

    rows = {str(row["id"]): str(row.get("file_name") or row["id"]) for row in COCO(gt).imgs.values()}
    return [rows.get(str(value), str(value)) for value in ids]


def _image_index(gt: Path, picture: Path, names: list[str]) -> int:
    """Find an image in the ground truth by its file name."""
    wanted = picture.name if gt.suffix.lower() == ".json" else picture.stem
    for index, name in enumerate(names):
        if Path(name).name == wanted:
            return index
    raise DataError(f"{picture}", f"{gt} has no image with that file name")
