"""`striate check`: what it prints, its exit codes, and its page."""

import json
import re

import pytest
from conftest import COLORS, make_images

from striate import cli
from striate.csv_file import parse_csv
from striate.data.check import KINDS


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two classes; one file of one stands in the other too, under a name that is markup."""
    for name in ("blue", "red"):
        make_images(tmp_path / "data" / name, 25, COLORS[name], size=(64, 48))
    picture = (tmp_path / "data" / "red" / "000.png").read_bytes()
    (tmp_path / "data" / "blue" / "[b]<script>'.png").write_bytes(picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def test_what_is_printed(data, capfd):
    assert cli.run(["check", "data"]) == 1
    out, _ = capfd.readouterr()
    assert out.startswith("51 images, 2 classes")
    assert "serious The same image in two classes: 1 group, 2 images" in out
    assert "data/blue/[b]<script>'.png [blue]  (equal files)" in out
    assert f"-> {KINDS['conflicting-labels'].advice}" in out
    assert "report  runs/check-data.html" in out


def test_json_has_every_item(data, capfd):
    assert cli.run(["check", "data", "--json", "--no-page"]) == 1
    result = json.loads(capfd.readouterr().out)
    assert (result["n"], result["serious"], result["report"]) == (51, True, None)
    (finding,) = result["findings"]
    assert {"kind", "severity", "title", "advice", "count", "groups", "items"} == set(finding)
    assert [(i["path"], i["class"], i["split"], i["group"]) for i in finding["items"]] == [
        ("data/blue/[b]<script>'.png", "blue", None, 0),
        ("data/red/000.png", "red", None, 0),
    ]
    assert not (data.parent / "runs").exists()


def test_problems_as_csv(data, capfd):
    assert cli.run(["check", "data", "--no-page", "--csv", "problems.csv"]) == 1
    assert "csv     problems.csv" in capfd.readouterr().out
    text = (data.parent / "problems.csv").read_bytes().decode()
    _, copy, original = (fields for _, fields in parse_csv(text, "problems.csv"))
    assert copy == [
        str(data / "blue" / "[b]<script>'.png"), "conflicting-labels", "serious", "blue", "", "equal files",
        "1",
    ]  # fmt: skip
    assert original[0] == str(data / "red" / "000.png")
    assert cli.run(["check", "data", "--csv", "problems.csv", "--json", "--no-page"]) == 1
    assert json.loads(capfd.readouterr().out)["csv"] == "problems.csv"


def test_images_with_several_classes(data, capfd):
    names = [path.relative_to(data.parent) for path in sorted(data.glob("*/0*.png"))]
    rows = "".join(f"{name},{('', 'red;blue', 'red')[i % 3]}\n" for i, name in enumerate(names))
    rows += "data/blue/[b]<script>'.png,red\n"  # a copy of an image of both classes
    (data.parent / "t.csv").write_text(f"path,label\n{rows}")
    assert cli.run(["check", "t.csv", "--out", "page.html"]) == 1
    line = "1.0 classes for each image on average, at most 2; 17 images have none"
    out = capfd.readouterr().out
    assert line in out
    assert "[blue;red]" in out
    assert line in (data.parent / "page.html").read_text()
    assert cli.run(["check", "t.csv", "--no-multi-label", "--no-page"]) == 3
    assert "the row has no label" in capfd.readouterr().err


def test_columns_of_a_table(data, capfd):
    rows = "".join(f"{path},{path.parent.name}\n" for path in sorted(data.glob("*/0*.png")))
    (data.parent / "t.csv").write_text(f"photo,colour\n{rows}")
    argv = ["check", "t.csv", "--no-page", "--path-column", "photo", "--label-column"]
    assert cli.run([*argv, "colour"]) == 0
    assert "50 images, 2 classes" in capfd.readouterr().out
    assert cli.run([*argv, "color"]) == 2
    assert "did you mean 'colour'? Its columns are 'photo', 'colour'" in capfd.readouterr().err


def test_nothing_serious_is_zero(data, capfd):
    (data / "blue" / "[b]<script>'.png").unlink()
    before = sorted(data.rglob("*"))
    assert cli.run(["check", "data", "--out", "page.html"]) == 0
    assert "no findings" in capfd.readouterr().out
    assert "No problems found" in (data.parent / "page.html").read_text("utf-8")
    assert sorted(data.rglob("*")) == before


def test_the_page_is_whole_and_names_are_no_markup(data, capfd):
    (data / "red" / "x.png").write_bytes(b"")
    cli.run(["check", "data"])
    page = (data.parent / "runs" / "check-data.html").read_text("utf-8")
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert "not readable" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert page.count("<script") == 2  # the translations and the script of all pages
    assert "[b]&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["check"], 2, "argument 'DATA'"),
        (["check", "absent"], 3, "no such file or folder"),
        (["check", "data", "--out", "data/red/000.png/x.html"], 3, "cannot write"),
    ],
)
def test_mistakes(data, capfd, argv, code, says):
    assert cli.run(argv) == code
    err = capfd.readouterr().err
    assert says in err
    assert err.count("\n") == 1
