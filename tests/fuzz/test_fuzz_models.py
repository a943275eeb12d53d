"""Damaged bundles, foreign checkpoints, configurations, splits and checkpoints of runs."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from exact_resume import start_and_crash
from harness import fuzz, mutated

import striate
from striate import bundle, models, tensor_file
from striate.bundle import Description
from striate.csv_file import csv_bytes
from striate.data.images.tables import read_split
from striate.data.text.tokens import Tokenizer
from striate.models.seq2seq import build
from striate.tasks import data_table, entry
from striate.tasks.classification.config import ClassificationConfig
from striate.tasks.classification.data import read_problems
from striate.tasks.seq2seq.samples import read_samples
from striate.training import checkpoint
from striate.training.config_file import config_text, read_config
from striate.training.facts import require_valid
from striate.transforms.preprocess import Preprocess
from striate.weights.foreign import read_foreign

IMAGE = np.full((40, 36, 3), 99, np.uint8)


def classifier_bundle(path):
    torch.manual_seed(0)
    description = Description(
        "classification", "lenet", {"num_classes": 3, "in_channels": 3, "input_size": [32, 32]},
        ("a", "b", "ç"), Preprocess.for_size(32), {"val_top1": 0.5}, {"data": "x", "seed": 0},
    )  # fmt: skip
    bundle.write(path, models.build("lenet", num_classes=3), description)


def translator_bundle(path):
    torch.manual_seed(0)
    source, target = Tokenizer("characters", tuple("abc")), Tokenizer("words", ("x", "y"))
    arguments = {
        "source_vocab": len(source), "target_vocab": len(target), "width": 8, "depth": 1, "heads": 2,
        "hidden": 8, "dropout": 0.1, "positions": "sinusoidal", "max_length": 64, "tied": "target",
    }  # fmt: skip
    text = {
        "source": source.to_json(), "target": target.to_json(), "ratio": 1.5, "longest": 9,
        "ids": {"source": len(source), "target": len(target)}, "digests": [source.digest, target.digest],
    }  # fmt: skip
    description = Description("seq2seq", "text_to_text", arguments, (), None, {}, {"seed": 0}, text)
    bundle.write(path, build("text_to_text", **arguments), description)


def without_checksums(path):
    """The content of a bundle of an earlier version."""
    header = tensor_file.read_header(path, "")
    metadata = {name: text for name, text in header.metadata.items() if name != tensor_file.CHECKSUMS}
    return tensor_file.header_bytes(header.table, metadata) + path.read_bytes()[header.start :]


def use(path):
    """Everything that is done with a bundle."""
    bundle.is_bundle(path)
    bundle.inspect(path)
    model = striate.load(path, device="cpu")
    if model.description.task == "seq2seq":
        model.translate(["abcab"])
    else:
        model.predict(IMAGE)


@pytest.mark.parametrize("make", [classifier_bundle, translator_bundle])
def test_bundles(tmp_path, make):
    path = tmp_path / "x.safetensors"
    make(path)
    seeds = [path.read_bytes(), without_checksums(path)]

    def read(content):
        path.write_bytes(content)
        use(path)

    fuzz(f"bundle, {make.__name__}", seeds, read, count=20)


def test_foreign_checkpoints(tmp_path):
    path = tmp_path / "x.pth"
    state = models.build("lenet", num_classes=3).state_dict()
    seeds = []
    for content, options in (
        (state, {}), ({"state_dict": state, "epoch": 3}, {}),
        (state, {"_use_new_zipfile_serialization": False}),
    ):  # fmt: skip
        file = io.BytesIO()
        torch.save(content, file, **options)
        seeds.append(file.getvalue())
    table = tensor_file.encode(state, {})
    seeds.append(b"".join(bytes(piece) for piece in table))

    def read(content):
        path.write_bytes(content)
        read_foreign(path, None)

    fuzz("foreign checkpoint", seeds, read, count=60)


def test_configurations(tmp_path):
    values = ClassificationConfig("digits", model="lenet").to_json()
    classification = config_text({"format": 3, "data": "digits", **values}).encode()
    seq2seq = config_text(
        {"format": 3, **entry("seq2seq").find("config")("pairs.tsv", languages=("en", "de")).to_json()}
    ).encode()

    def read(content):
        (tmp_path / "config.yaml").write_bytes(content)
        read_config(tmp_path, lambda task: entry(task).find("config"))

    fuzz("config.yaml", [classification, seq2seq], read, count=40)


def test_tables_of_runs(tmp_path):
    (tmp_path / "state").mkdir()
    rows = [(f"/x/{i}.png", "cat" if i % 2 else "dog, big", ("train", "val")[i % 2]) for i in range(20)]
    seeds = {
        "split.csv": csv_bytes(("path", "label", "split"), rows),
        "problems.csv": csv_bytes(("path", "reason"), [("/x/1.png", 'not an "image"')] * 5),
        "samples.csv": csv_bytes(("epoch", "source", "reference", "answer"), [("1", "a", "b", "c")] * 5),
        "state/data.csv": csv_bytes(
            ("split", "name", "class", "bytes", "mark", "inode", "changed"),
            [("train", f"a/{i}.png", "a", 100, 10**18, 77, 10**18) for i in range(9)],
        ),
    }

    def read(content):
        name, _, content = content.partition(b"\0\0")
        (tmp_path / name.decode()).write_bytes(content)
        if name == b"split.csv":
            read_split(tmp_path / "split.csv")
        elif name == b"problems.csv":
            read_problems(tmp_path)
        elif name == b"samples.csv":
            read_samples(tmp_path)
        else:
            data_table.changes(tmp_path, ())

    def mutate(content, rng):
        name, _, content = content.partition(b"\0\0")
        return name + b"\0\0" + mutated(content, rng)

    fuzz("tables", [f"{name}\0\0".encode() + c for name, c in seeds.items()], read, mutate=mutate)


def test_checkpoints(few_colors, tmp_path):
    run = start_and_crash(few_colors, tmp_path, 3)
    (newest,) = sorted(run.glob("state/0*.safetensors"))[-1:]
    seed = newest.read_bytes()
    header = tensor_file.read_header(newest, "")
    text = json.loads(header.metadata["striate-state"])

    def read(content):
        newest.write_bytes(content)
        require_valid(checkpoint.read(newest), ClassificationConfig)

    fuzz("checkpoint", [seed], read)
    newest.write_bytes(seed)
    tensors = tensor_file.read_tensors(newest, header)

    def read_signed(content):
        """With a checksum that is right, so that what it says is looked at."""
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            return
        if isinstance(values, dict) and isinstance(values.get("values"), dict):
            values["values"]["step"] = 9
            checkpoint.write(run, tensors, values["values"], values.get("facts"))
            require_valid(checkpoint.read(run / "state" / "000000000009.safetensors"), ClassificationConfig)

    fuzz("checkpoint with a valid checksum", [json.dumps(text).encode()], read_signed, count=80)
    shutil.rmtree(run)
