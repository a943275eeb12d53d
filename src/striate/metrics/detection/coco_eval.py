"""`COCOeval`, a replacement for pycocotools' class with the same bits: boxes, masks and key points."""

from __future__ import annotations

import copy
import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.metrics.detection import coco_steps
from striate.metrics.detection.coco import SIGMAS, CocoSettings
from striate.metrics.detection.coco_file import many_objects
from striate.metrics.detection.coco_matching import Evaluation, prepare
from striate.metrics.detection.similarity import check_iou_type
from striate.metrics.detection.summary import Row, keypoint_rows, mean_stat, stat_lines, twelve_rows

STEPS = ("_prepare", "computeIoU", "computeOks", "evaluateImg")
COMPARED = ("imgIds", "catIds", "maxDets", "areaRng", "useCats")


class Params:
    """Settings of the evaluation, with pycocotools' names."""

    def __init__(self, iouType: str = "segm") -> None:
        check_iou_type(iouType)
        self.iouType = iouType
        self.useSegm: int | None = None  # deprecated, for iouType
        if iouType == "keypoints":
            self.setKpParams()
        else:
            self.setDetParams()

    def setDetParams(self) -> None:
        """Set the defaults of boxes and masks."""
        self._set_defaults(CocoSettings())

    def setKpParams(self) -> None:
        """Set the defaults of key points: at most 20 detections, no small objects."""
        self._set_defaults(CocoSettings(iou_type="keypoints"))
        self.kpt_oks_sigmas: Any = np.array(SIGMAS)

    def _set_defaults(self, defaults: CocoSettings) -> None:
        self.imgIds: Any = []
        self.catIds: Any = []
        self.iouThrs: Any = np.array(defaults.thresholds)
        self.recThrs: Any = np.array(defaults.recalls)
        self.maxDets: Any = list(defaults.limits)
        self.areaRng: Any = [list(limits) for limits in defaults.areas.values()]
        self.areaRngLbl: Any = list(defaults.areas)
        self.useCats: Any = 1


def _log(text: str) -> None:
    logging.getLogger("striate").info("%s", text)


class COCOeval:
    """pycocotools' evaluator: `evaluate`, `accumulate`, `summarize`; `stats`, `eval`, `evalImgs`, `ious`.

    The kernel evaluates everything at once, and `evalImgs` and `ious` are built when someone asks for them.
    Where a subclass overrides a step, or a program sets `evalImgs`, the evaluation goes through these steps
    and these records instead, as in pycocotools.

    Args:
        cocoGt: the ground truth.
        cocoDt: the detections, from `cocoGt.loadRes`.
        iouType: "bbox", "segm" or "keypoints".
        print_function: what `summarize` does with the table; the default logs it.
    """

    evalImgs: Any
    ious: Any
    _gts: Any
    _dts: Any

    def __init__(
        self,
        cocoGt: Any = None,
        cocoDt: Any = None,
        iouType: str = "segm",
        print_function: Callable[[str], Any] = _log,
    ) -> None:
        self.cocoGt, self.cocoDt = cocoGt, cocoDt
        self.print_function = print_function
        self.params = Params(iouType)
        self.evalImgs, self.ious = defaultdict(list), {}
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        self._paramsEval: Any = {}
        self._evaluation: Evaluation | None = None
        self.eval: dict[str, Any] = {}
        self.stats: Any = []
        if cocoGt is not None:
            self.params.imgIds = sorted(cocoGt.getImgIds())
            self.params.catIds = sorted(cocoGt.getCatIds())

    def __getattr__(self, name: str) -> Any:
        """Build what the kernel's evaluation leaves out until someone asks for it."""
        evaluation = self.__dict__.get("_evaluation")
        if evaluation is None or name not in ("evalImgs", "ious", "_gts", "_dts"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with many_objects():
            if name == "evalImgs":
                self.evalImgs = evaluation.records()
            elif name == "ious":
                self.ious = evaluation.ious()
            else:
                groups = coco_steps.grouped(self.cocoGt, self.cocoDt, evaluation.params)
                for key, value in zip(("_gts", "_dts"), groups, strict=True):
                    self.__dict__.setdefault(key, value)
        return self.__dict__[name]

    def evaluate(self) -> None:
        """Compare the annotations that `params` names.

        Raises:
            DataError: an annotation lacks a value.
        """
        p = self.params
        if p.useSegm is not None:
            p.iouType = "segm" if p.useSegm == 1 else "bbox"
        p.imgIds, p.maxDets = np.unique(p.imgIds).tolist(), sorted(p.maxDets)
        if p.useCats:
            p.catIds = np.unique(p.catIds).tolist()
        if self._at_once():
            self._evaluation = prepare(self.cocoGt, self.cocoDt, copy.deepcopy(p))
            for name in ("evalImgs", "ious", "_gts", "_dts"):
                self.__dict__.pop(name, None)
            self.eval = {}
        else:
            self._evaluate_in_steps()
        self._paramsEval = copy.deepcopy(p)

    def _at_once(self) -> bool:
        """Whether the kernel can evaluate everything: no step is overridden, no parameter is unusual."""
        if any(getattr(type(self), s) is not getattr(COCOeval, s) or s in self.__dict__ for s in STEPS):
            return False
        p = self.params
        thresholds = np.asarray(p.iouThrs, np.float64)
        usual = thresholds.size > 0 and not np.isnan(thresholds).any() and 0 < len(p.areaRng) <= 32
        merged = p.useCats or (p.iouType != "keypoints" and len(set(p.catIds)) == len(p.catIds))
        return bool(usual and merged and len(p.maxDets) and p.maxDets[0] >= 0)

    def _evaluate_in_steps(self) -> None:
        p = self.params
        self._evaluation = None
        self._prepare()
        classes = p.catIds if p.useCats else [-1]
        overlaps = self.computeOks if p.iouType == "keypoints" else self.computeIoU
        self.ious = {
            (image, category): overlaps(image, category) for image in p.imgIds for category in classes
        }
        self.evalImgs = [
            self.evaluateImg(image, category, area, p.maxDets[-1])
            for category in classes
            for area in p.areaRng
            for image in p.imgIds
        ]

    def _prepare(self) -> None:
        """Group the annotations that `params` names by image and class."""
        self._gts, self._dts = coco_steps.grouped(self.cocoGt, self.cocoDt, self.params)
        self.evalImgs, self.eval = defaultdict(list), {}

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        """IoU [D, G] of an image and class, detections by falling score; an empty list without any pair."""
        return coco_steps.compute_iou(self, imgId, catId)

    def computeOks(self, imgId: Any, catId: Any) -> Any:
        """Similarity of key points, as `computeIoU`."""
        return coco_steps.compute_oks(self, imgId, catId)

    def evaluateImg(self, imgId: Any, catId: Any, aRng: Any, maxDet: int) -> dict[str, Any] | None:
        """Match an image and class in an area range, with the overlaps in `ious`; None if it has no rows."""
        return coco_steps.evaluate_image(self, imgId, catId, aRng, maxDet)

    def accumulate(self, p: Any = None) -> None:
        """Fill `eval` with precision and scores [T, R, K, A, M] and recall [T, K, A, M].

        Args:
            p: parameters to accumulate for, such as fewer classes; None for `params`.

        Raises:
            UsageError: `evaluate` was not called.
        """
        if not self._paramsEval:
            raise UsageError("cannot accumulate", "nothing has been evaluated", "Call evaluate first")
        p = self.params if p is None else p
        evaluation = self._evaluation
        if evaluation is not None and "evalImgs" not in self.__dict__ and _same(p, self._paramsEval):
            curves, _ = evaluation.run(p.recThrs)
            arrays = {key: np.ascontiguousarray(values) for key, values in curves._asdict().items()}
        else:
            arrays = coco_steps.accumulate(self.evalImgs, p, self._paramsEval)
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        self.eval = {"params": p, "counts": list(arrays["precision"].shape), "date": now} | arrays

    def summarize(self) -> None:
        """Fill `stats` with twelve numbers; ten for key points.

        Raises:
            UsageError: `accumulate` was not called.
        """
        if not self.eval:
            raise UsageError("cannot summarize", "nothing has been accumulated", "Call accumulate first")
        self.stats = np.array([self._stat(*row) for row in self._rows()])
        self.print_function(str(self))

    def _rows(self) -> list[Row]:
        if self.params.iouType == "keypoints":
            return keypoint_rows(20)
        return twelve_rows(self.params.maxDets)

    def _stat(self, precise: bool, threshold: float | None, area: str, limit: int) -> float:
        p = self.params
        values = self.eval["precision" if precise else "recall"]
        return mean_stat(values, threshold, area, limit, p.iouThrs, p.areaRngLbl, p.maxDets)

    def __str__(self) -> str:
        if not len(self.stats):
            return ""
        return "\n".join(stat_lines(self._rows(), self.stats, self.params.iouThrs))


def _same(p: Any, evaluated: Any) -> bool:
    """Whether parameters ask for just what was evaluated."""
    if len(p.iouThrs) != len(evaluated.iouThrs):
        return False
    return all(np.array_equal(getattr(p, name), getattr(evaluated, name)) for name in COMPARED)
