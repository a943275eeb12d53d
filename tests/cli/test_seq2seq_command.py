"""`striate seq2seq train`, and runs on pairs in the other commands."""

import json

from text_runs import SMALL, outcome, train

from striate import cli
from striate.inference.translator import load_translator

FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def test_images_of_text_are_read(text_lines, tmp_path, capsys):
    """Trained, predicted, evaluated, and evaluated on the references of other images."""
    options = [
        "--width", "32", "--depth", "1", "--heads", "2", "--hidden", "64", "--epochs", "25", "--batch", "60",
        "--lr", "0.003", "--average", "0", "--imgsz", "16", "--dropout", "0", "--encoder-channels", "16",
    ]  # fmt: skip
    command = ["seq2seq", "train", str(text_lines), "--out", str(tmp_path), "--name", "marks"]
    code = cli.run([*command, *options, "--json", "--figures"])
    out, err = capsys.readouterr()
    assert code == 0, err
    values = json.loads(out)
    assert "1 image cannot be read and is left out" in err
    assert values["n"] == 10
    assert values["exact"] >= 0.9  # four marks are easy to tell apart
    for key in ("run", "best", "last", "bleu", "chrf", "cer", "wer"):
        assert key in values
    page = (tmp_path / "marks" / "report.html").read_text("utf-8")
    assert "Attention over the image" in page
    assert ">BLEU</span>" not in page  # of single marks it would be 0
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert (tmp_path / "marks" / "attention1.png").exists()
    image = str(text_lines.parent / "85.png")
    predict = ["predict", values["best"], image, str(text_lines.parent / "broken.png"), "--json"]
    assert cli.run(predict) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert results[0]["text"] == load_translator(values["best"]).translate([image]).results[0].text
    assert results[1]["error"]
    assert cli.run(["seq2seq", "evaluate", values["best"], str(text_lines), "--shuffled", "--json"]) == 0
    shuffled = json.loads(capsys.readouterr().out)["exact"]
    assert shuffled <= 1 - values["exact"] + 1e-9  # another mark, which only a wrong answer can equal


def test_a_finished_run_resumes_to_itself(reversed_words, tmp_path, capsys):
    """Without its report, which is then written; and with it, when nothing is left to do."""
    train(reversed_words, tmp_path)
    before = outcome(tmp_path / "run")
    assert cli.run(["resume", str(tmp_path / "run"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert "there is nothing left to train" in err
    assert json.loads(out)["epochs"] == SMALL["epochs"]
    assert (tmp_path / "run" / "report.html").exists()
    assert cli.run(["resume", str(tmp_path / "run"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["finished"], values["epochs"]) == (True, SMALL["epochs"])
    assert "val_error" in values
    assert outcome(tmp_path / "run") == before


def test_old_check_flag_is_the_sanity_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("striate.tasks.seq2seq.sanity_check.STEPS", 20)
    table = tmp_path / "coin.tsv"
    table.write_text("".join(f"{'abcdefgh'[i % 8]}\t{i:03}\n" for i in range(200)), "utf-8")
    assert cli.run(["seq2seq", "train", str(table), "--out", str(tmp_path), *FLAGS, "--check"]) == 4
    err = capsys.readouterr().err
    assert "--check is now called --sanity-check" in err
    assert "the sanity check failed" in err
