"""Names with control characters in everything that commands print, log and write as CSV."""

import json
import re
import shutil

import pytest
from conftest import make_images

from striate import api
from striate.cli import run as run_cli
from striate.csv_file import parse_csv, unescaped
from striate.data import open_data

RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")  # all but the line break
EVIL = "x\n\x1b[31mFAKE: 100 %\x07\u202egnp"
SHOWN = r"x\n\x1b[31mFAKE: 100 %\x07\u202egnp"


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A dataset whose classes and files have such names, and a run on it."""
    root = tmp_path_factory.mktemp("evil")
    data = root / "data"
    for name, color in ((f"a{EVIL}", (200, 0, 0)), (f"b{EVIL}", (0, 0, 200))):
        make_images(data / name, 12, color, size=(32, 32))
    first = sorted((data / f"a{EVIL}").iterdir())[0]
    shutil.copy(first, first.with_name(f"{EVIL}.png"))
    (data / f"a{EVIL}" / f"{EVIL}broken.png").write_bytes(b"x")
    options = {"model": "lenet", "epochs": 1, "batch": 8, "out": str(root / "runs"), "name": "x"}
    return data, api.run_training(api.configure(str(data), options)).folder


def checked(capsys, fakes=0):
    """What was printed; fails for a control character, and for lines that a name has added."""
    out, err = capsys.readouterr()
    assert not RAW.search(out), out
    assert not RAW.search(err), err
    assert not [line for line in (out + err).splitlines() if line.startswith(("\x1b", "FAKE"))]
    assert (SHOWN in out + err) or fakes
    return out, err


def test_commands_print_one_line_for_each_name(evil, capsys, tmp_path):
    data, folder = evil
    model = str(folder / "best.safetensors")
    image = str(data / f"a{EVIL}" / f"{EVIL}.png")
    broken = str(data / f"a{EVIL}" / f"{EVIL}broken.png")
    assert run_cli(["predict", model, image, broken]) == 0
    out, _ = checked(capsys)
    assert len(out.splitlines()) == 2
    assert run_cli(["predict", model, image, broken, "--json"]) == 0
    out, _ = checked(capsys, fakes=True)
    assert [row["path"] for row in json.loads(out)["results"]] == [image, broken]
    assert run_cli(["predict", model, image, broken, "--csv"]) == 0
    out, _ = checked(capsys)
    assert len(out.splitlines()) == 3
    assert [unescaped(row[0]) for _, row in parse_csv(out, "x.csv")] == ["path", image, broken]
    assert run_cli(["evaluate", model, str(data)]) == 0
    checked(capsys)
    assert run_cli(["weights", "inspect", model]) == 0
    checked(capsys)
    assert run_cli(["check", str(data), "--no-page", "--csv", str(tmp_path / "check.csv")]) == 1
    checked(capsys)
    assert not RAW.search((tmp_path / "check.csv").read_text())
    assert run_cli(["predict", f"/{EVIL}", image]) == 3
    checked(capsys)


def test_files_of_a_run_hold_the_names_and_no_control_characters(evil):
    folder = evil[1]
    for path in folder.rglob("*.csv"):
        text = path.read_text()
        assert not RAW.search(text), path
        assert not re.search("^FAKE|^\x1b", text, re.MULTILINE)
    _, *rows = parse_csv((folder / "split.csv").read_text("utf-8"), "split.csv")
    assert {unescaped(row[1]) for _, row in rows} == {f"a{EVIL}", f"b{EVIL}"}
    again = open_data(folder / "split.csv")
    assert again.classes == (f"a{EVIL}", f"b{EVIL}")
    assert sum(map(len, again.splits.values())) == 26


def test_detection_and_its_report(tmp_path, capsys):
    truth = {
        "images": [{"id": 1}], "categories": [{"id": 3, "name": EVIL}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9]}],
    }  # fmt: skip
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text('[{"image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "score": 1}]')
    arguments = ["detection", str(tmp_path / "gt.json"), str(tmp_path / "dt.json"), "--style", "voc12"]
    assert run_cli([*arguments, "--out", str(tmp_path / EVIL)]) == 0
    checked(capsys)
    for path in (tmp_path / EVIL).rglob("*.csv"):
        assert not RAW.search(path.read_text())
