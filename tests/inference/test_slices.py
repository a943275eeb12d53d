"""Slices against scipy's exact test, and groups that are known."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import fisher_exact

from striate import cli
from striate.errors import UsageError
from striate.inference.slices import fisher, slices


@pytest.mark.parametrize(
    ("right", "n", "all_right", "n_all"),
    [(3, 10, 80, 100), (10, 10, 80, 100), (0, 1, 5, 9), (40, 50, 400, 500)],
)
def test_the_p_value_is_scipys(right, n, all_right, n_all):
    table = [[right, n - right], [all_right - right, n_all - n - all_right + right]]
    assert fisher(right, n, all_right, n_all) == pytest.approx(fisher_exact(table).pvalue, rel=1e-6)


def test_dark_images_are_found():
    rng = np.random.default_rng(0)
    level = rng.permutation(np.repeat([20, 90, 160, 230], 50))
    images = np.clip(level[:, None, None, None] + rng.integers(-9, 9, (200, 8, 8, 3)), 0, 255).astype(
        np.uint8
    )
    right = np.where(level == 20, rng.random(200) < 0.4, rng.random(200) < 0.95)
    (worst, *others), remarks = slices(
        [f"{i}.png" for i in range(200)], right, images, ["brightness", "sharpness", "size"]
    )
    assert (worst.by, worst.n) == ("brightness", 50)
    assert worst.top1 == right[level == 20].mean()
    assert worst.top1_ci[0] < worst.top1 < worst.top1_ci[1]
    assert worst.p < 1e-6
    assert {one.by for one in others} == {"brightness", "sharpness"}  # these are not files
    assert [one.top1 for one in others] == sorted(one.top1 for one in others)
    assert remarks == ("no slices by size: it is not known of these images",)


def test_the_sizes_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, width in (("a", 100), ("b", 100), ("c", 2000), ("d", 3000)):
        Image.new("L", (width, 20)).save(f"{name}.png")
    found, remarks = slices(["a.png", "b.png", "c.png", "d.png"], np.array([1, 0, 1, 1], bool), None, "size")
    assert {one.value: one.n for one in found} == {"2,000 px": 2, "40,000 px": 1, "60,000 px": 1}
    assert remarks == ()
    for many, one in (("a", "d"), ("d", "a")):
        names = [f"{many}.png"] * 7 + [f"{one}.png"]
        found, remarks = slices(names, np.ones(8, bool), None, "size")
        assert (sorted(part.n for part in found), remarks) == ([1, 7], ())
    found, (remark,) = slices(["a.png", "b.png"], np.array([True, False]), None, ["size"])
    assert (found, remark) == ((), "no slices by size: all images have the same value, 2,000 px")


def test_a_column_of_the_table(run, colors, tmp_path, capfd):
    rows = [
        f"{path},{path.parent.name},{'A' if i % 3 else 'B'}"
        for i, path in enumerate(sorted(colors.rglob("*.png")))
    ]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(["path,label,Camera", *rows]) + "\n", "utf-8")
    argv = ["evaluate", str(run.best), str(table), "--slice-by", "Camera,size"]
    assert cli.run([*argv, "--json", "--out", str(tmp_path / "page")]) == 0
    found = json.loads(capfd.readouterr().out)["slices"]
    assert {(s["by"], s["value"]): s["n"] for s in found if s["by"] == "Camera"} == {
        ("Camera", "A"): sum(row.endswith(",A") for row in rows),
        ("Camera", "B"): sum(row.endswith(",B") for row in rows),
    }
    assert not any(s["by"] == "size" for s in found)  # all have the same
    assert cli.run([*argv[:3], "--slice-by", "Camera,size"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line[-6:] for line in lines if line.startswith("Camera A")] == ["(Holm)"]  # not broken
    assert any("note: no slices by size: all images have the same value" in line for line in lines)
    assert ">Slices<" in (tmp_path / "page" / "report.html").read_text("utf-8")
    assert cli.run(["evaluate", str(run.best), str(colors), "--slice-by", "camera"]) == 2
    assert "it is a column, and the data are no table" in capfd.readouterr().err
    with pytest.raises(UsageError, match="names none of the images"):
        slices(["x.png"], np.ones(1, bool), None, ["camera"], str(table))
