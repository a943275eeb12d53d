"""COCO's evaluation as pycocotools divides it: one image, class and area range at a time, in dictionaries.

`COCOeval` uses this code where a program takes part in the evaluation: it overrides a step, calls one itself,
or changes the records before they are accumulated. Otherwise the kernel does all of it at once
(`coco_matching`).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from striate.metrics.detection.overlaps import keypoint_overlaps, mask_overlaps
from striate.metrics.detection.records import Floats
from striate.metrics.detection.reference import box_overlaps, curve, match

Annotation = dict[str, Any]
Groups = dict[tuple[Any, Any], list[Annotation]]


def grouped(truth: Any, found: Any, p: Any) -> tuple[Groups, Groups]:
    """The ground truths and the detections that the parameters name, by image and class.

    As in pycocotools, ground truths get the key `ignore`, and masks become run lengths.
    """
    groups: list[Groups] = []
    for data in (truth, found):
        ids = (
            data.getAnnIds(imgIds=p.imgIds, catIds=p.catIds) if p.useCats else data.getAnnIds(imgIds=p.imgIds)
        )
        by_group: Groups = defaultdict(list)
        for row in data.loadAnns(ids):
            if p.iouType == "segm":
                row["segmentation"] = data.annToRLE(row)
            by_group[row["image_id"], row["category_id"]].append(row)
        groups.append(by_group)
    truths, detections = groups
    for rows in truths.values():
        for row in rows:
            row["ignore"] = row.get("iscrowd", 0)
            if p.iouType == "keypoints":
                row["ignore"] = row["num_keypoints"] == 0 or row["ignore"]
    return truths, detections


def group(evaluator: Any, image: Any, category: Any) -> tuple[list[Annotation], list[Annotation]]:
    """Ground truths and detections of an image and class; without `useCats`, of one class after the other."""
    p, key = evaluator.params, (image, category)
    both = evaluator._gts, evaluator._dts
    if p.useCats:
        truths, detections = (side[key] for side in both)
    else:
        truths, detections = ([row for c in p.catIds for row in side[image, c]] for side in both)
    return truths, detections


def by_score(detections: list[Annotation], most: int) -> list[Annotation]:
    """The `most` detections with the highest scores, in that order."""
    order = np.argsort([-d["score"] for d in detections], kind="stable")
    return [detections[i] for i in order[:most]]


def compute_iou(evaluator: Any, image: Any, category: Any) -> Any:
    """IoU of boxes or masks, [detections by falling score, ground truths]; an empty list without any pair."""
    p = evaluator.params
    truths, found = group(evaluator, image, category)
    found = by_score(found, p.maxDets[-1])
    if not truths or not found:
        return []
    crowd = [int(g.get("iscrowd", 0)) for g in truths]
    if p.iouType == "segm":
        return mask_overlaps([d["segmentation"] for d in found], [g["segmentation"] for g in truths], crowd)
    return box_overlaps(_boxes(found), _boxes(truths), np.array(crowd, np.bool_))


def _boxes(rows: list[Annotation]) -> Floats:
    return np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)


def compute_oks(evaluator: Any, image: Any, category: Any) -> Any:
    """Similarity of key points, [detections by falling score, ground truths]; an empty list without any pair.

    As in pycocotools, there are no pairs if `useCats` is off.
    """
    p, key = evaluator.params, (image, category)
    truths, found = evaluator._gts[key], by_score(evaluator._dts[key], p.maxDets[-1])
    if not truths or not found:
        return []
    return keypoint_overlaps(found, truths, np.asarray(p.kpt_oks_sigmas))


def evaluate_image(evaluator: Any, image: Any, category: Any, area: Any, most: int) -> Annotation | None:
    """Match the detections of an image and class in an area range; None if it has no rows."""
    p = evaluator.params
    truths, found = group(evaluator, image, category)
    if not truths and not found:
        return None
    for g in truths:
        g["_ignore"] = int(bool(g["ignore"] or g["area"] < area[0] or g["area"] > area[1]))
    ignored = np.array([g["_ignore"] for g in truths], int)
    order = np.argsort(ignored, kind="stable")
    found = by_score(found, most)
    T, D, G = len(p.iouThrs), len(found), len(truths)
    overlaps = evaluator.ious[image, category]
    choice = np.full((T, D), -1)
    if len(overlaps):
        takes = np.array([d["id"] > 0 for d in found], np.bool_)
        crowd = np.array([int(g.get("iscrowd", 0)) for g in truths], np.bool_)
        bar = np.minimum(np.asarray(p.iouThrs, np.float64), 1 - 1e-10)
        flags = ignored[None].astype(np.bool_)
        choice = match(np.asarray(overlaps, np.float64)[:D], bar, flags, crowd, takes)[0]
    dt_matches, gt_matches, dt_ignored = np.zeros((T, D)), np.zeros((T, G)), np.zeros((T, D), np.bool_)
    for i, d in enumerate(found):
        hit = np.flatnonzero(choice[:, i] >= 0)
        chosen = choice[hit, i]
        dt_matches[hit, i] = [truths[j]["id"] for j in chosen]
        gt_matches[hit, chosen] = d["id"]
        dt_ignored[hit, i] = ignored[chosen]
        if d["area"] < area[0] or d["area"] > area[1]:
            dt_ignored[:, i] |= dt_matches[:, i] == 0
    return {
        "image_id": image,
        "category_id": category,
        "aRng": area,
        "maxDet": most,
        "dtIds": [d["id"] for d in found],
        "gtIds": [truths[j]["id"] for j in order],
        "dtMatches": dt_matches,
        "gtMatches": gt_matches[:, order],
        "dtScores": [d["score"] for d in found],
        "gtIgnore": ignored[order],
        "dtIgnore": dt_ignored,
    }


def accumulate(records: Any, p: Any, evaluated: Any) -> dict[str, Floats]:
    """Precision and scores [T, R, K, A, M] and recall [T, K, A, M] of the records of `evaluate_image`.

    Args:
        records: by class, area range and image, in that order; None for those without rows.
        p: the parameters to accumulate for. As in pycocotools, classes, area ranges and images that were not
            evaluated are left out, and the others are found by their position in `p`.
        evaluated: the parameters of the evaluation.
    """
    classes = list(p.catIds) if p.useCats else [-1]
    known = set(evaluated.catIds) if evaluated.useCats else {-1}
    ranges, known_ranges = [tuple(r) for r in p.areaRng], {tuple(r) for r in evaluated.areaRng}
    k_list = [k for k, category in enumerate(classes) if category in known]
    a_list = [a for a, area in enumerate(ranges) if area in known_ranges]
    m_list = [most for most in p.maxDets if most in set(evaluated.maxDets)]
    images = set(evaluated.imgIds)
    i_list = [i for i, image in enumerate(p.imgIds) if image in images]
    T, R, A0, I0 = len(p.iouThrs), len(p.recThrs), len(evaluated.areaRng), len(evaluated.imgIds)
    shape = len(classes), len(ranges), len(p.maxDets)
    precision, scores = -np.ones((T, R, *shape)), -np.ones((T, R, *shape))
    recall = -np.ones((T, *shape))
    for k, k0 in enumerate(k_list):
        for a, a0 in enumerate(a_list):
            rows = [records[(k0 * A0 + a0) * I0 + i] for i in i_list]
            rows = [row for row in rows if row is not None]
            positives = sum(int(np.count_nonzero(np.asarray(row["gtIgnore"]) == 0)) for row in rows)
            if not positives:
                continue
            for m, most in enumerate(m_list):
                for t, (q, s, r) in enumerate(_curves(rows, most, positives, np.asarray(p.recThrs))):
                    precision[t, :, k, a, m], scores[t, :, k, a, m], recall[t, k, a, m] = q, s, r
    return {"precision": precision, "recall": recall, "scores": scores}


def _curves(rows: list[Annotation], most: int, positives: int, recalls: Floats) -> Any:
    """Precision and scores at the recall levels, and the last recall, for each IoU threshold."""
    scores = np.concatenate([row["dtScores"][:most] for row in rows])
    order = np.argsort(-scores, kind="stable")
    matched = np.concatenate([row["dtMatches"][:, :most] for row in rows], axis=1)[:, order] != 0
    counts = np.concatenate([row["dtIgnore"][:, :most] for row in rows], axis=1)[:, order] == 0
    for hit, counted in zip(matched, counts, strict=True):
        yield curve(hit & counted, ~hit & counted, scores[order], positives, recalls)
