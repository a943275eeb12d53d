"""docs/weights.md: its examples run, its recipes open files saved elsewhere, its message is torch's."""

import re
from pathlib import Path

import pytest
import torch
from checkpoint_files import FORMATS, same, tagged, tensors

from striate import bundle, models
from striate.bundle import Description
from striate.transforms.preprocess import Preprocess

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text("utf-8")
RECIPES = re.findall(
    r"^\| (CPU|GPU.*?) \| (CPU|GPU.*?) \| `(torch\.load.*?)`.*? \| `(striate\.load.*?)` \|$", PAGE, re.M
)


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = models.build("lenet", num_classes=2)
    description = Description(
        "classification", "lenet", {"num_classes": 2}, ("a", "b"), Preprocess.for_size(32)
    )
    bundle.write("model.safetensors", network, description)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "docs/weights.md", "exec"), names)
    assert names["state"].keys() == network.state_dict().keys()
    assert names["model"].classes == ("a", "b")


def test_there_are_the_four_recipes():
    assert [row[:2] for row in RECIPES] == [
        ("CPU", "CPU"),
        ("CPU", "GPU"),
        ("GPU 1", "GPU 0"),
        ("GPU", "CPU"),
    ]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("row", RECIPES, ids=lambda row: f"{row[0]} to {row[1]}")
def test_the_recipes_with_torch(tmp_path, row, kind):
    saved_on, used_on, code, _ = row
    if used_on != "CPU" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    path = tagged(tmp_path / "w.pth", kind, {"CPU": "cpu", "GPU": "cuda:0", "GPU 1": "cuda:1"}[saved_on])
    state = eval(code, {"torch": torch, "path": path})["state_dict"]
    assert {tensor.device.type for tensor in state.values()} == {"cpu" if used_on == "CPU" else "cuda"}
    assert same({name: tensor.cpu() for name, tensor in state.items()}, tensors())


def test_the_message_is_torchs(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(RuntimeError) as caught:
        torch.load(tagged(tmp_path / "w.pth", "zip"), weights_only=True)
    quoted = " ".join(line[2:] for line in PAGE.splitlines() if line.startswith("> "))
    assert quoted == f"RuntimeError: {caught.value}"
