"""`striate detection`: what it prints, and its exit codes."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from striate.cli import run

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
    from PIL import Image

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
        "pr_curves.png",
        "report.html",
    )
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page
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
