"""`COCOeval`, a replacement for pycocotools' class with the same bits: boxes, masks and key points.

`summarize` prints nothing: the table is `str(evaluator)`, and is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from striate.errors import UsageError
from striate.metrics.detection.coco import SIGMAS, CocoSettings, run_kernel
from striate.metrics.detection.coco_api import COCO
from striate.metrics.detection.overlaps import keypoint_overlaps, mask_overlaps
from striate.metrics.detection.records import Floats
from striate.metrics.detection.reference import Curves, DetectionColumns, MatchRecord, TruthColumns, groups
from striate.metrics.detection.summary import Row, keypoint_rows, mean_stat, stat_lines, twelve_rows

KINDS = ("bbox", "segm", "keypoints")


class Params:
    """Settings of the evaluation, with pycocotools' names."""

    def __init__(self, iouType: str = "segm") -> None:
        if iouType not in KINDS:
            raise UsageError(f"iouType {iouType!r}", f"it is {', '.join(KINDS)}")
        defaults = CocoSettings()
        areas = {k: list(v) for k, v in defaults.areas.items() if iouType != "keypoints" or k != "small"}
        self.iouType = iouType
        self.imgIds: Any = []
        self.catIds: Any = []
        self.iouThrs = np.array(defaults.thresholds)
        self.recThrs = np.array(defaults.recalls)
        self.maxDets = [20] if iouType == "keypoints" else list(defaults.limits)
        self.areaRng = list(areas.values())
        self.areaRngLbl = list(areas)
        self.useCats = 1
        self.kpt_oks_sigmas = np.array(SIGMAS)


class COCOeval:
    """pycocotools' evaluator: `evaluate`, `accumulate`, `summarize`, then `stats`, `eval` and `evalImgs`.

    Args:
        cocoGt: the ground truth.
        cocoDt: the detections, from `cocoGt.loadRes`.
        iouType: "bbox", "segm" or "keypoints".
    """

    def __init__(self, cocoGt: COCO, cocoDt: COCO, iouType: str = "segm") -> None:
        self.cocoGt, self.cocoDt = cocoGt, cocoDt
        self.params = Params(iouType)
        self.params.imgIds = sorted(cocoGt.getImgIds())
        self.params.catIds = sorted(cocoGt.getCatIds())
        self.eval: dict[str, Any] = {}
        self.stats: Floats = np.zeros(0)
        self._images: list[dict[str, Any] | None] | None = None

    def evaluate(self) -> None:
        """Select the annotations that `params` names, and compute their overlaps."""
        p = self.params
        p.imgIds, p.maxDets = np.unique(p.imgIds).tolist(), sorted(p.maxDets)
        if p.useCats:
            p.catIds = np.unique(p.catIds).tolist()
        self._gts, self._dts = self._annotations(self.cocoGt), self._annotations(self.cocoDt)
        image = {id_: i for i, id_ in enumerate(p.imgIds)}
        kind = {id_: i if p.useCats else 0 for i, id_ in enumerate(p.catIds)}

        def columns(rows: list[Any]) -> tuple[Any, Any, Floats]:
            return (
                np.array([image.get(r["image_id"], -1) for r in rows], np.int32),
                np.array([kind.get(r["category_id"], -1) for r in rows], np.int32),
                np.array([r.get("bbox", [0] * 4) for r in rows], np.float64).reshape(-1, 4),
            )

        def flags(rows: list[Any], flag: Callable[[Any], Any]) -> Any:
            return np.array([bool(flag(r)) for r in rows], np.bool_)

        gts, dts, points = self._gts, self._dts, p.iouType == "keypoints"
        self._truths = TruthColumns(
            *columns(gts),
            np.array([g["area"] for g in gts], np.float64),
            flags(gts, lambda g: g.get("iscrowd", 0)),
            flags(gts, lambda g: g.get("iscrowd", 0) or (points and g["num_keypoints"] == 0)),
            flags(gts, lambda g: g["id"] == 0),
        )
        self._detections = DetectionColumns(
            *columns(dts),
            np.array([d["score"] for d in dts], np.float64),
            np.array([d["area"] for d in dts], np.float64),
            flags(dts, lambda d: d["id"] <= 0),
        )
        self._overlaps = self._measure_overlaps()
        self._images = None

    def _annotations(self, data: COCO) -> list[Any]:
        p = self.params
        rows = data.loadAnns(data.getAnnIds(p.imgIds, p.catIds if p.useCats else ()))
        if p.useCats:
            return rows
        place = {id_: i for i, id_ in enumerate(p.catIds)}
        return sorted((r for r in rows if r["category_id"] in place), key=lambda r: place[r["category_id"]])

    def _measure_overlaps(self) -> Floats | None:
        p = self.params
        if p.iouType == "bbox":
            return None
        parts = [np.zeros(0)]
        if p.iouType == "segm":
            truth_masks = [self.cocoGt.annToRLE(g) for g in self._gts]
            found_masks = [self.cocoDt.annToRLE(d) for d in self._dts]
        for _, g, d in groups(self._truths, self._detections, p.maxDets[-1]):
            if not g.size or not d.size:
                continue
            if p.iouType == "segm":
                crowd = [int(self._gts[i].get("iscrowd", 0)) for i in g]
                part = mask_overlaps([found_masks[i] for i in d], [truth_masks[i] for i in g], crowd)
            else:
                part = keypoint_overlaps(
                    [self._dts[i] for i in d], [self._gts[i] for i in g], np.asarray(p.kpt_oks_sigmas)
                )
            parts.append(part.ravel())
        return np.concatenate(parts)

    def _run(self, matches: bool) -> tuple[Curves, MatchRecord | None]:
        p = self.params
        settings = CocoSettings(
            thresholds=tuple(p.iouThrs),
            recalls=tuple(p.recThrs),
            areas={f"{i}": (float(low), float(high)) for i, (low, high) in enumerate(p.areaRng)},
            limits=tuple(p.maxDets),
            use_categories=bool(p.useCats),
        )
        classes = len(p.catIds) if p.useCats else 1
        images = len(p.imgIds)
        curves, record, _ = run_kernel(
            self._truths, self._detections, self._overlaps, settings, images, classes, matches=matches
        )
        return curves, record

    def accumulate(self) -> None:
        """Fill `eval` with precision and scores [T, R, K, A, M] and recall [T, K, A, M].

        Raises:
            UsageError: `evaluate` was not called.
        """
        if not hasattr(self, "_truths"):
            raise UsageError("cannot accumulate", "nothing has been evaluated", "Call evaluate first")
        curves, _ = self._run(matches=False)
        arrays = {key: np.ascontiguousarray(values) for key, values in curves._asdict().items()}
        self.eval = {"params": self.params, "counts": list(curves.precision.shape)} | arrays

    def summarize(self) -> None:
        """Fill `stats` with twelve numbers; ten for key points.

        Raises:
            UsageError: `accumulate` was not called.
        """
        if not self.eval:
            raise UsageError("cannot summarize", "nothing has been accumulated", "Call accumulate first")
        self.stats = np.array([self._stat(*row) for row in self._rows()])
        logging.getLogger("striate").info("%s", self)

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

    @property
    def evalImgs(self) -> list[dict[str, Any] | None]:
        """Pycocotools' record for each class, area range and image, in that order; None if it has no rows."""
        if self._images is None:
            p = self.params
            _, record = self._run(matches=True)
            assert record is not None
            rows = {}
            for category, g, d in groups(self._truths, self._detections, p.maxDets[-1]):
                image = self._truths.image[g[0]] if g.size else self._detections.image[d[0]]
                rows[category, int(image)] = g, d
            self._images = [
                self._record(record, a, *rows[k, i], p.imgIds[i], category) if (k, i) in rows else None
                for k, category in enumerate(p.catIds if p.useCats else [-1])
                for a in range(len(p.areaRng))
                for i in range(len(p.imgIds))
            ]
        return self._images

    def _record(
        self, record: MatchRecord, a: int, g: Any, d: Any, image: Any, category: Any
    ) -> dict[str, Any]:
        p = self.params
        low, high = p.areaRng[a]
        area = self._truths.area[g]
        ignored = (self._truths.ignore[g] | (area < low) | (area > high)).astype(int)
        order = np.argsort(ignored, kind="stable")
        g, ignored = g[order], ignored[order]
        gt_ids = np.array([x["id"] for x in self._gts], np.float64)
        dt_ids = np.array([x["id"] for x in self._dts], np.float64)
        took, taken = record.truth_of[a][:, d], record.detection_of[a][:, g]
        return {
            "image_id": image,
            "category_id": category,
            "aRng": p.areaRng[a],
            "maxDet": p.maxDets[-1],
            "dtIds": [self._dts[i]["id"] for i in d],
            "gtIds": [self._gts[i]["id"] for i in g],
            "dtMatches": np.where(took >= 0, gt_ids[took], 0.0) if gt_ids.size else np.zeros(took.shape),
            "gtMatches": np.where(taken >= 0, dt_ids[taken], 0.0) if dt_ids.size else np.zeros(taken.shape),
            "dtScores": [self._dts[i]["score"] for i in d],
            "gtIgnore": ignored,
            "dtIgnore": record.ignored[a][:, d],
        }
