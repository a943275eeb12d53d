"""Small data and runs of sequence to sequence; conftest.py imports the fixtures for all tests."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from striate import api, bundle
from striate.progress import Progress
from striate.tasks.seq2seq.config import Seq2SeqConfig

SMALL = {
    "width": 32, "depth": 1, "heads": 2, "hidden": 64, "batch": 400, "epochs": 3, "save_every": 3,
    "average": 2, "dropout": 0.1, "lr": 3e-3, "name": "run",
}  # fmt: skip


class Messages(Progress):
    """Keeps what a run reports."""

    def __init__(self):
        self.infos, self.warnings, self.stages = [], [], []

    def begin(self, stage, total, unit="images"):
        self.stages.append(stage)

    def info(self, message):
        self.infos.append(message)

    def warn(self, message):
        self.warnings.append(message)


def write_reversed_words(path: Path, count: int = 160) -> Path:
    """A table of random words and the same words backwards."""
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(list("abcd"), rng.integers(2, 7))) for _ in range(count)})
    path.write_text("".join(f"{word}\t{word[::-1]}\n" for word in words), "utf-8")
    return path


def write_text_lines(root: Path) -> Path:
    """Images of one of four marks, at different places and of different widths; one file is unreadable."""
    rng = np.random.default_rng(1)
    rows = ["path,text,split"]
    for i in range(90):
        mark, x = i % 4, int(rng.integers(2, 12))
        image = Image.new("L", (x + int(rng.integers(16, 30)), 16), 255)
        draw = ImageDraw.Draw(image)
        if mark != 1:
            draw.rectangle((x + 5, 1, x + 8, 14), fill=0)
        if mark != 0:
            draw.rectangle((x, 6, x + 13, 9), fill=0)
        if mark == 3:
            draw.rectangle((x, 1, x + 13, 14), fill=0)
        image.save(root / f"{i}.png")
        split = "train" if i < 70 else "val" if i < 80 else "test"
        rows.append(f"{i}.png,{'|-+#'[mark]},{split}")
    (root / "broken.png").write_bytes(b"no image")
    rows.append("broken.png,x,train")
    (root / "lines.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return root / "lines.csv"


def config(data, out, **options) -> Seq2SeqConfig:
    return Seq2SeqConfig(str(data), out=str(out), **{**SMALL, **options})


def train(data, out, progress=None, **options):
    """Train without the final evaluation."""
    return api.run_training(config(data, out, progress=progress or Messages(), **options))


def outcome(folder: Path):
    """What must be equal: weights, all columns of results.csv except times, and the sample answers."""
    digests = [bundle.inspect(folder / f"{name}.safetensors").weights_sha256 for name in ("last", "best")]
    return digests, rows(folder), (folder / "samples.csv").read_bytes()


def rows(folder: Path) -> list[dict[str, str]]:
    """results.csv without its times."""
    with (folder / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


@pytest.fixture(scope="session")
def reversed_words(tmp_path_factory) -> Path:
    """A table of words and their reversals."""
    return write_reversed_words(tmp_path_factory.mktemp("pairs") / "reversed.tsv")


@pytest.fixture(scope="session")
def text_lines(tmp_path_factory) -> Path:
    """A table of images and the marks in them."""
    return write_text_lines(tmp_path_factory.mktemp("lines"))


@pytest.fixture(scope="session")
def text_run(reversed_words, tmp_path_factory):
    """An uninterrupted run on the reversed words; `config.progress` has its messages."""
    return train(reversed_words, tmp_path_factory.mktemp("text run"))
