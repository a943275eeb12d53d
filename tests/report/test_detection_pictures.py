"""Which images of a detector a page shows, and what is in them."""

import base64
import io
import json

import numpy as np
import pytest
from browser import needs_chromium
from PIL import Image

from striate import cli
from striate.metrics.detection import read_detections, read_ground_truth
from striate.metrics.detection.breakdown import breakdown
from striate.metrics.detection.effects import effects, suspicions
from striate.metrics.detection.explain import confusion, match
from striate.report import detection_pictures
from striate.report.detection_pictures import detection_images, pictures_in

NAMES = ("</script><script>alert(1)</script>", "狗", "x" * 300)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Objects of three classes in eight images: found, missed, confused, shifted, and invented ones."""
    folder = tmp_path_factory.mktemp("detector")
    rng = np.random.default_rng(2)
    images = [{"id": i, "file_name": f"sub/<{i}>.png", "width": 120, "height": 80} for i in range(1, 9)]
    objects, found = [], []
    for n in range(24):
        image, category = 1 + n % 8, 1 + n % 3
        box = [10 + 30 * (n // 8), 10 + n, 25, 20]
        about = {"image_id": image, "category_id": category, "bbox": box}
        objects.append(about | {"id": n + 1, "area": 500, "iscrowd": 0})
        if n % 5:
            moved = [box[0] + (12 if n % 7 == 0 else 1), *box[1:]]
            named = category if n % 4 else 1 + category % 3
            score = round(float(rng.uniform(0.2, 1)), 3)
            found.append({"image_id": image, "category_id": named, "bbox": moved, "score": score})
    found.append({"image_id": 8, "category_id": 2, "bbox": [90, 60, 20, 15], "score": 0.95})
    (folder / "images" / "sub").mkdir(parents=True)
    for image in images[:6]:
        Image.new("RGB", (120, 80), (90, 120, 90)).save(folder / "images" / image["file_name"])
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    truth = {"images": images, "annotations": objects, "categories": categories}
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(found))
    return folder


@pytest.fixture(scope="module")
def matched(files):
    truth = read_ground_truth(files / "gt.json")
    return match(truth, read_detections(files / "dt.json", truth), 0.5)


def test_images_stand_by_their_effect_and_show_every_confusion(matched):
    cost = effects(matched)
    found = detection_images(matched, cost, suspicions(matched, breakdown(matched), 0.5), 0.5)
    values = [image.effect for image in found.images]
    positive = [value for value in values if value > 0]
    assert positive == sorted(positive, reverse=True)
    assert sum(values) == pytest.approx(1 - cost.ap)
    cells = np.zeros((4, 4), int)
    for image in found.images:
        for box in image.boxes:
            if box.kind != "object" and box.score >= 0.5:
                cells[box.other, box.category] += 1
            elif box.kind == "object" and box.other == 3 and (box.score is None or box.score < 0.5):
                cells[box.category, 3] += 1
    expected = confusion(matched, 0.5)
    assert ((cells > 0) == (expected > 0)).all()
    assert (cells <= expected).all()  # images that cost nothing are left out
    assert [box.suspicion for image in found.images for box in image.boxes].count("not annotated") == 1


def test_limits_keep_the_most_costly_images(matched, monkeypatch):
    cost = effects(matched)
    monkeypatch.setattr(detection_pictures, "MAX_BOXES", 9)
    found = detection_images(matched, cost, [], 0.5)
    assert 0 < len(found.images) < 8
    assert found.images[0].effect == cost.image.max()
    assert len(found.names) == 8


def test_pictures_are_found_by_name_and_may_be_missing(matched, files):
    names = [f"sub/<{i}>.png" for i in range(1, 9)]
    found = detection_images(
        matched, effects(matched), [], 0.5, names=names, files=pictures_in(files / "images")
    )
    has = {image.name: image.picture.startswith("data:image/jpeg") for image in found.images}
    assert has == {name: i < 6 for i, name in enumerate(names) if name in has}
    assert {image.size for image in found.images} == {(120.0, 80.0)}


def test_pictures_of_the_same_name_are_told_apart_by_their_folder(matched, tmp_path):
    for folder, width in (("a", 40), ("b", 80)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (width, 40)).save(tmp_path / folder / "1.png")
    files = pictures_in(tmp_path)
    assert files["a/1.png"].parent.name == "a"
    assert files["b/1.png"].parent.name == "b"
    names = ["b/1.png", *map(str, range(7))]
    first = next(
        image
        for image in detection_images(matched, effects(matched), [], 0.5, names=names, files=files).images
        if image.name == "b/1.png"
    )
    with Image.open(io.BytesIO(base64.b64decode(first.picture.partition(",")[2]))) as picture:
        assert picture.size == (80, 40)


@needs_chromium
def test_classes_cells_scores_and_suspicions_choose_images(files, tmp_path, browser, capsys):
    argv = [*(str(files / name) for name in ("gt.json", "dt.json")), "--out", str(tmp_path), "--score", "0.5"]
    assert cli.run(["detection", *argv, "--images", str(files / "images"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    page, address = browser, (tmp_path / "report.html").as_uri()
    page.window(1400)
    page.open(f"{address}#lang=en")
    assert page.text(".tiles li:first-child b").startswith("<")
    rows = [line.split(",")[-4:] for line in (tmp_path / "confusion.csv").read_text("utf-8").splitlines()[1:]]
    page.evaluate("document.querySelector('canvas').focus()")
    page.press("ArrowRight", "Enter")  # true class 0, detected class 1
    shown = page.evaluate("document.querySelectorAll('.tiles li').length")
    assert (shown > 0) == (int(rows[0][1]) > 0)
    page.click(".of-classes tr[data-class='1']")
    every = "[...document.querySelectorAll('.counts b')]"
    counts = page.evaluate(f"{every}.slice(0, 3).map(b => Number(b.textContent))")
    point = answer["operating_point_per_class"][1]
    assert counts == [point["tp"], point["fp"], point["fn"]]
    page.enter("[type=range]", 90)
    assert page.text(".threshold output") == "0.9"
    sure = page.evaluate("document.querySelectorAll('.counts b')[1].textContent")
    dets = json.loads((files / "dt.json").read_text())
    assert int(sure) <= sum(d["category_id"] == 2 and d["score"] >= 0.9 for d in dets)
    page.click("table[data-picks=image] tbody tr")
    assert page.evaluate("document.querySelector('dialog').open")
    assert page.text("dialog .path").startswith(page.text("table[data-picks=image] tbody td"))
    page.press("Escape")
    assert page.overflow(390) <= 0
    assert (page.errors, page.requests) == ([], [address])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools' decode
def test_masks_and_key_points_are_drawn(files, tmp_path):
    """The runs of a mask cover the pixels that pycocotools fills."""
    decode = pytest.importorskip("pycocotools.mask").decode
    from striate.metrics.detection import read_detections_with, read_ground_truth_with

    truth, found = (json.loads((files / name).read_text()) for name in ("gt.json", "dt.json"))
    for row in (*truth["annotations"], *found):
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
        row["keypoints"], row["num_keypoints"] = [x, y, 2, x + w, y, 0], 1
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(found))
    for kind in ("segm", "keypoints"):
        gt = read_ground_truth_with(tmp_path / "gt.json", kind)
        dt = read_detections_with(tmp_path / "dt.json", gt, kind)
        m = match(gt, dt, 0.5, iou_type=kind, sigmas=(0.1, 0.1))
        boxes = [b for i in detection_images(m, effects(m), [], 0.0).images for b in i.boxes]
        if kind == "keypoints":
            assert {len(box.points) for box in boxes if box.kind == "object"} == {1}
            continue
        box = next(box for box in boxes if box.kind == "object")
        row = next(r for r in range(len(gt)) if tuple(gt.box[r]) == box.box)
        inside = np.repeat(np.arange(len(box.runs)) % 2, box.runs)
        assert box.mask_size == (120, 80)
        assert (inside.reshape(80, 120) == decode(gt.masks[row])).all()
