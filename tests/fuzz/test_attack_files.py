"""Small hostile files, each through every command that takes it: exit 3, one line, little memory and time."""

import shutil
from pathlib import Path

import pytest
from conftest import Messages, make_images
from exact_resume import start_and_crash
from harness import refused

from striate.api import resume_training

ATTACK = Path(__file__).parents[1] / "golden" / "attack"
BUNDLES = {
    "metadata_string": "__metadata__ must be an object of texts",
    "says_null": "its description is damaged (it is null, not an object)",
    "offsets_one": "'w' needs a list of sizes and two offsets",
    "dtype_missing": "'w' needs dtype, shape and data_offsets",
    "classes_numbers": "classes[0] is 1, not text",
    "arch_list": "architecture is ['lenet'], not text",
    "args_classes_1e9": "classes has 2 names, but the network has 1000000000 scores",
    "mobilenet_width_100": "classes has 2 names, but the network has 10 scores",
}


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles(tmp_path, name, capsys):
    file = ATTACK / f"{name}.safetensors"
    make_images(tmp_path / "data" / "a", 2, (9, 9, 200))
    image = tmp_path / "data" / "a" / "000.png"
    for arguments in (
        ["weights", "inspect", file], ["predict", file, image], ["evaluate", file, tmp_path / "data"],
        ["export", file, "--to", "state-dict", "--out", tmp_path / "out"],
    ):  # fmt: skip
        refused(arguments, capsys, BUNDLES[name])


def test_a_foreign_checkpoint_with_a_name_that_is_not_text(tmp_path, capsys):
    arguments = ["weights", "import", ATTACK / "pth_unicode.pth", "--out", tmp_path / "x.safetensors"]
    refused(arguments, capsys, "can't decode byte 0xf6")


def test_aliases_in_a_configuration(few_colors, tmp_path, capsys):
    run = start_and_crash(few_colors, tmp_path, 5)  # after the first epoch, so that there is a bundle
    shutil.copy(ATTACK / "config_alias_bomb.yaml", run / "config.yaml")
    for command in ("resume", "evaluate"):
        refused([command, run], capsys, "config.yaml:3: the file is damaged: it has an alias")


@pytest.mark.parametrize("byte", [0, 3, 7])
def test_a_flipped_bit_in_the_length_of_the_newest_checkpoint(few_colors, tmp_path, byte):
    run = start_and_crash(few_colors, tmp_path, 5)
    newest = sorted(run.glob("state/0*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[byte] ^= 1
    newest.write_bytes(content)
    messages = Messages()
    resume_training(run, messages)
    assert f"{newest} is damaged" in messages.warnings[0]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.yaml", "device: null\n", "config.yaml:3: device is null, not text"),
        ("config.yaml", "data: null\n", "'data' is there twice"),
        ("config.yaml", "seed: " + "9" * 5000, "config.yaml:3: the file is damaged: the value of 'seed'"),
        ("split.csv", None, "split.csv:1: it is empty"),
        ("split.csv", "utf-16", "split.csv:1: it contains a zero byte"),
        ("state/data.csv", None, "state/data.csv"),
        ("split.csv", "cut", "split.csv"),
    ],
)
def test_damaged_files_of_a_run(few_colors, tmp_path, capsys, name, content, why):
    run = start_and_crash(few_colors, tmp_path, 5)
    path = run / name
    whole = path.read_text("utf-8")
    if name == "config.yaml":
        path.write_text(f"task: classification\ndata: {few_colors}\n{content}", "utf-8")
    elif content == "cut":
        path.write_text("\n".join(whole.splitlines()[:7]) + "\n", "utf-8")
        why = "split.csv:8: the file ends after 7 of the 37 lines that the run wrote"
    else:
        path.write_bytes(whole.encode("utf-16") if content else b"")
    refused(["resume", run], capsys, why if name == "config.yaml" or content == "cut" else path.name)
    if name != "state/data.csv":
        refused(["evaluate", run], capsys, why)
