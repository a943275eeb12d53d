"""`striate detection`: what it prints, and its exit codes."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from striate.cli import run
from striate.errors import DataError

ROW = {"image_id": 1, "category_id": 3, "bbox": [10, 10, 40, 40]}


@pytest.fixture
def pair(tmp_path):
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {**ROW, "id": 1, "area": 1600, "iscrowd": 0},
            {**ROW, "image_id": 2, "id": 2, "area": 1600, "iscrowd": 0},
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
    gt.write_text(json.dumps(truth))
    dt.write_text(json.dumps([{**ROW, "score": 0.9}, {**ROW, "category_id": 9, "score": 0.8}]))
    return str(gt), str(dt)


def test_coco_as_json(pair, capsys):
    assert run(["detection", *pair, "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    # One of two objects is found: precision is 1 up to recall 0.5, which is 51 of the 101 levels.
    assert answer["stats"][:3] == pytest.approx([51 / 101] * 3)
    assert answer["stats"][6:9] == [0.5] * 3
    assert answer["per_class"][0]["class"] == "cat"
    assert "1 detections of classes that the ground truth does not have (9) were dropped" in err


def test_coco_as_pycocotools_prints_it(pair, capsys, tmp_path):
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    assert run(["detection", *pair]) == 0
    ours = capsys.readouterr().out
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        truth = COCO(pair[0])
        judge = COCOeval(truth, truth.loadRes(pair[1]), "bbox")
        judge.evaluate()
        judge.accumulate()
        printed.truncate(0)
        printed.seek(0)
        judge.summarize()
    assert ours == printed.getvalue()


@pytest.mark.parametrize(("style", "expected"), [("voc07", 6 / 11), ("voc12", 0.5)])
def test_voc_as_json(style, expected, pair, capsys):
    assert run(["detection", *pair, "--style", style, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["map"] == pytest.approx(expected)
    row = answer["per_class"][0]
    assert (row["class"], row["positives"], row["tp"], row["fp"]) == ("cat", 2, 1, 0)


def test_a_users_mistakes(pair, capsys, tmp_path):
    assert run(["detection", *pair, "--style", "coca"]) == 2
    assert "did you mean coco" in capsys.readouterr().err
    assert run(["detection", pair[0], str(tmp_path / "none.json")]) == 3
    assert "no such file" in capsys.readouterr().err


def test_neither_torch_nor_anything_heavy_is_loaded(pair):
    code = (
        "import sys; from striate.cli import run; run(sys.argv[1:]); "
        "heavy = ('torch', 'matplotlib', 'PIL', 'sklearn', 'jinja2', 'pycocotools'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "detection", *pair], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert np.char.find(done.stdout, "Average Precision") > 0


def test_the_python_twin(pair):
    code = "import sys, striate; print(striate.metrics.detection.evaluate(*sys.argv[1:]).stats[6])"
    done = subprocess.run([sys.executable, "-c", code, *pair], capture_output=True, text=True, check=True)
    assert done.stdout == "0.5\n"


def test_operating_point_and_interval(pair, capsys, monkeypatch):
    monkeypatch.setattr("striate.cli.console._EVERY", 1e-9)  # seconds between two lines
    assert run(["detection", *pair, "--json", "--score", "0.5", "--bootstrap", "20"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    point = answer["operating_point"]
    assert (point["tp"], point["fp"], point["fn"], point["precision"], point["recall"]) == (1, 0, 1, 1, 0.5)
    assert answer["interval"]["low"] <= answer["interval"]["value"] <= answer["interval"]["high"]
    assert re.search(r"^bootstrap: (\d+)/\1, ", err, flags=re.MULTILINE), "progress up to the last class"
    assert run(["detection", *pair, "--score", "0.95"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "at IoU 0.5 and score 0.95: TP 0, FP 0, FN 2, precision -, recall 0.0000, f1 0.0000"


def test_comparison(pair, capsys):
    assert run(["detection", *pair, "--json", "--compare", pair[1], "--bootstrap", "20"]) == 0
    answer = json.loads(capsys.readouterr().out)["comparison"]
    assert answer["p"] == 1
    assert answer["difference"] == {"value": 0, "low": 0, "high": 0}


def test_report(pair, capsys, tmp_path):
    gt = json.loads((tmp_path / "gt.json").read_text())
    gt["images"][0]["file_name"] = "train/<a>.png"
    gt["categories"][0]["name"] = "<b>cat"
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    Image.new("RGB", (60, 60)).save(tmp_path / "<a>.png")
    out = tmp_path / "report"
    assert run(["detection", *pair, "--out", str(out), "--picture", str(tmp_path / "<a>.png")]) == 0
    names = (
        "per_class.csv",
        "pr_curves.csv",
        "confusion.csv",
        "mistakes.csv",
        "report.html",
    )
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    page = (out / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 1
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "&lt;b&gt;cat" in page
    assert "<b>cat" not in page
    rows = (out / "per_class.csv").read_text().splitlines()
    assert rows[0] == "class,ap,ap50,ar,tp,fp,fn,precision,recall,f1,best_f1,best_score"
    assert rows[1].endswith("1,0,1,1.0,0.5,0.6666666666666666,0.6666666666666666,0.9")
    assert (out / "pr_curves.csv").read_text().splitlines()[1] == "<b>cat,0.9,1.0,0.5,0.6666666666666666"
    assert (out / "confusion.csv").read_text().splitlines() == [
        "really,<b>cat,background",
        "<b>cat,1,1",
        "background,0,0",
    ]
    assert run(["detection", *pair, "--out", str(out), "--figures"]) == 0
    assert (out / "pr_curves.png").read_bytes().startswith(b"\x89PNG")
    assert run(["detection", *pair, "--figures"]) == 2
    assert run(["detection", *pair, "--picture", "a.png"]) == 2
    assert run(["detection", *pair, "--out", str(out), "--picture", "b.png"]) == 3


def test_masks(pair, capsys, tmp_path):
    gt, rows = (json.loads((tmp_path / name).read_text()) for name in ("gt.json", "dt.json"))
    square = [[10, 10, 50, 10, 50, 50, 10, 50]]
    for row in (*gt["annotations"], *rows):
        row["segmentation"] = square
    for image in gt["images"]:
        image.update(height=60, width=60)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(rows[:1]))
    assert run(["detection", *pair, "--iou-type", "segm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stats"][0] == pytest.approx(51 / 101)
    assert run(["detection", *pair, "--iou-type", "segm", "--style", "voc07"]) == 2
    assert run(["detection", *pair, "--iou-type", "mask"]) == 2


@pytest.fixture
def shapes(tmp_path):
    """Ground truth and detections with masks and key points in two images, as COCO's and LVIS's files."""
    square = [[10, 10, 50, 10, 50, 50, 10, 50]]
    points = [[x, y, 2] for x, y in ((10, 10), (50, 10), (30, 30), (50, 50), (10, 50))]
    shape = {"segmentation": square, "keypoints": [v for point in points for v in point]}
    federated = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth = {
        "images": [{"id": i, "height": 60, "width": 60, "file_name": "a.png"} | federated for i in (1, 2)],
        "annotations": [
            {**ROW, **shape, "image_id": i, "id": i, "area": 1600, "iscrowd": 0, "num_keypoints": 5}
            for i in (1, 2)
        ],
        "categories": [{"id": 3, "name": "cat", "frequency": "c"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    rows = [{"image_id": 1, "category_id": 3, "score": 0.9}, {"image_id": 2, "category_id": 3, "score": 0.3}]
    found = {}
    for kind, key in (("segm", "segmentation"), ("keypoints", "keypoints")):
        found[kind] = str(tmp_path / f"{kind}.json")
        value = {"size": [60, 60], "counts": SQUARE} if kind == "segm" else shape["keypoints"]
        (tmp_path / f"{kind}.json").write_text(json.dumps([row | {key: value} for row in rows]))
    Image.new("RGB", (60, 60), "white").save(tmp_path / "a.png")
    return str(tmp_path / "gt.json"), found


# The square above as pycocotools' compressed run lengths.
SQUARE = mask.merge(mask.frPyObjects([[10, 10, 50, 10, 50, 50, 10, 50]], 60, 60))["counts"].decode()
FIVE = ("--sigmas", "0.05,0.05,0.05,0.05,0.05")


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools
@pytest.mark.parametrize("kind", ["segm", "keypoints"])
@pytest.mark.parametrize("style", ["coco", "lvis"])
def test_masks_and_key_points_are_explained_like_boxes(kind, style, shapes, capsys, tmp_path):
    gt, found = shapes
    if (kind, style) == ("keypoints", "lvis"):
        assert run(["detection", gt, found[kind], "--iou-type", kind, "--style", style, *FIVE]) == 2
        return
    out = tmp_path / "report"
    flags = ["--iou-type", kind, "--style", style, *(FIVE if kind == "keypoints" else ())]
    flags += ["--out", str(out), "--bootstrap", "20", "--compare", found[kind]]
    flags += ["--picture", str(tmp_path / "a.png"), "--score", "0.5", "--json"]
    assert run(["detection", gt, found[kind], *flags]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["stats"][0] == pytest.approx(1)
    assert (len(answer["stats"]), answer["stat_names"][0]) == (len(answer["stat_names"]), "AP")
    point = answer["operating_point"]
    assert (point["tp"], point["fp"], point["fn"]) == (1, 0, 1)
    assert answer["interval"] == {
        "value": pytest.approx(1),
        "low": pytest.approx(1),
        "high": pytest.approx(1),
    }
    assert answer["comparison"]["p"] == 1
    page = (out / "report.html").read_text()
    assert {"segm": "mask IoU 0.5", "keypoints": "OKS 0.5"}[kind] in page
    assert {"segm": "for masks", "keypoints": "for key points"}[kind] in page
    assert (out / "per_class.csv").is_file()


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize(("kind", "inside"), [("segm", (30, 45)), ("keypoints", (30, 30))])
def test_the_picture_shows_masks_and_key_points(kind, inside, shapes, tmp_path):
    from striate.metrics.detection import read_detections_with, read_ground_truth_with
    from striate.metrics.detection.explain import match
    from striate.report.detection_image import draw_matches

    gt, found = shapes
    truth = read_ground_truth_with(gt, kind)
    m = match(truth, read_detections_with(found[kind], truth, kind), iou_type=kind, sigmas=(0.05,) * 5)
    picture = draw_matches(tmp_path / "a.png", m, 0, 0.5)
    red, green, blue = picture[inside[1], inside[0]].tolist()
    assert green > red  # a true positive
    assert green > blue
    assert picture[5, 58].tolist() == [255, 255, 255]
    if kind == "segm":
        Image.new("RGB", (50, 60)).save(tmp_path / "b.png")
        with pytest.raises(DataError, match="50 x 60 pixels, but its masks 60 x 60"):
            draw_matches(tmp_path / "b.png", m, 0, 0.5)


def test_options_of_the_evaluation(pair, capsys):
    flags = [
        "--max-detections",
        "300,1",
        "--area-ranges",
        "tiny:0:2000,small",
        "--iou-thresholds",
        "0.5:0.7:0.1",
    ]
    assert run(["detection", *pair, *flags, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["stat_names"][6:9] == ["AR1", "AR10", "AR300"]
    assert answer["stats"][0] == answer["stats"][1] == pytest.approx(51 / 101)
    assert answer["stats"][2] == -1  # no threshold of 0.75
    assert answer["stats"][6:9] == [0.5, -1, 0.5]
    areas = {row["area"]: (row["min"], row["max"], row["ap"]) for row in answer["areas"]}
    assert list(areas) == ["all", "tiny", "small"]
    assert areas["tiny"] == (0, 2000, pytest.approx(51 / 101))
    assert areas["small"] == (0, 1024, None)
    assert "1 detections of classes" in answer["notes"][0]
    assert run(["detection", *pair, *flags]) == 0
    assert "area=  tiny | maxDets=300 ] = 0.505" in capsys.readouterr().out.splitlines()[12]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-detections", "1,ten"], "--max-detections '1,ten': it should be whole numbers"),
        (["--area-ranges", "tiny:9"], "--area-ranges 'tiny:9': it should be NAME:LEAST:MOST"),
        (["--area-ranges", "tiny:9:1"], "--area-ranges 'tiny:9:1': it should be NAME:LEAST:MOST"),
        (["--iou-thresholds", "0.5:0.9"], "--iou-thresholds '0.5:0.9': a range is FIRST:LAST:STEP"),
        (["--iou-thresholds", "0:1:1e-9"], "a range is FIRST:LAST:STEP, with steps of 0.001 or more"),
        (["--iou-thresholds", "0.5:0.95:0.1"], "steps of 0.1 from 0.5 do not end at 0.95"),
        (["--iou-thresholds", "0.5:0.95,0.05"], "a range is FIRST:LAST:STEP"),
        (["--area-ranges", "all:0:100"], "it should be NAME:LEAST:MOST"),
        (["--max-detections", "10,300", "--style", "lvis"], "2 limits with style lvis: LVIS has one"),
        (["--iou-thresholds", "nan"], "it should be numbers from 0 to 1 "),
        (["--area-ranges", "tiny:0:inf"], "it should be NAME:LEAST:MOST"),
        (["--max-detections", "99999999999999999999"], "it should be whole numbers from 0"),
        (["--iou-type", "keypoints", "--sigmas", "0,0.1"], "sigmas (0.0, 0.1): they should be above 0"),
        (["--iou-thresholds", "high"], "--iou-thresholds 'high': it should be numbers"),
        (["--sigmas", "0.1"], "--sigmas with --iou-type bbox: only key points have them"),
        (["--iou-type", "keypoints", "--sigmas", "0.1,-1"], "--sigmas '0.1,-1': it should be numbers from 0"),
        (
            ["--max-detections", "5", "--style", "voc12"],
            "--max-detections with style voc12: Pascal VOC has no",
        ),
        (["--iou-type", "segm", "--style", "voc12"], "style voc12 of masks or key points"),
    ],
)
def test_mistakes_in_the_options_of_the_evaluation(flags, message, pair, capsys):
    assert run(["detection", *pair, *flags]) == 2
    assert message in capsys.readouterr().err


def test_lvis_needs_its_json(pair, capsys, tmp_path):
    assert run(["detection", *pair, "--style", "lvis"]) == 3
    assert "its images have no neg_category_ids" in capsys.readouterr().err
    (tmp_path / "dt.csv").write_text("image,class,score,x,y,w,h\n")
    assert run(["detection", pair[0], str(tmp_path / "dt.csv"), "--style", "lvis"]) == 2
    assert "style lvis with" in capsys.readouterr().err


def test_the_choice_of_coordinates_is_printed(capsys, tmp_path):
    for name, score in (("gt", ""), ("dt", " 0.9")):
        (tmp_path / name).mkdir()
        lines = [f"cat{score} {10 * i} {5 * i} {10 * i + 3} {5 * i + 4}" for i in range(1, 31)]
        (tmp_path / name / "a.txt").write_text("\n".join(lines))
    paths = [str(tmp_path / "gt"), str(tmp_path / "dt")]
    assert run(["detection", *paths, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["stats"][0] == pytest.approx(1)
    assert err.count("as xyxy (left, top, right, bottom): ") == 2
    assert run(["detection", *paths, "--coordinates", "xywh"]) == 0
    assert "read the boxes" not in capsys.readouterr().err
