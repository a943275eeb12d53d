"""Draw and download the images of a `COCO` data set, as pycocotools' `showAnns` and `download` do."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from striate.errors import DataError, UsageError
from striate.files import write_atomic

CROWD_COLOR = (2 / 255, 166 / 255, 101 / 255)


def show(data: Any, anns: list[dict[str, Any]], draw_bbox: bool) -> None:
    """Draw annotations on the current axes of matplotlib; print them if they are captions.

    Args:
        data: the `COCO` that the annotations are of.
        anns: the annotations; the first one decides of what kind they are.
        draw_bbox: also draw the boxes.

    Raises:
        UsageError: they are neither captions, nor have a segmentation or key points.
    """
    if not anns:
        return
    if "segmentation" in anns[0] or "keypoints" in anns[0]:
        _draw(data, anns, draw_bbox)
    elif "caption" in anns[0]:
        sys.stdout.writelines(f"{ann['caption']}\n" for ann in anns)
    else:
        raise UsageError("cannot show the annotations", "they have no segmentation, keypoints or caption")


def _draw(data: Any, anns: list[dict[str, Any]], draw_bbox: bool) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Polygon

    axes = plt.gca()
    axes.set_autoscale_on(False)
    polygons, colors = [], []
    rng = np.random.default_rng(len(anns))
    for ann in anns:
        color = tuple(rng.uniform(0.4, 1, 3).tolist())
        shapes = []
        if isinstance(ann.get("segmentation"), list):
            shapes = [np.reshape(points, (-1, 2)) for points in ann["segmentation"]]
        elif "segmentation" in ann:
            _draw_mask(axes, data.annToMask(ann), CROWD_COLOR if ann.get("iscrowd") else color)
        if isinstance(ann.get("keypoints"), list):
            _draw_key_points(axes, ann["keypoints"], data.loadCats(ann["category_id"])[0]["skeleton"], color)
        if draw_bbox:
            x, y, w, h = ann["bbox"]
            shapes.append(np.array([[x, y], [x, y + h], [x + w, y + h], [x + w, y]]))
        polygons += [Polygon(points) for points in shapes]
        colors += [color] * len(shapes)
    axes.add_collection(PatchCollection(polygons, facecolor=colors, linewidths=0, alpha=0.4))
    axes.add_collection(PatchCollection(polygons, facecolor="none", edgecolors=colors, linewidths=2))


def _draw_mask(axes: Any, mask: Any, color: tuple[float, ...]) -> None:
    image = np.empty((*mask.shape, 4))
    image[..., :3], image[..., 3] = color, mask * 0.5
    axes.imshow(image)


def _draw_key_points(axes: Any, keypoints: list[float], skeleton: Any, color: tuple[float, ...]) -> None:
    x, y, seen = (np.array(keypoints[i::3]) for i in range(3))
    for bone in np.array(skeleton) - 1:
        if (seen[bone] > 0).all():
            axes.plot(x[bone], y[bone], linewidth=3, color=color)
    for least, edge in ((0, "k"), (1, color)):  # hidden key points have a black edge
        chosen = seen > least
        axes.plot(
            x[chosen], y[chosen], "o", markersize=8, color=color, markeredgecolor=edge, markeredgewidth=2
        )


def download(images: list[dict[str, Any]], folder: str | None) -> None:
    """Download images from their `coco_url` into a folder; those that are there already are skipped.

    Raises:
        UsageError: no folder is given.
        DataError: a download failed.
    """
    if folder is None:
        raise UsageError("cannot download the images", "no folder is given", "Give tarDir")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for image in images:
        target = Path(folder) / Path(image["file_name"]).name
        if target.exists():
            continue
        try:
            with urllib.request.urlopen(image["coco_url"], timeout=60) as answer:
                write_atomic(target, answer.read())
        except (urllib.error.URLError, OSError) as error:
            raise DataError(f"cannot download {image['coco_url']}", str(error)) from None
