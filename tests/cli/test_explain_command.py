"""`striate explain`."""

import json

import numpy as np
from PIL import Image

from striate.cli import run as striate


def test_figures_and_lines(run, colors, tmp_path, capsys):
    image = str(next((colors / "blue").iterdir()))
    out = tmp_path / "figures"
    assert striate(["explain", str(run.best), image, "--out", str(out), "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{image}  blue")
    assert lines[1].split()[0] == "map"
    assert "on the weights (rank correlation" in lines[2]
    with Image.open(out / "000-grad-cam.png") as figure:
        assert figure.size == (456, 224)


def test_json_and_arrays_of_a_folder(run, few_colors, tmp_path, capsys):
    """Images of one name in several folders get files of their own; a broken one gets its reason."""
    folder = tmp_path / "images"
    for name in ("red", "blue"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes((few_colors / name / "000.png").read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ["--method", "layer-cam", "--no-test", "--numpy", "--json", "--out", str(tmp_path / "out")]
    assert striate(["explain", str(run.best), str(folder), *words]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    broken = [result["path"] for result in results if result["error"] is not None]
    assert broken == [str(folder / "broken.png")]
    good = [result for result in results if result["error"] is None]
    assert [result["class"] for result in good] == ["blue", "red"]
    assert [result["faithfulness"] for result in good] == [None, None]
    maps = [np.load(result["files"]["map"]) for result in good]
    assert [values.shape for values in maps] == [(28, 28), (28, 28)]
    assert len({result["files"]["figure"] for result in good}) == 2


def test_errors(run, few_colors, tmp_path, capsys):
    image = str(few_colors / "red" / "000.png")
    assert striate(["explain", str(run.best), image, "--method", "grad"]) == 2
    assert "unknown method 'grad': did you mean grad-cam" in capsys.readouterr().err
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = ["--out", str(tmp_path / "out")]
    assert striate(["explain", str(run.best), str(tmp_path / "broken.png"), *out]) == 3
    assert "none of 1 images could be read" in capsys.readouterr().err
    long = tmp_path / f"{80 * '字'}.png"  # 244 bytes: nearly the limit of a file's name
    long.write_bytes((few_colors / "red" / "000.png").read_bytes())
    slow = ["--method", "integrated-gradients", "--samples", "1", "--no-test"]
    assert striate(["explain", str(run.best), str(long), *slow, *out]) == 0
    assert f"{tmp_path}/out/{55 * '字'}-integrated-gradients.png" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert striate(["explain", str(run.best), image, "--out", str(tmp_path / "file")]) == 3
    assert "cannot write" in capsys.readouterr().err


def test_texts_of_a_text_model(text_run, tmp_path, capsys):
    model, out = str(text_run.folder), str(tmp_path / "out")
    assert striate(["explain", model, "abc", "dcba", "--out", out, "--numpy", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["source"] for result in results] == ["abc", "dcba"]
    with np.load(results[1]["files"]["map"]) as arrays:
        assert arrays["cross"].shape[2] == len(results[1]["tokens"])
    assert striate(["explain", model, "abc", "--out", out]) == 0
    assert "  ->  " in capsys.readouterr().out
    assert striate(["explain", model, "", "--out", out]) == 3
    said = capsys.readouterr()
    assert "cannot be explained: it is empty" in said.out
    assert "none of 1 sources could be explained" in said.err
    assert striate(["explain", model, "abc", "--method", "rise"]) == 2
    assert "--method with a seq2seq model" in capsys.readouterr().err
