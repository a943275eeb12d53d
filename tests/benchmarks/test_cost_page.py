"""docs/cost.md lists the measured and estimated figures of every network."""

import json
import re
from pathlib import Path

import pytest

from striate.anatomy import trace
from striate.anatomy.limits import A100, EFFICIENCY, T4, seconds
from striate.models import MODELS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cost.md").read_text("utf-8")
RECORD = json.loads((ROOT / re.search(r"benchmarks/results/\S+_cost\.json", PAGE).group()).read_text())
ROWS = {
    row[0].strip("`"): row[1:]
    for row in (
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "| `" in line
    )
}


def number(cell):
    """`1,230`, `~4.56 M` as numbers."""
    text = cell.strip("~ M").replace(",", "")
    return float(text) * (1e6 if cell.endswith("M") else 1)


def test_every_network_is_listed():
    assert sorted(ROWS) == sorted(MODELS)
    measured = {row["model"] for row in RECORD["rows"]}
    for name, (size, *cpu) in ((name, row[:3]) for name, row in ROWS.items()):
        assert int(size) == MODELS[name].input_size
        assert [cell.startswith("~") for cell in cpu] == [name not in measured] * 2


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: row["model"])
def test_cpu_figures_are_the_measured_ones(row):
    _, training, prediction, *_ = ROWS[row["model"]]
    for cell, what in ((training, "training"), (prediction, "prediction")):
        assert number(cell) == pytest.approx(3600 * row[what], rel=5.1e-3)


@pytest.mark.parametrize(
    "name", ["lenet", "alexnet", "resnet50", "resnet1202", "mobilenet_v3_small", "vit_l_16"]
)
def test_gpu_figures_are_marked_as_estimates(name):
    anatomy = trace(name)
    cells = ROWS[name][3:]
    assert len(cells) == 4
    for cell, (gpu, training) in zip(cells, [(g, t) for g in (A100, T4) for t in (True, False)], strict=True):
        assert cell.startswith("~")
        assert number(cell) == pytest.approx(
            3600 * EFFICIENCY / seconds(anatomy, gpu, training=training), rel=5.1e-3
        )


def test_the_example_is_correct():
    hours = re.search(r"20 epochs: 200,000 passes, which one core makes in (\d+) hours", PAGE).group(1)
    (rate,) = [row["training"] for row in RECORD["rows"] if row["model"] == "resnet18"]
    assert int(hours) == round(200_000 / rate / 3600)
