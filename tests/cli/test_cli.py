"""The command line: what it prints where, its exit codes, and one line for each mistake."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import COLORS, ROOT, make_images

from striate import bundle, cli
from striate.csv_file import parse_csv, unescaped


@pytest.fixture
def striate(capfd):
    """Run a command line in this process; returns exit code, standard output and standard error."""

    def call(*argv):
        code = cli.run([str(a) for a in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_without_torch_the_commands_that_need_it_say_so(run, colors):
    """In one line, with the exit code of a mistake; the list of weights and the versions need none."""
    best, data = str(run.best), str(colors)
    commands = [
        ["predict", best, data], ["evaluate", best, data], ["train", data], ["anatomy", "lenet"],
        ["export", best], ["explain", best, data], ["embed", best, data, "--out", "x.npz"],
    ]  # fmt: skip
    code = f"""if True:
        import sys
        sys.modules["torch"] = sys.modules["matplotlib"] = sys.modules["sklearn"] = None
        from striate.cli import run
        print([run(words) for words in {commands!r}], run(["doctor"]), run(["weights", "list"]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{[2] * len(commands)} 0 0"
    assert done.stderr.splitlines() == [
        "striate: this needs torch: it is not installed here. Install Striate with its dependencies; without "
        "them it predicts with .onnx files"
    ] * len(commands)


@pytest.mark.parametrize(
    "command", ["", "train", "seq2seq train", "seq2seq evaluate", "anatomy", "detection"]
)
def test_help_is_quick_and_loads_no_torch(command):
    code = f"""if True:
        import sys
        from striate.cli import run
        run("{command} --help".split())
        print(*{{name.split(".")[0] for name in sys.modules}})
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "numpy", "PIL", "matplotlib", "sklearn", "yaml", "safetensors"}
    assert not heavy & set(out.splitlines()[-1].split())
    assert "Usage: striate" in out


def test_every_command_has_help(striate):
    for name, entry in cli.COMMANDS.items():
        paths = [[name]] if isinstance(entry, cli.Command) else [[name, sub] for sub in entry]
        for path in paths:
            code, out, err = striate(*path, "--help")
            assert (code, err) == (0, "")
            assert "Python:" in out, f"{path} has no one-line Python twin"


def test_the_help_lists_every_command(striate):
    _, out, _ = striate("--help")
    for name in cli.COMMANDS:
        assert f" {name} " in out


def test_no_arguments_show_the_help(striate):
    for argv in ([], ["weights"]):
        code, out, err = striate(*argv)
        assert (code, err) == (0, "")
        assert "Usage: striate" in out


def test_version(striate):
    assert striate("--version") == (0, "striate 0.1.0\n", "")


MISTAKES = [
    (["trian", "x"], 2, "unknown command 'trian': did you mean train?"),
    (["train"], 2, "no data to train on"),
    (
        ["train", "{colors}", "--model", "resnet81"],
        2,
        "unknown value for --model 'resnet81': did you mean resnet18",
    ),
    (["train", "{colors}", "--val", "0.7"], 2, "--val 0.7: it must be from 0 to 0.5"),
    (["train", "{colors}", "--sched", "noam"], 2, "unknown value for --sched 'noam'"),
    (["seq2seq", "train", "{tmp}/absent.tsv"], 3, "no such file"),
    (["seq2seq", "train", "{tmp}/file.txt", "--vocab-sise", "9"], 2, "--vocab-size"),
    (["seq2seq", "train", "{tmp}/file.txt", "--from", "en"], 2, "one is missing"),
    (["export", "{tmp}/file.txt"], 3, "no safetensors header"),
    (["train", "{colors}", "--batch", "0"], 2, "--batch 0: it must be from 1 to 10,000,000"),
    (["train", "{colors}", "--lr", "-1"], 2, "--lr -1.0: it must be above 0"),
    (
        ["train", "{colors}", "--label-smoothing", "2"],
        2,
        "--label-smoothing 2.0: it must be at least 0 and below 1",
    ),
    (["train", "{colors}", "--batch", "many"], 2, "--batch many: Invalid value"),
    (["train", "{colors}", "--epochs", "1", "-e", "three"], 2, "striate: -e three: Invalid value"),
    (["train", "{colors}", "--epochs", "1", "--epochs=three"], 2, "striate: --epochs three: Invalid value"),
    (["train", "{colors}", "--epoch", "3"], 2, "--epochs"),
    (["train", "{colors}", "--out", "{tmp}/runs", "--epochs"], 2, "'--epochs' requires an argument. See"),
    (["train", "{colors}", "--out", "{tmp}/runs", "--json=3"], 2, "'--json' does not take a value"),
    (["predict", "{best}", "x.png", "--tta"], 2, "'--tta' requires an argument"),
    (["view", "--port"], 2, "'--port' requires an argument. See `striate view --help`"),
    (["seq2seq", "train", "x.tsv", "-e"], 2, "'-e' requires an argument. See `striate seq2seq train --help`"),
    (["train", "{colors}", "--device", "gpux"], 2, "unknown device 'gpux'"),
    (["train", "{colors}", "--weights", "imagenett"], 2, "cannot start from 'imagenett': no such file"),
    (["train", "{tmp}/absent"], 3, "no such file or folder"),
    (["train", "{colors}", "--seed", str(2**64)], 2, "it must be from 0 to 18,446,744,073,709,551,615"),
    (["train", "{colors}", "--imgsz", "100000"], 2, "--imgsz 100000: it must be from 1 to 8192"),
    (["train", "x" * 300], 3, "file name too long"),
    (["train", "{colors}", "--out", "x" * 300], 3, "file name too long"),
    (["train", "{colors}", "--name", "x" * 300], 3, "file name too long"),
    (["train", "~nobody-of-that-name/data"], 3, "there is no folder '~nobody-of-that-name'"),
    (["train", "https://example.org/flowers.zip"], 3, "it is a web address"),
    (["evaluate", "{best}", "{colors}", "--out", "{tmp}/file.txt/x"], 3, "cannot write to"),
    (["export", "{best}", "--to", "state-dict", "--out", "{tmp}/w.onnx"], 2, "state-dict is not ONNX"),
    (["resume", "x" * 300], 3, "file name too long"),
    (["train", "{tmp}/single"], 3, "it has one class, 'only'"),
    (["train", "{tmp}/single/only"], 3, "6 images but no class folders"),
    (["train", "{colors}", "--out", "{tmp}/file.txt"], 3, "cannot write to"),
    (["evaluate", "{tmp}/absent.safetensors"], 3, "no such file"),
    (["evaluate", "{tmp}/file.txt"], 3, "no safetensors header"),
    (["evaluate", "{tmp}/seq2seq.safetensors", "{colors}"], 3, "trained for seq2seq"),
    (["evaluate", "{best}", "{tmp}/single"], 3, "the model knows blue, green, red"),
    (["evaluate", "{best}", "{colors}", "--split", "tets"], 2, "no split 'tets'"),
    (["evaluate", "{best}", "{colors}", "--batch", "0"], 2, "batch"),
    (["predict", "{best}"], 2, "argument 'IMAGE'"),
    (["predict", "{tmp}/file.txt", "{best}"], 2, "Give the model first: `striate predict"),
    (["seq2seq", "train", "{tmp}/file.txt", "--encoder-from", "{best}"], 3, "file.txt"),
    (["explore", "nearest", "{tmp}/empty", "x.png", "{best}"], 2, "first: `striate explore nearest"),
    (["predict", "{best}", "{tmp}/empty"], 3, "no images at"),
    (["predict", "{best}", "{tmp}/file.txt"], 3, "none of 1 images could be read"),
    (["predict", "{tmp}/seq2seq.safetensors", "x.png"], 3, "trained for seq2seq"),
    (["weights", "inspect", "{tmp}/file.txt"], 3, "no safetensors header"),
    (["weights", "inspct", "x"], 2, "inspct"),
]


@pytest.mark.parametrize(("argv", "exit_code", "says"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_and_an_exit_code(argv, exit_code, says, striate, colors, run, tmp_path):
    make_images(tmp_path / "single" / "only", 6, COLORS["red"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("a text, long enough to have a header of eight bytes")
    description, weights = bundle.read(run.best)
    bundle.write(tmp_path / "seq2seq.safetensors", weights, dataclasses.replace(description, task="seq2seq"))
    argv = [a.format(colors=colors, tmp=tmp_path, best=run.best) for a in argv]
    if argv[0] == "train" and "--out" not in argv:
        argv += ["--out", str(tmp_path / "runs")]
    code, _, err = striate(*argv)
    assert code == exit_code
    assert says in err
    assert err.startswith("striate: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_bug_is_reported_as_one(striate, monkeypatch):
    monkeypatch.setattr("striate.bundle.inspect", lambda path: 1 / 0)
    code, _, err = striate("weights", "inspect", "x")
    assert code == 70
    assert err.count("\n") == 1
    assert "internal error: ZeroDivisionError" in err
    assert "STRIATE_DEBUG=1" in err


def test_train_json(striate, colors, tmp_path):
    code, out, err = striate(
        *("train", colors, "--model", "lenet", "--epochs", 2, "-b", 8, "--json"),
        *("--out", tmp_path, "--name", "x"),
    )
    assert code == 0, err
    result = json.loads(out)
    assert result["run"] == str(tmp_path / "x")
    assert {"best", "last", "val_top1", "seconds", "images_per_second"} <= set(result)
    assert Path(result["best"]).is_file()
    assert Path(result["report"]).is_file()
    assert "epoch 2/2" in err


def test_find_lr(striate, colors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = SimpleNamespace(lr=0.02, lowest=0.2, to_json=lambda: {"lr": 0.02})
    monkeypatch.setattr("striate.training.lr_finder.find_lr", lambda task, config: found)
    monkeypatch.setattr("striate.report.lr_search.write_lr_search", lambda found: Path("lr.png"))
    code, out, _ = striate("train", colors, "--model", "lenet", "--find-lr")
    assert code == 0
    assert "next           the same command with --lr 0.02 instead of --find-lr" in out
    code, out, _ = striate("train", colors, "--model", "lenet", "--find-lr", "--json")
    assert json.loads(out) == {"lr": 0.02, "picture": "lr.png"}


def test_evaluate_json_and_report(striate, run, colors, tmp_path):
    code, out, _ = striate("evaluate", run.best, "--data", colors, "--json", "--out", tmp_path / "page")
    assert code == 0
    result = json.loads(out)
    assert result["n"] == 12
    assert result["top1"] == run.evaluation.top1
    assert set(result["per_class"]) == set(COLORS)
    assert result["top1_ci"][0] <= result["top1"] <= result["top1_ci"][1]
    assert {"top5", "ece"} <= set(result)
    assert Path(result["report"]).is_file()
    code, out, _ = striate("evaluate", run.training.folder)
    assert code == 0
    assert "of 12 test images" in out
    assert "95 % interval" in out


def test_evaluate_all_splits(striate, run, colors):
    code, out, err = striate("evaluate", run.training.folder, "--split", "all", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["split"], result["n"]) == ("all", 60)
    assert "including the data that the model was trained on" in result["notes"][0]


def test_predict_in_every_form(striate, run, colors, tmp_path, monkeypatch):
    bad = tmp_path / "bad [x].jpg"
    bad.write_text("no image")
    good = colors / "red" / "000.png"
    code, out, _ = striate("predict", run.best, good, bad, "--json", "-k", 2)
    assert code == 0
    first, second = json.loads(out)["results"]
    assert first["path"] == str(good)
    assert first["error"] is None
    assert first["top"][0]["class"] == "red"
    assert len(first["top"]) == 2
    assert second == {"path": str(bad), "error": "it is text, not an image", "top": []}

    code, out, _ = striate("predict", run.best, colors / "red", colors / "b*" / "00?.png", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 30
    assert {"path", "error", "class1", "probability1", "class3"} <= set(rows[0])
    assert all(row["class1"] in COLORS for row in rows)

    for top in (2, 5):  # failed images have as many columns, and there are only three classes
        code, out, _ = striate("predict", run.best, good, bad, "--csv", "--top", top)
        header, *rows = csv.reader(io.StringIO(out))
        assert (
            header[2:]
            == ["class1", "probability1", "class2", "probability2", "class3", "probability3"][: 2 * top]
        )
        assert [len(row) for row in rows] == [len(header)] * 2
        assert rows[1] == [str(bad), "it is text, not an image", *[""] * (len(header) - 2)]

    odd = tmp_path / 'a\n"b ,\r'
    shutil.copy(good, odd)
    for listed in (f"{good}\0{odd}\0", f"{odd.with_name('c.png')}\r\n{good}\r\n"):
        shutil.copy(good, odd.with_name("c.png"))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(listed))))
        code, out, err = striate("predict", run.best, "-", "--csv")
        rows = [[unescaped(field) for field in fields] for _, fields in parse_csv(out, "")][1:]
        paths = listed.rstrip("\0").split("\0") if "\0" in listed else listed.split("\r\n")[:-1]
        assert [row[0] for row in rows] == paths, err

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{good}\n\n{bad}\n"))
    code, out, _ = striate("predict", run.best, "-")
    lines = out.splitlines()
    assert "red " in lines[0]
    assert "cannot be read: it is text" in lines[1]


def test_weights_inspect(striate, run):
    code, out, _ = striate("weights", "inspect", run.best)
    assert code == 0
    for fact in ("lenet", "blue, green, red", bundle.inspect(run.best).weights_sha256, "32x32"):
        assert fact in out
    code, out, _ = striate("weights", "inspect", run.training.folder, "--json")
    result = json.loads(out)
    assert result["architecture"] == "lenet"
    assert result["classes"] == ["blue", "green", "red"]
    assert result["tensors"]["fc3.bias"] == {"dtype": "F32", "shape": [3]}
    assert result["metrics"]["test"]["n"] == 12


@pytest.mark.parametrize(
    ("words", "threads"),
    [
        (["predict", "x.onnx", "y.png"], "1"), (["predict", "X.ONNX", "y.png", "--json"], "1"),
        (["predict", "x.safetensors", "y.png"], None), (["check", "x.onnx"], None),
    ],
)  # fmt: skip
def test_numpy_starts_no_threads_for_an_onnx_file(words, threads, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    monkeypatch.setattr(cli, "_call", lambda argv: 0)
    assert cli.run(words) == 0
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"  # that of the user stays
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert cli.run(words) == 0
    assert os.environ.get("OPENBLAS_NUM_THREADS") == threads


def test_weights_inspect_loads_no_torch(run):
    command = f"from striate.cli import run; sys.exit(run(['weights', 'inspect', {str(run.best)!r}]))"
    code = f"import sys; sys.modules['torch'] = None; {command}"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def head(path):
    """The first line that is written to a pipe, which is then closed, as `head -n 1` does."""
    with path.open(encoding="utf-8") as reader:
        return reader.readline()


def test_a_closed_pipe_is_no_traceback(run, colors, tmp_path, warm):
    """Of more than a pipe holds one line is read."""
    os.mkfifo(tmp_path / "pipe")
    images = [colors / name for name in COLORS] * 20
    warm.start("predict", run.best, *images, stdout=tmp_path / "pipe", stderr=tmp_path / "stderr")
    assert "000.png" in head(tmp_path / "pipe")
    assert warm.end() > 0
    assert (tmp_path / "stderr").read_text("utf-8") == ""


@pytest.mark.parametrize("redirection", ["2>&-", ">&- 2>&-", "2>&1 | head -n 1"])
def test_closed_streams_are_no_traceback(colors, tmp_path, redirection, warm):
    streams = {
        "2>&-": {"stdout": tmp_path / "stdout", "stderr": None},
        ">&- 2>&-": {"stdout": None, "stderr": None},
        "2>&1 | head -n 1": {"stdout": tmp_path / "pipe", "stderr": tmp_path / "pipe"},
    }[redirection]
    os.mkfifo(tmp_path / "pipe")
    options = ["--model", "lenet", "--epochs", 1, "--batch", 8, "--name", "x", "--out", tmp_path]
    warm.start("train", colors, *options, **streams)
    printed = head(tmp_path / "pipe") if "head" in redirection else ""
    code = warm.end()
    if redirection == "2>&-":
        printed += streams["stdout"].read_text("utf-8")
    assert "Traceback" not in printed
    assert "internal" not in printed
    if "head" not in redirection:
        assert code == 0
        assert (tmp_path / "x" / "report.html").is_file()


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", ">&- 2>&-"])
def test_an_interpreter_that_is_born_with_closed_streams(redirection):
    command = f"{sys.executable} -m striate weights list {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("argv", "code"), [(["evaluate", "absent"], 3), (["train"], 2), (["evaluate", "x", "--batch", "y"], 2)]
)
def test_with_json_an_error_is_the_one_object(striate, argv, code):
    exit_code, out, err = striate(*argv, "--json")
    result = json.loads(out)["error"]
    assert exit_code == result["exit_code"] == code
    assert err == f"striate: {result['message']}\n"
    assert {"what", "why", "fix"} < set(result)


def test_the_network_is_that_of_the_weights(striate, run, colors, tmp_path):
    code, out, err = striate(
        *("train", colors, "--weights", run.best, "--epochs", 1, "-b", 8, "--json"),
        *("--out", tmp_path, "--name", "x"),
    )
    assert code == 0, err
    assert bundle.inspect(Path(json.loads(out)["best"])).description.architecture == "lenet"


def test_file_names_may_be_any_bytes(run, colors, tmp_path, warm):
    odd = tmp_path / "data" / os.fsdecode(b"bad\xff.png")
    try:
        shutil.copytree(colors, tmp_path / "data")
        (tmp_path / "data" / "red" / "000.png").rename(tmp_path / "data" / "red" / odd.name)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    printed = tmp_path / "printed"
    options = ["--model", "lenet", "--epochs", 1, "-b", 8, "--out", tmp_path, "--name", "x"]
    assert warm.run("train", tmp_path / "data", *options) == 0
    assert b"bad\xff.png" in (tmp_path / "x" / "split.csv").read_bytes()
    assert warm.run("evaluate", tmp_path / "x") == 0
    assert warm.run("predict", run.best, tmp_path / "data" / "red", stdout=printed) == 0
    assert b"bad\xff.png" in printed.read_bytes()
    printed.unlink()
    assert warm.run("predict", run.best, tmp_path / "data" / "red", "--json", stdout=printed) == 0
    results = json.loads(printed.read_text("utf-8", "surrogateescape"))["results"]
    assert any(os.fsencode(r["path"]).endswith(b"bad\xff.png") for r in results)


def test_demo(striate, tmp_path):
    started = time.monotonic()
    code, out, err = striate("demo", "--out", tmp_path)
    assert code == 0, err
    accuracy = float(out.split("accuracy  ")[1].split(" %")[0])
    assert accuracy >= 97
    assert time.monotonic() - started < 600  # a bound for a stuck one; `make demo` is measured by hand
    assert "striate train FOLDER" in out
    assert (tmp_path / "demo" / "report.html").is_file()
    assert len(list((tmp_path / "demo" / "samples").glob("*.png"))) == 5


def test_the_module_and_the_program_are_one():
    assert 'striate = "striate.__main__:main"' in (ROOT / "pyproject.toml").read_text("utf-8")
    done = subprocess.run([sys.executable, "-m", "striate", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("striate ")


def test_a_row_in_the_table_is_a_command(striate, monkeypatch):
    def hello(name: str) -> None:
        print(f"hello {name}")

    monkeypatch.setitem(sys.modules, "striate.cli.hello", SimpleNamespace(hello=hello))
    monkeypatch.setitem(cli.COMMANDS, "hello", cli.Command("hello:hello", "Say hello."))
    assert re.search(r"hello +Say hello\.", striate("--help")[1])
    assert striate("hello", "you") == (0, "hello you\n", "")
    assert "did you mean hello" in striate("helo")[2]
